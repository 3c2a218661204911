//! The nouns of Hapax and their state machines.
//!
//! Pure: no IO, no async, no clock. Whoever needs the time hands it in. Everything that
//! several rooms of the house must agree on is defined here, once.

pub mod backoff;
pub mod bot_send;
pub mod cause;
pub mod event;
pub mod ids;
pub mod message;
pub mod outgoing;
pub mod phone;
#[cfg(test)]
pub(crate) mod property;
pub mod secret;
pub mod thread;
pub mod time;
pub mod turn;

pub use backoff::Backoff;
pub use cause::{Answer, Cause};
pub use event::{
    AliasKind, Aliases, Event, EventBody, EventKind, InboundMessage, Notice, Receipt,
    ReceiptFailure, ReceiptStatus,
};
pub use ids::{
    BotSendId, ContactId, ConversationId, DeliveryId, EventKey, NodeId, NumberId, OutgoingId,
    StoreId, Tag, TurnId, Wamid,
};
pub use message::{Media, Message};
pub use outgoing::{
    Attempt, Evidence, FailureClass, GraphAnswer, OutgoingState, Rank, Recipient, SendVerdict,
    Transition,
};
pub use secret::Secret;
pub use thread::ThreadId;
pub use time::Timestamp;
pub use turn::{Failure, Handler, Lease, Outcome, Reply, Turn};
