//! What the model remembers: the ledger, the processes' own memory, and Meta. As small as the
//! protocol allows, and with one order for processes that differ in nothing but their place.

use hapax::model::OutgoingState;

pub(super) const PROCESSES: usize = 3;
pub(super) const MESSAGES: usize = 2;
/// One more than there are messages: room for one that gets in twice.
pub(super) const PLACES: usize = MESSAGES + 1;
/// Room for a second reply to one of the messages.
pub(super) const OUTBOX: usize = MESSAGES + 1;
/// Sends of one outgoing: the first, and one more for each fault.
pub(super) const CALLS: usize = FAULTS_MAX as usize + 1;
/// How many things may go wrong in one run, of any kinds and at any time.
pub(super) const FAULTS_MAX: u8 = 2;
/// Attempts of a turn; a later one is buried.
pub(super) const ATTEMPTS_MAX: u8 = 2;

/// Everything at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) processes: [Process; PROCESSES],
    pub(super) meta: Meta,
    /// How many more things may go wrong.
    pub(super) faults_left: u8,
    /// The highest epoch that was ever given out.
    pub(super) epoch_max: u8,
}

/// Who holds something in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// The node that this process is now.
    Of(u8),
    /// A node whose process has crashed and whose lease is not over yet. Of such nodes only one
    /// is told: the transaction that takes them out takes all of them.
    Gone,
}

/// What is on disk: one conversation, its messages and its outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ledger {
    /// The message at each place; the first place is 1.
    pub(super) places: [Option<u8>; PLACES],
    pub(super) next_seq: u8,
    pub(super) done_seq: u8,
    pub(super) epoch: u8,
    pub(super) owner: Option<Node>,
    pub(super) attempt: u8,
    pub(super) turn_last: Option<u8>,
    /// Whether `ready_at` is set. When it is due is a matter of time, and any time may pass
    /// between two steps.
    pub(super) is_ready: bool,
    /// How often a turn of the message at each place has ended; for the promises only.
    pub(super) ends: [u8; PLACES],
    /// In the order of their ids.
    pub(super) outbox: [Option<Outgoing>; OUTBOX],
}

/// One row of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Outgoing {
    /// The turn that decided it.
    pub(super) seq: u8,
    pub(super) state: OutgoingState,
    pub(super) attempt: u8,
    pub(super) failed_attempt: Option<u8>,
    /// Whether `due_at` is set.
    pub(super) is_due: bool,
    pub(super) node: Option<Node>,
}

/// One running process: what it knows and is in the middle of. A process that takes no step is a
/// paused one: it keeps all this while the others go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Process {
    pub(super) membership: Membership,
    /// In the order of their epochs. Two, since one may be left from before a long pause.
    pub(super) turns: [Option<Turn>; 2],
    pub(super) sending: Option<Sending>,
    /// A send whose settlement was given up, by outgoing and attempt: the call may have been made.
    pub(super) given_up: Option<(u8, u8)>,
}

/// A process as a member of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Membership {
    /// It has no node.
    Outside,
    /// Its node has a row.
    Joined,
    /// Its node was declared dead, which it has not heard yet.
    Lapsed,
}

/// A turn that a process knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Turn {
    /// Of the lease; names the claim's token as well, since each claim here gives one epoch.
    pub(super) epoch: u8,
    pub(super) seq_last: u8,
    pub(super) attempt: u8,
    /// Whether it was claimed by an earlier node of the process.
    pub(super) is_past: bool,
    pub(super) phase: TurnPhase,
}

/// How far a process is with a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum TurnPhase {
    /// The claim's token is registered, its answer is under way.
    Claiming,
    /// The lease is known, the handler has not been called.
    Claimed,
    /// The handler has decided.
    Decided,
}

/// A send that a process is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Sending {
    /// Where it stands in the outbox.
    pub(super) outgoing: u8,
    pub(super) attempt: u8,
    /// Whether it was taken by an earlier node of the process.
    pub(super) is_past: bool,
    pub(super) phase: SendPhase,
}

/// How far a process is with a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum SendPhase {
    /// Marked in the ledger; the answer is under way.
    Taking,
    /// The process knows what it has marked.
    Marked,
    /// The lease was looked at and held then. By the time of the call it may be over.
    Entitled,
    /// What is to be settled.
    Answered(Verdict),
}

/// What a process concluded from a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Verdict {
    Accepted,
    NotSent,
    Refused,
    Unsure,
}

/// The other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Meta {
    /// Which messages were answered 200. Those that were not are delivered again.
    pub(super) acknowledged: [bool; MESSAGES],
    /// What became of each attempt of each outgoing.
    pub(super) calls: [[Call; CALLS]; OUTBOX],
    /// How many copies of each outgoing were accepted and not called failed since.
    pub(super) copies: [u8; OUTBOX],
}

/// One attempt of an outgoing, seen from Meta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) fate: Fate,
    /// Which of its receipts have passed the gate, where each passes once. They may be late, and
    /// overtake each other.
    pub(super) told_sent: bool,
    pub(super) told_failed: bool,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    Unknown,
    Accepted,
    /// Accepted, and failed later for being too fast: may be tried again.
    TooFast,
    /// Accepted, and failed later for good.
    Failed,
}

impl Process {
    /// A process that has just started.
    pub(super) const NEW: Self = Self {
        membership: Membership::Outside,
        turns: [None; 2],
        sending: None,
        given_up: None,
    };

    pub(super) fn is_idle(&self) -> bool {
        self.turns[0].is_none() && self.sending.is_none() && self.given_up.is_none()
    }

    /// Whether the lease of the node that took this on surely still holds.
    pub(super) fn is_entitled(&self, is_past: bool) -> bool {
        self.membership == Membership::Joined && !is_past
    }

    /// Takes a turn out of the memory; those behind it move up.
    pub(super) fn forget(&mut self, turn: u8) {
        if turn == 0 {
            self.turns[0] = self.turns[1];
        }
        self.turns[1] = None;
    }

    /// Whether `keep` answers yes for a lease of this epoch. Without `tokens`, only the leases
    /// are asked.
    pub(super) fn keeps(&self, epoch: u8, tokens: bool) -> bool {
        self.turns
            .iter()
            .flatten()
            .any(|turn| turn.epoch == epoch && (tokens || turn.phase != TurnPhase::Claiming))
    }

    /// Whether `keep` answers yes for an attempt of an outgoing. Without `takes`, only the sends
    /// are asked that are known already.
    pub(super) fn keeps_send(&self, outgoing: u8, attempt: u8, takes: bool) -> bool {
        self.sending.is_some_and(|sending| {
            (sending.outgoing, sending.attempt) == (outgoing, attempt)
                && (takes || sending.phase != SendPhase::Taking)
        })
    }

    /// What it holds is that of an earlier node from now on.
    pub(super) fn outlive_node(&mut self) {
        self.membership = Membership::Outside;
        self.given_up = None;
        for turn in self.turns.iter_mut().flatten() {
            turn.is_past = true;
        }
        if let Some(sending) = &mut self.sending {
            sending.is_past = true;
        }
    }
}

impl Call {
    /// Not made.
    pub(super) const NONE: Self = Self {
        fate: Fate::Unknown,
        told_sent: false,
        told_failed: false,
    };

    pub(super) fn has_failed(self) -> bool {
        matches!(self.fate, Fate::TooFast | Fate::Failed)
    }
}

impl State {
    /// Two messages on their way, three processes that have joined.
    pub(super) fn first(faults: u8) -> Self {
        let joined = Process {
            membership: Membership::Joined,
            ..Process::NEW
        };
        Self {
            ledger: Ledger {
                places: [None; PLACES],
                next_seq: 1,
                done_seq: 0,
                epoch: 0,
                owner: None,
                attempt: 0,
                turn_last: None,
                is_ready: false,
                ends: [0; PLACES],
                outbox: [None; OUTBOX],
            },
            processes: [joined; PROCESSES],
            meta: Meta {
                acknowledged: [false; MESSAGES],
                calls: [[Call::NONE; CALLS]; OUTBOX],
                copies: [0; OUTBOX],
            },
            faults_left: faults,
            epoch_max: 0,
        }
    }

    /// The same state with its processes in order. Which of them is which makes no difference,
    /// so states that differ in this alone are one.
    pub(super) fn in_order(mut self) -> Self {
        for (one, other) in [(0, 1), (1, 2), (0, 1)] {
            if self.rank(one) > self.rank(other) {
                self.swap(one, other);
            }
        }
        self
    }

    fn rank(&self, process: u8) -> (Process, bool, u8) {
        let node = Some(Node::Of(process));
        let mut sends = 0;
        for outgoing in &self.ledger.outbox {
            let is_his = outgoing.is_some_and(|outgoing| outgoing.node == node);
            sends = 2 * sends + u8::from(is_his);
        }
        let owns = self.ledger.owner == node;
        (self.processes[process as usize], owns, sends)
    }

    fn swap(&mut self, one: u8, other: u8) {
        self.processes.swap(one as usize, other as usize);
        self.ledger.rename(|node| match node {
            Node::Of(process) if process == one => Node::Of(other),
            Node::Of(process) if process == other => Node::Of(one),
            Node::Of(_) | Node::Gone => node,
        });
    }
}

impl Ledger {
    /// Gives every node that is named another name.
    pub(super) fn rename(&mut self, name: impl Fn(Node) -> Node) {
        self.owner = self.owner.map(&name);
        for outgoing in self.outbox.iter_mut().flatten() {
            outgoing.node = outgoing.node.map(&name);
        }
    }

    /// Whether a node holds anything.
    pub(super) fn is_held_by(&self, node: Node) -> bool {
        let sends = |outgoing: &Outgoing| outgoing.node == Some(node);
        self.owner == Some(node) || self.outbox.iter().flatten().any(sends)
    }

    /// Whether a message waits for its turn, or is in it.
    pub(super) fn is_pending(&self) -> bool {
        self.done_seq + 1 < self.next_seq
    }
}
