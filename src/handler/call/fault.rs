//! What an answer, or the lack of one, says about a call to a bot.
//!
//! Pure: looks at a status, a header or an error, never at a body, so that nothing of a message
//! can reach a reason.

use std::error::Error;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

/// The longest wait that a bot may ask for; a longer one is cut to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// Why a call was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// This URL handled nothing, and neither would it handle anything else now.
    Down { after: Option<Duration> },
    /// Something before the bot has lost it, perhaps in the middle of the call.
    Lost { after: Option<Duration> },
    /// The bot is there and asks for patience.
    Busy { after: Option<Duration> },
    /// It may or may not have been handled; the fault may lie in the message.
    Failed,
    /// The bot will never take this.
    Refused,
}

/// What is wrong with an answer; `None` when the bot has taken the call.
pub(super) fn of_answer(status: StatusCode, headers: &HeaderMap) -> Option<Fault> {
    let after = || retry_after(headers);
    match status.as_u16() {
        200..=299 => None,
        408 | 429 => Some(Fault::Busy { after: after() }),
        300..=499 => Some(Fault::Refused),
        503 => Some(Fault::Down { after: after() }),
        502 | 504 => Some(Fault::Lost { after: after() }),
        _ => Some(Fault::Failed),
    }
}

/// What is wrong when no answer came.
///
/// Only a connection that never came to be (refused, no such name, timed out, failed TLS) is sure
/// to have handed nothing over.
pub(super) fn of_error(error: &reqwest::Error) -> Fault {
    if error.is_connect() {
        Fault::Down { after: None }
    } else {
        Fault::Failed
    }
}

/// What the operator should know of an answer that is not 2xx.
pub(super) fn describe_answer(status: StatusCode) -> String {
    let hint = match status.as_u16() {
        300..=399 => ": redirects are not followed, set the URL that it leads to",
        401 | 403 => {
            ": it probably refused the signature; its secret must be the one that Hapax signs with"
        }
        _ => "",
    };
    format!("answered {}{hint}", status.as_u16())
}

/// What the operator should know of a call without an answer.
pub(super) fn describe_error(error: reqwest::Error) -> String {
    let error = error.without_url();
    let kind = if error.is_dns() {
        "has no address"
    } else if error.is_connect() {
        "takes no connection"
    } else {
        "gave no answer"
    };
    format!("{kind}: {}", innermost(&error))
}

/// The innermost cause, which speaks of the connection alone. The outer ones name the URL.
pub(super) fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// `Retry-After` in seconds (RFC 9110, 10.2.3). Its other form, a date, is not understood: it
/// would make a wait depend on two clocks.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, after: Option<&'static str>) -> Option<Fault> {
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(RETRY_AFTER, after.parse().expect("a header"));
        }
        of_answer(StatusCode::from_u16(status).expect("a status"), &headers)
    }

    #[test]
    fn each_status_has_its_class() {
        let cases: [(&[u16], Option<Fault>); 6] = [
            (&[200, 201, 202, 204, 299], None),
            (&[301, 307, 400, 401, 403, 404, 422], Some(Fault::Refused)),
            (&[408, 429], Some(Fault::Busy { after: None })),
            (&[503], Some(Fault::Down { after: None })),
            (&[502, 504], Some(Fault::Lost { after: None })),
            (&[101, 500, 501, 505, 599], Some(Fault::Failed)),
        ];
        for (statuses, expected) in cases {
            for status in statuses {
                assert_eq!(fault(*status, None), expected, "{status}");
            }
        }
    }

    #[test]
    fn a_bot_may_ask_for_ten_minutes_at_most() {
        let busy = |seconds| {
            Some(Fault::Busy {
                after: Some(Duration::from_secs(seconds)),
            })
        };
        assert_eq!(fault(429, Some("17")), busy(17));
        assert_eq!(fault(429, Some("86400")), busy(600));
        for unreadable in ["soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(
                fault(429, Some(unreadable)),
                Some(Fault::Busy { after: None })
            );
        }
    }

    #[test]
    fn a_refused_signature_gets_a_hint() {
        assert!(describe_answer(StatusCode::FORBIDDEN).contains("secret"));
        assert_eq!(describe_answer(StatusCode::NOT_FOUND), "answered 404");
    }
}
