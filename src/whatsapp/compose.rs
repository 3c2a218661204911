//! From a handler's reply to the bodies that Meta's API takes, without recipient.
//!
//! Only what is surely wrong is refused here. What Meta may or may not take is Meta's to say.

use serde_json::{Map, Value, json};

use crate::model::Reply;

/// The longest text that Meta takes, in characters (Unicode scalar values).
///
/// Source: Meta, *Text messages*.
pub const TEXT_CHARS_MAX: usize = 4096;

/// The types of message that can be sent, each with an object (or array) of its own name.
pub(super) const TYPES: [&str; 11] = [
    "text",
    "image",
    "audio",
    "video",
    "document",
    "sticker",
    "location",
    "contacts",
    "interactive",
    "template",
    "reaction",
];

/// Members that say who it goes to, which is Hapax's to say: an answer never leaves the
/// conversation it answers. `biz_opaque_callback_data` goes too: it is the one place for the tag
/// by which receipts find their message again, even where the answer to a send was lost.
const DROPPED: [&str; 5] = [
    "messaging_product",
    "recipient_type",
    "to",
    "recipient",
    "biz_opaque_callback_data",
];

/// Why a reply can't be sent. Trying again gives the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// A text without a visible character, which Meta refuses.
    #[error("the text of the reply is empty")]
    Empty,
    /// The body is another JSON value than an object.
    #[error("a reply's body must be a JSON object")]
    NotAnObject,
    /// No `type`, and not exactly one member that is a type's.
    #[error("a reply's body needs a `type`, or exactly one member named like a type")]
    NoType,
    /// `type` is there, but the member of that name is not.
    #[error("a reply's body of type `{0}` needs a member `{0}`")]
    NoContent(&'static str),
}

/// The bodies of one reply as JSON texts, in the order in which they are to be sent: one, or
/// several where a text is longer than [`TEXT_CHARS_MAX`].
pub fn bodies(reply: &Reply) -> Result<Vec<String>, ComposeError> {
    let bodies = match reply {
        Reply::Text(text) => texts(&Map::new(), &json!({}), text)?,
        Reply::Body(Value::Object(body)) => of_object(body)?,
        Reply::Body(_) => return Err(ComposeError::NotAnObject),
    };
    Ok(bodies.into_iter().map(|body| body.to_string()).collect())
}

fn of_object(body: &Map<String, Value>) -> Result<Vec<Value>, ComposeError> {
    let mut body = body.clone();
    body.retain(|name, _| !DROPPED.contains(&name.as_str()));
    let kind = match body.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(_) => return Err(ComposeError::NoType),
        None => infer_type(&body)?.to_owned(),
    };
    if let Some(known) = TYPES.into_iter().find(|known| *known == kind)
        && body.get(known).is_none_or(Value::is_null)
    {
        return Err(ComposeError::NoContent(known));
    }
    body.insert("type".to_owned(), Value::from(kind.as_str()));
    if kind == "text" {
        return of_text(body);
    }
    Ok(vec![Value::Object(body)])
}

fn infer_type(body: &Map<String, Value>) -> Result<&'static str, ComposeError> {
    let mut found = TYPES.into_iter().filter(|kind| body.contains_key(*kind));
    match (found.next(), found.next()) {
        (Some(kind), None) => Ok(kind),
        _ => Err(ComposeError::NoType),
    }
}

fn of_text(mut body: Map<String, Value>) -> Result<Vec<Value>, ComposeError> {
    let content = match body.remove("text") {
        Some(Value::String(text)) => json!({ "body": text }),
        Some(content) => content,
        None => return Err(ComposeError::NoContent("text")),
    };
    let text = content.get("body").and_then(Value::as_str);
    texts(&body, &content, text.unwrap_or_default())
}

/// One body per part of the text. Only the first quotes another message.
fn texts(
    body: &Map<String, Value>,
    content: &Value,
    text: &str,
) -> Result<Vec<Value>, ComposeError> {
    let parts = split(text, TEXT_CHARS_MAX);
    if parts.is_empty() {
        return Err(ComposeError::Empty);
    }
    let bodies = parts.into_iter().enumerate().map(|(index, part)| {
        let mut content = content.clone();
        content["body"] = Value::from(part);
        let mut body = body.clone();
        if index > 0 {
            body.remove("context");
        }
        body.insert("type".to_owned(), Value::from("text"));
        body.insert("text".to_owned(), content);
        Value::Object(body)
    });
    Ok(bodies.collect())
}

/// Cuts a text into parts of at most `chars_max` characters, each with something to see.
fn split(text: &str, chars_max: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((end, _)) = rest.char_indices().nth(chars_max) {
        let (part, later) = cut(rest, end);
        parts.push(part.trim_end());
        rest = later;
    }
    parts.push(rest);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// Cuts before byte `end` or earlier: after the last paragraph, else line, else sentence, else
/// word. A boundary in the first quarter is none: it would make many small messages.
fn cut(text: &str, end: usize) -> (&str, &str) {
    let window = &text[..end];
    // A boundary may lie exactly at the end of the window.
    let reach = &text[..text[end..]
        .chars()
        .next()
        .map_or(end, |c| end + c.len_utf8())];
    let enough = |at: &usize| *at >= end / 4 && *at > 0;
    let line = reach.rfind("\n\n").or_else(|| window.rfind("\n\n"));
    let line = line
        .filter(enough)
        .or_else(|| reach.rfind('\n').filter(enough));
    if let Some(at) = line {
        return (&text[..at], text[at..].trim_start_matches('\n'));
    }
    let word = || reach.rfind(char::is_whitespace).filter(enough);
    match sentence_end(reach).filter(enough).or_else(word) {
        Some(at) => (&text[..at], text[at..].trim_start()),
        None => text.split_at(end),
    }
}

/// Just after the last sentence that is followed by a space (or, as East Asian full stops are,
/// by anything).
fn sentence_end(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().rev();
    let (mut after, mut following) = chars.next()?;
    for (at, char) in chars {
        let ends = match char {
            '.' | '!' | '?' | '…' => following.is_whitespace(),
            '。' | '！' | '？' => true,
            _ => false,
        };
        if ends {
            return Some(after);
        }
        (after, following) = (at, char);
    }
    None
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: Value, expected: &[Value]) {
        let found: Vec<Value> = bodies(&Reply::Body(body))
            .unwrap()
            .iter()
            .map(|body| serde_json::from_str(body).unwrap())
            .collect();
        assert_eq!(found, expected);
    }

    fn refused(body: Value) -> ComposeError {
        bodies(&Reply::Body(body)).unwrap_err()
    }

    #[test]
    fn a_text_becomes_a_body() {
        let found = bodies(&Reply::Text("hi".to_owned()));
        assert_eq!(
            found,
            Ok(vec![r#"{"text":{"body":"hi"},"type":"text"}"#.to_owned()])
        );
        for blank in ["", " \n\t"] {
            assert_eq!(
                bodies(&Reply::Text(blank.to_owned())),
                Err(ComposeError::Empty)
            );
        }
    }

    #[test]
    fn a_type_is_inferred_where_there_is_only_one() {
        let hi = json!({"type": "text", "text": {"body": "hi"}});
        check(json!({"text": "hi"}), std::slice::from_ref(&hi));
        check(
            json!({"type": "text", "text": "hi"}),
            std::slice::from_ref(&hi),
        );
        check(json!({"text": {"body": "hi"}}), std::slice::from_ref(&hi));
        let image = json!({"type": "image", "image": {"id": "1"}});
        check(json!({"image": {"id": "1"}}), std::slice::from_ref(&image));
        let newer = json!({"type": "hologram", "hologram": {}});
        check(newer.clone(), std::slice::from_ref(&newer));
    }

    #[test]
    fn the_recipient_is_not_the_handlers_to_choose() {
        check(
            json!({"messaging_product": "whatsapp", "to": "49", "recipient": "US.1",
                "recipient_type": "individual", "biz_opaque_callback_data": "mine",
                "context": {"message_id": "w"}, "text": {"body": "hi", "preview_url": true}}),
            &[json!({"type": "text", "context": {"message_id": "w"},
                "text": {"body": "hi", "preview_url": true}})],
        );
    }

    #[test]
    fn what_is_surely_wrong_is_refused() {
        assert_eq!(refused(json!([])), ComposeError::NotAnObject);
        assert_eq!(refused(json!({})), ComposeError::NoType);
        assert_eq!(refused(json!({"type": 1})), ComposeError::NoType);
        assert_eq!(
            refused(json!({"image": {}, "text": {}})),
            ComposeError::NoType
        );
        assert_eq!(
            refused(json!({"type": "image"})),
            ComposeError::NoContent("image")
        );
        assert_eq!(refused(json!({"text": " "})), ComposeError::Empty);
        assert_eq!(refused(json!({"text": {"body": 1}})), ComposeError::Empty);
        assert_eq!(refused(json!({"text": []})), ComposeError::Empty);
    }

    #[test]
    fn a_long_text_keeps_its_settings_and_quotes_once() {
        let text = format!("{}\n\n{}", "a".repeat(4000), "b".repeat(100));
        let part = |body: String| json!({"body": body, "preview_url": true});
        check(
            json!({"context": {"message_id": "w"}, "text": {"body": text, "preview_url": true}}),
            &[
                json!({"type": "text", "context": {"message_id": "w"},
                    "text": part("a".repeat(4000))}),
                json!({"type": "text", "text": part("b".repeat(100))}),
            ],
        );
    }

    #[test]
    fn a_text_is_cut_where_it_hurts_least() {
        let cases: [(&str, &[&str]); 10] = [
            (
                "exactly 20 characters"[..20].as_ref(),
                &["exactly 20 character"],
            ),
            (
                "one two.\n\nthree four\nfive",
                &["one two.", "three four\nfive"],
            ),
            ("one two three\nfour five", &["one two three", "four five"]),
            (
                "One two. Three. Four five",
                &["One two. Three.", "Four five"],
            ),
            (
                "twenty chars in here and more",
                &["twenty chars in here", "and more"],
            ),
            (
                "一二三四五六七。八九十一二三四五六七八九十",
                &["一二三四五六七。", "八九十一二三四五六七八九十"],
            ),
            (
                "abcdefghijklmnopqrstuvwxyz",
                &["abcdefghijklmnopqrst", "uvwxyz"],
            ),
            (
                "a bcdefghijklmnopqrstuvwxyz",
                &["a bcdefghijklmnopqrs", "tuvwxyz"],
            ),
            (
                "exactly twenty char.\n\nmore",
                &["exactly twenty char.", "more"],
            ),
            (
                "v1.2.3.4 has 3.14 inside it",
                &["v1.2.3.4 has 3.14", "inside it"],
            ),
        ];
        for (text, parts) in cases {
            assert_eq!(split(text, 20), parts);
        }
        assert_eq!(split("😀😀😀", 2), ["😀😀", "😀"]);
        assert_eq!(split(&format!("{}a", " ".repeat(50)), 20), ["a"]);
    }
}
