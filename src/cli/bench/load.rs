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

use crate::clock::Clock;

/// One signed delivery.
pub(super) struct Shot {
    pub(super) body: Bytes,
    pub(super) signature: String,
}

/// How one round went.
pub(super) struct Round {
    pub(super) requests: usize,
    pub(super) took: Duration,
    /// Processor time of the whole process, load generator included.
    pub(super) processor: Duration,
    /// Of each answer, sorted.
    pub(super) latencies: Vec<Duration>,
}

impl Round {
    pub(super) fn per_second(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }

    /// Processor microseconds for one request, load generator included.
    pub(super) fn processor_us(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.requests as f64
    }

    /// The latency that `share` of the answers did not exceed.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }
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
    let started = clock.boottime();
    let processor = clock.processor_time();
    for sender in opened {
        let (next, shots, clock) = (Arc::clone(&next), Arc::clone(&shots), clock.clone());
        gunners.spawn(async move { gunner(sender, &next, &shots, &clock, target).await });
    }
    let mut latencies = Vec::with_capacity(shots.len());
    while let Some(fired) = gunners.join_next().await {
        latencies.extend(fired.map_err(|_| "a load task panicked".to_owned())??);
    }
    let took = clock.boottime().saturating_sub(started);
    let processor = clock.processor_time().saturating_sub(processor);
    latencies.sort_unstable();
    Ok(Round {
        requests: latencies.len(),
        took,
        processor,
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
) -> Result<Vec<Duration>, String> {
    let host = target.to_string();
    let mut latencies = Vec::new();
    while let Some(shot) = shots.get(next.fetch_add(1, Ordering::Relaxed)) {
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
        latencies.push(clock.boottime().saturating_sub(fired));
    }
    Ok(latencies)
}
