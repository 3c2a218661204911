//! Elements of `statuses[]`: what became of a message that we sent.

use serde_json::value::RawValue;

use super::key::{self, StatusParts};
use super::relay::{self, Place};
use super::{Change, notice};
use crate::model::{Event, EventBody, Receipt, ReceiptFailure, ReceiptStatus, Wamid};
use crate::whatsapp::graph::errors;
use crate::whatsapp::json::{self, Object, Text};

/// Where a group's participant may stand, steadiest first: a phone number may be there one day
/// and hidden the next. Meta's pages spell the second one in two ways.
const PARTICIPANT: [&str; 4] = [
    "recipient_participant_user_id",
    "recipient_participant_id",
    "participant_recipient_id",
    "recipient_participant_parent_user_id",
];

/// The identity of a status element, and what it says.
pub(super) struct Status<'a> {
    element: Object<'a>,
    wamid: Text<'a>,
    status: Text<'a>,
    participant: Option<Text<'a>>,
    transaction: Option<Text<'a>>,
}

impl<'a> Status<'a> {
    /// `None` where it names no message or no status.
    pub(super) fn read(raw: &'a RawValue) -> Option<Self> {
        let element = json::object(raw)?;
        let transaction = element
            .object("payment")
            .and_then(|payment| payment.object("transaction"))
            .and_then(|transaction| transaction.text("id"));
        Some(Self {
            wamid: element.text("id")?,
            status: element.text("status")?,
            participant: PARTICIPANT.into_iter().find_map(|name| element.text(name)),
            transaction,
            element,
        })
    }

    pub(super) fn key_parts(&self) -> StatusParts<'_> {
        StatusParts {
            wamid: self.wamid.as_bytes(),
            status: self.status.as_bytes(),
            participant: self.participant.as_ref().map_or(b"", Text::as_bytes),
            transaction: self.transaction.as_ref().map_or(b"", Text::as_bytes),
        }
    }

    fn receipt(&self, raw: &RawValue) -> Receipt {
        let status = ReceiptStatus::parse(&self.status.to_text());
        let failure = match status {
            ReceiptStatus::Failed => self.failure(),
            ReceiptStatus::Sent
            | ReceiptStatus::Delivered
            | ReceiptStatus::Read
            | ReceiptStatus::Played
            | ReceiptStatus::Other(_) => None,
        };
        Receipt {
            wamid: Wamid::new(self.wamid.to_text()),
            status,
            participant: self.participant.as_ref().map(Text::to_text),
            at: self.element.timestamp("timestamp"),
            callback_data: self
                .element
                .text("biz_opaque_callback_data")
                .map(|data| data.to_text()),
            failure,
            raw: raw.get().to_owned(),
        }
    }

    fn failure(&self) -> Option<ReceiptFailure> {
        let first = *self.element.array("errors")?.first()?;
        let error = json::object(first)?;
        let code = error.integer("code")?;
        Some(ReceiptFailure {
            code,
            class: errors::classify(code, error.is_true("is_transient")),
        })
    }
}

/// A status that names no message, no status or no number is a notice.
pub(super) fn decode(change: &Change<'_>, raw: &RawValue) -> Event {
    let number = change.number_bytes();
    match Status::read(raw) {
        Some(status) if !number.is_empty() => Event {
            key: key::status(number, &status.key_parts()),
            number: change.number_id(),
            relay: relay::of_status(change, raw),
            body: EventBody::Status(status.receipt(raw)),
        },
        _ => notice::keyless(change, "statuses", Place::In("statuses"), raw),
    }
}
