//! What reading a request promises of any of them: it never fails but in words, the same request
//! says the same in whichever way it is written, and a person keeps their digits.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::model::{Recipient, property};

/// Values as they stand in messages.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        Just(json!("wamid.HBgF")),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}|body|message_id", inner, 0..4)
                .prop_map(|members| json!(members)),
        ]
    })
}

/// A message that can be routed, with members of any kind, and its digits.
fn any_send() -> impl Strategy<Value = (Map<String, Value>, String)> {
    let member =
        prop::sample::select(&["text", "image", "context", "reaction", "later", "ttl"][..]);
    let members = prop::collection::btree_map(member, any_value(), 0..5);
    let dialled = (
        "[1-9][0-9]{4,14}",
        any::<bool>(),
        prop::sample::select(&["", " ", "-"][..]),
    );
    let callback = prop::option::of("\\PC{1,20}|\\{\"a\":1\\}");
    (members, dialled, callback).prop_map(|(members, (digits, has_plus, gap), callback)| {
        let mut body: Map<String, Value> = members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let (head, tail) = digits.split_at(3);
        let plus = if has_plus { "+" } else { "" };
        body.insert("messaging_product".into(), json!("whatsapp"));
        body.insert("to".into(), json!(format!("{plus}{head}{gap}{tail}")));
        body.insert("type".into(), json!("hologram"));
        body.insert("biz_opaque_callback_data".into(), json!(callback));
        (body, digits)
    })
}

/// As a form: objects and lists as JSON, all else as text.
fn form(body: &Map<String, Value>) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in body {
        match value {
            Value::Null => {}
            Value::String(text) => {
                form.append_pair(name, text);
            }
            other => {
                form.append_pair(name, &other.to_string());
            }
        }
    }
    form.finish()
}

fn send(query: &str, written: Written, body: &str) -> Result<ToSend, TestCaseError> {
    let parameters = Parameters::read(query, written, body.as_bytes());
    match parameters.and_then(asked) {
        Ok(Asked::Send(send)) => Ok(*send),
        other => Err(TestCaseError::fail(format!("{other:?}"))),
    }
}

proptest! {
    #![proptest_config(property::cases(512))]

    #[test]
    fn a_request_says_the_same_in_whichever_way_it_is_written((body, digits) in any_send()) {
        let form = form(&body);
        let json = Value::Object(body).to_string();
        let sends = [
            send("", Written::Json, &json)?,
            send("", Written::Form, &form)?,
            send(&form, Written::Otherwise, "")?,
        ];
        for each in &sends {
            prop_assert_eq!(each.content, sends[0].content);
            prop_assert_eq!(&each.callback, &sends[0].callback);
            prop_assert_eq!(&each.to.recipient, &Recipient::Phone(digits.clone()));
            prop_assert_eq!(each.to.to.phone.as_ref(), Some(&digits));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        query in "\\PC{0,40}",
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            any_value().prop_map(|value| value.to_string().into_bytes()),
        ],
        kind in prop::option::of("[a-z/;=-]{0,30}|application/json"),
    ) {
        let written = Written::of(kind.as_deref(), &body);
        if let Ok(parameters) = Parameters::read(&query, written, &body) {
            let _ = parameters.method();
            match asked(parameters) {
                Ok(Asked::Send(send)) => {
                    let _ = send.own_ids();
                    let _ = send.body(|_, _| Quote::Unknown);
                }
                Ok(Asked::Mark(mark)) => prop_assert!(!mark.body().is_empty()),
                Err(refused) => prop_assert!((400..500).contains(&refused.status())),
            }
        }
    }

    #[test]
    fn any_path_is_some_call(path in "[/a-z0-9.%]{0,40}", query in "\\PC{0,20}") {
        let _ = called(&http::Method::POST, &path, &query);
    }

    #[test]
    fn a_token_is_replaced_where_it_was_and_nowhere_else(
        before in "[a-z=%&+]{0,20}", after in "[a-z=%&+]{0,20}", new in "[!-~]{1,20}",
    ) {
        let was = format!("{before}&access_token=OLD&{after}");
        let now = token::form_with(&was, &new);
        let shown = token::in_form(&now).map(std::borrow::Cow::into_owned);
        prop_assert_eq!(shown.as_ref(), Some(&new));
        let others = |text: &str| -> Vec<(String, String)> {
            form_urlencoded::parse(text.as_bytes())
                .filter(|(name, _)| name != "access_token")
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect()
        };
        prop_assert_eq!(others(&was), others(&now));
        let without = format!("{before}&{after}");
        prop_assert_eq!(token::form_with(&without, &new), without);
    }

    #[test]
    fn a_token_in_json_is_replaced_and_all_else_is_said_as_before(
        members in prop::collection::btree_map("[a-z]{1,6}", any_value(), 0..5),
        new in "\\PC{1,20}",
    ) {
        let mut body = json!(members);
        prop_assert_eq!(token::body_with(Written::Json, body.to_string().as_bytes(), &new), None);
        body["access_token"] = json!("OLD");
        let now = token::body_with(Written::Json, body.to_string().as_bytes(), &new);
        body["access_token"] = json!(new);
        let now = now.and_then(|now| serde_json::from_str::<Value>(&now).ok());
        prop_assert_eq!(now, Some(body));
    }
}
