//! The ledger: everything that must survive, behind one trait.
//!
//! Each method of [`Store`] is one whole transaction named by what happens, and holds on its own
//! after a crash at any moment. No transaction is open while anything else runs. Nobody outside
//! this module knows SQL; nobody inside it knows HTTP or Meta.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::model::bot_send::Told;
use crate::model::thread::{Access, Completion};
use crate::model::{
    BotSendId, ConversationId, EventKey, Lease, NodeId, NumberId, OutgoingId, OutgoingState,
    StoreId, ThreadId,
};

mod bot_sends;
#[cfg(test)]
mod conformance;
mod deliveries;
mod evidence;
mod listing;
mod membership;
pub mod postgres;
mod relays;
mod retention;
mod sending;
pub mod sqlite;
mod threads;
mod turns;

pub use bot_sends::{BOT_SENDS_MAX, Fate, Heard, SendWhen, Stage, Staged, TurnRun};
pub use deliveries::{
    ARRIVAL_LOG_MAX, Answered, Appended, AppendedEvent, ArrivalRecord, Arrivals, Delivery,
    FailedArrival, Verdict,
};
pub use listing::{DeadKind, DeadLetter, OutgoingRecord};
pub use membership::{Membership, Timing};
pub use relays::{OwnMessage, RelayEnd, RelayRequest, Relaying};
pub use retention::{KEPT_LOOK_EVERY, PARKED_AGE_MAX, PruneRequest, Pruned};
pub use sending::{KeepSends, SendRequest, SendResult, Sending, Sends, Settle};
pub use threads::{Named, OrphanRecord, PAST_THREADS_MAX, ThreadClaim, ThreadRecord, Whose};

pub use turns::{
    ClaimRequest, Claimed, ClaimedTurn, Finish, Policy, Release, StoredMessage, TurnEnd, Written,
};

/// A store, shared by all stages of a process.
pub type SharedStore = Arc<dyn Store>;

/// The transitions of the ledger.
///
/// Only the store's clock decides when something is due or a lease is over: callers say for how
/// long, never until when, and are told the same. What they say of the past (when a delivery
/// arrived) is kept as a record, by its age at that moment.
#[async_trait]
pub trait Store: Send + Sync {
    /// The store's random name, part of every tag.
    fn id(&self) -> StoreId;

    /// A channel that changes whenever a conversation may have become claimable. Only a hint:
    /// register, then look, then wait with a limit.
    fn turns_changed(&self) -> watch::Receiver<u64>;

    /// A channel that changes whenever an outgoing may have become due. Only a hint.
    fn sends_changed(&self) -> watch::Receiver<u64>;

    /// A channel that changes whenever what became of a send may have become known. Only a hint.
    fn sends_settled(&self) -> watch::Receiver<u64>;

    /// A channel that changes whenever a thread may have become known, or the right to make one
    /// free. Only a hint.
    fn threads_changed(&self) -> watch::Receiver<u64>;

    /// A channel that changes whenever there may be something to relay. Only a hint.
    fn relays_changed(&self) -> watch::Receiver<u64>;

    /// Becomes `Some` when the store has failed for good and the process must end. From then on
    /// every method fails.
    fn fatal(&self) -> watch::Receiver<Option<Arc<str>>>;

    // Nodes ------------------------------------------------------------------------------------

    /// Enters a new incarnation with a lease of `ttl`.
    async fn join(&self, ttl: Duration) -> Result<NodeId, StoreError>;

    /// Prolongs the lease of a node by `ttl` from now. [`Renewal::Dead`]: somebody has declared
    /// it dead; it never comes back, join anew.
    async fn renew(&self, node: NodeId, ttl: Duration) -> Result<Renewal, StoreError>;

    /// Ends an incarnation in order: whatever it still holds is freed at once.
    async fn leave(&self, node: NodeId) -> Result<(), StoreError>;

    /// Declares dead every node whose lease is over (or that ran before the machine was booted
    /// anew), frees its conversations and makes its unanswered sends unsure.
    async fn reap(&self) -> Result<Vec<Reaped>, StoreError>;

    // Ingress ----------------------------------------------------------------------------------

    /// Appends all events of a delivery, or none; durable when it returns. Receipts settle their
    /// outgoing in the same transaction, and what is to be relayed waits for that from then on.
    async fn append(&self, delivery: Arc<Delivery>) -> Result<Appended, StoreError>;

    /// Records what a delivery was answered. Never waits and may be lost in a crash, when it is
    /// indeed unknown whether the answer went out.
    fn answered(&self, answered: Answered);

    // Turns ------------------------------------------------------------------------------------

    /// Takes up to `limit` due conversations: raises the epoch, counts the attempt, freezes the
    /// turn's messages at the first attempt, and returns them.
    async fn claim(&self, claim: ClaimRequest) -> Result<Claimed, StoreError>;

    /// Frees every conversation that the store says `node` holds but that `keep` denies: a claim
    /// whose answer was lost must not strand it. `keep` is asked with the claim's token and epoch.
    async fn free_unknown(&self, node: NodeId, keep: Keep) -> Result<Vec<Lease>, StoreError>;

    /// Ends a turn: its messages are done, its replies are in the outbox, the lease is free, and
    /// the conversation is due again if more is pending. Idempotent under one lease.
    async fn finish(&self, lease: Lease, finish: Finish) -> Result<Written, StoreError>;

    /// Gives a conversation back with its turn undone.
    async fn release(&self, lease: Lease, release: Release) -> Result<Written, StoreError>;

    // Sending ----------------------------------------------------------------------------------

    /// Takes up to `limit` due outgoings and marks each as sending in its next attempt; durable
    /// when it returns. At most one of a conversation at a time.
    async fn send(&self, send: SendRequest) -> Result<Sends, StoreError>;

    /// Makes unsure every outgoing that the store says `node` is sending but that `keep` denies:
    /// a send whose settlement was given up must not hold back its conversation for as long as
    /// the process runs. Its call may have been made, so it is never sent again for this; a
    /// receipt settles it, or its wait ends. Answers those that became unsure now.
    ///
    /// What `keep` keeps though no answer of [`Store::send`] ever named it was surely not sent:
    /// settle it as that.
    ///
    /// `keep` is asked with the outgoing and its attempt, perhaps more than once, and by what the
    /// store has shown before: what is settled or sent anew meanwhile stays as it is.
    async fn doubt_unknown(
        &self,
        node: NodeId,
        keep: KeepSends,
    ) -> Result<Vec<OutgoingId>, StoreError>;

    /// Merges what became of one send. Evidence: never refused.
    async fn settle(&self, settle: Settle) -> Result<OutgoingState, StoreError>;

    /// Counts time in which receipts could arrive, and makes a dead letter of each unsure outgoing
    /// that has waited for `unsure_wait` of it.
    ///
    /// `healthy` is for how long, up to now, the caller could take receipts since it asked last.
    /// Of that counts what is after the last time that anybody's was counted, so that no time
    /// counts twice however many ask. Zero counts nothing and leaves the others' count alone: one
    /// that fails does not slow down those that do not, and while all fail no wait goes on.
    async fn expire_unsure(
        &self,
        healthy: Duration,
        unsure_wait: Duration,
    ) -> Result<Vec<OutgoingId>, StoreError>;

    // What bots send by themselves --------------------------------------------------------------

    /// Puts on record what a bot asks to send, and into the outbox if it is new: in its turn, if
    /// one of its conversation has begun, and for a while after; what an earlier attempt of that
    /// turn has asked for already is not sent again. A person who is not known yet is made.
    /// Durable when it returns.
    ///
    /// Where it is held until its turn ends, [`Store::finish`] puts it into the outbox, and a
    /// turn that fails drops it.
    ///
    /// `None`: the turn has asked for [`BOT_SENDS_MAX`] already.
    async fn stage(&self, stage: Stage) -> Result<Option<Staged>, StoreError>;

    /// Records what the caller of a send was told. May be lost in a crash, when the caller may
    /// indeed not have heard it.
    async fn told(&self, id: BotSendId, told: Told) -> Result<(), StoreError>;

    /// Links a phone number that a bot has dialled to the one that Meta took it for: both name
    /// the same person from now on.
    async fn link_dialled(
        &self,
        number: NumberId,
        dialled: String,
        wa_id: String,
    ) -> Result<(), StoreError>;

    // Statuses and notices for the bot ------------------------------------------------------------

    /// Takes what waits to be relayed and is due, in the order in which it came, and notes that
    /// the node has it. What belongs to a dead node waits again.
    async fn relay(&self, relay: RelayRequest) -> Result<Vec<Relaying>, StoreError>;

    /// Ends what a node has taken. May be lost in a crash, when it comes again. To be tried again
    /// is only what the node still has.
    async fn relayed(&self, node: NodeId, key: EventKey, end: RelayEnd) -> Result<(), StoreError>;

    // AI threads -------------------------------------------------------------------------------

    /// Asks for the thread of a conversation, or for the right to make it: given to one at a time,
    /// each time under a higher version, and to whom it was given once more if the request has the
    /// same key. A person who is not known yet is made, as a message would make them. Writes
    /// nothing where the answer needs nothing, so it may be asked again and again.
    ///
    /// `None`: there is no contact or conversation of this id at this number.
    async fn claim_thread(
        &self,
        claim: ThreadClaim,
    ) -> Result<Option<(ConversationId, Access)>, StoreError>;

    /// Brings what was made under a right. If that still is the conversation's last one and not
    /// over, this is its thread from now on, and no orphan. Else it is kept as an orphan, unless
    /// it is or was the conversation's thread. Idempotent.
    ///
    /// `None`: there is no such conversation.
    async fn complete_thread(
        &self,
        whose: Whose,
        version: i64,
        thread: ThreadId,
    ) -> Result<Option<(ConversationId, Completion)>, StoreError>;

    /// Lets a conversation begin afresh: its thread goes into the history, a right to make one is
    /// void. Answers the version from then on, under which nobody has a right.
    ///
    /// `None`: there is no such conversation, or nobody has ever asked for its thread.
    async fn forget_thread(
        &self,
        whose: Whose,
    ) -> Result<Option<(ConversationId, i64)>, StoreError>;

    // Retention --------------------------------------------------------------------------------

    /// Takes out at most `limit` rows of each kind of what is older than it may become. What is
    /// pending, unsettled or under an open dead letter stays as it is, however old.
    ///
    /// One living node at a time has this duty: the first that asks gets it, and keeps it until
    /// its row is gone. `None` when another one has it.
    async fn prune(&self, prune: PruneRequest) -> Result<Option<Pruned>, StoreError>;

    // Reading ----------------------------------------------------------------------------------

    /// What waits, since when, and for what.
    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// Open dead letters, newest first.
    async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, StoreError>;

    /// Up to `limit` outgoings that retention has left, settled or not, by ascending id, from the
    /// first one after `after` on. Pages are looks of their own: an outgoing that is committed
    /// between two of them may have a lower id than one that was listed already.
    async fn outgoings(
        &self,
        after: Option<OutgoingId>,
        limit: u32,
    ) -> Result<Vec<OutgoingRecord>, StoreError>;

    /// How each of these stands, in their order.
    async fn fates(&self, ids: Vec<BotSendId>) -> Result<Vec<Fate>, StoreError>;

    /// Of these attempts of turns, those that have asked to send something.
    async fn heard(&self, runs: Vec<TurnRun>) -> Result<Vec<Heard>, StoreError>;

    /// How often an event has arrived, and the last arrivals; `None` if it never has.
    async fn arrivals(&self, key: EventKey) -> Result<Option<Arrivals>, StoreError>;

    /// The thread of a conversation and its history. `None`: there is no such conversation, or
    /// nobody has ever asked for its thread.
    async fn thread(&self, whose: Whose) -> Result<Option<ThreadRecord>, StoreError>;

    /// Threads that were made for nothing, newest first; a right that is over counts from its end
    /// on, whether or not anybody has asked since.
    async fn orphans(&self, limit: u32) -> Result<Vec<OrphanRecord>, StoreError>;

    /// How the store's commits went since it was opened.
    fn commits(&self) -> Commits;

    /// Writes out what is queued and closes the store.
    async fn close(&self);
}

/// Says whether a node knows of a claim; see [`Store::free_unknown`].
pub type Keep = Arc<dyn Fn(ClaimToken, Lease) -> bool + Send + Sync>;

/// A claim's mark, chosen by the claimer before the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimToken(pub i64);

/// Why a transaction did not happen. In every case nothing of it is stored, except
/// [`StoreError::Lost`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Too much is waiting already; try again after a moment.
    #[error("the store is behind: {waiting} transactions are waiting")]
    Behind {
        /// How many.
        waiting: usize,
    },
    /// The store can't be reached or written now; trying again may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// This one transaction can't be stored, and trying again won't help.
    #[error("the store refused the transaction: {0}")]
    Refused(String),
    /// It is unknown whether the transaction was committed.
    #[error("the answer of the store was lost")]
    Lost,
    /// The store has failed for good (disk full, I/O error): the process must end.
    #[error("the store has failed: {0}")]
    Fatal(Arc<str>),
    /// The file was made by a newer Hapax.
    #[error("the store has schema {found}, this hapax knows up to {known}: use a newer hapax")]
    Newer {
        /// The schema version found.
        found: u32,
        /// The newest this binary knows.
        known: u32,
    },
    /// The node that asks has been declared dead: join anew.
    #[error("{0} has been declared dead")]
    DeadNode(NodeId),
    /// It can't be opened at all.
    #[error("the store can't be opened: {0}")]
    Open(String),
}

/// The answer of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease is prolonged.
    Alive,
    /// The incarnation has been declared dead.
    Dead,
}

/// A node that was declared dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// Which.
    pub node: NodeId,
    /// How many conversations it held.
    pub conversations: u64,
    /// How many sends it left unanswered.
    pub unsure: u64,
}

/// What waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages without an end.
    pub messages_pending: u64,
    /// Conversations with such messages.
    pub conversations_pending: u64,
    /// The oldest message without an end.
    pub oldest: Option<Oldest>,
    /// Outgoings not yet settled.
    pub outgoing_open: u64,
    /// Of these, how many are unsure.
    pub outgoing_unsure: u64,
    /// Open dead letters.
    pub dead_letters: u64,
    /// Numbers that are paused.
    pub numbers_paused: u64,
    /// Statuses and notices that the bot has not got yet.
    pub relays: u64,
}

/// The oldest message without an end, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oldest {
    /// Whose.
    pub conversation: ConversationId,
    /// How long ago it arrived.
    pub waiting: Duration,
    /// What it waits for.
    pub reason: WaitReason,
}

/// What a message waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitReason {
    /// A turn of its conversation is running.
    Turn,
    /// A retry is due later.
    Retry,
    /// Nobody has claimed it yet.
    Worker,
}

impl WaitReason {
    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Retry => "retry",
            Self::Worker => "worker",
        }
    }
}

/// How commits went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Commits {
    /// Transactions committed to disk.
    pub commits: u64,
    /// Methods of [`Store`] that they carried.
    pub writes: u64,
}
