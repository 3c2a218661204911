//! The settings as a whole: what wins, what is said, and what is never shown.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::keys::{Fallback, KEYS, Place, Shown};
use super::*;

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
fn the_environment_wins_over_the_env_file_and_that_over_the_file() {
    let scene = Scene::new()
        .file("[turn]\ndeadline = \"1s\"\nattempts_max = 1\nbackoff_first = \"2s\"")
        .env_file("HAPAX_TURN_DEADLINE=2s\nHAPAX_TURN_ATTEMPTS_MAX=2")
        .env("HAPAX_TURN_DEADLINE", "3s")
        .env("HAPAX_TURN_BACKOFF_FIRST", " ");
    let Loaded {
        config, origins, ..
    } = scene.loaded();
    assert_eq!(config.turn.deadline, Duration::from_secs(3));
    assert_eq!(config.turn.attempts_max, 2);
    assert_eq!(
        config.turn.backoff_first,
        Duration::from_secs(2),
        "an empty value is none"
    );
    let origin = |key| origins.of(key).to_string();
    assert_eq!(
        origin("whatsapp.verify_token"),
        "WHATSAPP_VERIFY_TOKEN (environment)"
    );
    assert!(origin("turn.attempts_max").starts_with("HAPAX_TURN_ATTEMPTS_MAX (/"));
    assert!(origin("turn.backoff_first").ends_with("hapax.toml"));
    assert_eq!(origin("store.url"), "default");
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
            "public.listen",
            "handler.kind",
            "turn.attempts_max",
            "node.renew_every",
            "whatsapp.access_token",
            "whatsapp.app_secret",
            "whatsapp.verify_token",
            "whatsapp.api_url",
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
    let free = ["app_secret", "verify_token", "ask.secret"];
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
        ("HAPAX_SEND_TIMEOUT", "1s", "send.connect_timeout"),
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
fn several_urls_may_stand_in_an_array() {
    let scene = Scene::new()
        .without("HAPAX_HANDLER")
        .file("[handler]\nbot_url = [\"http://a/\", \"http://b/\"]");
    assert_eq!(
        scene.loaded().config.handler.bot_urls(),
        ["http://a/", "http://b/"]
    );
    let scene = Scene::new().file("[public]\nlisten = [\"127.0.0.1:1\"]");
    assert_eq!(scene.faulty(), ["public.listen"]);
}

#[test]
fn what_is_not_in_this_version_says_so() {
    let cases = [
        ("HAPAX_HANDLER", "assistant"),
        ("HAPAX_STORE", "postgres://u:secret@h/db"),
    ];
    for (name, value) in cases {
        let faults = Scene::new()
            .without(name)
            .env(name, value)
            .faults()
            .to_string();
        assert!(faults.starts_with("1 fault "), "{faults}");
        assert!(faults.contains("not in this version"), "{faults}");
        assert!(!faults.contains("secret@"), "{faults}");
    }
}

#[test]
fn stores_are_files() {
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
    for wrong in [
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
fn a_bots_database_is_not_taken_unasked() {
    let scene = Scene::new().env("DATABASE_URL", "postgres://u:secret@h/db");
    let Loaded {
        config, origins, ..
    } = scene.loaded();
    assert_eq!(config.store.url, StoreUrl::Sqlite("hapax.db".into()));
    assert_eq!(origins.of("store.url"), &Origin::Default);
    let notes = scene.notes();
    assert!(
        notes.contains("DATABASE_URL (environment) names a PostgreSQL database"),
        "{notes}"
    );
    assert!(!notes.contains("secret"), "{notes}");
    assert_eq!(scene.env("HAPAX_STORE", "sqlite:a.db").notes(), "");
    assert_eq!(
        Scene::new().env("DATABASE_URL", "mysql://u:p@h/db").notes(),
        ""
    );
}

/// A text that the setting takes.
fn right(key: &str) -> &'static str {
    match key {
        "whatsapp.phone_number_id" => "106540352242922",
        "whatsapp.api_url" => "http://127.0.0.1:9000",
        "whatsapp.api_version" => "v23.0",
        "public.listen" => "7070",
        _ => "EAAG-other",
    }
}

#[test]
fn every_alias_is_taken_from_where_it_can_be_trusted() {
    for key in KEYS {
        for alias in key.aliases {
            let value = right(key.name);
            let in_env = || Scene::new().without(key.env).env(alias.name, value);
            let in_file = || {
                let line = format!("{}={value}\n", alias.name);
                Scene::new().without(key.env).env_file(&line)
            };
            let (trusted, other) = match alias.place {
                Place::Anywhere => (vec![in_env(), in_file()], None),
                Place::EnvFile => (vec![in_file()], Some(in_env())),
                Place::Environment => (vec![in_env()], Some(in_file())),
            };
            for scene in trusted {
                let loaded = scene.loaded();
                let origin = loaded.origins.of(key.name).to_string();
                assert!(origin.starts_with(&format!("{} (", alias.name)), "{origin}");
                let note = format!("{} is taken from {origin}", key.env);
                assert!(loaded.notes.contains(&note), "{:?}", loaded.notes);
                assert!(render(&loaded.config, &loaded.origins).contains(&origin));
            }
            if let Some(scene) = other {
                let taken = scene.load().map(|l| l.origins.of(key.name).clone());
                assert!(!matches!(taken, Ok(origin) if origin != Origin::Default));
            }
        }
    }
}

#[test]
fn port_opens_that_port_on_all_addresses() {
    let scene = Scene::new().env("PORT", "7070");
    assert_eq!(
        scene.loaded().config.public.listen.to_string(),
        "0.0.0.0:7070"
    );
    let own = scene.env("HAPAX_PUBLIC_LISTEN", "127.0.0.1:1");
    assert_eq!(own.loaded().config.public.listen.to_string(), "127.0.0.1:1");
    let odd = Scene::new().env("PORT", "tcp://10.0.0.1:80");
    assert_eq!(
        odd.loaded().config.public.listen.to_string(),
        "127.0.0.1:8080"
    );
    assert!(
        odd.notes()
            .contains("PORT (environment) has not the form of HAPAX_PUBLIC_LISTEN")
    );
    let bots = Scene::new().env_file("PORT=5000");
    assert_eq!(
        bots.loaded().config.public.listen.to_string(),
        "127.0.0.1:8080"
    );
    assert!(
        bots.notes().contains("is taken for the bot's own"),
        "{}",
        bots.notes()
    );
}

#[test]
fn common_names_count_only_in_an_env_file() {
    let scene = Scene::new()
        .without("WHATSAPP_ACCESS_TOKEN")
        .env("TOKEN", "EAAG-secret");
    assert_eq!(scene.faulty(), ["whatsapp.access_token"]);
    let faults = scene.faults().to_string();
    assert!(
        faults.contains("TOKEN is set in the environment, but"),
        "{faults}"
    );
    assert!(!faults.contains("EAAG"), "{faults}");
    let loaded = scene.env_file("TOKEN=EAAG-file\nVERSION=1.4.2").loaded();
    assert_eq!(loaded.config.whatsapp.access_token.expose(), "EAAG-file");
    assert_eq!(
        loaded.config.whatsapp.api_version, "v25.0",
        "that is the bot's own version"
    );
}

#[test]
fn a_settings_own_name_wins_over_an_alias() {
    let scene = Scene::new()
        .without("WHATSAPP_VERIFY_TOKEN")
        .env("VERIFY_TOKEN", "ambient")
        .env_file("WHATSAPP_VERIFY_TOKEN=own");
    assert_eq!(scene.loaded().config.whatsapp.verify_token.expose(), "own");
}

#[test]
fn aliases_that_differ_are_noted_without_their_values() {
    let scene = Scene::new()
        .without("WHATSAPP_ACCESS_TOKEN")
        .env("WP_ACCESS_TOKEN", "EAAG-b")
        .env("WHATSAPP_TOKEN", "EAAG-a");
    assert_eq!(
        scene.loaded().config.whatsapp.access_token.expose(),
        "EAAG-a"
    );
    let notes = scene.notes();
    assert!(
        notes.contains("WHATSAPP_TOKEN (environment) and WP_ACCESS_TOKEN (environment) both"),
        "{notes}"
    );
    assert!(!notes.contains("EAAG"), "{notes}");
}

#[test]
fn unknown_variables_are_noted_and_those_of_kubernetes_are_not() {
    let scene = Scene::new()
        .env("HAPAX_PORT", "tcp://10.0.0.1:8080")
        .env("HAPAX_PORT_8080_TCP_ADDR", "10.0.0.1")
        .env("HAPAX_SERVICE_HOST", "10.0.0.1")
        .env("HAPAX_ADMIN_SERVICE_PORT_HTTP", "8082")
        .env("OTHER", "x");
    assert_eq!(scene.notes(), "");
    let scene = scene
        .env("HAPAX_BOT_URI", "http://secret")
        .env("HAPAX_XYZZY", "1");
    let notes = scene.loaded().notes;
    assert_eq!(
        notes,
        [
            "HAPAX_BOT_URI (environment) is unknown and ignored; did you mean HAPAX_BOT_URL?",
            "HAPAX_XYZZY (environment) is unknown and ignored",
        ]
    );
}

#[test]
fn a_bots_env_file_is_read_as_it_is() {
    let scene = Scene::bare().env_file(
        "SECRET_KEY=it has spaces\nAPP_SECRET='s'\nexport VERIFY_TOKEN=v\nWP_ACCESS_TOKEN=t\n\
         HAPAX_HANDLER=echo\n",
    );
    let notes = scene.notes();
    assert!(
        notes.contains("line 1 of ") && notes.contains("is passed over"),
        "{notes}"
    );
    let broken = Scene::new().env_file("HAPAX_LOG=warn, hapax=debug");
    assert_eq!(broken.faulty(), ["log.level"]);
}

#[test]
fn files_that_can_not_be_read_are_the_only_fault_then() {
    let mut scene = Scene::bare();
    scene.sources.file = Some(scene.dir.path().join("none.toml"));
    scene.sources.env_file = Some(scene.dir.path().join("none.env"));
    let faults = scene.faults();
    assert_eq!(faults.iter().count(), 2, "{faults}");
    assert!(faults.to_string().contains("none.toml") && faults.to_string().contains("none.env"));
}

#[test]
fn values_spoilt_on_the_way_are_recognised() {
    let quoted = Scene::new()
        .without("WHATSAPP_ACCESS_TOKEN")
        .env("WHATSAPP_ACCESS_TOKEN", "\"EAAG\"");
    let faults = quoted.faults().to_string();
    assert!(
        faults.contains("without quotes") && !faults.contains("EAAG"),
        "{faults}"
    );
    let bytes = Scene::new().env("HAPAX_STORE", "sqlite:\u{fffd}.db");
    assert_eq!(bytes.faulty(), ["store.url"]);
}

#[test]
fn secrets_are_never_shown() {
    let secret = |key: &&keys::Key| key.shown == Shown::Secret;
    let value = "s3cr3t-value";
    let mut right = Scene::bare()
        .env("HAPAX_HANDLER", "ask")
        .env("HAPAX_BOT_URL", "http://b/?k=s3cr3t-value");
    let mut wrong = Scene::bare().env("HAPAX_STORE", "postgres://s3cr3t-value:s3cr3t-value@h/d");
    for key in KEYS.iter().filter(secret) {
        right = right.env(key.env, value);
        wrong = wrong.env(key.env, &format!("whsec_{value} \u{fffd}"));
    }
    let loaded = right.loaded();
    let shown = render(&loaded.config, &loaded.origins);
    assert_eq!(
        shown.matches("\"***\"").count(),
        KEYS.iter().filter(secret).count(),
        "{shown}"
    );
    let whole = format!("{shown}\n{:?}", loaded.config.whatsapp);
    assert!(!whole.contains(value), "{whole}");

    let faults = wrong.faults();
    assert_eq!(
        faults.iter().count(),
        2 + KEYS.iter().filter(secret).count(),
        "{faults}"
    );
    assert!(!format!("{faults}{faults:?}").contains(value), "{faults}");
}

#[test]
fn a_phone_number_in_the_wrong_place_is_not_repeated() {
    let faults = Scene::new()
        .env("WHATSAPP_PHONE_NUMBER_ID", "+15551234567")
        .faults();
    assert!(!faults.to_string().contains("1555"), "{faults}");
}

#[test]
fn what_is_printed_sets_the_same_again() {
    let scenes = [
        Scene::new()
            .env("HAPAX_TURN_DEADLINE", "90s")
            .env("HAPAX_STORE_WAL_MAX", "64MiB"),
        Scene::new()
            .without("HAPAX_HANDLER")
            .env("HAPAX_BOT_URL", "http://a/,http://b/\u{22}"),
        Scene::new()
            .without("HAPAX_HANDLER")
            .env("HAPAX_BOT_URL", "http://a/,http://b/"),
    ];
    for scene in scenes {
        let Ok(first) = scene.load() else { continue };
        let printed = render(&first.config, &first.origins);
        let second = Scene::bare().file(&printed).loaded();
        let mut config = second.config;
        let secrets = &first.config.whatsapp;
        config.whatsapp.access_token = secrets.access_token.clone();
        config.whatsapp.app_secret = secrets.app_secret.clone();
        config.whatsapp.verify_token = secrets.verify_token.clone();
        assert_eq!(config, first.config, "{printed}");
    }
    let printed = Scene::new().env("HAPAX_TURN_DEADLINE", "90s").loaded();
    let printed = render(&printed.config, &printed.origins);
    assert!(printed.contains("deadline = \"1m 30s\"  # HAPAX_TURN_DEADLINE (environment)"));
    assert!(printed.contains("# phone_number_id is not set"));
    assert!(printed.contains("attempts_max = 4  # default"));
}

// The example file -----------------------------------------------------------------------------

/// The example with every key uncommented.
fn example_with_all_keys() -> String {
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_setting(rest) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn is_setting(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(name, _)| {
        name.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    })
}

/// Every key of the example with its value as plain text.
fn example_values() -> BTreeMap<String, String> {
    let table: toml::Table = toml::from_str(&example_with_all_keys()).expect("TOML");
    let mut values = BTreeMap::new();
    for (section, group) in table {
        for (name, value) in group.as_table().expect("a section") {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string_plain(), str::to_owned);
            values.insert(format!("{section}.{name}"), text);
        }
    }
    values
}

trait PlainText {
    fn to_string_plain(&self) -> String;
}

impl PlainText for toml::Value {
    fn to_string_plain(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Boolean(switch) => switch.to_string(),
            other => other.type_str().to_owned(),
        }
    }
}

#[test]
fn the_example_changes_nothing() {
    let scene = Scene::new().file(EXAMPLE);
    assert_eq!(scene.loaded().config, Scene::new().loaded().config);
}

#[test]
fn the_example_names_every_key_with_its_default() {
    let values = example_values();
    let names: Vec<&str> = values.keys().map(String::as_str).collect();
    let mut expected: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for key in KEYS {
        if let Fallback::Text(default) = key.fallback {
            assert_eq!(values[key.name], default, "{}", key.name);
        }
        let in_comment =
            |line: &str| line.starts_with("# ") && line.contains(&format!("[{}", key.env));
        assert!(
            EXAMPLE.lines().any(in_comment),
            "the example lacks [{}]",
            key.env
        );
    }
}

#[test]
fn every_key_of_the_example_can_be_set() {
    let scene = Scene::bare().file(&example_with_all_keys());
    let Loaded {
        config, origins, ..
    } = scene.loaded();
    for key in KEYS {
        assert!(
            matches!(origins.of(key.name), Origin::File(_)),
            "{}",
            key.name
        );
    }
    assert_eq!(
        config.public.url.as_deref(),
        Some("https://bot.example.org")
    );
    assert_eq!(config.handler.as_str(), "forward");
}

#[test]
fn the_page_names_every_key_and_every_other_name() {
    let page = include_str!("../../docs/configuration.md");
    for key in KEYS {
        let row = format!("| `{}` | `{}` |", key.name, key.env);
        assert!(
            page.contains(&row),
            "docs/configuration.md lacks the row: {row}"
        );
        if let Fallback::Text(default) = key.fallback {
            assert!(
                page.contains(&format!("{row} `{default}`")),
                "another default: {row}"
            );
        }
        for alias in key.aliases {
            assert!(
                page.contains(&format!("`{}`", alias.name)),
                "{}",
                alias.name
            );
        }
    }
}
