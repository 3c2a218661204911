//! `hapax try` starts what it is given, counts what comes of it in two columns, says what is wrong
//! when it can't, and leaves no process behind.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use hapax::clock::Clock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

const EXIT_SETTINGS: i32 = 2;
const LIMIT: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(20);

/// `hapax try` with its temporary files in `folder`.
fn start(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_hapax"))
        .arg("try")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("TMPDIR", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("hapax starts")
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn ended(child: Child) -> Ended {
    let clock = Clock::system();
    let output = clock.timeout(LIMIT, child.wait_with_output()).await;
    let output = output.expect("it ends in time").expect("it ran");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ended {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// What the bot has written so far in its first column, once there is a line.
async fn said(folder: &Path) -> String {
    let read = || {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let mut logs = entries
            .flatten()
            .map(|entry| entry.path().join("alone.log"));
        logs.find_map(|log| std::fs::read_to_string(log).ok())
            .filter(|text| text.contains('\n'))
    };
    let wait = async {
        loop {
            if let Some(text) = read() {
                return text;
            }
            Clock::system().sleep(LOOK).await;
        }
    };
    Clock::system()
        .timeout(LIMIT, wait)
        .await
        .expect("it says something")
}

#[tokio::test]
async fn a_bot_that_ends_is_told_with_its_last_words() {
    let folder = folder();
    let script = "echo no module named flask >&2; exit 3";
    let ended = ended(start(folder.path(), &["--", "sh", "-c", script])).await;
    assert_eq!(ended.code, Some(EXIT_SETTINGS), "{}", ended.out);
    for part in [
        "the bot has ended (exit status: 3)",
        "no module named flask",
        "alone.log",
    ] {
        assert!(ended.err.contains(part), "{part}: {}", ended.err);
    }
}

#[tokio::test]
async fn what_is_no_command_or_no_number_is_wrong_use() {
    let folder = folder();
    for arguments in [
        &["--messages", "10"][..],
        &["--messages", "0", "--", "true"],
        &["--copies", "11", "--", "true"],
        &["--", "/nowhere/bot"],
    ] {
        let ended = ended(start(folder.path(), arguments)).await;
        assert_eq!(ended.code, Some(EXIT_SETTINGS), "{arguments:?}");
        assert!(!ended.err.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn an_interrupt_leaves_no_process_behind() {
    let folder = folder();
    let script = "trap '' INT TERM; sleep 1000 & echo $!; wait; wait";
    let child = start(folder.path(), &["--", "sh", "-c", script]);
    let pid = said(folder.path()).await.trim().to_owned();
    let hapax = child.id().and_then(|id| i32::try_from(id).ok());
    let hapax = hapax.and_then(Pid::from_raw).expect("it runs");
    kill_process(hapax, Signal::INT).expect("it is there");
    let ended = ended(child).await;
    assert_eq!(ended.code, Some(EXIT_SETTINGS), "{}", ended.err);
    let gone = async {
        let stat = format!("/proc/{pid}/stat");
        // A zombie only waits to be asked.
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            Clock::system().sleep(LOOK).await;
        }
    };
    let gone = Clock::system().timeout(LIMIT, gone).await;
    gone.expect("what the bot had started is gone");
}

/// Hapax itself is a bot that takes each message once, and works after its 200.
#[tokio::test]
async fn a_bot_that_does_everything_right_is_clean_in_both_columns() {
    let folder = folder();
    let bot = format!(
        "HAPAX_HANDLER=echo HAPAX_STORE=sqlite:$STATE_DIR/bot.db HAPAX_BOT_LISTEN=127.0.0.1:0 \
         HAPAX_ADMIN_LISTEN=127.0.0.1:0 exec {} serve",
        env!("CARGO_BIN_EXE_hapax")
    );
    let arguments = [
        "--json",
        "--seed",
        "7",
        "--messages",
        "30",
        "--people",
        "10",
    ];
    let command = ["--", "sh", "-c", &bot];
    let arguments = [&arguments[..], &command].concat();
    let ended = ended(start(folder.path(), &arguments)).await;
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    let json: Value = serde_json::from_str(&ended.out).expect("JSON");
    for column in ["alone", "behind_hapax"] {
        let counts = &json[column];
        assert_eq!(counts["messages"], 30, "{json}");
        assert_eq!(counts["replies"], 30, "{json}");
        for fault in ["double_answers", "out_of_order", "missing"] {
            assert_eq!(counts[fault], 0, "{fault}: {json}");
        }
        assert!(counts["split_threads"].is_null(), "no AI was asked: {json}");
    }
    assert_eq!(json["alone"]["works_after_answering"], true, "{json}");
    let advice = json["advice"].as_str().expect("advice");
    assert!(advice.contains("HAPAX_FORWARD_DONE=reply"), "{advice}");
}
