//! What must hold between settings, each with the reason.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::build::THREAD_CREATE_MAX;
use super::reader::Reader;
use super::settings::{
    Config, EgressConfig, NodeConfig, PostgresConfig, PublicConfig, RetentionConfig, SendConfig,
    ThreadConfig, TurnConfig,
};

/// A little over the 3 MB (or MiB) that Meta's longest delivery has.
const BODY_MIN: usize = 3_200_000;
/// The longest wait of the sender's own while Meta can't be reached.
const SEND_BACKOFF_FIRST_MAX: Duration = Duration::from_secs(60);
/// The longest wait of a bot for the answer to a send.
const ANSWER_WITHIN_MAX: Duration = Duration::from_secs(60);
/// The longest wait for an AI thread.
const THREAD_WAIT_MAX: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Checks every relation.
pub(super) fn check(reader: &mut Reader, config: &Config) {
    bodies(reader, &config.public);
    postgres(reader, &config.store.postgres);
    retention(reader, &config.retention);
    turn(reader, &config.turn);
    egress(reader, &config.egress);
    thread(reader, &config.thread);
    send(reader, &config.send);
    node(reader, &config.node);
    door(reader, "bot.listen", "bot.token", config.bot.listen);
    door(reader, "admin.listen", "admin.token", config.admin.listen);
    listeners(reader, config);
    no_loop(reader, config);
}

fn bodies(reader: &mut Reader, public: &PublicConfig) {
    reader.relation(
        public.body_max >= BODY_MIN,
        "public.body_max",
        &[],
        "at least 3.2MB: Meta sends up to 3 MB, and repeats for a week what is refused",
    );
    reader.relation(
        public.body_memory_max >= public.body_max,
        "public.body_memory_max",
        &["public.body_max"],
        "at least public.body_max, or no large body could ever be read",
    );
}

pub(super) fn postgres(reader: &mut Reader, postgres: &PostgresConfig) {
    reader.relation(
        postgres.lock_timeout <= postgres.statement_timeout,
        "store.lock_timeout",
        &["store.statement_timeout"],
        "at most store.statement_timeout, of which the wait for a lock is a part",
    );
}

fn retention(reader: &mut Reader, retention: &RetentionConfig) {
    reader.relation(
        retention.keys >= DAY.saturating_mul(8),
        "retention.keys",
        &[],
        "at least 8d: Meta delivers again for 7 days, and what is forgotten would be new again",
    );
    reader.relation(
        retention.payloads >= HOUR,
        "retention.payloads",
        &[],
        "at least 1h, so that what went wrong can still be looked at",
    );
    reader.relation(
        retention.payloads <= retention.keys,
        "retention.payloads",
        &["retention.keys"],
        "at most retention.keys: contents without their key could not be found",
    );
    reader.relation(
        retention.every <= DAY,
        "retention.every",
        &[],
        "at most 24h, so that little is over at once",
    );
}

fn turn(reader: &mut Reader, turn: &TurnConfig) {
    reader.relation(
        turn.backoff_first <= turn.backoff_max,
        "turn.backoff_max",
        &["turn.backoff_first"],
        "at least turn.backoff_first",
    );
    reader.relation(
        turn.unavailable_backoff_max <= turn.unavailable_max,
        "turn.unavailable_backoff_max",
        &["turn.unavailable_max"],
        "at most turn.unavailable_max",
    );
}

fn egress(reader: &mut Reader, egress: &EgressConfig) {
    reader.relation(
        egress.answer_within <= ANSWER_WITHIN_MAX,
        "egress.answer_within",
        &[],
        "at most 60s: common clients give up after 5s, and then ask again",
    );
}

fn thread(reader: &mut Reader, thread: &ThreadConfig) {
    reader.relation(
        thread.create_timeout <= THREAD_CREATE_MAX,
        "thread.create_timeout",
        &[],
        "at most 10m: so long do others wait for the thread of a caller that died",
    );
    reader.relation(
        thread.wait_max <= THREAD_WAIT_MAX,
        "thread.wait_max",
        &[],
        "at most 5m: a connection waits as long",
    );
}

fn send(reader: &mut Reader, send: &SendConfig) {
    reader.relation(
        send.connect_timeout <= send.timeout,
        "send.connect_timeout",
        &["send.timeout"],
        "at most send.timeout, of which it is a part",
    );
    reader.relation(
        send.backoff_first <= SEND_BACKOFF_FIRST_MAX,
        "send.backoff_first",
        &[],
        "at most 60s, which is the longest of the waits that begin with it",
    );
}

fn node(reader: &mut Reader, node: &NodeConfig) {
    reader.relation(
        node.renew_every.saturating_mul(3) <= node.lease_ttl,
        "node.renew_every",
        &["node.lease_ttl"],
        "at most a third of node.lease_ttl, so that two lost renewals do not end a lease",
    );
    reader.relation(
        node.lease_ttl <= Duration::from_secs(600),
        "node.lease_ttl",
        &[],
        "at most 10m: so long do the conversations of a dead process wait",
    );
}

fn door(reader: &mut Reader, listen: &str, token: &str, address: SocketAddr) {
    if address.ip().is_loopback() || !reader.is_sound(&[listen]) {
        return;
    }
    let expected = format!("a token, since {listen} = {address} can be reached from outside");
    let env = super::keys::Key::named(token).env;
    reader.missing(
        token,
        &expected,
        format!("set {env}, or listen on 127.0.0.1"),
    );
}

fn listeners(reader: &mut Reader, config: &Config) {
    let all = listens(config);
    for (index, (name, one)) in all.iter().enumerate() {
        for (other_name, other) in &all[..index] {
            let same_ip =
                one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
            let clash = one.port() != 0 && one.port() == other.port() && same_ip;
            let expected = format!("another port than {other_name} = {other}");
            reader.relation(!clash, name, &[other_name], expected);
        }
    }
}

/// A bot that listens where we do is us, and so is a Meta that does: each message would be handed
/// round in a circle.
fn no_loop(reader: &mut Reader, config: &Config) {
    for (name, listen) in listens(config) {
        let mut urls = config.handler.bot_urls().iter();
        let expected = format!("the bot's own address; {name} = {listen} is Hapax itself");
        let is_us = urls.any(|url| leads_to(url, listen));
        reader.relation(!is_us, "handler.bot_url", &[name], expected);
        let is_us = leads_to(&config.whatsapp.api_url, listen);
        let expected = format!("Meta's address; {name} = {listen} is Hapax itself");
        reader.relation(!is_us, "whatsapp.api_url", &[name], expected);
    }
}

fn leads_to(url: &str, listen: SocketAddr) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else {
        return false;
    };
    let default_port = if url.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    if url.port_u16().unwrap_or(default_port) != listen.port() {
        return false;
    }
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let ip: Option<IpAddr> = match host {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        other => other.parse().ok(),
    };
    ip.is_some_and(|ip| {
        let is_local = ip.is_loopback() || ip.is_unspecified();
        ip == listen.ip() || (is_local && listen.ip().is_unspecified())
    })
}

const fn listens(config: &Config) -> [(&'static str, SocketAddr); 3] {
    [
        ("public.listen", config.public.listen),
        ("bot.listen", config.bot.listen),
        ("admin.listen", config.admin.listen),
    ]
}
