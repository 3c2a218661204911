//! What was learnt lately of dialled numbers, so that the ledger is told of each once and not with
//! every send. Forgetting costs one more write, and nothing else.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::NumberId;

/// So many are remembered; then all are forgotten.
const REMEMBERED_MAX: usize = 4096;

/// Dialled from this number, these digits, and the ones that Meta took them for.
pub(super) type Link = (NumberId, String, String);

/// The links that the ledger has.
#[derive(Default)]
pub(super) struct Links(Mutex<HashSet<Link>>);

impl Links {
    pub(super) fn is_known(&self, link: &Link) -> bool {
        self.lock().contains(link)
    }

    pub(super) fn remember(&self, link: Link) {
        let mut known = self.lock();
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(link);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_remembered_than_have_room() {
        let links = Links::default();
        let link = |at: usize| (NumberId::from("106"), at.to_string(), "49".to_owned());
        for at in 0..=REMEMBERED_MAX {
            links.remember(link(at));
        }
        assert!(links.is_known(&link(REMEMBERED_MAX)) && !links.is_known(&link(0)));
        assert_eq!(links.lock().len(), 1);
    }
}
