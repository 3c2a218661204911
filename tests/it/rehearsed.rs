//! `hapax rehearse` as its reader meets it: real nodes, a plan of faults, a verdict and an exit
//! status; on both engines.

use std::path::Path;
use std::process::Stdio;

use hapax::clock::Clock;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::provided::provided;
use crate::world::LIMIT;

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn rehearse(folder: &Path, args: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    command
        .env_clear()
        .current_dir(folder)
        .arg("rehearse")
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = Clock::system().timeout(LIMIT * 2, command.output()).await;
    let output = output.expect("it ends in time").expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ended {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Few messages, and one fault of each kind that any engine knows.
fn small_plan() -> Value {
    let kinds = [
        "kill",
        "pause",
        "restart",
        "cut-meta",
        "hold-meta",
        "cut-bot",
        "hold-bot",
        "cut-graph",
        "hold-graph",
        "bot-down",
    ];
    let fault = |(index, what): (usize, &str)| {
        let (after, node) = (index * 7, index % 2);
        json!({ "after": after, "what": what, "node": node, "for_ms": 400 })
    };
    let faults: Vec<Value> = kinds.into_iter().enumerate().map(fault).collect();
    json!({ "seed": 5, "messages": 80, "people": 10, "rate": 100.0, "faults": faults })
}

async fn passes(store: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plan = folder.path().join("plan.json");
    std::fs::write(&plan, small_plan().to_string()).expect("it is written");
    let args = [
        "--plan",
        "plan.json",
        "--store",
        store,
        "--json",
        "--report",
        "page.html",
    ];
    let ended = rehearse(folder.path(), &args).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    let verdict: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(verdict["passed"], true);
    assert_eq!(verdict["nodes"], 2);
    let total = |name: &str| verdict["totals"][name].as_u64().expect("a number");
    assert_eq!(total("messages"), 80);
    assert_eq!(total("faults_injected"), 10);
    assert_eq!(total("violations"), 0);
    assert!(total("starts_of_a_node") >= 4, "two, a kill and a restart");
    assert!(total("calls_of_the_bot") >= 80 && total("deliveries") > 100);
    let page = std::fs::read_to_string(folder.path().join("page.html")).expect("a page");
    assert!(page.contains("Every promise was kept.") && page.contains("<svg"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_with_every_kind_of_fault_is_kept_on_sqlite() {
    passes("sqlite").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_with_every_kind_of_fault_is_kept_on_postgres() {
    passes(&provided("TEST_DATABASE_URL")).await;
}

/// Few messages, and what may break around a bot that sends by itself.
fn small_plan_of_a_sending_bot() -> Value {
    let kinds = [
        "kill",
        "restart",
        "cut-meta",
        "cut-bot",
        "cut-graph",
        "hold-graph",
        "kill",
        "bot-down",
    ];
    let fault = |(index, what): (usize, &str)| {
        let (after, node) = (index * 9, index % 2);
        json!({ "after": after, "what": what, "node": node, "for_ms": 300 })
    };
    let faults: Vec<Value> = kinds.into_iter().enumerate().map(fault).collect();
    let manners =
        json!({ "bot_fails": 0.3, "bot_wordy": 0.5, "bot_impatient": 0.2, "meta_refuses": 0.2 });
    json!({
        "seed": 5, "handler": "forward", "messages": 80, "people": 10, "rate": 100.0,
        "manners": manners, "faults": faults,
    })
}

/// A bot whose gateway is killed, that fails half-way and says it in other words each time, is
/// heard once.
async fn a_sending_bot_is_heard_once(store: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plan = folder.path().join("plan.json");
    std::fs::write(&plan, small_plan_of_a_sending_bot().to_string()).expect("it is written");
    let args = ["--plan", "plan.json", "--store", store, "--json"];
    let ended = rehearse(folder.path(), &args).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    let verdict: Value = serde_json::from_str(&ended.out).expect("JSON");
    let total = |name: &str| verdict["totals"][name].as_u64().expect("a number");
    assert_eq!((total("messages"), total("violations")), (80, 0));
    assert!(total("calls_of_the_bot") > 85, "it was tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_sends_by_itself_is_heard_once_on_sqlite() {
    a_sending_bot_is_heard_once("sqlite").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_sends_by_itself_is_heard_once_on_postgres() {
    a_sending_bot_is_heard_once(&provided("TEST_DATABASE_URL")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_leaves_nothing_over() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let args = ["--soak", "2000", "--people", "700", "--json"];
    let ended = rehearse(folder.path(), &args).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    let verdict: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(verdict["messages"], 2000);
    assert_eq!(verdict["replies"], 2000);
    let nothing = json!({ "messages": 0, "sends": 0, "dead_letters": 0 });
    assert_eq!(verdict["left"], nothing);
}

#[tokio::test]
async fn a_plan_that_is_shown_can_be_carried_out_and_a_wrong_one_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let shown = rehearse(folder.path(), &["--show-plan", "--seed", "7"]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    let plan = folder.path().join("plan.json");
    std::fs::write(&plan, &shown.out).expect("it is written");
    let again = rehearse(folder.path(), &["--show-plan", "--plan", "plan.json"]).await;
    assert_eq!(again.out, shown.out, "{}", again.err);

    let wrong = [
        (
            r#"{"seed": 1, "faults": [{"after": 1, "what": "smash", "for_ms": 1}]}"#,
            "smash",
        ),
        (r#"{"seed": 1, "people": 0}"#, "people: expected 1"),
        ("{", "line 1, column 1"),
    ];
    for (text, told) in wrong {
        std::fs::write(&plan, text).expect("it is written");
        let refused = rehearse(folder.path(), &["--plan", "plan.json"]).await;
        assert_eq!(refused.code, Some(2), "{}", refused.out);
        assert!(refused.err.contains(told), "{}", refused.err);
        assert!(refused.err.contains("plan.json"), "{}", refused.err);
    }
    let shown = rehearse(folder.path(), &["--show-plan", "--handler", "forward"]).await;
    assert!(
        shown.out.contains(r#""handler": "forward""#),
        "{}",
        shown.out
    );
    let unknown = rehearse(folder.path(), &["--handler", "guess"]).await;
    assert!(
        unknown.err.contains("expected ask or forward"),
        "{}",
        unknown.err
    );
    let elsewhere = rehearse(folder.path(), &["--store", "mysql://x"]).await;
    assert_eq!(elsewhere.code, Some(2));
    assert!(
        elsewhere
            .err
            .contains("--store: expected sqlite, or postgres://")
    );
    let nodes = rehearse(folder.path(), &["--nodes", "0"]).await;
    assert!(
        nodes.err.contains("--nodes: expected 1 to 8"),
        "{}",
        nodes.err
    );
}
