//! What the program says about itself: log lines and metrics.
//!
//! Holds every name that dashboards and alerts rely on. Carries no phone number, no text and no
//! secret, and knows no other part of the program but its nouns and its clock.

mod format;
mod labels;
pub mod logging;
pub mod metrics;

pub use labels::{
    BotSendAnswer, BotSendVerdict, DeadLetterKind, EventVerdict, FencedWrite, RelayResult,
    SentResult, TurnResult,
};
pub use logging::{LogError, LogFormat, install_panic_hook};
pub use metrics::{Metrics, Waiting};
