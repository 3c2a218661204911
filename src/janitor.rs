//! Retention: forgets what has reached its age, in rounds of small batches.
//!
//! Decides only when to ask the store and how hard; what may go, and which node has the duty, is
//! the store's to say.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::store::{Membership, PruneRequest, Pruned, SharedStore, StoreError};
use crate::telemetry::{Metrics, RelayResult};

/// Rows of each kind in one batch: the store does nothing else meanwhile.
const BATCH: u32 = 500;
/// The shortest pause between two batches.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The parts that the janitor works with.
pub struct JanitorParts {
    /// The ledger.
    pub store: SharedStore,
    /// This process, as the store knows it.
    pub membership: Arc<Membership>,
    /// Time.
    pub clock: Clock,
    /// Figures.
    pub metrics: Metrics,
}

/// What the janitor goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JanitorSettings {
    /// How old event keys and records become; see [`PruneRequest::keys`].
    pub keys: Duration,
    /// How old payloads become; see [`PruneRequest::payloads`].
    pub payloads: Duration,
    /// How long what the bot is to get beside messages waits; see [`PruneRequest::relays`].
    pub relays: Duration,
    /// The pause between two rounds.
    pub every: Duration,
}

/// Forgets what is old, where no other node does.
pub struct Janitor {
    parts: JanitorParts,
    settings: JanitorSettings,
}

impl Janitor {
    /// A janitor that does nothing yet.
    pub const fn new(parts: JanitorParts, settings: JanitorSettings) -> Self {
        Self { parts, settings }
    }

    /// Makes rounds until `stop`, the first at once, or until the store has failed for good. A
    /// batch under way is finished.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            match self.round(&stop).await {
                Ok(()) => {}
                Err(StoreError::Fatal(_)) => return,
                Err(error) => warn!(%error, "what is old could not be forgotten"),
            }
            let pause = self.parts.clock.sleep(self.settings.every);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    /// Batches until nothing more is old. After each the store is left alone for at least as
    /// long as it took: deliveries go first.
    async fn round(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let clock = &self.parts.clock;
        let began = clock.boottime();
        let mut all = Pruned::default();
        while !stop.is_cancelled() {
            let asked_at = clock.boottime();
            let answer = self.parts.store.prune(self.request()).await;
            let Ok(Some(pruned)) = answer else {
                self.tell(&all, began);
                return answer.map(drop);
            };
            self.parts.metrics.pruned(pruned.events, pruned.payloads);
            self.parts
                .metrics
                .relayed(RelayResult::Expired, pruned.relays);
            all.events += pruned.events;
            all.payloads += pruned.payloads;
            all.relays += pruned.relays;
            if !pruned.more {
                break;
            }
            let took = clock.boottime().saturating_sub(asked_at);
            stop.run_until_cancelled(clock.sleep(took.max(PAUSE_MIN)))
                .await;
        }
        self.tell(&all, began);
        Ok(())
    }

    fn request(&self) -> PruneRequest {
        PruneRequest {
            node: self.parts.membership.node(),
            keys: self.settings.keys,
            payloads: self.settings.payloads,
            relays: self.settings.relays,
            limit: BATCH,
        }
    }

    fn tell(&self, all: &Pruned, began: Duration) {
        if all.relays > 0 {
            warn!(
                relays = all.relays,
                "statuses and notices waited too long for the bot and are dropped"
            );
        }
        if all.events + all.payloads > 0 {
            let latency_ms = self
                .parts
                .clock
                .boottime()
                .saturating_sub(began)
                .as_millis() as u64;
            info!(
                pruned.events = all.events,
                pruned.payloads = all.payloads,
                latency_ms,
                "pruned"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, EventBody, EventKey, Notice, Timestamp};
    use crate::store::sqlite::{SqliteSettings, SqliteStore};
    use crate::store::{Delivery, Timing};

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const SETTINGS: JanitorSettings = JanitorSettings {
        keys: DAY,
        payloads: DAY,
        relays: DAY,
        every: Duration::from_secs(600),
    };

    struct World {
        parts: JanitorParts,
        _folder: tempfile::TempDir,
    }

    async fn world() -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock::manual(Timestamp(1_800_000_000_000));
        let settings = SqliteSettings {
            path: folder.path().join("hapax.db"),
            queue_max: 64,
            wal_max: 1 << 20,
        };
        let store = SqliteStore::open(&settings, clock.clone()).expect("a new file opens");
        let store: SharedStore = Arc::new(store);
        let timing = Timing {
            lease_ttl: DAY,
            renew_every: DAY,
        };
        let membership = Membership::join(Arc::clone(&store), clock.clone(), timing)
            .await
            .expect("joined");
        World {
            parts: JanitorParts {
                store,
                membership,
                clock,
                metrics: Metrics::new(),
            },
            _folder: folder,
        }
    }

    async fn append(parts: &JanitorParts, notices: std::ops::Range<u32>) {
        let notice = |n: u32| Event {
            key: EventKey::derive(&[&n.to_be_bytes()]),
            number: None,
            relay: None,
            body: EventBody::Notice(Notice {
                kind: "account_update".into(),
                raw: "{}".into(),
            }),
        };
        let delivery = Delivery {
            id: parts.membership.next_delivery(),
            at: parts.clock.now(),
            events: notices.map(notice).collect(),
            failed_before: Vec::new(),
        };
        let appended = parts.store.append(Arc::new(delivery)).await;
        appended.expect("it is appended");
    }

    fn forgotten(metrics: &Metrics) -> u32 {
        let text = metrics.render();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("hapax_pruned_events_total "));
        value.and_then(|value| value.parse().ok()).expect("counted")
    }

    #[tokio::test]
    async fn a_round_makes_pauses_and_rounds_come_again_until_it_stops() {
        let World { parts, _folder } = world().await;
        append(&parts, 0..BATCH + 7).await;
        let (clock, metrics) = (parts.clock.clone(), parts.metrics.clone());
        let store = Arc::clone(&parts.store);
        clock.advance(DAY);
        let stop = CancellationToken::new();
        let again = JanitorParts {
            store: Arc::clone(&parts.store),
            membership: Arc::clone(&parts.membership),
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        let janitor = tokio::spawn(Janitor::new(parts, SETTINGS).run(stop.clone()));
        while forgotten(&metrics) < BATCH {
            tokio::task::yield_now().await;
        }
        for _ in 0..10 {
            store.backlog().await.expect("read");
        }
        assert_eq!(forgotten(&metrics), BATCH, "it waits, and the clock stands");
        while forgotten(&metrics) < BATCH + 7 {
            clock.advance(PAUSE_MIN);
            tokio::task::yield_now().await;
        }
        append(&again, 0..3).await;
        clock.advance(DAY);
        while forgotten(&metrics) < BATCH + 10 {
            clock.advance(SETTINGS.every);
            tokio::task::yield_now().await;
        }
        stop.cancel();
        janitor.await.expect("it ends");
    }
}
