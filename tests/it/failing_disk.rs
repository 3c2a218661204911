//! A disk that is full ends the process before it can say 200 to anything that is not stored;
//! what it had said 200 to is there afterwards. A file of a newer version is left alone.

use std::collections::HashSet;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use hapax::simulator::person::Person;
use rusqlite::Connection;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::talk::{Talk, reporting};
use crate::world::{LIMIT, Node, World};

const EXIT_SETTINGS: i32 = 2;
const EXIT_STORE: i32 = 74;

/// People who write at the same time.
const PEOPLE: usize = 16;
/// Far more than fit.
const MESSAGES_MAX: usize = 20_000;

/// `hapax serve` that can't make any file longer than so many bytes: SQLite meets an I/O error
/// in the middle of a commit, as on a full disk.
fn limited(world: &World, bytes: usize, settings: &[(&str, &str)]) -> Command {
    let free = world.command(settings);
    let free = free.as_std();
    let mut command = Command::new("/bin/sh");
    // The limit counts blocks of 512 bytes; ignoring the signal turns it into an error.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" serve", bytes / 512);
    command
        .arg("-c")
        .arg(script)
        .arg(free.get_program())
        .env_clear()
        .envs(
            free.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(world.folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What was posted until the first failure.
#[derive(Default)]
struct Posted {
    acknowledged: Vec<Bytes>,
    failed: Vec<Bytes>,
}

/// What all writers see.
#[derive(Default)]
struct Seen {
    has_failed: AtomicBool,
    count: AtomicUsize,
}

/// Somebody writes until a delivery fails. Panics when a delivery that began after the first
/// failure of anybody is answered 200.
async fn write_until_it_fails(talk: Talk, person: Person, seen: Arc<Seen>) -> Posted {
    let mut posted = Posted::default();
    while posted.failed.is_empty() {
        let number = seen.count.fetch_add(1, Ordering::SeqCst);
        assert!(number < MESSAGES_MAX, "the limit has no effect");
        let (_, body) = talk.text(&person, &format!("message {number}"));
        let too_late = seen.has_failed.load(Ordering::SeqCst);
        if talk.meta.post(body.clone()).await == Some(200) {
            assert!(!too_late, "nothing is answered 200 after a failed commit");
            posted.acknowledged.push(body);
        } else {
            seen.has_failed.store(true, Ordering::SeqCst);
            posted.failed.push(body);
        }
    }
    // Once more: what failed is not suddenly stored.
    let again = talk.meta.post(posted.failed[0].clone()).await;
    assert_ne!(again, Some(200));
    posted
}

async fn everybody_writes(world: &World, node: &Node) -> Posted {
    let seen = Arc::new(Seen::default());
    let mut writers = JoinSet::new();
    for index in 0..PEOPLE {
        let person = Person::by_phone(&format!("155500{index:02}"));
        let talk = Talk::with(world, node, index as u64);
        writers.spawn(write_until_it_fails(talk, person, Arc::clone(&seen)));
    }
    let all = world.clock.timeout(LIMIT, writers.join_all()).await;
    let mut together = Posted::default();
    for posted in all.expect("the limit is reached in time") {
        together.acknowledged.extend(posted.acknowledged);
        together.failed.extend(posted.failed);
    }
    together
}

/// Brings what a started node must do with `posted`: nothing acknowledged is missing, what was
/// not acknowledged is taken when it comes again, and each message has one reply.
async fn everything_is_handled_once(world: &World, posted: &Posted) {
    let node = world.node(&[("HAPAX_SEND_UNSURE_WAIT", "1s")]).await;
    let _courier = reporting(world, &node);
    let talk = Talk::with(world, &node, 99);
    // The process died between some calls and their answers; Meta's receipts tell.
    for sent in world.graph.accepted() {
        let wamid = sent.wamid.expect("it was accepted");
        assert!(world.graph.report(&wamid, "sent", None).await);
    }
    world.settle(&node).await;
    let known = node.figures().await;
    for body in &posted.acknowledged {
        talk.deliver(body).await;
    }
    let accepted = "kind=\"message\",verdict=\"accepted\"";
    let figures = node.figures().await;
    assert_eq!(
        figures.sum("hapax_events_total", accepted),
        known.sum("hapax_events_total", accepted),
        "nothing that was acknowledged is new"
    );
    for body in &posted.failed {
        talk.deliver(body).await;
    }
    world.settle(&node).await;
    let (replies, messages): (Vec<usize>, usize) = world.history.read(|record| {
        let replies = record.messages.iter().map(|said| said.replies.len());
        (replies.collect(), record.messages.len())
    });
    assert_eq!(messages, posted.acknowledged.len() + posted.failed.len());
    assert!(replies.iter().all(|count| *count <= 1), "no second reply");
    // A call that was never made, and whose process died, is a dead letter, not a guess.
    let without = replies.iter().filter(|count| **count == 0).count();
    let figures = node.figures().await;
    assert_eq!(figures.dead_letters(), without as u64, "nothing is silent");
    assert!(
        without <= PEOPLE,
        "at most one a conversation was under way"
    );
}

async fn full_disk(bytes: usize, settings: &[(&str, &str)]) {
    let world = World::new();
    let mut quiet = vec![("HAPAX_LOG", "error")];
    quiet.extend_from_slice(settings);
    let command = limited(&world, bytes, &quiet);
    let mut node = world.start(command).await.expect("it starts");
    let posted = everybody_writes(&world, &node).await;
    assert_eq!(node.ended().await.code(), Some(EXIT_STORE));
    let log = node.log_text();
    assert!(log.contains("the store has failed"), "it says why:\n{log}");
    assert!(log.contains("SQLite code"), "and with what:\n{log}");
    assert!(posted.acknowledged.len() > PEOPLE, "it worked before");
    let unique: HashSet<&Bytes> = posted.failed.iter().collect();
    assert_eq!(unique.len(), PEOPLE);
    everything_is_handled_once(&world, &posted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_process_and_loses_nothing_acknowledged() {
    full_disk(3 << 20, &[]).await;
}

/// Here the file itself is full, and first a checkpoint fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_a_checkpoint_loses_nothing_either() {
    full_disk(3 << 19, &[("HAPAX_STORE_WAL_MAX", "256kB")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_newer_version_is_refused_and_left_as_it_is() {
    let world = World::new();
    drop(world.node(&[]).await);
    let version = |conn: &Connection| -> i64 {
        conn.query_row("PRAGMA user_version", [], |row| row.get(0))
            .expect("a version")
    };
    let conn = Connection::open(world.store()).expect("it opens");
    let newer = version(&conn) + 1;
    conn.pragma_update(None, "user_version", newer)
        .expect("it is written");
    for subcommand in ["serve", "migrate"] {
        let mut command = world.command(&[]);
        let output = command.arg(subcommand).output();
        let output = world.clock.timeout(LIMIT, output).await;
        let output = output.expect("it ends in time").expect("it runs");
        assert_eq!(output.status.code(), Some(EXIT_SETTINGS), "{subcommand}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("HAPAX_STORE"), "{text}");
        assert!(text.contains(&format!("schema {newer}")), "{text}");
        assert!(text.contains("use a newer hapax"), "{text}");
    }
    assert_eq!(version(&conn), newer);
}
