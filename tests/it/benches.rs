//! What `hapax bench` promises: figures of each engine that is asked for, in JSON that scripts can
//! read, and nothing left behind in the database.

use std::path::Path;
use std::process::Stdio;

use hapax::clock::Clock;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::provided::{connect, provided};
use crate::world::LIMIT;

/// One at a time uses the database, so that each can say what it left there.
static DATABASE: Mutex<()> = Mutex::const_new(());

const TURNS: [&str; 7] = [
    "turns",
    "--messages",
    "60",
    "--people",
    "7",
    "--rounds",
    "1",
];
const INGEST: [&str; 7] = [
    "ingest",
    "--deliveries",
    "300",
    "--connections",
    "8",
    "--rounds",
    "1",
];

fn bench(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    command.env_clear().current_dir(folder);
    command.arg("bench").args(args).stdin(Stdio::null());
    command.kill_on_drop(true);
    command
}

/// Its one JSON object.
async fn figures(args: &[&str], more: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let args = [args, &["--json"], more].concat();
    let output = bench(folder.path(), &args).output();
    let output = Clock::system().timeout(LIMIT, output).await;
    let output = output.expect("it ends in time").expect("it runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else")
}

#[track_caller]
fn are_positive(figures: &Value, names: &[&str]) {
    for name in names {
        let figure = figures[*name].as_f64();
        assert!(figure.is_some_and(|f| f > 0.0), "{name}: {figures}");
    }
    assert!(figures["p50_ms"].as_f64() <= figures["p99_ms"].as_f64());
}

const OF_TURNS: [&str; 6] = [
    "messages_per_second",
    "p50_ms",
    "p99_ms",
    "processor_us",
    "commits_per_message",
    "mean_batch",
];
const OF_INGEST: [&str; 6] = [
    "durable_rps",
    "ratio",
    "p50_ms",
    "p99_ms",
    "commits",
    "mean_batch",
];

/// Schemas of benches in the database.
async fn left_behind(url: &str) -> Vec<String> {
    let client = connect(url).await.expect("the database answers");
    let named = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'hapax\\_bench\\_%'";
    let rows = client.query(named, &[]).await.expect("it is asked");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn turns_are_measured_on_sqlite() {
    let figures = figures(&TURNS, &[]).await;
    are_positive(&figures["sqlite"], &OF_TURNS);
    assert_eq!(figures["messages_per_round"], 60);
    assert_eq!(figures["people"], 7);
    assert_eq!(figures["rounds"], 1);
    assert!(figures["postgres"].is_null(), "{figures}");
    assert!(figures["postgres_to_sqlite"].is_null(), "{figures}");
}

#[tokio::test]
async fn turns_of_both_engines_stand_side_by_side() {
    let url = provided("TEST_DATABASE_URL");
    let _alone = DATABASE.lock().await;
    let figures = figures(&TURNS, &["--store", &url]).await;
    are_positive(&figures["sqlite"], &OF_TURNS);
    are_positive(&figures["postgres"], &OF_TURNS);
    assert!(figures["postgres_to_sqlite"].as_f64() > Some(0.0));
    assert_eq!(left_behind(&url).await, [""; 0]);
}

#[tokio::test]
async fn deliveries_of_both_engines_stand_side_by_side() {
    let url = provided("TEST_DATABASE_URL");
    let _alone = DATABASE.lock().await;
    let figures = figures(&INGEST, &["--store", &url]).await;
    are_positive(&figures, &OF_INGEST);
    are_positive(&figures["postgres"], &OF_INGEST);
    assert!(figures["postgres_to_sqlite"].as_f64() > Some(0.0));
    assert_eq!(left_behind(&url).await, [""; 0]);
}

#[tokio::test]
async fn an_interrupted_bench_leaves_nothing_behind() {
    let url = provided("TEST_DATABASE_URL");
    let _alone = DATABASE.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let args = ["turns", "--messages", "200000", "--store", &url];
    let mut command = bench(folder.path(), &args);
    let mut child = command.stderr(Stdio::null()).spawn().expect("it runs");
    let clock = Clock::system();
    let began = async {
        while left_behind(&url).await.is_empty() {
            clock.sleep(crate::talk::LOOK).await;
        }
    };
    clock.timeout(LIMIT, began).await.expect("it begins");
    let pid = child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    let interrupt = rustix::process::Signal::INT;
    rustix::process::kill_process(pid.expect("it runs"), interrupt).expect("it is told");
    let ended = clock.timeout(LIMIT, child.wait()).await.expect("in time");
    assert!(
        !ended.expect("its status").success(),
        "it has measured nothing"
    );
    assert_eq!(left_behind(&url).await, [""; 0]);
}

#[tokio::test]
async fn a_store_that_is_no_postgresql_is_refused_and_not_printed() {
    for bench_of in ["turns", "ingest"] {
        for url in ["sqlite:secret.db", "postgres://me:secret@[/hapax"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let output = bench(folder.path(), &[bench_of, "--store", url]).output();
            let output = output.await.expect("it runs");
            let err = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{err}");
            assert!(!err.contains("secret"), "{err}");
        }
    }
}
