//! The settings in force, as a TOML file that would set them again; secrets as `***`.

use std::time::Duration;

use super::keys::{KEYS, redact};
use super::settings::{
    AsyncFailover, Config, EgressConfig, EgressWhen, ForwardDone, ForwardNoReply, ForwardRetryId,
    HandlerConfig, LogFormat, LogIdentifiers, Pooler, PostgresConfig, PublicConfig, SendConfig,
    StoreConfig, StoreUrl, TurnConfig, TurnPolicy, WhatsappConfig,
};
use super::value::{public_url_text, size_text};
use super::{Origins, reader};
use crate::model::{NumberId, Secret};
use crate::store::postgres::Address;

/// Each key and its value in TOML; `None` where nothing is set.
type Entries = Vec<(&'static str, Option<String>)>;

/// The settings in force, as TOML: each with the place it came from in a comment. Keys of
/// handlers and stores that are not chosen are left out.
pub fn render(config: &Config, origins: &Origins) -> String {
    let entries = entries(config);
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        let Some((_, value)) = entries.iter().find(|(name, _)| *name == key.name) else {
            continue;
        };
        let (group, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if group != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{group}]\n"));
            section = group;
        }
        let line = match value {
            Some(value) if reader::may_show(key) => {
                format!("{name} = {value}  # {}\n", origins.of(key.name))
            }
            Some(_) => format!("{name} = \"***\"  # {}\n", origins.of(key.name)),
            None => format!("# {name} is not set\n"),
        };
        text.push_str(&line);
    }
    text
}

fn entries(config: &Config) -> Entries {
    let mut entries = Entries::new();
    public(&mut entries, &config.public);
    let (bot, admin) = (&config.bot, &config.admin);
    entries.push(("bot.listen", quoted(&bot.listen.to_string())));
    entries.push(("bot.token", hidden(bot.token.as_ref())));
    entries.push(("bot.ca_dir", quoted(&bot.ca_dir.display().to_string())));
    egress(&mut entries, &config.egress);
    entries.push(("admin.listen", quoted(&admin.listen.to_string())));
    entries.push(("admin.token", hidden(admin.token.as_ref())));
    store(&mut entries, &config.store);
    entries.push(("retention.keys", time(config.retention.keys)));
    entries.push(("retention.payloads", time(config.retention.payloads)));
    entries.push(("retention.every", time(config.retention.every)));
    handler(&mut entries, &config.handler);
    turn(&mut entries, &config.turn);
    let thread = &config.thread;
    entries.push(("thread.create_timeout", time(thread.create_timeout)));
    entries.push(("thread.wait_max", time(thread.wait_max)));
    let worker = &config.worker;
    entries.push(("worker.concurrency", Some(worker.concurrency.to_string())));
    entries.push(("worker.drain_timeout", time(worker.drain_timeout)));
    send(&mut entries, &config.send);
    entries.push(("node.lease_ttl", time(config.node.lease_ttl)));
    entries.push(("node.renew_every", time(config.node.renew_every)));
    whatsapp(&mut entries, &config.whatsapp);
    let format = match config.log.format {
        LogFormat::Auto => "auto",
        LogFormat::Json => "json",
        LogFormat::Pretty => "pretty",
    };
    let identifiers = match config.log.identifiers {
        LogIdentifiers::Hidden => "hidden",
        LogIdentifiers::Plain => "plain",
    };
    entries.push(("log.level", quoted(&config.log.level)));
    entries.push(("log.format", quoted(format)));
    entries.push(("log.identifiers", quoted(identifiers)));
    entries
}

fn public(entries: &mut Entries, public: &PublicConfig) {
    let size = |bytes: usize| quoted(&size_text(u64::try_from(bytes).unwrap_or(u64::MAX)));
    entries.extend([
        ("public.listen", quoted(&public.listen.to_string())),
        (
            "public.url",
            public
                .url
                .as_deref()
                .map(public_url_text)
                .as_deref()
                .and_then(quoted),
        ),
        ("public.body_max", size(public.body_max)),
        ("public.header_timeout", time(public.header_timeout)),
        ("public.body_timeout", time(public.body_timeout)),
        (
            "public.connections_max",
            Some(public.connections_max.to_string()),
        ),
        ("public.body_memory_max", size(public.body_memory_max)),
    ]);
}

fn egress(entries: &mut Entries, egress: &EgressConfig) {
    let when = match egress.when {
        EgressWhen::Now => "now",
        EgressWhen::AtFinish => "at_finish",
    };
    entries.extend([
        ("egress.token", hidden(egress.token.as_ref())),
        ("egress.answer_within", time(egress.answer_within)),
        ("egress.when", quoted(when)),
    ]);
}

fn store(entries: &mut Entries, store: &StoreConfig) {
    let url = match &store.url {
        // The first two slashes would be taken for those of a URL.
        StoreUrl::Sqlite(path) if path.to_string_lossy().starts_with("//") => {
            format!("sqlite://{}", path.display())
        }
        StoreUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
        StoreUrl::Postgres(url) => match Address::parse(url.expose()) {
            Ok(address) => address.place().to_owned(),
            Err(_) => "postgres://***".to_owned(),
        },
    };
    entries.extend([
        ("store.url", quoted(&url)),
        ("store.queue_max", Some(store.queue_max.to_string())),
        ("store.wait_max", time(store.wait_max)),
    ]);
    match store.url {
        StoreUrl::Sqlite(_) => entries.push(("store.wal_max", quoted(&size_text(store.wal_max)))),
        StoreUrl::Postgres(_) => postgres(entries, &store.postgres),
    }
}

fn postgres(entries: &mut Entries, postgres: &PostgresConfig) {
    let pooler = match postgres.pooler {
        Pooler::None => "none",
        Pooler::Transaction => "transaction",
    };
    let async_failover = match postgres.async_failover {
        AsyncFailover::Refuse => "refuse",
        AsyncFailover::Allow => "allow",
    };
    entries.extend([
        ("store.schema", quoted(&postgres.schema)),
        ("store.connections", Some(postgres.connections.to_string())),
        ("store.connect_timeout", time(postgres.connect_timeout)),
        ("store.statement_timeout", time(postgres.statement_timeout)),
        ("store.lock_timeout", time(postgres.lock_timeout)),
        ("store.pooler", quoted(pooler)),
        ("store.async_failover", quoted(async_failover)),
    ]);
}

fn handler(entries: &mut Entries, handler: &HandlerConfig) {
    entries.push(("handler.kind", quoted(handler.as_str())));
    let urls: Vec<String> = handler.bot_urls().iter().map(|url| redact(url)).collect();
    let urls = urls.join(",");
    entries.push((
        "handler.bot_url",
        Some(urls)
            .filter(|urls| !urls.is_empty())
            .and_then(|urls| quoted(&urls)),
    ));
    match handler {
        HandlerConfig::Echo => {}
        HandlerConfig::Forward(forward) => entries.extend([
            ("forward.concurrency", Some(forward.concurrency.to_string())),
            (
                "forward.done",
                quoted(match forward.done {
                    ForwardDone::Response => "response",
                    ForwardDone::Reply => "reply",
                }),
            ),
            ("forward.down_for", time(forward.down_for)),
            (
                "forward.no_reply",
                quoted(match forward.no_reply {
                    ForwardNoReply::Retry => "retry",
                    ForwardNoReply::Silence => "silence",
                    ForwardNoReply::DeadLetter => "dead_letter",
                }),
            ),
            ("forward.number_url", number_urls(&forward.number_urls)),
            ("forward.notices", Some(forward.notices.to_string())),
            ("forward.reply_wait", time(forward.reply_wait)),
            (
                "forward.retry_id",
                quoted(match forward.retry_id {
                    ForwardRetryId::Same => "same",
                    ForwardRetryId::Fresh => "fresh",
                }),
            ),
            ("forward.statuses", Some(forward.statuses.to_string())),
            ("forward.tail", time(forward.tail)),
        ]),
        HandlerConfig::Ask(ask) => entries.push(("ask.secret", hidden(Some(&ask.secret)))),
    }
}

fn number_urls(urls: &[(NumberId, String)]) -> Option<String> {
    let urls = urls
        .iter()
        .map(|(number, url)| format!("{number}={}", redact(url)));
    let urls: Vec<String> = urls.collect();
    let is_set = !urls.is_empty();
    is_set.then(|| quoted(&urls.join(","))).flatten()
}

fn turn(entries: &mut Entries, turn: &TurnConfig) {
    let policy = match turn.policy {
        TurnPolicy::Queue => "queue",
    };
    entries.extend([
        ("turn.deadline", time(turn.deadline)),
        ("turn.attempts_max", Some(turn.attempts_max.to_string())),
        ("turn.backoff_first", time(turn.backoff_first)),
        ("turn.backoff_max", time(turn.backoff_max)),
        ("turn.unavailable_max", time(turn.unavailable_max)),
        (
            "turn.unavailable_backoff_max",
            time(turn.unavailable_backoff_max),
        ),
        ("turn.mark_read", Some(turn.mark_read.to_string())),
        ("turn.policy", quoted(policy)),
    ]);
}

fn send(entries: &mut Entries, send: &SendConfig) {
    entries.extend([
        ("send.concurrency", Some(send.concurrency.to_string())),
        ("send.per_second", Some(send.per_second.to_string())),
        ("send.timeout", time(send.timeout)),
        ("send.connect_timeout", time(send.connect_timeout)),
        ("send.unsure_wait", time(send.unsure_wait)),
        ("send.retry_max", time(send.retry_max)),
        ("send.backoff_first", time(send.backoff_first)),
        ("send.pause", time(send.pause)),
    ]);
}

fn whatsapp(entries: &mut Entries, whatsapp: &WhatsappConfig) {
    let number = whatsapp.phone_number_id.as_ref();
    entries.extend([
        (
            "whatsapp.access_token",
            hidden(Some(&whatsapp.access_token)),
        ),
        ("whatsapp.app_secret", hidden(Some(&whatsapp.app_secret))),
        (
            "whatsapp.app_secret_previous",
            hidden(whatsapp.app_secret_previous.as_ref()),
        ),
        (
            "whatsapp.verify_token",
            hidden(Some(&whatsapp.verify_token)),
        ),
        (
            "whatsapp.verify_token_previous",
            hidden(whatsapp.verify_token_previous.as_ref()),
        ),
        (
            "whatsapp.phone_number_id",
            number.and_then(|id| quoted(id.as_str())),
        ),
        ("whatsapp.api_url", quoted(&whatsapp.api_url)),
        ("whatsapp.api_version", quoted(&whatsapp.api_version)),
    ]);
}

fn hidden(secret: Option<&Secret>) -> Option<String> {
    secret.and_then(|secret| quoted(&secret.to_string()))
}

fn time(duration: Duration) -> Option<String> {
    quoted(&humantime::format_duration(duration).to_string())
}

/// A TOML string: the escapes of a JSON string are a part of TOML's, which wants one more.
fn quoted(text: &str) -> Option<String> {
    let text = serde_json::to_string(text).ok()?;
    Some(text.replace('\u{7f}', "\\u007f"))
}
