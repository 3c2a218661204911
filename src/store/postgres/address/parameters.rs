//! The parameters of an address, one by one, and what must hold between them.
//!
//! What is not known is a fault and not passed over: a misspelt `sslmode` would leave a password
//! without protection.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{
    ChannelBinding, LoadBalanceHosts, SslNegotiation, TargetSessionAttrs,
};

use super::tls::{Mode, Roots, Tls};
use super::{Address, AddressError, CONNECT_TIMEOUT, Host, Server};

const PORT: u16 = 5432;
const APPLICATION_NAME: &str = "hapax";
/// A silent connection is asked so early whether it still stands; the system's own default is two
/// hours.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
/// A server that is gone without a word is noticed so soon, if we wait for its answer.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// An address of which not everything is read yet.
#[derive(Default)]
pub(super) struct Draft {
    seen: BTreeSet<String>,
    session: Config,
    hosts: Vec<String>,
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
    mode: Option<Mode>,
    roots: Option<Roots>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Draft {
    /// Takes one parameter.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<(), AddressError> {
        if !self.seen.insert(name.to_owned()) {
            let once = "it once, here or before the ?";
            return Err(AddressError::new(&shown(name), once));
        }
        let is_known = self.take_place(name, value)?
            || self.take_tls(name, value)?
            || self.take_socket(name, value)?
            || self.take_session(name, value)?;
        if is_known {
            return Ok(());
        }
        Err(AddressError::new(
            &shown(name),
            "a parameter that Hapax knows (docs/configuration.md lists them)",
        ))
    }

    /// Takes a host: a name, an IP address or the directory of a socket.
    pub(super) fn add_host(&mut self, host: &str) -> Result<(), AddressError> {
        let is_name = |host: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
            !host.is_empty() && host.bytes().all(fits)
        };
        if !host.starts_with('/') && !is_name(host) {
            let expected = "names, IP addresses or directories of sockets, separated by commas";
            return Err(AddressError::new("host", expected));
        }
        self.seen.insert("host".to_owned());
        self.hosts.push(host.to_owned());
        Ok(())
    }

    /// Takes the port of the host that was taken last; the usual one where it is empty.
    pub(super) fn add_port(&mut self, port: &str) -> Result<(), AddressError> {
        let number = match port {
            "" => Some(PORT),
            port => port.parse().ok().filter(|port| *port != 0),
        };
        // Not shown: without an `@`, what stands here was meant to be the password.
        let number = number.ok_or_else(|| AddressError::new("port", "1 to 65535"))?;
        self.seen.insert("port".to_owned());
        self.ports.push(number);
        Ok(())
    }

    fn take_place(&mut self, name: &str, value: &str) -> Result<bool, AddressError> {
        match name {
            "user" => _ = self.session.user(value),
            "password" => _ = self.session.password(value),
            "dbname" => _ = self.session.dbname(value),
            "host" => {
                for host in value.split(',') {
                    self.add_host(host)?;
                }
            }
            "hostaddr" => {
                for address in value.split(',') {
                    let expected = "IP addresses, separated by commas";
                    let address = address
                        .parse()
                        .map_err(|_| AddressError::new(name, expected))?;
                    self.addresses.push(address);
                }
            }
            "port" => {
                for port in value.split(',') {
                    self.add_port(port)?;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_tls(&mut self, name: &str, value: &str) -> Result<bool, AddressError> {
        match name {
            "sslmode" => {
                let modes = [
                    ("disable", Mode::Disable),
                    ("allow", Mode::Prefer),
                    ("prefer", Mode::Prefer),
                    ("require", Mode::Require),
                    ("verify-ca", Mode::VerifyCa),
                    ("verify-full", Mode::VerifyFull),
                ];
                self.mode = Some(word(name, value, &modes)?);
            }
            "sslrootcert" => {
                self.roots = Some(match file(name, value)? {
                    path if path.as_os_str() == "system" => Roots::System,
                    path => Roots::File(path),
                });
            }
            "sslcert" => self.certificate = Some(file(name, value)?),
            "sslkey" => self.key = Some(file(name, value)?),
            "sslnegotiation" => {
                let words = [
                    ("postgres", SslNegotiation::Postgres),
                    ("direct", SslNegotiation::Direct),
                ];
                self.session.ssl_negotiation(word(name, value, &words)?);
            }
            "channel_binding" => {
                let words = [
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ];
                self.session.channel_binding(word(name, value, &words)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_socket(&mut self, name: &str, value: &str) -> Result<bool, AddressError> {
        let session = &mut self.session;
        match name {
            "connect_timeout" => {
                session.connect_timeout(seconds(name, value, 1..=600)?);
            }
            // libpq has milliseconds here, the driver's own parser seconds: what is surely meant
            // as seconds is refused.
            "tcp_user_timeout" => {
                let limit = number(name, value, 1_000..=600_000, " milliseconds")?;
                session.tcp_user_timeout(Duration::from_millis(u64::from(limit)));
            }
            "keepalives" => {
                session.keepalives(word(name, value, &[("0", false), ("1", true)])?);
            }
            "keepalives_idle" => {
                session.keepalives_idle(seconds(name, value, 1..=7_200)?);
            }
            "keepalives_interval" => {
                session.keepalives_interval(seconds(name, value, 1..=600)?);
            }
            "keepalives_count" | "keepalives_retries" => {
                session.keepalives_retries(number(name, value, 1..=100, "")?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_session(&mut self, name: &str, value: &str) -> Result<bool, AddressError> {
        match name {
            "options" => _ = self.session.options(value),
            "application_name" => _ = self.session.application_name(value),
            "target_session_attrs" => {
                let words = [
                    ("any", TargetSessionAttrs::Any),
                    ("read-write", TargetSessionAttrs::ReadWrite),
                    ("read-only", TargetSessionAttrs::ReadOnly),
                ];
                self.session
                    .target_session_attrs(word(name, value, &words)?);
            }
            "load_balance_hosts" => {
                let words = [
                    ("disable", LoadBalanceHosts::Disable),
                    ("random", LoadBalanceHosts::Random),
                ];
                self.session.load_balance_hosts(word(name, value, &words)?);
            }
            // What is done anyway may be asked for.
            "gssencmode" => word(name, value, &[("disable", ()), ("prefer", ())])?,
            "client_encoding" => word(name, value, &[("UTF8", ()), ("utf8", ())])?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The address, if everything in it goes together.
    pub(super) fn finish(mut self) -> Result<Address, AddressError> {
        let servers = self.servers()?;
        let tls = self.tls(&servers)?;
        let mut session = self.session;
        if !self.seen.contains("application_name") {
            session.application_name(APPLICATION_NAME);
        }
        let has = |name: &str| self.seen.contains(name);
        let has_connect_timeout = has("connect_timeout");
        if !has_connect_timeout {
            session.connect_timeout(CONNECT_TIMEOUT);
        }
        if !has("tcp_user_timeout") {
            session.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        if !has("keepalives_idle") {
            session.keepalives_idle(KEEPALIVES_IDLE);
        }
        if !has("keepalives_interval") {
            session.keepalives_interval(KEEPALIVES_INTERVAL);
        }
        if servers.len() > 1 && !has("target_session_attrs") {
            session.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        session.ssl_mode(tls.mode.of_driver());
        let mut config = session.clone();
        for server in &servers {
            server.add_to(&mut config);
        }
        let place = Address::describe(&servers, session.get_dbname());
        Ok(Address {
            config,
            session,
            servers,
            tls,
            place,
            has_connect_timeout,
        })
    }

    fn servers(&mut self) -> Result<Vec<Server>, AddressError> {
        // Only an address: it is also what the server's certificate must name.
        if self.hosts.is_empty() {
            self.hosts = self.addresses.iter().map(IpAddr::to_string).collect();
        }
        let count = self.hosts.len();
        if count == 0 {
            let expected = "a host, such as localhost or ?host=/run/postgresql";
            return Err(AddressError::new("host", expected).found("none"));
        }
        let is_one_each = |others: usize| others == count;
        if !self.addresses.is_empty() && !is_one_each(self.addresses.len()) {
            let expected = format!("as many as there are hosts, which is {count}");
            return Err(AddressError::new("hostaddr", expected));
        }
        if self.ports.len() > 1 && !is_one_each(self.ports.len()) {
            let expected = format!("one for all hosts, or as many as there are, which is {count}");
            return Err(AddressError::new("port", expected));
        }
        let port = |index| self.ports.get(index).or(self.ports.first());
        let server = |(index, host): (usize, &String)| Server {
            host: match self.addresses.get(index) {
                Some(address) => Host::Known(host.clone(), *address),
                None if host.starts_with('/') => Host::Socket(PathBuf::from(host)),
                None => Host::Name(host.clone()),
            },
            port: port(index).copied().unwrap_or(PORT),
        };
        Ok(self.hosts.iter().enumerate().map(server).collect())
    }

    fn tls(&mut self, servers: &[Server]) -> Result<Tls, AddressError> {
        let unasked = match self.roots {
            Some(Roots::System) => Mode::VerifyFull,
            Some(Roots::File(_)) | None => Mode::Prefer,
        };
        let mut mode = self.mode.unwrap_or(unasked);
        if mode == Mode::Prefer && self.roots.is_some() {
            let expected = "verify-full, verify-ca or require beside sslrootcert";
            return Err(AddressError::new("sslmode", expected));
        }
        let is_direct = self.session.get_ssl_negotiation() == SslNegotiation::Direct;
        if mode == Mode::Prefer && is_direct {
            let expected = "require or more beside sslnegotiation=direct";
            return Err(AddressError::new("sslmode", expected));
        }
        // libpq speaks no TLS in a socket of the machine, whatever the mode.
        if servers.iter().all(Server::is_socket) {
            mode = Mode::Disable;
        }
        let client = match (self.certificate.take(), self.key.take()) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(AddressError::new("sslkey", "the key of sslcert")),
            (None, Some(_)) => {
                let expected = "the certificate of sslkey";
                return Err(AddressError::new("sslcert", expected));
            }
        };
        let is_bound = self.session.get_channel_binding() == ChannelBinding::Require;
        Ok(Tls {
            mode,
            roots: self.roots.take(),
            client,
            is_direct,
            is_bound,
        })
    }
}

/// The name of a parameter, unless it can't be one.
pub(super) fn shown(name: &str) -> String {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    if name.len() <= 32 && name.bytes().all(fits) {
        name.to_owned()
    } else {
        "***".to_owned()
    }
}

fn quoted(value: &str) -> String {
    format!("{:?}", value.chars().take(40).collect::<String>())
}

/// One of several words.
fn word<T: Copy>(name: &str, value: &str, words: &[(&str, T)]) -> Result<T, AddressError> {
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        AddressError::new(name, words.join(" or ")).found(quoted(value))
    })
}

/// A whole number within a range, of some unit.
fn number(
    name: &str,
    value: &str,
    range: RangeInclusive<u32>,
    unit: &str,
) -> Result<u32, AddressError> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let expected = format!("{} to {}{unit}", range.start(), range.end());
        AddressError::new(name, expected).found(quoted(value))
    })
}

fn seconds(name: &str, value: &str, range: RangeInclusive<u32>) -> Result<Duration, AddressError> {
    let seconds = number(name, value, range, " seconds")?;
    Ok(Duration::from_secs(u64::from(seconds)))
}

fn file(name: &str, value: &str) -> Result<PathBuf, AddressError> {
    if value.is_empty() {
        return Err(AddressError::new(name, "the path of a file").found("nothing"));
    }
    Ok(PathBuf::from(value))
}
