//! What operators ask over HTTP: figures for Prometheus, and lists of what is in the ledger. Shows
//! no text and no identity, and changes nothing.

mod listing;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use subtle::ConstantTimeEq;

use crate::model::Secret;
use crate::store::{Backlog, SharedStore};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Waiting;

/// The parts that the admin side is made of.
#[derive(Clone)]
pub struct AdminParts {
    /// The ledger.
    pub store: SharedStore,
    /// Figures.
    pub metrics: Metrics,
    /// What callers must show as a bearer token, if anything.
    pub token: Option<Secret>,
}

/// What the admin listener serves.
pub fn router(parts: AdminParts) -> Router {
    let parts = Arc::new(parts);
    Router::new()
        .route("/metrics", get(figures))
        .route("/v1/dead-letters", get(listing::dead_letters))
        .route("/v1/outgoing", get(listing::outgoings))
        .layer(middleware::from_fn_with_state(Arc::clone(&parts), admit))
        .route("/healthz", get(|| async { "alive\n" }))
        .with_state(parts)
}

async fn admit(State(parts): State<Arc<AdminParts>>, request: Request, next: Next) -> Response {
    let Some(token) = &parts.token else {
        return next.run(request).await;
    };
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    if bool::from(shown.as_bytes().ct_eq(token.expose().as_bytes())) {
        return next.run(request).await;
    }
    (
        StatusCode::UNAUTHORIZED,
        "show HAPAX_ADMIN_TOKEN as a bearer token\n",
    )
        .into_response()
}

/// Prometheus's text format; the figures of the ledger are read at this moment.
async fn figures(State(parts): State<Arc<AdminParts>>) -> Response {
    match parts.store.backlog().await {
        Ok(backlog) => parts.metrics.waiting(&waiting(&backlog)),
        // Better the counters alone than none, when the store can't be read.
        Err(error) => {
            parts.metrics.waiting_unknown();
            tracing::warn!(%error, "the backlog could not be read");
        }
    }
    let commits = parts.store.commits();
    parts.metrics.store(commits.commits, commits.writes);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], parts.metrics.render()).into_response()
}

fn waiting(backlog: &Backlog) -> Waiting {
    let oldest = backlog.oldest.as_ref();
    Waiting {
        oldest: oldest.map(|oldest| (oldest.reason.as_str(), oldest.waiting)),
        messages_pending: backlog.messages_pending,
        conversations_pending: backlog.conversations_pending,
        outgoing_open: backlog.outgoing_open,
        outgoing_unsure: backlog.outgoing_unsure,
        dead_letters_open: backlog.dead_letters,
        numbers_paused: backlog.numbers_paused,
        relays_waiting: backlog.relays,
    }
}
