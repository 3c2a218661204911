//! From an address to one connection: host after host, each for a limited time.
//!
//! Does not know what is said over a connection, and keeps none.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_postgres::config::{LoadBalanceHosts, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Address, CONNECT_TIMEOUT, Host, Server};
use crate::clock::Clock;

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Opens connections to an address. Cheap to clone; the certificates were read when it was made.
#[derive(Clone)]
pub struct Connector {
    address: Address,
    tls: MakeRustlsConnect,
    clock: Clock,
    limit: Duration,
    /// Which place is tried first.
    begin: Arc<AtomicUsize>,
}

/// The other half of a connection: it carries what its [`Client`] says, and what the server says
/// unasked. Nothing moves unless it is polled; dropping it ends the connection.
pub struct Messages(Box<Connection<Socket, Stream>>);

impl Messages {
    /// What the server said unasked: a notice (warnings are notices) or a notification. `None`
    /// after the client was dropped and everything was said. After `None` or an error the
    /// connection has ended, and this must not be called again.
    pub fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<AsyncMessage, tokio_postgres::Error>>> {
        self.0.poll_message(context)
    }

    /// The same, awaited. Nothing is lost when it is dropped before it is done.
    pub async fn next(&mut self) -> Option<Result<AsyncMessage, tokio_postgres::Error>> {
        poll_fn(|context| self.poll_message(context)).await
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

/// No server of an address could be used. Tells of each what it said; the database's own words
/// may name the user, never the password.
#[derive(Debug)]
pub struct ConnectError {
    tried: Vec<(String, Cause)>,
}

/// Why one server could not be used.
#[derive(Debug)]
enum Cause {
    /// It did not answer in time.
    Late(Duration),
    /// Nobody knows where it is.
    Unknown(io::Error),
    /// It, or the way to it, refused.
    Refused(tokio_postgres::Error),
}

impl ConnectError {
    /// What the driver said of each server that was found, in the order in which they were tried.
    pub fn refusals(&self) -> impl Iterator<Item = &tokio_postgres::Error> {
        self.tried.iter().filter_map(|(_, cause)| match cause {
            Cause::Refused(error) => Some(error),
            Cause::Late(_) | Cause::Unknown(_) => None,
        })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (place, cause)) in self.tried.iter().enumerate() {
            let gap = if index == 0 { "" } else { "; " };
            write!(f, "{gap}{place}: {cause}")?;
        }
        Ok(())
    }
}

impl Error for ConnectError {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(limit) => {
                let limit = humantime::format_duration(*limit);
                write!(f, "no answer within {limit}")
            }
            Self::Unknown(error) => write!(f, "the name can't be resolved: {error}"),
            Self::Refused(error) => {
                write!(f, "{error}")?;
                let mut source = error.source();
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
        }
    }
}

impl Cause {
    /// Whether it may do without TLS: the handshake failed, or the server lets this client in
    /// without TLS only, which it tells as an authorization that is not valid.
    fn may_be_tls(&self) -> bool {
        let Self::Refused(error) = self else {
            return false;
        };
        let is_handshake = |error: &io::Error| {
            error
                .get_ref()
                .is_some_and(|inner| inner.is::<rustls::Error>())
        };
        error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
            || error
                .source()
                .and_then(|source| source.downcast_ref())
                .is_some_and(is_handshake)
    }
}

impl Connector {
    pub(super) fn new(address: Address, tls: MakeRustlsConnect, clock: Clock) -> Self {
        let limit = address.session.get_connect_timeout();
        Self {
            limit: limit.copied().unwrap_or(CONNECT_TIMEOUT),
            address,
            tls,
            clock,
            begin: Arc::default(),
        }
    }

    /// Where it connects to.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// How TLS is spoken there; what `CancelToken::cancel_query` asks for.
    pub fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// Connects to the first server that will do, in the order of the address, beginning with the
    /// one that did last. Dropped while a silent server is waited for, the next call goes on with
    /// the one after it: who waits less than all of them take gets there all the same.
    ///
    /// Each address of each server has `connect_timeout` for everything: TCP, TLS, the password,
    /// and whether it takes writes; each name to be resolved a quarter of it. `sslmode=prefer` may
    /// try one twice.
    ///
    /// # Errors
    /// No server will do. Nothing is left open, and trying again may help.
    pub async fn connect(&self) -> Result<(Client, Messages), ConnectError> {
        let mut tried = Vec::new();
        let mut places = Vec::new();
        for server in self.shuffled(self.address.servers.clone()) {
            match self.places(&server).await {
                Ok(found) => places.extend(found),
                Err(cause) => tried.push((server.to_string(), cause)),
            }
        }
        let begin = self.begin.load(Ordering::Relaxed);
        for at in (0..places.len()).map(|step| (begin + step) % places.len()) {
            self.begin.store(at + 1, Ordering::Relaxed);
            match self.open(&places[at]).await {
                Ok(opened) => {
                    self.begin.store(at, Ordering::Relaxed);
                    return Ok(opened);
                }
                Err(causes) => {
                    let place = places[at].to_string();
                    tried.extend(causes.into_iter().map(|cause| (place.clone(), cause)));
                }
            }
        }
        Err(ConnectError { tried })
    }

    /// The server once for each of its IP addresses: one that is silent must not use up the time
    /// of the next.
    async fn places(&self, server: &Server) -> Result<Vec<Server>, Cause> {
        let Host::Name(name) = &server.host else {
            return Ok(vec![server.clone()]);
        };
        let lookup = tokio::net::lookup_host((name.as_str(), server.port));
        // A part of the time: the other names are resolved before anybody is called.
        let limit = self.limit / 4;
        let found = match self.clock.timeout(limit, lookup).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(Cause::Unknown(error)),
            Err(_) => return Err(Cause::Late(limit)),
        };
        let mut ips: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        ips.dedup();
        if ips.is_empty() {
            return Err(Cause::Unknown(io::ErrorKind::AddrNotAvailable.into()));
        }
        let place = |ip| Server {
            host: Host::Known(name.clone(), ip),
            port: server.port,
        };
        Ok(self.shuffled(ips.into_iter().map(place).collect()))
    }

    async fn open(&self, server: &Server) -> Result<(Client, Messages), Vec<Cause>> {
        let mut config = self.address.session.clone();
        server.add_to(&mut config);
        if server.is_socket() {
            config.ssl_mode(SslMode::Disable);
        }
        let first = match self.try_once(&config).await {
            Ok(opened) => return Ok(opened),
            Err(cause) => cause,
        };
        if config.get_ssl_mode() != SslMode::Prefer || !first.may_be_tls() {
            return Err(vec![first]);
        }
        config.ssl_mode(SslMode::Disable);
        let plain = self.try_once(&config).await;
        plain.map_err(|second| vec![first, second])
    }

    async fn try_once(&self, config: &Config) -> Result<(Client, Messages), Cause> {
        let call = config.connect(self.tls.clone());
        match self.clock.timeout(self.limit, call).await {
            Ok(Ok((client, connection))) => Ok((client, Messages(Box::new(connection)))),
            Ok(Err(error)) => Err(Cause::Refused(error)),
            Err(_) => Err(Cause::Late(self.limit)),
        }
    }

    /// In the same order, or in any where the address asks for that. Without entropy it is the
    /// same order, which will do as well.
    fn shuffled(&self, mut servers: Vec<Server>) -> Vec<Server> {
        if self.address.session.get_load_balance_hosts() == LoadBalanceHosts::Random {
            servers.sort_by_cached_key(|_| getrandom::u64().unwrap_or_default());
        }
        servers
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.address).finish()
    }
}
