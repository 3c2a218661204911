//! From a stored envelope to the flat message that a handler is given.
//!
//! Never fails: what cannot be read is absent, and the raw element is always there.

use serde_json::Value;
use serde_json::value::RawValue;

use super::decode::phone;
use super::json::{self, Object};
use super::kind;
use crate::model::{EventKey, Media, Message};

/// The types whose object is an attachment.
const MEDIA: [&str; 5] = ["image", "video", "audio", "document", "sticker"];

/// Reads the one message of an envelope that was made when its delivery was decoded.
///
/// An envelope of any other origin that holds no message gives one of kind `unknown` with an
/// empty id, whose `raw` is `null`.
pub fn parse(key: EventKey, envelope: String) -> Message {
    let value = value(&envelope);
    let raw = value.as_ref().and_then(|value| first(value, "messages"));
    let element = raw.and_then(json::object);
    let contact = value
        .as_ref()
        .and_then(|value| first(value, "contacts"))
        .and_then(json::object);
    let read = read(key, element.as_ref(), contact.as_ref());
    let raw = raw.unwrap_or(RawValue::NULL).to_owned();
    Message {
        raw,
        envelope,
        ..read
    }
}

/// What stands between a message's id and the epoch of an attempt, in an id of ours. It is no
/// sign of base64, which Meta's ids are written in.
const EPOCH: char = '~';

/// The envelope with another id for its message, made from Meta's and the epoch of an attempt.
pub fn renamed(envelope: &str, id: &str, epoch: i64) -> String {
    let Ok(mut body) = serde_json::from_str::<Value>(envelope) else {
        return envelope.to_owned();
    };
    let place = "/entry/0/changes/0/value/messages/0/id";
    match body.pointer_mut(place) {
        Some(found) if found.as_str() == Some(id) => {
            *found = Value::from(format!("{id}{EPOCH}{epoch}"));
            body.to_string()
        }
        _ => envelope.to_owned(),
    }
}

/// Meta's id of a message, whether it is that or one made from it by [`renamed`].
pub fn original_id(id: &str) -> &str {
    match id.rsplit_once(EPOCH) {
        Some((original, epoch))
            if !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            original
        }
        _ => id,
    }
}

fn value(envelope: &str) -> Option<Object<'_>> {
    let root = json::parse(envelope)?;
    let entry = json::object(first(&root, "entry")?)?;
    let change = json::object(first(&entry, "changes")?)?;
    change.object("value")
}

fn first<'a>(object: &Object<'a>, array: &str) -> Option<&'a RawValue> {
    object.array(array)?.first().copied()
}

/// Everything but `raw` and `envelope`.
fn read(key: EventKey, element: Option<&Object<'_>>, contact: Option<&Object<'_>>) -> Message {
    let empty = Object::default();
    let element = element.unwrap_or(&empty);
    let contact = contact.unwrap_or(&empty);
    let kind = kind::of(element);
    let content = Content::of(kind, element);
    let context = element.object("context").unwrap_or_default();
    let wa_id = || contact.text("wa_id").as_ref().and_then(phone);
    let from = element.text("from").as_ref().and_then(phone);
    Message {
        id: text(element, "id").unwrap_or_default(),
        kind: kind.to_owned(),
        from: from.or_else(wa_id),
        from_user_id: text(element, "from_user_id").or_else(|| text(contact, "user_id")),
        name: contact
            .object("profile")
            .and_then(|profile| text(&profile, "name")),
        timestamp: element.timestamp("timestamp").map(|at| at.as_seconds()),
        text: content.text,
        reply_to: content.about.or_else(|| text(&context, "id")),
        button: content.button,
        media: content.media,
        forwarded: context.is_true("forwarded") || context.is_true("frequently_forwarded"),
        raw: RawValue::NULL.to_owned(),
        key,
        envelope: String::new(),
    }
}

/// What stands in the object that is named by the message's type.
#[derive(Default)]
struct Content {
    text: Option<String>,
    button: Option<String>,
    media: Option<Media>,
    /// The message that is reacted to, edited or revoked.
    about: Option<String>,
}

impl Content {
    fn of(kind: &str, element: &Object<'_>) -> Self {
        let object = element.object(kind).unwrap_or_default();
        match kind {
            "text" => Self::said(text(&object, "body")),
            "order" => Self::said(text(&object, "text")),
            "button" => Self {
                button: text(&object, "payload"),
                ..Self::said(text(&object, "text"))
            },
            "interactive" => Self::of_interactive(&object),
            "reaction" => Self {
                about: text(&object, "message_id"),
                ..Self::said(text(&object, "emoji"))
            },
            "edit" => Self {
                about: text(&object, "original_message_id"),
                ..Self::of_edited(&object.object("message").unwrap_or_default())
            },
            "revoke" => Self {
                about: text(&object, "original_message_id"),
                ..Self::default()
            },
            kind if MEDIA.contains(&kind) => Self {
                media: media(&object),
                ..Self::said(text(&object, "caption"))
            },
            _ => Self::default(),
        }
    }

    fn said(text: Option<String>) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }

    /// Only what an edit can hold: an edit of an edit would be read without end.
    fn of_edited(message: &Object<'_>) -> Self {
        match kind::of(message) {
            kind if kind == "text" || MEDIA.contains(&kind) => Self::of(kind, message),
            _ => Self::default(),
        }
    }

    fn of_interactive(interactive: &Object<'_>) -> Self {
        let Some(subtype) = interactive.text("type").map(|subtype| subtype.to_text()) else {
            return Self::default();
        };
        let reply = interactive.object(&subtype).unwrap_or_default();
        match subtype.as_str() {
            "button_reply" | "list_reply" => Self {
                button: text(&reply, "id"),
                ..Self::said(text(&reply, "title"))
            },
            "nfm_reply" => Self::said(text(&reply, "body")),
            _ => Self::default(),
        }
    }
}

fn media(object: &Object<'_>) -> Option<Media> {
    Some(Media {
        id: text(object, "id")?,
        mime_type: text(object, "mime_type"),
        sha256: text(object, "sha256"),
        filename: text(object, "filename"),
        voice: object.is_true("voice"),
    })
}

fn text(object: &Object<'_>, name: &str) -> Option<String> {
    object.text(name).map(|text| text.to_text())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(element: &Value, expected: &Value) {
        let contact = json!({"wa_id": "4915", "user_id": "DE.1", "profile": {"name": "Ann"}});
        let value = json!({"contacts": [contact], "messages": [element]});
        let changes = json!([{"field": "messages", "value": value}]);
        let envelope = json!({"entry": [{"changes": changes}]}).to_string();
        let message = parse(EventKey([7; 16]), envelope.clone());
        assert_eq!(message.envelope, envelope);
        assert_eq!(message.key, EventKey([7; 16]));
        let mut flat = serde_json::to_value(&message).unwrap();
        let flat = flat.as_object_mut().unwrap();
        assert_eq!(flat.remove("raw").as_ref(), Some(element));
        for (name, constant) in [("from", "4915"), ("from_user_id", "DE.1"), ("name", "Ann")] {
            assert_eq!(flat.remove(name), Some(json!(constant)), "{name}");
        }
        assert_eq!(&Value::Object(flat.clone()), expected);
    }

    #[test]
    fn a_message_gets_another_id_and_its_own_is_found_again() {
        let envelope = |id: &str| {
            let messages = json!([{"id": id, "from": "4915", "context": {"id": "wamid.a/b="}}]);
            let changes = json!([{"field": "messages", "value": {"messages": messages}}]);
            json!({"entry": [{"changes": changes}]})
        };
        // As Meta may write a slash.
        let written = envelope("wamid.a/b=").to_string().replace('/', "\\/");
        let renamed = renamed(&written, "wamid.a/b=", 3);
        let renamed: Value = serde_json::from_str(&renamed).unwrap();
        assert_eq!(
            renamed,
            envelope("wamid.a/b=~3"),
            "and what it answers keeps its own"
        );
        assert_eq!(original_id("wamid.a/b=~3"), "wamid.a/b=");
        for id in ["wamid.a/b=", "", "~", "a~", "a~b"] {
            assert_eq!(original_id(id), id);
        }
        assert_eq!(super::renamed("{}", "x", 2), "{}");
    }

    #[test]
    fn texts_captions_and_titles_are_what_the_person_said() {
        check(
            &json!({"id": "w", "type": "text", "timestamp": "17", "text": {"body": "hi"},
                "context": {"id": "w0", "forwarded": true}}),
            &json!({"id": "w", "type": "text", "timestamp": 17, "text": "hi",
                "reply_to": "w0", "forwarded": true}),
        );
        check(
            &json!({"id": "w", "type": "document", "document": {"id": 5, "caption": "c",
                "filename": "f.pdf", "mime_type": "application/pdf", "sha256": "s"}}),
            &json!({"id": "w", "type": "document", "text": "c", "media": {"id": "5",
                "filename": "f.pdf", "mime_type": "application/pdf", "sha256": "s"}}),
        );
        check(
            &json!({"id": "w", "type": "audio", "audio": {"id": "5", "voice": true}}),
            &json!({"id": "w", "type": "audio", "media": {"id": "5", "voice": true}}),
        );
    }

    #[test]
    fn a_tap_has_its_title_and_its_id() {
        for subtype in ["button_reply", "list_reply"] {
            let reply = json!({"type": subtype, subtype: {"id": "b1", "title": "Yes"}});
            check(
                &json!({"id": "w", "type": "interactive", "interactive": reply}),
                &json!({"id": "w", "type": "interactive", "text": "Yes", "button": "b1"}),
            );
        }
        check(
            &json!({"id": "w", "type": "button", "button": {"payload": "p", "text": "Yes"}}),
            &json!({"id": "w", "type": "button", "text": "Yes", "button": "p"}),
        );
        let flow = json!({"type": "nfm_reply",
            "nfm_reply": {"name": "flow", "body": "Sent", "response_json": "{}"}});
        check(
            &json!({"id": "w", "type": "interactive", "interactive": flow}),
            &json!({"id": "w", "type": "interactive", "text": "Sent"}),
        );
    }

    #[test]
    fn reactions_edits_and_revocations_name_their_message() {
        check(
            &json!({"id": "w", "type": "reaction",
                "reaction": {"message_id": "w0", "emoji": "👍"}}),
            &json!({"id": "w", "type": "reaction", "text": "👍", "reply_to": "w0"}),
        );
        check(
            &json!({"id": "w", "type": "reaction", "reaction": {"message_id": "w0"}}),
            &json!({"id": "w", "type": "reaction", "reply_to": "w0"}),
        );
        let edited = json!({"type": "text", "text": {"body": "new"}});
        check(
            &json!({"id": "w", "type": "edit",
                "edit": {"original_message_id": "w0", "message": edited}}),
            &json!({"id": "w", "type": "edit", "text": "new", "reply_to": "w0"}),
        );
        check(
            &json!({"id": "w", "type": "revoke", "revoke": {"original_message_id": "w0"}}),
            &json!({"id": "w", "type": "revoke", "reply_to": "w0"}),
        );
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        check(
            &json!({"id": "w", "type": "text", "text": ["hi"], "timestamp": "soon"}),
            &json!({"id": "w", "type": "unknown"}),
        );
        for envelope in [
            "",
            "null",
            "{}",
            r#"{"entry":[{"changes":[{"value":{}}]}]}"#,
        ] {
            let message = parse(EventKey([0; 16]), envelope.to_owned());
            assert_eq!(
                (message.kind.as_str(), message.raw.get()),
                ("unknown", "null")
            );
        }
    }
}
