//! A fresh store with a node in it, and short ways to say what happens to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{
    Aliases, DeliveryId, Event, EventBody, EventKey, InboundMessage, NodeId, Notice, NumberId,
    OutgoingState, Receipt, ReceiptStatus, Timestamp, Wamid,
};
use crate::store::{
    Appended, AppendedEvent, ClaimRequest, ClaimToken, Claimed, ClaimedTurn, Delivery, Finish,
    Policy, Release, SendRequest, SendResult, Sending, Sends, Settle, SharedStore, TurnEnd,
    Written,
};

pub(in crate::store) const TTL: Duration = Duration::from_secs(5);
const START: Timestamp = Timestamp(1_800_000_000_000);

/// What a case works with.
pub(in crate::store) struct Fixture {
    pub(in crate::store) store: SharedStore,
    pub(in crate::store) clock: Clock,
    pub(in crate::store) node: NodeId,
    count: AtomicI64,
    _alive: Box<dyn std::any::Any + Send>,
}

/// Opens a store by `open` and joins a node.
pub(in crate::store) async fn with<F, O, A>(open: O) -> Fixture
where
    O: FnOnce(Clock) -> F,
    F: Future<Output = (SharedStore, A)>,
    A: std::any::Any + Send,
{
    let clock = Clock::manual(START);
    let (store, alive) = open(clock.clone()).await;
    let node = store.join(TTL).await.expect("a node joins");
    Fixture {
        store,
        clock,
        node,
        count: AtomicI64::new(0),
        _alive: Box::new(alive),
    }
}

pub(in crate::store) fn number() -> NumberId {
    NumberId::from("100")
}

pub(in crate::store) fn phone(digits: &str) -> Aliases {
    Aliases {
        phone: Some(digits.into()),
        ..Aliases::default()
    }
}

pub(in crate::store) fn bsuid(id: &str) -> Aliases {
    Aliases {
        bsuid: Some(id.into()),
        ..Aliases::default()
    }
}

pub(in crate::store) fn both(digits: &str, id: &str) -> Aliases {
    Aliases {
        phone: Some(digits.into()),
        bsuid: Some(id.into()),
        ..Aliases::default()
    }
}

/// A message to `number`; its text is its wamid.
pub(in crate::store) fn message_to(number: &NumberId, sender: Aliases, wamid: &str) -> Event {
    Event {
        key: EventKey::derive(&[number.as_str().as_bytes(), b"message", wamid.as_bytes()]),
        number: Some(number.clone()),
        relay: None,
        body: EventBody::Message(InboundMessage {
            wamid: wamid.into(),
            kind: "text".into(),
            sender,
            sent_at: None,
            envelope: format!("envelope of {wamid}"),
        }),
    }
}

pub(in crate::store) fn message(sender: Aliases, wamid: &str) -> Event {
    message_to(&number(), sender, wamid)
}

pub(in crate::store) fn notice(text: &str) -> Event {
    Event {
        key: EventKey::derive(&[b"notice", text.as_bytes()]),
        number: None,
        relay: None,
        body: EventBody::Notice(Notice {
            kind: "account_update".into(),
            raw: text.into(),
        }),
    }
}

pub(in crate::store) fn receipt(wamid: &str, status: &str, tag: Option<String>) -> Event {
    let status = ReceiptStatus::parse(status);
    let number = number();
    let parts = [
        number.as_str().as_bytes(),
        b"status",
        wamid.as_bytes(),
        status.as_str().as_bytes(),
    ];
    Event {
        key: EventKey::derive(&parts),
        number: Some(number.clone()),
        relay: None,
        body: EventBody::Status(Receipt {
            wamid: wamid.into(),
            status,
            participant: None,
            at: None,
            callback_data: tag,
            failure: None,
            raw: "{}".into(),
        }),
    }
}

impl Fixture {
    pub(in crate::store) fn delivery(&self, events: Vec<Event>) -> Delivery {
        Delivery {
            id: DeliveryId::new(self.node, self.count.fetch_add(1, Ordering::Relaxed)),
            at: self.clock.now(),
            events,
            failed_before: Vec::new(),
        }
    }

    pub(in crate::store) async fn append(&self, events: Vec<Event>) -> Appended {
        self.store
            .append(Arc::new(self.delivery(events)))
            .await
            .expect("it is appended")
    }

    pub(in crate::store) async fn append_one(&self, event: Event) -> AppendedEvent {
        self.append(vec![event]).await.events.remove(0)
    }

    pub(in crate::store) async fn claim_as(&self, node: NodeId, limit: u32) -> Claimed {
        let token = ClaimToken(self.count.fetch_add(1, Ordering::Relaxed));
        let claim = ClaimRequest {
            node,
            token,
            limit,
            policy: Policy::Queue,
        };
        self.store
            .claim(claim)
            .await
            .expect("the claim is answered")
    }

    pub(in crate::store) async fn claim(&self) -> Vec<ClaimedTurn> {
        self.claim_as(self.node, 100).await.turns
    }

    pub(in crate::store) async fn claim_one(&self) -> ClaimedTurn {
        let mut turns = self.claim().await;
        assert_eq!(turns.len(), 1, "exactly one turn is due");
        turns.remove(0)
    }

    pub(in crate::store) async fn end(&self, turn: &ClaimedTurn, end: TurnEnd) -> Written {
        let seq_last = turn.messages.last().expect("a turn has messages").seq;
        let finish = Finish {
            seq_last,
            end,
            started_at: self.clock.now(),
        };
        self.store
            .finish(turn.lease, finish)
            .await
            .expect("the finish is answered")
    }

    pub(in crate::store) async fn reply(&self, turn: &ClaimedTurn, texts: &[&str]) -> Written {
        let bodies = texts.iter().map(|text| (*text).to_owned()).collect();
        self.end(turn, TurnEnd::Reply(bodies)).await
    }

    pub(in crate::store) async fn release(
        &self,
        turn: &ClaimedTurn,
        wait: Duration,
        counts: bool,
        unavailable: bool,
    ) -> Written {
        let release = Release {
            wait,
            counts,
            unavailable,
            error: Some("it broke".into()),
        };
        self.store
            .release(turn.lease, release)
            .await
            .expect("the release is answered")
    }

    pub(in crate::store) async fn send_with(&self, budget: Vec<(NumberId, u32)>) -> Sends {
        let request = SendRequest {
            node: self.node,
            limit: 100,
            budget,
        };
        self.store
            .send(request)
            .await
            .expect("the send is answered")
    }

    pub(in crate::store) async fn send_at_most(&self, limit: u32) -> Vec<Sending> {
        let request = SendRequest {
            node: self.node,
            limit,
            budget: Vec::new(),
        };
        let sends = self.store.send(request).await;
        sends.expect("the send is answered").outgoings
    }

    pub(in crate::store) async fn send(&self) -> Vec<Sending> {
        self.send_with(Vec::new()).await.outgoings
    }

    pub(in crate::store) async fn send_one(&self) -> Sending {
        let mut sends = self.send().await;
        assert_eq!(sends.len(), 1, "exactly one outgoing is due");
        sends.remove(0)
    }

    pub(in crate::store) async fn settle(
        &self,
        sending: &Sending,
        result: SendResult,
    ) -> OutgoingState {
        let settle = Settle {
            id: sending.id,
            attempt: sending.attempt,
            result,
            answer: None,
        };
        self.store
            .settle(settle)
            .await
            .expect("the settlement is answered")
    }

    pub(in crate::store) async fn accepted(&self, sending: &Sending, wamid: &str) -> OutgoingState {
        self.settle(sending, SendResult::Accepted(Wamid::from(wamid)))
            .await
    }

    /// Somebody writes, and the turn answers with `texts`.
    pub(in crate::store) async fn answered_turn(&self, sender: &str, wamid: &str, texts: &[&str]) {
        self.append(vec![message(phone(sender), wamid)]).await;
        let turn = self.claim_one().await;
        assert_eq!(self.reply(&turn, texts).await, Written::Done);
    }

    pub(in crate::store) async fn dead_letters(&self) -> usize {
        self.store
            .dead_letters(100)
            .await
            .expect("they are listed")
            .len()
    }

    pub(in crate::store) fn store(&self) -> SharedStore {
        Arc::clone(&self.store)
    }

    pub(in crate::store) fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}
