//! Waiting for what becomes of sends: all who wait in this process are looked after by one task,
//! which asks the ledger for all of them at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::model::BotSendId;
use crate::store::{Fate, SharedStore, StoreError};

/// How long who waits goes without a look, whatever the hints.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long at least between two looks, however many hints there are.
const LOOK_PAUSE: Duration = Duration::from_millis(15);
/// How many are asked for at once.
const LOOK_MAX: usize = 512;

/// Those who wait, and the ledger they wait for.
pub(super) struct Fates {
    store: SharedStore,
    clock: Clock,
    store_wait_max: Duration,
    waiting: Mutex<Vec<Waiting>>,
    came: Notify,
}

struct Waiting {
    id: BotSendId,
    told: oneshot::Sender<Fate>,
}

impl Fates {
    pub(super) fn new(store: SharedStore, clock: Clock, store_wait_max: Duration) -> Self {
        Self {
            store,
            clock,
            store_wait_max,
            waiting: Mutex::default(),
            came: Notify::new(),
        }
    }

    /// What became of it, if that is known within `limit`. Who stops waiting is forgotten.
    pub(super) async fn of(&self, id: BotSendId, limit: Duration) -> Option<Fate> {
        let (told, known) = oneshot::channel();
        self.waiting().push(Waiting { id, told });
        self.came.notify_one();
        self.clock.timeout(limit, known).await.ok()?.ok()
    }

    /// What is known of these now, if the ledger answers within `limit`.
    pub(super) async fn now(
        &self,
        ids: Vec<BotSendId>,
        limit: Duration,
    ) -> Result<Vec<Fate>, StoreError> {
        let limit = limit.min(self.store_wait_max);
        match self.clock.timeout(limit, self.store.fates(ids)).await {
            Ok(fates) => fates,
            Err(_) => Err(StoreError::Unavailable(format!(
                "no answer within {limit:?}"
            ))),
        }
    }

    /// Looks until `stop`, as often as somebody waits.
    pub(super) async fn look(&self, stop: &CancellationToken) {
        let mut settled = self.store.sends_settled();
        let mut is_failing = false;
        loop {
            // Seen before the look: what changes during it is a reason for another one.
            settled.mark_unchanged();
            let ids = self.ids();
            if ids.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.came.notified() => continue,
                }
            }
            match self.look_at(ids).await {
                Ok(()) => is_failing = false,
                Err(error) => {
                    if !is_failing {
                        tracing::warn!(%error, "what became of sends could not be looked for");
                    }
                    is_failing = true;
                }
            }
            let pause = async {
                self.clock.sleep(LOOK_PAUSE).await;
                tokio::select! {
                    // Fails when the store is gone, which the next look says.
                    Ok(()) = settled.changed() => {}
                    () = self.came.notified() => {}
                    () = self.clock.sleep(LOOK_EVERY) => {}
                }
            };
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    async fn look_at(&self, ids: Vec<BotSendId>) -> Result<(), StoreError> {
        for some in ids.chunks(LOOK_MAX) {
            let fates = self.now(some.to_vec(), self.store_wait_max).await?;
            for (id, fate) in some.iter().zip(fates) {
                if fate.is_known() {
                    self.tell(*id, &fate);
                }
            }
        }
        Ok(())
    }

    fn tell(&self, id: BotSendId, fate: &Fate) {
        let known = self
            .waiting()
            .extract_if(.., |one| one.id == id)
            .collect::<Vec<_>>();
        for one in known {
            // Who has stopped waiting does not hear it.
            let _ = one.told.send(fate.clone());
        }
    }

    /// Whom somebody still waits for, each once.
    fn ids(&self) -> Vec<BotSendId> {
        let mut waiting = self.waiting();
        waiting.retain(|one| !one.told.is_closed());
        let mut ids: Vec<BotSendId> = waiting.iter().map(|one| one.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
