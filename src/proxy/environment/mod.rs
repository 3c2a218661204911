//! What a bot is told so that its calls to `graph.facebook.com` come here: variables for this one
//! process and its children, and the files that they name.
//!
//! Starts nothing, and changes nothing outside of the authority's folder.

mod roots;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use self::roots::Roots;
use super::files::put;
use super::{Authority, HOST};

/// Variables, by name.
pub type Variables = BTreeMap<String, String>;

/// Tells a process the URL that calls in clear go to.
pub const RUN_URL: &str = "HAPAX_RUN_URL";
/// Tells a process the proxy that it was given.
pub const RUN_PROXY: &str = "HAPAX_RUN_PROXY";

/// What Node.js loads first.
const PRELOAD: &str = include_str!("preload.cjs");
const PRELOAD_FILE: &str = "preload.cjs";
/// The proxy for https.
const PROXY_NAMES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
/// Proxies that somebody may have set for https, and that ours can't go through.
const OTHER_PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const NO_PROXY_NAMES: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Where no proxy is used, whatever else is set.
const NEVER_PROXIED: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// The names by which bots let the address of the Graph API be set.
const BASE_URL_NAMES: [&str; 6] = [
    "WHATSAPP_API_URL",
    "WHATSAPP_CLOUD_BASE_URL",
    "WHATSAPP_CLOUD_API_URL",
    "WA_BUSINESS_URL",
    "GRAPH_API_URL",
    "FACEBOOK_GRAPH_URL",
];
/// Who else's setting holds for a list of roots that is not set, in the order of the programs that
/// read it.
const ROOTS: [(&str, &[&str]); 3] = [
    ("SSL_CERT_FILE", &["SSL_CERT_FILE"]),
    ("CURL_CA_BUNDLE", &["CURL_CA_BUNDLE", "SSL_CERT_FILE"]),
    (
        "REQUESTS_CA_BUNDLE",
        &["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"],
    ),
];
const NODE_ROOTS: &str = "NODE_EXTRA_CA_CERTS";
const NODE_OPTIONS: &str = "NODE_OPTIONS";

/// Where a bot's calls are to go.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The proxy, as `http://HOST:PORT`.
    pub proxy: &'a str,
    /// What stands for `https://graph.facebook.com`, in clear and on loopback.
    pub base_url: &'a str,
    /// Who signs for that host.
    pub authority: &'a Authority,
}

/// Why a bot can't be told.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// There is a proxy already.
    #[error(
        "{name}: expected no proxy, found one: hapax goes through no other. If the bot can do \
         without, start it by env -u {name} hapax run …; else set the bot's own base URL instead"
    )]
    Proxied {
        /// The variable.
        name: &'static str,
    },
    /// The host is excepted from proxies.
    #[error(
        "{name}: expected hosts that need no proxy, found {entry:?}, which keeps {HOST} from it; \
         take that out"
    )]
    Excepted {
        /// The variable.
        name: &'static str,
        /// What stands in it.
        entry: String,
    },
    /// What is trusted now can't be read.
    #[error("{name}: expected certificates in {}, found none: {source}", .path.display())]
    Unreadable {
        /// The variable.
        name: &'static str,
        /// The file or the folder.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Nobody is trusted.
    #[error(
        "expected root certificates of the system, found none: install them (on Debian, \
         apt-get install ca-certificates), or set SSL_CERT_FILE"
    )]
    NoRoots,
    /// A file can't be written, or its name can't be said.
    #[error("{}: expected a file that can be written, found none: {source}", .path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// What to set for a bot that would otherwise have the variables of `before`: only what is new or
/// different. Writes the files that it names beside the authority.
///
/// # Errors
/// [`EnvironmentError`]. Files may have been written.
pub fn prepare(
    before: &Variables,
    around: Surroundings<'_>,
) -> Result<Variables, EnvironmentError> {
    let mut set = Variables::new();
    let mut tell = |name: &str, value: String| set.insert(name.to_owned(), value);
    check_proxies(before, around.proxy)?;
    for name in PROXY_NAMES {
        tell(name, around.proxy.to_owned());
    }
    let excepted = no_proxy(before)?;
    for name in NO_PROXY_NAMES {
        tell(name, excepted.clone());
    }
    let folder = around.authority.folder();
    let ours = around.authority.certificate_pem();
    for (name, sources) in ROOTS {
        let roots = Roots::before(before, sources)?;
        tell(name, write_roots(folder, roots, &ours)?);
    }
    let own = said(&around.authority.certificate_file())?;
    let node = match Roots::set(before, NODE_ROOTS)? {
        Some(roots) if value(before, NODE_ROOTS) != Some(own.as_str()) => {
            write_roots(folder, roots, &ours)?
        }
        Some(_) | None => own,
    };
    tell(NODE_ROOTS, node);
    let preload = folder.join(PRELOAD_FILE);
    write(&preload, PRELOAD.as_bytes())?;
    let options = before.get(NODE_OPTIONS).map_or("", String::as_str);
    tell(NODE_OPTIONS, node_options(options, &said(&preload)?));
    for name in BASE_URL_NAMES {
        if value(before, name).is_none() {
            tell(name, around.base_url.to_owned());
        }
    }
    tell(RUN_URL, around.base_url.to_owned());
    tell(RUN_PROXY, around.proxy.to_owned());
    Ok(set)
}

/// What a variable holds; an empty one holds nothing.
fn value<'a>(before: &'a Variables, name: &str) -> Option<&'a str> {
    before
        .get(name)
        .map(|value| value.trim())
        .filter(|value| !value.is_empty())
}

fn check_proxies(before: &Variables, ours: &str) -> Result<(), EnvironmentError> {
    let other = OTHER_PROXIES
        .into_iter()
        .find(|name| value(before, name).is_some_and(|proxy| proxy != ours));
    match other {
        Some(name) => Err(EnvironmentError::Proxied { name }),
        None => Ok(()),
    }
}

/// The hosts that need no proxy: loopback, and what was there.
fn no_proxy(before: &Variables) -> Result<String, EnvironmentError> {
    let mut all: Vec<&str> = NEVER_PROXIED.to_vec();
    for name in NO_PROXY_NAMES {
        let entries = value(before, name).unwrap_or_default();
        for entry in entries.split([',', ' ']).filter(|entry| !entry.is_empty()) {
            if excepts_host(entry) {
                let entry = entry.to_owned();
                return Err(EnvironmentError::Excepted { name, entry });
            }
            if !all.contains(&entry) {
                all.push(entry);
            }
        }
    }
    Ok(all.join(","))
}

/// Whether an entry means the host as well, in any program's reading.
fn excepts_host(entry: &str) -> bool {
    let entry = entry.to_ascii_lowercase();
    let domain = entry.trim_start_matches(['*', '.']);
    let domain = domain.split(':').next().unwrap_or_default();
    let is_all = domain.is_empty() && entry.contains('*');
    let rest = HOST.strip_suffix(domain).filter(|_| !domain.is_empty());
    is_all || rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Node's options, and ours once.
fn node_options(before: &str, preload: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@,:=".contains(c);
    // Node reads quotes and backslashes as a shell does within quotes.
    let preload = if preload.chars().all(is_plain) {
        preload.to_owned()
    } else {
        format!("\"{}\"", preload.replace('\\', "\\\\").replace('"', "\\\""))
    };
    let ours = format!("--require {preload}");
    if before.contains(&ours) {
        return before.to_owned();
    }
    format!("{before} {ours}").trim_start().to_owned()
}

fn write_roots(folder: &Path, mut roots: Roots, ours: &str) -> Result<String, EnvironmentError> {
    roots.add(ours);
    let path = folder.join(roots.file_name());
    write(&path, roots.text())?;
    said(&path)
}

fn write(path: &Path, content: &[u8]) -> Result<(), EnvironmentError> {
    put(path, content).map_err(|source| EnvironmentError::System {
        path: path.to_owned(),
        source,
    })
}

/// A path as a variable holds it.
fn said(path: &Path) -> Result<String, EnvironmentError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| EnvironmentError::System {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidFilename, "its name is not UTF-8"),
    })
}

#[cfg(test)]
mod tests;
