//! Listing: what the ledger holds is told as it stands, whole, in an order that pages can follow.

use super::fixture::{Fixture, receipt};
use super::receipts::failed;
use crate::model::{FailureClass, OutgoingId, OutgoingState, Rank, Wamid};
use crate::store::{OutgoingRecord, SendResult, Sending};

async fn pages(f: &Fixture, limit: u32) -> Vec<OutgoingRecord> {
    let mut listed: Vec<OutgoingRecord> = Vec::new();
    loop {
        let after = listed.last().map(|last| last.id);
        let page = f.store.outgoings(after, limit).await.expect("listed");
        assert!(page.len() <= limit as usize, "no more than asked for");
        if page.is_empty() {
            return listed;
        }
        listed.extend(page);
    }
}

/// The next reply of somebody new, marked as sending.
async fn sending(f: &Fixture, who: &str) -> Sending {
    f.answered_turn(who, &format!("m{who}"), &["hello"]).await;
    f.send_one().await
}

pub(in crate::store) async fn every_outgoing_is_listed_as_it_stands_and_in_pages(f: Fixture) {
    assert_eq!(f.store.outgoings(None, 10).await, Ok(vec![]));
    let accepted = sending(&f, "1").await;
    f.accepted(&accepted, "w1").await;
    f.append(vec![receipt("w1", "delivered", None)]).await;
    let unsure = sending(&f, "2").await;
    let reason = "timed out".to_owned();
    f.settle(&unsure, SendResult::Unsure { reason }).await;
    let dead = sending(&f, "3").await;
    let reason = "code 131026".to_owned();
    f.settle(&dead, SendResult::Refused { reason }).await;
    let failing = sending(&f, "4").await;
    f.accepted(&failing, "w4").await;
    f.append(vec![receipt("w4", "sent", None)]).await;
    f.append(vec![failed(&failing, "w4", FailureClass::Refused)])
        .await;
    f.answered_turn("1", "again", &["one", "two"]).await;

    let of = |sent: &Sending| (sent.id, sent.conversation, sent.turn, sent.attempt);
    let listed = pages(&f, 100).await;
    let sends = [&accepted, &unsure, &dead, &failing];
    let told: Vec<_> = listed[..4]
        .iter()
        .map(|record| {
            (
                record.id,
                record.conversation,
                record.turn(),
                record.attempt,
            )
        })
        .collect();
    assert_eq!(told, sends.map(of));
    let known = |name: &str| Some(Wamid::from(name));
    let told: Vec<_> = listed
        .iter()
        .map(|record| {
            (
                record.state,
                record.rank,
                record.failed,
                record.wamid.clone(),
            )
        })
        .collect();
    let waiting = (OutgoingState::Pending, Rank::None, None, None);
    let expected = [
        (OutgoingState::Sent, Rank::Delivered, None, known("w1")),
        (OutgoingState::Unsure, Rank::None, None, None),
        (OutgoingState::Dead, Rank::None, None, None),
        (OutgoingState::Dead, Rank::Sent, Some(1), known("w4")),
        waiting.clone(),
        waiting,
    ];
    assert_eq!(told, expected);
    let again = &listed[4];
    assert_eq!((again.seq, again.attempt), (2, 0), "not sent yet");

    for limit in 1..=7 {
        assert_eq!(pages(&f, limit).await, listed, "{limit} a page");
    }
    let last = listed.last().map(|record| record.id);
    assert_eq!(f.store.outgoings(last, 10).await, Ok(vec![]));
    let beyond = Some(OutgoingId(i64::MAX));
    assert_eq!(f.store.outgoings(beyond, 10).await, Ok(vec![]));
    assert_eq!(f.store.outgoings(None, 0).await, Ok(vec![]));
}
