//! Histories written by hand, each with one fault planted.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::simulator::record::{Sent, UnderWay};
use crate::simulator::seen::Seen;

/// A history written by hand: `>` posts, `=` answers 200, `<` replies. Each word is one of
/// these signs, a person and a message: `>a1` posts message 1 of person a.
fn judge(script: &str) -> Report {
    let mut record = Record::default();
    let mut under_way: Vec<(String, UnderWay)> = Vec::new();
    for word in script.split_whitespace() {
        let (sign, message) = word.split_at(1);
        let (person, _) = message.split_at(1);
        match sign {
            ">" => {
                let seen = Seen::Message {
                    wamid: message.to_owned(),
                    aliases: vec![person.to_owned(), format!("US.{person}")],
                    text: Some(message.to_owned()),
                };
                under_way.push((
                    message.to_owned(),
                    record.posting(vec![seen], Duration::ZERO).0,
                ));
            }
            "=" => {
                let at = under_way.iter().position(|(m, _)| m == message).unwrap();
                record.answered(under_way.remove(at).1, Some(200), Duration::ZERO);
            }
            "<" => reply(&mut record, person, message),
            other => panic!("{other}"),
        }
    }
    check(&record, &Terms::Echo)
}

fn reply(record: &mut Record, to: &str, text: &str) {
    record.sent(Sent {
        at_order: 0,
        at: Duration::ZERO,
        number: "n".to_owned(),
        recipient: to.to_owned(),
        body: json!({ "text": { "body": text } }),
        wamid: None,
        tag: None,
        accepted: true,
        refused: None,
        is_clear: true,
        answers: Vec::new(),
        expected: false,
    });
}

fn faults(script: &str) -> [u64; 4] {
    let report = judge(script);
    let counts = [
        report.count(Breach::Missing),
        report.count(Breach::Double),
        report.count(Breach::Order),
        report.count(Breach::Unexpected),
    ];
    assert_eq!(report.is_clean(), counts == [0; 4]);
    counts
}

#[test]
fn a_clean_history_has_no_findings() {
    assert_eq!(faults(""), [0; 4]);
    assert_eq!(faults(">a1 =a1 <a1 >a2 =a2 <a2"), [0; 4]);
    assert_eq!(
        faults(">a1 >a1 =a1 >b1 =b1 <b1 =a1 >a2 =a2 <a1 <a2"),
        [0; 4]
    );
    // The reply may come before the answer to the delivery.
    assert_eq!(faults(">a1 <a1 =a1"), [0; 4]);
}

#[test]
fn concurrent_messages_may_be_answered_in_any_order() {
    assert_eq!(faults(">a1 >a2 =a1 =a2 <a2 <a1"), [0; 4]);
    // Another person's messages are never in order with these.
    assert_eq!(faults(">a1 =a1 >b1 =b1 <b1 <a1"), [0; 4]);
}

#[test]
fn each_planted_fault_is_found() {
    assert_eq!(faults(">a1 =a1 >a2 =a2 <a2"), [1, 0, 0, 0], "missing");
    assert_eq!(faults(">a1 =a1 <a1 <a1"), [0, 1, 0, 0], "double");
    assert_eq!(faults(">a1 =a1 <a1 <a1 <a1"), [0, 2, 0, 0], "thrice");
    assert_eq!(faults(">a1 =a1 >a2 =a2 <a2 <a1"), [0, 0, 1, 0], "swapped");
    assert_eq!(faults(">a1 =a1 <a1 <a7"), [0, 0, 0, 1], "never said");
}

#[test]
fn a_reply_to_the_wrong_person_is_unexpected_and_missing() {
    let mut record = Record::default();
    for person in ["a", "b"] {
        let seen = Seen::Message {
            wamid: person.to_owned(),
            aliases: vec![person.to_owned()],
            text: Some(person.to_owned()),
        };
        let (under_way, _) = record.posting(vec![seen], Duration::ZERO);
        record.answered(under_way, Some(200), Duration::ZERO);
    }
    reply(&mut record, "a", "a");
    reply(&mut record, "a", "b");
    reply(&mut record, "stranger", "b");
    let report = check(&record, &Terms::Echo);
    assert_eq!(report.count(Breach::Missing), 1);
    assert_eq!(report.count(Breach::Unexpected), 2);
}

#[test]
fn who_was_never_answered_is_owed_nothing() {
    assert_eq!(faults(">a1"), [0; 4]);
    assert_eq!(faults(">a1 <a1"), [0; 4]);
    assert_eq!(faults(">a1 <a1 <a1"), [0, 1, 0, 0]);
}

#[test]
fn one_overtaking_in_a_long_conversation_is_named() {
    let mut script = String::new();
    for n in 1..=9 {
        script += &format!(">a{n} =a{n} ");
    }
    let report = judge(&(script + "<a1 <a2 <a4 <a3 <a5 <a6 <a7 <a8 <a9"));
    assert_eq!(report.count(Breach::Order), 1);
    assert_eq!(
        report.of(Breach::Order).examples,
        ["message 3 of person 0 was answered before message 2"]
    );
}

#[test]
fn reports_add_up_and_keep_few_examples() {
    let mut total = Report::default();
    for _ in 0..30 {
        total.absorb(judge(">a1 >a1 =a1"));
    }
    assert_eq!(total.count(Breach::Missing), 30);
    assert_eq!(total.of(Breach::Missing).examples.len(), EXAMPLES_MAX);
    assert_eq!(
        (total.deliveries, total.events, total.duplicates_posted),
        (60, 30, 30)
    );
    assert!(total.to_string().ends_with("30 missing"), "{total}");
}
