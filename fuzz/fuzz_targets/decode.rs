//! Any body through the decoder: what is kept for a message decodes again to the same event, no
//! text holds a NUL, and the keys are those of the same JSON in another layout.

#![no_main]

use std::collections::BTreeMap;
use std::fmt;

use hapax::model::{Event, EventBody, EventKey};
use hapax::whatsapp::{decode, message};
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

fuzz_target!(|body: &[u8]| {
    let events = decode(body);
    assert!(!events.is_empty());
    for event in &events {
        check(event);
    }
    if let Ok(Plain(value)) = serde_json::from_slice(body) {
        for written in [value.to_string(), format!("{value:#}")] {
            assert_eq!(
                keys(&decode(written.as_bytes())),
                keys_as(&events, body, &written)
            );
        }
    }
});

/// How often each key comes.
fn keys(events: &[Event]) -> BTreeMap<EventKey, usize> {
    let mut keys = BTreeMap::new();
    for event in events {
        *keys.entry(event.key).or_default() += 1;
    }
    keys
}

/// The keys of the first layout; what is foreign as a whole has its bytes as its key.
fn keys_as(events: &[Event], body: &[u8], written: &str) -> BTreeMap<EventKey, usize> {
    let is_foreign = matches!(events, [event] if matches!(&event.body,
        EventBody::Notice(notice) if notice.kind == "foreign" && notice.raw.as_bytes() == body));
    if is_foreign {
        keys(&decode(written.as_bytes()))
    } else {
        keys(events)
    }
}

fn check(event: &Event) {
    match &event.body {
        EventBody::Message(inbound) => {
            assert!(event.number.is_some() && !inbound.sender.is_empty());
            assert!(!inbound.wamid.as_str().contains('\0') && !inbound.envelope.contains('\0'));
            assert!(
                inbound
                    .sender
                    .iter()
                    .all(|(_, alias)| !alias.contains('\0'))
            );
            let again = decode(inbound.envelope.as_bytes());
            assert!(again == [event.clone()], "the envelope is another event");
            let flat = message::parse(event.key, inbound.envelope.clone());
            assert_eq!(flat.kind, inbound.kind);
            assert_eq!(flat.id, inbound.wamid.as_str());
        }
        EventBody::Status(receipt) => {
            assert!(!receipt.raw.contains('\0') && !receipt.wamid.as_str().contains('\0'));
            assert!(!receipt.status.as_str().contains('\0'));
            let others = [&receipt.participant, &receipt.callback_data];
            assert!(
                others
                    .into_iter()
                    .flatten()
                    .all(|text| !text.contains('\0'))
            );
        }
        EventBody::Notice(notice) => {
            assert!(!notice.raw.contains('\0') && !notice.kind.contains('\0'));
        }
    }
}

/// JSON that reading and writing does not change: no name twice, no floating-point number.
struct Plain(serde_json::Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Plain, E> {
        Err(E::custom("a floating-point number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Plain, E> {
        Ok(Plain(serde_json::Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Plain, A::Error> {
        let mut all = Vec::new();
        while let Some(Plain(element)) = elements.next_element()? {
            all.push(element);
        }
        Ok(Plain(all.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Plain, A::Error> {
        let mut all = serde_json::Map::new();
        while let Some((name, Plain(value))) = members.next_entry::<String, Plain>()? {
            if all.insert(name, value).is_some() {
                return Err(A::Error::custom("a name twice"));
            }
        }
        Ok(Plain(all.into()))
    }
}
