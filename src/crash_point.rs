//! Named places at which a build for rehearsals can be made to crash, stall or panic.
//!
//! Without the cargo feature `failpoints` a point does nothing. With it, the environment variable
//! `FAILPOINTS` says what happens where, in the words of the crate `fail`:
//! `FAILPOINTS="append.after_commit=6*off->1*return"`. There `return` is a crash as by `kill -9`.
//! The points are the process's own, one set of them: a rehearsal has no other way in.

/// The environment variable that says what happens at which point, as the crate `fail` reads it.
pub const VARIABLE: &str = "FAILPOINTS";

/// A method of the store that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// A node is entered.
    Join,
    /// The lease of a node is prolonged.
    Renew,
    /// A node ends itself.
    Leave,
    /// Nodes are declared dead. Passed only where there was one.
    Reap,
    /// A delivery is stored.
    Append,
    /// What deliveries were answered is recorded.
    Answered,
    /// Conversations are taken. Passed only where one was due.
    Claim,
    /// What a claim with a lost answer has taken is freed. Passed only where there was such.
    FreeUnknown,
    /// A turn ends.
    Finish,
    /// A conversation is given back.
    Release,
    /// Outgoings are marked as sending. Passed only where one was due.
    Send,
    /// Sends that their node lost sight of become unsure. Passed only where there were such.
    DoubtUnknown,
    /// What became of a send is merged.
    Settle,
    /// The wait of unsure sends ends. Passed only where it did.
    ExpireUnsure,
    /// What a bot asks to send is put on record.
    Stage,
    /// What the caller of a send was told is recorded.
    Told,
    /// A number that a bot has dialled is linked to Meta's.
    LinkDialled,
    /// What a bot is to get beside messages is taken. Passed only where there was such.
    Relay,
    /// What became of that is recorded.
    Relayed,
    /// What is old is forgotten. Passed only by the node that has the duty.
    Prune,
    /// The right to make an AI thread is given. Passed only where it was.
    ClaimThread,
    /// An AI thread is stored, or kept as an orphan. Passed only where it was.
    CompleteThread,
    /// An AI thread is forgotten. Passed only where there was something to forget.
    ForgetThread,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Join,
        Self::Renew,
        Self::Leave,
        Self::Reap,
        Self::Append,
        Self::Answered,
        Self::Claim,
        Self::FreeUnknown,
        Self::Finish,
        Self::Release,
        Self::Send,
        Self::DoubtUnknown,
        Self::Settle,
        Self::ExpireUnsure,
        Self::Stage,
        Self::Told,
        Self::LinkDialled,
        Self::Relay,
        Self::Relayed,
        Self::Prune,
        Self::ClaimThread,
        Self::CompleteThread,
        Self::ForgetThread,
    ];

    const fn before(self) -> &'static str {
        match self {
            Self::Join => "join.before_commit",
            Self::Renew => "renew.before_commit",
            Self::Leave => "leave.before_commit",
            Self::Reap => "reap.before_commit",
            Self::Append => "append.before_commit",
            Self::Answered => "answered.before_commit",
            Self::Claim => "claim.before_commit",
            Self::FreeUnknown => "free_unknown.before_commit",
            Self::Finish => "finish.before_commit",
            Self::Release => "release.before_commit",
            Self::Send => "send.before_commit",
            Self::DoubtUnknown => "doubt_unknown.before_commit",
            Self::Settle => "settle.before_commit",
            Self::ExpireUnsure => "expire_unsure.before_commit",
            Self::Stage => "stage.before_commit",
            Self::Told => "told.before_commit",
            Self::LinkDialled => "link_dialled.before_commit",
            Self::Relay => "relay.before_commit",
            Self::Relayed => "relayed.before_commit",
            Self::Prune => "prune.before_commit",
            Self::ClaimThread => "claim_thread.before_commit",
            Self::CompleteThread => "complete_thread.before_commit",
            Self::ForgetThread => "forget_thread.before_commit",
        }
    }

    const fn after(self) -> &'static str {
        match self {
            Self::Join => "join.after_commit",
            Self::Renew => "renew.after_commit",
            Self::Leave => "leave.after_commit",
            Self::Reap => "reap.after_commit",
            Self::Append => "append.after_commit",
            Self::Answered => "answered.after_commit",
            Self::Claim => "claim.after_commit",
            Self::FreeUnknown => "free_unknown.after_commit",
            Self::Finish => "finish.after_commit",
            Self::Release => "release.after_commit",
            Self::Send => "send.after_commit",
            Self::DoubtUnknown => "doubt_unknown.after_commit",
            Self::Settle => "settle.after_commit",
            Self::ExpireUnsure => "expire_unsure.after_commit",
            Self::Stage => "stage.after_commit",
            Self::Told => "told.after_commit",
            Self::LinkDialled => "link_dialled.after_commit",
            Self::Relay => "relay.after_commit",
            Self::Relayed => "relayed.after_commit",
            Self::Prune => "prune.after_commit",
            Self::ClaimThread => "claim_thread.after_commit",
            Self::CompleteThread => "complete_thread.after_commit",
            Self::ForgetThread => "forget_thread.after_commit",
        }
    }
}

/// A place in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// A transaction in which this method wrote is about to be committed: nothing of it stands.
    BeforeCommit(Method),
    /// Such a transaction is as durable as it gets, and who waits for it has not heard of it.
    AfterCommit(Method),
    /// A delivery is verified and decoded, and the store has not been asked.
    BeforeAppend,
    /// The store has said that a delivery is stored.
    AfterAppend,
    /// All is said and counted; Meta gets its 200 next.
    Before200,
    /// A turn is claimed and its handler is called next.
    BeforeHandle,
    /// The handler has decided and nothing of it is written.
    AfterHandle,
    /// A send is marked and Meta is called next.
    BeforeGraph,
    /// Meta has answered, or not in time, and nothing of it is settled.
    AfterGraph,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 2 * Method::ALL.len() + Self::BESIDE.len()] = Self::all();

    /// Those that are no commits of the store's.
    const BESIDE: [Self; 7] = [
        Self::BeforeAppend,
        Self::AfterAppend,
        Self::Before200,
        Self::BeforeHandle,
        Self::AfterHandle,
        Self::BeforeGraph,
        Self::AfterGraph,
    ];

    const fn all() -> [Self; 2 * Method::ALL.len() + Self::BESIDE.len()] {
        let mut all = [Self::Before200; 2 * Method::ALL.len() + Self::BESIDE.len()];
        let mut at = 0;
        while at < Method::ALL.len() {
            all[2 * at] = Self::BeforeCommit(Method::ALL[at]);
            all[2 * at + 1] = Self::AfterCommit(Method::ALL[at]);
            at += 1;
        }
        let mut beside = 0;
        while beside < Self::BESIDE.len() {
            all[2 * at + beside] = Self::BESIDE[beside];
            beside += 1;
        }
        all
    }

    /// The name by which `FAILPOINTS` speaks of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeCommit(method) => method.before(),
            Self::AfterCommit(method) => method.after(),
            Self::BeforeAppend => "ingress.before_append",
            Self::AfterAppend => "ingress.after_append",
            Self::Before200 => "ingress.before_200",
            Self::BeforeHandle => "handle.before_call",
            Self::AfterHandle => "handle.after_call",
            Self::BeforeGraph => "graph.before_call",
            Self::AfterGraph => "graph.after_call",
        }
    }
}

/// Passes a point: goes on at once, unless the process was told otherwise at its start.
#[cfg(not(feature = "failpoints"))]
pub fn pass(_: Point) {}

/// Passes a point: does what `FAILPOINTS` says. May not come back, or only after a while, in
/// which the thread does nothing else.
#[cfg(feature = "failpoints")]
pub fn pass(point: Point) {
    fail::fail_point!(point.as_str(), |_| crash());
}

/// As by `kill -9`: nothing is unwound, flushed or answered.
#[cfg(feature = "failpoints")]
fn crash() {
    use rustix::process::{Signal, getpid, kill_process};
    // Can't fail for oneself; if it did, this is the next best.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort();
}

/// The methods that have written in one transaction, each once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried(u32);

impl Carried {
    /// This one has.
    pub const fn add(&mut self, method: Method) {
        self.0 |= 1 << method as u32;
    }

    /// Passes what stands before the commit.
    pub fn before_commit(self) {
        self.methods()
            .for_each(|method| pass(Point::BeforeCommit(method)));
    }

    /// Passes what stands after the commit, once that is durable.
    pub fn after_commit(self) {
        self.methods()
            .for_each(|method| pass(Point::AfterCommit(method)));
    }

    fn methods(self) -> impl Iterator<Item = Method> {
        let carries = move |method: &Method| self.0 & (1 << *method as u32) != 0;
        Method::ALL.into_iter().filter(carries)
    }
}

/// Keeps the points armed; dropped, it disarms them.
#[derive(Debug)]
#[must_use]
pub struct Armed {
    #[cfg(feature = "failpoints")]
    _scenario: fail::FailScenario<'static>,
}

/// `FAILPOINTS` names a point that there is not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("FAILPOINTS: there is no point {0}")]
pub struct UnknownPoint(pub String);

/// Arms the points as `FAILPOINTS` says; to be done once, before anything else. In a build
/// without the feature it does nothing.
///
/// # Errors
/// A point that there is not is named.
///
/// # Panics
/// What is said about a point can't be read.
pub fn arm() -> Result<Armed, UnknownPoint> {
    let armed = Armed {
        #[cfg(feature = "failpoints")]
        _scenario: fail::FailScenario::setup(),
    };
    #[cfg(feature = "failpoints")]
    for (name, _) in fail::list() {
        if !Point::ALL.iter().any(|point| point.as_str() == name) {
            return Err(UnknownPoint(name));
        }
    }
    Ok(armed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Point::ALL.iter().map(|point| point.as_str()).collect();
        assert_eq!(names.len(), Point::ALL.len());
        let form = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
        assert!(names.iter().all(|name| name.chars().all(form)), "{names:?}");
    }

    #[test]
    fn a_transaction_carries_each_method_once() {
        let mut carried = Carried::default();
        assert_eq!(carried.methods().count(), 0);
        for method in [Method::Prune, Method::Join, Method::Prune] {
            carried.add(method);
        }
        let methods: Vec<Method> = carried.methods().collect();
        assert_eq!(methods, [Method::Join, Method::Prune]);
    }
}
