//! What is in the ledger, as JSON in pages: open dead letters, and outgoings. Ids have the form
//! that they have in logs. No wamid is shown: it holds the person's phone number.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::AdminParts;
use crate::model::{Attempt, OutgoingId};
use crate::store::{DeadLetter, OutgoingRecord, StoreError};

/// How many are told where nothing else is asked for.
const LIMIT_DEFAULT: u32 = 100;
/// How many can be asked for: a few megabytes of JSON.
const LIMIT_MAX: u32 = 10_000;

/// The parameters of a request, as they came.
pub(super) type Parameters = Query<Vec<(String, String)>>;

#[derive(Serialize)]
struct DeadLetters {
    dead_letters: Vec<ShownDeadLetter>,
}

#[derive(Serialize)]
struct ShownDeadLetter {
    kind: &'static str,
    conversation: String,
    turn: String,
    outgoing: Option<String>,
    reason: String,
    attempts: Attempt,
    at: String,
}

#[derive(Serialize)]
struct Outgoings {
    outgoing: Vec<ShownOutgoing>,
    next: Option<String>,
}

#[derive(Serialize)]
struct ShownOutgoing {
    id: String,
    conversation: String,
    turn: String,
    state: &'static str,
    attempt: Attempt,
    rank: &'static str,
    failed_attempt: Option<Attempt>,
}

/// `GET /v1/dead-letters?limit=N`: open ones, newest first.
pub(super) async fn dead_letters(
    State(parts): State<Arc<AdminParts>>,
    Query(parameters): Parameters,
) -> Result<Response, Refusal> {
    let asked = Asked::read(&parameters, &["limit"])?;
    let listed = parts.store.dead_letters(asked.limit).await?;
    let dead_letters = listed.into_iter().map(ShownDeadLetter::from).collect();
    Ok(Json(DeadLetters { dead_letters }).into_response())
}

/// `GET /v1/outgoing?after=ID&limit=N`: all of them, oldest first. `next` is what to ask for
/// `after` this page, and null at the end.
pub(super) async fn outgoings(
    State(parts): State<Arc<AdminParts>>,
    Query(parameters): Parameters,
) -> Result<Response, Refusal> {
    let asked = Asked::read(&parameters, &["after", "limit"])?;
    let limit = asked.limit as usize;
    // One more than is shown tells whether there are more.
    let mut listed = parts.store.outgoings(asked.after, asked.limit + 1).await?;
    let more = listed.len() > limit;
    listed.truncate(limit);
    let last = listed.last().filter(|_| more);
    let next = last.map(|record| record.id.to_string());
    let outgoing = listed.into_iter().map(ShownOutgoing::from).collect();
    Ok(Json(Outgoings { outgoing, next }).into_response())
}

/// What a request asks for.
struct Asked {
    after: Option<OutgoingId>,
    limit: u32,
}

impl Asked {
    fn read(parameters: &[(String, String)], known: &[&str]) -> Result<Self, Refusal> {
        let mut asked = Self {
            after: None,
            limit: LIMIT_DEFAULT,
        };
        for (name, value) in parameters {
            match name.as_str() {
                name if !known.contains(&name) => {
                    let names = known.join(", ");
                    return Err(Refusal::asked(format!(
                        "expected only {names}; found {name:?}"
                    )));
                }
                "limit" => asked.limit = read_limit(value)?,
                _ => {
                    let after = OutgoingId::from_str(value);
                    let refused = |error| Refusal::asked(format!("after: {error}"));
                    asked.after = Some(after.map_err(refused)?);
                }
            }
        }
        Ok(asked)
    }
}

fn read_limit(value: &str) -> Result<u32, Refusal> {
    let limit = value.parse().ok();
    limit
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| {
            let expected = format!("limit: expected a number from 1 to {LIMIT_MAX}");
            Refusal::asked(format!("{expected}, found {value:?}"))
        })
}

/// Why nothing is listed, as plain text.
pub(super) struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    const fn asked(reason: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            reason,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "the ledger could not be listed");
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: format!("the ledger could not be read: {error}"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, format!("{}\n", self.reason)).into_response()
    }
}

impl From<DeadLetter> for ShownDeadLetter {
    fn from(letter: DeadLetter) -> Self {
        Self {
            kind: letter.kind.as_str(),
            conversation: letter.conversation.to_string(),
            turn: letter.turn().to_string(),
            outgoing: letter.outgoing.map(|id| id.to_string()),
            reason: letter.reason,
            attempts: letter.attempts,
            at: letter.at.to_string(),
        }
    }
}

impl From<OutgoingRecord> for ShownOutgoing {
    fn from(record: OutgoingRecord) -> Self {
        Self {
            id: record.id.to_string(),
            conversation: record.conversation.to_string(),
            turn: record.turn().to_string(),
            state: record.state.as_str(),
            attempt: record.attempt,
            rank: record.rank.as_str(),
            failed_attempt: record.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, header};
    use serde_json::{Value, json};
    use tempfile::TempDir;
    use tower::ServiceExt;

    use super::*;
    use crate::clock::Clock;
    use crate::model::{ConversationId, OutgoingState, Rank, Secret, Timestamp, Wamid};
    use crate::store::DeadKind;
    use crate::store::sqlite::{SqliteSettings, SqliteStore};
    use crate::telemetry::Metrics;

    const FILE: &str = "hapax.db";

    fn side(folder: &TempDir, token: Option<&str>) -> axum::Router {
        let settings = SqliteSettings {
            path: folder.path().join(FILE),
            queue_max: 16,
            wal_max: 1 << 20,
        };
        let store = SqliteStore::open(&settings, Clock::system()).expect("a new file opens");
        super::super::router(AdminParts {
            store: Arc::new(store),
            metrics: Metrics::new(),
            token: token.map(Secret::new),
        })
    }

    async fn get(side: &axum::Router, path: &str, token: &str) -> (StatusCode, String) {
        let request = Request::get(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::empty())
            .expect("a request");
        let answer = side.clone().oneshot(request).await.expect("infallible");
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
        (status, body)
    }

    #[tokio::test]
    async fn an_empty_ledger_is_listed_as_that() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let side = side(&folder, None);
        for (path, expected) in [
            ("/v1/dead-letters", json!({"dead_letters": []})),
            ("/v1/dead-letters?limit=10000", json!({"dead_letters": []})),
            ("/v1/outgoing", json!({"outgoing": [], "next": null})),
            (
                "/v1/outgoing?after=out_7&limit=1",
                json!({"outgoing": [], "next": null}),
            ),
        ] {
            let (status, body) = get(&side, path, "").await;
            assert_eq!(status, StatusCode::OK, "{path}: {body}");
            let body: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(body, expected, "{path}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_meant_is_refused_with_what_was_expected() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let side = side(&folder, None);
        for (query, expected) in [
            (
                "after=7",
                "after: expected an id of the form out_<number>, found \"7\"\n",
            ),
            (
                "after=cv_7",
                "after: expected an id of the form out_<number>, found \"cv_7\"\n",
            ),
            (
                "limit=0",
                "limit: expected a number from 1 to 10000, found \"0\"\n",
            ),
            (
                "limit=10001",
                "limit: expected a number from 1 to 10000, found \"10001\"\n",
            ),
            (
                "limit=",
                "limit: expected a number from 1 to 10000, found \"\"\n",
            ),
            ("lmit=5", "expected only after, limit; found \"lmit\"\n"),
        ] {
            let answer = get(&side, &format!("/v1/outgoing?{query}"), "").await;
            assert_eq!(answer, (StatusCode::BAD_REQUEST, expected.to_owned()));
        }
        let (status, body) = get(&side, "/v1/dead-letters?after=out_7", "").await;
        let expected = "expected only limit; found \"after\"\n".to_owned();
        assert_eq!((status, body), (StatusCode::BAD_REQUEST, expected));
    }

    #[tokio::test]
    async fn without_the_token_nothing_is_listed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let side = side(&folder, Some("right"));
        for path in ["/v1/dead-letters", "/v1/outgoing"] {
            for (token, expected) in [
                ("wrong", StatusCode::UNAUTHORIZED),
                ("", StatusCode::UNAUTHORIZED),
                ("right", StatusCode::OK),
            ] {
                assert_eq!(get(&side, path, token).await.0, expected, "{path} {token}");
            }
        }
    }

    #[tokio::test]
    async fn a_ledger_that_cannot_be_read_is_answered_503() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let side = side(&folder, None);
        std::fs::write(folder.path().join(FILE), [7; 8192]).expect("written over");
        for path in ["/v1/dead-letters", "/v1/outgoing"] {
            let (status, body) = get(&side, path, "").await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
            assert!(body.starts_with("the ledger could not be read: "), "{body}");
        }
    }

    #[test]
    fn ids_are_shown_as_in_logs_and_no_wamid_is() {
        let record = OutgoingRecord {
            id: OutgoingId(9),
            conversation: ConversationId(4),
            seq: 2,
            state: OutgoingState::Sent,
            attempt: 1,
            rank: Rank::Delivered,
            failed: None,
            wamid: Some(Wamid::from("wamid.HBgMNDk=")),
        };
        let expected = json!({
            "id": "out_9", "conversation": "cv_4", "turn": "turn_4_2", "state": "sent",
            "attempt": 1, "rank": "delivered", "failed_attempt": null,
        });
        let shown = serde_json::to_value(ShownOutgoing::from(record)).expect("JSON");
        assert_eq!(shown, expected);
        let letter = DeadLetter {
            kind: DeadKind::Unsure,
            conversation: ConversationId(4),
            outgoing: Some(OutgoingId(9)),
            seq: 2,
            reason: "no receipt came".to_owned(),
            attempts: 1,
            at: Timestamp(1_800_000_000_250),
        };
        let expected = json!({
            "kind": "unsure", "conversation": "cv_4", "turn": "turn_4_2", "outgoing": "out_9",
            "reason": "no receipt came", "attempts": 1, "at": "2027-01-15T08:00:00.25Z",
        });
        let shown = serde_json::to_value(ShownDeadLetter::from(letter)).expect("JSON");
        assert_eq!(shown, expected);
    }
}
