//! Everything that can happen. The steps of the ledger bear the names of the methods of `Store`;
//! the others belong to the processes' own memory and to the world outside.

use super::guard::{Guard, Rules};
use super::state::{
    ATTEMPTS_MAX, CALLS, Fate, MESSAGES, Membership, Node, OUTBOX, PROCESSES, Process, SendPhase,
    State, TurnPhase,
};

/// One step. `process` and `turn` are places in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Append {
        event: Event,
        answer: Answer,
    },
    Claim {
        process: u8,
        answer: Answer,
    },
    FreeUnknown {
        process: u8,
    },
    Finish {
        process: u8,
        turn: u8,
        answer: Answer,
    },
    Release {
        process: u8,
        turn: u8,
        counts: bool,
    },
    Send {
        process: u8,
        answer: Answer,
    },
    Settle {
        process: u8,
        answer: Answer,
    },
    ExpireUnsure,
    Join {
        process: u8,
    },
    Renew {
        process: u8,
    },
    Reap {
        node: Node,
    },
    Leave {
        process: u8,
    },
    /// The answer of a claim has come.
    HearClaim {
        process: u8,
        turn: u8,
    },
    /// Before the handler: the lease holds, and it is called; it decides to reply.
    CallHandler {
        process: u8,
        turn: u8,
    },
    /// A turn is forgotten unwritten: the lease was over before the handler was called, or the
    /// ledger could not be reached for too long.
    DropTurn {
        process: u8,
        turn: u8,
    },
    /// A send is forgotten unsettled: the ledger could not be reached for too long.
    DropSend {
        process: u8,
    },
    /// Before the call to Meta: does the lease hold?
    LookAtLease {
        process: u8,
    },
    /// Meta is called, or would have been.
    CallGraph {
        process: u8,
        outcome: Outcome,
    },
    /// Meta fails what it had accepted.
    FailAccepted {
        outgoing: u8,
        attempt: u8,
        fate: Fate,
    },
    /// The process ends without a word, and another starts in its place.
    Crash {
        process: u8,
    },
}

/// What a delivery brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Message(u8),
    /// Meta has taken an outgoing on.
    SentReceipt {
        outgoing: u8,
        attempt: u8,
    },
    /// An outgoing failed after all.
    FailedReceipt {
        outgoing: u8,
        attempt: u8,
    },
}

/// Whether the caller hears of a transaction that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Heard,
    Lost,
}

/// What comes of a call to Meta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Accepted,
    /// Accepted, and the answer was lost.
    AcceptedUnheard,
    /// Never arrived, which the caller can't know.
    LostOnTheWay,
    /// Refused before a byte was written, or too fast.
    NotSent,
    /// Refused for good.
    Refused,
}

/// The names of the steps that are methods of `Store`.
pub(super) const STORE: [&str; 12] = [
    "Append",
    "Claim",
    "FreeUnknown",
    "Finish",
    "Release",
    "Send",
    "Settle",
    "ExpireUnsure",
    "Join",
    "Renew",
    "Reap",
    "Leave",
];
/// The names of all others.
pub(super) const OUTSIDE: [&str; 8] = [
    "HearClaim",
    "CallHandler",
    "DropTurn",
    "DropSend",
    "LookAtLease",
    "CallGraph",
    "FailAccepted",
    "Crash",
];

impl Step {
    /// Its place in the two lists of names, the ledger's first.
    pub(super) fn number(self) -> usize {
        match self {
            Self::Append { .. } => 0,
            Self::Claim { .. } => 1,
            Self::FreeUnknown { .. } => 2,
            Self::Finish { .. } => 3,
            Self::Release { .. } => 4,
            Self::Send { .. } => 5,
            Self::Settle { .. } => 6,
            Self::ExpireUnsure => 7,
            Self::Join { .. } => 8,
            Self::Renew { .. } => 9,
            Self::Reap { .. } => 10,
            Self::Leave { .. } => 11,
            Self::HearClaim { .. } => 12,
            Self::CallHandler { .. } => 13,
            Self::DropTurn { .. } => 14,
            Self::DropSend { .. } => 15,
            Self::LookAtLease { .. } => 16,
            Self::CallGraph { .. } => 17,
            Self::FailAccepted { .. } => 18,
            Self::Crash { .. } => 19,
        }
    }

    /// Whether something goes wrong with it. Such steps are numbered; all others are the
    /// protocol's own, and may happen at any time.
    pub(super) fn is_fault(self, state: &State, rules: Rules) -> bool {
        match self {
            Self::Append {
                event: Event::Message(message),
                answer,
            } => answer == Answer::Lost || state.meta.acknowledged[message as usize],
            Self::Append { answer, .. }
            | Self::Claim { answer, .. }
            | Self::Finish { answer, .. }
            | Self::Send { answer, .. }
            | Self::Settle { answer, .. } => answer == Answer::Lost,
            // The bot fails, or is cut.
            Self::Release { .. } => true,
            // A process that was paused for longer than its lease.
            Self::Reap { node } => node != Node::Gone,
            // Stopped in the middle of something. What it does not know of waits for just this.
            Self::Leave { process } => {
                !(rules.hold(Guard::ProcessEnds) && forgot_a_send(state, process))
            }
            Self::CallGraph { outcome, .. } => outcome != Outcome::Accepted,
            Self::DropTurn { process, turn } => {
                let memory = &state.processes[process as usize];
                let held = memory.turns[turn as usize];
                held.is_none_or(|held| {
                    held.phase == TurnPhase::Decided || memory.is_entitled(held.is_past)
                })
            }
            Self::DropSend { .. } | Self::FailAccepted { .. } | Self::Crash { .. } => true,
            Self::FreeUnknown { .. }
            | Self::ExpireUnsure
            | Self::Join { .. }
            | Self::Renew { .. }
            | Self::HearClaim { .. }
            | Self::CallHandler { .. }
            | Self::LookAtLease { .. } => false,
        }
    }
}

/// Whether a process has marked an outgoing without having heard of it.
fn forgot_a_send(state: &State, process: u8) -> bool {
    let knows = state.processes[process as usize].sending;
    let mut outbox = state.ledger.outbox.iter().zip(0..);
    outbox.any(|(outgoing, at): (_, u8)| {
        outgoing.is_some_and(|outgoing| {
            outgoing.node == Some(Node::Of(process))
                && knows.is_none_or(|sending| sending.outgoing != at)
        })
    })
}

/// Collects what may happen next. Some of it may turn out to change nothing.
pub(super) fn possible(state: &State, steps: &mut Vec<Step>) {
    for process in 0..PROCESSES as u8 {
        of_process(state, process, steps);
    }
    if state.ledger.is_held_by(Node::Gone) {
        steps.push(Step::Reap { node: Node::Gone });
    }
    steps.push(Step::ExpireUnsure);
    of_meta(state, steps);
}

fn of_process(state: &State, process: u8, steps: &mut Vec<Step>) {
    let memory = &state.processes[process as usize];
    match memory.membership {
        Membership::Outside => steps.push(Step::Join { process }),
        Membership::Lapsed => steps.push(Step::Renew { process }),
        Membership::Joined => of_member(state, process, memory, steps),
    }
    for (turn, held) in (0..).zip(memory.turns.iter().flatten()) {
        if held.phase != TurnPhase::Claiming {
            steps.push(Step::DropTurn { process, turn });
        }
        match held.phase {
            TurnPhase::Claiming => steps.push(Step::HearClaim { process, turn }),
            TurnPhase::Claimed if held.attempt > ATTEMPTS_MAX => {
                both(steps, |answer| Step::Finish {
                    process,
                    turn,
                    answer,
                });
            }
            TurnPhase::Claimed if memory.is_entitled(held.is_past) => {
                steps.push(Step::CallHandler { process, turn });
            }
            TurnPhase::Claimed => {}
            TurnPhase::Decided => {
                both(steps, |answer| Step::Finish {
                    process,
                    turn,
                    answer,
                });
                let released = [true, false];
                steps.extend(released.map(|counts| Step::Release {
                    process,
                    turn,
                    counts,
                }));
            }
        }
    }
    match memory.sending.map(|sending| sending.phase) {
        Some(SendPhase::Marked) => steps.push(Step::LookAtLease { process }),
        Some(SendPhase::Entitled) => {
            let outcomes = [
                Outcome::Accepted,
                Outcome::AcceptedUnheard,
                Outcome::LostOnTheWay,
                Outcome::NotSent,
                Outcome::Refused,
            ];
            steps.extend(outcomes.map(|outcome| Step::CallGraph { process, outcome }));
        }
        Some(SendPhase::Answered(_)) => {
            both(steps, |answer| Step::Settle { process, answer });
            steps.push(Step::DropSend { process });
        }
        None => {}
    }
    // Another process in the place of one that holds nothing is no other process.
    if !memory.is_idle() || state.ledger.is_held_by(Node::Of(process)) {
        steps.push(Step::Crash { process });
    }
}

fn of_member(state: &State, process: u8, memory: &Process, steps: &mut Vec<Step>) {
    // One claim at a time is under way.
    let is_claiming = memory
        .turns
        .iter()
        .flatten()
        .any(|turn| turn.phase == TurnPhase::Claiming);
    if !is_claiming && memory.turns[1].is_none() && state.ledger.is_ready {
        both(steps, |answer| Step::Claim { process, answer });
    }
    if memory.sending.is_none() {
        both(steps, |answer| Step::Send { process, answer });
    }
    steps.push(Step::FreeUnknown { process });
    // Without anything to lose, a lapse or an orderly end makes no difference.
    if !memory.is_idle() || state.ledger.is_held_by(Node::Of(process)) {
        steps.push(Step::Reap {
            node: Node::Of(process),
        });
        steps.push(Step::Leave { process });
    }
}

fn of_meta(state: &State, steps: &mut Vec<Step>) {
    for message in 0..MESSAGES as u8 {
        // The first to be stored is called the first.
        let is_next = message < state.ledger.next_seq || message == 0;
        if is_next {
            let event = Event::Message(message);
            both(steps, |answer| Step::Append { event, answer });
        }
    }
    for outgoing in 0..OUTBOX as u8 {
        for attempt in 1..=CALLS as u8 {
            let answer = Answer::Heard;
            let call = state.meta.calls[outgoing as usize][attempt as usize - 1];
            if call.fate != Fate::Unknown && !call.told_sent {
                let event = Event::SentReceipt { outgoing, attempt };
                steps.push(Step::Append { event, answer });
            }
            if call.has_failed() && !call.told_failed {
                let event = Event::FailedReceipt { outgoing, attempt };
                steps.push(Step::Append { event, answer });
            }
            if call.fate == Fate::Accepted {
                let fates = [Fate::TooFast, Fate::Failed];
                steps.extend(fates.map(|fate| Step::FailAccepted {
                    outgoing,
                    attempt,
                    fate,
                }));
            }
        }
    }
}

fn both(steps: &mut Vec<Step>, step: impl Fn(Answer) -> Step) {
    steps.extend([Answer::Heard, Answer::Lost].map(step));
}
