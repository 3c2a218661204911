//! The transactions of the ledger, each under the name it has in `Store`. A transaction is atomic
//! here: that the engine makes it so is not this model's question.

use hapax::model::{Evidence, OutgoingState, Transition};

use super::guard::{Guard, Rules};
use super::state::{
    ATTEMPTS_MAX, CALLS, Ledger, Node, Outgoing, PLACES, SendPhase, Sending, Turn, TurnPhase,
};

/// The answer to a write under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    Fenced,
}

impl Ledger {
    // Ingress ----------------------------------------------------------------------------------

    /// A message passes the gate once and takes the next place. Idle and pending, the
    /// conversation is ready.
    pub(super) fn append(&mut self, message: u8, rules: Rules) {
        let is_seen = self.places.contains(&Some(message));
        let is_full = self.next_seq as usize > PLACES;
        if is_full || (is_seen && rules.hold(Guard::UniqueKey)) {
            return;
        }
        self.places[self.next_seq as usize - 1] = Some(message);
        self.next_seq += 1;
        self.is_ready |= self.owner.is_none();
    }

    // Turns ------------------------------------------------------------------------------------

    /// Takes the conversation: the epoch is raised, the attempt counts, the end of the turn is
    /// frozen at its first claim.
    pub(super) fn claim(&mut self, node: Node) -> Option<Turn> {
        if !self.is_ready {
            return None;
        }
        let seq_last = self.turn_last.unwrap_or(self.done_seq + 1);
        self.epoch += 1;
        self.owner = Some(node);
        self.attempt += 1;
        self.is_ready = false;
        self.turn_last = Some(seq_last);
        Some(Turn {
            epoch: self.epoch,
            seq_last,
            attempt: self.attempt.min(ATTEMPTS_MAX + 1),
            is_past: false,
            phase: TurnPhase::Claiming,
        })
    }

    /// Frees what `node` holds and `keep` denies.
    pub(super) fn free_unknown(&mut self, node: Node, keep: impl Fn(u8) -> bool) {
        if self.owner == Some(node) && !keep(self.epoch) {
            self.release(node, self.epoch, false);
        }
    }

    /// Ends a turn under its epoch or not at all: the messages are done, the reply is in the
    /// outbox, and the conversation is ready again if more is pending.
    pub(super) fn finish(&mut self, turn: Turn, rules: Rules) -> Written {
        if rules.hold(Guard::Fence) {
            if self.epoch != turn.epoch && rules.hold(Guard::EpochOfFinish) {
                return Written::Fenced;
            }
            if self.done_seq >= turn.seq_last {
                return Written::Done;
            }
            if self.turn_last != Some(turn.seq_last) {
                return Written::Fenced;
            }
        }
        self.done_seq = turn.seq_last;
        self.ends[turn.seq_last as usize - 1] += 1;
        self.owner = None;
        self.attempt = 0;
        self.turn_last = None;
        self.is_ready = self.is_pending() && rules.hold(Guard::ReadyAgain);
        if !rules.hold(Guard::EpochsGrow) {
            self.epoch = 0;
        }
        // Out of attempts, it is a dead letter; otherwise this bot always answers.
        if turn.attempt <= ATTEMPTS_MAX {
            self.enqueue(turn.seq_last);
        }
        Written::Done
    }

    /// Gives the conversation back with its turn undone.
    pub(super) fn release(&mut self, node: Node, epoch: u8, counts: bool) -> Written {
        if self.epoch != epoch || self.owner != Some(node) {
            return Written::Fenced;
        }
        self.owner = None;
        self.is_ready = true;
        self.attempt -= u8::from(!counts);
        Written::Done
    }

    // Sending ----------------------------------------------------------------------------------

    /// Marks the due outgoing as sending in its next attempt, before anybody calls Meta.
    pub(super) fn send(&mut self, node: Node, rules: Rules) -> Option<Sending> {
        let in_question = |outgoing: &Outgoing| {
            matches!(
                outgoing.state,
                OutgoingState::Sending | OutgoingState::Unsure
            )
        };
        let is_held_up = self.outbox.iter().flatten().any(in_question);
        if is_held_up && rules.hold(Guard::OneInQuestion) {
            return None;
        }
        let is_due = |outgoing: &Option<Outgoing>| outgoing.is_some_and(|of| of.is_due);
        let at = self.outbox.iter().position(is_due)?;
        let outgoing = self.outbox[at].as_mut()?;
        let attempt = outgoing.attempt + 1;
        if attempt as usize > CALLS {
            return None;
        }
        if rules.hold(Guard::MarkBeforeCall) {
            outgoing.state = OutgoingState::Sending;
            outgoing.attempt = attempt;
            outgoing.is_due = false;
            outgoing.node = Some(node);
        }
        Some(Sending {
            outgoing: at as u8,
            attempt,
            is_past: false,
            phase: SendPhase::Taking,
        })
    }

    /// Settles what `node` is sending and `keep` denies: unsure if the process had it and gave it
    /// up; surely not sent if it never heard of it.
    pub(super) fn doubt_unknown(
        &mut self,
        node: Node,
        keep: impl Fn(u8, u8) -> bool,
        was_given_up: impl Fn(u8, u8) -> bool,
        rules: Rules,
    ) {
        for at in 0..self.outbox.len() as u8 {
            if let Some(outgoing) = self.outbox[at as usize].filter(|of| of.node == Some(node))
                && !keep(at, outgoing.attempt)
            {
                let attempt = u32::from(outgoing.attempt);
                let evidence = match was_given_up(at, outgoing.attempt) {
                    true => Evidence::Lost(attempt),
                    false => Evidence::NotSent(attempt),
                };
                self.settle(at, evidence, rules);
            }
        }
    }

    /// Merges evidence of an outgoing: never refused, whoever brings it.
    pub(super) fn settle(&mut self, at: u8, evidence: Evidence, rules: Rules) {
        let Some(outgoing) = self.outbox[at as usize] else {
            return;
        };
        let failed = outgoing.failed_attempt.map(u32::from);
        let failed = failed.filter(|_| rules.hold(Guard::FailuresStay));
        let merged = outgoing
            .state
            .merge(u32::from(outgoing.attempt), failed, evidence);
        match merged {
            Transition::To(OutgoingState::Unsure) if !rules.hold(Guard::UnsureWaits) => {
                self.enter(at, OutgoingState::Pending, rules);
            }
            Transition::To(state) => self.enter(at, state, rules),
            Transition::Stay => {}
        }
    }

    /// A receipt that says failed: merged, and remembered if it speaks of the last attempt.
    pub(super) fn fail(&mut self, at: u8, attempt: u8, evidence: Evidence, rules: Rules) {
        self.settle(at, evidence, rules);
        if let Some(outgoing) = &mut self.outbox[at as usize]
            && outgoing.attempt == attempt
        {
            outgoing.failed_attempt = Some(attempt);
        }
    }

    /// No receipt came in time: an unsure outgoing is a dead letter, and later ones pass.
    pub(super) fn expire_unsure(&mut self, rules: Rules) {
        for at in 0..self.outbox.len() as u8 {
            if let Some(outgoing) = self.outbox[at as usize] {
                self.settle(at, Evidence::WaitOver(u32::from(outgoing.attempt)), rules);
            }
        }
    }

    fn enter(&mut self, at: u8, state: OutgoingState, rules: Rules) {
        let Some(outgoing) = &mut self.outbox[at as usize] else {
            return;
        };
        outgoing.state = state;
        outgoing.node = None;
        outgoing.is_due = false;
        if state == OutgoingState::Pending && rules.hold(Guard::LaterWait) {
            // Open again, it stands before those that had moved up.
            for later in self.outbox[at as usize + 1..].iter_mut().flatten() {
                later.is_due = false;
            }
        }
        let is_waiting = matches!(state, OutgoingState::Sending | OutgoingState::Unsure);
        if !is_waiting && rules.hold(Guard::NextIsDue) {
            self.promote_head();
        }
    }

    fn enqueue(&mut self, seq: u8) {
        if let Some(free) = self.outbox.iter().position(Option::is_none) {
            self.outbox[free] = Some(Outgoing {
                seq,
                state: OutgoingState::Pending,
                attempt: 0,
                failed_attempt: None,
                is_due: false,
                node: None,
            });
        }
        self.promote_head();
    }

    /// The oldest open outgoing is due, if it waits for nothing else.
    fn promote_head(&mut self) {
        let mut open = self.outbox.iter_mut().flatten();
        let head = open.find(|outgoing| outgoing.state.is_open());
        if let Some(head) = head.filter(|head| head.state == OutgoingState::Pending) {
            head.is_due = true;
        }
    }

    // Nodes ------------------------------------------------------------------------------------

    /// A node is taken out, declared dead or leaving: its conversation is free, its unanswered
    /// send is unsure. The attempt stays counted.
    pub(super) fn remove(&mut self, node: Node, rules: Rules) {
        if self.owner == Some(node) {
            self.owner = None;
            self.is_ready = true;
        }
        for at in 0..self.outbox.len() as u8 {
            if let Some(outgoing) = self.outbox[at as usize].filter(|of| of.node == Some(node)) {
                self.settle(at, Evidence::Lost(u32::from(outgoing.attempt)), rules);
            }
        }
    }
}
