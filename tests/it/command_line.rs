//! What the commands promise to who types them: all faults at once with their names, exit
//! statuses that scripts can build on, and tables and JSON that say what they should.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use hapax::clock::Clock;
use hapax::model::Secret;
use hapax::simulator::bot::{Bot, Proof};
use serde_json::Value;
use tokio::process::Command;

use crate::talk::stored;
use crate::world::{APP_SECRET, TOKEN, VERIFY_TOKEN, World};

const EXIT_SETTINGS: i32 = 2;
/// A rehearsal with a bot that never replies waits for its replies.
const PATIENT: Duration = Duration::from_secs(240);

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self.out
    }
}

async fn ended(mut command: Command) -> Ended {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = Clock::system().timeout(PATIENT, command.output()).await;
    let output = output.expect("it ends in time").expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ended {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// `hapax` in an empty environment.
async fn hapax(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    command.env_clear().current_dir(folder);
    command.args(args).envs(env.iter().copied());
    ended(command).await
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

const SECRETS: [(&str, &str); 3] = [
    ("WHATSAPP_ACCESS_TOKEN", TOKEN),
    ("WHATSAPP_APP_SECRET", APP_SECRET),
    ("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN),
];

#[tokio::test]
async fn all_faults_of_the_settings_are_told_at_once_each_with_its_names() {
    let folder = folder();
    let wrong = [
        ("WHATSAPP_APP_SECRET", APP_SECRET),
        ("HAPAX_HANDLER", "carrier-pigeon"),
        ("HAPAX_STORE", "postgres://someone:hunter2@db:port/hapax"),
        ("HAPAX_TURN_DEADLINE", "60"),
        ("HAPAX_SEND_PER_SECOND", "many"),
    ];
    let expected = [
        ("whatsapp.access_token", "WHATSAPP_ACCESS_TOKEN"),
        ("whatsapp.verify_token", "WHATSAPP_VERIFY_TOKEN"),
        ("handler.kind", "HAPAX_HANDLER"),
        ("store.url", "HAPAX_STORE"),
        ("turn.deadline", "HAPAX_TURN_DEADLINE"),
        ("send.per_second", "HAPAX_SEND_PER_SECOND"),
    ];
    for command in ["config", "serve"] {
        let ended = hapax(folder.path(), &[command], &wrong).await;
        assert_eq!(ended.code, Some(EXIT_SETTINGS), "{command}");
        let err = &ended.err;
        assert!(err.contains("6 faults"), "{command}: {err}");
        for (key, env) in expected {
            let named = format!("\n  {key} ({env})\n");
            assert!(err.contains(&named), "{command}, {key}: {err}");
        }
        for mend in ["found:", "expected:", "mend:"] {
            assert_eq!(err.matches(mend).count(), 6, "{command}: {err}");
        }
        assert!(
            !err.contains("hunter2") && !err.contains(APP_SECRET),
            "{err}"
        );
    }
}

#[tokio::test]
async fn config_shows_what_is_in_force_and_no_secret() {
    let folder = folder();
    let mut env = SECRETS.to_vec();
    env.extend([("HAPAX_HANDLER", "echo"), ("HAPAX_TURN_DEADLINE", "7s")]);
    let out = hapax(folder.path(), &["config"], &env).await.succeeded();
    let shown: toml::Table = out.parse().expect("it is TOML");
    assert_eq!(shown["turn"]["deadline"].as_str(), Some("7s"));
    assert!(out.contains("HAPAX_TURN_DEADLINE"), "where it comes from");
    assert_eq!(shown["whatsapp"]["app_secret"].as_str(), Some("***"));
    for (_, secret) in SECRETS {
        assert!(!out.contains(secret), "{out}");
    }
}

#[tokio::test]
async fn the_default_configuration_is_one_that_can_be_read() {
    let folder = folder();
    let args = ["config", "--default"];
    let out = hapax(folder.path(), &args, &[]).await.succeeded();
    out.parse::<toml::Table>().expect("it is TOML");
    let file = folder.path().join("example.toml");
    std::fs::write(&file, &out).expect("it is written");
    let mut env = SECRETS.to_vec();
    env.push(("HAPAX_HANDLER", "echo"));
    let args = ["config", "--config", "example.toml"];
    let from_file = hapax(folder.path(), &args, &env).await.succeeded();
    let without = hapax(folder.path(), &["config"], &env).await.succeeded();
    let values = |text: &str| text.parse::<toml::Table>().expect("it is TOML");
    assert_eq!(
        values(&from_file),
        values(&without),
        "the example says what holds without it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_told_with_the_name_of_its_setting() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    for (key, env) in [
        ("public.listen", "HAPAX_PUBLIC_LISTEN"),
        ("bot.listen", "HAPAX_BOT_LISTEN"),
        ("admin.listen", "HAPAX_ADMIN_LISTEN"),
    ] {
        let mut command = world.command(&[(env, &address)]);
        command.arg("serve");
        let ended = ended(command).await;
        assert_eq!(ended.code, Some(EXIT_SETTINGS), "{key}");
        for name in [key, env, &address] {
            assert!(ended.err.contains(name), "{key}: {}", ended.err);
        }
        assert!(!world.store().exists(), "nothing was begun");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_twice_is_migrating_once() {
    let world = World::new();
    let mut said = Vec::new();
    for _ in 0..2 {
        let mut command = world.command(&[]);
        command.arg("migrate");
        said.push(ended(command).await.succeeded());
    }
    assert!(said[0].contains("has schema "), "{}", said[0]);
    assert_eq!(said[0], said[1]);
    assert_eq!(stored(&world, "SELECT count(*) FROM ledger"), 1);
    // And a node can use it.
    world.node(&[]).await;
}

/// The rows of the table that a rehearsal ends with.
fn table(out: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let (name, count) = line.strip_prefix("  ")?.rsplit_once("  ")?;
        Some((name.trim().to_owned(), count.trim().parse().ok()?))
    };
    out.lines().filter_map(row).collect()
}

const ROWS: [&str; 7] = [
    "deliveries",
    "duplicates refused",
    "events",
    "messages handled",
    "missing",
    "order violations",
    "replies sent",
];

#[tokio::test]
async fn dev_plays_so_many_messages_and_shows_that_every_promise_was_kept() {
    let folder = folder();
    let args = ["dev", "--messages", "300"];
    let out = hapax(folder.path(), &args, &[]).await.succeeded();
    let table = table(&out);
    assert_eq!(table.keys().collect::<Vec<_>>(), ROWS, "{out}");
    for (row, count) in [
        ("messages handled", 300),
        ("replies sent", 300),
        ("order violations", 0),
        ("missing", 0),
    ] {
        assert_eq!(table[row], count, "{row}: {out}");
    }
    assert!(table["duplicates refused"] > 0, "{out}");
    assert!(table["events"] >= 300, "{out}");
    assert!(out.contains("handled once, in order"), "{out}");
    let left = std::fs::read_dir(folder.path()).expect("readable").count();
    assert_eq!(left, 0, "nothing stays behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_hands_a_bot_of_ones_own_each_message_once() {
    let folder = folder();
    let secret = Secret::new("dev-app-secret");
    let bot = Bot::start(secret, Clock::system()).expect("a bot");
    let args = ["dev", "--messages", "100", "--bot", &bot.url()];
    let out = hapax(folder.path(), &args, &[]).await.succeeded();
    let table = table(&out);
    assert_eq!(table.keys().collect::<Vec<_>>(), ROWS, "{out}");
    assert_eq!(table["messages handled"], 100, "{out}");
    assert_eq!(table["missing"], 0, "{out}");
    assert_eq!(table["order violations"], 0, "{out}");
    let calls = bot.calls();
    assert_eq!(calls.len(), 100);
    let events: HashSet<&str> = calls.iter().map(|c| c.header("x-hapax-event")).collect();
    assert_eq!(events.len(), 100, "each message once");
    assert!(calls.iter().all(|call| call.proof == Proof::Valid));
    assert_eq!(bot.overlaps(), [], "one at a time of one person");
}

#[tokio::test]
async fn bench_ingest_prints_one_json_object() {
    let folder = folder();
    let args = [
        "bench",
        "ingest",
        "--json",
        "--rounds",
        "1",
        "--deliveries",
        "300",
        "--connections",
        "8",
    ];
    let out = hapax(folder.path(), &args, &[]).await.succeeded();
    let figures: Value = serde_json::from_str(&out).expect("one JSON object and nothing else");
    for name in ["ceiling_rps", "durable_rps", "ratio", "p50_ms", "p99_ms"] {
        let figure = figures[name].as_f64();
        assert!(figure.is_some_and(|figure| figure > 0.0), "{name}: {out}");
    }
    assert!(figures["p50_ms"].as_f64() <= figures["p99_ms"].as_f64());
    assert_eq!(figures["deliveries_per_round"], 300);
    assert_eq!(figures["connections"], 8);
}
