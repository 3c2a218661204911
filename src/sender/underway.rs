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
    /// Those whose settlement was given up: their calls were made.
    given_up: HashSet<SendKey>,
    /// Marked by takes that were not heard of: nobody was called under these marks.
    unheard: Vec<SendKey>,
    /// What the last look found and nobody knew, with the last take that may have made it.
    strange: HashMap<SendKey, u64>,
}

/// A take under way. Dropped without [`Taking::answered`] it is forgotten, and what it may have
/// marked will be doubted, also if it is committed only later.
pub(super) struct Taking {
    underway: Arc<Underway>,
    number: u64,
}

/// A send that is known until this is dropped. Dropped without [`KnownSend::settled`], be it by a
/// panic, it was given up.
pub(super) struct KnownSend {
    underway: Arc<Underway>,
    send: SendKey,
    is_settled: bool,
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
            is_settled: false,
        }
    }

    /// The question that [`Store::doubt_unknown`](crate::store::Store::doubt_unknown) asks, for
    /// one look.
    ///
    /// What a take has marked whose answer is still under way is not known here yet, and what the
    /// store has shown may have been settled before it is asked here. So a send is judged only
    /// when it is seen a second time, and when all takes have ended that were begun before it was
    /// seen first; takes that were begun later hold up nothing, however closely they follow each
    /// other.
    ///
    /// Denied is what was given up. What no take was heard of is kept and told by
    /// [`Underway::unheard`]: it was surely not sent, and can be settled as that.
    pub(super) fn keep(self: &Arc<Self>) -> KeepSends {
        let underway = Arc::clone(self);
        let before = std::mem::take(&mut self.known().strange);
        Arc::new(move |id, attempt| underway.known().keeps((id, attempt), &before))
    }

    /// The marks that the last look found and nobody was called under.
    pub(super) fn unheard(&self) -> Vec<(OutgoingId, Attempt)> {
        std::mem::take(&mut self.known().unheard)
    }

    /// These are unsure now: nothing more has to be known of them.
    pub(super) fn forget_given_up(&self, ids: &[OutgoingId]) {
        self.known().given_up.retain(|(id, _)| !ids.contains(id));
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
        if self.given_up.contains(&send) {
            return false;
        }
        let seen = before.get(&send).copied();
        let last = seen.unwrap_or(self.begun);
        self.strange.insert(send, last);
        let may_be_heard = self.open.first().is_some_and(|oldest| *oldest <= last);
        if seen.is_some() && !may_be_heard {
            self.unheard.push(send);
        }
        true
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

impl KnownSend {
    /// The store knows what became of it.
    pub(super) fn settled(&mut self) {
        self.is_settled = true;
    }
}

impl Drop for KnownSend {
    fn drop(&mut self) {
        let mut known = self.underway.known();
        known.sends.remove(&self.send);
        if !self.is_settled {
            known.given_up.insert(self.send);
        }
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
            is_bots: false,
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
        assert!(keeps(&one) && underway.unheard().is_empty());
        assert!(keeps(&again) && underway.unheard().is_empty());
        assert!(keeps(&again), "seen a second time");
        let unheard = underway.unheard();
        assert_eq!(unheard, [(again.id, 2)], "another attempt is another send");
        drop(held);
        assert!(!keeps(&one), "it was given up, and the call was made");
        underway.forget_given_up(&[one.id]);
        let mut held = underway.hold(&one);
        // The store has shown it, and asks only after it was settled.
        let keep = underway.keep();
        held.settled();
        drop(held);
        assert!(keep(one.id, 1));
        assert!(
            underway.unheard().is_empty(),
            "it is not there at a next look"
        );
    }

    #[test]
    fn a_take_whose_answer_was_lost_keeps_nothing() {
        let underway = Arc::new(Underway::default());
        let unheard = |id| {
            assert!(underway.keep()(OutgoingId(id), 1));
            assert!(underway.unheard().is_empty(), "not at the first look");
            assert!(underway.keep()(OutgoingId(id), 1));
            underway.unheard().len()
        };
        drop(underway.begin());
        assert_eq!(unheard(1), 1, "also what it commits only now");
        drop(underway.begin());
        assert_eq!(unheard(2), 1);
    }

    #[test]
    fn takes_that_follow_each_other_without_a_pause_hold_up_no_doubt() {
        let underway = Arc::new(Underway::default());
        let is_unheard = || {
            assert!(underway.keep()(OutgoingId(1), 1));
            !underway.unheard().is_empty()
        };
        let first = underway.begin();
        assert!(!is_unheard(), "the first take may have made it");
        let second = underway.begin();
        assert!(!is_unheard(), "and may still say so");
        drop(first);
        assert!(is_unheard(), "the second was begun after it was seen");
        drop(second);
    }
}
