//! What is forgotten, when, and what never is.

use std::time::Duration;

use super::fixture::{Fixture, TTL, message, notice, phone, receipt};
use super::receipts::failed;
use crate::model::{EventBody, EventKind, FailureClass, NodeId, OutgoingState};
use crate::store::{
    KEPT_LOOK_EVERY, PARKED_AGE_MAX, PruneRequest, Pruned, Renewal, SendResult, StoreError,
    TurnEnd, Verdict,
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const KEYS: Duration = Duration::from_secs(30 * 24 * 3600);
const PAYLOADS: Duration = Duration::from_secs(10 * 24 * 3600);
const SECOND: Duration = Duration::from_secs(1);

const NOTHING: Pruned = Pruned {
    events: 0,
    payloads: 0,
    relays: 0,
    more: false,
};

const fn events(events: u64) -> Pruned {
    Pruned { events, ..NOTHING }
}

const fn payloads(payloads: u64) -> Pruned {
    Pruned {
        payloads,
        ..NOTHING
    }
}

async fn prune_as(f: &Fixture, node: NodeId, limit: u32) -> Result<Option<Pruned>, StoreError> {
    let request = PruneRequest {
        node,
        keys: KEYS,
        payloads: PAYLOADS,
        relays: Duration::MAX,
        limit,
    };
    f.store.prune(request).await
}

async fn prune_some(f: &Fixture, limit: u32) -> Pruned {
    let pruned = prune_as(f, f.node, limit).await.expect("it is answered");
    pruned.expect("the only node has the duty")
}

async fn prune(f: &Fixture) -> Pruned {
    prune_some(f, 1000).await
}

/// How many of each kind go until nothing more is there, and in how many batches.
async fn prune_all(f: &Fixture, limit: u32) -> (Pruned, u32) {
    let mut all = NOTHING;
    for batch in 1..100 {
        let pruned = prune_some(f, limit).await;
        assert!(pruned.events <= u64::from(limit), "{pruned:?}");
        assert!(pruned.payloads <= 2 * u64::from(limit), "{pruned:?}");
        all.events += pruned.events;
        all.payloads += pruned.payloads;
        if !pruned.more {
            return (all, batch);
        }
    }
    panic!("it never ends: {all:?}");
}

/// Somebody writes, and is not answered.
async fn silent_turn(f: &Fixture, sender: &str, wamid: &str) {
    f.append(vec![message(phone(sender), wamid)]).await;
    let turn = f.claim_one().await;
    f.end(&turn, TurnEnd::Silence).await;
}

async fn is_known(f: &Fixture, event: crate::model::Event) -> bool {
    f.append_one(event).await.verdict != Verdict::Accepted
}

pub(in crate::store) async fn a_key_is_kept_for_its_age_and_then_forgotten(f: Fixture) {
    let first = f.append_one(message(phone("1"), "a")).await;
    let (conversation, _) = first.place.expect("a new message has a place");
    let turn = f.claim_one().await;
    f.end(&turn, TurnEnd::Silence).await;
    f.clock.advance(KEYS - SECOND);
    assert_eq!(prune(&f).await.events, 0);
    assert!(is_known(&f, message(phone("1"), "a")).await);
    // That it came again does not make it younger.
    f.clock.advance(SECOND);
    assert_eq!(prune(&f).await, events(1));
    let arrivals = f.store.arrivals(first.key).await.expect("read");
    assert_eq!(arrivals, None);
    let again = f.append_one(message(phone("1"), "a")).await;
    assert_eq!(again.verdict, Verdict::Accepted);
    assert_eq!(again.place, Some((conversation, 2)));
    let arrivals = f.store.arrivals(again.key).await.expect("read");
    let arrivals = arrivals.expect("it has arrived");
    assert_eq!((arrivals.count, arrivals.log.len()), (1, 1));
}

pub(in crate::store) async fn what_is_pending_is_never_pruned(f: Fixture) {
    f.append(vec![message(phone("1"), "a"), message(phone("1"), "b")])
        .await;
    f.clock.advance(KEYS + DAY);
    assert_eq!(prune_all(&f, 10).await.0, NOTHING);
    assert!(is_known(&f, message(phone("1"), "a")).await);
    let turn = f.claim_one().await;
    assert_eq!(turn.messages[0].envelope, "envelope of a");
    assert_eq!(prune(&f).await, NOTHING, "nor what is being handled");
    f.end(&turn, TurnEnd::Silence).await;
    f.clock.advance(KEPT_LOOK_EVERY);
    assert_eq!(prune_all(&f, 10).await.0, events(1), "what has ended goes");
    let turn = f.claim_one().await;
    assert_eq!((turn.id.seq, turn.is_new), (2, false));
    assert_eq!(turn.messages[0].envelope, "envelope of b");
}

pub(in crate::store) async fn what_stays_does_not_stand_in_the_way(f: Fixture) {
    let pending = (0..25).map(|n| message(phone("1"), &n.to_string()));
    f.append(pending.collect()).await;
    f.clock.advance(SECOND);
    f.append((0..5).map(|n| notice(&n.to_string())).collect())
        .await;
    f.clock.advance(PAYLOADS);
    assert_eq!(prune_all(&f, 10).await.0, payloads(5));
    f.clock.advance(KEYS - PAYLOADS);
    assert_eq!(prune_all(&f, 10).await.0, events(5));
    assert_eq!(f.store.backlog().await.expect("read").messages_pending, 25);
}

pub(in crate::store) async fn an_open_dead_letter_keeps_its_message(f: Fixture) {
    f.append(vec![message(phone("1"), "a"), message(phone("1"), "b")])
        .await;
    let turn = f.claim_one().await;
    f.end(&turn, TurnEnd::Dead("it failed".into())).await;
    let turn = f.claim_one().await;
    f.end(&turn, TurnEnd::Silence).await;
    f.clock.advance(PAYLOADS);
    assert_eq!(prune_all(&f, 10).await.0, payloads(1), "of the other one");
    f.clock.advance(KEYS);
    assert_eq!(prune_all(&f, 10).await.0, events(1), "the other one");
    assert_eq!(f.dead_letters().await, 1);
    assert!(is_known(&f, message(phone("1"), "a")).await);
    assert!(!is_known(&f, message(phone("1"), "b")).await);
}

pub(in crate::store) async fn a_closed_dead_letter_lets_go(f: Fixture) {
    f.answered_turn("1", "a", &["one"]).await;
    let sending = f.send_one().await;
    let refused = SendResult::Refused {
        reason: "no".into(),
    };
    assert_eq!(f.settle(&sending, refused).await, OutgoingState::Dead);
    f.clock.advance(KEYS);
    assert_eq!(prune_all(&f, 10).await.0, NOTHING, "nor the refused reply");
    let proof = receipt("w1", "delivered", Some(sending.tag.to_string()));
    assert_eq!(f.append_one(proof.clone()).await.outgoing, Some(sending.id));
    assert_eq!(f.dead_letters().await, 0);
    f.clock.advance(KEPT_LOOK_EVERY);
    assert_eq!(prune_all(&f, 10).await.0, events(1), "the message");
    f.clock.advance(PAYLOADS);
    assert_eq!(prune_all(&f, 10).await.0, payloads(2), "reply and receipt");
    f.clock.advance(KEYS);
    assert_eq!(prune_all(&f, 10).await.0, events(1), "the receipt");
    assert!(!is_known(&f, proof).await);
}

pub(in crate::store) async fn an_unsettled_outgoing_is_kept_and_still_settles(f: Fixture) {
    f.answered_turn("1", "a", &["one", "two"]).await;
    f.clock.advance(KEYS + DAY);
    assert_eq!(prune_all(&f, 10).await.0, events(1), "the message is done");
    let first = f.send_one().await;
    assert_eq!(first.body, "one");
    f.clock.advance(KEYS + DAY);
    assert_eq!(prune_all(&f, 10).await.0, NOTHING, "one is being sent");
    assert_eq!(f.accepted(&first, "w1").await, OutgoingState::Sent);
    assert_eq!(
        prune_all(&f, 10).await.0,
        NOTHING,
        "it was settled just now"
    );
    f.clock.advance(PAYLOADS);
    assert_eq!(prune_all(&f, 10).await.0, payloads(1));
    let second = f.send_one().await;
    assert_eq!(second.body, "two");
    assert_eq!(f.accepted(&second, "w2").await, OutgoingState::Sent);
    assert_eq!(f.store.backlog().await.expect("read").outgoing_open, 0);
}

pub(in crate::store) async fn payloads_go_before_keys(f: Fixture) {
    f.answered_turn("1", "a", &["one"]).await;
    let sending = f.send_one().await;
    f.accepted(&sending, "w1").await;
    let events_seen = || {
        vec![
            message(phone("1"), "a"),
            receipt("w1", "sent", None),
            notice("n"),
        ]
    };
    f.append(events_seen()).await;
    f.clock.advance(PAYLOADS - SECOND);
    assert_eq!(prune(&f).await, NOTHING);
    f.clock.advance(SECOND);
    assert_eq!(prune(&f).await, payloads(4));
    let again = f.append(events_seen()).await;
    let refused = |event: &crate::store::AppendedEvent| event.verdict != Verdict::Accepted;
    assert!(again.events.iter().all(refused), "{again:?}");
    assert_eq!(prune(&f).await, NOTHING, "a duplicate fills nothing again");
    f.clock.advance(KEYS - PAYLOADS);
    assert_eq!(prune(&f).await, events(3));
    let anew = f.append(events_seen()).await;
    assert!(!anew.events.iter().any(refused), "{anew:?}");
    assert_eq!(anew.events[1].outgoing, None, "that outgoing is forgotten");
}

pub(in crate::store) async fn what_is_too_old_is_not_emptied_before_it_goes(f: Fixture) {
    silent_turn(&f, "1", "a").await;
    f.append(vec![notice("n")]).await;
    f.clock.advance(KEYS);
    assert_eq!(prune(&f).await, events(2));
}

pub(in crate::store) async fn a_round_is_bounded(f: Fixture) {
    f.append((0..25).map(|n| notice(&n.to_string())).collect())
        .await;
    let limited = |events, payloads, more| Pruned {
        events,
        payloads,
        relays: 0,
        more,
    };
    f.clock.advance(PAYLOADS);
    assert_eq!(prune_some(&f, 10).await, limited(0, 10, true));
    assert_eq!(prune_some(&f, 10).await, limited(0, 10, true));
    assert_eq!(prune_some(&f, 10).await, limited(0, 5, false));
    f.clock.advance(KEYS - PAYLOADS);
    assert_eq!(prune_some(&f, 10).await, limited(10, 0, true));
    assert_eq!(prune_some(&f, 10).await, limited(10, 0, true));
    assert_eq!(prune_some(&f, 10).await, limited(5, 0, false));
    assert_eq!(prune_all(&f, 10).await, (NOTHING, 1));
}

pub(in crate::store) async fn only_one_node_has_the_duty_and_it_passes_on(f: Fixture) {
    let second = f.store.join(TTL).await.expect("joined");
    assert_eq!(prune_as(&f, f.node, 10).await, Ok(Some(NOTHING)));
    assert_eq!(prune_as(&f, second, 10).await, Ok(None));
    assert_eq!(prune_as(&f, f.node, 10).await, Ok(Some(NOTHING)));
    f.store.leave(f.node).await.expect("left");
    assert_eq!(
        prune_as(&f, f.node, 10).await,
        Err(StoreError::DeadNode(f.node))
    );
    assert_eq!(prune_as(&f, second, 10).await, Ok(Some(NOTHING)));
    let third = f.store.join(TTL).await.expect("joined");
    f.wait(3);
    assert_eq!(f.store.renew(third, TTL).await, Ok(Renewal::Alive));
    f.wait(3);
    assert_eq!(
        prune_as(&f, third, 10).await,
        Ok(None),
        "only who is declared dead has lost it"
    );
    assert_eq!(f.store.reap().await.expect("reaped").len(), 1);
    assert_eq!(prune_as(&f, third, 10).await, Ok(Some(NOTHING)));
}

pub(in crate::store) async fn a_conversation_goes_on_after_its_past_was_pruned(f: Fixture) {
    silent_turn(&f, "1", "a").await;
    silent_turn(&f, "1", "b").await;
    f.clock.advance(KEYS);
    assert_eq!(prune(&f).await, events(2));
    // Somebody else's message comes where the forgotten ones were.
    f.append(vec![message(phone("2"), "x"), message(phone("2"), "y")])
        .await;
    let placed = f
        .append(vec![message(phone("1"), "c"), message(phone("1"), "d")])
        .await;
    let place = |at: usize| placed.events[at].place.expect("placed");
    assert_eq!((place(0).1, place(1).1), (3, 4));
    let mut order = Vec::new();
    for _ in 0..2 {
        for turn in f.claim().await {
            assert_eq!(turn.is_new, turn.id.seq == 1);
            order.push((turn.id.seq, turn.messages[0].envelope.clone()));
            f.end(&turn, TurnEnd::Silence).await;
        }
    }
    order.sort();
    let expected = ["x", "y", "c", "d"].map(|text| format!("envelope of {text}"));
    assert_eq!(order, (1..).zip(expected).collect::<Vec<_>>());
    assert_eq!(f.store.backlog().await.expect("read").messages_pending, 0);
}

pub(in crate::store) async fn parked_receipts_go_after_eight_days(f: Fixture) {
    for (age, dead_letters) in [(PARKED_AGE_MAX - SECOND, 1), (PARKED_AGE_MAX, 1)] {
        let wamid = format!("w after {age:?}");
        f.answered_turn("1", &wamid, &["one"]).await;
        let sending = f.send_one().await;
        let mut early = failed(&sending, &wamid, FailureClass::Refused);
        if let EventBody::Status(receipt) = &mut early.body {
            receipt.callback_data = None;
        }
        f.append_one(early.clone()).await;
        f.clock.advance(age);
        prune_all(&f, 10).await;
        f.accepted(&sending, &wamid).await;
        assert_eq!(f.dead_letters().await, dead_letters, "after {age:?}");
        let again = f.append_one(early).await;
        assert_eq!(again.kind, EventKind::Status);
        assert_ne!(again.verdict, Verdict::Accepted, "its key stays");
    }
}

pub(in crate::store) async fn an_emptied_outgoing_is_not_sent_again(f: Fixture) {
    f.answered_turn("1", "a", &["one"]).await;
    let sending = f.send_one().await;
    f.accepted(&sending, "w1").await;
    f.clock.advance(PAYLOADS);
    assert_eq!(prune(&f).await, payloads(2));
    f.append(vec![failed(&sending, "w1", FailureClass::PairRate)])
        .await;
    f.clock.advance(DAY);
    assert!(f.send().await.is_empty());
    assert_eq!(f.dead_letters().await, 1);
}
