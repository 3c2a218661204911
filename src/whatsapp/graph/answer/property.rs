//! What reading an answer promises: whatever comes, one verdict, and not a word of it repeated.

use proptest::prelude::*;

use super::*;
use crate::model::property;

/// A word that must not come back in a reason.
const WORD: &str = "zyxwv";

/// Answers in the shape of Meta's, and near it.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![
        prop::sample::select(vec![
            "0", "1", "100", "190", "130429", "131000", "131026", "131056", "999999"
        ])
        .prop_map(str::to_owned),
        any::<i64>().prop_map(|code| code.to_string()),
        Just("1e3".to_owned()),
        Just("99999999999999999999".to_owned()),
        Just(format!("\"{WORD}\"")),
        Just("\"131026\"".to_owned()),
        Just("null".to_owned()),
    ];
    let id = prop::sample::select(vec![
        r#""wamid.zyxwv""#,
        r#""a\u0000\ud800""#,
        "7",
        r#""""#,
        "null",
        "[]",
        "{}",
    ]);
    let messages = id.prop_map(|id| format!(r#""messages":[{{"id":{id}}}]"#));
    let transient = prop::sample::select(vec!["true", "false", "null", "\"true\""]);
    let error = (code, transient).prop_map(|(code, transient)| {
        format!(
            r#""error":{{"message":"{WORD}","code":{code},"is_transient":{transient},
                "error_data":{{"details":"{WORD}"}}}}"#
        )
    });
    let members = prop::collection::vec(prop_oneof![messages, error], 0..3);
    let shaped = members.prop_map(|members| format!("{{{}}}", members.join(",")).into_bytes());
    prop_oneof![
        6 => shaped.clone(),
        2 => (shaped, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut body, at, byte)| {
            let at = at.index(body.len());
            body[at] = byte;
            body
        }),
        1 => prop::collection::vec(any::<u8>(), 0..60),
        1 => Just(format!("<html>{WORD}").into_bytes()),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let status = prop_oneof![
        prop::sample::select(vec![200_u16, 201, 400, 401, 404, 408, 429, 500, 503]),
        100..1000_u16,
    ];
    let after = prop::option::of((0..90_000_u64).prop_map(Duration::from_secs));
    (status, after, body()).prop_map(|(status, after, body)| Answer {
        status: StatusCode::from_u16(status).expect("a status"),
        after,
        body,
    })
}

/// What another reader finds: the message id, and the code.
fn looked_up(answer: &Answer) -> Option<(bool, Option<i64>)> {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    let id = body.pointer("/messages/0/id");
    let has_id = id.is_some_and(|id| id.is_i64() || id.as_str().is_some_and(|id| !id.is_empty()));
    let code = body.pointer("/error/code").and_then(|code| {
        let text = code.as_str().and_then(|text| text.parse().ok());
        code.as_i64().or(text)
    });
    Some((has_id, code))
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = self.body.escape_ascii();
        write!(f, "{} {:?} {body}", self.status, self.after)
    }
}

proptest! {
    #![proptest_config(property::cases(512))]

    #[test]
    fn every_answer_has_one_verdict(answer in answer()) {
        let found = looked_up(&answer);
        let reason = match verdict(&answer) {
            SendVerdict::Accepted { wamid } => {
                prop_assert!(answer.status.is_success());
                prop_assert!(!wamid.as_str().is_empty() && !wamid.as_str().contains('\0'));
                prop_assert!(found.is_none_or(|(has_id, _)| has_id));
                return Ok(());
            }
            SendVerdict::Unreachable { .. } => {
                return Err(TestCaseError::fail("somebody answered"));
            }
            SendVerdict::Unsure { reason } => reason,
            SendVerdict::Rejected { code, class, after, reason } => {
                prop_assert_ne!(class, FailureClass::Ambiguous);
                prop_assert_eq!(after, answer.after);
                let is_metas = found.is_some_and(|(_, found)| found == Some(code));
                let is_of_status = code == i64::from(answer.status.as_u16());
                prop_assert!(is_metas || is_of_status || found.is_none());
                // Meta took it, or nobody knows: a plain success is never a clear no.
                prop_assert!(!answer.status.is_success() || error_in_words(&answer).is_some());
                reason
            }
        };
        prop_assert!(!reason.contains(WORD), "{}", reason);
        let accepted = found.is_some_and(|(has_id, _)| has_id && answer.status.is_success());
        prop_assert!(!accepted, "what has an id was accepted");
        let words = error_in_words(&answer).unwrap_or_default();
        prop_assert!(!words.contains(WORD), "{}", words);
    }

    #[test]
    fn advice_to_wait_is_never_longer_than_a_day(value in prop::collection::vec(any::<u8>(), 0..30),
        seconds in any::<u64>()) {
        let seconds = seconds.to_string().into_bytes();
        for bytes in [value, seconds] {
            let value = http::HeaderValue::from_bytes(&bytes).ok();
            prop_assert!(retry_after(value.as_ref()).is_none_or(|after| after <= AFTER_MAX));
        }
    }
}
