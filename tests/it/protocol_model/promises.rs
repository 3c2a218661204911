//! What must hold in every state that can be reached. Each promise stands under the name that a
//! failing check prints.

use hapax::model::OutgoingState;
use stateright::Property;

use super::protocol::Protocol;
use super::state::{ATTEMPTS_MAX, MESSAGES, Node, SendPhase, State, TurnPhase, Verdict};

pub(super) const HANDLED_ONCE: &str = "a message is handled at most once, and replied to once";
pub(super) const SENT_ONCE: &str = "Meta holds each outgoing at most once";
pub(super) const KEPT: &str = "what was answered 200 is in the ledger";
pub(super) const NOT_STRANDED: &str = "when nothing more happens, everything has its end";
pub(super) const TRUE_IN_THE_END: &str = "when nothing more happens, sent is what Meta holds";
pub(super) const EPOCHS_GROW: &str = "epochs only grow";
pub(super) const IN_ORDER: &str = "places end in order, without a gap";
pub(super) const ONE_IN_QUESTION: &str = "at most one outgoing is sending or unsure";
pub(super) const LEASES_HOLD: &str = "whoever has a valid lease owns the conversation";
pub(super) const READY: &str = "ready is what is pending and owned by nobody";
pub(super) const HEAD_IS_DUE: &str = "only the first open outgoing is due";

/// Not promises, but what they are about: it must be possible, or little was checked.
const LATE_FINISH: &str = "a turn is decided after another process has taken it over";
const LATE_SETTLE: &str = "a process that was given up on knows what became of an unsure send";
const LATE_RECEIPT: &str = "a dead letter was sent after all, which a receipt will show";

/// All promises.
pub(super) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(HANDLED_ONCE, |_, state| handled_once(state)),
        Property::always(SENT_ONCE, |_, state| sent_once(state)),
        Property::always(KEPT, |_, state| kept(state)),
        Property::always(NOT_STRANDED, |protocol, state| {
            is_settled(state) || !protocol.is_quiet(state)
        }),
        Property::always(TRUE_IN_THE_END, |protocol, state| {
            !is_settled(state) || is_true(state) || !protocol.is_quiet(state)
        }),
        Property::always(EPOCHS_GROW, |_, state| epochs_grow(state)),
        Property::always(IN_ORDER, |_, state| in_order(state)),
        Property::always(ONE_IN_QUESTION, |_, state| one_in_question(state)),
        Property::always(LEASES_HOLD, |_, state| leases_hold(state)),
        Property::always(READY, |_, state| is_ready(state)),
        Property::always(HEAD_IS_DUE, |_, state| head_is_due(state)),
        Property::sometimes(LATE_FINISH, |_, state| late_finish(state)),
        Property::sometimes(LATE_SETTLE, |_, state| late_settle(state)),
        Property::sometimes(LATE_RECEIPT, |_, state| late_receipt(state)),
    ]
}

fn handled_once(state: &State) -> bool {
    let ledger = &state.ledger;
    let ends = |message: u8| -> u8 {
        let places = ledger.places.iter().zip(ledger.ends);
        places
            .filter(|(at, _)| **at == Some(message))
            .map(|(_, ends)| ends)
            .sum()
    };
    let replies = |seq: u8| {
        let outbox = ledger.outbox.iter().flatten();
        outbox.filter(|outgoing| outgoing.seq == seq).count()
    };
    (0..MESSAGES as u8).all(|message| ends(message) <= 1)
        && (1..ledger.next_seq).all(|seq| replies(seq) <= 1)
}

fn sent_once(state: &State) -> bool {
    state.meta.copies.iter().all(|copies| *copies <= 1)
}

fn kept(state: &State) -> bool {
    let acknowledged = (0..).zip(state.meta.acknowledged);
    acknowledged
        .filter(|(_, answered)| *answered)
        .all(|(message, _)| state.ledger.places.contains(&Some(message)))
}

/// Whether nothing is left to do: Meta has its answers, every message its end, every outgoing too.
///
/// That this holds whenever only faults could still happen says that nothing is ever stranded.
/// For each other step moves something on that no such step moves back: a message to its place,
/// an epoch up, a turn or a send towards its end, a node out, evidence upward. So a run in which
/// nothing more goes wrong ends, in whatever order its steps are taken; and where it ends, only
/// faults could happen. The faults that were, up to their number, may lie anywhere before.
fn is_settled(state: &State) -> bool {
    let ledger = &state.ledger;
    let is_open = ledger
        .outbox
        .iter()
        .flatten()
        .any(|outgoing| outgoing.state.is_open());
    state.meta.acknowledged.iter().all(|answered| *answered)
        && !ledger.is_pending()
        && ledger.owner.is_none()
        && !is_open
}

/// Whether exactly those outgoings are sent that Meta holds.
fn is_true(state: &State) -> bool {
    let mut outbox = state.ledger.outbox.iter().zip(state.meta.copies);
    outbox.all(|(outgoing, copies)| {
        outgoing.is_none_or(|outgoing| (outgoing.state == OutgoingState::Sent) == (copies == 1))
    })
}

fn epochs_grow(state: &State) -> bool {
    state.ledger.epoch == state.epoch_max
}

fn in_order(state: &State) -> bool {
    let ledger = &state.ledger;
    ledger.done_seq < ledger.next_seq
        && (1..)
            .zip(ledger.ends)
            .all(|(seq, ends)| (ends > 0) == (seq <= ledger.done_seq))
}

fn one_in_question(state: &State) -> bool {
    let outbox = state.ledger.outbox.iter().flatten();
    let in_question = |state| matches!(state, OutgoingState::Sending | OutgoingState::Unsure);
    outbox
        .filter(|outgoing| in_question(outgoing.state))
        .count()
        <= 1
}

/// Only a lapse takes a lease away: as long as the node lives, who has the last epoch and has not
/// ended the turn is the owner. Nobody else ends it either.
fn leases_hold(state: &State) -> bool {
    let ledger = &state.ledger;
    (0..).zip(&state.processes).all(|(process, memory)| {
        memory.turns.iter().flatten().all(|turn| {
            let may_have_ended = turn.phase == TurnPhase::Decided || turn.attempt > ATTEMPTS_MAX;
            let has_ended = may_have_ended && turn.seq_last <= ledger.done_seq;
            let is_last = memory.is_entitled(turn.is_past) && turn.epoch == ledger.epoch;
            !is_last || has_ended || ledger.owner == Some(Node::Of(process))
        })
    })
}

fn is_ready(state: &State) -> bool {
    let ledger = &state.ledger;
    ledger.is_ready == (ledger.is_pending() && ledger.owner.is_none())
}

fn head_is_due(state: &State) -> bool {
    let mut open = state
        .ledger
        .outbox
        .iter()
        .flatten()
        .filter(|of| of.state.is_open());
    open.next();
    open.all(|later| !later.is_due)
}

fn late_finish(state: &State) -> bool {
    let turns = state
        .processes
        .iter()
        .flat_map(|memory| memory.turns.iter().flatten());
    let mut decided = turns.filter(|turn| turn.phase == TurnPhase::Decided);
    decided.any(|turn| turn.epoch < state.ledger.epoch && state.ledger.owner.is_some())
}

fn late_settle(state: &State) -> bool {
    let mut sendings = state.processes.iter().filter_map(|memory| memory.sending);
    sendings.any(|sending| {
        let outgoing = state.ledger.outbox[sending.outgoing as usize];
        let is_unsure = outgoing.is_some_and(|of| of.state == OutgoingState::Unsure);
        is_unsure && sending.is_past && sending.phase == SendPhase::Answered(Verdict::Accepted)
    })
}

fn late_receipt(state: &State) -> bool {
    let mut outbox = state.ledger.outbox.iter().zip(state.meta.copies);
    outbox.any(|(outgoing, copies)| {
        copies == 1 && outgoing.is_some_and(|of| of.state == OutgoingState::Dead)
    })
}
