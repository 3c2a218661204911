//! Notices: whatever is neither a message for us nor a status of ours, kept as it came.

use serde_json::value::RawValue;

use super::canonical::canonical;
use super::relay::{self, Place, Relays};
use super::{Account, Change, key};
use crate::model::{Event, EventBody, EventKey, Notice, NumberId};
use crate::whatsapp::json;

const FOREIGN: &str = "foreign";
const UNDECODABLE: &str = "undecodable";

/// A body that is no object: another JSON value, or no JSON at all.
pub(super) fn unreadable(relays: Relays, body: &[u8], text: &str) -> Event {
    if serde_json::from_str::<&RawValue>(text).is_ok() {
        return foreign(relays, body, text);
    }
    of_body(UNDECODABLE, body, text)
}

/// A body that is JSON, but nothing that Meta sends for WhatsApp.
pub(super) fn foreign(relays: Relays, body: &[u8], text: &str) -> Event {
    Event {
        relay: relays.notices.then(|| text.to_owned()),
        ..of_body(FOREIGN, body, text)
    }
}

/// Only a whole body may hold a NUL byte: where it is no JSON, or in the name of one of its
/// members, which are read leniently. Some stores take none in a text.
fn of_body(kind: &str, body: &[u8], text: &str) -> Event {
    let raw = text.replace('\0', "\u{fffd}");
    let key = key::body(kind.as_bytes(), body);
    event(key, None, kind.to_owned(), raw, None)
}

/// An entry without changes, or a change without a field.
pub(super) fn foreign_part(account: &Account<'_>, place: Place<'_>, raw: &RawValue) -> Event {
    of_change(account, FOREIGN.to_owned(), None, place, raw)
}

/// A whole change, or a part of it, that has no id of its own.
///
/// Its key is its content with the entry's id and time. Account-type fields carry that time, so
/// that a state which comes back is a new event. Where Meta sends none (as with `errors` beside
/// messages), equal content within the time that keys are kept is one event that arrives again:
/// its arrivals count how often.
pub(super) fn of_change(
    account: &Account<'_>,
    kind: String,
    change: Option<&Change<'_>>,
    place: Place<'_>,
    raw: &RawValue,
) -> Event {
    let id = account.id.and_then(json::text);
    let time = account.time.and_then(json::text);
    let key = key::notice(
        change.map_or(b"", Change::number_bytes),
        kind.as_bytes(),
        id.as_ref().map_or(b"", json::Text::as_bytes),
        time.as_ref().map_or(b"", json::Text::as_bytes),
        &canonical(raw),
    );
    let number = change.and_then(Change::number_id);
    let relay = relay::of_notice(account, change, place, raw);
    event(key, number, kind, raw.get().to_owned(), relay)
}

/// An element of a change that has no usable id.
pub(super) fn keyless(change: &Change<'_>, kind: &str, place: Place<'_>, raw: &RawValue) -> Event {
    of_change(change.account, kind.to_owned(), Some(change), place, raw)
}

/// An element of a change under a key of its own.
pub(super) fn keyed(
    change: &Change<'_>,
    key: EventKey,
    kind: &str,
    place: Place<'_>,
    raw: &RawValue,
) -> Event {
    event(
        key,
        change.number_id(),
        kind.to_owned(),
        raw.get().to_owned(),
        relay::of_notice(change.account, Some(change), place, raw),
    )
}

fn event(
    key: EventKey,
    number: Option<NumberId>,
    kind: String,
    raw: String,
    relay: Option<String>,
) -> Event {
    Event {
        key,
        number,
        relay,
        body: EventBody::Notice(Notice { kind, raw }),
    }
}
