//! The address of a PostgreSQL server or of several: from a URL to connections.
//!
//! What a URL means is what it means to libpq, PostgreSQL's own client, where it is taken at all.
//! Whatever can hold a user name or a password is never printed, not even when it is wrong.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

mod connect;
mod parameters;
#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
mod tls;
mod url;

pub use connect::{ConnectError, Connector, Messages};

use crate::clock::Clock;
use tls::{Mode, Tls};

/// How long one server may take to answer where nobody says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a PostgreSQL database is, and how it wants to be spoken to. Prints as [`Address::place`].
///
/// Source: PostgreSQL, *Connection URIs* and *Parameter Key Words*
/// (<https://www.postgresql.org/docs/current/libpq-connect.html>).
#[derive(Clone)]
pub struct Address {
    /// All of it, hosts included.
    config: Config,
    /// All of it but the hosts, to which one host at a time is added.
    session: Config,
    servers: Vec<Server>,
    tls: Tls,
    place: String,
    has_connect_timeout: bool,
}

/// One server that may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    host: Host,
    port: u16,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// A name or an IP address, as it stands in the server's certificate.
    Name(String),
    /// The same, and where it is, so that nobody need be asked.
    Known(String, IpAddr),
    /// The directory of a socket, in which no TLS is spoken.
    Socket(PathBuf),
}

/// What is wrong with an address. Holds nothing of the user name and of the password, and nothing
/// that may be a piece of them in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part}: expected {expected}{}", .found.as_ref().map(|found| format!(", found {found}")).unwrap_or_default())]
pub struct AddressError {
    /// The parameter or the part of the URL that is wrong.
    pub part: String,
    /// What would have been right.
    pub expected: String,
    /// What stands there instead, where it may be shown.
    pub found: Option<String>,
}

impl AddressError {
    fn new(part: &str, expected: impl Into<String>) -> Self {
        Self {
            part: part.to_owned(),
            expected: expected.into(),
            found: None,
        }
    }

    fn found(self, found: impl Into<String>) -> Self {
        Self {
            found: Some(found.into()),
            ..self
        }
    }
}

impl Address {
    /// Reads a `postgres://` or `postgresql://` URL. No file is read and nobody is called.
    ///
    /// Several hosts are separated by commas. A host that begins with `/` (in the URL `%2F`, or as
    /// the parameter `host`) is the directory of a socket. Where several hosts are named, only one
    /// that takes writes will do, unless `target_session_attrs` says otherwise.
    ///
    /// # Errors
    /// The first thing that is wrong. Also what libpq takes and this program can't do: parameters
    /// that it does not know, and addresses without a host.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let mut draft = parameters::Draft::default();
        let query = url::read(text, &mut draft)?;
        for (name, value) in &query {
            draft.take(name, value)?;
        }
        draft.finish()
    }

    /// Gives each server so long to answer, unless the URL says how long.
    #[must_use]
    pub fn with_connect_timeout(mut self, limit: Duration) -> Self {
        if !self.has_connect_timeout {
            self.config.connect_timeout(limit);
            self.session.connect_timeout(limit);
        }
        self
    }

    /// The settings of a connection, as the driver has them. It has no words for certificates:
    /// connect with [`Address::connector`].
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How many hosts are named; at least one.
    pub const fn hosts(&self) -> usize {
        self.servers.len()
    }

    /// Hosts, ports and the name of the database, for logs: `postgres://db1:5432,db2:5432/hapax`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Reads the certificates that are needed. Nobody is called yet.
    ///
    /// # Errors
    /// A file can't be read, or does not hold what it should; or the system has no certificates.
    pub fn connector(&self, clock: Clock) -> Result<Connector, AddressError> {
        Ok(Connector::new(self.clone(), self.tls.client()?, clock))
    }

    /// The place as a URL: everything in it that could be mistaken for a separator is escaped.
    fn describe(servers: &[Server], database: Option<&str>) -> String {
        let hosts: Vec<String> = servers.iter().map(Server::to_string).collect();
        let database = database.map(url::encoded).unwrap_or_default();
        format!("postgres://{}/{database}", hosts.join(","))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.place).finish()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.host {
            Host::Name(name) | Host::Known(name, _) if name.contains(':') => {
                write!(f, "[{name}]:{port}")
            }
            Host::Name(name) | Host::Known(name, _) => write!(f, "{}:{port}", url::encoded(name)),
            Host::Socket(path) => write!(f, "{}:{port}", url::encoded(&path.to_string_lossy())),
        }
    }
}

impl Server {
    const fn is_socket(&self) -> bool {
        matches!(self.host, Host::Socket(_))
    }

    /// Adds this server to settings that know no other, or the same kind only.
    fn add_to(&self, config: &mut Config) {
        match &self.host {
            Host::Name(name) => config.host(name),
            Host::Known(name, ip) => config.host(name).hostaddr(*ip),
            Host::Socket(path) => config.host_path(path),
        };
        config.port(self.port);
    }
}

impl Mode {
    /// The driver's word for it: it asks for TLS, and somebody else looks at the certificate.
    const fn of_driver(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => SslMode::Require,
        }
    }
}
