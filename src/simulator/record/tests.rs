//! The bookkeeping, thing by thing.

use serde_json::json;

use super::*;

fn said(alias: &[&str], wamid: &str, text: &str) -> Seen {
    Seen::Message {
        wamid: wamid.to_owned(),
        aliases: alias.iter().map(|&a| a.to_owned()).collect(),
        text: Some(text.to_owned()),
    }
}

fn reply(to: &str, text: &str) -> Sent {
    Sent {
        at_order: 0,
        at: Duration::ZERO,
        number: "n".to_owned(),
        recipient: to.to_owned(),
        body: json!({ "type": "text", "text": { "body": text } }),
        wamid: Some("wamid.R".to_owned()),
        tag: None,
        accepted: true,
        refused: None,
        is_clear: true,
        answers: Vec::new(),
        expected: false,
    }
}

#[test]
fn copies_and_first_answers_are_told_apart() {
    let mut record = Record::default();
    let (first, added) = record.posting(vec![said(&["1"], "A", "hi")], Duration::ZERO);
    assert_eq!((added.messages, added.duplicates), (1, 0));
    let (second, added) = record.posting(vec![said(&["1"], "A", "hi")], Duration::ZERO);
    assert_eq!((added.messages, added.duplicates), (0, 1));
    record.answered(second, Some(503), Duration::ZERO);
    assert_eq!(record.messages[0].answered, None);
    record.answered(first, Some(200), Duration::ZERO);
    assert_eq!(record.waiting(), 1);
    assert_eq!(record.sent(reply("1", "hi")), ["A"]);
    assert_eq!(record.waiting(), 0);
    assert_eq!(record.messages[0].copies, 2);
}

#[test]
fn ids_shown_together_are_one_person() {
    let mut record = Record::default();
    record.posting(vec![said(&["1", "US.1"], "A", "hi")], Duration::ZERO);
    record.posting(vec![said(&["US.1"], "B", "ho")], Duration::ZERO);
    assert_eq!(record.messages[0].person, record.messages[1].person);
    assert_eq!(record.sent(reply("1", "ho")), ["B"]);
    assert_eq!(record.sent(reply("US.1", "hi")), ["A"]);
}

#[test]
fn a_reply_may_answer_several_messages_line_by_line() {
    let mut record = Record::default();
    record.posting(
        vec![said(&["1"], "A", "hi"), said(&["1"], "B", "ho")],
        Duration::ZERO,
    );
    assert_eq!(record.sent(reply("1", "hi\nho")), ["A", "B"]);
    assert!(record.sends[0].expected);
    assert!(record.messages[0].replies[0] < record.messages[1].replies[0]);
    record.sent(reply("1", "hi\nwhat?"));
    assert!(!record.sends[1].expected);
}

#[test]
fn an_emptied_record_goes_on_and_knows_its_people() {
    let mut record = Record::default();
    let person = record.introduce(&Person::by_both("1", "US.1"));
    let (late, _) = record.posting(vec![said(&["1"], "A", "hi")], Duration::ZERO);
    let taken = record.take();
    assert_eq!(taken.messages.len(), 1);
    record.posting(vec![said(&["US.1"], "B", "hi")], Duration::ZERO);
    record.answered(late, Some(200), Duration::ZERO);
    assert_eq!(record.waiting(), 0);
    assert_eq!(record.messages[0].person, person);
    assert!(record.messages[0].posted > taken.messages[0].posted);
}

#[test]
fn a_reply_that_names_its_message_is_given_to_that_one_alone() {
    let mut record = Record::default();
    record.posting(
        vec![said(&["1"], "A", "hi"), said(&["1"], "B", "hi")],
        Duration::ZERO,
    );
    let to = |wamid: &str| Reference {
        wamid: wamid.to_owned(),
        call: 7,
        part: 1,
        parts: 2,
    };
    assert_eq!(Reference::parse(&to("B").to_string()), Some(to("B")));
    assert_eq!(record.sent(reply("1", &to("B").to_string())), ["B"]);
    record.sent(reply("1", &to("C").to_string()));
    assert!(!record.sends[1].expected, "nobody has said that");
}
