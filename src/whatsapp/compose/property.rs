//! What composing promises of any reply: nothing but blanks at the cuts is lost, nothing is too
//! long, and nobody else is written to.

use proptest::prelude::*;

use super::*;
use crate::model::property;

/// Texts of words, lines, sentences, long runs, and characters of several scalar values.
fn long_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ab]{1,9}",
        2 => "\\PC{1,12}",
        3 => Just(" ".to_owned()),
        2 => Just("\n".to_owned()),
        1 => Just("\n\n".to_owned()),
        2 => Just(". ".to_owned()),
        1 => Just("。".to_owned()),
        1 => Just("👩🏽‍🌾".to_owned()),
        1 => "\\PC{30,60}",
        1 => "[\r\n\t\u{a0}\u{2003}\u{200d}\u{301}\0 ]{1,30}",
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// Where each part stands in the text, one behind the other, with only blanks between them.
fn check_parts(text: &str, parts: &[&str], chars_max: usize) -> Result<(), TestCaseError> {
    let mut rest = text;
    for part in parts {
        prop_assert!(part.chars().count() <= chars_max, "{:?}", part);
        prop_assert!(!part.trim().is_empty());
        let at = rest.find(part);
        prop_assert!(at.is_some(), "{:?} is not in {:?}", part, rest);
        let (before, found) = rest.split_at(at.unwrap_or_default());
        prop_assert!(before.trim().is_empty(), "lost: {:?}", before);
        rest = &found[part.len()..];
    }
    prop_assert!(rest.trim().is_empty(), "lost: {:?}", rest);
    let cuts_max = text.len() / (chars_max / 4).max(1);
    prop_assert!(parts.len() <= cuts_max + 1, "{} parts", parts.len());
    if !text.trim().is_empty() && text.chars().count() <= chars_max {
        prop_assert_eq!(parts, [text]);
    }
    Ok(())
}

fn composed(reply: &Reply) -> Vec<Value> {
    let bodies = bodies(reply).unwrap_or_default();
    let read = |body: &String| serde_json::from_str(body).expect("it is JSON");
    bodies.iter().map(read).collect()
}

/// A body of members that mean something, with any values.
fn any_body() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        prop::sample::select(&TYPES[..]).prop_map(Value::from),
    ];
    let names: Vec<&str> = TYPES.into_iter().chain(DROPPED).collect();
    let name = prop_oneof![
        prop::sample::select(names),
        prop::sample::select(vec!["type", "body", "context", "preview_url", "hologram"]),
    ];
    leaf.prop_recursive(3, 24, 5, move |inner| {
        let member = (name.clone().prop_map(str::to_owned), inner.clone());
        prop_oneof![
            1 => prop::collection::vec(inner, 0..3).prop_map(Value::from),
            4 => prop::collection::vec(member, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(property::cases(192))]

    #[test]
    fn a_text_is_cut_into_all_of_its_parts(text in long_text(), chars_max in 1..64_usize) {
        check_parts(&text, &split(&text, chars_max), chars_max)?;
    }

    #[test]
    fn any_body_goes_to_nobody_else_and_stays_what_it_is(body in any_body()) {
        for body in composed(&Reply::Body(body)) {
            let Value::Object(members) = &body else {
                panic!("{body} is no object")
            };
            prop_assert!(DROPPED.iter().all(|name| !members.contains_key(*name)), "{}", body);
            let kind = members.get("type").and_then(Value::as_str);
            prop_assert!(kind.is_some());
            let is_known = kind.is_some_and(|kind| TYPES.contains(&kind));
            let content = kind.and_then(|kind| members.get(kind));
            prop_assert!(!is_known || content.is_some_and(|content| !content.is_null()));
            prop_assert_eq!(composed(&Reply::Body(body.clone())), [body]);
        }
    }
}

proptest! {
    #![proptest_config(property::cases(32))]

    #[test]
    fn a_reply_is_cut_for_meta(
        text in long_text(),
        times in 1..40_usize,
        is_body in any::<bool>(),
    ) {
        let text = text.repeat(times);
        let context = json!({"message_id": "w"});
        let reply = if is_body {
            let content = json!({"body": text, "preview_url": true});
            Reply::Body(json!({"text": content, "context": context}))
        } else {
            Reply::Text(text.clone())
        };
        let bodies = composed(&reply);
        prop_assert_eq!(bodies.is_empty(), text.trim().is_empty());
        let part = |body: &Value| body["text"]["body"].as_str().map(str::to_owned);
        let parts: Option<Vec<String>> = bodies.iter().map(part).collect();
        let parts = parts.expect("each is a text");
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        check_parts(&text, &parts, TEXT_CHARS_MAX)?;
        for (index, body) in bodies.iter().enumerate() {
            prop_assert_eq!(&body["type"], "text");
            prop_assert_eq!(body.get("context").is_some(), is_body && index == 0);
            prop_assert_eq!(body["text"].get("preview_url").is_some(), is_body);
        }
    }
}
