//! Reading Meta's answer to a send: accepted, a clear no, or nobody knows.
//!
//! In doubt it is unsure: a message that is sent twice can't be taken back.

use std::time::Duration;

use http::StatusCode;

use super::errors::{classify, meaning};
use crate::model::{FailureClass, GraphAnswer, SendVerdict, Wamid};
use crate::whatsapp::json::{self, Object};

/// Advice to wait longer than this is not Meta's.
const AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What Meta answered, read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `Retry-After`, where it is a number of seconds.
    pub(super) after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// Reads the header's seconds. Its other form, a date, is not Meta's.
pub(super) fn retry_after(value: Option<&http::HeaderValue>) -> Option<Duration> {
    let seconds = value?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(AFTER_MAX))
}

/// What an answer to a send shows.
pub(super) fn verdict(answer: &Answer) -> SendVerdict {
    let text = String::from_utf8_lossy(&answer.body);
    let root = json::parse(&text).unwrap_or_default();
    let accepted = answer
        .status
        .is_success()
        .then(|| wamid_of(&root))
        .flatten();
    match (accepted, error_of(&root)) {
        (Some(wamid), _) => SendVerdict::Accepted { wamid },
        (None, Some((code, transient))) => of_code(answer, code, transient),
        (None, None) => of_status(answer),
    }
}

/// The answer as it came, for whom it was asked in the end; `None` if it is not the API's.
pub(super) fn kept(answer: Answer) -> Option<GraphAnswer> {
    let body = String::from_utf8(answer.body).ok()?;
    let fits = body.len() <= GraphAnswer::BODY_MAX && json::parse(&body).is_some();
    fits.then_some(GraphAnswer {
        status: answer.status.as_u16(),
        body,
    })
}

/// The code of the answer's error, in words; `None` where it holds none.
pub(super) fn error_in_words(answer: &Answer) -> Option<String> {
    let text = String::from_utf8_lossy(&answer.body);
    let (code, _) = error_of(&json::parse(&text)?)?;
    Some(in_words(code))
}

fn in_words(code: i64) -> String {
    format!("Meta's error {code}: {}", meaning(code))
}

fn wamid_of(root: &Object<'_>) -> Option<Wamid> {
    let messages = root.array("messages")?;
    let id = json::object(messages.first()?)?.text("id")?;
    Some(Wamid::new(id.to_text()))
}

fn error_of(root: &Object<'_>) -> Option<(i64, bool)> {
    let error = root.object("error")?;
    Some((error.integer("code")?, error.is_true("is_transient")))
}

fn of_code(answer: &Answer, code: i64, transient: bool) -> SendVerdict {
    let reason = in_words(code);
    // Counts only for a code that is not in our table.
    let open = transient || answer.status.is_server_error() || answer.status.is_success();
    refusal(answer, code, classify(code, open), reason)
}

/// Not an answer of the API: something on the way spoke, or Meta's edge. The code is then the
/// HTTP status. What any request would be refused for waits until somebody mends it.
fn of_status(answer: &Answer) -> SendVerdict {
    let status = answer.status.as_u16();
    let reason = format!("HTTP {status} with neither a message id nor an error code of Meta's");
    let class = match status {
        408 | 425 | 499 => FailureClass::Ambiguous,
        429 => FailureClass::NumberRate,
        300..=399 | 401 | 403 | 404 | 405 | 407 => FailureClass::NumberBlocked,
        400..=499 => FailureClass::Refused,
        _ => FailureClass::Ambiguous,
    };
    refusal(answer, i64::from(status), class, reason)
}

fn refusal(answer: &Answer, code: i64, class: FailureClass, reason: String) -> SendVerdict {
    match class {
        FailureClass::Ambiguous => SendVerdict::Unsure { reason },
        FailureClass::PairRate
        | FailureClass::NumberRate
        | FailureClass::NumberBlocked
        | FailureClass::Refused => SendVerdict::Rejected {
            code,
            class,
            after: answer.after,
            reason,
        },
    }
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: &str) {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            after: None,
            body: body.as_bytes().to_vec(),
        };
        let found = match verdict(&answer) {
            SendVerdict::Accepted { wamid } => format!("accepted {}", wamid.as_str()),
            SendVerdict::Unsure { .. } => "unsure".to_owned(),
            SendVerdict::Unreachable { .. } => "unreachable".to_owned(),
            SendVerdict::Rejected { code, class, .. } => format!("{class:?} {code}"),
        };
        assert_eq!(found, expected, "{status} {body}");
    }

    #[test]
    fn an_id_is_acceptance_and_nothing_else_is() {
        check(
            200,
            r#"{"messages":[{"id":"wamid.1"}]}"#,
            "accepted wamid.1",
        );
        check(
            201,
            r#"{"messages":[{"id":"wamid.1"}]}"#,
            "accepted wamid.1",
        );
        for body in [
            "",
            "{}",
            r#"{"messages":[]}"#,
            r#"{"messages":[{"id":""}]}"#,
            "[1]",
        ] {
            check(200, body, "unsure");
        }
        check(500, r#"{"messages":[{"id":"wamid.1"}]}"#, "unsure");
    }

    #[test]
    fn an_error_is_classed_by_its_code_and_not_by_its_status() {
        check(400, r#"{"error":{"code":130429}}"#, "NumberRate 130429");
        check(400, r#"{"error":{"code":"131056"}}"#, "PairRate 131056");
        check(500, r#"{"error":{"code":190}}"#, "NumberBlocked 190");
        check(400, r#"{"error":{"code":131047}}"#, "Refused 131047");
        check(400, r#"{"error":{"code":131000}}"#, "unsure");
        check(400, r#"{"error":{"code":999999}}"#, "Refused 999999");
        check(
            400,
            r#"{"error":{"code":999999,"is_transient":true}}"#,
            "unsure",
        );
        check(503, r#"{"error":{"code":999999}}"#, "unsure");
    }

    #[test]
    fn without_a_code_the_status_decides() {
        for status in [408, 499, 500, 502, 503, 504] {
            check(status, "<html>", "unsure");
        }
        check(429, "", "NumberRate 429");
        for status in [302, 401, 403, 404] {
            check(status, "", &format!("NumberBlocked {status}"));
        }
        for status in [400, 413] {
            check(status, "", &format!("Refused {status}"));
        }
    }

    #[test]
    fn reasons_hold_no_word_of_metas() {
        let body =
            r#"{"error":{"code":131026,"message":"to +4915","error_data":{"details":"4915"}}}"#;
        let answer = Answer {
            status: StatusCode::BAD_REQUEST,
            after: Some(Duration::from_secs(3)),
            body: body.as_bytes().to_vec(),
        };
        let SendVerdict::Rejected { reason, after, .. } = verdict(&answer) else {
            panic!("it is a clear no");
        };
        assert!(!reason.contains("4915"), "{reason}");
        assert_eq!(after, Some(Duration::from_secs(3)));
    }

    #[test]
    fn advice_to_wait_is_seconds_within_reason() {
        let read = |text: &'static str| retry_after(Some(&http::HeaderValue::from_static(text)));
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("99999999"), Some(AFTER_MAX));
        assert_eq!(read("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(retry_after(None), None);
    }
}
