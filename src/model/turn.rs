//! A turn: one run of the handler over pending messages, and what it decides.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::ids::{ContactId, ConversationId, NodeId, NumberId, TurnId};
use super::message::Message;

/// The right to work on a conversation. The epoch only grows; what is written under an older
/// one is refused (fenced).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The conversation.
    pub conversation: ConversationId,
    /// The number of this right.
    pub epoch: i64,
    /// Who holds it.
    pub node: NodeId,
}

/// What a handler is given.
#[derive(Debug, Clone)]
pub struct Turn {
    /// The same over all attempts.
    pub id: TurnId,
    /// The business number that was written to.
    pub number: NumberId,
    /// The conversation; the same for one person and number, for ever.
    pub conversation: ConversationId,
    /// The person.
    pub contact: ContactId,
    /// From 1. A handler with side effects of its own uses [`Turn::id`] to recognise a repeat.
    pub attempt: u32,
    /// The epoch of its lease: another one in each attempt, also in one that does not count.
    pub epoch: i64,
    /// Whether the handler may have been called for it before.
    pub is_again: bool,
    /// Whether nothing of this conversation was handled before.
    pub is_new: bool,
    /// In order; at least one.
    pub messages: Vec<Message>,
    /// How long the handler may take.
    pub deadline: Duration,
}

impl Turn {
    /// The texts of all messages, one a line; empty when none has a text.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self
            .messages
            .iter()
            .filter_map(|m| m.text.as_deref())
            .collect();
        texts.join("\n")
    }
}

/// What a turn decided. A handler can decide nothing else.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Send these, in order. They are decided once: a later attempt never happens.
    Reply(Vec<Reply>),
    /// Deliberately send nothing.
    Silence,
    /// Whoever took the messages answers by itself, now or later: it sends through the bot's
    /// side of Hapax. When the turn is done is a setting.
    Acknowledged,
    /// Try again later; the conversation waits, in order.
    Retry {
        /// Why, for the log and the dead letter.
        reason: String,
        /// What kind of failure it was, which decides how long to go on.
        failure: Failure,
        /// The earliest next attempt, where the handler knows better than the back-off.
        after: Option<Duration>,
    },
    /// Give up on these messages now: they become a dead letter, the next message goes on.
    Discard {
        /// Why, for the dead letter.
        reason: String,
    },
}

impl Outcome {
    /// One text as the answer.
    pub fn reply(text: impl Into<String>) -> Self {
        Self::Reply(vec![Reply::Text(text.into())])
    }

    /// A failure of the handler's own; counts against the attempts.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Retry {
            reason: reason.into(),
            failure: Failure::Failed,
            after: None,
        }
    }

    /// What the handler needs is down; waiting for it costs no attempt.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Retry {
            reason: reason.into(),
            failure: Failure::Unavailable,
            after: None,
        }
    }

    /// The word used in logs, metrics and the ledger.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Reply(_) => "reply",
            Self::Silence => "silence",
            Self::Acknowledged => "acknowledged",
            Self::Retry { .. } => "retry",
            Self::Discard { .. } => "discard",
        }
    }
}

/// Two kinds of failure, told apart because one is the message's and the other is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The handler failed on this turn: counts, and ends as a dead letter after `attempts_max`.
    Failed,
    /// Nobody could have handled it now (the bot is down): does not count; tried for up to
    /// `unavailable_max`.
    Unavailable,
}

/// One message to send.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A text; split where it is longer than Meta takes.
    Text(String),
    /// Any message body of the Graph API: an object with `type` and what belongs to it. Who
    /// it goes to is added by Hapax.
    Body(Value),
}

/// What answers a turn.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Decides one turn. Called for one turn of a conversation at a time, in order. It may be
    /// dropped at any await when the deadline passes, which counts as a failure, and it may be
    /// called again for the same turn after a crash.
    async fn handle(&self, turn: &Turn) -> Outcome;
}
