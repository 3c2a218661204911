//! Every shape that Meta sends, through the decoder's front door.
//!
//! The payloads are ours, written after Meta's reference; `HAPAX_PAYLOADS` names a file of
//! others (lines of `{name, payload}`) that must be decodable too.

use hapax::model::{Event, EventBody, EventKey};
use hapax::whatsapp::{decode, message};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use serde::Deserialize;
use serde_json::value::RawValue;

const OURS: &str = include_str!("../payloads/cloud-api.jsonl");

#[derive(Deserialize)]
struct Case<'a> {
    name: String,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(default)]
    expect: Vec<Expected>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Expected {
    kind: String,
    /// A message's type, a status's value, a notice's kind.
    #[serde(rename = "type")]
    word: String,
}

fn cases(lines: &str) -> Vec<Case<'_>> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is a case"))
        .collect()
}

fn summary(event: &Event) -> Expected {
    let word = match &event.body {
        EventBody::Message(message) => message.kind.clone(),
        EventBody::Status(receipt) => receipt.status.as_str().to_owned(),
        EventBody::Notice(notice) => notice.kind.clone(),
    };
    Expected {
        kind: event.kind().to_string(),
        word,
    }
}

fn keys(events: &[Event]) -> Vec<EventKey> {
    events.iter().map(|event| event.key).collect()
}

fn decoded(payload: &RawValue) -> Vec<Event> {
    decode(payload.get().as_bytes())
}

#[test]
fn every_payload_is_what_it_should_be() {
    for case in cases(OURS) {
        let found: Vec<_> = decoded(case.payload).iter().map(summary).collect();
        assert_eq!(found, case.expect, "{}", case.name);
    }
}

#[test]
fn every_event_of_a_payload_has_a_key_of_its_own() {
    for case in cases(OURS) {
        let mut keys = keys(&decoded(case.payload));
        assert_eq!(keys, self::keys(&decoded(case.payload)), "{}", case.name);
        let count = keys.len();
        keys.sort();
        keys.dedup();
        // Two broken elements with the same content are one event.
        let twins = case.name == "edge/elements_that_are_no_objects";
        assert!(twins || keys.len() == count, "{}", case.name);
    }
}

#[test]
fn a_message_is_complete_and_lives_on_in_its_envelope() {
    for case in cases(OURS) {
        for event in decoded(case.payload) {
            let EventBody::Message(inbound) = event.body else {
                continue;
            };
            let name = &case.name;
            assert!(
                event.number.is_some() && !inbound.sender.is_empty(),
                "{name}"
            );
            assert!(inbound.sender.recipient().is_some(), "{name}");
            let again = decode(inbound.envelope.as_bytes());
            assert_eq!(keys(&again), [event.key], "{name}");
            let EventBody::Message(again) = &again[0].body else {
                panic!("{name}: the envelope holds another kind of event");
            };
            assert_eq!(again, &inbound, "{name}");
            let flat = message::parse(event.key, inbound.envelope);
            assert_eq!(flat.kind, inbound.kind, "{name}");
            assert_eq!(flat.id, inbound.wamid.as_str(), "{name}");
            assert_eq!(
                flat.timestamp,
                inbound.sent_at.map(|at| at.as_seconds()),
                "{name}"
            );
            assert!(
                case.payload.get().contains(flat.raw.get()),
                "{name}: as Meta sent it"
            );
        }
    }
}

#[test]
fn no_payload_of_a_file_by_the_environment_is_undecodable() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no config to take it from"
    )]
    let file = std::env::var("HAPAX_PAYLOADS");
    let lines = file.map_or(OURS.to_owned(), |file| {
        std::fs::read_to_string(file).expect("HAPAX_PAYLOADS names a readable file")
    });
    for case in cases(&lines) {
        for event in decoded(case.payload) {
            assert_ne!(summary(&event).word, "undecodable", "{}", case.name);
        }
    }
}

/// The entries of one payload, as they stand.
fn entries<'a>(case: &Case<'a>) -> Vec<&'a RawValue> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        entry: Vec<&'a RawValue>,
    }
    serde_json::from_str::<Envelope<'_>>(case.payload.get()).map_or(Vec::new(), |e| e.entry)
}

fn body(entries: &[&str]) -> String {
    let entries = entries.join(",");
    format!(r#"{{"object":"whatsapp_business_account","entry":[{entries}]}}"#)
}

/// The same cases in every run, unless `PROPTEST_RNG_SEED` asks for others; no file is written.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let rng_seed = match asked.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    ProptestConfig {
        rng_seed,
        failure_persistence: None,
        ..asked
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_bytes_are_one_notice(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(decode(&bytes).len(), 1);
        prop_assert_eq!(keys(&decode(&bytes)), keys(&decode(&bytes)));
    }

    #[test]
    fn no_damage_to_a_payload_makes_decoding_fail(
        case in any::<Index>(),
        damages in prop::collection::vec((any::<Index>(), any::<u8>(), 0..4_u8), 1..6),
    ) {
        let cases = cases(OURS);
        let mut bytes = case.get(&cases).payload.get().as_bytes().to_vec();
        for (at, byte, damage) in damages {
            let at = at.index(bytes.len());
            match damage {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.splice(at..(at + 7).min(bytes.len()), *b"null")),
                _ => bytes[at] = *b"{}[]\",:0\\u"
                    .get(usize::from(byte) % 10)
                    .expect("ten characters"),
            }
        }
        let events = decode(&bytes);
        prop_assert!(!events.is_empty());
        prop_assert_eq!(&keys(&events), &keys(&decode(&bytes)));
        for event in events {
            if let EventBody::Message(inbound) = event.body {
                prop_assert_eq!(keys(&decode(inbound.envelope.as_bytes())), [event.key]);
                message::parse(event.key, inbound.envelope);
            }
        }
    }

    #[test]
    fn batches_put_together_anew_hold_the_same_events(
        picks in prop::collection::vec(any::<Index>(), 1..8),
    ) {
        let cases = cases(OURS);
        let entries: Vec<&str> = picks
            .iter()
            .flat_map(|pick| entries(pick.get(&cases)))
            .map(RawValue::get)
            .filter(|entry| !entry.contains(r#""changes":[]"#))
            .collect();
        prop_assume!(!entries.is_empty());
        let alone: Vec<EventKey> = entries
            .iter()
            .flat_map(|entry| keys(&decode(body(&[entry]).as_bytes())))
            .collect();
        prop_assert_eq!(keys(&decode(body(&entries).as_bytes())), alone);
    }
}
