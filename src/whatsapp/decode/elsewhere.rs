//! Every field but `messages`: notices, one per item where items have ids of their own.
//!
//! Calls, echoes of what the business wrote by other means, and copies of conversations that
//! another agent holds look much like messages. None of them may ever be answered.

use serde_json::value::RawValue;

use super::relay::Place;
use super::status::Status;
use super::{Change, envelope, inbound, key, notice};
use crate::model::{Event, EventKey};
use crate::whatsapp::json::{self, Object};

/// Decodes a change of any field; one that holds no items we know is one notice.
pub(super) fn decode(change: &Change<'_>, events: &mut Vec<Event>) {
    let before = events.len();
    let beside = match change.kind.as_str() {
        "calls" => decode_calls(change, events),
        "smb_message_echoes" | "message_echoes" => decode_echoes(change, events),
        "standby" => decode_standby(change, events),
        _ => String::new(),
    };
    if events.len() == before {
        events.push(notice::keyless(
            change,
            &change.kind,
            Place::Change,
            change.raw,
        ));
    } else {
        events.extend(inbound::leftover(change, &beside));
    }
}

fn decode_calls(change: &Change<'_>, events: &mut Vec<Event>) -> String {
    decode_items(change, &change.value, "calls", call, events);
    decode_items(change, &change.value, "statuses", call, events);
    for error in change.value.array("errors").unwrap_or_default() {
        events.push(notice::keyless(
            change,
            "errors",
            Place::In("errors"),
            error,
        ));
    }
    envelope::beside(&change.value, &["calls", "statuses", "errors"])
}

fn decode_echoes(change: &Change<'_>, events: &mut Vec<Event>) -> String {
    decode_items(change, &change.value, "message_echoes", echo, events);
    envelope::beside(&change.value, &["message_echoes"])
}

fn decode_standby(change: &Change<'_>, events: &mut Vec<Event>) -> String {
    let Some(standby) = change.value.object("standby") else {
        return String::new();
    };
    decode_items(change, &standby, "messages", standby_message, events);
    decode_items(change, &standby, "message_echoes", standby_echo, events);
    decode_items(change, &standby, "statuses", standby_status, events);
    envelope::beside(&standby, &["messages", "message_echoes", "statuses"])
}

/// How the key of an item is made; `None` where it lacks an id.
type KeyOf = fn(number: &[u8], item: &RawValue) -> Option<EventKey>;

fn decode_items(
    change: &Change<'_>,
    place: &Object<'_>,
    array: &str,
    key_of: KeyOf,
    events: &mut Vec<Event>,
) {
    for item in place.array(array).unwrap_or_default() {
        events.push(match key_of(change.number_bytes(), item) {
            Some(key) => notice::keyed(change, key, &change.kind, Place::In(array), item),
            None => notice::keyless(change, &change.kind, Place::In(array), item),
        });
    }
}

fn call(number: &[u8], item: &RawValue) -> Option<EventKey> {
    let item = json::object(item)?;
    let step = item.text("event").or_else(|| item.text("status"))?;
    Some(key::call(
        number,
        item.text("id")?.as_bytes(),
        step.as_bytes(),
    ))
}

fn echo(number: &[u8], item: &RawValue) -> Option<EventKey> {
    let id = json::object(item)?.text("id")?;
    Some(key::echo(number, id.as_bytes()))
}

fn standby_message(number: &[u8], item: &RawValue) -> Option<EventKey> {
    let id = json::object(item)?.text("id")?;
    Some(key::standby(number, b"message", id.as_bytes()))
}

fn standby_echo(number: &[u8], item: &RawValue) -> Option<EventKey> {
    let id = json::object(item)?.text("id")?;
    Some(key::standby(number, b"echo", id.as_bytes()))
}

fn standby_status(number: &[u8], item: &RawValue) -> Option<EventKey> {
    Some(key::standby_status(
        number,
        &Status::read(item)?.key_parts(),
    ))
}
