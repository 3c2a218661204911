//! Decides from the record alone whether every promise was kept. Knows nothing of the gateway's
//! inside; what the gateway says of itself counts only where the wire cannot know.

mod asked;
mod echoed;
mod order;
mod sends;

use std::collections::BTreeMap;
use std::fmt;

use super::accounts::Accounts;
use super::record::Record;

/// How many examples are kept of each kind of fault.
pub const EXAMPLES_MAX: usize = 20;

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Breach {
    /// A message was answered 200, had no effect, and no dead letter says so.
    Missing,
    /// More than one effect of one message.
    Double,
    /// The same was sent again without proof that it had not gone out.
    DoubleSend,
    /// A message overtook one that was answered 200 before it was written.
    Order,
    /// Two effective turns of one conversation ran at the same time.
    Overlap,
    /// A send that answers nothing the person said, or something that must not be answered.
    Unexpected,
    /// One person had two conversations, or two persons one.
    Split,
    /// The messages of a turn were others in another attempt.
    Changed,
    /// What the gateway says of a send is less than what receipts had told it.
    Receipt,
    /// The bot was called without a right signature.
    Unsigned,
    /// Something was still waiting at the end.
    Unsettled,
    /// The database had to end a deadlock.
    Deadlock,
    /// A process ended that nobody had ended.
    Crashed,
    /// The memory of a process grew and grew.
    Memory,
}

impl Breach {
    /// Every one, the gravest first.
    pub const ALL: [Self; 14] = [
        Self::Missing,
        Self::Double,
        Self::DoubleSend,
        Self::Order,
        Self::Overlap,
        Self::Unexpected,
        Self::Split,
        Self::Changed,
        Self::Receipt,
        Self::Unsigned,
        Self::Unsettled,
        Self::Deadlock,
        Self::Crashed,
        Self::Memory,
    ];

    /// Its name in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Double => "double",
            Self::DoubleSend => "double send",
            Self::Order => "out of order",
            Self::Overlap => "overlap",
            Self::Unexpected => "unexpected",
            Self::Split => "split",
            Self::Changed => "changed turn",
            Self::Receipt => "receipt",
            Self::Unsigned => "unsigned",
            Self::Unsettled => "unsettled",
            Self::Deadlock => "deadlock",
            Self::Crashed => "crashed",
            Self::Memory => "memory",
        }
    }
}

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

/// What the bot does, and so what a message has a right to.
#[derive(Debug, Clone)]
pub enum Terms {
    /// Every text is answered with itself. The calls of the bot are not on the record.
    Echo,
    /// The bot's replies were in its answers. Its calls are on the record, and each reply names its
    /// message and its call ([`super::reference::Reference`]). At the end the gateway gave its
    /// accounts.
    Answers(Accounts),
    /// The same of a bot that sends its replies by itself, through the gateway, while it is called:
    /// what one call has said stands in for what a later one says at the same place.
    Sends(Accounts),
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
    /// Calls of the bot, where they are on the record.
    pub calls: u64,
    /// Sends accepted.
    pub replies: u64,
    /// Deliveries never answered 200 although all attempts were made.
    pub undelivered: u64,
    /// Turns that ended as dead letters, each for a reason that the wire shows.
    pub dead_turns: u64,
    /// Replies that Meta refused or that failed, each with its dead letter.
    pub dead_sends: u64,
    /// Replies that never reached Meta, or of which nobody told whether they did: not sent again,
    /// each with its dead letter. The price of never sending twice.
    pub unsure: u64,
    breaches: BTreeMap<Breach, Findings>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.undelivered == 0 && self.breaches.is_empty()
    }

    /// What was found of one kind.
    pub fn of(&self, breach: Breach) -> Findings {
        self.breaches.get(&breach).cloned().unwrap_or_default()
    }

    /// How often one kind was found.
    pub fn count(&self, breach: Breach) -> u64 {
        self.breaches.get(&breach).map_or(0, |found| found.count)
    }

    /// Everything that was found, the gravest first.
    pub fn breaches(&self) -> impl Iterator<Item = (Breach, &Findings)> {
        self.breaches.iter().map(|(breach, found)| (*breach, found))
    }

    /// Notes a breach, in words that name no phone, text or id.
    pub fn add(&mut self, breach: Breach, example: String) {
        self.breaches.entry(breach).or_default().add(example);
    }

    /// Adds the report on what followed.
    pub fn absorb(&mut self, next: Self) {
        self.deliveries += next.deliveries;
        self.events += next.events;
        self.messages += next.messages;
        self.duplicates_posted += next.duplicates_posted;
        self.calls += next.calls;
        self.replies += next.replies;
        self.undelivered += next.undelivered;
        self.dead_turns += next.dead_turns;
        self.dead_sends += next.dead_sends;
        self.unsure += next.unsure;
        for (breach, found) in next.breaches {
            self.breaches.entry(breach).or_default().absorb(found);
        }
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
        let mut found: Vec<String> = self
            .breaches()
            .map(|(breach, found)| format!("{} {}", found.count, breach.as_str()))
            .collect();
        if self.undelivered > 0 {
            found.push(format!("{} undelivered", self.undelivered));
        }
        f.write_str(&found.join(", "))
    }
}

/// Judges a record.
pub fn check(record: &Record, terms: &Terms) -> Report {
    let mut report = Report {
        deliveries: record.posted.len() as u64,
        messages: record.messages.len() as u64,
        events: (record.messages.len() + record.statuses.len()) as u64,
        calls: record.calls.len() as u64,
        replies: record.sends.iter().filter(|sent| sent.accepted).count() as u64,
        undelivered: record.undelivered,
        ..Report::default()
    };
    let copies = record.messages.iter().map(|said| said.copies);
    let told = record.statuses.values().map(|told| told.copies);
    report.duplicates_posted = copies.chain(told).sum::<u64>() - report.events;
    unexpected(record, &mut report);
    match terms {
        Terms::Echo => echoed::check(record, &mut report),
        Terms::Answers(accounts) => recorded(record, accounts, Said::InAnswers, &mut report),
        Terms::Sends(accounts) => recorded(record, accounts, Said::DuringCalls, &mut report),
    }
    order::check_replies(record, &mut report);
    report
}

/// When a bot says what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    InAnswers,
    DuringCalls,
}

fn recorded(record: &Record, accounts: &Accounts, said: Said, report: &mut Report) {
    asked::check(record, accounts, said, report);
    sends::check(record, accounts, said, report);
    order::check_calls(record, report);
    unsettled(accounts, report);
}

fn unexpected(record: &Record, report: &mut Report) {
    for sent in record.sends.iter().filter(|s| s.accepted && !s.expected) {
        report.add(Breach::Unexpected, format!("the send at {}", sent.at_order));
    }
}

fn unsettled(accounts: &Accounts, report: &mut Report) {
    let (pending, open) = (accounts.messages_pending, accounts.outgoing_open);
    if pending > 0 {
        report.add(Breach::Unsettled, format!("{pending} messages still wait"));
    }
    if open > 0 {
        report.add(Breach::Unsettled, format!("{open} sends still wait"));
    }
}

/// What is told of a message in words that name nobody.
fn place(record: &Record, message: usize) -> String {
    let person = record.messages[message].person;
    format!("message {message} of person {person}")
}

#[cfg(test)]
mod planted;
#[cfg(test)]
mod tests;
