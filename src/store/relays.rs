//! What is asked and told of statuses and notices that a bot is to get.

use std::time::Duration;

use crate::model::{BotSendId, ConversationId, EventKey, NodeId, NumberId};

/// How long a status of a bot's own send waits for the send's caller to be told of it, so that the
/// bot knows the message; from when it was asked for last. Who was told nothing has hung up.
pub(super) const UNTOLD_MAX: Duration = Duration::from_secs(15);

/// A request for what is to be relayed.
#[derive(Debug, Clone)]
pub struct RelayRequest {
    /// Who asks; must have a row.
    pub node: NodeId,
    /// What this node has taken and not ended yet. What the store says it has beside these comes
    /// again: the answer that named it was lost.
    pub holds: Vec<EventKey>,
    /// Numbers whose bot is not to be called now; the empty one stands for events without any.
    pub except: Vec<NumberId>,
    /// At most so many.
    pub limit: u32,
}

/// A status or notice that a bot is to get.
#[derive(Clone, PartialEq, Eq)]
pub struct Relaying {
    /// The event.
    pub key: EventKey,
    /// Our number; the empty one for an event without any.
    pub number: NumberId,
    /// How often it has failed.
    pub failures: u32,
    /// The webhook body as it was made when the event came.
    pub envelope: String,
    /// The message of ours that it speaks of, where there is one.
    pub of: Option<OwnMessage>,
}

impl std::fmt::Debug for Relaying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relaying")
            .field("key", &self.key)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// A message of ours, as far as its statuses need it.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnMessage {
    /// With whom.
    pub conversation: ConversationId,
    /// The callback data of the bot that has sent it.
    pub callback: Option<String>,
    /// The send by whose own id the bot knows it, having been told no other.
    pub known_as: Option<BotSendId>,
}

impl std::fmt::Debug for OwnMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnMessage")
            .field("conversation", &self.conversation)
            .finish_non_exhaustive()
    }
}

/// What became of one that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayEnd {
    /// The bot has it, or never will: it is not kept any more.
    Over,
    /// To be tried again after `wait`; `counts` as a failure.
    Again {
        /// How long it waits.
        wait: Duration,
        /// Whether [`Relaying::failures`] is raised.
        counts: bool,
    },
}
