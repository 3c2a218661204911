//! What is told of single rows of the ledger, to those who look at it from outside.
//!
//! No text and no recipient is part of it.

use crate::model::{
    Attempt, ConversationId, OutgoingId, OutgoingState, Rank, Timestamp, TurnId, Wamid,
};

/// One message to send, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingRecord {
    /// Which.
    pub id: OutgoingId,
    /// Whose.
    pub conversation: ConversationId,
    /// The first message of the turn that decided it.
    pub seq: i64,
    /// Where it stands.
    pub state: OutgoingState,
    /// How often it was marked as sending; 0 before the first time.
    pub attempt: Attempt,
    /// How far its receipts say it has come.
    pub rank: Rank,
    /// The last attempt that a receipt has called failed, if any.
    pub failed: Option<Attempt>,
    /// What Meta calls it, where that is known. It holds the person's phone number: not for
    /// logs, nor for operators.
    pub wamid: Option<Wamid>,
}

impl OutgoingRecord {
    /// The turn that decided it.
    pub const fn turn(&self) -> TurnId {
        TurnId {
            conversation: self.conversation,
            seq: self.seq,
        }
    }
}

/// A turn or outgoing that ended without effect; kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// What it was.
    pub kind: DeadKind,
    /// Whose.
    pub conversation: ConversationId,
    /// The outgoing, if it was one.
    pub outgoing: Option<OutgoingId>,
    /// The first message of the turn.
    pub seq: i64,
    /// Why.
    pub reason: String,
    /// After how many attempts.
    pub attempts: Attempt,
    /// When.
    pub at: Timestamp,
}

impl DeadLetter {
    /// The turn that was given up, or that decided the outgoing.
    pub const fn turn(&self) -> TurnId {
        TurnId {
            conversation: self.conversation,
            seq: self.seq,
        }
    }
}

/// The kinds of dead letter. The numbers are the ledger's and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DeadKind {
    /// A turn that used its attempts, or was discarded.
    Turn = 1,
    /// An outgoing that was refused or used its attempts.
    Outgoing = 2,
    /// An outgoing of which nobody ever learnt whether it was sent.
    Unsure = 3,
}

impl DeadKind {
    /// The word shown to operators, the same as in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Outgoing => "outgoing",
            Self::Unsure => "unsure",
        }
    }
}
