//! Where settings are taken from, and where not.

use std::time::Duration;

use super::super::keys::Place;
use super::*;

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
    assert!(notes.contains("it may be the bot's own"), "{notes}");
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
