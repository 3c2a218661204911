//! What decoding promises beyond single shapes: frozen keys, unharmed neighbours, envelopes.

use serde_json::{Value, json};

use super::*;
use crate::model::{EventBody, FailureClass, ReceiptFailure, ReceiptStatus, Timestamp};

fn delivery(field: &str, value: &Value) -> String {
    let changes = json!([{"field": field, "value": value}]);
    let entry = json!([{"id": "waba", "changes": changes}]);
    json!({"object": "whatsapp_business_account", "entry": entry}).to_string()
}

fn value(members: Value) -> Value {
    let mut value = json!({"messaging_product": "whatsapp",
        "metadata": {"phone_number_id": "106540352242922"}});
    let Value::Object(members) = members else {
        panic!("members of a value");
    };
    value.as_object_mut().unwrap().extend(members);
    value
}

fn events(field: &str, members: Value) -> Vec<Event> {
    decode(delivery(field, &value(members)).as_bytes())
}

fn keys(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.key.to_string()).collect()
}

fn text(id: &str, from: &str) -> Value {
    json!({"id": id, "from": from, "type": "text", "text": {"body": "hi"}})
}

fn envelope(event: &Event) -> Value {
    let EventBody::Message(message) = &event.body else {
        panic!("a message was expected, found {event:?}");
    };
    serde_json::from_str(&message.envelope).unwrap()
}

/// Field, members of the value beside the number `106540352242922`, key.
#[rustfmt::skip]
const FROZEN: [(&str, &str, &str); 14] = [
    ("messages", r#"{"messages":[{"id":"wamid.A","from":"4915"}]}"#,
     "9338d20a76151668bd9e76b0fff0c589"),
    ("messages", r#"{"messages":[{"id":"wamid.A"}]}"#,
     "276cdd4b9678e9228c194170d3b255aa"),
    ("messages", r#"{"messages":[{"id":"wamid.A","type":"system"}]}"#,
     "a0f1155b6ac16c5f083e0252b8f94379"),
    ("messages", r#"{"statuses":[{"id":"wamid.A","status":"read"}]}"#,
     "3cc1c21cb88f888cda4cb1d265ced7bd"),
    ("messages", r#"{"statuses":[{"id":"wamid.A","status":"read","recipient_id":"g",
        "recipient_participant_user_id":"US.1","recipient_participant_id":"4915"}]}"#,
     "0bba35ea0bcb65e1c81ade8165a270a8"),
    ("messages", r#"{"statuses":[{"id":"w","status":"captured",
        "payment":{"transaction":{"id":"t1"}}}]}"#,
     "c58622c6d6f5f1f157cfb2c274b7ce40"),
    ("messages", r#"{"errors":[{"code":1,"b":2.5,"a":"ä"}]}"#,
     "e36d516c92e8fb40079e8846b2f63e96"),
    ("smb_message_echoes", r#"{"message_echoes":[{"id":"wamid.A","from":"4915"}]}"#,
     "bbf2dbe47ef0adce8c4ec231944dfdf1"),
    ("calls", r#"{"calls":[{"id":"wacid.A","event":"connect"}]}"#,
     "3f09e0f855b158efd48ec09c27faec14"),
    ("calls", r#"{"statuses":[{"id":"wacid.A","status":"RINGING"}]}"#,
     "ac58f2deb84e230f1f9e191057cfe769"),
    ("standby", r#"{"standby":{"messages":[{"id":"wamid.A","from":"4915"}]}}"#,
     "d8cb98cf7cdfde1688389a65c1f3b710"),
    ("standby", r#"{"standby":{"message_echoes":[{"id":"wamid.A","from":"4915"}]}}"#,
     "6bccdd636f2d6aa4f0d98a3f165567a6"),
    ("standby", r#"{"standby":{"statuses":[{"id":"wamid.A","status":"read","recipient_id":"g",
        "recipient_participant_user_id":"US.1","recipient_participant_id":"4915"}]}}"#,
     "607d670022421cdbdfccce007e326540"),
    ("account_update", r#"{"event":"ACCOUNT_DELETED"}"#,
     "07a182e9c5b97f4c7b49d08a825ce501"),
];

#[test]
fn keys_are_frozen() {
    for (field, members, key) in FROZEN {
        let members = serde_json::from_str(members).unwrap();
        assert_eq!(keys(&events(field, members)), [key], "{field}");
    }
    assert_eq!(
        keys(&decode(b"no json")),
        ["5f3801746900e3a8cd29a5c3734303ff"]
    );
    assert_eq!(keys(&decode(b"{}")), ["7598a30d44855df7dcc44770e52cf7d0"]);
}

#[test]
fn a_key_is_the_same_however_its_parts_are_written() {
    let body = |message: &str, number: &str| {
        let value =
            format!(r#"{{"metadata":{{"phone_number_id":{number}}},"messages":[{message}]}}"#);
        let change = format!(r#"{{"value":{value},"field":"messages"}}"#);
        format!(r#"{{"object":"whatsapp_business_account","entry":[{{"changes":[{change}]}}]}}"#)
    };
    let plain = body(r#"{"id":"wamid.a/b","from":"1"}"#, "\"106\"");
    for other in [
        body(r#"{"id":"wamid.a\/b","from":"1"}"#, "\"106\""),
        body(r#"{"id":"wamid.\u0061/b","from":1}"#, "106"),
        body(
            r#"{"type":"text","timestamp":7,"from":"2","id":"wamid.a/b"}"#,
            "\"106\"",
        ),
    ] {
        assert_eq!(
            keys(&decode(plain.as_bytes())),
            keys(&decode(other.as_bytes()))
        );
    }
    let poison = |id| {
        keys(&decode(
            body(&format!(r#"{{"id":"{id}","from":"1"}}"#), "1").as_bytes(),
        ))
    };
    assert_ne!(poison(r"w\ud800"), poison(r"w\ud801"));
    assert_ne!(poison(r"w\u0000"), poison("w"));
}

#[test]
fn the_key_of_an_element_does_not_depend_on_its_batch() {
    let contacts = json!([{"wa_id": "1", "user_id": "US.1"}, {"wa_id": "2", "user_id": "US.2"}]);
    let messages = [
        text("a", "1"),
        json!({"id": "b", "from": "2"}),
        json!(7),
        json!({"id": "c"}),
    ];
    let statuses = [
        json!({"id": "a", "status": "sent"}),
        json!({"id": "a", "status": "read"}),
    ];
    let errors = [json!({"code": 1}), json!({"code": 2})];
    let whole = events(
        "messages",
        json!({"contacts": contacts, "messages": messages, "statuses": statuses,
            "errors": errors}),
    );
    let alone = |array: &'static str, elements: &[Value]| -> Vec<String> {
        let one = |element| events("messages", json!({"contacts": contacts, array: [element]}));
        elements
            .iter()
            .flat_map(|element| keys(&one(element)))
            .collect()
    };
    let parts = [
        alone("messages", &messages),
        alone("statuses", &statuses),
        alone("errors", &errors),
    ];
    assert_eq!(keys(&whole), parts.concat());
}

#[test]
fn an_envelope_holds_one_message_its_contact_and_what_belongs_to_it() {
    let contacts = json!([{"wa_id": "1", "profile": {"name": "Ann"}}, {"wa_id": "2"}]);
    let found = events(
        "messages",
        json!({"contacts": contacts, "messages": [text("b", "2"), text("a", "1")],
            "statuses": [{"id": "a", "status": "sent"}], "errors": [{"code": 1}],
            "conversation_context": {"owner": "agent"}}),
    );
    assert_eq!(found.len(), 4);
    for (event, contact, message) in [
        (&found[0], json!({"wa_id": "2"}), text("b", "2")),
        (&found[1], contacts[0].clone(), text("a", "1")),
    ] {
        let expected = value(json!({"contacts": [contact], "messages": [message],
            "conversation_context": {"owner": "agent"}}));
        let expected: Value = serde_json::from_str(&delivery("messages", &expected)).unwrap();
        assert_eq!(envelope(event), expected);
    }
}

#[test]
fn an_envelope_is_made_of_metas_own_bytes() {
    let message = r#"{ "id":"w", "from" : "1","type":"text","text":{"body":"\u00e4\/\ud800"} }"#;
    let metadata = r#""metadata":{"phone_number_id": "1"}"#;
    let value = format!(r#"{{"messages":[ {message} ],{metadata}}}"#);
    let change = format!(r#"{{"field":"messages","value":{value}}}"#);
    let entry = format!(r#"{{"id":7,"time":9,"changes":[{change}]}}"#);
    let body = format!(r#"{{"object":"whatsapp_business_account","entry":[{entry}]}}"#);
    let found = decode(body.as_bytes());
    let EventBody::Message(inbound) = &found[0].body else {
        panic!("it is a message");
    };
    let value = format!(r#"{{"messaging_product":"whatsapp",{metadata},"messages":[{message}]}}"#);
    let change = format!(r#"{{"value":{value},"field":"messages"}}"#);
    let entry = format!(r#"{{"id":7,"time":9,"changes":[{change}]}}"#);
    let expected = format!(r#"{{"object":"whatsapp_business_account","entry":[{entry}]}}"#);
    assert_eq!(inbound.envelope, expected);
}

#[test]
fn what_is_too_large_to_carry_is_kept_once() {
    let large = "x".repeat(20_000);
    let found = events(
        "messages",
        json!({"messages": [text("a", "1"), text("b", "2")], "future": large}),
    );
    assert_eq!(found.len(), 3);
    assert_eq!(
        envelope(&found[0])["entry"][0]["changes"][0]["value"].get("future"),
        None
    );
    let EventBody::Notice(notice) = &found[2].body else {
        panic!("it is a notice");
    };
    assert_eq!(notice.raw, json!({"future": large}).to_string());
}

#[test]
fn an_envelope_keeps_a_number_that_stands_beside_what_is_too_large() {
    let value = json!({"recipient": {"phone_number_id": "106"}, "messages": [text("a", "1")],
        "future": "x".repeat(20_000)});
    let found = decode(delivery("messages", &value).as_bytes());
    let EventBody::Message(message) = &found[0].body else {
        panic!("it is a message");
    };
    assert_eq!(decode(message.envelope.as_bytes()), found[..1]);
}

#[test]
fn a_receipt_says_what_the_status_said() {
    let found = events(
        "messages",
        json!({"statuses": [{"id": "w", "status": "failed", "timestamp": "17",
            "recipient_participant_id": "4915", "biz_opaque_callback_data": "mine",
            "errors": [{"code": 131_056, "title": "slow"}, {"code": 100}]}]}),
    );
    let EventBody::Status(receipt) = &found[0].body else {
        panic!("it is a status");
    };
    assert_eq!(receipt.wamid.as_str(), "w");
    assert_eq!(receipt.status, ReceiptStatus::Failed);
    assert_eq!(receipt.participant.as_deref(), Some("4915"));
    assert_eq!(receipt.at, Some(Timestamp(17_000)));
    assert_eq!(receipt.callback_data.as_deref(), Some("mine"));
    let failure = ReceiptFailure {
        code: 131_056,
        class: FailureClass::PairRate,
    };
    assert_eq!(receipt.failure, Some(failure));
}

#[test]
fn the_same_state_at_another_time_is_another_notice() {
    let at = |time: &str| {
        let change = r#"{"field":"account_review_update","value":{"decision":"APPROVED"}}"#;
        let entry = format!(r#"{{"id":"1"{time},"changes":[{change}]}}"#);
        let body = format!(r#"{{"object":"whatsapp_business_account","entry":[{entry}]}}"#);
        keys(&decode(body.as_bytes()))
    };
    assert_ne!(at(r#","time":1"#), at(r#","time":2"#));
    assert_ne!(at(""), at(r#","time":2"#));
    assert_eq!(at(r#","time":"2""#), at(r#","time":2"#));
}

#[test]
fn broken_utf8_harms_only_its_own_text() {
    let body = delivery(
        "messages",
        &value(json!({"messages": [text("a", "1"), text("b", "2")]})),
    );
    let mut bytes = body.clone().into_bytes();
    let at = body.find("hi").unwrap();
    bytes[at] = 0xff;
    assert_eq!(keys(&decode(&bytes)), keys(&decode(body.as_bytes())));
}

#[test]
fn a_handover_names_its_number_as_recipient() {
    let value = json!({"sender": {"phone_number": "1"}, "recipient": {"phone_number_id": "106"}});
    let found = decode(delivery("messaging_handovers", &value).as_bytes());
    assert_eq!(found[0].number, Some(NumberId::from("106")));
}

#[test]
fn a_long_field_makes_a_short_kind() {
    let found = events(&"ä".repeat(500), json!({}));
    let EventBody::Notice(notice) = &found[0].body else {
        panic!("it is a notice");
    };
    assert_eq!(notice.kind, "ä".repeat(KIND_CHARS_MAX));
}

#[test]
fn an_undecodable_body_is_kept_without_its_nul_bytes() {
    let found = decode(b"{\"a\": \0\xff");
    let EventBody::Notice(notice) = &found[0].body else {
        panic!("it is a notice");
    };
    assert_eq!(
        (notice.kind.as_str(), notice.raw.as_str()),
        ("undecodable", "{\"a\": \u{fffd}\u{fffd}")
    );
}

#[test]
fn a_name_with_a_nul_byte_is_kept_without_it() {
    let found = decode(b"{\"object\":\"whatsapp_business_account\",\"en\0try\":[]}");
    let EventBody::Notice(notice) = &found[0].body else {
        panic!("it is a notice");
    };
    assert_eq!(
        (notice.kind.as_str(), notice.raw.as_str()),
        (
            "foreign",
            "{\"object\":\"whatsapp_business_account\",\"en\u{fffd}try\":[]}"
        )
    );
}

#[test]
fn nesting_without_end_is_decoded_without_recursion() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let message = format!(r#"{{"id":"w","from":"1","type":"text","text":{{"body":{deep}}}}}"#);
    for (field, expected) in [("messages", "message"), ("account_update", "notice")] {
        let value = format!(r#"{{"metadata":{{"phone_number_id":"1"}},"messages":[{message}]}}"#);
        let change = format!(r#"{{"value":{value},"field":"{field}"}}"#);
        let body = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"changes":[{change}]}}]}}"#
        );
        assert_eq!(decode(body.as_bytes())[0].kind().as_str(), expected);
    }
}

// What a bot gets beside messages --------------------------------------------------------------

const RELAYS: Relays = Relays {
    statuses: true,
    notices: true,
};

/// The relays of a delivery, each read as a delivery of its own.
fn relays(field: &str, members: Value) -> Vec<(Event, Value)> {
    let events = decode_for(delivery(field, &value(members)).as_bytes(), RELAYS);
    let read = |event: Event| {
        let body = serde_json::from_str(event.relay.as_ref()?).unwrap();
        Some((event, body))
    };
    events.into_iter().filter_map(read).collect()
}

#[test]
fn a_relay_holds_its_event_alone_and_says_the_same() {
    let status = |id: &str, to: &str| json!({"id": id, "status": "read", "recipient_id": to});
    let contact = |id: &str| json!({"wa_id": id, "profile": {"name": id}});
    let both = json!({"statuses": [status("wamid.A", "49"), status("wamid.B", "50")],
        "contacts": [contact("50"), contact("49")], "errors": [{"code": 1}], "new": 1});
    let echoes = json!({"message_echoes": [{"id": "wamid.E", "to": "49"}, {"id": "wamid.F"}]});
    let standby = json!({"standby": {"messages": [{"id": "wamid.S"}],
        "statuses": [{"id": "wamid.A", "status": "read"}], "more": 1}});
    let update = json!({"event": "APPROVED"});
    let fields = [
        ("messages", both, 4),
        ("smb_message_echoes", echoes, 2),
        ("standby", standby, 3),
        ("account_update", update, 1),
        ("messages", json!({"messages": [{"id": "wamid.U"}]}), 1),
    ];
    for (field, members, count) in fields {
        let all = relays(field, members);
        assert_eq!(all.len(), count, "{field}");
        for (event, body) in all {
            assert_eq!(body["entry"][0]["id"], "waba");
            assert_eq!(body["entry"][0]["changes"][0]["field"], field);
            let again = decode(event.relay.unwrap().as_bytes());
            let extra = usize::from(matches!(event.body, EventBody::Status(_)));
            assert!(again.len() <= 1 + extra, "{body}");
            // Taken for a delivery it holds this event, under the same key. Members that no element
            // carries are one of their own, which says no more than they do.
            let is_leftover = matches!(&event.body, EventBody::Notice(notice)
                if notice.raw == r#"{"new":1}"# || notice.raw == r#"{"more":1}"#);
            assert_ne!(
                again.iter().any(|one| one.key == event.key),
                is_leftover,
                "{body}"
            );
        }
    }
}

#[test]
fn a_status_is_relayed_with_its_contact_and_what_stands_beside() {
    let members = json!({"statuses": [{"id": "A", "status": "read", "recipient_user_id": "US.2"},
        {"id": "B", "status": "read", "recipient_id": "49"}],
        "contacts": [{"wa_id": "49"}, {"wa_id": "50", "user_id": "US.2"}], "new": {"a": 1}});
    let all = relays("messages", members);
    for (place, contact) in [
        (0, json!({"wa_id": "50", "user_id": "US.2"})),
        (1, json!({"wa_id": "49"})),
    ] {
        let value = &all[place].1["entry"][0]["changes"][0]["value"];
        assert_eq!(value["contacts"], json!([contact]));
        assert_eq!(value["new"], json!({"a": 1}));
        assert_eq!(value["metadata"]["phone_number_id"], "106540352242922");
    }
}

#[test]
fn only_what_is_asked_for_is_made() {
    let body = delivery(
        "messages",
        &value(json!({"messages": [text("A", "49")],
        "statuses": [{"id": "B", "status": "read"}], "errors": [{"code": 1}]})),
    );
    for (statuses, notices) in [(false, false), (true, false), (false, true)] {
        let relays = Relays { statuses, notices };
        let has: Vec<bool> = decode_for(body.as_bytes(), relays)
            .iter()
            .map(|event| event.relay.is_some())
            .collect();
        assert_eq!(has, [false, statuses, notices]);
    }
}

#[test]
fn what_is_no_whatsapp_is_relayed_as_it_came_if_it_is_json() {
    let relay = |body: &str| decode_for(body.as_bytes(), RELAYS)[0].relay.clone();
    assert_eq!(relay("no json"), None);
    assert_eq!(relay("[1]").as_deref(), Some("[1]"));
    let whole = r#"{"object":"whatsapp_business_account","entry":[{"id":"7"}]}"#;
    assert_eq!(relay(whole).as_deref(), Some(whole));
    let change =
        r#"{"object":"whatsapp_business_account","entry":[{"id":"7","changes":[{"x":1}]}]}"#;
    assert_eq!(relay(change).as_deref(), Some(change));
}
