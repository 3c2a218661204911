//! What is printed and documented: every key, no secret.

use std::collections::BTreeMap;

use super::super::keys::{Fallback, Shown};
use super::*;

#[test]
fn secrets_are_never_shown() {
    let secret = |key: &&keys::Key| key.shown == Shown::Secret;
    let value = "s3cr3t-value";
    let mut right = Scene::bare()
        .env("HAPAX_HANDLER", "ask")
        .env("HAPAX_BOT_URL", "http://b/?k=s3cr3t-value");
    right = right.env("HAPAX_STORE", "postgres://s3cr3t-value:s3cr3t-value@h/d");
    let mut wrong = Scene::bare().env("HAPAX_STORE", "postgres://s3cr3t-value:s3cr3t-value@h:p/d");
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
    assert!(shown.contains("url = \"postgres://h:5432/d\""), "{shown}");
    let (whatsapp, store) = (&loaded.config.whatsapp, &loaded.config.store);
    let whole = format!("{shown}\n{whatsapp:?}\n{store:?}");
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
            .env("HAPAX_STORE_WAL_MAX", "64MiB")
            .env("HAPAX_STORE", "sqlite:a \"quoted\\ path.db"),
        Scene::new()
            .env("HAPAX_STORE", "postgres://h1:1,h2:2/d")
            .env("HAPAX_STORE_POOLER", "transaction")
            .env("HAPAX_STORE_SCHEMA", "other")
            .env("HAPAX_RETENTION_KEYS", "45d"),
        Scene::new()
            .without("HAPAX_HANDLER")
            .env("HAPAX_FORWARD_CONCURRENCY", "1000000")
            .env("HAPAX_BOT_URL", "http://a/,http://b/"),
        Scene::new()
            .env("HAPAX_STORE", "sqlite:////data/hapax.db")
            .env("HAPAX_PUBLIC_URL", "https://b/webhook/webhook"),
        Scene::new().env("HAPAX_STORE", "sqlite:a\u{7f}.db"),
    ];
    for scene in scenes {
        let first = scene.loaded();
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
    assert!(printed.contains("attempts_max = 7  # default"));
}

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
    let page = include_str!("../../../docs/configuration.md");
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
