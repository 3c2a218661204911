//! Sending: in order, marked before the call, and never twice without proof.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Fixture, TTL, message, message_to, number, phone, receipt};
use crate::model::{NodeId, NumberId, OutgoingId, OutgoingState};
use crate::store::{DeadKind, SendResult, Sending};

fn retry(seconds: u64) -> SendResult {
    SendResult::Retry {
        after: Duration::from_secs(seconds),
        reason: "too fast".into(),
    }
}

fn unsure() -> SendResult {
    SendResult::Unsure {
        reason: "timed out".into(),
    }
}

pub(in crate::store) async fn replies_go_one_by_one_in_order(f: Fixture) {
    f.answered_turn("1", "a", &["one", "two"]).await;
    f.answered_turn("1", "b", &["three"]).await;
    f.answered_turn("2", "c", &["other"]).await;
    let first = f.send().await;
    let mut bodies: Vec<&str> = first.iter().map(|sending| sending.body.as_str()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, ["one", "other"], "one of each conversation");
    assert!(f.send().await.is_empty());
    let one = first
        .into_iter()
        .find(|sending| sending.body == "one")
        .expect("sent");
    assert_eq!(f.accepted(&one, "w1").await, OutgoingState::Sent);
    for (text, wamid) in [("two", "w2"), ("three", "w3")] {
        let next = f.send_one().await;
        assert_eq!(next.body, text);
        f.accepted(&next, wamid).await;
    }
    assert!(f.send().await.is_empty());
}

pub(in crate::store) async fn a_retry_keeps_its_place_and_its_time(f: Fixture) {
    f.answered_turn("1", "a", &["one", "two"]).await;
    let first = f.send_one().await;
    assert_eq!(f.settle(&first, retry(16)).await, OutgoingState::Pending);
    let waiting = f.send_with(Vec::new()).await;
    assert!(waiting.outgoings.is_empty());
    assert_eq!(waiting.next_due, Some(Duration::from_secs(16)));
    f.wait(16);
    let again = f.send_one().await;
    assert_eq!(
        (again.id, again.attempt, again.body.as_str()),
        (first.id, 2, "one")
    );
}

pub(in crate::store) async fn a_number_with_a_backlog_keeps_nobody_else_waiting(f: Fixture) {
    f.answered_turn("1", "a", &["of the first"]).await;
    f.wait(1);
    f.append(vec![message_to(&NumberId::from("200"), phone("9"), "b")])
        .await;
    let turn = f.claim_one().await;
    f.reply(&turn, &["of the other"]).await;
    f.wait(1);
    for person in ["2", "3", "4"] {
        f.answered_turn(person, person, &["later"]).await;
    }
    let sends = f.send_at_most(2).await;
    let bodies: Vec<&str> = sends.iter().map(|sending| sending.body.as_str()).collect();
    assert_eq!(bodies, ["of the first", "of the other"], "the oldest first");
}

pub(in crate::store) async fn a_paused_number_waits_and_others_go_on(f: Fixture) {
    f.answered_turn("1", "a", &["one"]).await;
    f.answered_turn("2", "b", &["two"]).await;
    let other = NumberId::from("200");
    let mut sends = f.send().await;
    let wait = Duration::from_secs(60);
    let pause = SendResult::PauseNumber {
        wait,
        reason: "token".into(),
    };
    f.settle(&sends.remove(0), pause.clone()).await;
    f.settle(&sends.remove(0), pause).await;
    f.append(vec![message_to(&other, phone("1"), "c")]).await;
    let turn = f.claim_one().await;
    f.reply(&turn, &["three"]).await;
    assert_eq!(f.send_one().await.number, other);
    assert_eq!(f.send_with(Vec::new()).await.next_due, Some(wait));
    assert_eq!(f.store.backlog().await.expect("read").numbers_paused, 1);
    f.wait(60);
    assert_eq!(f.send().await.len(), 2);
}

pub(in crate::store) async fn a_budget_limits_one_number(f: Fixture) {
    for n in 0..5 {
        f.answered_turn(&n.to_string(), &n.to_string(), &["hello"])
            .await;
    }
    assert!(f.send_with(vec![(number(), 0)]).await.outgoings.is_empty());
    assert_eq!(f.send_with(vec![(number(), 3)]).await.outgoings.len(), 3);
    assert_eq!(f.send().await.len(), 2);
}

pub(in crate::store) async fn a_refused_message_is_kept_and_the_next_goes_on(f: Fixture) {
    f.answered_turn("1", "a", &["bad", "good"]).await;
    let bad = f.send_one().await;
    let refused = SendResult::Refused {
        reason: "code 131051".into(),
    };
    assert_eq!(f.settle(&bad, refused).await, OutgoingState::Dead);
    let dead = f.store.dead_letters(10).await.expect("listed");
    assert_eq!(
        (dead[0].kind, dead[0].outgoing),
        (DeadKind::Outgoing, Some(bad.id))
    );
    assert_eq!(f.send_one().await.body, "good");
}

pub(in crate::store) async fn an_unsure_message_holds_back_the_next(f: Fixture) {
    f.answered_turn("1", "a", &["one", "two"]).await;
    let first = f.send_one().await;
    assert_eq!(f.settle(&first, unsure()).await, OutgoingState::Unsure);
    f.wait(3600);
    f.store.renew(f.node, TTL).await.expect("renewed");
    assert!(
        f.send().await.is_empty(),
        "never sent again, and nothing overtakes it"
    );
}

/// How long an unsure outgoing waits in these cases.
const WAIT: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
const HALF: Duration = Duration::from_millis(500);

/// The first of two replies is unsure.
async fn one_unsure(f: &Fixture) -> OutgoingId {
    f.answered_turn("1", "a", &["one", "two"]).await;
    let first = f.send_one().await;
    assert_eq!(f.settle(&first, unsure()).await, OutgoingState::Unsure);
    first.id
}

/// What ends when a node says that it was healthy for so long.
async fn expired(f: &Fixture, healthy: Duration) -> Vec<OutgoingId> {
    let expired = f.store.expire_unsure(healthy, WAIT).await;
    expired.expect("it is answered")
}

pub(in crate::store) async fn an_unsure_message_ends_after_healthy_time_only(f: Fixture) {
    let first = one_unsure(&f).await;
    // Two nodes, and neither can take a receipt.
    for _ in 0..1000 {
        f.wait(1);
        assert!(expired(&f, Duration::ZERO).await.is_empty());
        assert!(expired(&f, Duration::ZERO).await.is_empty());
    }
    // The time before is not made up for.
    for _ in 0..9 {
        f.wait(1);
        assert!(expired(&f, SECOND).await.is_empty());
    }
    f.wait(1);
    assert_eq!(expired(&f, SECOND).await, [first]);
    let dead = f.store.dead_letters(10).await.expect("listed");
    assert_eq!(dead[0].kind, DeadKind::Unsure);
    assert_eq!(f.send_one().await.body, "two");
}

pub(in crate::store) async fn a_node_that_fails_does_not_slow_down_a_healthy_one(f: Fixture) {
    let first = one_unsure(&f).await;
    for second in 1..=10 {
        f.clock.advance(HALF);
        assert!(expired(&f, Duration::ZERO).await.is_empty());
        f.clock.advance(HALF);
        let ends: &[OutgoingId] = if second == 10 { &[first] } else { &[] };
        assert_eq!(expired(&f, SECOND).await, ends, "after {second} s");
    }
}

pub(in crate::store) async fn two_healthy_nodes_do_not_halve_the_wait(f: Fixture) {
    let first = one_unsure(&f).await;
    for _ in 0..9 {
        f.clock.advance(HALF);
        assert!(expired(&f, SECOND).await.is_empty());
        f.clock.advance(HALF);
        assert!(expired(&f, SECOND).await.is_empty());
        // At the very same moment, and with more than can be true.
        assert!(expired(&f, SECOND).await.is_empty());
        assert!(expired(&f, WAIT * 9).await.is_empty());
    }
    f.clock.advance(HALF);
    assert!(expired(&f, SECOND).await.is_empty());
    f.clock.advance(HALF);
    assert_eq!(expired(&f, SECOND).await, [first]);
}

pub(in crate::store) async fn a_long_silence_counts_no_more_than_is_said(f: Fixture) {
    let first = one_unsure(&f).await;
    // Nobody looked for an hour; then one says what is sure.
    f.wait(3600);
    assert!(expired(&f, SECOND * 2).await.is_empty());
    f.wait(7);
    assert!(expired(&f, SECOND * 7).await.is_empty());
    f.wait(1);
    assert_eq!(expired(&f, SECOND).await, [first]);
}

pub(in crate::store) async fn a_late_answer_settles_an_unsure_message(f: Fixture) {
    f.answered_turn("1", "a", &["one"]).await;
    let first = f.send_one().await;
    f.settle(&first, unsure()).await;
    assert_eq!(f.accepted(&first, "w1").await, OutgoingState::Sent);
    f.answered_turn("1", "b", &["two"]).await;
    let second = f.send_one().await;
    f.settle(&second, unsure()).await;
    assert_eq!(
        f.settle(&second, retry(0)).await,
        OutgoingState::Pending,
        "a sure no"
    );
    assert_eq!(f.send_one().await.attempt, 2);
    assert_eq!(
        f.settle(&second, unsure()).await,
        OutgoingState::Sending,
        "an old attempt"
    );
}

pub(in crate::store) async fn a_dead_nodes_send_becomes_unsure(f: Fixture) {
    f.append(vec![message(phone("1"), "a")]).await;
    let turn = f.claim_one().await;
    f.reply(&turn, &["one"]).await;
    let first = f.send_one().await;
    f.wait(6);
    let reaped = f.store.reap().await.expect("reaped");
    assert_eq!(reaped[0].unsure, 1);
    assert_eq!(f.store.backlog().await.expect("read").outgoing_unsure, 1);
    assert_eq!(
        f.accepted(&first, "w1").await,
        OutgoingState::Sent,
        "evidence is never refused"
    );
}

/// What becomes unsure when `node` knows of these sends and of no other.
async fn doubted(f: &Fixture, node: NodeId, known: &[&Sending]) -> Vec<OutgoingId> {
    let known: Vec<_> = known.iter().map(|send| (send.id, send.attempt)).collect();
    let keep = move |id, attempt| known.contains(&(id, attempt));
    let doubted = f.store.doubt_unknown(node, Arc::new(keep)).await;
    doubted.expect("it is answered")
}

pub(in crate::store) async fn a_send_whose_answer_was_lost_becomes_unsure(f: Fixture) {
    f.answered_turn("1", "a", &["one", "two"]).await;
    f.answered_turn("2", "b", &["other"]).await;
    let sends = f.send().await;
    let [lost, other] = sends.as_slice() else {
        panic!("one of each conversation");
    };
    assert_eq!(doubted(&f, f.node, &[other]).await, [lost.id]);
    assert_eq!(f.store.backlog().await.expect("read").outgoing_unsure, 1);
    assert!(f.send().await.is_empty(), "it is not sent again");
    assert!(doubted(&f, f.node, &[other]).await.is_empty(), "only once");
    let wamid = format!("w{}", lost.id.0);
    let sent = receipt(&wamid, "sent", Some(lost.tag.to_string()));
    assert_eq!(f.append_one(sent).await.outgoing, Some(lost.id));
    assert_eq!(f.accepted(other, "w").await, OutgoingState::Sent);
    f.answered_turn("1", "c", &["three"]).await;
    f.answered_turn("2", "d", &["three"]).await;
    let next = f.send().await;
    assert_eq!(next.len(), 2, "its conversation goes on");
    // Of this one nobody hears again: its wait has an end.
    let lost = &next[0];
    assert_eq!(doubted(&f, f.node, &[&next[1]]).await, [lost.id]);
    let wait = Duration::from_secs(2);
    f.wait(2);
    assert_eq!(f.store.expire_unsure(wait, wait).await, Ok(vec![lost.id]));
}

pub(in crate::store) async fn a_send_that_is_known_is_not_doubted(f: Fixture) {
    f.answered_turn("1", "a", &["one", "two"]).await;
    let first = f.send_one().await;
    assert!(doubted(&f, f.node, &[&first]).await.is_empty());
    let other = f.store.join(TTL).await.expect("joined");
    let of_another = doubted(&f, other, &[]).await;
    assert!(of_another.is_empty(), "what another node sends is its own");
    assert_eq!(f.store.backlog().await.expect("read").outgoing_unsure, 0);
    assert_eq!(f.accepted(&first, "w1").await, OutgoingState::Sent);
    assert!(
        doubted(&f, f.node, &[]).await.is_empty(),
        "what is settled is not in question, and what waits is not being sent"
    );
    assert_eq!(f.send_one().await.body, "two");
}

pub(in crate::store) async fn another_attempt_than_the_known_one_is_doubted(f: Fixture) {
    f.answered_turn("1", "a", &["one"]).await;
    let first = f.send_one().await;
    f.settle(&first, retry(0)).await;
    let second = f.send_one().await;
    assert!(doubted(&f, f.node, &[&second]).await.is_empty());
    assert_eq!(doubted(&f, f.node, &[&first]).await, [second.id]);
    assert_eq!(
        f.settle(&first, retry(0)).await,
        OutgoingState::Unsure,
        "an answer to the older attempt opens nothing"
    );
    assert_eq!(f.settle(&second, retry(0)).await, OutgoingState::Pending);
    assert_eq!(f.send_one().await.attempt, 3);
}
