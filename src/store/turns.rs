//! What is asked and told of turns, between the worker and the store.

use std::time::Duration;

use super::ClaimToken;
use crate::model::{Attempt, ContactId, EventKey, Lease, NodeId, NumberId, Timestamp, TurnId};

/// Which messages one turn takes. More policies come; each is a rule for the frozen set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// One message a turn.
    Queue,
}

/// A request for work.
#[derive(Debug, Clone, Copy)]
pub struct ClaimRequest {
    /// Who asks.
    pub node: NodeId,
    /// The mark under which the answer is expected.
    pub token: ClaimToken,
    /// At most so many conversations.
    pub limit: u32,
    /// What one turn takes.
    pub policy: Policy,
}

/// The answer to a [`ClaimRequest`].
#[derive(Debug, Default)]
pub struct Claimed {
    /// The turns, oldest due first.
    pub turns: Vec<ClaimedTurn>,
    /// How long until the next conversation becomes due; zero if more are due now.
    pub next_due: Option<Duration>,
}

/// One conversation, claimed, and the messages of its turn.
#[derive(Debug, Clone)]
pub struct ClaimedTurn {
    /// The right to finish it.
    pub lease: Lease,
    /// The turn.
    pub id: TurnId,
    /// The number.
    pub number: NumberId,
    /// The contact.
    pub contact: ContactId,
    /// The attempt, this one included.
    pub attempt: Attempt,
    /// Whether the turn was claimed before, also in an attempt that was given back.
    pub is_again: bool,
    /// Whether nothing of the conversation was handled before.
    pub is_new: bool,
    /// For how long the turn has waited for something that is down, if it does.
    pub unavailable_for: Option<Duration>,
    /// What the last attempt failed with.
    pub last_error: Option<String>,
    /// The messages, in order; never empty.
    pub messages: Vec<StoredMessage>,
}

/// A message as it was appended.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Its place in the conversation.
    pub seq: i64,
    /// The event it came as.
    pub key: EventKey,
    /// When its first delivery arrived.
    pub received_at: Timestamp,
    /// A whole webhook body in Meta's shape that holds only this message.
    pub envelope: String,
}

/// How a turn ended.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The last message it consumed.
    pub seq_last: i64,
    /// How.
    pub end: TurnEnd,
    /// When its handler was first called in this attempt.
    pub started_at: Timestamp,
}

/// The three ways in which a turn ends.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnEnd {
    /// Answered: Graph message bodies without recipient, in order.
    Reply(Vec<String>),
    /// Deliberately not answered.
    Silence,
    /// A dead letter, with its reason.
    Dead(String),
}

/// How a conversation is given back.
#[derive(Debug, Clone)]
pub struct Release {
    /// Not to be claimed before this has passed.
    pub wait: Duration,
    /// Whether the attempt counts.
    pub counts: bool,
    /// Whether what the turn needs is down.
    pub unavailable: bool,
    /// Why; `None` when nothing went wrong (drain).
    pub error: Option<String>,
}

/// The answer to a write under a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was written, now or by an earlier try of the same write.
    Done,
    /// The lease is no longer valid: nothing was written. The design working, not an error.
    Fenced,
}
