//! What ingress says in logs and metrics: one line per arrival of an event.

use tracing::{debug, error, info, warn};

use super::{Ingress, Refusal};
use crate::model::{Answer, Cause, EventBody, cause};
use crate::store::{
    Answered, Appended, AppendedEvent, Delivery, FailedArrival, StoreError, Verdict,
};
use crate::telemetry::EventVerdict;

impl Ingress {
    pub(super) fn tell_appended(&self, delivery: &Delivery, appended: &Appended, answer: Answer) {
        for (event, told) in delivery.events.iter().zip(&appended.events) {
            let wamid = match &event.body {
                EventBody::Message(message) if self.parts.plain_identifiers => {
                    Some(message.wamid.as_str())
                }
                EventBody::Status(receipt) if self.parts.plain_identifiers => {
                    Some(receipt.wamid.as_str())
                }
                _ => None,
            };
            match told.verdict {
                Verdict::Accepted => self.tell_accepted(delivery, told, wamid, answer),
                Verdict::Duplicate {
                    count,
                    gap,
                    previous,
                    rebatched,
                } => {
                    let arrival = cause::Arrival {
                        count,
                        gap,
                        previous,
                        rebatched,
                    };
                    self.tell_duplicate(delivery, told, wamid, &arrival, answer);
                }
            }
        }
    }

    fn tell_accepted(
        &self,
        delivery: &Delivery,
        told: &AppendedEvent,
        wamid: Option<&str>,
        answer: Answer,
    ) {
        self.parts.metrics.event(told.kind, EventVerdict::Accepted);
        let (conversation, seq) = told.place.unzip();
        // It came before, and we could not store it then.
        let of_this = |arrival: &&FailedArrival| arrival.key == told.key;
        let failed: Vec<_> = delivery.failed_before.iter().filter(of_this).collect();
        let (count, last) = (1 + failed.len(), failed.last());
        info!(
            event.key = %told.key, trace_id = %told.key, event.kind = %told.kind,
            delivery.id = %delivery.id, delivery.events = delivery.events.len(),
            verdict = "accepted", arrival.count = count,
            arrival.gap_ms = last.map(|last| delivery.at.since(last.at).as_millis() as u64),
            arrival.previous_status = last.map(|last| last.answer.status),
            cause = last.map(|_| tracing::field::display(Cause::AfterOurFailure)),
            conversation.id = conversation.map(tracing::field::display), message.seq = seq,
            outgoing.id = told.outgoing.map(tracing::field::display), message.wamid = wamid,
            http.status = answer.status, latency_ms = answer.latency.as_millis() as u64,
            "arrival"
        );
        if told.collision {
            warn!(event.key = %told.key,
                  "two contacts claim this sender's aliases; the message went to its user id's");
        }
    }

    fn tell_duplicate(
        &self,
        delivery: &Delivery,
        told: &AppendedEvent,
        wamid: Option<&str>,
        arrival: &cause::Arrival,
        answer: Answer,
    ) {
        let cause = Cause::guess(arrival);
        self.parts.metrics.event(told.kind, EventVerdict::Duplicate);
        self.parts.metrics.duplicate(cause);
        info!(
            event.key = %told.key, trace_id = %told.key, event.kind = %told.kind,
            delivery.id = %delivery.id, delivery.events = delivery.events.len(),
            verdict = "duplicate", arrival.count = arrival.count,
            arrival.gap_ms = arrival.gap.as_millis() as u64,
            arrival.previous_status = arrival.previous.map(|answer| answer.status),
            arrival.previous_latency_ms =
                arrival.previous.map(|answer| answer.latency.as_millis() as u64),
            cause = %cause, message.wamid = wamid,
            http.status = answer.status, latency_ms = answer.latency.as_millis() as u64,
            "arrival"
        );
    }

    pub(super) fn tell_not_stored(&self, delivery: &Delivery, why: &StoreError, answer: Answer) {
        for event in &delivery.events {
            self.parts
                .metrics
                .event(event.kind(), EventVerdict::Rejected);
            error!(
                event.key = %event.key, trace_id = %event.key, event.kind = %event.kind(),
                delivery.id = %delivery.id, delivery.events = delivery.events.len(),
                verdict = "rejected", error = %why, http.status = answer.status,
                latency_ms = answer.latency.as_millis() as u64, "arrival"
            );
        }
    }

    pub(super) fn tell_refused(&self, refusal: &Refusal, answer: Answer) {
        let latency_ms = answer.latency.as_millis() as u64;
        match refusal {
            Refusal::Signature => warn!(
                verdict = "rejected",
                reason = refusal.as_str(),
                http.status = answer.status,
                latency_ms,
                "a request was not signed with the app secret; if it was Meta's, the secret set \
                 here is not the app's"
            ),
            Refusal::Unsigned
            | Refusal::TooLong
            | Refusal::TooSlow
            | Refusal::Broken
            | Refusal::Busy => warn!(
                verdict = "rejected",
                reason = refusal.as_str(),
                http.status = answer.status,
                latency_ms,
                "a request was refused"
            ),
        }
    }
}

pub(super) fn tell_hung_up(answered: &Answered) {
    debug!(
        delivery.id = %answered.delivery, delivery.events = answered.events,
        http.status = answered.answer.status,
        latency_ms = answered.answer.latency.as_millis() as u64,
        "the other side hung up before the answer"
    );
}
