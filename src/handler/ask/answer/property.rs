//! What reading a bot's answer promises: whatever comes, an outcome or a fault, and a fault that
//! repeats nothing.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::property;

/// A word that must not come back in a fault.
const WORD: &str = "zyxwv";

fn any_answer() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::from(WORD)),
        Just(Value::from(" \n")),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let name = prop::sample::select(vec!["replies", "text", "type", "body", "image", WORD]);
    leaf.prop_recursive(4, 40, 24, move |inner| {
        let member = (name.clone().prop_map(str::to_owned), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..24).prop_map(Value::from),
            prop::collection::vec(member, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn check(body: &[u8]) -> Result<Option<Outcome>, TestCaseError> {
    match read(body) {
        Ok(outcome) => {
            if let Outcome::Reply(replies) = &outcome {
                prop_assert!((1..=REPLIES_MAX).contains(&replies.len()));
                for reply in replies {
                    let is_right = match reply {
                        Reply::Text(text) => !text.trim().is_empty(),
                        Reply::Body(body) => body["type"].is_string(),
                    };
                    prop_assert!(is_right);
                }
            } else {
                prop_assert_eq!(&outcome, &Outcome::Silence, "a bot decides nothing else");
            }
            Ok(Some(outcome))
        }
        Err(fault) => {
            prop_assert!(!format!("{fault}{fault:?}").contains(WORD), "{}", fault);
            Ok(None)
        }
    }
}

proptest! {
    #![proptest_config(property::cases(384))]

    #[test]
    fn any_bytes_are_an_outcome_or_a_fault(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        answer in any_answer(),
        at in any::<prop::sample::Index>(),
    ) {
        check(&bytes)?;
        let text = answer.to_string().into_bytes();
        let at = at.index(text.len());
        check(&text[..at])?;
        check(&[&text[..at], &bytes, &text[at..]].concat())?;
    }

    #[test]
    fn any_json_is_an_outcome_or_a_fault(answer in any_answer()) {
        let outcome = check(answer.to_string().as_bytes())?;
        // However it is laid out, and however a list is said.
        let pretty = format!("\r\n\t{answer:#}\n");
        prop_assert_eq!(&check(pretty.as_bytes())?, &outcome);
        if answer.is_array() {
            let named = json!({"replies": answer, "mood": 3}).to_string();
            prop_assert_eq!(check(named.as_bytes())?, outcome);
        }
    }

    #[test]
    fn replies_come_in_their_order_and_unchanged(texts in prop::collection::vec("\\PC*", 1..20)) {
        let outcome = check(json!(texts).to_string().as_bytes())?;
        let is_right = texts.iter().all(|text| !text.trim().is_empty());
        let replies = texts.into_iter().map(Reply::Text).collect();
        prop_assert_eq!(outcome, is_right.then_some(Outcome::Reply(replies)));
    }
}
