//! What a trial is counted by: from what was posted, what was sent, and what the AI server has
//! seen. Pure.

use std::collections::{HashMap, HashSet};

use crate::simulator::ai::{Thread, Threads};
use crate::simulator::record::Mark;

/// A message that a person wrote.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Who wrote it.
    pub person: usize,
    /// What an answer to it quotes.
    pub token: String,
    /// Just before its first copy was posted.
    pub posted: Mark,
    /// Whether any copy of it was answered 200.
    pub is_taken: bool,
    /// When all its copies had been answered or given up; `None` while they have not.
    pub settled: Option<Mark>,
}

/// A message that a person got.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// Who got it.
    pub person: usize,
    /// What it quotes; nothing, if it does not tell what it answers.
    pub tokens: Vec<String>,
    /// When Graph took it.
    pub at: Mark,
}

/// What crossed the wire in a trial. Does not print what it holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Played {
    /// Every message, of one person in the order in which they wrote.
    pub messages: Vec<Message>,
    /// Every reply that Graph took, in order.
    pub replies: Vec<Reply>,
    /// Copies that were never answered 200 although all attempts were made.
    pub undelivered: u64,
    /// Sends that Graph did not take.
    pub refused: u64,
}

impl std::fmt::Debug for Played {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Played")
            .field("messages", &self.messages.len())
            .field("replies", &self.replies.len())
            .finish_non_exhaustive()
    }
}

/// What came of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Messages written.
    pub messages: u64,
    /// Replies that Graph took.
    pub replies: u64,
    /// Messages that were answered more than once; of replies that quote nothing, those beyond
    /// what their person's messages have room for.
    pub double_answers: u64,
    /// People whose messages went into more than one thread at the AI. `None`: no thread was seen.
    pub split_threads: Option<u64>,
    /// Messages whose first answer came after the answer to a later message of the same person.
    /// `None`: replies do not tell what they answer.
    pub out_of_order: Option<u64>,
    /// Replies that quote nothing, to people with messages that no reply quotes: which of those
    /// they answer is not known, so that a double answer and a missing one look like none.
    pub unquoted: u64,
    /// Messages without any answer.
    pub missing: u64,
    /// Answered messages whose answer came only after every copy of them had been answered.
    pub answered_late: u64,
    /// Threads made at the AI.
    pub threads: u64,
}

impl Counts {
    /// Whether it is seen which message each reply answers.
    pub const fn is_told(&self) -> bool {
        self.unquoted == 0
    }

    /// Whether each message was answered once, in order, in one thread, as far as that is seen.
    pub fn is_clean(&self) -> bool {
        let Self {
            double_answers,
            split_threads,
            out_of_order,
            missing,
            ..
        } = self;
        [
            *double_answers,
            split_threads.unwrap_or(0),
            out_of_order.unwrap_or(0),
            *missing,
        ]
        .iter()
        .all(|count| *count == 0)
    }

    /// Whether the bot answers the webhook first and works afterwards: so it was with most
    /// messages.
    pub const fn works_after_answering(&self) -> bool {
        self.answered_late * 2 > self.messages
    }
}

/// Counts what was played. A message that is answered with up to `each` replies is answered once.
pub fn count(played: &Played, threads: &Threads, each: u64) -> Counts {
    let answers = Answers::of(played);
    let unquoted = answers.untold(played);
    let seen: Vec<&Thread> = threads
        .conversations
        .iter()
        .chain(&threads.chains)
        .collect();
    Counts {
        messages: played.messages.len() as u64,
        replies: played.replies.len() as u64,
        double_answers: answers.doubles(played, each.max(1)),
        split_threads: (!seen.is_empty()).then(|| split(played, &seen)),
        out_of_order: (unquoted == 0).then(|| answers.out_of_order(played)),
        unquoted,
        missing: answers.missing(played),
        answered_late: answers.late(played),
        threads: seen.len() as u64,
    }
}

/// How many messages have no answer.
pub(super) fn missing(played: &Played) -> u64 {
    Answers::of(played).missing(played)
}

/// What of one person's messages and replies does not tell what belongs to what.
#[derive(Default)]
struct Unmatched {
    messages: u64,
    room: u64,
    replies: u64,
}

/// Which replies answer which messages.
struct Answers<'a> {
    /// When each message was answered, the first time first.
    quoted: HashMap<&'a str, Vec<Mark>>,
    /// When each person got a reply that quotes nothing.
    unquoted: HashMap<usize, Vec<Mark>>,
}

impl<'a> Answers<'a> {
    fn of(played: &'a Played) -> Self {
        let theirs: HashMap<&str, usize> = played
            .messages
            .iter()
            .map(|message| (message.token.as_str(), message.person))
            .collect();
        let mut answers = Self {
            quoted: HashMap::new(),
            unquoted: HashMap::new(),
        };
        for reply in &played.replies {
            let is_theirs = |token: &&String| theirs.get(token.as_str()) == Some(&reply.person);
            let mut tokens = reply.tokens.iter().filter(is_theirs).peekable();
            if tokens.peek().is_none() {
                answers
                    .unquoted
                    .entry(reply.person)
                    .or_default()
                    .push(reply.at);
            }
            for token in tokens {
                answers.quoted.entry(token).or_default().push(reply.at);
            }
        }
        answers
    }

    fn at(&self, message: &Message) -> &[Mark] {
        self.quoted
            .get(message.token.as_str())
            .map_or(&[], Vec::as_slice)
    }

    /// For each person: messages that no reply quotes, room for replies that quote none, and how
    /// many of those there are.
    fn unmatched(&self, played: &Played, each: u64) -> Vec<Unmatched> {
        let mut people: HashMap<usize, Unmatched> = HashMap::new();
        for message in &played.messages {
            let quoted = self.at(message).len() as u64;
            let theirs = people.entry(message.person).or_default();
            theirs.messages += u64::from(quoted == 0);
            theirs.room += each.saturating_sub(quoted);
        }
        for (person, replies) in &self.unquoted {
            people.entry(*person).or_default().replies = replies.len() as u64;
        }
        people.into_values().collect()
    }

    fn doubles(&self, played: &Played, each: u64) -> u64 {
        let too_many = |message: &&Message| self.at(message).len() as u64 > each;
        let quoted = played.messages.iter().filter(too_many).count() as u64;
        let theirs = self.unmatched(played, each).into_iter();
        let beyond = theirs.map(|theirs| theirs.replies.saturating_sub(theirs.room));
        quoted + beyond.sum::<u64>()
    }

    fn untold(&self, played: &Played) -> u64 {
        let theirs = self.unmatched(played, 1).into_iter();
        let untold = theirs.filter(|theirs| theirs.messages > 0);
        untold.map(|theirs| theirs.replies).sum()
    }

    fn missing(&self, played: &Played) -> u64 {
        let theirs = self.unmatched(played, 1).into_iter();
        let missing = theirs.map(|theirs| theirs.messages.saturating_sub(theirs.replies));
        missing.sum()
    }

    fn out_of_order(&self, played: &Played) -> u64 {
        // From the last to the first: the earliest answer to anything later.
        let mut later: HashMap<usize, Mark> = HashMap::new();
        let mut count = 0;
        for message in played.messages.iter().rev() {
            let Some(first) = self.at(message).first() else {
                continue;
            };
            let earliest = later.entry(message.person).or_insert(Mark::MAX);
            count += u64::from(first > earliest);
            *earliest = (*earliest).min(*first);
        }
        count
    }

    /// Of bots that quote nothing this is not known.
    fn late(&self, played: &Played) -> u64 {
        let is_late = |message: &&Message| {
            let first = self.at(message).first();
            let settled = message.settled.filter(|_| message.is_taken);
            first
                .zip(settled)
                .is_some_and(|(first, settled)| *first > settled)
        };
        played.messages.iter().filter(is_late).count() as u64
    }
}

/// People whose messages went into more than one thread.
fn split(played: &Played, threads: &[&Thread]) -> u64 {
    let person: HashMap<&str, usize> = played
        .messages
        .iter()
        .map(|message| (message.token.as_str(), message.person))
        .collect();
    let mut of: HashMap<usize, u64> = HashMap::new();
    for thread in threads {
        let people = thread
            .tokens
            .iter()
            .filter_map(|token| person.get(token.as_str()));
        for person in people.collect::<HashSet<_>>() {
            *of.entry(*person).or_default() += 1;
        }
    }
    of.values().filter(|threads| **threads > 1).count() as u64
}
