//! What a proxy answers when it does not do what it is asked, in words for people.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

/// An answer that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { status, text }
    }

    pub(super) fn not_loopback() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "expected a bot's listener on a loopback address, found one that others can reach: \
             hapax is no proxy there, or it would be one for everybody. Set bot.listen \
             (HAPAX_BOT_LISTEN) to 127.0.0.1",
        )
    }

    pub(super) fn nowhere() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "expected CONNECT HOST:PORT, found something else",
        )
    }

    pub(super) fn elsewhere() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "expected CONNECT for another host than graph.facebook.com, found a request in clear: \
             hapax does not read what is not Meta's. Use this proxy for https only, or keep the \
             client from using it for other hosts (axios: proxy: false)",
        )
    }

    pub(super) fn too_many(what: &str, bound: usize) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("expected at most {bound} {what} at a time, found one more"),
        )
    }

    pub(super) fn unreachable(reason: &str) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            format!("expected a connection to the host, found none: {reason}"),
        )
    }

    pub(super) fn too_slow(limit: std::time::Duration) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("expected a connection to the host within {limit:?}, found none"),
        )
    }

    pub(super) fn no_authority(reason: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, reason)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        (self.status, plain, self.text + "\n").into_response()
    }
}
