//! Hands statuses and notices to the bot, where the operator asks for them: takes them from the
//! store, posts each, and ends it there. Never waits for a message's turn, nor keeps one waiting.

mod lanes;
mod pauses;
mod seldom;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use self::lanes::{Held, Lane, Lanes};
use self::pauses::Pauses;
use self::seldom::Seldom;
use crate::clock::Clock;
use crate::handler::{Forward, RelayedEvent};
use crate::model::{Backoff, Failure, NodeId, Outcome};
use crate::store::{Membership, RelayEnd, RelayRequest, Relaying, SharedStore, StoreError};
use crate::telemetry::{Metrics, RelayResult};
use crate::whatsapp::{OwnSend, as_of_own_send, minted};

/// How statuses and notices are handed over.
#[derive(Debug, Clone, Copy)]
pub struct RelaySettings {
    /// Calls to the bot at once in this process.
    pub concurrency: usize,
    /// The time that one call may take.
    pub deadline: Duration,
    /// How often one is tried that the bot does not take.
    pub attempts_max: u32,
    /// The wait before another try.
    pub backoff: Backoff,
    /// The longest wait for a bot that is down.
    pub unavailable_wait_max: Duration,
}

/// The parts that a relay is made of.
pub struct RelayParts {
    /// The ledger.
    pub store: SharedStore,
    /// This process as the ledger knows it.
    pub membership: Arc<Membership>,
    /// The way to the bot.
    pub bot: Arc<Forward>,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
}

/// The stage.
pub struct Relay {
    parts: RelayParts,
    settings: RelaySettings,
    lanes: Lanes,
    pauses: Pauses,
    calls: Semaphore,
    refused: Seldom,
}

/// Taken and not ended, at most: each holds its envelope in memory.
const HELD_MAX: usize = 64;
/// The longest wait between two looks: bounds what a lost wake-up can cost.
const POLL: Duration = Duration::from_secs(1);
/// The wait after a failed look at the store, and while the lease is over.
const AFTER_ERROR: Duration = Duration::from_millis(200);
/// How often an end is tried again. What stays without one is taken again, and comes twice.
const END_TRIES: u32 = 150;

impl Relay {
    /// A relay that does nothing yet.
    pub fn new(parts: RelayParts, settings: RelaySettings) -> Arc<Self> {
        let unavailable = Backoff {
            max: settings.unavailable_wait_max,
            ..settings.backoff
        };
        Arc::new(Self {
            calls: Semaphore::new(settings.concurrency),
            lanes: Lanes::default(),
            pauses: Pauses::new(unavailable),
            refused: Seldom::new(parts.clock.clone()),
            parts,
            settings,
        })
    }

    /// Hands over until `stop`, then waits for the calls under way and gives back the rest.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(HELD_MAX));
        let workers = TaskTracker::new();
        let mut changed = self.parts.store.relays_changed();
        loop {
            let place = Arc::clone(&room).acquire_owned();
            let Some(Ok(first)) = stop.run_until_cancelled(place).await else {
                break;
            };
            // Registered before the look, so that nothing that comes after it is missed.
            changed.mark_unchanged();
            let wait = match self.take(1 + room.available_permits()).await {
                Ok((_, taken)) if taken.is_empty() => self.until_next(),
                Ok((node, taken)) => {
                    let mut places = vec![first];
                    // No more was asked for than there is room, and only this loop takes it.
                    while places.len() < taken.len()
                        && let Ok(place) = Arc::clone(&room).try_acquire_owned()
                    {
                        places.push(place);
                    }
                    let held = taken.into_iter().zip(places);
                    for (relaying, place) in held {
                        self.begin(&workers, Held::new(relaying, node, place), &stop);
                    }
                    continue;
                }
                Err(StoreError::Fatal(_)) => break,
                Err(StoreError::DeadNode(_)) => AFTER_ERROR,
                Err(error) => {
                    warn!(%error, "no status or notice could be taken");
                    AFTER_ERROR
                }
            };
            drop(first);
            tokio::select! {
                () = stop.cancelled() => break,
                _ = changed.changed() => {}
                () = self.parts.clock.sleep(wait) => {}
            }
        }
        workers.close();
        workers.wait().await;
    }

    async fn take(&self, limit: usize) -> Result<(NodeId, Vec<Relaying>), StoreError> {
        let membership = &self.parts.membership;
        let node = membership.node();
        if !membership.is_entitled(node) {
            return Err(StoreError::DeadNode(node));
        }
        let request = RelayRequest {
            node,
            holds: self.lanes.keys(),
            except: self.pauses.now(self.parts.clock.boottime()),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        };
        Ok((node, self.parts.store.relay(request).await?))
    }

    /// A bot that is down is tried again as soon as its pause is over.
    fn until_next(&self) -> Duration {
        let left = self.pauses.next(self.parts.clock.boottime());
        left.map_or(POLL, |left| left.min(POLL))
    }

    fn begin(self: &Arc<Self>, workers: &TaskTracker, held: Held, stop: &CancellationToken) {
        let lane = Lane::of(&held.relaying);
        if self.lanes.add(lane.clone(), held) {
            let (relay, stop) = (Arc::clone(self), stop.clone());
            workers.spawn(async move { relay.work(lane, stop).await });
        }
    }

    /// One after the other, in the order in which they came; if one has to wait, so do those
    /// behind it.
    async fn work(&self, lane: Lane, stop: CancellationToken) {
        let mut waits = None;
        while let Some(held) = self.lanes.next(&lane) {
            let is_entitled = self.parts.membership.is_entitled(held.node);
            if waits.is_none() && (stop.is_cancelled() || !is_entitled) {
                waits = Some(Duration::ZERO);
            }
            let end = match waits {
                Some(wait) => RelayEnd::Again {
                    wait,
                    counts: false,
                },
                None => self.hand_over(&held.relaying).await,
            };
            if let RelayEnd::Again { wait, .. } = end {
                waits = Some(wait);
            }
            self.end(&held, end).await;
            self.lanes.forget(held.relaying.key);
        }
    }

    async fn hand_over(&self, relaying: &Relaying) -> RelayEnd {
        let Ok(_permit) = self.calls.acquire().await else {
            return RelayEnd::Again {
                wait: Duration::ZERO,
                counts: false,
            };
        };
        let event = RelayedEvent {
            key: relaying.key,
            number: &relaying.number,
            conversation: relaying.of.as_ref().map(|own| own.conversation),
            body: self.body(relaying),
            deadline: self.settings.deadline,
        };
        match self.parts.bot.relay(event).await {
            Ok(()) => {
                debug!(event.key = %relaying.key, "a status or notice was taken by the bot");
                self.parts.metrics.relayed(RelayResult::Taken, 1);
                self.pauses.over(&relaying.number);
                RelayEnd::Over
            }
            Err(outcome) => self.conclude(relaying, outcome),
        }
    }

    /// As Meta would say it to the bot, had it sent the message itself.
    fn body(&self, relaying: &Relaying) -> Bytes {
        let Some(own) = &relaying.of else {
            return Bytes::copy_from_slice(relaying.envelope.as_bytes());
        };
        let id = own
            .known_as
            .map(|send| minted::mint(self.parts.store.id(), send));
        let own = OwnSend {
            callback: own.callback.as_deref(),
            id: id.as_deref(),
        };
        Bytes::from(as_of_own_send(&relaying.envelope, own))
    }

    /// What a call that was not taken means.
    fn conclude(&self, relaying: &Relaying, outcome: Outcome) -> RelayEnd {
        match outcome {
            Outcome::Retry {
                reason,
                failure: Failure::Unavailable,
                after,
            } => self.pause(relaying, after, &reason),
            Outcome::Retry { reason, .. } => self.failed(relaying, &reason),
            Outcome::Discard { reason } => {
                self.never(RelayResult::Refused, &reason);
                RelayEnd::Over
            }
            // No call ends so without having been taken.
            Outcome::Acknowledged | Outcome::Reply(_) | Outcome::Silence => RelayEnd::Over,
        }
    }

    /// The bot is down: all of its number wait, and that costs no attempt.
    fn pause(&self, relaying: &Relaying, after: Option<Duration>, reason: &str) -> RelayEnd {
        self.parts.metrics.relayed(RelayResult::Unavailable, 1);
        let now = self.parts.clock.boottime();
        let (wait, is_first) = self.pauses.begin(&relaying.number, now, after);
        if is_first {
            warn!(reason, "statuses and notices wait for the bot");
        }
        RelayEnd::Again {
            wait,
            counts: false,
        }
    }

    fn failed(&self, relaying: &Relaying, reason: &str) -> RelayEnd {
        let failures = relaying.failures.saturating_add(1);
        if failures >= self.settings.attempts_max {
            self.never(RelayResult::GivenUp, reason);
            return RelayEnd::Over;
        }
        self.parts.metrics.relayed(RelayResult::Retry, 1);
        warn!(event.key = %relaying.key, relay.failures = failures, reason,
              "a status or notice was not taken, and is tried again");
        RelayEnd::Again {
            wait: self.settings.backoff.wait(failures, 0),
            counts: true,
        }
    }

    fn never(&self, result: RelayResult, reason: &str) {
        self.parts.metrics.relayed(result, 1);
        if let Some(relays) = self.refused.count() {
            warn!(
                relays,
                reason, "the bot does not take statuses or notices: they are dropped"
            );
        }
    }

    /// Brings the end to the store, however long that takes within reason.
    async fn end(&self, held: &Held, end: RelayEnd) {
        let (node, key) = (held.node, held.relaying.key);
        let mut tries = 1;
        loop {
            match self.parts.store.relayed(node, key, end).await {
                Ok(()) => return,
                Err(StoreError::Unavailable(_) | StoreError::Lost) if tries < END_TRIES => {
                    tries += 1;
                    self.parts.clock.sleep(AFTER_ERROR).await;
                }
                Err(error) => {
                    error!(event.key = %key, %error,
                           "what became of a status or notice could not be written");
                    return;
                }
            }
        }
    }
}
