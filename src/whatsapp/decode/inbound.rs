//! The field `messages`: what contacts wrote, what became of what we sent, and Meta's errors.

use serde_json::value::RawValue;

use super::envelope::{self, Envelope};
use super::relay::Place;
use super::sender::{self, Contacts};
use super::{Change, key, notice, status};
use crate::model::{Event, EventBody, InboundMessage, Wamid};
use crate::whatsapp::{json, kind};

const MESSAGES: Place<'static> = Place::In("messages");

/// Decodes every element of every array of the value. A value without any element is one notice.
pub(super) fn decode(change: &Change<'_>, events: &mut Vec<Event>) {
    let before = events.len();
    let beside = envelope::beside_messages(change);
    let mut carried = false;
    if let Some(messages) = change.value.array("messages") {
        carried = !messages.is_empty() && envelope::can_be_carried(&beside);
        decode_messages(
            change,
            &messages,
            if carried { &beside } else { "" },
            events,
        );
    }
    for element in change.value.array("statuses").unwrap_or_default() {
        events.push(status::decode(change, element));
    }
    for kind in ["errors", "user_actions"] {
        for element in change.value.array(kind).unwrap_or_default() {
            events.push(notice::keyless(change, kind, Place::In(kind), element));
        }
    }
    if events.len() == before {
        events.push(notice::keyless(
            change,
            &change.kind,
            Place::Change,
            change.raw,
        ));
    } else if !carried {
        events.extend(leftover(change, &beside));
    }
}

/// Members that no element carries, as a notice of their own.
pub(super) fn leftover(change: &Change<'_>, members: &str) -> Option<Event> {
    let object = format!("{{{members}}}");
    let raw: &RawValue = serde_json::from_str(&object).ok()?;
    (!members.is_empty()).then(|| notice::keyless(change, &change.kind, Place::Members, raw))
}

fn decode_messages(
    change: &Change<'_>,
    messages: &[&RawValue],
    carried: &str,
    events: &mut Vec<Event>,
) {
    let contacts = Contacts::of(&change.value);
    let envelope = Envelope::of(change, carried);
    let sole = messages.len() == 1;
    for raw in messages {
        events.push(decode_message(change, &contacts, &envelope, sole, raw));
    }
}

fn decode_message(
    change: &Change<'_>,
    contacts: &Contacts<'_>,
    envelope: &Envelope,
    sole: bool,
    raw: &RawValue,
) -> Event {
    let Some(message) = json::object(raw) else {
        return notice::keyless(change, &change.kind, MESSAGES, raw);
    };
    let kind = kind::of(&message);
    let Some(wamid) = message.text("id") else {
        let kind = if kind == kind::SYSTEM {
            kind
        } else {
            &change.kind
        };
        return notice::keyless(change, kind, MESSAGES, raw);
    };
    let (number, id) = (change.number_bytes(), wamid.as_bytes());
    if kind == kind::SYSTEM {
        return notice::keyed(change, key::system(number, id), kind, MESSAGES, raw);
    }
    let contact = contacts.of_message(&message, sole);
    let sender = sender::aliases(&message, contact);
    if number.is_empty() || sender.is_empty() {
        let key = key::unaddressed(number, id);
        return notice::keyed(change, key, &change.kind, MESSAGES, raw);
    }
    Event {
        key: key::message(number, id),
        number: change.number_id(),
        relay: None,
        body: EventBody::Message(InboundMessage {
            wamid: Wamid::new(wamid.to_text()),
            kind: kind.to_owned(),
            sender,
            sent_at: message.timestamp("timestamp"),
            envelope: envelope.around(contact.map(|contact| contact.raw), MESSAGES, raw),
        }),
    }
}
