//! Serves HTTP/1.1 on a socket: the same bounds and the same orderly end for every listener.
//!
//! Bounds connections, the wait for a request head, and the age of a connection. Does not bound
//! bodies: how much of one may be read, and for how long, is a matter of the route. Knows no route.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;

/// What one connection buffers of a head or a piece of a body, in bytes.
const BUFFER_MAX: usize = 64 * 1024;

/// The pause after an accept that failed for want of a resource (a file descriptor, memory):
/// trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, at least 1. Further ones wait in the kernel's backlog.
    pub connections: usize,
    /// How long a connection may take to send a whole request head, and how long it may stand
    /// idle before its next request begins.
    pub header: Duration,
    /// How long a connection may live. Then it may finish its request, for at most `drain`. A
    /// client that never reads its answers is held by nothing else.
    pub age: Duration,
    /// How long requests under way may go on after the stop.
    pub drain: Duration,
}

/// Binds a socket. Port 0 lets the system choose; ask the listener for the address.
///
/// # Errors
/// The system's error, with the address in its text.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("can't listen on {address}: {error}"))
    })
}

/// Serves `router` until `stop`; returns when the last connection has ended, `limits.drain` after
/// the stop at the latest.
///
/// On the stop no connection is taken any more, idle ones are closed, and the others may finish
/// the request that they are at. Dropped before its end, it accepts no more; connections that are
/// open go on until `stop` or `limits.age`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    clock: Clock,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(
        limits.connections.clamp(1, Semaphore::MAX_PERMITS),
    ));
    let connections = TaskTracker::new();
    let server = Server {
        router,
        limits,
        clock,
        stop,
    };
    while let Some(permit) = server.permit(&permits).await {
        let Some(stream) = server.accept(&listener).await else {
            break;
        };
        let connection = server.clone().connection(stream, permit);
        connections.spawn(connection);
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

#[derive(Clone)]
struct Server {
    router: Router,
    limits: Limits,
    clock: Clock,
    stop: CancellationToken,
}

impl Server {
    /// The right to one more connection; `None` on the stop.
    async fn permit(&self, permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            permit = permits.clone().acquire_owned() => permit.ok(),
        }
    }

    /// The next connection; `None` on the stop.
    async fn accept(&self, listener: &TcpListener) -> Option<TcpStream> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => return Some(stream),
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "can't accept connections; trying again");
                    tokio::select! {
                        () = self.stop.cancelled() => return None,
                        () = self.clock.sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }

    /// Serves one connection to its end, and holds its permit as long.
    async fn connection(self, stream: TcpStream, _permit: OwnedSemaphorePermit) {
        // An answer is written in one piece; waiting for more to send would only delay it.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone before it was served");
            return;
        }
        connection(stream, self.router, self.limits, self.clock, self.stop).await;
    }
}

/// Serves `router` on one connection to its end, which comes as for those of [`serve`].
///
/// A request may ask for another protocol (`hyper::upgrade`). From the answer on the stream is the
/// router's: nothing here bounds it any more.
pub async fn connection<S>(
    stream: S,
    router: Router,
    limits: Limits,
    clock: Clock,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    // hyper starts the time-out of the head when it begins to wait for it, also after an
    // answer, so that it bounds an idle connection as well (hyper 1.12, `State::idle`).
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        // First the connection, so that a request that has arrived is served despite the stop.
        biased;
        ended = connection.as_mut() => return log_end(ended),
        () = stop.cancelled() => {}
        () = clock.sleep(limits.age) => {}
    }
    connection.as_mut().graceful_shutdown();
    match clock.timeout(limits.drain, connection).await {
        Ok(ended) => log_end(ended),
        Err(_) => {
            tracing::warn!("a connection was cut: its request took longer than the drain")
        }
    }
}

/// Faults of one connection that was dropped before it was accepted say nothing of the next.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Clients hang up, stall and send garbage all day: worth a line only to who looks for it.
fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: hapax\r\n\r\n";
    const LONG: Duration = Duration::from_secs(60);
    const LIMITS: Limits = Limits {
        connections: 16,
        header: LONG,
        age: LONG,
        drain: LONG,
    };

    struct Running {
        address: SocketAddr,
        stop: CancellationToken,
        served: JoinHandle<()>,
    }

    async fn start(router: Router, limits: Limits, clock: Clock) -> Running {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, router, limits, clock, stop.clone()));
        Running {
            address,
            stop,
            served,
        }
    }

    /// A route that says when it is entered and waits for a permit to answer.
    fn gate() -> (Router, mpsc::Receiver<usize>, Arc<Semaphore>) {
        let (entered, entries) = mpsc::channel(16);
        let inside = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let open = gate.clone();
        let route = get(move || async move {
            let now_inside = inside.fetch_add(1, Ordering::SeqCst) + 1;
            entered.send(now_inside).await.expect("the test listens");
            gate.acquire().await.expect("open").forget();
            inside.fetch_sub(1, Ordering::SeqCst);
            "done"
        });
        (Router::new().route("/", route), entries, open)
    }

    fn hello() -> Router {
        Router::new().route("/", get(|| async { "hello" }))
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.expect("connects")
    }

    async fn ask(address: SocketAddr) -> TcpStream {
        let mut stream = connect(address).await;
        stream.write_all(REQUEST).await.expect("writes");
        stream
    }

    async fn read_answer(stream: &mut TcpStream, end: &str) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(end.as_bytes()) {
            let read = stream.read_buf(&mut answer).await.expect("reads");
            assert_ne!(read, 0, "the answer ended early");
        }
        String::from_utf8(answer).expect("is text")
    }

    async fn rest(stream: &mut TcpStream) -> Vec<u8> {
        let mut rest = Vec::new();
        stream
            .read_to_end(&mut rest)
            .await
            .expect("is closed in order");
        rest
    }

    #[tokio::test]
    async fn a_slow_head_is_cut() {
        let limits = Limits {
            header: Duration::from_millis(30),
            ..LIMITS
        };
        let running = start(hello(), limits, Clock::system()).await;
        let mut stream = connect(running.address).await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost:")
            .await
            .expect("writes");
        let rest = rest(&mut stream).await;
        assert!(
            !rest.starts_with(b"HTTP/1.1 200"),
            "an unfinished request was answered"
        );
    }

    #[tokio::test]
    async fn a_connection_serves_several_requests() {
        let running = start(hello(), LIMITS, Clock::system()).await;
        let mut stream = ask(running.address).await;
        read_answer(&mut stream, "hello").await;
        stream.write_all(REQUEST).await.expect("writes");
        read_answer(&mut stream, "hello").await;
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed() {
        let limits = Limits {
            header: Duration::from_millis(30),
            ..LIMITS
        };
        let running = start(hello(), limits, Clock::system()).await;
        let mut stream = ask(running.address).await;
        read_answer(&mut stream, "hello").await;
        assert_eq!(rest(&mut stream).await, b"");
    }

    #[tokio::test]
    async fn an_old_connection_is_closed() {
        let clock = Clock::manual(crate::model::Timestamp(0));
        let running = start(hello(), LIMITS, clock.clone()).await;
        let mut stream = ask(running.address).await;
        read_answer(&mut stream, "hello").await;
        clock.advance(LONG);
        assert_eq!(rest(&mut stream).await, b"");
    }

    #[tokio::test]
    async fn a_stop_finishes_what_is_under_way_and_refuses_the_rest() {
        let (router, mut entries, gate) = gate();
        let running = start(router, LIMITS, Clock::system()).await;
        let mut idle = connect(running.address).await;
        let mut busy = ask(running.address).await;
        entries.recv().await.expect("the request is under way");
        running.stop.cancel();
        assert_eq!(rest(&mut idle).await, b"");
        while TcpStream::connect(running.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!running.served.is_finished());
        gate.add_permits(1);
        let answer = read_answer(&mut busy, "done").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        running.served.await.expect("ends");
        assert_eq!(rest(&mut busy).await, b"");
    }

    #[tokio::test]
    async fn a_request_that_outlasts_the_drain_is_cut() {
        let (router, mut entries, _gate) = gate();
        let clock = Clock::manual(crate::model::Timestamp(0));
        let limits = Limits {
            age: LONG * 9,
            ..LIMITS
        };
        let running = start(router, limits, clock.clone()).await;
        let mut busy = ask(running.address).await;
        entries.recv().await.expect("the request is under way");
        running.stop.cancel();
        while TcpStream::connect(running.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!running.served.is_finished());
        clock.advance(LIMITS.drain);
        running.served.await.expect("ends");
        assert_eq!(rest(&mut busy).await, b"");
    }

    #[tokio::test]
    async fn no_more_connections_than_allowed_are_served_at_a_time() {
        let (router, mut entries, gate) = gate();
        let limits = Limits {
            connections: 2,
            ..LIMITS
        };
        let running = start(router, limits, Clock::system()).await;
        let mut streams = Vec::new();
        for _ in 0..6 {
            streams.push(ask(running.address).await);
        }
        let mut most = 0;
        for mut stream in streams {
            let inside = entries.recv().await.expect("a request comes in");
            most = most.max(inside);
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            gate.add_permits(1);
            read_answer(&mut stream, "done").await;
        }
        assert_eq!(most, 2);
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let error = bind(address).await.expect_err("is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
