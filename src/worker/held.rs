//! What this process knows it holds. The store's own list is compared with it: a claim whose
//! answer was lost stands in the store but not here, and must not strand its conversation.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{ConversationId, Lease};
use crate::store::{ClaimToken, Claimed, Keep};

/// The claims under way and the leases held.
#[derive(Default)]
pub(super) struct Held {
    known: Mutex<Known>,
    tokens: AtomicI64,
}

#[derive(Default)]
struct Known {
    claims: HashSet<ClaimToken>,
    leases: HashSet<(ConversationId, i64)>,
}

/// A claim under way; dropped without [`Pending::answered`], it is forgotten, and what it may
/// have taken will be freed.
pub(super) struct Pending {
    held: Arc<Held>,
    pub(super) token: ClaimToken,
}

impl Held {
    /// Registers a claim before it is made.
    pub(super) fn begin(self: &Arc<Self>) -> Pending {
        let token = ClaimToken(self.tokens.fetch_add(1, Ordering::Relaxed));
        self.known().claims.insert(token);
        Pending {
            held: Arc::clone(self),
            token,
        }
    }

    /// The lease was given back or is lost.
    pub(super) fn forget(&self, lease: Lease) {
        self.known()
            .leases
            .remove(&(lease.conversation, lease.epoch));
    }

    /// The question that [`Store::free_unknown`](crate::store::Store::free_unknown) asks.
    pub(super) fn keep(self: &Arc<Self>) -> Keep {
        let held = Arc::clone(self);
        Arc::new(move |token, lease| {
            let known = held.known();
            known.claims.contains(&token)
                || known.leases.contains(&(lease.conversation, lease.epoch))
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// The claim's answer has come: its leases are known from the same moment on.
    pub(super) fn answered(self, claimed: &Claimed) {
        let mut known = self.held.known();
        known.leases.extend(
            claimed
                .turns
                .iter()
                .map(|turn| (turn.lease.conversation, turn.lease.epoch)),
        );
        known.claims.remove(&self.token);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.held.known().claims.remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeId;

    #[test]
    fn a_claim_is_known_from_before_it_is_made_until_it_is_given_back() {
        let held = Arc::new(Held::default());
        let keep = held.keep();
        let lease = Lease {
            conversation: ConversationId(1),
            epoch: 4,
            node: NodeId(1),
        };
        let pending = held.begin();
        let token = pending.token;
        assert!(
            keep(token, lease),
            "a claim under way keeps whatever it may have taken"
        );
        drop(pending);
        assert!(
            !keep(token, lease),
            "a claim whose answer was lost keeps nothing"
        );
        held.known()
            .leases
            .insert((lease.conversation, lease.epoch));
        assert!(keep(token, lease));
        assert!(
            !keep(token, Lease { epoch: 5, ..lease }),
            "a newer lease is not this one"
        );
        held.forget(lease);
        assert!(!keep(token, lease));
    }
}
