//! The settings as a whole: defaults, faults and relations.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::keys::KEYS;
use super::*;
use crate::model::Secret;

mod places;
mod property;
mod shown;

const TOKEN: &str = "EAAG-the-access-token";
const APP_SECRET: &str = "the-app-secret";
const VERIFY: &str = "the-verify-token";

/// A place for files, and an environment in which only the handler is chosen and the required
/// secrets are there.
struct Scene {
    dir: TempDir,
    sources: Sources,
}

impl Scene {
    fn bare() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            sources: Sources::default(),
        }
    }

    fn new() -> Self {
        Self::bare()
            .env("WHATSAPP_ACCESS_TOKEN", TOKEN)
            .env("WHATSAPP_APP_SECRET", APP_SECRET)
            .env("WHATSAPP_VERIFY_TOKEN", VERIFY)
            .env("HAPAX_HANDLER", "echo")
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.sources.env.retain(|(known, _)| known != name);
        self
    }

    fn file(mut self, text: &str) -> Self {
        self.sources.file = Some(self.write("hapax.toml", text));
        self
    }

    fn env_file(mut self, text: &str) -> Self {
        self.sources.env_file = Some(self.write(".env", text));
        self
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn load(&self) -> Result<Loaded, Faults> {
        load(self.sources.clone())
    }

    fn loaded(&self) -> Loaded {
        match self.load() {
            Ok(loaded) => loaded,
            Err(faults) => panic!("{faults}"),
        }
    }

    fn faults(&self) -> Faults {
        self.load().expect_err("something is wrong")
    }

    /// The keys at fault.
    fn faulty(&self) -> Vec<String> {
        self.faults()
            .iter()
            .map(|fault| fault.key.clone())
            .collect()
    }

    fn notes(&self) -> String {
        self.loaded().notes.join("\n")
    }
}

#[test]
fn defaults_hold_where_nothing_is_set() {
    let Loaded { config, notes, .. } = Scene::new().loaded();
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(config.public.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.public.body_max, 3_500_000);
    assert_eq!(config.store.url, StoreUrl::Sqlite("hapax.db".into()));
    assert_eq!(config.handler, HandlerConfig::Echo);
    assert_eq!(config.worker.concurrency, 64);
    assert!(config.turn.mark_read);
    assert_eq!(config.turn.unavailable_max, Duration::from_secs(86_400));
    assert_eq!(config.whatsapp.api_version, "v25.0");
    assert_eq!(config.log.format, LogFormat::Auto);
}

#[test]
fn all_faults_are_told_at_once_and_in_order() {
    let scene = Scene::bare()
        .file("[turn]\ndedline = \"1s\"\nattempts_max = \"many\"\n[node]\nrenew_every = 1")
        .env("HAPAX_PUBLIC_LISTEN", "8080")
        .env("HAPAX_HANDLER", "robot")
        .env("WHATSAPP_API_URL", "https://graph.facebook.com/v25.0");
    assert_eq!(
        scene.faulty(),
        [
            "turn.dedline",
            "whatsapp.access_token",
            "whatsapp.app_secret",
            "whatsapp.verify_token",
            "whatsapp.api_url",
            "handler.kind",
            "public.listen",
            "turn.attempts_max",
            "node.renew_every",
        ]
    );
    let text = scene.faults().to_string();
    assert!(text.starts_with("9 faults in the settings:"), "{text}");
    assert!(text.contains("did you mean turn.deadline?"), "{text}");
    assert!(
        text.contains("\"8080\" from HAPAX_PUBLIC_LISTEN (environment)"),
        "{text}"
    );
    assert!(text.contains("the default is 127.0.0.1:8080"), "{text}");
}

#[test]
fn every_setting_complains_by_itself() {
    // A value that no parser but those of free texts takes.
    let free = ["app_secret", "verify_token", "ask.secret", "ca_dir"];
    for key in KEYS
        .iter()
        .filter(|key| !free.iter().any(|free| key.name.contains(free)))
    {
        let scene = Scene::new()
            .without(key.env)
            .env(key.env, "not right = \u{fc}");
        assert!(
            scene.faulty().contains(&key.name.to_owned()),
            "{}",
            key.name
        );
    }
}

#[test]
fn relations_are_checked() {
    let cases = [
        ("HAPAX_NODE_RENEW_EVERY", "2s", "node.renew_every"),
        ("HAPAX_NODE_LEASE_TTL", "1h", "node.lease_ttl"),
        ("HAPAX_PUBLIC_BODY_MAX", "2MB", "public.body_max"),
        (
            "HAPAX_PUBLIC_BODY_MEMORY_MAX",
            "3MB",
            "public.body_memory_max",
        ),
        ("HAPAX_TURN_BACKOFF_FIRST", "2m", "turn.backoff_max"),
        (
            "HAPAX_TURN_UNAVAILABLE_MAX",
            "1s",
            "turn.unavailable_backoff_max",
        ),
        ("HAPAX_STORE_STATEMENT_TIMEOUT", "2s", "store.lock_timeout"),
        ("HAPAX_STORE_LOCK_TIMEOUT", "11s", "store.lock_timeout"),
        ("HAPAX_RETENTION_KEYS", "7d", "retention.keys"),
        ("HAPAX_RETENTION_KEYS", "29d", "retention.payloads"),
        ("HAPAX_RETENTION_PAYLOADS", "31d", "retention.payloads"),
        ("HAPAX_RETENTION_PAYLOADS", "59m", "retention.payloads"),
        ("HAPAX_RETENTION_EVERY", "25h", "retention.every"),
        ("HAPAX_SEND_TIMEOUT", "1s", "send.connect_timeout"),
        ("HAPAX_SEND_BACKOFF_FIRST", "61s", "send.backoff_first"),
        (
            "HAPAX_THREAD_CREATE_TIMEOUT",
            "11m",
            "thread.create_timeout",
        ),
        ("HAPAX_THREAD_WAIT_MAX", "6m", "thread.wait_max"),
        ("HAPAX_BOT_LISTEN", "0.0.0.0:9000", "bot.token"),
        ("HAPAX_ADMIN_LISTEN", "[::]:9000", "admin.token"),
        ("HAPAX_ADMIN_LISTEN", "127.0.0.1:8080", "admin.listen"),
        ("PORT", "8081", "bot.listen"),
    ];
    for (name, value, key) in cases {
        assert_eq!(
            Scene::new().env(name, value).faulty(),
            [key],
            "{name}={value}"
        );
    }
    let faulty_itself = Scene::new()
        .env("HAPAX_NODE_RENEW_EVERY", "2s")
        .env("HAPAX_NODE_LEASE_TTL", "soon");
    assert_eq!(
        faulty_itself.faulty(),
        ["node.lease_ttl"],
        "no fault that follows from another"
    );
    let open = Scene::new()
        .env("HAPAX_BOT_LISTEN", "0.0.0.0:9")
        .env("HAPAX_BOT_TOKEN", "t");
    assert!(open.load().is_ok());
}

#[test]
fn a_bot_that_is_hapax_itself_is_refused() {
    let forward = |url| {
        Scene::new()
            .without("HAPAX_HANDLER")
            .env("HAPAX_BOT_URL", url)
    };
    for url in [
        "http://localhost:8080/webhook",
        "http://127.0.0.1:8081",
        "http://a,http://127.0.0.1:8082",
    ] {
        assert_eq!(forward(url).faulty(), ["handler.bot_url"], "{url}");
    }
    let on_all = forward("http://[::1]:9999/").env("PORT", "9999");
    assert_eq!(on_all.faulty(), ["handler.bot_url"]);
    assert!(forward("http://bot:8080/webhook").load().is_ok());
    assert!(forward("http://127.0.0.1:5000/webhook").load().is_ok());
}

#[test]
fn the_handler_follows_from_the_bots_url() {
    let urls = "http://a:5000/webhook, http://b:5000/webhook";
    let scene = Scene::new().without("HAPAX_HANDLER");
    let faults = scene.faults().to_string();
    assert!(
        faults.contains("HAPAX_BOT_URL=") && faults.contains("HAPAX_HANDLER=echo"),
        "{faults}"
    );

    let scene = scene.env("HAPAX_BOT_URL", urls);
    let config = scene.loaded().config;
    let HandlerConfig::Forward(forward) = &config.handler else {
        panic!("{:?}", config.handler);
    };
    assert_eq!(
        forward.bot_urls,
        ["http://a:5000/webhook", "http://b:5000/webhook"]
    );
    assert_eq!(config.worker.concurrency, 16, "as many as both URLs take");
    assert!(!config.turn.mark_read, "the bot does it");

    let scene = scene.env("HAPAX_HANDLER", "ask");
    let config = scene.loaded().config;
    let HandlerConfig::Ask(ask) = &config.handler else {
        panic!("{:?}", config.handler);
    };
    assert_eq!(
        ask.secret.expose(),
        APP_SECRET,
        "unless there is one of its own"
    );
    assert_eq!(config.worker.concurrency, 64);
    assert!(config.turn.mark_read);

    let scene = scene.env("HAPAX_ASK_SECRET", "whsec_c2VjcmV0");
    let HandlerConfig::Ask(ask) = scene.loaded().config.handler else {
        panic!("still ask");
    };
    assert_eq!(ask.secret.expose(), "whsec_c2VjcmV0");

    for kind in ["ask", "forward"] {
        let lonely = Scene::new()
            .without("HAPAX_HANDLER")
            .env("HAPAX_HANDLER", kind);
        assert_eq!(lonely.faulty(), ["handler.bot_url"]);
    }
    let broken = Scene::new()
        .without("HAPAX_HANDLER")
        .env("HAPAX_BOT_URL", "bot");
    assert_eq!(broken.faulty(), ["handler.bot_url"], "one fault, not two");
}

#[test]
fn the_right_to_make_a_thread_lasts_for_less_than_half_of_a_turn() {
    let lasts = |scene: Scene| scene.loaded().config.thread.create_timeout;
    let seconds = Duration::from_secs;
    assert_eq!(lasts(Scene::new()), seconds(24));
    let deadline = |text| Scene::new().env("HAPAX_TURN_DEADLINE", text);
    assert_eq!(lasts(deadline("10s")), seconds(4));
    assert_eq!(lasts(deadline("5h")), seconds(600));
    let own = deadline("10s").env("HAPAX_THREAD_CREATE_TIMEOUT", "30s");
    assert_eq!(lasts(own), seconds(30));
}

#[test]
fn what_is_not_in_this_version_says_so() {
    let scene = Scene::new().without("HAPAX_HANDLER");
    let faults = scene.env("HAPAX_HANDLER", "assistant").faults().to_string();
    assert!(faults.starts_with("1 fault "), "{faults}");
    assert!(faults.contains("not in this version"), "{faults}");
}

#[test]
fn stores_are_files_or_databases() {
    let path = |url| match Scene::new().env("HAPAX_STORE", url).load() {
        Ok(loaded) => Some(loaded.config.store.url),
        Err(_) => None,
    };
    assert_eq!(
        path("sqlite:/var/h.db"),
        Some(StoreUrl::Sqlite("/var/h.db".into()))
    );
    assert_eq!(
        path("sqlite:///var/h.db"),
        Some(StoreUrl::Sqlite("/var/h.db".into()))
    );
    for right in [
        "postgres://u:secret@h/db",
        "postgresql://h1:5432,h2:5432/db?sslmode=verify-full",
        "postgres:///db?host=/run/postgresql",
    ] {
        assert_eq!(path(right), Some(StoreUrl::Postgres(Secret::new(right))));
    }
    for wrong in [
        "postgres:///db",
        "postgres://h/db?sslmod=require",
        "postgres://h:secret/db",
        "host=h dbname=db",
        "hapax.db",
        "sqlite:",
        "sqlite::memory:",
        "sqlite:a?mode=ro",
        "mysql://h/db",
    ] {
        assert_eq!(path(wrong), None, "{wrong}");
    }
}

#[test]
fn a_wrong_database_is_told_without_its_password() {
    let faults = |url| Scene::new().env("HAPAX_STORE", url).faults().to_string();
    let misspelt = faults("postgres://u:hunter2@h/db?sslmode=on");
    assert!(
        misspelt.contains("sslmode: expected disable or") && misspelt.contains("found \"on\""),
        "{misspelt}"
    );
    let without_host = faults("postgres://u:hunter2/db");
    assert!(without_host.contains("port: expected"), "{without_host}");
    assert!(
        !format!("{misspelt}{without_host}").contains("hunter2"),
        "{misspelt}{without_host}"
    );
}

#[test]
fn a_database_has_settings_of_its_own() {
    let default = Scene::new().loaded().config;
    let postgres = &default.store.postgres;
    assert_eq!(postgres.schema, "hapax");
    assert_eq!(postgres.connections, 8);
    assert_eq!(postgres.pooler, Pooler::None);
    assert_eq!(postgres.async_failover, AsyncFailover::Refuse);
    assert_eq!(default.retention.keys, Duration::from_secs(30 * 86_400));
    let scene = Scene::new()
        .env("HAPAX_STORE", "postgres://h1,h2/db")
        .env("HAPAX_STORE_SCHEMA", "public")
        .env("HAPAX_STORE_CONNECTIONS", "16")
        .env("HAPAX_STORE_LOCK_TIMEOUT", "10s")
        .env("HAPAX_STORE_POOLER", "transaction")
        .env("HAPAX_STORE_ASYNC_FAILOVER", "allow");
    let chosen = scene.loaded().config.store.postgres;
    let expected = PostgresConfig {
        schema: "public".to_owned(),
        connections: 16,
        connect_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(10),
        lock_timeout: Duration::from_secs(10),
        pooler: Pooler::Transaction,
        async_failover: AsyncFailover::Allow,
    };
    assert_eq!(chosen, expected);
}
