//! What this process knows to be sending. The store's own list is compared with it: a send whose
//! answer was lost, or whose settlement was given up, stands in the store but not here, and must
//! not hold back its conversation.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{Attempt, OutgoingId};
use crate::store::{KeepSends, Sending, Sends};

/// The takes whose answer is under way, and the sends that are.
#[derive(Default)]
pub(super) struct Underway {
    known: Mutex<Known>,
}

type SendKey = (OutgoingId, Attempt);

#[derive(Default)]
struct Known {
    /// How many takes were begun: the number of the last one.
    begun: u64,
    /// Those without an answer so far.
    open: BTreeSet<u64>,
    sends: HashSet<SendKey>,
    /// What the last look found and nobody knew, with the last take that may have made it.
    strange: HashMap<SendKey, u64>,
}

/// A take under way. Dropped without [`Taking::answered`] it is forgotten, and what it may have
/// marked will be doubted, also if it is committed only later.
pub(super) struct Taking {
    underway: Arc<Underway>,
    number: u64,
}

/// A send that is known until this is dropped, be it by a panic.
pub(super) struct KnownSend {
    underway: Arc<Underway>,
    send: SendKey,
}

impl Underway {
    /// Registers a take before it is made.
    pub(super) fn begin(self: &Arc<Self>) -> Taking {
        let mut known = self.known();
        known.begun += 1;
        let number = known.begun;
        known.open.insert(number);
        Taking {
            underway: Arc::clone(self),
            number,
        }
    }

    /// Holds a send of an answered take until it is settled or given up.
    pub(super) fn hold(self: &Arc<Self>, sending: &Sending) -> KnownSend {
        KnownSend {
            underway: Arc::clone(self),
            send: (sending.id, sending.attempt),
        }
    }

    /// The question that [`Store::doubt_unknown`](crate::store::Store::doubt_unknown) asks, for
    /// one look.
    ///
    /// What a take has marked whose answer is still under way is not known here yet. So a send
    /// is denied only when all takes have ended that were begun before it was seen first; takes
    /// that were begun later hold up nothing, however closely they follow each other.
    pub(super) fn keep(self: &Arc<Self>) -> KeepSends {
        let underway = Arc::clone(self);
        let before = std::mem::take(&mut self.known().strange);
        Arc::new(move |id, attempt| underway.known().keeps((id, attempt), &before))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn keeps(&mut self, send: SendKey, before: &HashMap<SendKey, u64>) -> bool {
        if self.sends.contains(&send) {
            return true;
        }
        let last = before.get(&send).copied().unwrap_or(self.begun);
        self.strange.insert(send, last);
        self.open.first().is_some_and(|oldest| *oldest <= last)
    }
}

impl Taking {
    /// The answer has come: its sends are known before the take is over.
    pub(super) fn answered(self, sends: &Sends) {
        let marked = sends.outgoings.iter();
        let marked = marked.map(|sending| (sending.id, sending.attempt));
        self.underway.known().sends.extend(marked);
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.underway.known().open.remove(&self.number);
    }
}

impl Drop for KnownSend {
    fn drop(&mut self) {
        self.underway.known().sends.remove(&self.send);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConversationId, NodeId, NumberId, Recipient, StoreId, Tag, TurnId};
    use std::time::Duration;

    fn sending(id: i64, attempt: Attempt) -> Sending {
        let (id, conversation) = (OutgoingId(id), ConversationId(1));
        Sending {
            id,
            attempt,
            node: NodeId(1),
            tag: Tag {
                store: StoreId(1),
                outgoing: id,
                attempt,
            },
            conversation,
            number: NumberId::from("100"),
            recipient: Recipient::Phone("1".into()),
            body: String::new(),
            age: Duration::ZERO,
            turn: TurnId {
                conversation,
                seq: 1,
            },
        }
    }

    fn sends(outgoings: &[Sending]) -> Sends {
        Sends {
            outgoings: outgoings.to_vec(),
            next_due: None,
        }
    }

    #[test]
    fn a_send_is_known_from_before_the_take_until_it_is_settled() {
        let underway = Arc::new(Underway::default());
        let (one, again) = (sending(1, 1), sending(1, 2));
        let keeps = |of: &Sending| underway.keep()(of.id, of.attempt);
        let taking = underway.begin();
        assert!(keeps(&one), "a take under way keeps what it may have taken");
        taking.answered(&sends(std::slice::from_ref(&one)));
        let held = underway.hold(&one);
        assert!(keeps(&one));
        assert!(!keeps(&again), "another attempt is another send");
        drop(held);
        assert!(!keeps(&one));
    }

    #[test]
    fn a_take_whose_answer_was_lost_keeps_nothing() {
        let underway = Arc::new(Underway::default());
        let keeps = |id| underway.keep()(OutgoingId(id), 1);
        drop(underway.begin());
        assert!(!keeps(1), "also what it commits only now");
        drop(underway.begin());
        assert!(!keeps(2));
    }

    #[test]
    fn takes_that_follow_each_other_without_a_pause_hold_up_no_doubt() {
        let underway = Arc::new(Underway::default());
        let keeps = || underway.keep()(OutgoingId(1), 1);
        let first = underway.begin();
        assert!(keeps(), "the first take may have made it");
        let second = underway.begin();
        assert!(keeps(), "and may still say so");
        drop(first);
        assert!(!keeps(), "the second was begun after it was seen");
        drop(second);
    }
}
