//! A store that is behind says so at once: 503 with the advice to come again, before queues
//! grow. What comes again is taken, and the log tells that the first failure was ours.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hapax::clock::Clock;
use hapax::model::EventKey;
use hapax::simulator::person::Person;
use rusqlite::Connection;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::talk::{Answer, LOOK, Talk, field, figures_until, is_of, key_of, post_raw, received};
use crate::world::{LIMIT, Node, World};

/// Two transactions may wait; and nobody gives up on the store before the test does.
const NARROW: [(&str, &str); 2] = [
    ("HAPAX_STORE_QUEUE_MAX", "2"),
    ("HAPAX_STORE_WAIT_MAX", "120s"),
];
/// More than can be in the writer's hands and in its queue.
const FILLERS: usize = 6;

fn ann() -> Person {
    Person::by_phone("15550001")
}

fn filler(index: usize) -> Person {
    Person::by_phone(&format!("1555001{index}"))
}

/// Somebody else's endless transaction on the same file; ends when dropped.
fn lock(world: &World) -> Connection {
    let conn = Connection::open(world.store()).expect("it opens");
    conn.busy_timeout(LIMIT).expect("a limit");
    conn.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    conn
}

/// Posts until it is answered 200, more patiently than Meta.
async fn insist(talk: Arc<Talk>, clock: Clock, body: Bytes) {
    let taken = async {
        while talk.meta.post(body.clone()).await != Some(200) {
            clock.sleep(LOOK).await;
        }
    };
    let taken = clock.timeout(LIMIT, taken).await;
    taken.expect("what comes again is taken in time");
}

/// Posts `body` while the file is locked and the queue is full of other deliveries, which are
/// taken in the end.
async fn post_while_locked(world: &World, node: &Node, talk: &Arc<Talk>, body: &Bytes) -> Answer {
    let lock = lock(world);
    let mut fillers = JoinSet::new();
    for index in 0..FILLERS {
        let (_, body) = talk.text(&filler(index), "filler");
        fillers.spawn(insist(Arc::clone(talk), world.clock.clone(), body));
    }
    // Of the fillers, all but those that the writer and its queue hold are turned away, again
    // and again; that is when the queue is full and stays so.
    let turned_away = "answer=\"503\"";
    figures_until(world, node, |figures| {
        figures.sum("hapax_deliveries_total", turned_away) >= 4 * FILLERS as u64
    })
    .await;
    let answer = post_raw(&world.clock, node.public, body).await;
    drop(lock);
    fillers.join_all().await;
    let behind = |line: &Value| field(line, "error").contains("the store is behind");
    node.logged(behind).await;
    answer
}

fn assert_come_again(answer: &Answer) {
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("\r\nretry-after: "), "{}", answer.head);
}

async fn nobody_is_forgotten(world: &World, node: &Node) {
    world.settle(node).await;
    assert_eq!(received(world, &ann()), ["hello"], "one reply");
    for index in 0..FILLERS {
        assert_eq!(received(world, &filler(index)), ["filler"], "{index}");
    }
}

fn arrival(line: &Value, key: EventKey, verdict: &str) -> bool {
    is_of(line, key) && field(line, "verdict") == verdict
}

/// Posts a body that is stored already, again and again, until a duplicate's line knows that
/// the arrival before it was answered 200: that is written a moment after the answer. The queue
/// is so narrow that one or another may be answered 503 meanwhile.
async fn duplicate_with_known_answer(
    clock: &Clock,
    to: SocketAddr,
    node: &Node,
    body: &Bytes,
) -> Value {
    let key = key_of(body);
    let found = async {
        loop {
            post_raw(clock, to, body).await;
            let known = |line: &Value| {
                arrival(line, key, "duplicate") && line["arrival.previous_status"] == 200
            };
            if let Some(line) = node.log().into_iter().find(known) {
                return line;
            }
            clock.sleep(LOOK).await;
        }
    };
    clock.timeout(LIMIT, found).await.expect("it is told")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_cannot_be_stored_now_is_taken_when_it_comes_again() {
    let world = World::new();
    let node = world.node(&NARROW).await;
    let talk = Arc::new(Talk::with(&world, &node, 1));
    let (_, body) = talk.text(&ann(), "hello");
    let key = key_of(&body);
    assert_come_again(&post_while_locked(&world, &node, &talk, &body).await);
    let rejected = node.logged(|line| arrival(line, key, "rejected")).await;
    assert_eq!(rejected["http.status"], 503);

    assert_eq!(talk.deliver(&body).await, key);
    let accepted = node.logged(|line| arrival(line, key, "accepted")).await;
    assert_eq!(accepted["arrival.count"], 2, "{accepted}");
    assert_eq!(accepted["arrival.previous_status"], 503, "{accepted}");
    assert_eq!(accepted["cause"], "after_our_failure", "{accepted}");
    assert!(accepted["arrival.gap_ms"].is_u64(), "{accepted}");

    let again = duplicate_with_known_answer(&world.clock, node.public, &node, &body).await;
    assert!(again["arrival.count"].as_u64() >= Some(3), "{again}");
    nobody_is_forgotten(&world, &node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_after_our_own_failure_is_told_as_such() {
    let world = World::new();
    let node = world.node(&NARROW).await;
    let talk = Arc::new(Talk::with(&world, &node, 1));
    let (_, body) = talk.text(&ann(), "hello");
    let key = talk.deliver(&body).await;
    assert_come_again(&post_while_locked(&world, &node, &talk, &body).await);
    talk.deliver(&body).await;
    let line = node.logged(|line| arrival(line, key, "duplicate")).await;
    // So narrow a queue may turn away the redelivery once more.
    assert!(line["arrival.count"].as_u64() >= Some(3), "{line}");
    assert_eq!(line["arrival.previous_status"], 503, "{line}");
    assert_eq!(line["cause"], "after_our_failure", "{line}");
    assert!(line["arrival.gap_ms"].is_u64(), "{line}");
    let figures = node.figures().await;
    let ours = "cause=\"after_our_failure\"";
    assert_eq!(figures.sum("hapax_duplicates_total", ours), 1);
    nobody_is_forgotten(&world, &node).await;
}
