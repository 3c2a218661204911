//! The one request that may wait: for the thread that somebody else is making, or for the right to
//! make it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::asked::{self, Path, Query};
use super::refusal::RETRY_AFTER;
use super::{Refusal, Threads, shown, tell};
use crate::model::thread::Access;
use crate::store::ThreadClaim;

/// How long one who waits goes without a look, whatever the hints.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long at least between two looks, however many hints there are.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// `PUT /v1/threads/{number}/{contact}`: the thread, or the right to make it, as soon as either
/// can be had, and no later than the wait allows.
pub(super) async fn access(
    State(threads): State<Arc<Threads>>,
    path: Path,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let claim = ThreadClaim {
        whose: threads.whose(path)?,
        key: asked::key(&headers)?,
        lasts: threads.settings.create_timeout,
    };
    let wait = asked::wait(&query, threads.settings.wait_max)?;
    let parts = &threads.parts;
    let ends_at = parts.clock.boottime() + wait;
    let mut changed = parts.store.threads_changed();
    let mut place = None;
    loop {
        let looked_at = parts.clock.boottime();
        // Seen before the look: what changes during it is a reason for another one.
        changed.mark_unchanged();
        let claimed = threads.answer(parts.store.claim_thread(claim.clone()));
        let (conversation, access) = claimed.await?.ok_or_else(Refusal::unknown_contact)?;
        let (version, left) = match access {
            Access::Ready { version, thread } => {
                return Ok(Json(shown::ready(version, &thread)).into_response());
            }
            Access::Create { version, left } => {
                tell(conversation, version, "an AI thread may be made");
                return Ok(Json(shown::create(version, left)).into_response());
            }
            Access::Pending { version, left } => (version, left),
        };
        if place.is_none() {
            place = threads.places.try_acquire().ok();
        }
        let rest = ends_at.saturating_sub(parts.clock.boottime());
        if rest.is_zero() || place.is_none() || parts.stop.is_cancelled() {
            return Ok(pending(version, left));
        }
        tokio::select! {
            () = parts.stop.cancelled() => continue,
            // Fails when the store is gone, which the next look says.
            _ = changed.changed() => {}
            () = parts.clock.sleep(rest.min(left).min(LOOK_EVERY)) => {}
        }
        let since = parts.clock.boottime().saturating_sub(looked_at);
        let early = LOOK_PAUSE.saturating_sub(since);
        if !early.is_zero() {
            parts.clock.sleep(early.min(rest)).await;
        }
    }
}

/// The wait is over: to be asked again.
fn pending(version: i64, left: Duration) -> Response {
    let body = Json(shown::pending(version, left));
    (
        StatusCode::ACCEPTED,
        [(header::RETRY_AFTER, RETRY_AFTER)],
        body,
    )
        .into_response()
}
