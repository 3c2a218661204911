//! Deliveries that could not be stored: remembered in memory, so that their redelivery can be
//! told from one that Meta makes for no reason of ours.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::model::{Answer, Event, EventKey, Timestamp};
use crate::store::{Delivery, FailedArrival};

/// Events remembered at most; the oldest are forgotten first.
const EVENTS_MAX: usize = 16_384;

#[derive(Default)]
pub(super) struct Failures(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    last: HashMap<EventKey, (Timestamp, Answer)>,
    order: VecDeque<EventKey>,
}

impl Failures {
    pub(super) fn remember(&self, delivery: &Delivery, answer: Answer) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &delivery.events {
            if remembered
                .last
                .insert(event.key, (delivery.at, answer))
                .is_none()
            {
                remembered.order.push_back(event.key);
            }
        }
        while remembered.order.len() > EVENTS_MAX {
            if let Some(oldest) = remembered.order.pop_front() {
                remembered.last.remove(&oldest);
            }
        }
    }

    /// Takes out what is known of these events. If they can't be stored this time either, they
    /// are remembered anew.
    pub(super) fn recall(&self, events: &[Event]) -> Vec<FailedArrival> {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.last.is_empty() {
            remembered.order.clear();
            return Vec::new();
        }
        let take = |event: &Event| {
            let (at, answer) = remembered.last.remove(&event.key)?;
            Some(FailedArrival {
                key: event.key,
                at,
                answer,
            })
        };
        events.iter().filter_map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{DeliveryId, EventBody, Notice};

    fn delivery(count: u32) -> Delivery {
        let event = |n: u32| Event {
            key: EventKey::derive(&[&n.to_le_bytes()]),
            number: None,
            relay: None,
            body: EventBody::Notice(Notice {
                kind: "test".into(),
                raw: String::new(),
            }),
        };
        Delivery {
            id: DeliveryId(1),
            at: Timestamp(7),
            events: (0..count).map(event).collect(),
            failed_before: Vec::new(),
        }
    }

    #[test]
    fn a_failure_is_recalled_once() {
        let failures = Failures::default();
        let delivery = delivery(3);
        let answer = Answer {
            status: 503,
            latency: Duration::from_millis(4),
        };
        assert!(failures.recall(&delivery.events).is_empty());
        failures.remember(&delivery, answer);
        let recalled = failures.recall(&delivery.events[1..]);
        assert_eq!(recalled.len(), 2);
        assert_eq!((recalled[0].at, recalled[0].answer), (Timestamp(7), answer));
        assert_eq!(failures.recall(&delivery.events).len(), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let failures = Failures::default();
        let answer = Answer {
            status: 503,
            latency: Duration::ZERO,
        };
        let many = delivery(EVENTS_MAX as u32 + 10);
        failures.remember(&many, answer);
        assert_eq!(failures.recall(&many.events).len(), EVENTS_MAX);
    }
}
