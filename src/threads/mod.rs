//! The AI thread of a conversation, for bots that keep their threads at a provider themselves: who
//! may make it, and which one it is. Served on the bot's listener.
//!
//! Knows no provider and makes no thread. Who waits for somebody else's looks again by itself; a
//! wake-up is only a hint.

mod asked;
mod refusal;
mod shown;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::asked::{Path, Query};
use self::refusal::Refusal;
use crate::clock::Clock;
use crate::model::thread::{Completion, Lateness};
use crate::model::{ConversationId, NumberId, Secret};
use crate::store::{SharedStore, StoreError, Whose};

/// The parts that the threads' side is made of.
pub struct ThreadParts {
    /// The ledger.
    pub store: SharedStore,
    /// Time.
    pub clock: Clock,
    /// What callers must show as a bearer token, if anything.
    pub token: Option<Secret>,
    /// The only number that is served, if not all are.
    pub only_number: Option<NumberId>,
    /// Ends every wait: the process drains.
    pub stop: CancellationToken,
}

/// What the threads' side goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadSettings {
    /// How long a right to make a thread lasts.
    pub create_timeout: Duration,
    /// How long a caller waits for somebody else's thread, if it asks for no less.
    pub wait_max: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long an answer of the ledger may take.
    pub store_wait_max: Duration,
}

/// Callers of one process that may wait at a time; further ones are told to come again.
const WAITING_MAX: usize = 128;

struct Threads {
    parts: ThreadParts,
    settings: ThreadSettings,
    places: Semaphore,
}

/// What the bot's listener serves below `/v1`: threads, and nothing else.
pub fn router(parts: ThreadParts, settings: ThreadSettings) -> Router {
    let threads = Arc::new(Threads {
        parts,
        settings,
        places: Semaphore::new(WAITING_MAX),
    });
    let one = get(show).put(wait::access).delete(forget);
    Router::new()
        .route("/v1/threads/orphans", get(orphans))
        .route("/v1/threads/{number}/{contact}", one)
        .route("/v1/threads/{number}/{contact}/complete", post(complete))
        .method_not_allowed_fallback(async || Refusal::method())
        .route("/v1", any(async || Refusal::nothing_here()))
        .route("/v1/{*other}", any(async || Refusal::nothing_here()))
        .layer(middleware::from_fn_with_state(Arc::clone(&threads), admit))
        .with_state(threads)
}

async fn admit(State(threads): State<Arc<Threads>>, request: Request, next: Next) -> Response {
    let Some(token) = &threads.parts.token else {
        return next.run(request).await;
    };
    let shown = bearer(request.headers());
    let fits = shown.is_some_and(|shown| shown.ct_eq(token.expose().as_bytes()).into());
    if fits {
        return next.run(request).await;
    }
    Refusal::token(shown.is_some()).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let shown = headers.get(header::AUTHORIZATION)?.as_bytes();
    shown.strip_prefix(b"Bearer ")
}

impl Threads {
    /// Whose thread a path speaks of.
    fn whose(&self, path: Path) -> Result<Whose, Refusal> {
        let whose = asked::whose(path)?;
        match &self.parts.only_number {
            Some(only) if *only != whose.number => Err(Refusal::other_number()),
            _ => Ok(whose),
        }
    }

    /// What the ledger answers, if it does in time.
    async fn answer<A>(
        &self,
        asked: impl Future<Output = Result<A, StoreError>>,
    ) -> Result<A, Refusal> {
        let limit = self.settings.store_wait_max;
        match self.parts.clock.timeout(limit, asked).await {
            Ok(answer) => answer.map_err(Refusal::from),
            Err(_) => {
                let reason = format!("no answer within {limit:?}");
                Err(StoreError::Unavailable(reason).into())
            }
        }
    }
}

/// `GET /v1/threads/{number}/{contact}`: what is known, and what was.
async fn show(State(threads): State<Arc<Threads>>, path: Path) -> Result<Response, Refusal> {
    let whose = threads.whose(path)?;
    let record = threads.answer(threads.parts.store.thread(whose)).await?;
    let record = record
        .filter(shown::has_something)
        .ok_or_else(Refusal::no_thread)?;
    Ok(Json(shown::record(&record)).into_response())
}

/// `DELETE /v1/threads/{number}/{contact}`: the next one who asks makes another one.
async fn forget(State(threads): State<Arc<Threads>>, path: Path) -> Result<Response, Refusal> {
    let whose = threads.whose(path)?;
    let forgotten = threads.answer(threads.parts.store.forget_thread(whose));
    let (conversation, version) = forgotten.await?.ok_or_else(Refusal::no_thread)?;
    tell(conversation, version, "an AI thread is to be made afresh");
    Ok(Json(shown::vacant(version)).into_response())
}

/// `POST /v1/threads/{number}/{contact}/complete`: this is the thread.
async fn complete(
    State(threads): State<Arc<Threads>>,
    path: Path,
    body: Body,
) -> Result<Response, Refusal> {
    let whose = threads.whose(path)?;
    let body = asked::body(body, &threads.parts.clock, threads.settings.body_timeout).await?;
    let (version, thread) = asked::completion(&body)?;
    let completed = threads
        .parts
        .store
        .complete_thread(whose, version, thread.clone());
    let completed = threads.answer(completed).await?;
    let (conversation, completion) = completed.ok_or_else(Refusal::unknown_contact)?;
    match completion {
        Completion::Stored => tell(conversation, version, "an AI thread is stored"),
        Completion::Again => {}
        Completion::Late { why, version: now } => {
            let reason = reason(why);
            warn!(
                conversation.id = %conversation,
                thread.version = version,
                reason,
                "an AI thread came too late"
            );
            return Err(Refusal::late(reason, version, now));
        }
    }
    Ok(Json(shown::ready(version, &thread)).into_response())
}

const fn reason(why: Lateness) -> &'static str {
    match why {
        Lateness::Over => "the right to make it has ended",
        Lateness::Taken => "another thread was stored under this version",
        Lateness::OtherVersion => "the right is another one by now, or was taken away",
    }
}

fn tell(conversation: ConversationId, version: i64, what: &'static str) {
    info!(conversation.id = %conversation, thread.version = version, "{what}");
}

/// `GET /v1/threads/orphans?limit=N`: what was made for nothing, newest first.
async fn orphans(State(threads): State<Arc<Threads>>, query: Query) -> Result<Response, Refusal> {
    let limit = asked::limit(&query)?;
    let orphans = threads.answer(threads.parts.store.orphans(limit)).await?;
    Ok(Json(shown::orphans(orphans)).into_response())
}

#[cfg(test)]
mod tests;
