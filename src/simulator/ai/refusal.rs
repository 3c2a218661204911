//! Why the pretend AI refuses a call, in OpenAI's shape.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A refused call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: Option<&'static str>,
    message: &'static str,
}

impl Refusal {
    /// Two answers at a time in one conversation. A 400, as OpenAI has it.
    pub(super) const LOCKED: Self = Self {
        status: StatusCode::BAD_REQUEST,
        code: Some("conversation_locked"),
        message: "Another process is currently operating on this conversation. Please retry in a \
                  few seconds.",
    };
    pub(super) const NOT_FOUND: Self = Self {
        status: StatusCode::NOT_FOUND,
        code: None,
        message: "There is no such thing here, or it was deleted.",
    };
    pub(super) const FULL: Self = Self {
        status: StatusCode::TOO_MANY_REQUESTS,
        code: Some("rate_limit_exceeded"),
        message: "This pretend AI keeps no more than it has.",
    };

    pub(super) const fn invalid(message: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: None,
            message,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = json!({
            "message": self.message,
            "type": "invalid_request_error",
            "param": null,
            "code": self.code,
        });
        (self.status, Json(json!({ "error": error }))).into_response()
    }
}
