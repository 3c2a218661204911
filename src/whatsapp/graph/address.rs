//! Putting the recipient and the tag on a message body.

use serde_json::{Map, Value, json};

use crate::model::Recipient;

/// The whole body of a send; `None` where `body` is no JSON object.
///
/// A phone number always goes with `+` and its country code: without `+`, Meta puts the
/// business's own country code before it, and a stranger gets the message.
///
/// Source: Meta, *Send messages: phone number formats*; *Business-scoped user ids*.
pub(super) fn addressed(body: &str, recipient: &Recipient, tag: &str) -> Option<String> {
    let mut body: Map<String, Value> = serde_json::from_str(body).ok()?;
    let (member, value, kind) = match recipient {
        Recipient::Phone(digits) => ("to", format!("+{digits}"), "individual"),
        Recipient::Bsuid(id) => ("recipient", id.clone(), "individual"),
        Recipient::Group(id) => ("to", id.clone(), "group"),
    };
    // `to` would win over `recipient`, so whichever is not ours must not be there.
    body.remove("to");
    body.remove("recipient");
    body.insert("messaging_product".to_owned(), json!("whatsapp"));
    body.insert("recipient_type".to_owned(), json!(kind));
    body.insert(member.to_owned(), json!(value));
    body.insert("biz_opaque_callback_data".to_owned(), json!(tag));
    Some(Value::Object(body).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_recipient_has_its_member() {
        let cases = [
            (
                Recipient::Phone("4915".to_owned()),
                json!({"to": "+4915", "recipient_type": "individual"}),
            ),
            (
                Recipient::Bsuid("DE.1".to_owned()),
                json!({"recipient": "DE.1", "recipient_type": "individual"}),
            ),
            (
                Recipient::Group("g1".to_owned()),
                json!({"to": "g1", "recipient_type": "group"}),
            ),
        ];
        for (recipient, mut expected) in cases {
            expected["messaging_product"] = json!("whatsapp");
            expected["biz_opaque_callback_data"] = json!("tag");
            expected["type"] = json!("text");
            let body = r#"{"type":"text","to":"1","recipient":"X.1"}"#;
            let found = addressed(body, &recipient, "tag").unwrap();
            assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), expected);
        }
    }

    #[test]
    fn only_an_object_can_be_addressed() {
        for body in ["", "[]", "\"x\"", "{"] {
            assert_eq!(addressed(body, &Recipient::Group("g".into()), "t"), None);
        }
    }
}
