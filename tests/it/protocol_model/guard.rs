//! The rules that keep the promises, each of which can be left out: a check that finds nothing
//! without them would prove nothing with them.

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// An event key is unique: what was stored once is a duplicate.
    UniqueKey,
    /// A delivery is answered 200 after the commit, never before.
    CommitBeforeAnswer,
    /// A turn ends under the epoch of its lease, or not at all.
    EpochOfFinish,
    /// A finish looks at the conversation at all: at its epoch, and at what is done already.
    Fence,
    /// An epoch is never given out twice, nor a lower one.
    EpochsGrow,
    /// A finish leaves the conversation ready if more is pending.
    ReadyAgain,
    /// A node frees what the ledger says it holds and its memory denies.
    FreeUnknown,
    /// A claim's token is registered before the claim, and kept until its answer.
    Token,
    /// An outgoing is marked as sending, on disk, before the call.
    MarkBeforeCall,
    /// An outgoing of which nobody knows waits; it is not sent again.
    UnsureWaits,
    /// A node doubts what the ledger says it is sending and its memory denies.
    DoubtUnknown,
    /// A take is registered before it is made, and kept until its answer.
    Taking,
    /// A send whose settlement was given up is told from one that was never heard of.
    GivenUp,
    /// Of one conversation at most one outgoing is in question.
    OneInQuestion,
    /// Whenever the head of the outbox may have changed, the new one is due.
    NextIsDue,
    /// An outgoing that is open again stands before those that had moved up.
    LaterWait,
    /// That an attempt failed after it was accepted is remembered.
    FailuresStay,
}

/// The rules in force: all, or all but one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) without: Option<Guard>,
}

impl Rules {
    pub(super) fn hold(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}
