//! What decoding promises of any body, any batch and any damage.

mod delivery;
mod json;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use self::delivery::{Drawn, Element, Place, drawn};
use self::json::{Layout, any_json, damage, layout, plain_json};
use super::canonical::canonical;
use super::*;
use crate::model::{EventBody, EventKey, InboundMessage, property};
use crate::whatsapp::message;

fn plain(json: &json::Json) -> Vec<u8> {
    json.written(Layout::default()).into_bytes()
}

/// Bytes that hurt, and all others.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        3 => prop::sample::select(&b"\0\xff\\\"{}[],:"[..]),
        1 => any::<u8>(),
    ]
}

/// How often each key comes.
fn counted(events: &[Event]) -> BTreeMap<EventKey, usize> {
    let mut counted = BTreeMap::new();
    for event in events {
        *counted.entry(event.key).or_default() += 1;
    }
    counted
}

/// The event of an element that came by itself.
fn alone(drawn: &Drawn, element: &Element) -> Event {
    let mut events = decode(&plain(&drawn.alone(element)));
    events.swap_remove(0)
}

fn as_message(event: &Event) -> Option<&InboundMessage> {
    match &event.body {
        EventBody::Message(message) => Some(message),
        EventBody::Status(_) | EventBody::Notice(_) => None,
    }
}

/// Every text of an event.
fn texts(event: &Event) -> Vec<&str> {
    let mut texts: Vec<&str> = event.number.iter().map(NumberId::as_str).collect();
    match &event.body {
        EventBody::Message(message) => {
            texts.extend([message.wamid.as_str(), &message.kind, &message.envelope]);
            texts.extend(message.sender.iter().map(|(_, alias)| alias));
        }
        EventBody::Status(receipt) => {
            texts.extend([
                receipt.wamid.as_str(),
                receipt.status.as_str(),
                &receipt.raw,
            ]);
            let others = [&receipt.participant, &receipt.callback_data];
            texts.extend(others.into_iter().flatten().map(String::as_str));
        }
        EventBody::Notice(notice) => texts.extend([notice.kind.as_str(), &notice.raw]),
    }
    texts
}

/// What holds for every body there is.
fn check(body: &[u8]) -> Result<Vec<Event>, TestCaseError> {
    let events = decode(body);
    prop_assert!(!events.is_empty());
    prop_assert_eq!(&events, &decode(body), "the same bytes, the same events");
    for event in &events {
        let has_nul = texts(event).iter().any(|text| text.contains('\0'));
        prop_assert!(!has_nul, "some stores take no NUL in a text");
        let Some(inbound) = as_message(event) else {
            continue;
        };
        prop_assert!(event.number.is_some() && !inbound.sender.is_empty());
        let again = decode(inbound.envelope.as_bytes());
        prop_assert_eq!(&again, std::slice::from_ref(event), "{}", &inbound.envelope);
        let flat = message::parse(event.key, inbound.envelope.clone());
        prop_assert_eq!(&flat.kind, &inbound.kind);
        prop_assert_eq!(&*flat.id, inbound.wamid.as_str());
        let at = inbound.sent_at.map(|at| at.as_seconds());
        prop_assert_eq!(flat.timestamp, at);
    }
    Ok(events)
}

proptest! {
    #![proptest_config(property::cases(192))]

    #[test]
    fn any_bytes_are_one_notice(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(check(&bytes)?.len(), 1);
    }

    #[test]
    fn any_json_is_decoded(json in any_json(), layout in layout()) {
        check(json.written(layout).as_bytes())?;
    }

    #[test]
    fn a_value_of_any_json_is_decoded(json in any_json(), layout in layout()) {
        let body = json.written(layout);
        for field in ["messages", "calls", "standby"] {
            let change = format!(r#"{{"value":{body},"field":"{field}"}}"#);
            let entry = format!(r#"{{"changes":[{change}]}}"#);
            let body = format!(r#"{{"object":"whatsapp_business_account","entry":[{entry}]}}"#);
            check(body.as_bytes())?;
        }
    }
}

proptest! {
    #![proptest_config(property::cases(128))]

    #[test]
    fn damage_anywhere_leaves_something_to_decode(
        drawn in drawn(),
        damages in prop::collection::vec(damage(), 1..6),
        layout in layout(),
    ) {
        let mut body = drawn.batch(&drawn.elements, |_| false);
        damages.iter().for_each(|damage| body.damage(damage));
        check(body.written(layout).as_bytes())?;
    }

    #[test]
    fn damaged_bytes_leave_something_to_decode(
        drawn in drawn(),
        damages in prop::collection::vec((any::<Index>(), any::<[bool; 2]>(), byte()), 1..4),
    ) {
        let mut body = plain(&drawn.batch(&drawn.elements, |_| false));
        for (at, [is_instead, is_early], byte) in damages {
            // What is read first decides most.
            let within = if is_early { 64 } else { body.len() };
            let at = at.index(within.min(body.len()));
            body.splice(at..at + usize::from(is_instead), [byte]);
        }
        check(&body)?;
    }

    #[test]
    fn a_damaged_element_harms_no_other(
        drawn in drawn(),
        damages in prop::collection::vec((any::<Index>(), any::<bool>(), damage()), 1..5),
    ) {
        let mut elements = drawn.elements.clone();
        let mut damaged = BTreeSet::new();
        for (which, is_contact, damage) in &damages {
            let index = which.index(elements.len());
            damaged.insert(index);
            match &mut elements[index].contact {
                Some(contact) if *is_contact => contact.damage(damage),
                _ => elements[index].json.damage(damage),
            }
        }
        let events = check(&plain(&drawn.batch(&elements, |_| false)))?;
        prop_assert!(events.len() >= elements.len(), "nothing is lost");
        for (index, element) in drawn.elements.iter().enumerate() {
            let event = alone(&drawn, element);
            let is_message = element.place == Place::Messages && !element.is_system;
            prop_assert_eq!(as_message(&event).is_some(), is_message);
            let is_there = events.iter().filter(|other| **other == event).count();
            prop_assert!(damaged.contains(&index) || is_there == 1, "{} of {}", is_there, index);
        }
    }

    #[test]
    fn keys_do_not_depend_on_batch_order_or_layout(
        drawn in drawn(),
        shuffled in any::<[u8; 8]>(),
        splits in any::<[bool; 9]>(),
        twin in any::<Index>(),
        layout in layout(),
    ) {
        let elements = &drawn.elements;
        let one_by_one: Vec<Event> = elements.iter().map(|e| alone(&drawn, e)).collect();
        let mut expected = counted(&one_by_one);
        prop_assert_eq!(expected.len(), elements.len(), "another element, another key");

        let mut order: Vec<usize> = (0..elements.len()).collect();
        order.sort_by_key(|index| shuffled[*index]);
        order.push(twin.index(elements.len()));
        let batch: Vec<Element> = order.iter().map(|index| elements[*index].clone()).collect();
        let body = drawn.batch(&batch, |index| splits[index % splits.len()]);
        let mut found = counted(&decode(body.written(layout).as_bytes()));

        *expected.entry(one_by_one[order[elements.len()]].key).or_default() += 1;
        // Members beside the elements may be an event of their own.
        found.retain(|key, _| expected.contains_key(key));
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn the_same_id_on_another_number_is_another_event(drawn in drawn(), which in any::<Index>()) {
        let one = which.get(&drawn.elements);
        let other = Element { frame: (one.frame + 1) % drawn.frames.len(), ..one.clone() };
        prop_assert_ne!(alone(&drawn, one).key, alone(&drawn, &other).key);
    }

    #[test]
    fn canonical_text_is_one_for_all_layouts_and_for_no_other_value(
        json in plain_json(),
        other in plain_json(),
        layouts in (layout(), layout()),
    ) {
        let read = |text: &str| canonical(serde_json::from_str(text).expect("JSON"));
        let (one, two) = (json.written(layouts.0), json.written(layouts.1));
        prop_assert_eq!(read(&one), read(&two));
        let other = other.written(layouts.0);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        prop_assert_eq!(read(&one) == read(&other), value(&one) == value(&other));
    }

    #[test]
    fn canonical_numbers_are_as_many_as_there_are(one in "-?[1-9][0-9]{0,25}", digit in "[0-9]") {
        let other = format!("{one}{digit}");
        let last = format!("{}{digit}", &other[..other.len() - 2]);
        let read = |text: &str| canonical(serde_json::from_str(text).expect("JSON"));
        prop_assert_ne!(read(&one), read(&other));
        if last != one && last != "-" && !last.is_empty() && last != "-0" {
            prop_assert_ne!(read(&one), read(&last), "{} {}", one, last);
        }
    }
}
