//! The examples are bots as one finds them: alone under a WhatsApp that posts every message several
//! times they answer twice, and behind Hapax, unedited, each message is answered once.
//!
//! Needs what the examples need, which `./test --all` installs.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use hapax::clock::Clock;
use serde_json::Value;
use tokio::process::Command;

use crate::provided::{offered, provided};

const LIMIT: Duration = Duration::from_secs(600);
/// Starts the bot on Flask, as its README says.
const GUNICORN: [&str; 7] = [
    "--",
    "gunicorn",
    "--workers",
    "2",
    "--threads",
    "4",
    "bot:app",
];
/// One at a time: they are measured while they race, not while they starve.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name)
}

/// What `hapax try` finds of an example; a line of its README starts it.
async fn tried(name: &str, arguments: &[&str], mut command: Command) -> Value {
    let readme = std::fs::read_to_string(example(name).join("README.md")).expect("a README");
    let line = format!("hapax try {}", arguments.join(" "));
    assert!(
        readme.contains(&line),
        "examples/{name}/README.md: no {line}"
    );
    let _one = ONE.lock().await;
    command
        .current_dir(example(name))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let clock = Clock::system();
    let output = clock.timeout(LIMIT, command.output()).await;
    let output = output.expect("it ends in time").expect("it runs");
    let err = String::from_utf8_lossy(&output.stderr);
    let json: Value = serde_json::from_slice(&output.stdout).expect(&err);
    let counts = &json["behind_hapax"];
    assert_eq!(counts["messages"], counts["replies"], "{json}");
    for fault in ["double_answers", "out_of_order", "missing"] {
        assert_eq!(counts[fault], 0, "{name}: {fault} behind Hapax: {json}");
    }
    assert_eq!(output.status.code(), Some(0), "{json}");
    assert!(
        json["alone"]["double_answers"].as_u64() > Some(0),
        "{name} alone: {json}"
    );
    json
}

/// `hapax try` with these arguments, quicker and as JSON, with a folder first in the PATH.
fn hapax(arguments: &[&str], first: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    command.args([
        "try",
        "--json",
        "--seed",
        "7",
        "--messages",
        "150",
        "--people",
        "30",
    ]);
    let path = format!("{first}:{}", provided("PATH"));
    command.args(arguments).env("PATH", path);
    command
}

/// The folder of the programs of a Python with all that the examples need.
fn python() -> Option<String> {
    let python = PathBuf::from(offered("TEST_PYTHON")?);
    let folder = python.parent().expect("a program lies in a folder");
    Some(folder.display().to_string())
}

#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn left_out() {
    eprintln!("not run: what the example needs is not there (./test --all provides it)");
}

#[tokio::test]
async fn flask_alone_answers_twice_and_splits_threads_and_behind_hapax_never() {
    let Some(python) = python() else {
        return left_out();
    };
    let json = tried("python-flask", &GUNICORN, hapax(&GUNICORN, &python)).await;
    assert!(json["alone"]["split_threads"].as_u64() > Some(0), "{json}");
    assert_eq!(json["behind_hapax"]["split_threads"], 0, "{json}");
    assert_eq!(json["alone"]["works_after_answering"], false, "{json}");
}

/// Gunicorn's master, then all of it, and so on, by `kill -9`: what `hapax try` finds behind Hapax.
async fn killed(python: &str, arguments: &[&str]) -> Value {
    let _one = ONE.lock().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    command
        .args(["try", "--json", "--seed", "11", "--people", "100"])
        .args(arguments)
        .args(GUNICORN)
        .env("PATH", format!("{python}:{}", provided("PATH")))
        .current_dir(example("python-flask"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = Clock::system().timeout(LIMIT, command.output()).await;
    let output = output.expect("it ends in time").expect("it runs");
    let err = String::from_utf8_lossy(&output.stderr);
    let json: Value = serde_json::from_slice(&output.stdout).expect(&err);
    json["behind_hapax"].clone()
}

#[tokio::test]
async fn flask_killed_again_and_again_answers_each_of_a_thousand_messages_once() {
    let Some(python) = python() else {
        return left_out();
    };
    let arguments = [
        "--messages",
        "1000",
        "--kill-every",
        "2s",
        "--retry-id",
        "fresh",
    ];
    let counts = killed(&python, &arguments).await;
    assert!(counts["kills"].as_u64() >= Some(4), "{counts}");
    assert_eq!(counts["replies"], 1000, "{counts}");
    for fault in ["double_answers", "missing", "out_of_order", "split_threads"] {
        assert_eq!(counts[fault], 0, "{fault}: {counts}");
    }
}

/// It notes ids before it works, and takes the second attempt for a duplicate: what it was killed
/// on has no answer then. Two answers it never has.
#[tokio::test]
async fn flask_killed_under_the_same_ids_may_stay_silent_and_says_nothing_twice() {
    let Some(python) = python() else {
        return left_out();
    };
    let counts = killed(&python, &["--messages", "500", "--kill-every", "700ms"]).await;
    assert!(counts["missing"].as_u64() > Some(0), "{counts}");
    let answered = counts["replies"].as_u64().zip(counts["missing"].as_u64());
    assert_eq!(
        answered.map(|(replies, missing)| replies + missing),
        Some(500),
        "{counts}"
    );
    assert_eq!(counts["double_answers"], 0, "{counts}");
}

#[tokio::test]
async fn fastapi_alone_answers_twice_and_behind_hapax_never() {
    let Some(python) = python() else {
        return left_out();
    };
    let arguments = [
        "--done",
        "reply",
        "--",
        "uvicorn",
        "--workers",
        "2",
        "--port",
        "{port}",
        "bot:app",
    ];
    let json = tried("python-fastapi", &arguments, hapax(&arguments, &python)).await;
    assert_eq!(json["alone"]["works_after_answering"], true, "{json}");
}

#[tokio::test]
async fn express_alone_answers_twice_and_behind_hapax_never() {
    let Some(modules) = offered("TEST_NODE_MODULES") else {
        return left_out();
    };
    let arguments = ["--", "node", "bot.js"];
    let mut command = hapax(&arguments, &modules);
    command.env("NODE_PATH", &modules);
    let json = tried("node-express", &arguments, command).await;
    assert_eq!(json["alone"]["works_after_answering"], false, "{json}");
}
