//! What crossed the wire, in one order: which message was posted and answered when, and which
//! reply came when. Data and bookkeeping only: no judgement, no IO, no waiting.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::payload::Seen;
use super::person::Person;

/// A place in the order of everything that crossed the wire. Grows with each thing recorded.
pub type Mark = u64;

/// A message that a person wrote. Does not print what it says.
#[derive(Clone)]
pub struct Said {
    /// Who wrote it, as [`Record::person`] counts.
    pub person: usize,
    /// Its id.
    pub wamid: String,
    /// What it says; `None` when it is not a text, and then no echo is expected.
    pub text: Option<String>,
    /// Just before its first copy was posted.
    pub posted: Mark,
    /// Just after a delivery with it was first answered 200.
    pub answered: Option<Mark>,
    /// How many copies were posted.
    pub copies: u64,
    /// When a reply with its text was accepted, in order. Exactly one is right.
    pub replies: Vec<Mark>,
}

/// One call of the Graph API that asked for a message to be sent. Does not print what it says.
#[derive(Clone)]
pub struct Sent {
    /// Its place among everything that crossed the wire.
    pub at_order: Mark,
    /// When the call had been read, as time since boot.
    pub at: Duration,
    /// The `phone_number_id` it was sent from.
    pub number: String,
    /// `to` without its `+`, or `recipient`.
    pub recipient: String,
    /// The whole body of the call.
    pub body: Value,
    /// The id it was given; `None` when it was not accepted.
    pub wamid: Option<String>,
    /// Its `biz_opaque_callback_data`.
    pub tag: Option<String>,
    /// Whether the message is out. It may be, though the answer was lost.
    pub accepted: bool,
    /// Whether it answers messages of this person, line by line; filled in by the record.
    pub expected: bool,
}

impl Sent {
    /// What it says; empty for what is not a text.
    pub fn text(&self) -> &str {
        self.body["text"]["body"].as_str().unwrap_or_default()
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Said")
            .field("person", &self.person)
            .field("posted", &self.posted)
            .field("answered", &self.answered)
            .field("copies", &self.copies)
            .field("replies", &self.replies)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent")
            .field("at_order", &self.at_order)
            .field("accepted", &self.accepted)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

/// One POST to the webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// Just before it was posted.
    pub at: Mark,
    /// How many elements it carried.
    pub events: usize,
    /// The answer; `None` while it is under way and when there was none.
    pub status: Option<u16>,
    /// From the POST to the answer or the error.
    pub latency: Duration,
}

/// The record of one run.
#[derive(Debug, Default)]
pub struct Record {
    mark: Mark,
    generation: u64,
    people: Vec<Person>,
    by_alias: HashMap<String, usize>,
    by_wamid: HashMap<String, usize>,
    by_text: HashMap<(usize, String), Vec<usize>>,
    /// Every message, in the order of the first posting.
    pub messages: Vec<Said>,
    /// How often each (message id, status) was posted.
    pub statuses: HashMap<(String, String), u64>,
    /// Every call that asked for a message to be sent, accepted or not, in order.
    pub sends: Vec<Sent>,
    /// Every POST, in order.
    pub posted: Vec<Posted>,
    /// Deliveries that were never answered 200 although all attempts were made.
    pub undelivered: u64,
    waiting: usize,
}

/// A POST under way: what [`Record::answered`] needs to know.
#[derive(Debug)]
pub struct UnderWay {
    generation: u64,
    index: usize,
    messages: Vec<usize>,
}

/// What one POST added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// Messages posted for the first time.
    pub messages: u64,
    /// Statuses posted for the first time.
    pub statuses: u64,
    /// Elements that had been posted before.
    pub duplicates: u64,
}

impl Record {
    /// Makes a person known by all their ids at once, so that a reply to either is to them.
    /// Returns the person's number.
    pub fn introduce(&mut self, person: &Person) -> usize {
        let known = person.aliases().find_map(|alias| self.by_alias.get(alias));
        let index = known.copied().unwrap_or_else(|| {
            self.people.push(person.clone());
            self.people.len() - 1
        });
        for alias in person.aliases() {
            self.by_alias.entry(alias.to_owned()).or_insert(index);
        }
        let kept = &mut self.people[index];
        kept.phone = kept.phone.take().or_else(|| person.phone.clone());
        kept.bsuid = kept.bsuid.take().or_else(|| person.bsuid.clone());
        index
    }

    /// The person behind an id.
    pub fn person(&self, alias: &str) -> Option<&Person> {
        self.by_alias.get(alias).map(|&index| &self.people[index])
    }

    /// Messages that were answered 200 and have no reply yet.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// The message with this id.
    pub fn message(&self, wamid: &str) -> Option<&Said> {
        self.by_wamid.get(wamid).map(|&index| &self.messages[index])
    }

    /// A delivery with these elements is about to be posted.
    pub fn posting(&mut self, elements: Vec<Seen>) -> (UnderWay, Added) {
        let at = self.tick();
        let events = elements.len();
        let mut added = Added::default();
        let mut messages = Vec::new();
        for element in elements {
            match element {
                Seen::Message {
                    wamid,
                    aliases,
                    text,
                } => {
                    let index = self.message_index(wamid, &aliases, text, at);
                    let copies = &mut self.messages[index].copies;
                    *copies += 1;
                    count(*copies, &mut added.messages, &mut added.duplicates);
                    messages.push(index);
                }
                Seen::Status { wamid, status } => {
                    let copies = self.statuses.entry((wamid, status)).or_insert(0);
                    *copies += 1;
                    count(*copies, &mut added.statuses, &mut added.duplicates);
                }
            }
        }
        self.posted.push(Posted {
            at,
            events,
            status: None,
            latency: Duration::ZERO,
        });
        let under_way = UnderWay {
            generation: self.generation,
            index: self.posted.len() - 1,
            messages,
        };
        (under_way, added)
    }

    /// The delivery was answered with `status`, or not at all.
    pub fn answered(&mut self, under_way: UnderWay, status: Option<u16>, latency: Duration) {
        // A record that was emptied meanwhile no longer knows the delivery.
        if under_way.generation != self.generation {
            return;
        }
        let at = self.tick();
        let posted = &mut self.posted[under_way.index];
        posted.status = status;
        posted.latency = latency;
        if status != Some(200) {
            return;
        }
        for index in under_way.messages {
            let message = &mut self.messages[index];
            if message.answered.is_none() {
                message.answered = Some(at);
                self.waiting += usize::from(message.text.is_some() && message.replies.is_empty());
            }
        }
    }

    /// A call asked for a message to be sent. Returns the ids of the messages that it answers.
    pub fn sent(&mut self, mut sent: Sent) -> Vec<String> {
        sent.at_order = self.tick();
        let mut answers = Vec::new();
        if sent.accepted {
            let person = self.by_alias.get(&sent.recipient).copied();
            let text = sent.text().to_owned();
            // A handler that takes several messages in one turn echoes them line by line.
            let whole = person.is_some_and(|p| self.by_text.contains_key(&(p, text.clone())));
            let lines: Vec<&str> = if whole {
                vec![&text]
            } else {
                text.split('\n').collect()
            };
            answers = lines
                .iter()
                .filter_map(|line| self.attribute(person?, line))
                .collect();
            sent.expected = answers.len() == lines.len();
        }
        self.sends.push(sent);
        answers
    }

    /// Empties the record but still knows the people; returns what it held.
    pub fn take(&mut self) -> Self {
        let fresh = Self {
            mark: self.mark,
            generation: self.generation + 1,
            people: self.people.clone(),
            by_alias: self.by_alias.clone(),
            ..Self::default()
        };
        std::mem::replace(self, fresh)
    }

    fn tick(&mut self) -> Mark {
        self.mark += 1;
        self.mark
    }

    fn message_index(
        &mut self,
        wamid: String,
        aliases: &[String],
        text: Option<String>,
        posted: Mark,
    ) -> usize {
        if let Some(&index) = self.by_wamid.get(&wamid) {
            return index;
        }
        let person = self.sender(aliases);
        let index = self.messages.len();
        self.by_wamid.insert(wamid.clone(), index);
        if let Some(text) = &text {
            let same = self.by_text.entry((person, text.clone())).or_default();
            same.push(index);
        }
        self.messages.push(Said {
            person,
            wamid,
            text,
            posted,
            answered: None,
            copies: 0,
            replies: Vec::new(),
        });
        index
    }

    fn sender(&mut self, aliases: &[String]) -> usize {
        let is_bsuid = |alias: &&String| alias.contains('.');
        self.introduce(&Person {
            name: String::new(),
            phone: aliases.iter().find(|a| !is_bsuid(a)).cloned(),
            bsuid: aliases.iter().find(is_bsuid).cloned(),
        })
    }

    /// Gives a reply to the message it answers: of several with the same text, to the one with
    /// the fewest replies.
    fn attribute(&mut self, person: usize, line: &str) -> Option<String> {
        let same = self.by_text.get(&(person, line.to_owned()))?;
        let index = *same
            .iter()
            .min_by_key(|&&i| self.messages[i].replies.len())?;
        let mark = self.tick();
        let message = &mut self.messages[index];
        self.waiting -= usize::from(message.answered.is_some() && message.replies.is_empty());
        message.replies.push(mark);
        Some(message.wamid.clone())
    }
}

const fn count(copies: u64, first: &mut u64, again: &mut u64) {
    if copies == 1 {
        *first += 1;
    } else {
        *again += 1;
    }
}

#[cfg(test)]
mod tests {
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
            expected: false,
        }
    }

    #[test]
    fn copies_and_first_answers_are_told_apart() {
        let mut record = Record::default();
        let (first, added) = record.posting(vec![said(&["1"], "A", "hi")]);
        assert_eq!((added.messages, added.duplicates), (1, 0));
        let (second, added) = record.posting(vec![said(&["1"], "A", "hi")]);
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
        record.posting(vec![said(&["1", "US.1"], "A", "hi")]);
        record.posting(vec![said(&["US.1"], "B", "ho")]);
        assert_eq!(record.messages[0].person, record.messages[1].person);
        assert_eq!(record.sent(reply("1", "ho")), ["B"]);
        assert_eq!(record.sent(reply("US.1", "hi")), ["A"]);
    }

    #[test]
    fn a_reply_may_answer_several_messages_line_by_line() {
        let mut record = Record::default();
        record.posting(vec![said(&["1"], "A", "hi"), said(&["1"], "B", "ho")]);
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
        let (late, _) = record.posting(vec![said(&["1"], "A", "hi")]);
        let taken = record.take();
        assert_eq!(taken.messages.len(), 1);
        record.posting(vec![said(&["US.1"], "B", "hi")]);
        record.answered(late, Some(200), Duration::ZERO);
        assert_eq!(record.waiting(), 0);
        assert_eq!(record.messages[0].person, person);
        assert!(record.messages[0].posted > taken.messages[0].posted);
    }
}
