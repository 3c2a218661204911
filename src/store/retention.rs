//! What retention is asked and answers, and the ages that no setting changes.
//!
//! Which rows go at which age is said here once, for every engine. Nothing here deletes.

use std::time::Duration;

use crate::model::NodeId;

/// A receipt of a message that nobody here has sent waits so long for somebody to claim it. Meta
/// repeats what was not answered for seven days.
pub const PARKED_AGE_MAX: Duration = Duration::from_secs(8 * 24 * 3600);

/// What is past its age and still pending or under an open dead letter may be looked at again
/// only after this: it goes that much later at most once it has ended.
pub const KEPT_LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);

/// A request to forget. Ages are counted on the store's clock; what has reached its age goes.
#[derive(Debug, Clone, Copy)]
pub struct PruneRequest {
    /// Who asks; must have a row.
    pub node: NodeId,
    /// How old records become. An event, by its first arrival, with its arrivals and its message
    /// and the turn of that, its receipt or its notice: if it comes again later, it is new. An
    /// outgoing that is sent, or dead without an open dead letter, by its last change. A dead
    /// letter by its closing. A recorded answer by the arrival of its delivery. Receipts that
    /// nobody has claimed go at [`PARKED_AGE_MAX`] already; their events stay.
    pub keys: Duration,
    /// How old payloads become: what a message, a receipt or a notice held, by the first arrival
    /// of its event, and the body of a settled outgoing, by its last change. Emptied, and never
    /// filled again. What is older than `keys` goes whole and is not emptied before. An AI thread
    /// that was, by its end; one that came to nothing, by when that was known. Both go whole; the
    /// one that is stays.
    pub payloads: Duration,
    /// How long a status or notice waits for the bot, from its arrival; what somebody is handing
    /// over stays.
    pub relays: Duration,
    /// At most so many rows of each kind; at least 1. An event counts as one, with all that came
    /// as it.
    pub limit: u32,
}

/// What a [`PruneRequest`] took out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Events forgotten.
    pub events: u64,
    /// Payloads emptied: one for each message, outgoing, receipt or notice; and AI threads
    /// forgotten.
    pub payloads: u64,
    /// Statuses and notices that the bot never gets.
    pub relays: u64,
    /// Whether there may be more: some kind has used up its limit. Asking until this is `false`
    /// ends, whatever is kept back.
    pub more: bool,
}
