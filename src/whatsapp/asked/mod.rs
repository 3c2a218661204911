//! What a bot asks of the Graph API, as it would ask Meta itself: which call it is, with which
//! token, with which parameters, and what message it wants sent.
//!
//! Only what can't be routed, or is surely refused, is refused here. All else is Meta's to say.

mod parameters;
mod path;
mod recipient;
mod send;
pub mod token;

#[cfg(test)]
mod property;

pub use parameters::{Parameters, Written};
pub use path::{Called, called};
pub use recipient::Dialled;
pub use send::{Asked, Mark, Quote, ToSend, asked};
