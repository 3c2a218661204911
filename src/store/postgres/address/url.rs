//! The URL of a database, taken apart: who, where, which, and the parameters behind the `?`.
//!
//! Says what is wrong without repeating any of it: in a URL with a sign too many, a password can
//! stand in every place.

use super::AddressError;
use super::parameters::{Draft, shown};

/// A name and its value.
pub(super) type Parameter = (String, String);

/// Puts what stands before the `?` into `draft`, and returns the parameters behind it, in order.
pub(super) fn read(text: &str, draft: &mut Draft) -> Result<Vec<Parameter>, AddressError> {
    let rest = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .ok_or_else(|| AddressError::new("scheme", "postgres:// or postgresql://"))?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // Else the end of a password would be taken for a host, a database or a parameter, and shown.
    if rest.contains('@') || authority.matches('@').count() > 1 {
        return Err(AddressError::new(
            "user and password",
            "%40 for @, %2F for / and %3F for ?, and no @ behind them",
        ));
    }
    let hosts = match authority.split_once('@') {
        Some((user_info, hosts)) => {
            who(user_info, draft)?;
            hosts
        }
        None => authority,
    };
    if !hosts.is_empty() {
        where_to(hosts, draft)?;
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let database = path.strip_prefix('/').unwrap_or(path);
    if !database.is_empty() {
        draft.take("dbname", &decoded("dbname", database)?)?;
    }
    let parameters = query.split('&').filter(|_| !query.is_empty());
    parameters.map(parameter).collect()
}

fn who(user_info: &str, draft: &mut Draft) -> Result<(), AddressError> {
    let (user, password) = match user_info.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user_info, None),
    };
    if !user.is_empty() {
        draft.take("user", &decoded("user", user)?)?;
    }
    if let Some(password) = password.filter(|password| !password.is_empty()) {
        draft.take("password", &decoded("password", password)?)?;
    }
    Ok(())
}

/// Hosts and their ports; no port of any may be a parameter.
fn where_to(text: &str, draft: &mut Draft) -> Result<(), AddressError> {
    let hosts: Vec<_> = text.split(',').map(one_host).collect::<Result<_, _>>()?;
    let has_port = hosts.iter().any(|(_, port)| port.is_some());
    for (host, port) in hosts {
        draft.add_host(&host)?;
        if has_port {
            draft.add_port(port.unwrap_or_default())?;
        }
    }
    Ok(())
}

/// `name`, `name:port`, `[IPv6]` or `[IPv6]:port`.
fn one_host(text: &str) -> Result<(String, Option<&str>), AddressError> {
    let wrong = || AddressError::new("host", "HOST:PORT, or [ADDRESS]:PORT for IPv6");
    let (host, port) = match text.strip_prefix('[') {
        Some(text) => {
            let (host, rest) = text.split_once(']').ok_or_else(wrong)?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return Err(wrong());
            }
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    Ok((decoded("host", host)?, port))
}

fn parameter(text: &str) -> Result<Parameter, AddressError> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| AddressError::new("parameters", "NAME=VALUE, separated by &"))?;
    let name = decoded("parameters", name)?;
    let value = decoded(&shown(&name), value)?;
    Ok((name, value))
}

/// The text with its `%` escapes resolved.
fn decoded(part: &str, text: &str) -> Result<String, AddressError> {
    let wrong = || AddressError::new(part, "text in UTF-8 without NUL, in which % begins %XX");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, others) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let byte = hex::decode(digits).map_err(|_| wrong())?;
        bytes.extend(byte);
        rest = others;
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    if text.contains('\0') {
        return Err(wrong());
    }
    Ok(text)
}

/// The text with everything escaped that has a meaning in a URL, or none on a terminal.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
