//! The headers by which a bot, and whoever reads its logs, knows a turn again.

use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::model::{EventKey, Turn};

const CONVERSATION: HeaderName = HeaderName::from_static("x-hapax-conversation");
const TURN: HeaderName = HeaderName::from_static("x-hapax-turn");
const ATTEMPT: HeaderName = HeaderName::from_static("x-hapax-attempt");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The headers of a call in `turn` that hands over the event `key`.
pub(crate) fn of_turn(turn: &Turn, key: EventKey) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONVERSATION, value(turn.conversation));
    headers.insert(TURN, value(turn.id));
    headers.insert(ATTEMPT, HeaderValue::from(turn.attempt));
    headers.insert(TRACEPARENT, value(traceparent(turn, key)));
    headers
}

/// The value of one of our own ids.
pub(crate) fn value(id: impl std::fmt::Display) -> HeaderValue {
    HeaderValue::try_from(id.to_string()).expect("our ids are ASCII letters, digits, - and _")
}

/// W3C Trace Context, level 1, 3.2. The trace is the event and the span is the attempt, so that
/// all that ever happens to one message stands in one trace, and a repeat gets the same ids.
fn traceparent(turn: &Turn, key: EventKey) -> String {
    let span = Sha256::digest(format!("{}:{}", turn.id, turn.attempt));
    format!("00-{key}-{}-01", hex::encode(&span[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::testing::turn;

    #[test]
    fn a_trace_is_the_event_and_a_span_the_attempt() {
        let mut turn = turn(7, &["hi"]);
        turn.attempt = 2;
        let headers = of_turn(&turn, EventKey([0xab; 16]));
        assert_eq!(
            headers[TRACEPARENT],
            "00-abababababababababababababababab-4f6eb1a9ade664f3-01"
        );
        assert_eq!(headers[CONVERSATION], "cv_7");
        assert_eq!(headers[TURN], "turn_7_3");
        assert_eq!(headers[ATTEMPT], "2");
    }
}
