//! Decides from the record alone whether an echoing bot answered every message exactly once, to
//! the right person, in order. Knows nothing of the gateway and believes nothing it says.

use std::collections::BTreeMap;
use std::fmt;

use super::record::{Mark, Record, Said};

/// How many examples are kept of each kind of fault.
pub const EXAMPLES_MAX: usize = 20;

/// One kind of fault: how often, and where first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// How often it was found.
    pub count: u64,
    /// The first ones, in words that name no phone, text or id.
    pub examples: Vec<String>,
}

impl Findings {
    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, example: String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example);
        }
    }

    fn absorb(&mut self, other: Self) {
        self.count += other.count;
        let room = EXAMPLES_MAX - self.examples.len();
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

/// The verdict on a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// POSTs made.
    pub deliveries: u64,
    /// Distinct events posted, messages and statuses.
    pub events: u64,
    /// Distinct messages among them.
    pub messages: u64,
    /// Elements that were posted though they had been posted before.
    pub duplicates_posted: u64,
    /// Sends accepted.
    pub replies: u64,
    /// Deliveries never answered 200 although all attempts were made.
    pub undelivered: u64,
    /// Messages answered 200 that have no reply.
    pub missing: Findings,
    /// Replies beyond the first to one message.
    pub double_replies: Findings,
    /// Messages whose reply came before that of a message answered before they were written.
    pub order_violations: Findings,
    /// Sends that answer nothing the person said: a wrong person or a wrong text.
    pub unexpected: Findings,
}

impl Report {
    /// Whether nothing is wrong.
    pub const fn is_clean(&self) -> bool {
        self.undelivered == 0
            && self.missing.is_empty()
            && self.double_replies.is_empty()
            && self.order_violations.is_empty()
            && self.unexpected.is_empty()
    }

    /// Adds the report on what followed.
    pub fn absorb(&mut self, next: Self) {
        self.deliveries += next.deliveries;
        self.events += next.events;
        self.messages += next.messages;
        self.duplicates_posted += next.duplicates_posted;
        self.replies += next.replies;
        self.undelivered += next.undelivered;
        self.missing.absorb(next.missing);
        self.double_replies.absorb(next.double_replies);
        self.order_violations.absorb(next.order_violations);
        self.unexpected.absorb(next.unexpected);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} deliveries, {} events ({} messages), {} duplicates, {} replies: ",
            self.deliveries, self.events, self.messages, self.duplicates_posted, self.replies
        )?;
        if self.is_clean() {
            return f.write_str("every message answered once, in order");
        }
        let faults = [
            ("missing", self.missing.count),
            ("double", self.double_replies.count),
            ("out of order", self.order_violations.count),
            ("unexpected", self.unexpected.count),
            ("undelivered", self.undelivered),
        ];
        let found: Vec<String> = faults
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        f.write_str(&found.join(", "))
    }
}

/// Judges a record.
pub fn check(record: &Record) -> Report {
    let mut report = Report {
        deliveries: record.posted.len() as u64,
        messages: record.messages.len() as u64,
        events: (record.messages.len() + record.statuses.len()) as u64,
        replies: record.sends.iter().filter(|sent| sent.accepted).count() as u64,
        undelivered: record.undelivered,
        ..Report::default()
    };
    let copies = record.messages.iter().map(|said| said.copies);
    let arrivals: u64 = copies.chain(record.statuses.values().copied()).sum();
    report.duplicates_posted = arrivals - report.events;
    check_replies(record, &mut report);
    check_order(record, &mut report);
    report
}

fn check_replies(record: &Record, report: &mut Report) {
    for (number, said) in record.messages.iter().enumerate() {
        let place = || format!("message {number} of person {}", said.person);
        if said.replies.is_empty() && said.answered.is_some() && said.text.is_some() {
            report.missing.add(place());
        }
        for _ in said.replies.iter().skip(1) {
            report.double_replies.add(place());
        }
    }
    for sent in record.sends.iter().filter(|s| s.accepted && !s.expected) {
        let example = format!("the send at {}", sent.at_order);
        report.unexpected.add(example);
    }
}

fn check_order(record: &Record, report: &mut Report) {
    let mut people: BTreeMap<usize, Vec<(usize, &Said)>> = BTreeMap::new();
    for (number, said) in record.messages.iter().enumerate() {
        people.entry(said.person).or_default().push((number, said));
    }
    for (person, said) in people {
        for (earlier, later) in overtaking(&said) {
            report.order_violations.add(format!(
                "message {later} of person {person} was answered before message {earlier}"
            ));
        }
    }
}

/// Pairs (a, b) of one person's messages, at most one for each b: a was answered 200 before b
/// was first posted, and yet b's first reply came before a's.
///
/// One walk in the order of posting, beside one in the order of the answers, so that a long
/// conversation costs no more than sorting it.
fn overtaking(said: &[(usize, &Said)]) -> Vec<(usize, usize)> {
    let replied = |said: &Said| said.replies.first().copied();
    let mut answered: Vec<(Mark, Mark, usize)> = said
        .iter()
        .filter_map(|&(number, a)| Some((a.answered?, replied(a)?, number)))
        .collect();
    answered.sort_unstable();
    let mut before = answered.into_iter().peekable();
    let mut latest: Option<(Mark, usize)> = None;
    let mut found = Vec::new();
    for &(number, b) in said {
        while let Some((_, reply, earlier)) = before.next_if(|(at, ..)| *at < b.posted) {
            latest = latest.max(Some((reply, earlier)));
        }
        if let (Some((reply, earlier)), Some(own)) = (latest, replied(b))
            && own < reply
        {
            found.push((earlier, number));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::simulator::payload::Seen;
    use crate::simulator::record::{Sent, UnderWay};

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
                    under_way.push((message.to_owned(), record.posting(vec![seen]).0));
                }
                "=" => {
                    let at = under_way.iter().position(|(m, _)| m == message).unwrap();
                    record.answered(under_way.remove(at).1, Some(200), Duration::ZERO);
                }
                "<" => reply(&mut record, person, message),
                other => panic!("{other}"),
            }
        }
        check(&record)
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
            expected: false,
        });
    }

    fn faults(script: &str) -> [u64; 4] {
        let report = judge(script);
        let counts = [
            report.missing.count,
            report.double_replies.count,
            report.order_violations.count,
            report.unexpected.count,
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
            let (under_way, _) = record.posting(vec![seen]);
            record.answered(under_way, Some(200), Duration::ZERO);
        }
        reply(&mut record, "a", "a");
        reply(&mut record, "a", "b");
        reply(&mut record, "stranger", "b");
        let report = check(&record);
        assert_eq!(report.missing.count, 1);
        assert_eq!(report.unexpected.count, 2);
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
        assert_eq!(report.order_violations.count, 1);
        assert_eq!(
            report.order_violations.examples,
            ["message 3 of person 0 was answered before message 2"]
        );
    }

    #[test]
    fn reports_add_up_and_keep_few_examples() {
        let mut total = Report::default();
        for _ in 0..30 {
            total.absorb(judge(">a1 >a1 =a1"));
        }
        assert_eq!(total.missing.count, 30);
        assert_eq!(total.missing.examples.len(), EXAMPLES_MAX);
        assert_eq!(
            (total.deliveries, total.events, total.duplicates_posted),
            (60, 30, 30)
        );
        assert!(total.to_string().ends_with("30 missing"), "{total}");
    }
}
