//! What crossed the wire, in one order: which message was posted and answered when, what the bot
//! was asked and said, which reply came when, what Meta told of it. Data and bookkeeping only: no
//! judgement, no IO, no waiting.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::person::Person;
use super::reference::Reference;
use super::seen::Seen;

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
    /// The same, as time since boot.
    pub posted_at: Duration,
    /// Just after a delivery with it was first answered 200.
    pub answered: Option<Mark>,
    /// How many copies were posted.
    pub copies: u64,
    /// When a reply to it was accepted, in order.
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
    /// The error code with which it was refused, in words that leave no doubt.
    pub refused: Option<i64>,
    /// Whether Meta meant to answer it at once, with what became of it.
    pub is_clear: bool,
    /// The messages of this person that it answers, as indices; filled in by the record.
    pub answers: Vec<usize>,
    /// Whether it answers messages of this person, line by line; filled in by the record.
    pub expected: bool,
}

impl Sent {
    /// What it says; empty for what is not a text.
    pub fn text(&self) -> &str {
        self.body["text"]["body"].as_str().unwrap_or_default()
    }
}

/// One call of the bot. Does not print what it holds.
#[derive(Clone)]
pub struct Asked {
    /// When it was read.
    pub began: Mark,
    /// The same, as time since boot.
    pub began_at: Duration,
    /// When it was answered or cut; `None` while it runs.
    pub ended: Option<Mark>,
    /// The same, as time since boot.
    pub ended_at: Option<Duration>,
    /// What it was answered; `None` while it runs and when it was cut.
    pub status: Option<u16>,
    /// How many replies the answer held.
    pub replies: usize,
    /// `X-Hapax-Conversation`.
    pub conversation: String,
    /// `X-Hapax-Turn`.
    pub turn: String,
    /// The messages it was asked about, by id.
    pub wamids: Vec<String>,
    /// Whether it was rightly signed.
    pub is_signed: bool,
}

/// Which status of which message; Meta tells each member of a group apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StatusKey {
    /// The message.
    pub wamid: String,
    /// Meta's word.
    pub status: String,
    /// The member of a group.
    pub participant: Option<String>,
}

/// A status that was posted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// How many copies were posted.
    pub copies: u64,
    /// Just before its first copy was posted.
    pub posted: Mark,
    /// Just after a delivery with it was first answered 200.
    pub answered: Option<Mark>,
    /// The error code of a `failed`.
    pub code: Option<i64>,
    /// Whether it names the send by what the sender had asked to get back.
    pub is_tagged: bool,
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
            .field("refused", &self.refused)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("began", &self.began)
            .field("ended", &self.ended)
            .field("status", &self.status)
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

/// One POST to the webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// Just before it was posted.
    pub at: Mark,
    /// The same, as time since boot.
    pub began_at: Duration,
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
    /// Every status.
    pub statuses: HashMap<StatusKey, Told>,
    /// What looks like a message and must never be answered: id, and copies posted.
    pub notices: HashMap<String, u64>,
    /// Every call of the bot, in the order of their beginnings.
    pub calls: Vec<Asked>,
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
    statuses: Vec<StatusKey>,
}

/// A call of the bot under way: what [`Record::said`] needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    generation: u64,
    index: usize,
    /// Its number, which no other call of the run has.
    pub number: Mark,
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

    /// The place of the last thing that was recorded.
    pub const fn mark(&self) -> Mark {
        self.mark
    }

    /// Messages that were answered 200 and have no reply yet.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// The message with this id.
    pub fn message(&self, wamid: &str) -> Option<&Said> {
        self.by_wamid.get(wamid).map(|&index| &self.messages[index])
    }

    /// The same, as an index into [`Record::messages`].
    pub fn message_index(&self, wamid: &str) -> Option<usize> {
        self.by_wamid.get(wamid).copied()
    }

    /// A delivery with these elements is about to be posted.
    pub fn posting(&mut self, elements: Vec<Seen>, began_at: Duration) -> (UnderWay, Added) {
        let at = self.tick();
        let events = elements.len();
        let mut added = Added::default();
        let mut messages = Vec::new();
        let mut statuses = Vec::new();
        for element in elements {
            match element {
                Seen::Message {
                    wamid,
                    aliases,
                    text,
                } => {
                    let index = self.posted_message(wamid, &aliases, text, (at, began_at));
                    let copies = &mut self.messages[index].copies;
                    *copies += 1;
                    count(*copies, &mut added.messages, &mut added.duplicates);
                    messages.push(index);
                }
                Seen::Status {
                    wamid,
                    status,
                    participant,
                    code,
                    is_tagged,
                } => {
                    let key = StatusKey {
                        wamid,
                        status,
                        participant,
                    };
                    let told = self.statuses.entry(key.clone()).or_insert(Told {
                        posted: at,
                        code,
                        is_tagged,
                        ..Told::default()
                    });
                    told.copies += 1;
                    count(told.copies, &mut added.statuses, &mut added.duplicates);
                    statuses.push(key);
                }
                Seen::Notice { wamid } => *self.notices.entry(wamid).or_insert(0) += 1,
            }
        }
        self.posted.push(Posted {
            at,
            began_at,
            events,
            status: None,
            latency: Duration::ZERO,
        });
        let under_way = UnderWay {
            generation: self.generation,
            index: self.posted.len() - 1,
            messages,
            statuses,
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
        for key in under_way.statuses {
            if let Some(told) = self.statuses.get_mut(&key) {
                told.answered.get_or_insert(at);
            }
        }
    }

    /// The bot is asked; what is not known yet of the call (its place, its end) is filled in.
    pub fn asked(&mut self, mut asked: Asked) -> Asking {
        asked.began = self.tick();
        let asking = Asking {
            generation: self.generation,
            index: self.calls.len(),
            number: asked.began,
        };
        self.calls.push(asked);
        asking
    }

    /// The bot has answered a call with so many replies, or it was cut.
    pub fn said(
        &mut self,
        asking: Asking,
        ended_at: Duration,
        status: Option<u16>,
        replies: usize,
    ) {
        if asking.generation != self.generation {
            return;
        }
        let at = self.tick();
        let asked = &mut self.calls[asking.index];
        asked.ended = Some(at);
        asked.ended_at = Some(ended_at);
        asked.status = status;
        asked.replies = replies;
    }

    /// A call asked for a message to be sent. Returns the ids of the messages that it answers.
    pub fn sent(&mut self, mut sent: Sent) -> Vec<String> {
        sent.at_order = self.tick();
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
            sent.answers = lines
                .iter()
                .filter_map(|line| self.attribute(person?, line))
                .collect();
            sent.expected = sent.answers.len() == lines.len();
        }
        let wamid = |index: &usize| self.messages[*index].wamid.clone();
        let answers = sent.answers.iter().map(wamid).collect();
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

    fn posted_message(
        &mut self,
        wamid: String,
        aliases: &[String],
        text: Option<String>,
        (posted, posted_at): (Mark, Duration),
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
            posted_at,
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
            group: None,
        })
    }

    /// Gives a reply to the message it answers: to the one it names; else of several with the
    /// same text, to the one with the fewest replies.
    fn attribute(&mut self, person: usize, line: &str) -> Option<usize> {
        let named = Reference::parse(line).and_then(|to| self.message_index(&to.wamid));
        let index = match named {
            Some(index) => Some(index).filter(|&index| self.messages[index].person == person)?,
            None => {
                let same = self.by_text.get(&(person, line.to_owned()))?;
                *same
                    .iter()
                    .min_by_key(|&&i| self.messages[i].replies.len())?
            }
        };
        let mark = self.tick();
        let message = &mut self.messages[index];
        let was_waiting = message.answered.is_some() && message.text.is_some();
        self.waiting -= usize::from(was_waiting && message.replies.is_empty());
        message.replies.push(mark);
        Some(index)
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
mod tests;
