//! What is asked of a proxy: a tunnel, a request for a host that is named in it, or nothing of the
//! kind.

use http::uri::Authority;
use http::{Method, Uri};

use super::HOST;

/// The port of https.
const HTTPS: u16 = 443;

/// What a request wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// `CONNECT` to the host that is intercepted.
    Intercept,
    /// `CONNECT` to another one.
    Tunnel(Target),
    /// `CONNECT` to nowhere.
    Nowhere,
    /// A request in clear for the host that is intercepted.
    Relayed,
    /// A request in clear for another host.
    Elsewhere,
    /// A request to this server itself.
    Direct,
}

/// Where a tunnel leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// A name, or an address without brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
}

/// What a request with this method and target wants. `own` says whether an authority is that of
/// this server.
pub(super) fn asked(method: &Method, uri: &Uri, own: impl Fn(&Authority) -> bool) -> Asked {
    if method == Method::CONNECT {
        return match uri.authority().and_then(target) {
            Some(target) if is_intercepted(&target.host) && target.port == HTTPS => {
                Asked::Intercept
            }
            Some(target) => Asked::Tunnel(target),
            None => Asked::Nowhere,
        };
    }
    match (uri.scheme(), uri.authority()) {
        (Some(_), Some(authority)) if is_intercepted(authority.host()) => Asked::Relayed,
        (Some(_), Some(authority)) if !own(authority) => Asked::Elsewhere,
        (Some(_) | None, _) => Asked::Direct,
    }
}

fn target(authority: &Authority) -> Option<Target> {
    let port = authority.port_u16().filter(|port| *port != 0)?;
    let host = authority.host();
    let host = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(host);
    let is_plain = !host.is_empty() && !authority.as_str().contains('@');
    is_plain.then(|| Target {
        host: host.to_owned(),
        port,
    })
}

/// Whether this is the host, in any of the ways to write it.
fn is_intercepted(host: &str) -> bool {
    host.strip_suffix('.')
        .unwrap_or(host)
        .eq_ignore_ascii_case(HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: Method, target: &str) -> Asked {
        let uri = target.parse().expect("a target");
        asked(&method, &uri, |authority| authority == "127.0.0.1:8081")
    }

    fn tunnel(host: &str, port: u16) -> Asked {
        let host = host.to_owned();
        Asked::Tunnel(Target { host, port })
    }

    #[test]
    fn a_connect_names_a_host_and_a_port() {
        let connect = |target: &str| of(Method::CONNECT, target);
        for name in [
            "graph.facebook.com",
            "Graph.Facebook.COM",
            "graph.facebook.com.",
        ] {
            assert_eq!(connect(&format!("{name}:443")), Asked::Intercept);
            assert_eq!(connect(&format!("{name}:8443")), tunnel(name, 8443));
        }
        for other in [
            "graph.facebook.com.example.org",
            "example.org",
            "facebook.com",
        ] {
            assert_eq!(connect(&format!("{other}:443")), tunnel(other, 443));
        }
        assert_eq!(connect("[::1]:443"), tunnel("::1", 443));
        assert_eq!(connect("10.0.0.1:80"), tunnel("10.0.0.1", 80));
        for nowhere in [
            "example.org",
            "graph.facebook.com",
            "example.org:0",
            "a@b:443",
            "/x",
        ] {
            assert_eq!(connect(nowhere), Asked::Nowhere, "{nowhere}");
        }
    }

    #[test]
    fn a_request_in_clear_is_for_the_host_that_it_names() {
        let get = |target: &str| of(Method::GET, target);
        assert_eq!(get("/v1/threads/orphans"), Asked::Direct);
        assert_eq!(get("http://127.0.0.1:8081/v1"), Asked::Direct);
        assert_eq!(get("https://graph.facebook.com/v25.0/1"), Asked::Relayed);
        assert_eq!(get("http://GRAPH.facebook.com:443/v25.0/1"), Asked::Relayed);
        assert_eq!(get("https://api.example.org/"), Asked::Elsewhere);
        assert_eq!(get("http://127.0.0.1:8082/"), Asked::Elsewhere);
    }
}
