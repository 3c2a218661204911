//! A load generator for loopback: so many connections, each with one request under way.
//!
//! Bodies are made and signed before the clock starts, so that what is measured is the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::shots::Shot;
use crate::clock::Clock;

/// A moment, and the processor time that this process had used by then.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) at: Duration,
    processor: Duration,
}

impl Moment {
    pub(super) fn now(clock: &Clock) -> Self {
        Self {
            at: clock.boottime(),
            processor: clock.processor_time(),
        }
    }

    /// How long ago `before` was.
    pub(super) const fn since(&self, before: &Self) -> Duration {
        self.at.saturating_sub(before.at)
    }

    /// Processor microseconds since `before`, for each of so many things.
    pub(super) fn processor_us(&self, before: &Self, things: usize) -> f64 {
        let used = self.processor.saturating_sub(before.processor);
        used.as_secs_f64() * 1e6 / things as f64
    }
}

/// How one round went.
pub(super) struct Round {
    /// Just before the first shot; all connections were open.
    pub(super) began: Moment,
    /// Just after the last answer.
    pub(super) ended: Moment,
    /// When each shot was fired (time since boot), by its index.
    pub(super) fired: Vec<Duration>,
    /// Of each answer, sorted.
    pub(super) latencies: Vec<Duration>,
}

impl Round {
    pub(super) fn per_second(&self) -> f64 {
        self.fired.len() as f64 / self.ended.since(&self.began).as_secs_f64()
    }

    /// Processor microseconds for one request, load generator included.
    pub(super) fn processor_us(&self) -> f64 {
        self.ended.processor_us(&self.began, self.fired.len())
    }
}

/// One shot and its answer.
struct Hit {
    index: usize,
    fired: Duration,
    latency: Duration,
}

/// Fires every shot once over `connections` connections.
pub(super) async fn fire(
    target: SocketAddr,
    shots: Arc<Vec<Shot>>,
    connections: usize,
    clock: &Clock,
) -> Result<Round, String> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut gunners = JoinSet::new();
    let mut opened = Vec::with_capacity(connections);
    for _ in 0..connections {
        opened.push(open(target).await?);
    }
    let began = Moment::now(clock);
    for sender in opened {
        let (next, shots, clock) = (Arc::clone(&next), Arc::clone(&shots), clock.clone());
        gunners.spawn(async move { gunner(sender, &next, &shots, &clock, target).await });
    }
    let mut fired = vec![Duration::ZERO; shots.len()];
    let mut latencies = Vec::with_capacity(shots.len());
    while let Some(hits) = gunners.join_next().await {
        for hit in hits.map_err(|_| "a load task panicked".to_owned())?? {
            fired[hit.index] = hit.fired;
            latencies.push(hit.latency);
        }
    }
    let ended = Moment::now(clock);
    latencies.sort_unstable();
    Ok(Round {
        began,
        ended,
        fired,
        latencies,
    })
}

async fn open(target: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("no connection to {target}: {error}");
    let stream = TcpStream::connect(target)
        .await
        .map_err(|error| failed(&error))?;
    stream.set_nodelay(true).map_err(|error| failed(&error))?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn gunner(
    mut sender: SendRequest<Full<Bytes>>,
    next: &AtomicUsize,
    shots: &[Shot],
    clock: &Clock,
    target: SocketAddr,
) -> Result<Vec<Hit>, String> {
    let host = target.to_string();
    let mut hits = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(shot) = shots.get(index) else {
            return Ok(hits);
        };
        let request = Request::post("/webhook")
            .header("host", &host)
            .header("content-type", "application/json")
            .header("x-hub-signature-256", &shot.signature)
            .body(Full::new(shot.body.clone()))
            .map_err(|error| error.to_string())?;
        let fired = clock.boottime();
        sender.ready().await.map_err(|error| error.to_string())?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status();
        response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("expected 200, found {status}"));
        }
        hits.push(Hit {
            index,
            fired,
            latency: clock.boottime().saturating_sub(fired),
        });
    }
}
