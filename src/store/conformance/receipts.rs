//! Receipts: they meet their send whichever comes first, and only ever add knowledge.

use std::time::Duration;

use super::fixture::{Fixture, message, phone, receipt};
use crate::model::{
    Event, EventBody, EventKey, FailureClass, OutgoingState, ReceiptFailure, StoreId, Tag,
};
use crate::store::{SendResult, Sending};

pub(super) fn failed(sending: &Sending, wamid: &str, class: FailureClass) -> Event {
    let mut event = receipt(wamid, "failed", Some(sending.tag.to_string()));
    event.key = EventKey::derive(&[b"failed", wamid.as_bytes()]);
    if let EventBody::Status(receipt) = &mut event.body {
        receipt.failure = Some(ReceiptFailure {
            code: 131_026,
            class,
        });
    }
    event
}

async fn one_unsure(f: &Fixture) -> Sending {
    f.answered_turn("1", "a", &["one", "two"]).await;
    let sending = f.send_one().await;
    let unsure = SendResult::Unsure {
        reason: "timed out".into(),
    };
    assert_eq!(f.settle(&sending, unsure).await, OutgoingState::Unsure);
    sending
}

pub(in crate::store) async fn a_tagged_receipt_settles_a_lost_answer(f: Fixture) {
    let sending = one_unsure(&f).await;
    let sent = receipt("w1", "sent", Some(sending.tag.to_string()));
    assert_eq!(f.append_one(sent).await.outgoing, Some(sending.id));
    assert_eq!(f.send_one().await.body, "two");
    let read = f.append_one(receipt("w1", "read", None)).await;
    assert_eq!(read.outgoing, Some(sending.id), "its wamid is known by now");
}

pub(in crate::store) async fn a_receipt_before_the_answer_is_adopted(f: Fixture) {
    f.answered_turn("1", "a", &["one"]).await;
    let sending = f.send_one().await;
    let early = f.append_one(receipt("w1", "read", None)).await;
    assert_eq!(early.outgoing, None, "nobody knows this wamid yet");
    assert_eq!(f.accepted(&sending, "w1").await, OutgoingState::Sent);
    let late = f.append_one(receipt("w1", "delivered", None)).await;
    assert_eq!(late.outgoing, Some(sending.id));
    // A failure that came before the answer counts as well.
    f.answered_turn("1", "b", &["two"]).await;
    let second = f.send_one().await;
    let mut early_failure = failed(&second, "w2", FailureClass::Refused);
    if let EventBody::Status(receipt) = &mut early_failure.body {
        receipt.callback_data = None;
    }
    f.append_one(early_failure).await;
    f.accepted(&second, "w2").await;
    assert_eq!(f.dead_letters().await, 1);
}

pub(in crate::store) async fn a_failure_that_overtakes_the_answer_stands(f: Fixture) {
    f.answered_turn("1", "a", &["one"]).await;
    let sending = f.send_one().await;
    f.append(vec![failed(&sending, "w1", FailureClass::Refused)])
        .await;
    assert_eq!(f.accepted(&sending, "w1").await, OutgoingState::Dead);
    let sent = receipt("w1", "sent", Some(sending.tag.to_string()));
    f.append(vec![sent]).await;
    assert_eq!(
        f.dead_letters().await,
        1,
        "accepted once, and failed all the same"
    );
    f.append(vec![receipt("w1", "delivered", None)]).await;
    assert_eq!(f.dead_letters().await, 0);
}

pub(in crate::store) async fn a_failure_of_one_participant_is_not_the_groups(f: Fixture) {
    f.answered_turn("1", "a", &["one"]).await;
    let sending = f.send_one().await;
    f.accepted(&sending, "w1").await;
    let mut failure = failed(&sending, "w1", FailureClass::PairRate);
    if let EventBody::Status(receipt) = &mut failure.body {
        receipt.participant = Some("4917".into());
    }
    f.append(vec![failure]).await;
    f.clock.advance(Duration::from_secs(3600));
    f.store
        .renew(f.node, super::fixture::TTL)
        .await
        .expect("renewed");
    assert!(
        f.send().await.is_empty(),
        "those who have it must not get it twice"
    );
    assert_eq!(f.dead_letters().await, 0);
}

pub(in crate::store) async fn a_rate_limit_by_receipt_has_an_end(f: Fixture) {
    f.answered_turn("1", "a", &["one"]).await;
    for attempt in 1..=6 {
        let sending = f.send_one().await;
        assert_eq!(sending.attempt, attempt);
        let wamid = format!("w{attempt}");
        f.accepted(&sending, &wamid).await;
        f.append(vec![failed(&sending, &wamid, FailureClass::PairRate)])
            .await;
        f.clock.advance(Duration::from_secs(3600));
        f.store
            .renew(f.node, super::fixture::TTL)
            .await
            .expect("renewed");
    }
    assert!(f.send().await.is_empty());
    assert_eq!(f.dead_letters().await, 1);
}

pub(in crate::store) async fn a_receipt_of_another_store_is_not_ours(f: Fixture) {
    let sending = one_unsure(&f).await;
    let foreign = Tag {
        store: StoreId(!f.store.id().0),
        ..sending.tag
    };
    let seen = f
        .append_one(receipt("w1", "sent", Some(foreign.to_string())))
        .await;
    assert_eq!(seen.outgoing, None);
    assert!(f.send().await.is_empty(), "still unsure");
}

pub(in crate::store) async fn a_failed_receipt_makes_a_dead_letter(f: Fixture) {
    f.answered_turn("1", "a", &["one", "two"]).await;
    let first = f.send_one().await;
    f.accepted(&first, "w1").await;
    f.append(vec![failed(&first, "w1", FailureClass::Refused)])
        .await;
    assert_eq!(f.dead_letters().await, 1);
    assert_eq!(f.send_one().await.body, "two");
    // Meta has been seen to deliver what it had called failed.
    f.append(vec![receipt("w1", "delivered", None)]).await;
    assert_eq!(f.dead_letters().await, 0);
}

pub(in crate::store) async fn a_rate_limit_by_receipt_is_tried_again_in_its_place(f: Fixture) {
    f.answered_turn("1", "a", &["one", "two"]).await;
    let first = f.send_one().await;
    f.accepted(&first, "w1").await;
    f.append(vec![failed(&first, "w1", FailureClass::PairRate)])
        .await;
    assert!(
        f.send().await.is_empty(),
        "the next one does not overtake it"
    );
    f.clock.advance(Duration::from_secs(15));
    let again = f.send_one().await;
    assert_eq!((again.id, again.attempt), (first.id, 2));
    f.append(vec![message(phone("2"), "z")]).await;
    // The failure of the first attempt, told again under another key, is old news.
    let mut stale = failed(&first, "w1", FailureClass::PairRate);
    stale.key = EventKey::derive(&[b"stale"]);
    f.append(vec![stale]).await;
    assert_eq!(f.accepted(&again, "w3").await, OutgoingState::Sent);
    assert_eq!(f.send_one().await.body, "two");
}

pub(in crate::store) async fn a_back_off_stands_beside_other_news_of_its_delivery(f: Fixture) {
    f.answered_turn("1", "a", &["one", "two"]).await;
    let first = f.send_one().await;
    f.accepted(&first, "w1").await;
    let second = f.send_one().await;
    let sent = receipt("w2", "sent", Some(second.tag.to_string()));
    f.append(vec![failed(&first, "w1", FailureClass::PairRate), sent])
        .await;
    assert!(f.send().await.is_empty(), "too fast: it waits");
    f.wait(15);
    assert_eq!(f.send_one().await.id, first.id);
}

pub(in crate::store) async fn a_back_off_that_is_void_by_now_holds_back_nothing(f: Fixture) {
    f.answered_turn("1", "a", &["one", "two"]).await;
    let first = f.send_one().await;
    // Nobody knows the wamid yet, until the failure names it: then it has arrived all the same.
    f.append(vec![receipt("w1", "delivered", None)]).await;
    f.append(vec![failed(&first, "w1", FailureClass::PairRate)])
        .await;
    assert_eq!(f.send_one().await.body, "two");
}

pub(in crate::store) async fn a_late_receipt_closes_a_dead_letter(f: Fixture) {
    let sending = one_unsure(&f).await;
    for _ in 0..20 {
        f.wait(1);
        f.store
            .expire_unsure(Duration::from_secs(1), Duration::from_secs(10))
            .await
            .expect("counted");
    }
    assert_eq!(f.dead_letters().await, 1);
    let next = f.send_one().await;
    assert_eq!(next.body, "two");
    f.append(vec![receipt(
        "w1",
        "delivered",
        Some(sending.tag.to_string()),
    )])
    .await;
    assert_eq!(f.dead_letters().await, 0);
    assert_eq!(f.accepted(&next, "w2").await, OutgoingState::Sent);
}
