//! From texts to [`Config`]: one function a group of settings.

use std::path::PathBuf;
use std::time::Duration;

use super::keys::is_postgres;
use super::reader::Reader;
use super::settings::{
    AskConfig, AsyncFailover, BotConfig, Config, DoorConfig, EgressConfig, EgressWhen,
    ForwardConfig, ForwardDone, ForwardNoReply, ForwardRetryId, HandlerConfig, LogConfig,
    LogFormat, LogIdentifiers, NodeConfig, Pooler, PostgresConfig, PublicConfig, RetentionConfig,
    SendConfig, StoreConfig, StoreUrl, ThreadConfig, TurnConfig, TurnPolicy, WhatsappConfig,
    WorkerConfig,
};
use super::value::{self, Expected};
use crate::model::{NumberId, Secret};
use crate::store::postgres::Address;

/// How many turns run at once where no other setting tells.
const WORKERS: usize = 64;
/// The longest time that others wait for the thread of a caller that died.
pub(super) const THREAD_CREATE_MAX: Duration = Duration::from_secs(600);

// Where to get what must be set.
const ACCESS_TOKEN: &str = "an access token, best a system user's, from Meta's Business settings";
const APP_SECRET: &str = "the app secret, from Meta's App Dashboard under App settings, Basic";
const VERIFY_TOKEN: &str = "a text of your choice, the same as in Meta's webhook form";

/// The handlers of this version.
#[derive(Clone, Copy)]
enum Kind {
    Echo,
    Forward,
    Ask,
}

/// Reads every setting; the result is right only if the reader has no fault.
pub(super) fn config(reader: &mut Reader) -> Config {
    let public = public(reader);
    let bot = bot(reader);
    let admin = admin(reader);
    let store = store(reader);
    let retention = retention(reader);
    let whatsapp = whatsapp(reader);
    let egress = egress(reader);
    let handler = handler(reader, &whatsapp.app_secret);
    let turn = turn(reader, &handler);
    let thread = thread(reader, &turn);
    let worker = worker(reader, &handler);
    Config {
        public,
        bot,
        egress,
        admin,
        store,
        retention,
        handler,
        turn,
        thread,
        worker,
        send: send(reader),
        node: node(reader),
        whatsapp,
        log: log(reader),
    }
}

fn public(reader: &mut Reader) -> PublicConfig {
    PublicConfig {
        listen: reader.value("public.listen", value::listen),
        url: reader.optional("public.url", value::public_url),
        body_max: in_memory(reader.value("public.body_max", value::size)),
        header_timeout: reader.value("public.header_timeout", value::duration),
        body_timeout: reader.value("public.body_timeout", value::duration),
        connections_max: reader.value("public.connections_max", value::count),
        body_memory_max: in_memory(reader.value("public.body_memory_max", value::size)),
    }
}

/// A size of something held in memory: where it does not fit an address, it is no limit.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

pub(super) fn bot(reader: &mut Reader) -> BotConfig {
    BotConfig {
        listen: reader.value("bot.listen", value::listen),
        token: reader.secret("bot.token", value::header_text),
        ca_dir: reader.value("bot.ca_dir", value::any).into(),
    }
}

fn admin(reader: &mut Reader) -> DoorConfig {
    DoorConfig {
        listen: reader.value("admin.listen", value::listen),
        token: reader.secret("admin.token", value::header_text),
    }
}

fn egress(reader: &mut Reader) -> EgressConfig {
    EgressConfig {
        token: reader.secret("egress.token", value::header_text),
        answer_within: reader.value("egress.answer_within", value::duration),
        when: reader.value("egress.when", |text| {
            let words = [
                ("now", EgressWhen::Now),
                ("at_finish", EgressWhen::AtFinish),
            ];
            value::word(text, &words)
        }),
    }
}

pub(super) fn store(reader: &mut Reader) -> StoreConfig {
    StoreConfig {
        url: reader.value("store.url", store_url),
        queue_max: reader.value("store.queue_max", value::count),
        wait_max: reader.value("store.wait_max", value::duration),
        wal_max: reader.value("store.wal_max", value::size),
        postgres: postgres(reader),
    }
}

fn postgres(reader: &mut Reader) -> PostgresConfig {
    PostgresConfig {
        schema: reader.value("store.schema", value::schema),
        connections: reader.value("store.connections", value::connections),
        connect_timeout: reader.value("store.connect_timeout", value::duration),
        statement_timeout: reader.value("store.statement_timeout", value::duration),
        lock_timeout: reader.value("store.lock_timeout", value::duration),
        pooler: reader.value("store.pooler", |text| {
            let words = [("none", Pooler::None), ("transaction", Pooler::Transaction)];
            value::word(text, &words)
        }),
        async_failover: reader.value("store.async_failover", |text| {
            let words = [
                ("refuse", AsyncFailover::Refuse),
                ("allow", AsyncFailover::Allow),
            ];
            value::word(text, &words)
        }),
    }
}

fn retention(reader: &mut Reader) -> RetentionConfig {
    RetentionConfig {
        keys: reader.value("retention.keys", value::duration),
        payloads: reader.value("retention.payloads", value::duration),
        every: reader.value("retention.every", value::duration),
    }
}

pub(super) fn store_url(text: &str) -> Result<StoreUrl, Expected> {
    if is_postgres(text) {
        return match Address::parse(text) {
            Ok(_) => Ok(StoreUrl::Postgres(Secret::new(text))),
            Err(error) => Err(format!("an address of PostgreSQL that is right: {error}").into()),
        };
    }
    let path = text
        .strip_prefix("sqlite:")
        .map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        Some(path) if !path.is_empty() && !path.starts_with(':') && !path.contains('?') => {
            Ok(StoreUrl::Sqlite(PathBuf::from(path)))
        }
        _ => Err(
            "\"sqlite:PATH\" with the path of a file, without options, or \
             \"postgres://USER:PASSWORD@HOST:PORT/DATABASE\""
                .into(),
        ),
    }
}

fn handler(reader: &mut Reader, app_secret: &Secret) -> HandlerConfig {
    let kind = reader.optional("handler.kind", handler_kind);
    let urls = reader.optional("handler.bot_url", value::urls);
    let concurrency = reader.value("forward.concurrency", value::count);
    let done = reader.value("forward.done", |text| {
        let done = [
            ("response", ForwardDone::Response),
            ("reply", ForwardDone::Reply),
        ];
        value::word(text, &done)
    });
    let down_for = reader.value("forward.down_for", value::duration);
    let no_reply = reader.value("forward.no_reply", |text| {
        let answers = [
            ("retry", ForwardNoReply::Retry),
            ("silence", ForwardNoReply::Silence),
            ("dead_letter", ForwardNoReply::DeadLetter),
        ];
        value::word(text, &answers)
    });
    let number_urls = reader.optional("forward.number_url", value::number_urls);
    let notices = reader.value("forward.notices", value::switch);
    let reply_wait = reader.value("forward.reply_wait", value::duration);
    let retry_id = reader.value("forward.retry_id", |text| {
        let ids = [
            ("same", ForwardRetryId::Same),
            ("fresh", ForwardRetryId::Fresh),
        ];
        value::word(text, &ids)
    });
    let statuses = reader.value("forward.statuses", value::switch);
    let tail = reader.value("forward.tail", value::duration);
    let secret = reader.secret("ask.secret", value::signing_secret);

    // A kind or URL with a fault of its own is not also a missing one.
    let guessed = kind.is_none() && reader.is_sound(&["handler.kind"]);
    let needs_url = guessed || matches!(kind, Some(Kind::Forward | Kind::Ask));
    if needs_url && urls.is_none() {
        let mend = "set HAPAX_BOT_URL=http://127.0.0.1:5000/webhook (where your bot listens), \
                    or HAPAX_HANDLER=echo for a first run without a bot";
        reader.missing(
            "handler.bot_url",
            "the URL of the bot's own webhook",
            mend.to_owned(),
        );
    }
    let bot_urls = urls.unwrap_or_default();
    match kind.unwrap_or(Kind::Forward) {
        Kind::Echo => HandlerConfig::Echo,
        Kind::Forward => HandlerConfig::Forward(ForwardConfig {
            bot_urls,
            number_urls: number_urls.unwrap_or_default(),
            concurrency,
            done,
            down_for,
            no_reply,
            notices,
            reply_wait,
            retry_id,
            statuses,
            tail,
        }),
        Kind::Ask => HandlerConfig::Ask(AskConfig {
            bot_urls,
            secret: secret.unwrap_or_else(|| app_secret.clone()),
        }),
    }
}

fn handler_kind(text: &str) -> Result<Kind, Expected> {
    let kinds = [
        ("echo", Kind::Echo),
        ("forward", Kind::Forward),
        ("ask", Kind::Ask),
    ];
    value::word(text, &kinds).map_err(|expected| match text {
        "assistant" => format!("{expected}: assistant is not in this version").into(),
        _ => expected,
    })
}

fn turn(reader: &mut Reader, handler: &HandlerConfig) -> TurnConfig {
    // A bot behind `forward` marks messages as read itself, if it wants to.
    let mark_read = match handler {
        HandlerConfig::Forward(_) => false,
        HandlerConfig::Echo | HandlerConfig::Ask(_) => true,
    };
    TurnConfig {
        deadline: reader.value("turn.deadline", value::duration),
        attempts_max: reader.value("turn.attempts_max", value::times),
        backoff_first: reader.value("turn.backoff_first", value::duration),
        backoff_max: reader.value("turn.backoff_max", value::duration),
        unavailable_max: reader.value("turn.unavailable_max", value::duration),
        unavailable_backoff_max: reader.value("turn.unavailable_backoff_max", value::duration),
        mark_read: reader
            .optional("turn.mark_read", value::switch)
            .unwrap_or(mark_read),
        policy: reader.value("turn.policy", |text| {
            value::word(text, &[("queue", TurnPolicy::Queue)])
        }),
    }
}

/// The right to make a thread lasts for less than half of a turn, so that who comes after a caller
/// that died still has time to make one.
fn thread(reader: &mut Reader, turn: &TurnConfig) -> ThreadConfig {
    let create_timeout = (turn.deadline.saturating_mul(2) / 5).min(THREAD_CREATE_MAX);
    ThreadConfig {
        create_timeout: reader
            .optional("thread.create_timeout", value::duration)
            .unwrap_or(create_timeout.max(Duration::from_millis(1))),
        wait_max: reader.value("thread.wait_max", value::duration),
    }
}

fn worker(reader: &mut Reader, handler: &HandlerConfig) -> WorkerConfig {
    // No more than could be set, or what is printed could not be read again.
    let count_max = usize::try_from(value::COUNT_MAX).unwrap_or(usize::MAX);
    let concurrency = match handler {
        HandlerConfig::Forward(forward) => {
            let urls = forward.bot_urls.len() + forward.number_urls.len();
            let all = forward.concurrency.saturating_mul(urls);
            all.min(count_max)
        }
        HandlerConfig::Echo | HandlerConfig::Ask(_) => WORKERS,
    };
    WorkerConfig {
        concurrency: reader
            .optional("worker.concurrency", value::count)
            .unwrap_or(concurrency),
        drain_timeout: reader.value("worker.drain_timeout", value::duration),
    }
}

fn send(reader: &mut Reader) -> SendConfig {
    SendConfig {
        concurrency: reader.value("send.concurrency", value::count),
        per_second: reader.value("send.per_second", value::times),
        timeout: reader.value("send.timeout", value::duration),
        connect_timeout: reader.value("send.connect_timeout", value::duration),
        unsure_wait: reader.value("send.unsure_wait", value::duration),
        retry_max: reader.value("send.retry_max", value::duration),
        backoff_first: reader.value("send.backoff_first", value::duration),
        pause: reader.value("send.pause", value::duration),
    }
}

fn node(reader: &mut Reader) -> NodeConfig {
    NodeConfig {
        lease_ttl: reader.value("node.lease_ttl", value::duration),
        renew_every: reader.value("node.renew_every", value::duration),
    }
}

fn whatsapp(reader: &mut Reader) -> WhatsappConfig {
    let number = reader.optional("whatsapp.phone_number_id", value::number_id);
    WhatsappConfig {
        access_token: reader.required_secret(
            "whatsapp.access_token",
            value::header_text,
            ACCESS_TOKEN,
        ),
        app_secret: reader.required_secret("whatsapp.app_secret", value::any, APP_SECRET),
        app_secret_previous: reader.secret("whatsapp.app_secret_previous", value::any),
        verify_token: reader.required_secret("whatsapp.verify_token", value::any, VERIFY_TOKEN),
        verify_token_previous: reader.secret("whatsapp.verify_token_previous", value::any),
        phone_number_id: number.map(NumberId::new),
        api_url: reader.value("whatsapp.api_url", value::api_url),
        api_version: reader.value("whatsapp.api_version", value::api_version),
    }
}

fn log(reader: &mut Reader) -> LogConfig {
    LogConfig {
        level: reader.value("log.level", value::log_level),
        format: reader.value("log.format", |text| {
            let words = [
                ("auto", LogFormat::Auto),
                ("json", LogFormat::Json),
                ("pretty", LogFormat::Pretty),
            ];
            value::word(text, &words)
        }),
        identifiers: reader.value("log.identifiers", |text| {
            let words = [
                ("hidden", LogIdentifiers::Hidden),
                ("plain", LogIdentifiers::Plain),
            ];
            value::word(text, &words)
        }),
    }
}
