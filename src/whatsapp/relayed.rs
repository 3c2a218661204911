//! A status on its way to the bot whose message it speaks of: in the bot's own terms, not in ours.
//!
//! Everything that is not ours stays as Meta wrote it, byte by byte.

use serde_json::Value;
use serde_json::value::RawValue;

use super::json::{self, Object};
use crate::model::Tag;

/// The member in which a sender's own text comes back; ours is a tag.
const CALLBACK: &str = "biz_opaque_callback_data";
/// The member that names the message.
const ID: &str = "id";

/// What the bot knows of a message that it has sent through us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnSend<'a> {
    /// The callback data that it has sent along.
    pub callback: Option<&'a str>,
    /// The id that it was told, where that is not Meta's.
    pub id: Option<&'a str>,
}

/// A webhook body that was made of one status of a message that we have sent, as it would be had
/// the bot sent that message itself: its own callback data in place of our tag, or none; and the
/// id that it knows. A body of any other kind stays as it is.
pub fn as_of_own_send(envelope: &str, own: OwnSend<'_>) -> String {
    let rewritten = || {
        let status = status(envelope)?;
        let begin = status
            .get()
            .as_ptr()
            .addr()
            .checked_sub(envelope.as_ptr().addr())?;
        let (head, rest) = envelope.split_at_checked(begin)?;
        let tail = rest.strip_prefix(status.get())?;
        Some([head, &rewrite(&json::object(status)?, own), tail].concat())
    };
    rewritten().unwrap_or_else(|| envelope.to_owned())
}

fn status(envelope: &str) -> Option<&RawValue> {
    let root = json::parse(envelope)?;
    let entry = json::object(first(&root, "entry")?)?;
    let change = json::object(first(&entry, "changes")?)?;
    first(&change.object("value")?, "statuses")
}

fn first<'a>(object: &Object<'a>, array: &str) -> Option<&'a RawValue> {
    object.array(array)?.first().copied()
}

fn rewrite(status: &Object<'_>, own: OwnSend<'_>) -> String {
    let mut members = Vec::new();
    let mut add = |name: &str, raw: &str| {
        members.push(format!("{}:{raw}", Value::from(name)));
    };
    let tagged = status.text(CALLBACK);
    // What Meta shows of another sender's text is none of ours.
    let is_ours = tagged.is_none_or(|text| Tag::parse(&text.to_text()).is_some());
    for (name, raw) in status.members() {
        if name.is(CALLBACK) && is_ours {
            continue;
        }
        match own.id.filter(|_| name.is(ID)) {
            Some(id) => add(ID, &Value::from(id).to_string()),
            None => add(&name.to_text(), raw.get()),
        }
    }
    if let Some(callback) = own.callback.filter(|_| is_ours) {
        add(CALLBACK, &Value::from(callback).to_string());
    }
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OutgoingId, StoreId};
    use crate::whatsapp::decode::{Relays, decode_for};

    const ALL: Relays = Relays {
        statuses: true,
        notices: true,
    };

    fn body(status: &str) -> String {
        let value = format!(
            r#"{{"metadata":{{"phone_number_id":"1"}},"contacts":[{{"wa_id":"49"}}],"statuses":[{status}]}}"#
        );
        let change = format!(r#"{{"value":{value},"field":"messages"}}"#);
        format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"7","changes":[{change}]}}]}}"#
        )
    }

    fn relay(status: &str) -> String {
        let events = decode_for(body(status).as_bytes(), ALL);
        let [event] = events.as_slice() else {
            panic!("one event, found {events:?}");
        };
        event.relay.clone().expect("it is asked for")
    }

    fn status_of(body: &str) -> Value {
        let body: Value = serde_json::from_str(body).unwrap();
        body["entry"][0]["changes"][0]["value"]["statuses"][0].clone()
    }

    fn tag() -> String {
        let (store, outgoing) = (StoreId(7), OutgoingId(9));
        Tag {
            store,
            outgoing,
            attempt: 1,
        }
        .to_string()
    }

    #[test]
    fn a_bots_own_callback_and_id_stand_where_ours_were() {
        let (price, tag) = (r#"{"cost":1.50,"text":"\ud800"}"#, tag());
        let came = relay(&format!(
            r#"{{"id":"wamid.M","status":"read","biz_opaque_callback_data":"{tag}","pricing":{price}}}"#
        ));
        let own = OwnSend {
            callback: Some("order \"5\""),
            id: Some("wamid.OURS"),
        };
        let told = as_of_own_send(&came, own);
        let status = format!(
            r#"{{"id":"wamid.OURS","status":"read","pricing":{price},"biz_opaque_callback_data":"order \"5\""}}"#
        );
        assert_eq!(told, came.replace(
            &format!(r#"{{"id":"wamid.M","status":"read","biz_opaque_callback_data":"{tag}","pricing":{price}}}"#),
            &status,
        ));
        let told = as_of_own_send(&came, OwnSend::default());
        let expected = format!(r#"{{"id":"wamid.M","status":"read","pricing":{price}}}"#);
        assert!(told.contains(&expected), "{told}");
    }

    #[test]
    fn a_status_without_our_tag_gets_what_the_bot_has_sent_along() {
        let came = relay(r#"{"id":"wamid.M","status":"sent"}"#);
        let own = OwnSend {
            callback: Some("c"),
            id: None,
        };
        let told = status_of(&as_of_own_send(&came, own));
        assert_eq!(told["biz_opaque_callback_data"], "c");
        assert_eq!(told["id"], "wamid.M");
    }

    #[test]
    fn another_senders_text_and_other_bodies_stay_as_they_came() {
        let own = OwnSend {
            callback: Some("c"),
            id: None,
        };
        let came = relay(r#"{"id":"wamid.M","status":"sent","biz_opaque_callback_data":"theirs"}"#);
        assert_eq!(as_of_own_send(&came, own), came);
        for other in ["", "{}", "[]", r#"{"entry":[{"changes":[{"value":{}}]}]}"#] {
            assert_eq!(as_of_own_send(other, own), other);
        }
    }
}
