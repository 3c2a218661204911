//! Recording what callers were told, without making them wait for it: the record is begun before
//! the answer goes out, and what the same person is sent next waits until it is written. Else a
//! bot that says the same twice on purpose could be taken for one that asks again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::NumberId;

/// Records that are being written at once; a further answer waits for one of them.
const AT_ONCE_MAX: usize = 256;

/// Whom a number writes to, in the ledger's spelling.
pub(super) type Whom = (NumberId, String);

/// The records that are being written, by whom they concern.
pub(super) struct Tellers {
    places: Arc<Semaphore>,
    under_way: Arc<Mutex<HashMap<Whom, Arc<Semaphore>>>>,
}

/// One record that is being written. Dropped when it is.
pub(super) struct Telling {
    whom: Whom,
    under_way: Arc<Mutex<HashMap<Whom, Arc<Semaphore>>>>,
    order: Option<OwnedSemaphorePermit>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Tellers {
    pub(super) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            under_way: Arc::default(),
        }
    }

    /// The right to write a record about this person.
    pub(super) async fn begin(&self, whom: Whom) -> Telling {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let order = self.order(&whom);
        let order = order.acquire_owned().await.ok();
        Telling {
            whom,
            under_way: Arc::clone(&self.under_way),
            order,
            _place: place,
        }
    }

    /// Returns when no record about this person is being written.
    pub(super) async fn none(&self, whom: &Whom) {
        let order = {
            let under_way = self.under_way.lock();
            let under_way = under_way.unwrap_or_else(PoisonError::into_inner);
            under_way.get(whom).cloned()
        };
        if let Some(order) = order {
            // Never closed.
            drop(order.acquire().await);
            drop(order);
            forget(&self.under_way, whom);
        }
    }

    fn order(&self, whom: &Whom) -> Arc<Semaphore> {
        let under_way = self.under_way.lock();
        let mut under_way = under_way.unwrap_or_else(PoisonError::into_inner);
        let order = under_way.entry(whom.clone());
        Arc::clone(order.or_insert_with(|| Arc::new(Semaphore::new(1))))
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        drop(self.order.take());
        forget(&self.under_way, &self.whom);
    }
}

/// Takes out what nobody holds: whoever waits holds it as well, and comes here in turn.
fn forget(under_way: &Mutex<HashMap<Whom, Arc<Semaphore>>>, whom: &Whom) {
    let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
    if under_way
        .get(whom)
        .is_some_and(|order| Arc::strong_count(order) == 1)
    {
        under_way.remove(whom);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whom(to: &str) -> Whom {
        (NumberId::from("106"), to.to_owned())
    }

    #[tokio::test]
    async fn who_is_told_of_holds_up_only_what_concerns_them() {
        let tellers = Arc::new(Tellers::new());
        let telling = tellers.begin(whom("p:49")).await;
        tellers.none(&whom("p:50")).await;
        let next = tokio::spawn({
            let tellers = Arc::clone(&tellers);
            async move { tellers.none(&whom("p:49")).await }
        });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(!next.is_finished());
        drop(telling);
        next.await.expect("it goes on");
        drop(tellers.begin(whom("p:49")).await);
        assert!(
            tellers.under_way.lock().unwrap().is_empty(),
            "nothing is left behind"
        );
    }
}
