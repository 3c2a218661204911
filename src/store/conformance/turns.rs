//! Claim, finish, release: order, exclusivity, and the fence.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Fixture, message, phone};
use crate::store::{DeadKind, TurnEnd, WaitReason, Written};

pub(in crate::store) async fn a_turn_takes_one_message_in_order(f: Fixture) {
    f.append(vec![message(phone("1"), "a"), message(phone("1"), "b")])
        .await;
    for (seq, wamid) in [(1, "a"), (2, "b")] {
        let turn = f.claim_one().await;
        assert_eq!(turn.id.seq, seq);
        assert_eq!(turn.is_new, seq == 1);
        assert_eq!(turn.messages.len(), 1);
        assert_eq!(turn.messages[0].envelope, format!("envelope of {wamid}"));
        f.end(&turn, TurnEnd::Silence).await;
    }
    assert!(f.claim().await.is_empty());
}

pub(in crate::store) async fn a_claimed_conversation_is_not_claimed_again(f: Fixture) {
    let events = (0..20)
        .map(|n| message(phone(&n.to_string()), &n.to_string()))
        .collect();
    f.append(events).await;
    let mut seen = HashSet::new();
    for _ in 0..4 {
        for turn in f.claim_as(f.node, 5).await.turns {
            assert!(seen.insert(turn.lease.conversation));
        }
    }
    assert_eq!(seen.len(), 20);
    assert!(f.claim().await.is_empty());
}

pub(in crate::store) async fn every_claim_raises_the_epoch_and_counts_the_attempt(f: Fixture) {
    f.append(vec![message(phone("1"), "a"), message(phone("1"), "b")])
        .await;
    let mut epoch = 0;
    for attempt in 1..=3 {
        let turn = f.claim_one().await;
        assert!(turn.lease.epoch > epoch);
        assert_eq!(turn.attempt, attempt);
        epoch = turn.lease.epoch;
        f.release(&turn, Duration::ZERO, true, false).await;
    }
    let turn = f.claim_one().await;
    f.end(&turn, TurnEnd::Silence).await;
    let next = f.claim_one().await;
    assert_eq!(next.attempt, 1, "a new turn counts anew");
    assert!(
        next.lease.epoch > turn.lease.epoch,
        "the epoch is never set back"
    );
}

pub(in crate::store) async fn a_turn_keeps_its_messages_over_attempts(f: Fixture) {
    f.append(vec![message(phone("1"), "a")]).await;
    let first = f.claim_one().await;
    f.append(vec![message(phone("1"), "b")]).await;
    f.release(&first, Duration::ZERO, true, false).await;
    let second = f.claim_one().await;
    assert_eq!(second.id, first.id);
    let seqs = |turn: &crate::store::ClaimedTurn| -> Vec<i64> {
        turn.messages.iter().map(|message| message.seq).collect()
    };
    assert_eq!(seqs(&second), seqs(&first));
    assert_eq!(second.last_error.as_deref(), Some("it broke"));
}

pub(in crate::store) async fn a_late_finish_is_fenced(f: Fixture) {
    f.append(vec![message(phone("1"), "a")]).await;
    let slow = f.claim_one().await;
    f.release(&slow, Duration::ZERO, true, false).await;
    let quick = f.claim_one().await;
    assert_eq!(f.reply(&slow, &["slow"]).await, Written::Fenced);
    assert_eq!(
        f.release(&slow, Duration::ZERO, true, false).await,
        Written::Fenced
    );
    assert_eq!(f.reply(&quick, &["quick"]).await, Written::Done);
    assert_eq!(f.reply(&slow, &["slow"]).await, Written::Fenced);
    let sends = f.send().await;
    assert_eq!(sends.len(), 1);
    assert_eq!(sends[0].body, "quick");
}

pub(in crate::store) async fn a_finish_twice_is_done_once(f: Fixture) {
    f.append(vec![message(phone("1"), "a")]).await;
    let turn = f.claim_one().await;
    assert_eq!(f.reply(&turn, &["hello"]).await, Written::Done);
    assert_eq!(
        f.reply(&turn, &["hello"]).await,
        Written::Done,
        "its answer may have been lost"
    );
    assert_eq!(f.store.backlog().await.expect("read").outgoing_open, 1);
}

pub(in crate::store) async fn finishing_makes_the_next_message_due(f: Fixture) {
    f.append(vec![message(phone("1"), "a"), message(phone("1"), "b")])
        .await;
    let turn = f.claim_one().await;
    let mut changed = f.store.turns_changed();
    changed.mark_unchanged();
    f.end(&turn, TurnEnd::Silence).await;
    assert!(
        changed.has_changed().expect("the store lives"),
        "who waits is woken"
    );
    assert_eq!(f.claim_one().await.id.seq, 2);
}

pub(in crate::store) async fn a_message_that_comes_during_a_turn_waits_for_it(f: Fixture) {
    f.append(vec![message(phone("1"), "a")]).await;
    let turn = f.claim_one().await;
    f.append(vec![message(phone("1"), "b")]).await;
    assert!(f.claim().await.is_empty());
    let oldest = f
        .store
        .backlog()
        .await
        .expect("read")
        .oldest
        .expect("something waits");
    assert_eq!(oldest.reason, WaitReason::Turn);
    f.end(&turn, TurnEnd::Silence).await;
    assert_eq!(f.claim_one().await.id.seq, 2);
}

pub(in crate::store) async fn a_release_waits_and_may_give_the_attempt_back(f: Fixture) {
    f.append(vec![message(phone("1"), "a")]).await;
    let turn = f.claim_one().await;
    assert_eq!(
        f.release(&turn, Duration::from_secs(10), false, false)
            .await,
        Written::Done
    );
    let early = f.claim_as(f.node, 1).await;
    assert!(early.turns.is_empty());
    assert_eq!(early.next_due, Some(Duration::from_secs(10)));
    f.append(vec![message(phone("1"), "b")]).await;
    assert!(
        f.claim().await.is_empty(),
        "a new message does not end the wait"
    );
    let oldest = f
        .store
        .backlog()
        .await
        .expect("read")
        .oldest
        .expect("something waits");
    assert_eq!(oldest.reason, WaitReason::Retry);
    f.wait(10);
    let again = f.claim_one().await;
    assert_eq!((again.attempt, again.id.seq), (1, 1));
}

pub(in crate::store) async fn an_outage_is_remembered_until_the_turn_ends(f: Fixture) {
    f.append(vec![message(phone("1"), "a"), message(phone("1"), "b")])
        .await;
    for _ in 0..3 {
        let turn = f.claim_one().await;
        f.release(&turn, Duration::ZERO, false, true).await;
        f.wait(7);
    }
    let turn = f.claim_one().await;
    assert_eq!(turn.unavailable_for, Some(Duration::from_secs(21)));
    f.end(&turn, TurnEnd::Silence).await;
    assert_eq!(f.claim_one().await.unavailable_for, None);
}

pub(in crate::store) async fn a_dead_turn_is_kept_and_the_next_goes_on(f: Fixture) {
    f.append(vec![message(phone("1"), "a"), message(phone("1"), "b")])
        .await;
    let turn = f.claim_one().await;
    f.end(&turn, TurnEnd::Dead("it failed".into())).await;
    let dead = f.store.dead_letters(10).await.expect("listed");
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].kind, dead[0].seq, dead[0].attempts),
        (DeadKind::Turn, 1, 1)
    );
    assert_eq!(dead[0].reason, "it failed");
    assert_eq!(f.claim_one().await.id.seq, 2);
}

pub(in crate::store) async fn a_claim_whose_answer_was_lost_is_freed(f: Fixture) {
    f.append(vec![message(phone("1"), "a"), message(phone("2"), "b")])
        .await;
    let turns = f.claim().await;
    let known = turns[0].lease;
    let keep: crate::store::Keep = Arc::new(move |_, lease| lease == known);
    let freed = f.store.free_unknown(f.node, keep).await.expect("answered");
    assert_eq!(freed, vec![turns[1].lease]);
    let again = f.claim_one().await;
    assert_eq!(again.lease.conversation, turns[1].lease.conversation);
    assert_eq!(again.attempt, 1, "a claim that nobody saw is no attempt");
    assert_eq!(f.reply(&turns[0], &["hello"]).await, Written::Done);
}

pub(in crate::store) async fn a_full_conversation_costs_its_neighbours_nothing(f: Fixture) {
    let full = (0..500)
        .map(|n| message(phone("1"), &format!("full {n}")))
        .collect();
    f.append(full).await;
    f.wait(1);
    f.append(
        (2..12)
            .map(|n| message(phone(&n.to_string()), &n.to_string()))
            .collect(),
    )
    .await;
    let turns = f.claim_as(f.node, 11).await.turns;
    assert_eq!(turns.len(), 11, "one turn of each, not eleven of the first");
}
