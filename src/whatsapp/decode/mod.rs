//! From a delivery's body to its events: every entry, every change, every element.
//!
//! Never fails and never loses: what cannot be understood becomes a notice, and harms nothing
//! beside it. Which kind of event an element is depends on the change's `field` alone, never on
//! which arrays happen to be there.

mod canonical;
mod elsewhere;
mod envelope;
mod inbound;
mod key;
mod notice;
mod relay;
mod sender;
mod status;

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;

use serde_json::value::RawValue;

pub(super) use canonical::canonical_text;
pub use relay::Relays;
pub use sender::person;
pub(super) use sender::{digits, phone};

use self::relay::Place;
use super::json::{self, Object, Text};
use crate::model::{Event, NumberId};

/// A `field` longer than this is cut in the notice's kind, which becomes a label.
const KIND_CHARS_MAX: usize = 64;

/// Members of a value that say where it belongs, not what happened.
const FRAME: [&str; 3] = ["messaging_product", "metadata", "contacts"];

/// Reads the body of a delivery. Always gives at least one event; the same bytes always give the
/// same events; what is twice in the body is twice in the result.
///
/// A body that is not JSON is one notice `undecodable`, JSON that is no WhatsApp payload one
/// notice `foreign`. Invalid UTF-8 is replaced, so that one broken text costs no neighbour.
///
/// Source: Meta, *Webhooks reference*.
pub fn decode(body: &[u8]) -> Vec<Event> {
    decode_for(body, Relays::default())
}

/// As [`decode`]; each event of a kind that is asked for has its [`Event::relay`]. A body that is
/// not JSON has none: it has no shape that a bot could read.
pub fn decode_for(body: &[u8], relays: Relays) -> Vec<Event> {
    let text = String::from_utf8_lossy(body);
    let Some(root) = json::parse(&text) else {
        return vec![notice::unreadable(relays, body, &text)];
    };
    let ours = root
        .text("object")
        .is_some_and(|object| object.is("whatsapp_business_account"));
    let entries = root.array("entry").filter(|_| ours).unwrap_or_default();
    let mut events = Vec::with_capacity(entries.len());
    for entry in entries {
        decode_entry(relays, entry, &mut events);
    }
    if events.is_empty() {
        events.push(notice::foreign(relays, body, &text));
    }
    events
}

fn decode_entry(relays: Relays, raw: &RawValue, events: &mut Vec<Event>) {
    let entry = json::object(raw);
    let account = Account::of(entry.as_ref(), relays);
    let changes = entry.as_ref().and_then(|entry| entry.array("changes"));
    let Some(changes) = changes else {
        events.push(notice::foreign_part(&account, Place::Entry, raw));
        return;
    };
    for change in changes {
        decode_change(&account, change, events);
    }
}

fn decode_change(account: &Account<'_>, raw: &RawValue, events: &mut Vec<Event>) {
    let change = json::object(raw);
    let field = change.as_ref().and_then(|change| change.text("field"));
    let (Some(change), Some(field)) = (change, field) else {
        events.push(notice::foreign_part(account, Place::Change, raw));
        return;
    };
    let kind = field.to_text().chars().take(KIND_CHARS_MAX).collect();
    let Some(value) = change.object("value") else {
        events.push(notice::of_change(account, kind, None, Place::Change, raw));
        return;
    };
    let change = Change {
        field: change.get("field").unwrap_or(RawValue::NULL),
        number: number_of(&value),
        account,
        kind,
        value,
        raw,
    };
    if field.is("messages") {
        inbound::decode(&change, events);
    } else {
        elsewhere::decode(&change, events);
    }
}

/// What an entry says of itself.
struct Account<'a> {
    /// Which of its events the bot is to get.
    relays: Relays,
    id: Option<&'a RawValue>,
    time: Option<&'a RawValue>,
}

impl<'a> Account<'a> {
    fn of(entry: Option<&Object<'a>>, relays: Relays) -> Self {
        Self {
            relays,
            id: entry.and_then(|entry| entry.get("id")),
            time: entry.and_then(|entry| entry.get("time")),
        }
    }
}

/// One change, with what its elements need to know of it.
struct Change<'a> {
    account: &'a Account<'a>,
    /// Its `field` as it came.
    field: &'a RawValue,
    /// The same, fit for a label.
    kind: String,
    /// The business number it concerns.
    number: Option<Text<'a>>,
    value: Object<'a>,
    raw: &'a RawValue,
}

impl Change<'_> {
    fn number_bytes(&self) -> &[u8] {
        self.number.as_ref().map_or(b"", Text::as_bytes)
    }

    fn number_id(&self) -> Option<NumberId> {
        self.number
            .as_ref()
            .map(|number| NumberId::new(number.to_text()))
    }
}

/// Handovers have no metadata; there our number is the recipient.
fn number_of<'a>(value: &Object<'a>) -> Option<Text<'a>> {
    ["metadata", "recipient"]
        .into_iter()
        .filter_map(|place| value.object(place))
        .find_map(|place| place.text("phone_number_id"))
}
