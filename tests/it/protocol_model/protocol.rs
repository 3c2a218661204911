//! The model itself: what each step does to the ledger, to a process's memory and to Meta.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hapax::model::Evidence;
use stateright::{Model, Property};

use super::guard::{Guard, Rules};
use super::promises;
use super::state::{
    Call, Fate, Membership, Node, Process, SendPhase, Sending, State, TurnPhase, Verdict,
};
use super::step::{Answer, Event, Outcome, Step, possible};

/// The protocol under some rules, with a bounded number of faults.
#[derive(Clone, Debug)]
pub(super) struct Protocol {
    pub(super) rules: Rules,
    /// How many things may go wrong in one run.
    pub(super) faults: u8,
    /// A bit for each step that was ever taken, by its number.
    pub(super) taken: Arc<AtomicU32>,
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self.faults)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        possible(state, steps);
        if state.faults_left == 0 {
            steps.retain(|step| !step.is_fault(state));
        }
    }

    /// `None` where nothing changes.
    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = *last;
        self.take(&mut state, step);
        if state == *last {
            return None;
        }
        self.taken.fetch_or(1 << step.number(), Ordering::Relaxed);
        state.faults_left -= u8::from(step.is_fault(last));
        state.epoch_max = state.epoch_max.max(state.ledger.epoch);
        Some(state.in_order())
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::all()
    }
}

impl Protocol {
    /// Whether nothing happens any more unless something goes wrong once more.
    pub(super) fn is_quiet(&self, state: &State) -> bool {
        let mut steps = Vec::new();
        possible(state, &mut steps);
        steps.into_iter().all(|step| {
            let mut next = *state;
            step.is_fault(state) || {
                self.take(&mut next, step);
                next == *state
            }
        })
    }

    fn take(&self, state: &mut State, step: Step) {
        match step {
            Step::Append { event, answer } => self.append(state, event, answer),
            Step::Claim { process, answer } => claim(state, process, answer),
            Step::FreeUnknown { process } => self.free_unknown(state, process),
            Step::Finish {
                process,
                turn,
                answer,
            } => self.finish(state, process, turn, answer),
            Step::Release {
                process,
                turn,
                counts,
            } => release(state, process, turn, counts),
            Step::Send { process, answer } => self.send(state, process, answer),
            Step::DoubtUnknown { process } => self.doubt_unknown(state, process),
            Step::Settle { process, answer } => self.settle(state, process, answer),
            Step::ExpireUnsure => state.ledger.expire_unsure(self.rules),
            Step::Join { process } => at(state, process).membership = Membership::Joined,
            Step::Renew { process } => at(state, process).outlive_node(),
            Step::Reap { node } => self.reap(state, node),
            Step::Leave { process } => {
                state.ledger.remove(Node::Of(process), self.rules);
                *at(state, process) = Process::NEW;
            }
            Step::HearClaim { process, turn } => enter(state, process, turn, TurnPhase::Claimed),
            Step::HearSend { process } => hear_send(at(state, process)),
            Step::CallHandler { process, turn } => enter(state, process, turn, TurnPhase::Decided),
            Step::DropTurn { process, turn } => at(state, process).forget(turn),
            Step::DropSend { process } => drop_send(at(state, process)),
            Step::LookAtLease { process } => look_at_lease(at(state, process)),
            Step::CallGraph { process, outcome } => call_graph(state, process, outcome),
            Step::FailAccepted {
                outgoing,
                attempt,
                fate,
            } => {
                call(state, outgoing, attempt).fate = fate;
                state.meta.copies[outgoing as usize] -= 1;
            }
            Step::Crash { process } => crash(state, process),
        }
    }

    /// All of a delivery is stored, then it is answered 200; until it is, Meta delivers again.
    fn append(&self, state: &mut State, event: Event, answer: Answer) {
        match event {
            Event::Message(message) => {
                let acknowledged = &mut state.meta.acknowledged[message as usize];
                if answer == Answer::Lost && !self.rules.hold(Guard::CommitBeforeAnswer) {
                    *acknowledged = true;
                    return;
                }
                *acknowledged |= answer == Answer::Heard;
                state.ledger.append(message, self.rules);
            }
            Event::SentReceipt { outgoing, attempt } => {
                call(state, outgoing, attempt).told_sent = true;
                let evidence = Evidence::SentReceipt(Some(u32::from(attempt)));
                state.ledger.settle(outgoing, evidence, self.rules);
            }
            Event::FailedReceipt { outgoing, attempt } => {
                let call = call(state, outgoing, attempt);
                call.told_failed = true;
                let of = Some(u32::from(attempt));
                let evidence = match call.fate {
                    Fate::TooFast => Evidence::RetryableReceipt(of),
                    Fate::Unknown | Fate::Accepted | Fate::Failed => Evidence::FailedReceipt(of),
                };
                state.ledger.fail(outgoing, attempt, evidence, self.rules);
            }
        }
    }

    /// What the ledger says a node holds and its process knows nothing of is free again.
    fn free_unknown(&self, state: &mut State, process: u8) {
        if self.rules.hold(Guard::FreeUnknown) {
            let memory = state.processes[process as usize];
            let keep = |epoch| memory.keeps(epoch, self.rules.hold(Guard::Token));
            state.ledger.free_unknown(Node::Of(process), keep);
        }
    }

    /// Done or fenced, the turn is over for the process. It repeats what it has heard nothing of.
    fn finish(&self, state: &mut State, process: u8, turn: u8, answer: Answer) {
        let Some(held) = at(state, process).turns[turn as usize] else {
            return;
        };
        state.ledger.finish(held, self.rules);
        if answer == Answer::Heard {
            at(state, process).forget(turn);
        }
    }

    /// The take is registered before; without an answer it is forgotten, and no call is made.
    fn send(&self, state: &mut State, process: u8, answer: Answer) {
        let sending = state.ledger.send(Node::Of(process), self.rules);
        if answer == Answer::Heard {
            at(state, process).sending = sending;
        }
    }

    /// What the ledger says a node is sending and its process knows nothing of is unsure, or was
    /// surely not sent.
    fn doubt_unknown(&self, state: &mut State, process: u8) {
        if self.rules.hold(Guard::DoubtUnknown) {
            let memory = state.processes[process as usize];
            let takes = self.rules.hold(Guard::Taking);
            let keep = |outgoing, attempt| memory.keeps_send(outgoing, attempt, takes);
            let node = Node::Of(process);
            let remembers = self.rules.hold(Guard::GivenUp);
            let was_given_up =
                |outgoing, attempt| remembers && memory.given_up == Some((outgoing, attempt));
            state
                .ledger
                .doubt_unknown(node, keep, was_given_up, self.rules);
            at(state, process).given_up = None;
        }
    }

    /// Whatever is known of a send is merged, however late. Repeated until it is heard.
    fn settle(&self, state: &mut State, process: u8, answer: Answer) {
        let Some(sending) = at(state, process).sending else {
            return;
        };
        let SendPhase::Answered(verdict) = sending.phase else {
            return;
        };
        let attempt = u32::from(sending.attempt);
        let evidence = match verdict {
            Verdict::Accepted => Evidence::Accepted(attempt),
            Verdict::NotSent => Evidence::NotSent(attempt),
            Verdict::Refused => Evidence::Refused(attempt),
            Verdict::Unsure => Evidence::Lost(attempt),
        };
        state.ledger.settle(sending.outgoing, evidence, self.rules);
        if answer == Answer::Heard {
            at(state, process).sending = None;
        }
    }

    /// A node whose lease is over is declared dead. Its process, if it still runs, will hear so.
    fn reap(&self, state: &mut State, node: Node) {
        state.ledger.remove(node, self.rules);
        if let Node::Of(process) = node {
            at(state, process).membership = Membership::Lapsed;
        }
    }
}

fn at(state: &mut State, process: u8) -> &mut Process {
    &mut state.processes[process as usize]
}

fn call(state: &mut State, outgoing: u8, attempt: u8) -> &mut Call {
    &mut state.meta.calls[outgoing as usize][attempt as usize - 1]
}

/// The token is registered before; without an answer it is forgotten, and with it the claim.
fn claim(state: &mut State, process: u8, answer: Answer) {
    let claimed = state.ledger.claim(Node::Of(process));
    if answer == Answer::Heard {
        let turns = &mut at(state, process).turns;
        let free = usize::from(turns[0].is_some());
        turns[free] = claimed;
    }
}

/// Fenced under a lease of an earlier node: that one owns nothing any more.
fn release(state: &mut State, process: u8, turn: u8, counts: bool) {
    let Some(held) = at(state, process).turns[turn as usize] else {
        return;
    };
    if !held.is_past {
        state.ledger.release(Node::Of(process), held.epoch, counts);
    }
    at(state, process).forget(turn);
}

fn enter(state: &mut State, process: u8, turn: u8, phase: TurnPhase) {
    if let Some(held) = &mut at(state, process).turns[turn as usize] {
        held.phase = phase;
    }
}

fn hear_send(process: &mut Process) {
    if let Some(sending) = &mut process.sending {
        sending.phase = SendPhase::Marked;
    }
}

/// The settlement is given up; that there was a send is remembered.
fn drop_send(memory: &mut Process) {
    let sending = memory.sending.take().filter(|sending| !sending.is_past);
    memory.given_up = sending.map(|sending| (sending.outgoing, sending.attempt));
}

/// Paused since the mark: the call is not made, and saying so settles it.
fn look_at_lease(process: &mut Process) {
    if let Some(sending) = process.sending {
        let phase = if process.is_entitled(sending.is_past) {
            SendPhase::Entitled
        } else {
            SendPhase::Answered(Verdict::NotSent)
        };
        process.sending = Some(Sending { phase, ..sending });
    }
}

fn call_graph(state: &mut State, process: u8, outcome: Outcome) {
    let Some(sending) = &mut at(state, process).sending else {
        return;
    };
    let verdict = match outcome {
        Outcome::Accepted => Verdict::Accepted,
        Outcome::AcceptedUnheard | Outcome::LostOnTheWay => Verdict::Unsure,
        Outcome::NotSent => Verdict::NotSent,
        Outcome::Refused => Verdict::Refused,
    };
    sending.phase = SendPhase::Answered(verdict);
    if matches!(outcome, Outcome::Accepted | Outcome::AcceptedUnheard) {
        let (outgoing, attempt) = (sending.outgoing, sending.attempt);
        call(state, outgoing, attempt).fate = Fate::Accepted;
        state.meta.copies[outgoing as usize] += 1;
    }
}

/// The memory is gone; the node's row and what it holds stay until its lease is over.
fn crash(state: &mut State, process: u8) {
    state.ledger.rename(|node| match node {
        Node::Of(of) if of == process => Node::Gone,
        Node::Of(_) | Node::Gone => node,
    });
    *at(state, process) = Process::NEW;
}
