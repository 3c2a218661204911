//! What is asked and told of deliveries, between ingress and the store.

use std::time::Duration;

use crate::model::{
    Answer, ConversationId, DeliveryId, Event, EventKey, EventKind, OutgoingId, Timestamp,
};

/// One delivery, decoded.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// When its head arrived.
    pub at: Timestamp,
    /// All its events.
    pub events: Vec<Event>,
    /// Earlier arrivals of these events that we could not store and answered with a failure.
    pub failed_before: Vec<FailedArrival>,
}

impl Delivery {
    /// The same as if none of its events had ever come before.
    pub(super) fn with_fresh_keys(&self) -> Self {
        let mut fresh = self.clone();
        for (place, event) in fresh.events.iter_mut().enumerate() {
            let arrival = [self.id.0.to_le_bytes(), (place as u64).to_le_bytes()];
            event.key = EventKey::derive(&[&event.key.0, &arrival[0], &arrival[1]]);
        }
        fresh.failed_before.clear();
        fresh
    }
}

/// An arrival that was answered with a failure, so that nothing of it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedArrival {
    /// The event.
    pub key: EventKey,
    /// When.
    pub at: Timestamp,
    /// What was answered.
    pub answer: Answer,
}

/// What became of a delivery's events, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Appended {
    /// One per event.
    pub events: Vec<AppendedEvent>,
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq)]
pub struct AppendedEvent {
    /// The event.
    pub key: EventKey,
    /// Its kind.
    pub kind: EventKind,
    /// New, or seen before.
    pub verdict: Verdict,
    /// Where a new message was put.
    pub place: Option<(ConversationId, i64)>,
    /// The outgoing a new receipt was merged into.
    pub outgoing: Option<OutgoingId>,
    /// Two contacts claim the aliases of this message; it went to the one of its user id.
    pub collision: bool,
}

/// Whether an event was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was stored now.
    Accepted,
    /// It was stored before.
    Duplicate {
        /// Arrivals so far, this one included.
        count: i64,
        /// Since the arrival before.
        gap: Duration,
        /// What that one was answered, where known.
        previous: Option<Answer>,
        /// Whether that one came in a delivery with another number of events.
        rebatched: bool,
    },
}

/// What a delivery was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// The delivery.
    pub delivery: DeliveryId,
    /// When its head arrived.
    pub at: Timestamp,
    /// How many events it held.
    pub events: usize,
    /// The answer.
    pub answer: Answer,
}

/// The arrivals of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrivals {
    /// How many.
    pub count: i64,
    /// The first.
    pub first_at: Timestamp,
    /// The last.
    pub last_at: Timestamp,
    /// The last of them, oldest first, at most [`ARRIVAL_LOG_MAX`].
    pub log: Vec<ArrivalRecord>,
}

/// How many arrivals of one event are remembered one by one.
pub const ARRIVAL_LOG_MAX: i64 = 32;

/// One remembered arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrivalRecord {
    /// When.
    pub at: Timestamp,
    /// In which delivery.
    pub delivery: Option<DeliveryId>,
    /// What we answered, where known.
    pub answer: Option<Answer>,
}
