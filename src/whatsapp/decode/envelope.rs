//! A webhook body of its own for one element, put together from slices of the delivery.
//!
//! The element itself is never read and written again: what parses Meta's bytes parses these.

use serde_json::Value;
use serde_json::value::RawValue;

use super::relay::Place;
use super::{Account, Change, FRAME};
use crate::whatsapp::json::Object;

/// Members beside the messages that are carried along with each of them, at most. More than that
/// would multiply with the number of messages; it is kept once, as a notice.
const CARRIED_BYTES_MAX: usize = 16 * 1024;

/// Members that are elements, each of which is an event of its own.
const ELEMENTS: [&str; 4] = ["messages", "statuses", "errors", "user_actions"];

/// The one field whose elements stand in an object of its value.
const STANDBY: &str = "standby";

/// What the envelopes of one change have in common.
pub(super) struct Envelope {
    head: String,
    /// The object in the value that holds the elements, where they do not stand in it themselves.
    within: Option<&'static str>,
    tail: String,
}

/// The beginning of a body, up to the entry's changes.
fn begin(account: &Account<'_>) -> String {
    let mut head = String::with_capacity(320);
    head.push_str(r#"{"object":"whatsapp_business_account","entry":[{"#);
    for (name, raw) in [("id", account.id), ("time", account.time)] {
        if let Some(raw) = raw {
            push(&mut head, &["\"", name, "\":", raw.get(), ","]);
        }
    }
    head.push_str(r#""changes":["#);
    head
}

/// A body that holds this one change.
pub(super) fn around_change(account: &Account<'_>, change: &RawValue) -> String {
    let mut body = begin(account);
    push(&mut body, &[change.get(), "]}]}"]);
    body
}

/// A body that holds this one entry.
pub(super) fn around_entry(entry: &RawValue) -> String {
    let head = r#"{"object":"whatsapp_business_account","entry":["#;
    [head, entry.get(), "]}"].concat()
}

impl Envelope {
    /// `carried` is what [`beside`] found, where it is small enough.
    pub(super) fn of(change: &Change<'_>, carried: &str) -> Self {
        let mut head = begin(change.account);
        head.push_str(r#"{"value":{"#);
        let product = change.value.get("messaging_product");
        let product = product.map_or("\"whatsapp\"", RawValue::get);
        push(&mut head, &["\"messaging_product\":", product]);
        if let Some(metadata) = change.value.get("metadata") {
            push(&mut head, &[",\"metadata\":", metadata.get()]);
        }
        // Before the messages: of two members with one name, parsers take the later one.
        if !carried.is_empty() {
            push(&mut head, &[",", carried]);
        } else if let Some(number) = number_beside(change) {
            push(
                &mut head,
                &[",\"recipient\":{\"phone_number_id\":", number.get(), "}"],
            );
        }
        Self {
            head,
            within: (change.kind == STANDBY).then_some(STANDBY),
            tail: ["},\"field\":", change.field.get(), "}]}]}"].concat(),
        }
    }

    /// The body that holds this element where it stood, and its contact where it has one.
    pub(super) fn around(
        &self,
        contact: Option<&RawValue>,
        place: Place<'_>,
        element: &RawValue,
    ) -> String {
        let contact = contact.map_or("", RawValue::get);
        let length = self.head.len() + contact.len() + element.get().len() + self.tail.len();
        let mut body = String::with_capacity(length + 64);
        body.push_str(&self.head);
        if !contact.is_empty() {
            push(&mut body, &[",\"contacts\":[", contact, "]"]);
        }
        body.push(',');
        if let Some(name) = self.within {
            push(&mut body, &["\"", name, "\":{"]);
        }
        match place {
            Place::In(array) => push(&mut body, &["\"", array, "\":[", element.get(), "]"]),
            // Made as an object of members; a change or an entry never stands in a value.
            Place::Members | Place::Change | Place::Entry => {
                let inner = element.get();
                body.push_str(inner.get(1..inner.len() - 1).unwrap_or_default());
            }
        }
        if self.within.is_some() {
            body.push('}');
        }
        body.push_str(&self.tail);
        body
    }
}

/// The number where it may stand outside of the frame: it goes along even where the members
/// around it are too large, since a message without its number is no message.
fn number_beside<'a>(change: &Change<'a>) -> Option<&'a RawValue> {
    change.value.object("recipient")?.get("phone_number_id")
}

/// The members of an object that are neither frame nor arrays of `elements`, as the inside of an
/// object: what Meta added since this was written.
pub(super) fn beside(object: &Object<'_>, elements: &[&str]) -> String {
    let mut members = String::new();
    for (name, raw) in object.members() {
        let is_array = raw.get().starts_with('[');
        let frame = FRAME.iter().any(|known| name.is(known));
        if frame || (is_array && elements.iter().any(|known| name.is(known))) {
            continue;
        }
        if !members.is_empty() {
            members.push(',');
        }
        let name = Value::from(name.to_text()).to_string();
        push(&mut members, &[&name, ":", raw.get()]);
    }
    members
}

/// [`beside`] for a value of messages.
pub(super) fn beside_messages(change: &Change<'_>) -> String {
    beside(&change.value, &ELEMENTS)
}

/// Whether this is small enough to go along with each message.
pub(super) const fn can_be_carried(members: &str) -> bool {
    members.len() <= CARRIED_BYTES_MAX
}

fn push(out: &mut String, parts: &[&str]) {
    for part in parts {
        out.push_str(part);
    }
}
