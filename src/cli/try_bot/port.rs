//! A port for a bot that is ended and started again.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below those that a system hands out by itself (from 32768 on Linux, from 49152 elsewhere): while
/// the bot is down, nobody gets its port by chance.
const PORTS: Range<u16> = 20_000..32_000;
const TRIES_MAX: usize = 100;

/// A port on which nobody listens.
pub(super) fn free() -> Result<u16, String> {
    for _ in 0..TRIES_MAX {
        let drawn = getrandom::u32().map_err(|error| format!("no randomness: {error}"))?;
        let port = PORTS.start + (drawn % PORTS.len() as u32) as u16;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(format!(
        "no free port from {} to {}",
        PORTS.start, PORTS.end
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_and_none_that_the_system_gives_away() {
        let port = free().expect("one of many");
        assert!(PORTS.contains(&port));
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("nobody listens there");
    }
}
