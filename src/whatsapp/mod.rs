//! All knowledge of Meta: how deliveries are signed, what payloads look like, what messages to
//! send look like, and how the Graph API answers.
//!
//! Outside this module nobody reads or writes Meta's JSON. Inside it nobody knows the ledger.

pub mod asked;
pub mod compose;
pub mod decode;
pub mod graph;
pub mod handshake;
mod json;
mod kind;
pub mod message;
pub mod minted;
pub mod passage;
mod relayed;
pub mod signature;
pub mod told;

pub use compose::{ComposeError, bodies};
pub use decode::{Relays, decode, decode_for, person};
pub use graph::{Graph, GraphError, GraphSettings, NotMarked, Sent};
pub use handshake::{Handshake, VerifyTokens};
pub use relayed::{OwnSend, as_of_own_send};
pub use signature::AppSecrets;
