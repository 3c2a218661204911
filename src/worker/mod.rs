//! Stage 2: claims due conversations, lets the handler decide, and writes what it decided under
//! the lease. Knows neither ingress nor sender: they meet in the store.

mod conclude;
mod held;
mod replies;
mod run;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, warn};

pub use self::conclude::RetryPolicy;
use self::held::Held;
pub use self::replies::{NoReply, ReplyPolicy};
use self::replies::{Replies, WAITING_MAX};
use crate::clock::Clock;
use crate::model::Handler;
use crate::store::{
    ClaimRequest, Claimed, ClaimedTurn, Membership, Policy, SharedStore, StoreError,
};
use crate::telemetry::Metrics;
use crate::whatsapp::Graph;

/// How turns are run.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Turns at once in this process.
    pub concurrency: usize,
    /// Which messages one turn takes.
    pub policy: Policy,
    /// How long a handler may take.
    pub deadline: Duration,
    /// When to try again, and when to stop.
    pub retry: RetryPolicy,
    /// When a turn is done that its bot has acknowledged; `None`: at once.
    pub reply: Option<ReplyPolicy>,
    /// Whether a turn's first attempt marks its last message as read and shows "typing".
    pub mark_read: bool,
    /// How often what the store says is held is compared with what is known here.
    pub tend_every: Duration,
}

/// The parts that a worker is made of.
pub struct WorkerParts {
    /// The ledger.
    pub store: SharedStore,
    /// This process as the ledger knows it.
    pub membership: Arc<Membership>,
    /// What answers.
    pub handler: Arc<dyn Handler>,
    /// For read marks only.
    pub graph: Graph,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
}

/// The stage.
pub struct Worker {
    parts: WorkerParts,
    settings: WorkerSettings,
    held: Arc<Held>,
    replies: Replies,
    waiting: Arc<Semaphore>,
}

/// The longest wait between two looks: bounds what a lost wake-up can cost.
const POLL: Duration = Duration::from_secs(1);
/// The shortest wait after a look that found nothing: what is due may be locked by somebody else.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The wait after a failed look at the store.
const AFTER_ERROR: Duration = Duration::from_millis(200);

impl Worker {
    /// A worker that does nothing yet.
    pub fn new(parts: WorkerParts, settings: WorkerSettings) -> Arc<Self> {
        Arc::new(Self {
            parts,
            settings,
            held: Arc::new(Held::default()),
            replies: Replies::new(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        })
    }

    /// Works until `stop`, then claims nothing more and waits for the turns under way. Those
    /// that `cut` finds still running are given back undone.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, cut: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.settings.concurrency));
        let turns = TaskTracker::new();
        let _looking = self.look_for_replies();
        let mut changed = self.parts.store.turns_changed();
        while let Some(permits) = take_slots(&slots, &stop).await {
            // Registered before the look, so that nothing appended after it is missed.
            changed.mark_unchanged();
            let claimed = match self.claim(permits.len()).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    warn!(%error, "no turn could be claimed");
                    stop.run_until_cancelled(self.parts.clock.sleep(AFTER_ERROR))
                        .await;
                    continue;
                }
            };
            let wait = claimed
                .turns
                .is_empty()
                .then(|| claimed.next_due.unwrap_or(POLL).clamp(PAUSE_MIN, POLL));
            for (turn, permit) in claimed.turns.into_iter().zip(permits) {
                self.start(&turns, turn, permit, &cut);
            }
            if let Some(wait) = wait {
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = changed.changed() => {}
                    () = self.parts.clock.sleep(wait) => {}
                }
            }
        }
        turns.close();
        turns.wait().await;
    }

    /// Looks, until the handle is dropped, for what bots send that have only acknowledged a turn.
    fn look_for_replies(self: &Arc<Self>) -> Option<AbortOnDropHandle<()>> {
        self.settings.reply?;
        let worker = Arc::clone(self);
        let looking = async move {
            let parts = &worker.parts;
            worker.replies.look(&parts.store, &parts.clock).await;
        };
        Some(AbortOnDropHandle::new(tokio::spawn(looking)))
    }

    /// Frees, again and again until `stop`, what a claim with a lost answer has taken.
    pub async fn tend(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let pause = self.parts.clock.sleep(self.settings.tend_every);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
            let node = self.parts.membership.node();
            match self.parts.store.free_unknown(node, self.held.keep()).await {
                Ok(freed) => freed.iter().for_each(|lease| {
                    warn!(conversation.id = %lease.conversation, lease.epoch,
                          "a claim whose answer was lost is free again");
                }),
                Err(StoreError::Fatal(_)) => return,
                Err(error) => error!(%error, "lost claims could not be looked for"),
            }
        }
    }

    async fn claim(&self, slots: usize) -> Result<Claimed, StoreError> {
        let pending = self.held.begin();
        let request = ClaimRequest {
            node: self.parts.membership.node(),
            token: pending.token,
            limit: u32::try_from(slots).unwrap_or(u32::MAX),
            policy: self.settings.policy,
        };
        let claimed = self.parts.store.claim(request).await?;
        pending.answered(&claimed);
        Ok(claimed)
    }

    fn start(
        self: &Arc<Self>,
        turns: &TaskTracker,
        claimed: ClaimedTurn,
        permit: OwnedSemaphorePermit,
        cut: &CancellationToken,
    ) {
        let worker = Arc::clone(self);
        let cut = cut.clone();
        turns.spawn(async move {
            let lease = claimed.lease;
            worker.run_turn(claimed, cut, permit).await;
            worker.held.forget(lease);
        });
    }
}

/// Waits for a free slot and takes all that are free; `None` on `stop`.
async fn take_slots(
    slots: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<Vec<OwnedSemaphorePermit>> {
    let first = stop
        .run_until_cancelled(Arc::clone(slots).acquire_owned())
        .await?
        .ok()?;
    let mut permits = vec![first];
    while let Ok(permit) = Arc::clone(slots).try_acquire_owned() {
        permits.push(permit);
    }
    // Both may be ready at once; stopping goes first.
    (!stop.is_cancelled()).then_some(permits)
}
