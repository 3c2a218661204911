//! What the settings promise of any text in any place: settings or faults, no secret shown, and
//! what is printed is what was read.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::keys::{Key, Shown};
use super::*;
use crate::model::property;

/// A secret that is found wherever it is shown.
const WORD: &str = "zyxwvuzyxwvu";

/// A right value of a setting, and the places where it hurts.
fn right(key: &Key) -> BoxedStrategy<String> {
    let words = |words: &'static [&'static str]| select(words).prop_map(str::to_owned).boxed();
    let name = key.name.rsplit('.').next().unwrap_or_default();
    let duration = words(&[
        "1ns", "1us", "90s", "5s", "1h 1m", "8d", "45d", "366d", "1month",
    ]);
    match (key.name, name) {
        _ if key.shown == Shown::Secret => words(&["EAAG", "whsec_c2Vj", "a#b", "p\"w"]),
        ("whatsapp.api_url", _) => {
            words(&["http://g:1/a/", "https://v1.example", "https://webhook"])
        }
        ("whatsapp.api_version", _) => words(&["v1.0", "v25.0", "v999.00"]),
        ("whatsapp.phone_number_id", _) => words(&["0", "106540352242922"]),
        ("handler.kind", _) => words(&["echo", "forward", "ask"]),
        ("handler.bot_url", _) => {
            words(&["http://b:5/x", "http://a/,https://b/é", "https://[::1]:7"])
        }
        ("public.url", _) => words(&[
            "https://webhook",
            "https://b/webhook/",
            "https://b/webhook/webhook",
            "https://b/x//",
        ]),
        ("store.url", _) => prop_oneof![
            "sqlite:(//|///|////)?[a/\"\\\\ é\u{7f}\u{1}%#]{1,6}",
            "postgres://h[a-z.]{0,3}:[1-9],%2Ftmp:6/[a-z]{0,3}",
        ]
        .boxed(),
        ("store.schema", _) => words(&["a", "public", "_1"]),
        ("store.pooler", _) => words(&["none", "transaction"]),
        ("store.async_failover", _) => words(&["refuse", "allow"]),
        ("store.connections", _) => words(&["2", "256"]),
        ("log.level", _) => words(&["OFF", "warn,hapax=debug", "[a{b=c}]=trace", "a\u{7f}=info"]),
        ("log.format", _) => words(&["auto", "json", "pretty"]),
        ("log.identifiers", _) => words(&["hidden", "plain"]),
        ("forward.done", _) => words(&["response"]),
        ("turn.policy", _) => words(&["queue"]),
        ("turn.mark_read" | "forward.notices" | "forward.statuses", _) => words(&["true", "false"]),
        (_, "listen") => words(&["127.0.0.1:1", "[::1]:0", "[fe80::1%3]:9", "0.0.0.0:65535"]),
        (_, "body_max" | "body_memory_max" | "wal_max") => prop_oneof![
            words(&[
                "3.2MB",
                "64MiB",
                "1.000001GB",
                "16777216TiB",
                "4GiB",
                "0.5kB"
            ]),
            any::<u64>().prop_map(|bytes| format!("{bytes}B")),
        ]
        .boxed(),
        (_, "concurrency" | "connections_max" | "queue_max") => words(&["1", "64", "1000000"]),
        (_, "attempts_max" | "per_second") => words(&["1", "10000"]),
        _ => duration,
    }
}

/// The name of any setting.
fn any_key() -> impl Strategy<Value = &'static str> {
    select(KEYS.iter().map(|key| key.name).collect::<Vec<_>>())
}

/// Several settings with their right values, by their names in the environment.
fn some_right() -> impl Strategy<Value = Vec<(String, String)>> {
    let knotty = select(vec![
        "store.url",
        "handler.bot_url",
        "forward.concurrency",
        "public.url",
    ]);
    let one = prop_oneof![2 => any_key(), 1 => knotty].prop_flat_map(|name| {
        let key = Key::named(name);
        (Just(key.env.to_owned()), right(key))
    });
    prop::collection::vec(one, 0..7)
}

/// A text that is damaged in some places, but never within the word. Nor are the signs cut that
/// alone tell a password of a URL from its port, and a query from a path.
fn damaged(text: &str, damages: &[(Index, bool, String)]) -> String {
    let mut text = text.to_owned();
    for (at, is_cut, sign) in damages {
        let at = at.index(text.len());
        let is_in_word = text
            .match_indices(WORD)
            .any(|(start, _)| (start..start + WORD.len()).contains(&at));
        if is_in_word || !text.is_char_boundary(at) || text[at..].starts_with(['@', '?']) {
            continue;
        }
        let cut = text[at..].chars().next().filter(|_| *is_cut);
        text.replace_range(at..at + cut.map_or(0, char::len_utf8), sign);
    }
    text
}

fn damages() -> impl Strategy<Value = Vec<(Index, bool, String)>> {
    let sign = prop_oneof![
        4 => "[\"'=\\[\\]#\n\\\\$.,{} ]{0,2}",
        1 => "\"\"\"|'''|\u{feff}|\0|é",
    ];
    prop::collection::vec((any::<Index>(), any::<bool>(), sign), 1..6)
}

/// Every secret, and some plain settings that are wrong.
fn toml_with_secrets() -> String {
    format!(
        "# it's mine\n[whatsapp]\naccess_token = \"{WORD}\"\napp_secret = '{WORD}'\n\
         verify_token = \"\"\"\n{WORD}\"\"\"\napi_version = \"v1\"\n[ask]\nsecret = \"{WORD}\"\n\
         [handler]\nkind = \"ask\"\nbot_url = [\"http://b/?k={WORD}\", 'http://c']\n\
         [store]\nurl = \"postgres://u:{WORD}@h/d?x=y\"\n[turn]\ndeadline = \"5\"\n"
    )
}

fn env_with_secrets() -> String {
    format!(
        "# it's mine\nHAPAX_LOG=\"inf o\"\nWHATSAPP_ACCESS_TOKEN={WORD}\n\
         export WHATSAPP_APP_SECRET=\"{WORD}\"\nHAPAX_TURN_POLICY='none'\n\
         VERIFY_TOKEN='{WORD}' # same\nHAPAX_BOT_URL=http://u:{WORD}@h/\n\
         HAPAX_STORE=\"postgres://u:{WORD}@h:x/d\"\nHAPAX_WORKERS=\"0\"\nHAPAX_ASK_SECRET={WORD}\n"
    )
}

/// All that is ever shown.
fn shown(scene: &Scene) -> String {
    match scene.load() {
        Ok(loaded) => {
            let printed = render(&loaded.config, &loaded.origins);
            let notes = loaded.notes.join("\n");
            format!("{printed}\n{notes}\n{:?}", loaded.config)
        }
        Err(faults) => format!("{faults}\n{faults:?}"),
    }
}

proptest! {
    #![proptest_config(property::cases(128))]

    #[test]
    fn any_text_in_any_place_is_settings_or_faults(
        file in prop_oneof![
            "\\PC{0,60}",
            "([a-z.]{0,8}=[0-9\"'a-z\\[\\]{}]{0,8}\n|\\[[a-z]{0,4}\\]\n){0,6}",
        ],
        env_file in prop_oneof!["\\PC{0,60}", "(([A-Z_]{0,8}=)?[\"'a-zé$ #\\\\]{0,8}\r?\n?){0,6}"],
        set in some_right(),
        value in "\\PC{0,12}",
        key in any_key(),
    ) {
        let name = Key::named(key).env;
        let mut scene = Scene::bare().file(&file).env_file(&env_file).env(name, &value);
        scene.sources.env.extend(set);
        if let Err(faults) = scene.load() {
            prop_assert!(faults.iter().count() > 0);
        }
        let _ = load_store(scene.sources.clone());
    }

    #[test]
    fn no_secret_is_shown(file in damages(), env_file in damages(), is_both in any::<bool>()) {
        let file = damaged(&toml_with_secrets(), &file);
        let env_file = damaged(&env_with_secrets(), &env_file);
        let from_file = Scene::bare().file(&file);
        prop_assert!(!shown(&from_file).contains(WORD), "{}", shown(&from_file));
        let mut scene = Scene::bare().env_file(&env_file);
        if is_both {
            scene = scene.file(&file);
        }
        prop_assert!(!shown(&scene).contains(WORD), "{}\n{}", env_file, shown(&scene));
    }

    #[test]
    fn what_is_printed_is_what_was_read(set in some_right()) {
        let mut scene = Scene::new();
        scene.sources.env.extend(set);
        let Ok(first) = scene.load() else {
            return Ok(());
        };
        let printed = render(&first.config, &first.origins);
        let second = Scene::bare().file(&printed).load();
        prop_assert!(second.is_ok(), "{}\n{:?}", printed, second);
        if let Ok(second) = second {
            prop_assert_eq!(with_secrets(second, &first), first.config, "{}", printed);
        }
    }

    #[test]
    fn a_broken_line_of_ours_is_told_with_its_number(
        before in prop::collection::vec(
            prop_oneof![
                Just(String::new()),
                Just("# HAPAX_LOG=My Bot".to_owned()),
                Just("TITLE=\"My Bot\"".to_owned()),
                Just("WORDS='of two\nlines' # My Bot".to_owned()),
                Just("NAME=My Bot".to_owned()),
                Just("A=é".to_owned()),
            ],
            0..5,
        ),
        key in any_key(),
        ends in select(vec!["\n", "\r\n", "\n\n# more", "\nB=1\n"]),
    ) {
        let lines: String = before.iter().map(|line| format!("{line}\n")).collect();
        let number = lines.lines().count() + 1;
        let scene = Scene::new().env_file(&format!("{lines}{}=My Bot{ends}", Key::named(key).env));
        let faults = scene.load().expect_err("a line that can't be read");
        let place = format!("line {number} of ");
        let found = faults.iter().find(|fault| fault.key == key);
        let found = found.map(|fault| fault.found.as_str()).unwrap_or_default();
        prop_assert!(found.contains(&place), "{}: {}", number, faults);
    }
}

/// What was read again, with the secrets that are never printed.
fn with_secrets(second: Loaded, first: &Loaded) -> Config {
    let mut config = second.config;
    config.whatsapp.access_token = first.config.whatsapp.access_token.clone();
    config.whatsapp.app_secret = first.config.whatsapp.app_secret.clone();
    config.whatsapp.verify_token = first.config.whatsapp.verify_token.clone();
    let previous = |there: &Option<Secret>, secret: &Option<Secret>| {
        there.as_ref().and_then(|_| secret.clone())
    };
    let (ours, theirs) = (&mut config.whatsapp, &first.config.whatsapp);
    ours.app_secret_previous = previous(&ours.app_secret_previous, &theirs.app_secret_previous);
    ours.verify_token_previous =
        previous(&ours.verify_token_previous, &theirs.verify_token_previous);
    config.bot.token = previous(&config.bot.token, &first.config.bot.token);
    config.admin.token = previous(&config.admin.token, &first.config.admin.token);
    config.egress.token = previous(&config.egress.token, &first.config.egress.token);
    if let (HandlerConfig::Ask(ours), HandlerConfig::Ask(theirs)) =
        (&mut config.handler, &first.config.handler)
    {
        ours.secret = theirs.secret.clone();
    }
    // Neither is printed where the ledger is of the other kind.
    match &first.config.store.url {
        StoreUrl::Sqlite(_) => config.store.postgres = first.config.store.postgres.clone(),
        StoreUrl::Postgres(_) => config.store.wal_max = first.config.store.wal_max,
    }
    config
}
