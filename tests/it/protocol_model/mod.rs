//! The protocol as a model, checked in every state that three processes, two messages and a few
//! faults can lead to: pauses beyond the lease, crashes, lost answers, redeliveries, refusals.
//!
//! A process that takes no step is a paused one, so pauses need no step of their own; and a lease
//! may be over at any time, which is a fault when its process still runs. What becomes of an
//! outgoing is decided by the program's own `merge`, not by a copy of it.

mod guard;
mod ledger;
mod promises;
mod protocol;
mod state;
mod step;

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use stateright::{Checker, HasDiscoveries, Model};

use self::guard::{Guard, Rules};
use self::protocol::Protocol;
use self::state::{FAULTS_MAX, State};

fn protocol(without: Option<Guard>, faults: u8) -> Protocol {
    Protocol {
        rules: Rules { without },
        faults,
        taken: Arc::new(AtomicU32::new(0)),
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "how much was checked")]
fn every_promise_holds_in_every_state() {
    let checker = protocol(None, FAULTS_MAX)
        .checker()
        .threads(2)
        .spawn_bfs()
        .join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    eprintln!("{states} states, up to {depth} steps deep, {FAULTS_MAX} faults");
    checker.assert_properties();
    let taken = checker.model().taken.load(Ordering::Relaxed);
    let names = step::STORE.iter().chain(&step::OUTSIDE);
    let never: Vec<_> = names
        .enumerate()
        .filter(|(at, _)| taken & (1 << at) == 0)
        .collect();
    assert!(never.is_empty(), "steps that never happened: {never:?}");
}

/// No state comes back: each step moves on what no other moves back, so a run without end would
/// need faults without end. That nothing is stranded rests on it.
#[test]
fn every_run_ends() {
    let protocol = protocol(None, FAULTS_MAX);
    let first = State::first(FAULTS_MAX);
    // Whether all that follows a state has been seen; until then it lies on the path.
    let mut seen = HashMap::from([(fingerprint(&first), false)]);
    let mut path = vec![(fingerprint(&first), protocol.next_states(&first))];
    while let Some((from, next)) = path.last_mut() {
        let Some(state) = next.pop() else {
            seen.insert(*from, true);
            path.pop();
            continue;
        };
        let to = fingerprint(&state);
        match seen.get(&to) {
            Some(true) => {}
            Some(false) => panic!("a run can come back to {state:?}"),
            None => {
                seen.insert(to, false);
                path.push((to, protocol.next_states(&state)));
            }
        }
    }
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Without one rule, the promise that it keeps is broken, and one fault is enough for it.
#[track_caller]
fn breaks(guard: Guard, promise: &'static str) {
    let checker = protocol(Some(guard), 1)
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([promise])))
        .spawn_bfs()
        .join();
    let path = checker.discovery(promise);
    assert!(
        path.is_some(),
        "without {guard:?} it still holds: {promise}"
    );
}

#[test]
fn without_the_unique_key_a_message_is_handled_twice() {
    breaks(Guard::UniqueKey, promises::HANDLED_ONCE);
}

#[test]
fn answered_before_the_commit_a_message_is_lost() {
    breaks(Guard::CommitBeforeAnswer, promises::KEPT);
}

/// What is done already keeps a turn from ending twice; the epoch keeps whoever is at work now
/// from losing it to one whose lease is over.
#[test]
fn without_its_epoch_a_late_finish_takes_a_turn_from_its_owner() {
    breaks(Guard::EpochOfFinish, promises::LEASES_HOLD);
}

#[test]
fn without_the_fence_a_turn_ends_twice() {
    breaks(Guard::Fence, promises::HANDLED_ONCE);
}

#[test]
fn without_the_fence_a_late_finish_takes_the_conversation_back() {
    breaks(Guard::Fence, promises::IN_ORDER);
}

#[test]
fn without_growing_epochs_there_are_none() {
    breaks(Guard::EpochsGrow, promises::EPOCHS_GROW);
}

#[test]
fn a_finish_that_leaves_the_conversation_idle_strands_the_next_message() {
    breaks(Guard::ReadyAgain, promises::NOT_STRANDED);
}

#[test]
fn a_claim_whose_answer_was_lost_strands_its_conversation_unless_it_is_freed() {
    breaks(Guard::FreeUnknown, promises::NOT_STRANDED);
}

#[test]
fn without_tokens_a_claim_under_way_loses_its_lease() {
    breaks(Guard::Token, promises::LEASES_HOLD);
}

#[test]
fn called_before_it_is_marked_an_outgoing_is_sent_twice() {
    breaks(Guard::MarkBeforeCall, promises::SENT_ONCE);
}

#[test]
fn sent_again_instead_of_unsure_an_outgoing_is_sent_twice() {
    breaks(Guard::UnsureWaits, promises::SENT_ONCE);
}

#[test]
fn without_a_look_at_the_others_two_outgoings_are_in_question() {
    breaks(Guard::OneInQuestion, promises::ONE_IN_QUESTION);
}

#[test]
fn a_head_that_is_not_made_due_waits_for_ever() {
    breaks(Guard::NextIsDue, promises::NOT_STRANDED);
}

#[test]
fn an_outgoing_that_is_open_again_does_not_hold_the_later_ones_by_itself() {
    breaks(Guard::LaterWait, promises::HEAD_IS_DUE);
}

#[test]
fn a_failure_that_is_forgotten_is_undone_by_the_late_answer() {
    breaks(Guard::FailuresStay, promises::TRUE_IN_THE_END);
}

#[test]
fn a_send_whose_answer_was_lost_strands_its_conversation_unless_it_is_doubted() {
    breaks(Guard::DoubtUnknown, promises::NOT_STRANDED);
}

#[test]
fn a_send_that_was_given_up_and_is_taken_for_one_never_made_goes_out_twice() {
    breaks(Guard::GivenUp, promises::SENT_ONCE);
}

#[test]
fn a_take_under_way_that_is_not_registered_loses_its_sends() {
    breaks(Guard::Taking, promises::SENDS_HOLD);
}

/// The transactions that are no steps here. Retention takes out what has its end, and no promise
/// here speaks of that. Threads and the sends of bots have rules of their own, which are pure
/// functions of the model and checked there; neither takes a lease, and what a bot sends enters
/// the outbox as a reply does. A status that is handed over concerns no conversation's lock.
const NO_STEPS: [&str; 9] = [
    "prune",
    "claim_thread",
    "complete_thread",
    "forget_thread",
    "stage",
    "told",
    "link_dialled",
    "relay",
    "relayed",
];

/// The trait as text: the transactions that change the ledger are steps of the model, and no
/// others are.
#[test]
fn the_model_and_the_code_name_the_same_steps() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/mod.rs");
    let text = std::fs::read_to_string(path).expect("the trait can be read");
    let body = text
        .split("pub trait Store")
        .nth(1)
        .expect("the trait is there");
    let body = body
        .split("// Reading ---")
        .next()
        .expect("its transitions come first");
    let mut methods: BTreeSet<String> = body
        .split("    async fn ")
        .skip(1)
        .map(|rest| rest.split('(').next().unwrap_or_default().to_owned())
        .collect();
    for other in NO_STEPS {
        assert!(methods.remove(other), "{other} is gone");
    }
    let steps: BTreeSet<String> = step::STORE.iter().map(|name| snake_case(name)).collect();
    assert_eq!(steps, methods);
    let outside: BTreeSet<String> = step::OUTSIDE.iter().map(|name| snake_case(name)).collect();
    assert!(outside.is_disjoint(&methods), "{outside:?}");
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
