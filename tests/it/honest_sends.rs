//! A reply is decided once, and a send whose answer was lost is not sent again: its receipt
//! settles it, or a dead letter says that nobody knows.

use std::time::Duration;

use bytes::Bytes;
use hapax::simulator::Gate;
use hapax::simulator::payload::{Element, StatusOf, single};
use hapax::simulator::person::Person;
use hapax::simulator::script::Behaviour;
use serde_json::Value;

use crate::engines::on_each_engine;
use crate::talk::{Talk, field, figures_until, is_of, received, reporting, stored, wamid_of};
use crate::world::{LIMIT, NUMBER, Node, World};

on_each_engine!(
    a_send_whose_answer_never_comes_is_settled_by_its_receipt,
    a_status_that_comes_before_the_answer_settles_the_send_once,
    a_status_without_our_tag_that_comes_before_the_answer_is_not_lost,
    read_before_delivered_stays_read,
    a_rate_limit_in_http_400_is_retried_in_order_and_once,
    without_any_receipt_it_is_a_dead_letter_that_a_late_receipt_closes,
    a_stranger_at_the_door_does_not_keep_a_send_unsure,
    an_expired_token_pauses_the_number_and_loses_nothing,
    a_refused_reply_is_a_dead_letter_and_the_next_one_passes,
);

const CLOSED_WINDOW: i64 = 131_047;
const PAIR_RATE: i64 = 131_056;
const EXPIRED_TOKEN: i64 = 190;

/// Longer than any answer takes that comes at all, also on a busy machine.
const SHORT: [(&str, &str); 2] = [
    ("HAPAX_SEND_TIMEOUT", "4s"),
    ("HAPAX_SEND_CONNECT_TIMEOUT", "4s"),
];

fn ann() -> Person {
    Person::by_both("15550001", "US.1")
}

fn bob() -> Person {
    Person::by_phone("15550002")
}

async fn until_sent(world: &World, count: usize) {
    let sent = world.graph.wait_until(|sent| sent.len() >= count, LIMIT);
    sent.await.expect("it is sent in time");
}

fn result_is(line: &Value, result: &str) -> bool {
    field(line, "send.result") == result
}

async fn turn_finished(node: &Node, key: hapax::model::EventKey) {
    node.logged(|line| is_of(line, key) && field(line, "message") == "turn finished")
        .await;
}

async fn a_send_whose_answer_never_comes_is_settled_by_its_receipt(world: World) {
    let node = world.node(&SHORT).await;
    let _courier = reporting(&world, &node);
    let talk = Talk::with(&world, &node, 1);
    world.graph.next(Behaviour::AcceptNeverAnswer);
    talk.say(&ann(), "one").await;
    let unsure = node.logged(|line| result_is(line, "unsure")).await;
    let second = talk.say(&ann(), "two").await;
    turn_finished(&node, second).await;
    // Somebody else's reply goes out meanwhile; hers waits behind the one that is unsure.
    talk.say(&bob(), "hello").await;
    until_sent(&world, 2).await;
    let figures = figures_until(&world, &node, |f| f.sum("hapax_outgoing_open", "") == 2).await;
    assert_eq!(figures.sum("hapax_outgoing_unsure", ""), 1);
    assert_eq!(received(&world, &ann()), ["one"], "the next reply waits");

    assert!(
        world
            .graph
            .report(&wamid_of(&world, "one"), "sent", None)
            .await
    );
    until_sent(&world, 3).await;
    world.settle(&node).await;
    assert_eq!(received(&world, &ann()), ["one", "two"]);
    assert_eq!(world.graph.sent().len(), 3, "nothing is sent twice");
    let receipt = node
        .logged(|line| field(line, "event.kind") == "status")
        .await;
    assert_eq!(field(&receipt, "verdict"), "accepted");
    assert_eq!(receipt["outgoing.id"], unsure["outgoing.id"]);
    let figures = node.figures().await;
    assert_eq!(figures.sum("hapax_outgoing_unsure", ""), 0);
    assert_eq!(figures.sum("hapax_sends_total", "result=\"unsure\""), 1);
    assert_eq!(figures.dead_letters(), 0);
}

async fn a_status_that_comes_before_the_answer_settles_the_send_once(world: World) {
    let node = world.node(&[]).await;
    let _courier = reporting(&world, &node);
    let talk = Talk::with(&world, &node, 1);
    world.graph.next(Behaviour::StatusBeforeAnswer);
    talk.say(&ann(), "one").await;
    talk.say(&ann(), "two").await;
    until_sent(&world, 2).await;
    world.settle(&node).await;
    assert_eq!(received(&world, &ann()), ["one", "two"]);
    assert_eq!(world.graph.sent().len(), 2);
    // Settled by the status, both; the answers themselves may come a moment later.
    let answered = |line: &Value| field(line, "message") == "sent";
    node.logged_times(answered, 2).await;
    let figures = node.figures().await;
    assert_eq!(figures.sum("hapax_sends_total", "result=\"accepted\""), 2);
    assert_eq!(figures.sum("hapax_sends_total", ""), 2);
    assert_eq!(figures.dead_letters(), 0);
    let log = node.log();
    let place = |wanted: &dyn Fn(&Value) -> bool| log.iter().position(wanted).expect("logged");
    let status = place(&|line| field(line, "event.kind") == "status");
    // Settled by its status, it does not keep the next one waiting for its own answer.
    let settled = field(&log[status], "outgoing.id");
    assert!(!settled.is_empty(), "the status found its send");
    let answer =
        place(&|line| result_is(line, "accepted") && field(line, "outgoing.id") == settled);
    assert!(status < answer, "the status was first");
    assert_eq!(
        stored(&world, "SELECT rank FROM outgoing ORDER BY id LIMIT 1"),
        1
    );
}

/// A status without our tag has only the wamid, which is unknown until the answer.
async fn a_status_without_our_tag_that_comes_before_the_answer_is_not_lost(world: World) {
    let node = world.node(&[]).await;
    let talk = Talk::with(&world, &node, 1);
    let gate = Gate::closed();
    world.graph.next(Behaviour::Hold(gate.clone()));
    talk.say(&ann(), "one").await;
    until_sent(&world, 1).await;
    let wamid = wamid_of(&world, "one");
    let of = StatusOf {
        wamid: &wamid,
        person: &ann(),
        status: "delivered",
        code: None,
        tag: None,
        participant: None,
    };
    let status = Element::status(NUMBER, &of, world.clock.now());
    let key = talk.deliver(&single(&status)).await;
    let line = node.logged(|line| is_of(line, key)).await;
    assert!(line["outgoing.id"].is_null(), "nobody knows the wamid yet");
    gate.release();
    world.settle(&node).await;
    assert_eq!(stored(&world, "SELECT rank FROM outgoing"), 2);
    assert_eq!(
        stored(
            &world,
            "SELECT count(*) FROM receipt WHERE outgoing IS NULL"
        ),
        0
    );
}

async fn read_before_delivered_stays_read(world: World) {
    let node = world.node(&[]).await;
    let _courier = reporting(&world, &node);
    let talk = Talk::with(&world, &node, 1);
    talk.say(&ann(), "one").await;
    until_sent(&world, 1).await;
    world.settle(&node).await;
    let wamid = wamid_of(&world, "one");
    for status in ["read", "delivered", "sent"] {
        assert!(
            world.graph.report(&wamid, status, None).await,
            "{status} is kept"
        );
        assert_eq!(
            stored(&world, "SELECT rank FROM outgoing"),
            3,
            "after {status}"
        );
    }
    let figures = node.figures().await;
    assert_eq!(
        figures.sum("hapax_events_total", "kind=\"status\",verdict=\"accepted\""),
        3
    );
    assert_eq!(world.graph.sent().len(), 1);
    assert_eq!(figures.dead_letters(), 0);
}

async fn a_rate_limit_in_http_400_is_retried_in_order_and_once(world: World) {
    let node = world.node(&[]).await;
    let talk = Talk::with(&world, &node, 1);
    world.graph.next(Behaviour::Reject {
        http: 400,
        code: PAIR_RATE,
    });
    for text in ["one", "two", "three"] {
        talk.say(&ann(), text).await;
    }
    node.logged(|line| result_is(line, "retry")).await;
    until_sent(&world, 4).await;
    world.settle(&node).await;
    assert_eq!(received(&world, &ann()), ["one", "two", "three"]);
    let sent = world.graph.sent();
    assert_eq!(sent.len(), 4, "one refusal, and each reply once");
    assert!(!sent[0].accepted && sent[0].text() == "one");
    assert_eq!(
        sent[1].text(),
        "one",
        "nothing overtakes what is tried again"
    );
    assert_ne!(sent[0].tag, sent[1].tag, "each attempt has its own tag");
    let figures = node.figures().await;
    assert_eq!(figures.sum("hapax_sends_total", "result=\"retry\""), 1);
    assert_eq!(figures.dead_letters(), 0);
}

async fn without_any_receipt_it_is_a_dead_letter_that_a_late_receipt_closes(world: World) {
    let node = world.node(&[("HAPAX_SEND_UNSURE_WAIT", "1s")]).await;
    let _courier = reporting(&world, &node);
    let talk = Talk::with(&world, &node, 1);
    world.graph.next(Behaviour::AcceptThenReset);
    talk.say(&ann(), "one").await;
    talk.say(&ann(), "two").await;
    let unsure = "kind=\"unsure\"";
    // What is counted here may be newer than what was asked of the ledger just before.
    figures_until(&world, &node, |figures| {
        figures.sum("hapax_dead_letters_total", unsure) == 1 && figures.dead_letters() == 1
    })
    .await;
    until_sent(&world, 2).await;
    world.settle(&node).await;
    assert_eq!(
        received(&world, &ann()),
        ["one", "two"],
        "later replies pass"
    );
    assert!(
        world
            .graph
            .report(&wamid_of(&world, "one"), "delivered", None)
            .await
    );
    figures_until(&world, &node, |figures| figures.dead_letters() == 0).await;
    world.settle(&node).await;
    assert_eq!(world.graph.sent().len(), 2, "nothing is sent again");
}

/// Somebody posts what is not signed by Meta, all the time.
async fn a_stranger_at_the_door_does_not_keep_a_send_unsure(world: World) {
    let node = world.node(&[("HAPAX_SEND_UNSURE_WAIT", "1s")]).await;
    let talk = Talk::with(&world, &node, 1);
    world.graph.next(Behaviour::AcceptThenReset);
    talk.say(&ann(), "one").await;
    let meta = world.meta(&node);
    let knocks = async {
        loop {
            let answer = meta
                .post_signed(Bytes::from_static(b"{}"), "sha256=00")
                .await;
            assert_eq!(answer, Some(401));
            world.clock.sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = figures_until(&world, &node, |figures| figures.dead_letters() == 1);
    tokio::select! {
        () = knocks => {}
        _ = ended => {}
    }
}

async fn an_expired_token_pauses_the_number_and_loses_nothing(world: World) {
    let node = world.node(&[("HAPAX_SEND_PAUSE", "500ms")]).await;
    let talk = Talk::with(&world, &node, 1);
    world.graph.always(Behaviour::Reject {
        http: 401,
        code: EXPIRED_TOKEN,
    });
    talk.say(&ann(), "one").await;
    talk.say(&ann(), "two").await;
    talk.say(&bob(), "hello").await;
    let paused = node.logged(|line| result_is(line, "paused")).await;
    assert_eq!(field(&paused, "level"), "ERROR", "an operator must act");
    figures_until(&world, &node, |f| f.sum("hapax_numbers_paused", "") == 1).await;
    // Tried again, and still refused: nothing of it wears out.
    until_sent(&world, 3).await;
    world.graph.always(Behaviour::Accept);
    world.settle(&node).await;
    assert_eq!(received(&world, &ann()), ["one", "two"]);
    assert_eq!(received(&world, &bob()), ["hello"]);
    assert_eq!(world.graph.accepted().len(), 3);
    let figures = node.figures().await;
    assert_eq!(figures.dead_letters(), 0);
    assert_eq!(figures.sum("hapax_dead_letters_total", ""), 0);
    assert_eq!(figures.sum("hapax_numbers_paused", ""), 0);
}

async fn a_refused_reply_is_a_dead_letter_and_the_next_one_passes(world: World) {
    let node = world.node(&[]).await;
    let talk = Talk::with(&world, &node, 1);
    world.graph.next(Behaviour::Reject {
        http: 400,
        code: CLOSED_WINDOW,
    });
    talk.say(&ann(), "one").await;
    talk.say(&ann(), "two").await;
    until_sent(&world, 2).await;
    world.settle(&node).await;
    assert_eq!(received(&world, &ann()), ["two"]);
    assert_eq!(
        world.graph.sent().len(),
        2,
        "what is refused is not tried again"
    );
    let line = node.logged(|line| result_is(line, "refused")).await;
    assert!(field(&line, "reason").contains("24-hour window"), "{line}");
    let figures = node.figures().await;
    assert_eq!(figures.dead_letters(), 1);
    assert_eq!(
        figures.sum("hapax_dead_letters_total", "kind=\"outgoing\""),
        1
    );
}
