//! What a gateway says of itself when a run is over, as it says it over HTTP to anybody who may
//! ask. Believed only where what crossed the wire does not say otherwise.

use std::time::Duration;

use serde::Deserialize;

/// What is left at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Messages without an end.
    pub messages_pending: u64,
    /// Sends without an end.
    pub outgoing_open: u64,
    /// Open dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// Every message that was to be sent.
    pub outgoing: Vec<Outgoing>,
    /// When something was broken that may leave a send without an answer: from and until, as time
    /// since boot. This alone comes from who broke it.
    pub disturbed: Vec<(Duration, Duration)>,
}

/// A turn or a send that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeadLetter {
    /// `turn`, `outgoing` or `unsure`.
    pub kind: String,
    /// The turn, by the name that the bot was given.
    pub turn: String,
    /// The send, if it was one, by the name in its tag.
    pub outgoing: Option<String>,
    /// Why.
    pub reason: String,
}

impl Accounts {
    /// Whether nothing waits any more.
    pub const fn is_settled(&self) -> bool {
        self.messages_pending == 0 && self.outgoing_open == 0
    }
}

impl Outgoing {
    /// Whether it has no end yet.
    pub fn is_open(&self) -> bool {
        !matches!(self.state.as_str(), "sent" | "dead")
    }
}

impl DeadLetter {
    /// Whether it is a turn, not a send.
    pub fn is_turn(&self) -> bool {
        self.kind == "turn"
    }

    /// Whether it is a send of which nobody has learnt whether it went out.
    pub fn is_unsure(&self) -> bool {
        self.kind == "unsure"
    }
}

/// A message that was to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Outgoing {
    /// Its name in its tags.
    pub id: String,
    /// Whose it is.
    pub turn: String,
    /// `pending`, `sending`, `unsure`, `sent` or `dead`.
    pub state: String,
    /// How often it was marked as being sent.
    pub attempt: u32,
    /// How far it has come: `none`, `sent`, `delivered`, `read` or `played`.
    pub rank: String,
}

/// How far a word of Meta's is along the way; 0 for any other word.
pub fn rank(word: &str) -> u8 {
    match word {
        "sent" => 1,
        "delivered" => 2,
        "read" => 3,
        "played" => 4,
        _ => 0,
    }
}
