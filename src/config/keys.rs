//! Every setting there is: its key, its name in the environment, other names it is known by, and
//! its default. The one list that reading, checking, printing and documenting go by.

use super::value;

/// One setting.
pub(super) struct Key {
    /// As it stands in the file: section, point, name.
    pub(super) name: &'static str,
    /// Its name in the environment.
    pub(super) env: &'static str,
    /// Names under which other programs know it, the first one first.
    pub(super) aliases: &'static [Alias],
    /// What holds when it is not set.
    pub(super) fallback: Fallback,
    /// How its text may be shown.
    pub(super) shown: Shown,
    /// Whether the file may list several values.
    pub(super) list: bool,
}

/// What holds when a setting is not set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fallback {
    /// This text.
    Text(&'static str),
    /// Nothing, or something that depends on other settings.
    Open,
    /// It must be set.
    Required,
}

/// How the text of a setting may be shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// As it is.
    Plain,
    /// Never.
    Secret,
    /// Without user name, password and query.
    Address,
    /// Only once it has the right form: what stands there by mistake may be a phone number.
    WhenRight,
}

/// Another name for a setting.
pub(super) struct Alias {
    /// The name in the environment.
    pub(super) name: &'static str,
    /// Where the name can be trusted to mean this setting.
    pub(super) place: Place,
    /// What the setting's text is when the variable holds this one; `None` if it doesn't fit.
    pub(super) take: fn(&str) -> Option<String>,
}

/// Where a name can be trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the environment and in an env-file.
    Anywhere,
    /// Only in an env-file, which somebody chose: the name is too common.
    EnvFile,
    /// Only in the environment, where the platform sets it; in an env-file it is the bot's own.
    Environment,
}

impl Key {
    /// The key of this name. Only for names from this table.
    pub(super) fn named(name: &str) -> &'static Self {
        Self::find(name).expect("every name that the program asks for stands in the table")
    }

    /// The key of this name, if there is one.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The text of this setting as it may be shown in a fault.
    pub(super) fn show(&self, text: &str) -> String {
        let short = |text: &str| own(text).chars().take(80).collect::<String>();
        match self.shown {
            Shown::Plain => format!("{:?}", short(text)),
            Shown::Secret | Shown::WhenRight => "***".to_owned(),
            // Without its `@`, the password would stand where the port is looked for.
            Shown::Address if is_postgres(text) => "\"postgres://***\"".to_owned(),
            Shown::Address => format!("{:?}", short(&redact(text))),
        }
    }

    const fn secret(mut self) -> Self {
        self.shown = Shown::Secret;
        self
    }

    const fn shown(mut self, shown: Shown) -> Self {
        self.shown = shown;
        self
    }

    const fn list(mut self) -> Self {
        self.list = true;
        self
    }

    const fn also(mut self, aliases: &'static [Alias]) -> Self {
        self.aliases = aliases;
        self
    }
}

/// Whether `text` is the address of a PostgreSQL database.
pub(super) fn is_postgres(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// The part of a setting's text that is surely its own. Behind a quote that was never closed stand
/// the lines that follow, other settings with their secrets.
fn own(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let ends_a_name = |at: &usize| line[..*at].ends_with(is_name);
    let mut signs = line.match_indices('=').map(|(at, _)| at);
    signs.find(ends_a_name).map_or(line, |at| &line[..at])
}

/// An address without what may be secret in it. Of several addresses it may hide all but the
/// last one: a password can hold any sign.
pub(super) fn redact(text: &str) -> String {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let is_scheme = |scheme: &&str| scheme.bytes().all(fits);
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    let scheme = scheme.filter(is_scheme).unwrap_or_default();
    let (before, rest) = match text.rsplit_once('@') {
        Some((_, rest)) if scheme.is_empty() => ("***@".to_owned(), rest),
        Some((_, rest)) => (format!("{scheme}://***@"), rest),
        None => (String::new(), text),
    };
    match rest.find(['?', '#']) {
        Some(at) => format!("{before}{}?***", &rest[..at]),
        None => format!("{before}{rest}"),
    }
}

const fn setting(name: &'static str, env: &'static str, fallback: Fallback) -> Key {
    Key {
        name,
        env,
        aliases: &[],
        fallback,
        shown: Shown::Plain,
        list: false,
    }
}

const fn text(name: &'static str, env: &'static str, default: &'static str) -> Key {
    setting(name, env, Fallback::Text(default))
}

const fn open(name: &'static str, env: &'static str) -> Key {
    setting(name, env, Fallback::Open)
}

const fn required(name: &'static str, env: &'static str) -> Key {
    setting(name, env, Fallback::Required)
}

const fn alias(name: &'static str) -> Alias {
    Alias {
        name,
        place: Place::Anywhere,
        take: |text| Some(text.to_owned()),
    }
}

const fn bare(name: &'static str) -> Alias {
    Alias {
        place: Place::EnvFile,
        ..alias(name)
    }
}

/// `PORT` of hosting platforms: they route to it from outside, so it is opened on all addresses.
const PORT: Alias = Alias {
    name: "PORT",
    place: Place::Environment,
    take: |text| {
        let port: u16 = text.parse().ok()?;
        Some(format!("0.0.0.0:{port}"))
    },
};

/// `VERSION` is as often the version of the bot itself, which has another form.
const VERSION: Alias = Alias {
    name: "VERSION",
    place: Place::EnvFile,
    take: |text| value::api_version(text).ok(),
};

/// Every setting, in the order in which they are documented.
pub(super) const KEYS: &[Key] = &[
    required("whatsapp.access_token", "WHATSAPP_ACCESS_TOKEN")
        .secret()
        .also(&[
            alias("WHATSAPP_TOKEN"),
            alias("WP_ACCESS_TOKEN"),
            alias("META_SYSTEM_USER_TOKEN"),
            alias("WHATSAPP_CLOUD_ACCESS_TOKEN"),
            bare("ACCESS_TOKEN"),
            bare("TOKEN"),
        ]),
    required("whatsapp.app_secret", "WHATSAPP_APP_SECRET")
        .secret()
        .also(&[alias("APP_SECRET")]),
    open(
        "whatsapp.app_secret_previous",
        "WHATSAPP_APP_SECRET_PREVIOUS",
    )
    .secret(),
    required("whatsapp.verify_token", "WHATSAPP_VERIFY_TOKEN")
        .secret()
        .also(&[
            alias("VERIFY_TOKEN"),
            alias("WHATSAPP_WEBHOOK_VERIFY_TOKEN"),
            alias("WP_WEBHOOK_VERIFY_TOKEN"),
            alias("WA_BUSINESS_TOKEN_WEBHOOK"),
        ]),
    open(
        "whatsapp.verify_token_previous",
        "WHATSAPP_VERIFY_TOKEN_PREVIOUS",
    )
    .secret(),
    open("whatsapp.phone_number_id", "WHATSAPP_PHONE_NUMBER_ID")
        .shown(Shown::WhenRight)
        .also(&[
            alias("WHATSAPP_PHONE_ID"),
            alias("WP_PHONE_ID"),
            alias("PHONE_NUMBER_ID"),
        ]),
    text(
        "whatsapp.api_url",
        "WHATSAPP_API_URL",
        "https://graph.facebook.com",
    )
    .shown(Shown::Address)
    .also(&[alias("WHATSAPP_CLOUD_API_URL")]),
    text("whatsapp.api_version", "WHATSAPP_API_VERSION", "v25.0").also(&[
        alias("META_API_VERSION"),
        alias("WA_BUSINESS_VERSION"),
        VERSION,
    ]),
    open("handler.kind", "HAPAX_HANDLER"),
    open("handler.bot_url", "HAPAX_BOT_URL")
        .shown(Shown::Address)
        .list(),
    text("forward.concurrency", "HAPAX_FORWARD_CONCURRENCY", "8"),
    text("forward.done", "HAPAX_FORWARD_DONE", "response"),
    text("forward.down_for", "HAPAX_FORWARD_DOWN_FOR", "5s"),
    text("forward.no_reply", "HAPAX_FORWARD_NO_REPLY", "retry"),
    open("forward.number_url", "HAPAX_FORWARD_NUMBER_URL")
        .shown(Shown::Address)
        .list(),
    text("forward.notices", "HAPAX_FORWARD_NOTICES", "false"),
    text("forward.reply_wait", "HAPAX_FORWARD_REPLY_WAIT", "60s"),
    text("forward.retry_id", "HAPAX_FORWARD_RETRY_ID", "same"),
    text("forward.statuses", "HAPAX_FORWARD_STATUSES", "false"),
    text("forward.tail", "HAPAX_FORWARD_TAIL", "2s"),
    open("ask.secret", "HAPAX_ASK_SECRET").secret(),
    text("public.listen", "HAPAX_PUBLIC_LISTEN", "127.0.0.1:8080").also(&[PORT]),
    open("public.url", "HAPAX_PUBLIC_URL").shown(Shown::Address),
    text("public.body_max", "HAPAX_PUBLIC_BODY_MAX", "3.5MB"),
    text(
        "public.header_timeout",
        "HAPAX_PUBLIC_HEADER_TIMEOUT",
        "10s",
    ),
    text("public.body_timeout", "HAPAX_PUBLIC_BODY_TIMEOUT", "10s"),
    text(
        "public.connections_max",
        "HAPAX_PUBLIC_CONNECTIONS_MAX",
        "1024",
    ),
    text(
        "public.body_memory_max",
        "HAPAX_PUBLIC_BODY_MEMORY_MAX",
        "256MB",
    ),
    text("bot.listen", "HAPAX_BOT_LISTEN", "127.0.0.1:8081"),
    open("bot.token", "HAPAX_BOT_TOKEN").secret(),
    text("bot.ca_dir", "HAPAX_BOT_CA_DIR", "hapax-ca"),
    open("egress.token", "HAPAX_EGRESS_TOKEN").secret(),
    text("egress.answer_within", "HAPAX_EGRESS_ANSWER_WITHIN", "4s"),
    text("egress.when", "HAPAX_EGRESS_WHEN", "now"),
    text("admin.listen", "HAPAX_ADMIN_LISTEN", "127.0.0.1:8082"),
    open("admin.token", "HAPAX_ADMIN_TOKEN").secret(),
    text("store.url", "HAPAX_STORE", "sqlite:hapax.db").shown(Shown::Address),
    text("store.queue_max", "HAPAX_STORE_QUEUE_MAX", "4096"),
    text("store.wait_max", "HAPAX_STORE_WAIT_MAX", "10s"),
    text("store.wal_max", "HAPAX_STORE_WAL_MAX", "64MB"),
    text("store.schema", "HAPAX_STORE_SCHEMA", "hapax"),
    text("store.connections", "HAPAX_STORE_CONNECTIONS", "8"),
    text("store.connect_timeout", "HAPAX_STORE_CONNECT_TIMEOUT", "5s"),
    text(
        "store.statement_timeout",
        "HAPAX_STORE_STATEMENT_TIMEOUT",
        "10s",
    ),
    text("store.lock_timeout", "HAPAX_STORE_LOCK_TIMEOUT", "7s"),
    text("store.pooler", "HAPAX_STORE_POOLER", "none"),
    text(
        "store.async_failover",
        "HAPAX_STORE_ASYNC_FAILOVER",
        "refuse",
    ),
    text("retention.keys", "HAPAX_RETENTION_KEYS", "30d"),
    text("retention.payloads", "HAPAX_RETENTION_PAYLOADS", "30d"),
    text("retention.every", "HAPAX_RETENTION_EVERY", "10m"),
    text("turn.deadline", "HAPAX_TURN_DEADLINE", "60s"),
    text("turn.attempts_max", "HAPAX_TURN_ATTEMPTS_MAX", "7"),
    text("turn.backoff_first", "HAPAX_TURN_BACKOFF_FIRST", "1s"),
    text("turn.backoff_max", "HAPAX_TURN_BACKOFF_MAX", "60s"),
    text("turn.unavailable_max", "HAPAX_TURN_UNAVAILABLE_MAX", "24h"),
    text(
        "turn.unavailable_backoff_max",
        "HAPAX_TURN_UNAVAILABLE_BACKOFF_MAX",
        "30s",
    ),
    open("turn.mark_read", "HAPAX_TURN_MARK_READ"),
    text("turn.policy", "HAPAX_TURN_POLICY", "queue"),
    open("thread.create_timeout", "HAPAX_THREAD_CREATE_TIMEOUT"),
    text("thread.wait_max", "HAPAX_THREAD_WAIT_MAX", "10s"),
    open("worker.concurrency", "HAPAX_WORKERS"),
    text("worker.drain_timeout", "HAPAX_WORKER_DRAIN_TIMEOUT", "30s"),
    text("send.concurrency", "HAPAX_SEND_CONCURRENCY", "32"),
    text("send.per_second", "HAPAX_SEND_PER_SECOND", "80"),
    text("send.timeout", "HAPAX_SEND_TIMEOUT", "20s"),
    text("send.connect_timeout", "HAPAX_SEND_CONNECT_TIMEOUT", "5s"),
    text("send.unsure_wait", "HAPAX_SEND_UNSURE_WAIT", "60s"),
    text("send.retry_max", "HAPAX_SEND_RETRY_MAX", "24h"),
    text("send.backoff_first", "HAPAX_SEND_BACKOFF_FIRST", "1s"),
    text("send.pause", "HAPAX_SEND_PAUSE", "60s"),
    text("node.lease_ttl", "HAPAX_NODE_LEASE_TTL", "5s"),
    text("node.renew_every", "HAPAX_NODE_RENEW_EVERY", "1s"),
    text("log.level", "HAPAX_LOG", "info"),
    text("log.format", "HAPAX_LOG_FORMAT", "auto"),
    text("log.identifiers", "HAPAX_LOG_IDENTIFIERS", "hidden"),
];

/// The key that `word` was likely meant to be: the nearest by edits of letters, if it is near.
pub(super) fn nearest_key(word: &str) -> Option<&'static Key> {
    let section = word.split_once('.');
    let likeness = |key: &Key| {
        let whole = strsim::normalized_damerau_levenshtein(word, key.name);
        match (section, key.name.split_once('.')) {
            (Some((one, word)), Some((other, name))) if one == other => {
                whole.min(strsim::normalized_damerau_levenshtein(word, name))
            }
            _ => whole,
        }
    };
    let by_env = KEYS.iter().find(|key| key.env == word);
    by_env.or_else(|| nearest(likeness))
}

/// The key whose name in the environment `name` was likely meant to be.
pub(super) fn nearest_env(name: &str) -> Option<&'static Key> {
    let bare = |name: &'static str| name.strip_prefix("HAPAX_");
    let word = name.strip_prefix("HAPAX_").unwrap_or(name);
    nearest(|key| {
        bare(key.env).map_or(0.0, |env| strsim::normalized_damerau_levenshtein(word, env))
    })
}

fn nearest(likeness: impl Fn(&Key) -> f64) -> Option<&'static Key> {
    KEYS.iter()
        .map(|key| (likeness(key), key))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_name_has_two_meanings() {
        let mut seen = BTreeSet::new();
        for key in KEYS {
            assert!(seen.insert(key.name), "{}", key.name);
            assert!(seen.insert(key.env), "{}", key.env);
            for alias in key.aliases {
                assert!(seen.insert(alias.name), "{}", alias.name);
            }
        }
    }

    #[test]
    fn misspelt_keys_are_recognised() {
        let cases = [
            ("turn.dedline", Some("turn.deadline")),
            ("turns.deadline", Some("turn.deadline")),
            ("handler.bot_urls", Some("handler.bot_url")),
            ("whatsapp.acces_token", Some("whatsapp.access_token")),
            ("WHATSAPP_ACCESS_TOKEN", Some("whatsapp.access_token")),
            ("turn.zebra", None),
            ("zebra", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest_key(word).map(|key| key.name), expected, "{word}");
        }
        assert_eq!(
            nearest_env("HAPAX_BOTURL").map(|key| key.env),
            Some("HAPAX_BOT_URL")
        );
        assert!(nearest_env("HAPAX_ZEBRA").is_none());
    }

    #[test]
    fn what_an_open_quote_draws_in_is_not_shown() {
        let key = Key::named("log.level");
        for drawn in ["info\nTOKEN=EAAG", "info\r\nname: EAAG", "infoTOKEN=EAAG"] {
            assert!(!key.show(drawn).contains("EAAG"), "{drawn}");
        }
        assert_eq!(key.show("hapax=loud"), "\"hapax=loud\"");
        assert_eq!(key.show(""), "\"\"");
    }

    #[test]
    fn addresses_show_no_password_and_no_query() {
        let cases = [
            (
                "postgres://me:pw@db/x?password=y",
                "postgres://***@db/x?***",
            ),
            ("postgres://u:a,b?c@db", "postgres://***@db"),
            ("http://a/x,http://u:p@b:1/y", "http://***@b:1/y"),
            ("http://a/x?token=y,http://b/z", "http://a/x?***"),
            ("me:pw@db", "***@db"),
            ("me:pw@a,http://me:pw@b", "***@b"),
            ("sqlite:hapax.db", "sqlite:hapax.db"),
        ];
        for (text, shown) in cases {
            assert_eq!(redact(text), shown);
        }
    }
}
