//! Why a caller does not get what it asked for, as JSON: a word for programs, and for people what
//! was expected and what was found. Repeats nobody's number.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::store::StoreError;

/// What one who comes too early is told to wait, in seconds.
pub(super) const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An answer that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            code,
            message,
        }
    }

    /// The request can't be meant so.
    pub(super) fn asked(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn body_too_slow(limit: std::time::Duration) -> Self {
        let message = format!("expected the whole body within {limit:?}, found a part of it");
        Self::new(StatusCode::REQUEST_TIMEOUT, "wrong_body", message)
    }

    pub(super) fn body_too_long(limit: usize) -> Self {
        let message = format!("expected a body of at most {limit} bytes, found a longer one");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "wrong_body", message)
    }

    pub(super) fn token(is_other: bool) -> Self {
        let found = if is_other { "another one" } else { "none" };
        let message = format!("expected HAPAX_BOT_TOKEN as a bearer token, found {found}");
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    pub(super) fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "wrong_method",
            "expected a method of this path, found another one; the header allow lists them",
        )
    }

    pub(super) fn nothing_here() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "expected a path below /v1/threads, found another one",
        )
    }

    pub(super) fn other_number() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_number",
            "expected the number of whatsapp.phone_number_id, the only one that is served here; \
             found another one",
        )
    }

    pub(super) fn unknown_contact() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_contact",
            "expected somebody who is known at this number, found nobody",
        )
    }

    pub(super) fn no_thread() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no_thread",
            "expected a conversation that has or had a thread, found none",
        )
    }

    pub(super) fn late(reason: &str, version: i64, now: i64) -> Self {
        let message = format!(
            "expected a right to make the thread that is still valid, found version {version} \
             while the conversation has {now}: {reason}; ask for the thread again"
        );
        Self::new(StatusCode::CONFLICT, "late", message)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "the ledger did not answer about an AI thread");
        let message = format!("expected an answer of the ledger, found none: {error}");
        match error {
            StoreError::Refused(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "refused", message)
            }
            StoreError::Behind { .. }
            | StoreError::Unavailable(_)
            | StoreError::Lost
            | StoreError::Fatal(_)
            | StoreError::Newer { .. }
            | StoreError::DeadNode(_)
            | StoreError::Open(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code, "message": self.message}});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}
