//! What answers a turn: [`Echo`], [`Forward`] to a bot's own webhook, [`Ask`] a bot for replies.
//!
//! A handler sees a turn and decides an outcome. It sees neither the ledger nor Meta, and it keeps
//! nothing of a turn once it has decided.
//!
//! How a call to a bot ends, for [`Forward`] and [`Ask`] alike:
//!
//! | the bot | the turn |
//! |---|---|
//! | answers 2xx | taken: [`Outcome::Acknowledged`] for `Forward`, what the answer says for `Ask` |
//! | can't be connected to (refused, no such name, connect time-out, TLS), or answers 503 | the person's next URL at once; when all are down [`Failure::Unavailable`]: waits, costs no attempt |
//! | answers 502 or 504: a proxy before it has lost it, perhaps in the middle | [`Failure::Unavailable`]; the next attempt goes to the next URL |
//! | answers 408 or 429 | [`Failure::Unavailable`], after its `Retry-After` |
//! | has no call free for half of the turn's deadline | [`Failure::Unavailable`] |
//! | answers another 5xx, breaks off, does not speak HTTP, or is too slow | [`Failure::Failed`]: counts as an attempt |
//! | answers 3xx or another 4xx | [`Outcome::Discard`]: a dead letter at once |
//!
//! `Retry-After` is honoured in seconds, up to ten minutes. A reason names the bot by host and
//! port and tells the class of the fault, never a body or a query.
//!
//! [`Outcome::Acknowledged`]: crate::model::Outcome::Acknowledged
//! [`Failure::Unavailable`]: crate::model::Failure::Unavailable
//! [`Failure::Failed`]: crate::model::Failure::Failed
//! [`Outcome::Discard`]: crate::model::Outcome::Discard

mod ask;
mod call;
mod echo;
mod forward;
#[cfg(test)]
mod testing;

pub use ask::{Ask, AskSettings};
pub use call::{BotSettings, SettingsError};
pub use echo::Echo;
pub use forward::{Forward, ForwardSettings, RelayedEvent, Rename, Sign};
