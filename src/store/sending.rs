//! What is asked and said of sends, between the sender and the store.
//!
//! Only words: what each of them does to an outgoing is decided by the states of an outgoing.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Attempt, ConversationId, GraphAnswer, NodeId, NumberId, OutgoingId, Recipient, Tag, TurnId,
    Wamid,
};

/// Says whether a node knows of a send, by outgoing and attempt; see
/// [`Store::doubt_unknown`](super::Store::doubt_unknown).
pub type KeepSends = Arc<dyn Fn(OutgoingId, Attempt) -> bool + Send + Sync>;

/// A request for outgoings.
#[derive(Debug, Clone)]
pub struct SendRequest {
    /// Who asks.
    pub node: NodeId,
    /// At most so many.
    pub limit: u32,
    /// At most so many from each of these numbers.
    pub budget: Vec<(NumberId, u32)>,
}

/// The answer to a [`SendRequest`].
#[derive(Debug, Default)]
pub struct Sends {
    /// Each is marked as sending.
    pub outgoings: Vec<Sending>,
    /// How long until the next outgoing becomes due; zero if more are due now.
    pub next_due: Option<Duration>,
}

/// One outgoing, marked as sending.
#[derive(Debug, Clone)]
pub struct Sending {
    /// Which.
    pub id: OutgoingId,
    /// The attempt, this one included.
    pub attempt: Attempt,
    /// Who sends it.
    pub node: NodeId,
    /// What goes into `biz_opaque_callback_data`.
    pub tag: Tag,
    /// The conversation.
    pub conversation: ConversationId,
    /// From this number.
    pub number: NumberId,
    /// To this person or group.
    pub recipient: Recipient,
    /// The Graph message body without recipient.
    pub body: String,
    /// How long ago it entered the outbox.
    pub age: Duration,
    /// The turn that decided it; of `seq` 0, if a bot has sent it outside of any.
    pub turn: TurnId,
    /// Whether a bot has sent it by itself, and may want to know what Meta says.
    pub is_bots: bool,
}

/// What became of one send.
#[derive(Debug, Clone)]
pub struct Settle {
    /// Which.
    pub id: OutgoingId,
    /// Which attempt.
    pub attempt: Attempt,
    /// What is known.
    pub result: SendResult,
    /// What Meta answered, where a bot may want to know it.
    pub answer: Option<GraphAnswer>,
}

/// The sender's conclusion from Meta's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendResult {
    /// Accepted under this wamid.
    Accepted(Wamid),
    /// Surely not sent; try again after a while.
    Retry {
        /// After how long.
        after: Duration,
        /// Why.
        reason: String,
    },
    /// Surely not sent, and nothing of the number can be for a while.
    PauseNumber {
        /// For how long the number waits.
        wait: Duration,
        /// Why.
        reason: String,
    },
    /// Surely not sent; a dead letter.
    Refused {
        /// Why.
        reason: String,
    },
    /// Nobody knows.
    Unsure {
        /// Why.
        reason: String,
    },
}
