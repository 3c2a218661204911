//! Keeps this process's node alive in the store, and says whether it is still entitled to act.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Renewal, SharedStore, StoreError};
use crate::clock::Clock;
use crate::model::{DeliveryId, NodeId};

/// How long a lease lasts and how often it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// After so long without a renewal others take over what the node holds.
    pub lease_ttl: Duration,
    /// At most a third of it, so that two renewals may fail.
    pub renew_every: Duration,
}

/// This process as the store knows it. A process that was paused for longer than its lease
/// comes back as a new node; what it held as the old one is lost to it.
pub struct Membership {
    store: SharedStore,
    clock: Clock,
    timing: Timing,
    current: Mutex<Current>,
    deliveries: AtomicI64,
}

#[derive(Clone, Copy)]
struct Current {
    node: NodeId,
    /// On the clock of [`Clock::boottime`], counted from before the renewal was sent: the store
    /// can only have granted the lease later than that.
    entitled_until: Duration,
}

impl Membership {
    /// Joins the store as a new node.
    pub async fn join(
        store: SharedStore,
        clock: Clock,
        timing: Timing,
    ) -> Result<Arc<Self>, StoreError> {
        let asked_at = clock.boottime();
        let node = store.join(timing.lease_ttl).await?;
        info!(node.id = %node, "joined");
        let current = Current {
            node,
            entitled_until: asked_at + timing.lease_ttl,
        };
        Ok(Arc::new(Self {
            store,
            clock,
            timing,
            current: Mutex::new(current),
            deliveries: AtomicI64::new(0),
        }))
    }

    /// The node this process is now.
    pub fn node(&self) -> NodeId {
        self.current().node
    }

    /// Whether the lease of `node` surely still holds: ask before calling anybody outside.
    pub fn is_entitled(&self, node: NodeId) -> bool {
        let current = self.current();
        current.node == node && self.clock.boottime() < current.entitled_until
    }

    /// A new delivery's id.
    pub fn next_delivery(&self) -> DeliveryId {
        DeliveryId::new(self.node(), self.deliveries.fetch_add(1, Ordering::Relaxed))
    }

    /// Until `stop`: renews, joins anew when declared dead, and declares others dead whose lease
    /// is over. Looking for those never holds up a renewal.
    pub async fn keep(&self, stop: CancellationToken) {
        tokio::join!(self.keep_lease(&stop), self.keep_reaping(&stop));
    }

    async fn keep_lease(&self, stop: &CancellationToken) {
        while self.pause(stop).await {
            if let Err(error) = self.renew().await {
                warn!(%error, "the lease could not be renewed");
            }
        }
    }

    async fn keep_reaping(&self, stop: &CancellationToken) {
        while self.pause(stop).await {
            match self.store.reap().await {
                Ok(reaped) => reaped.iter().for_each(|dead| {
                    warn!(node.id = %dead.node, conversations = dead.conversations,
                          unsure = dead.unsure, "a node's lease was over: its work is free");
                }),
                // A store that is away has been told of by the renewal.
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => error!(%error, "dead nodes could not be looked for"),
            }
        }
    }

    /// Waits until it is time again; `false` on `stop`.
    async fn pause(&self, stop: &CancellationToken) -> bool {
        let pause = self.clock.sleep(self.timing.renew_every);
        stop.run_until_cancelled(pause).await.is_some()
    }

    /// Leaves in order: what is still held is free at once.
    pub async fn leave(&self) -> Result<(), StoreError> {
        self.store.leave(self.node()).await
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let asked_at = self.clock.boottime();
        let node = self.node();
        // A store that doesn't answer is asked anew while the lease still runs.
        let limit = self.timing.lease_ttl / 2;
        let renewal = self.store.renew(node, self.timing.lease_ttl);
        let renewal = match self.clock.timeout(limit, renewal).await {
            Ok(renewal) => renewal?,
            Err(_) => {
                let reason = format!("no renewal within {limit:?}");
                return Err(StoreError::Unavailable(reason));
            }
        };
        let node = match renewal {
            Renewal::Alive => node,
            Renewal::Dead => {
                let new = self.store.join(self.timing.lease_ttl).await?;
                warn!(node.id = %new, node.was = %node,
                      "was paused for longer than the lease: joined anew");
                new
            }
        };
        let entitled_until = asked_at + self.timing.lease_ttl;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Current {
            node,
            entitled_until,
        };
        Ok(())
    }

    fn current(&self) -> Current {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
