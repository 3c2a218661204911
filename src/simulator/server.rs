//! A small HTTP server on loopback for the pretend services: bounded, able to reset a connection
//! on purpose, and gone without a trace when stopped.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::clock::Clock;

const CONNECTIONS_MAX: usize = 1024;
const BACKLOG: u32 = 1024;

/// A port of the loopback interface, kept for us as long as this lives, also while nobody
/// listens on it: a server that is down must not lose its address to another program.
#[derive(Debug)]
pub struct Port {
    addr: SocketAddr,
    _reserved: TcpSocket,
}

impl Port {
    /// Any free port.
    ///
    /// # Errors
    /// When there is none.
    pub fn reserve() -> io::Result<Self> {
        let reserved = socket((Ipv4Addr::LOCALHOST, 0).into())?;
        let addr = reserved.local_addr()?;
        Ok(Self {
            addr,
            _reserved: reserved,
        })
    }

    /// Where it is.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn listen(&self) -> io::Result<TcpListener> {
        socket(self.addr)?.listen(BACKLOG)
    }
}

fn socket(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Lets a listening socket join the one that only reserves.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// In the extensions of every request: resets its connection (TCP RST), whatever is under way.
#[derive(Debug, Clone)]
pub(super) struct Hangup(CancellationToken);

impl Hangup {
    /// For a request whose connection is somebody else's: it never ends.
    pub(super) fn never() -> Self {
        Self(CancellationToken::new())
    }

    /// Resets the connection. Never returns: the handler that calls it is dropped.
    pub(super) async fn reset(&self) -> std::convert::Infallible {
        self.0.cancel();
        std::future::pending().await
    }
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Serves `router` on `port` until [`Server::stop`] or until it is dropped. Calls under way
    /// at the stop get `grace`, then they are cut.
    pub(super) fn start(
        port: &Port,
        router: Router,
        clock: Clock,
        grace: Duration,
    ) -> io::Result<Self> {
        let listener = port.listen()?;
        let server = Self {
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let connections = Connections {
            router,
            clock,
            grace,
            stop: server.stop.clone(),
        };
        let accepting = accept(listener, connections, server.tasks.clone());
        server.tasks.spawn(accepting);
        server.tasks.close();
        Ok(server)
    }

    /// Stops listening, ends every connection, and returns when nothing is left.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Clone)]
struct Connections {
    router: Router,
    clock: Clock,
    grace: Duration,
    stop: CancellationToken,
}

async fn accept(listener: TcpListener, connections: Connections, tasks: TaskTracker) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = connections.stop.cancelled() => return,
            accepted = async {
                let place = Arc::clone(&room).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(place), Ok((stream, _))) => {
                let connections = connections.clone();
                tasks.spawn(async move {
                    serve(stream, connections).await;
                    drop(place);
                });
            }
            // Out of file descriptors, or the client is gone already: neither may spin.
            _ => connections.clock.sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(stream: TcpStream, connections: Connections) {
    let hangup = Hangup(CancellationToken::new());
    let service = service_fn(|mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(hangup.clone());
        connections.router.clone().oneshot(request)
    });
    // Latency is measured through this; Nagle's algorithm would add 40 ms.
    let _ = stream.set_nodelay(true);
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // An error here is the client's: it hung up or spoke no HTTP.
        _ = &mut connection => return,
        () = hangup.0.cancelled() => {
            let stream = connection.into_parts().io.into_inner();
            let _ = stream.set_zero_linger();
            return;
        }
        () = connections.stop.cancelled() => {}
    }
    std::pin::Pin::new(&mut connection).graceful_shutdown();
    let _ = connections
        .clock
        .timeout(connections.grace, connection)
        .await;
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(addr: SocketAddr, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn reset(Extension(hangup): Extension<Hangup>) -> StatusCode {
        match hangup.reset().await {}
    }

    fn router() -> Router {
        Router::new()
            .route("/hi", get(|| async { "hello" }))
            .route("/reset", get(reset))
            .route("/never", get(std::future::pending::<()>))
    }

    fn start(port: &Port) -> Server {
        let grace = Duration::from_millis(1);
        Server::start(port, router(), Clock::system(), grace).unwrap()
    }

    #[tokio::test]
    async fn a_port_survives_being_down() {
        let port = Port::reserve().unwrap();
        for _ in 0..3 {
            let refused = ask(port.addr(), "/hi").await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let server = start(&port);
            assert!(ask(port.addr(), "/hi").await.unwrap().ends_with("hello"));
            server.stop().await;
        }
    }

    #[tokio::test]
    async fn a_reset_is_a_reset() {
        let port = Port::reserve().unwrap();
        let server = start(&port);
        let reset = ask(port.addr(), "/reset").await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_who_never_answers() {
        let port = Port::reserve().unwrap();
        let server = start(&port);
        let addr = port.addr();
        let asking = tokio::spawn(async move { ask(addr, "/never").await });
        // Its answer shows that the connection before it was accepted, too.
        ask(port.addr(), "/hi").await.unwrap();
        server.stop().await;
        let cut = asking.await.unwrap();
        assert!(cut.is_err() || cut.is_ok_and(|answer| answer.is_empty()));
    }
}
