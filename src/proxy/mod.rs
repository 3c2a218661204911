//! A proxy on the bot's listener, for bots that have `graph.facebook.com` built in: what they mean
//! for that host is answered here, what they mean for others goes through unread.
//!
//! Knows nothing of what is served in the host's place, which is any `Router`; and serves as a
//! proxy on a loopback address only.

mod asked;
mod authority;
pub mod environment;
mod files;
mod intercept;
mod refusal;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::uri::{Authority as HostAndPort, PathAndQuery};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OnceCell, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, error};

use self::asked::{Asked, Target, asked};
pub use self::authority::{Authority, AuthorityError};
use self::refusal::Refusal;
use crate::clock::Clock;
use crate::listener::{self, Limits};

/// The host that is answered for.
pub const HOST: &str = "graph.facebook.com";
/// Where a proxy tells what it is: `GET`, answered with a [`Description`].
pub const DESCRIPTION_PATH: &str = "/v1/proxy";

/// How long a tunnel's far side may take to be connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Tunnels at a time.
const TUNNELS_MAX: usize = 1024;

/// What a proxy is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The host that it answers for.
    pub host: String,
    /// The folder of its certificate authority, an absolute path.
    pub ca_dir: PathBuf,
    /// SHA-256 of the authority's certificate, in hexadecimal digits.
    pub ca_sha256: String,
}

/// Serves `router` until `stop`, as [`listener::serve`] does, and beside it as a proxy: a request
/// for [`HOST`], within TLS or in clear, gets to the router as if it had been sent to it.
///
/// The authority in `ca_dir` is opened, and made if there is none, when it is first needed. After
/// the stop tunnels and intercepted connections may finish what they are at, within `limits.drain`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    ca_dir: PathBuf,
    limits: Limits,
    clock: Clock,
    stop: CancellationToken,
) {
    let own = listener.local_addr().ok();
    let proxy = Arc::new(Proxy {
        router,
        own,
        ca_dir,
        opened: OnceCell::new(),
        limits,
        clock: clock.clone(),
        stop: stop.clone(),
        intercepted: bound(limits.connections),
        tunnels: bound(TUNNELS_MAX),
        tasks: TaskTracker::new(),
    });
    let served = Router::new()
        .fallback(answer)
        .with_state(Arc::clone(&proxy));
    listener::serve(listener, served, limits, clock, stop).await;
    proxy.tasks.close();
    proxy.tasks.wait().await;
}

fn bound(places: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)))
}

/// What is there once somebody has needed it.
#[derive(Clone)]
struct Opened {
    authority: Arc<Authority>,
    acceptor: TlsAcceptor,
}

struct Proxy {
    router: Router,
    /// Where it listens.
    own: Option<SocketAddr>,
    ca_dir: PathBuf,
    opened: OnceCell<Opened>,
    limits: Limits,
    clock: Clock,
    stop: CancellationToken,
    intercepted: Arc<Semaphore>,
    tunnels: Arc<Semaphore>,
    /// What outlives the request that it began with.
    tasks: TaskTracker,
}

async fn answer(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let own = |authority: &HostAndPort| proxy.is_own(authority);
    match asked(request.method(), request.uri(), own) {
        Asked::Direct if is_about_the_proxy(&request) => answered(proxy.description().await),
        Asked::Direct => proxy.pass(request).await,
        Asked::Relayed => proxy.pass(as_if_direct(request)).await,
        Asked::Elsewhere => Refusal::elsewhere().into_response(),
        Asked::Nowhere => Refusal::nowhere().into_response(),
        Asked::Intercept => answered(proxy.intercept(request).await),
        Asked::Tunnel(target) => answered(proxy.tunnel(request, target).await),
    }
}

fn answered(result: Result<impl IntoResponse, Refusal>) -> Response {
    match result {
        Ok(answer) => answer.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn is_about_the_proxy(request: &Request) -> bool {
    request.method() == Method::GET && request.uri().path() == DESCRIPTION_PATH
}

/// The request as a client sends it that knows no proxy (RFC 9112, 3.2.1 and 3.2.2).
fn as_if_direct(mut request: Request) -> Request {
    let path = request.uri().path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    let host = HeaderValue::from_static(HOST);
    request.headers_mut().insert(header::HOST, host);
    request
}

impl Proxy {
    async fn pass(&self, request: Request) -> Response {
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Whether a request names this server where others name a host.
    fn is_own(&self, authority: &HostAndPort) -> bool {
        let Some(own) = self.own else {
            return false;
        };
        let host = authority.host().trim_matches(['[', ']']);
        let is_here = match host.parse::<IpAddr>() {
            Ok(ip) => ip == own.ip(),
            Err(_) => host.eq_ignore_ascii_case("localhost") && own.ip().is_loopback(),
        };
        is_here && authority.port_u16().unwrap_or(80) == own.port()
    }

    /// A proxy that others can reach would be everybody's way into this machine's network.
    fn admit(&self) -> Result<(), Refusal> {
        let is_loopback = self.own.is_some_and(|own| own.ip().is_loopback());
        is_loopback.then_some(()).ok_or_else(Refusal::not_loopback)
    }

    async fn opened(&self) -> Result<&Opened, Refusal> {
        let opened = self.opened.get_or_try_init(async || {
            let (folder, clock) = (self.ca_dir.clone(), self.clock.clone());
            let opened = tokio::task::spawn_blocking(move || Authority::open(&folder, clock));
            let opened = opened.await.map_err(|error| error.to_string())?;
            let authority = Arc::new(opened.map_err(|error| error.to_string())?);
            let acceptor = intercept::acceptor(Arc::clone(&authority));
            Ok(Opened {
                authority,
                acceptor,
            })
        });
        opened.await.map_err(|error: String| {
            error!(error, "no certificate authority for bots behind the proxy");
            Refusal::no_authority(&error)
        })
    }

    async fn description(&self) -> Result<Json<Description>, Refusal> {
        self.admit()?;
        let authority = &self.opened().await?.authority;
        Ok(Json(Description {
            host: HOST.to_owned(),
            ca_dir: authority.folder().to_owned(),
            ca_sha256: authority.fingerprint(),
        }))
    }

    /// Ends the client's TLS here, and serves what it asks within.
    async fn intercept(&self, mut request: Request) -> Result<StatusCode, Refusal> {
        self.admit()?;
        let permit = Arc::clone(&self.intercepted).try_acquire_owned();
        let permit = permit.map_err(|_| {
            Refusal::too_many(
                "connections for graph.facebook.com",
                self.limits.connections,
            )
        })?;
        let acceptor = self.opened().await?.acceptor.clone();
        let upgrade = hyper::upgrade::on(&mut request);
        let (router, limits) = (self.router.clone(), self.limits);
        let (clock, stop) = (self.clock.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let _permit = permit;
            if let Ok(upgraded) = upgrade.await {
                let stream = TokioIo::new(upgraded);
                intercept::serve(stream, acceptor, router, limits, clock, stop).await;
            }
        });
        Ok(StatusCode::OK)
    }

    /// Connects to the far side, and carries what comes, unread.
    async fn tunnel(&self, mut request: Request, target: Target) -> Result<StatusCode, Refusal> {
        self.admit()?;
        let permit = Arc::clone(&self.tunnels).try_acquire_owned();
        let permit = permit.map_err(|_| Refusal::too_many("tunnels", TUNNELS_MAX))?;
        let far = self.connect(&target).await?;
        let upgrade = hyper::upgrade::on(&mut request);
        let (clock, stop, drain) = (self.clock.clone(), self.stop.clone(), self.limits.drain);
        self.tasks.spawn(async move {
            let _permit = permit;
            if let Ok(upgraded) = upgrade.await {
                tunnel::carry(TokioIo::new(upgraded), far, clock, stop, drain).await;
            }
        });
        Ok(StatusCode::OK)
    }

    async fn connect(&self, target: &Target) -> Result<TcpStream, Refusal> {
        let connecting = async {
            let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        match self.clock.timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                debug!(%error, "a bot's tunnel leads nowhere");
                Err(Refusal::unreachable(&error.to_string()))
            }
            Err(_) => {
                debug!("a bot's tunnel leads nowhere in time");
                Err(Refusal::too_slow(CONNECT_TIMEOUT))
            }
        }
    }
}

#[cfg(test)]
mod tests;
