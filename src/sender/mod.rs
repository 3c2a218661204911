//! Stage 3: takes due outgoings from the store, calls Meta, and settles what came of it. The
//! store has marked each as sending before the call, so that a crash is seen for what it is.

mod conclude;
mod healthy;
mod pace;
mod setbacks;
mod underway;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

pub use self::conclude::SendPolicy;
use self::healthy::Healthy;
use self::pace::Pace;
use self::setbacks::Setbacks;
use self::underway::Underway;
use crate::clock::Clock;
use crate::crash_point::{self, Point};
use crate::model::{GraphAnswer, OutgoingState};
use crate::store::{
    Membership, SendRequest, SendResult, Sending, Sends, Settle, SharedStore, StoreError,
};
use crate::telemetry::{DeadLetterKind, Metrics, SentResult};
use crate::whatsapp::{Graph, Sent};

/// How messages are sent.
#[derive(Debug, Clone, Copy)]
pub struct SenderSettings {
    /// Calls to Meta at once in this process.
    pub concurrency: usize,
    /// Messages a second of one number, in this process.
    pub per_second: u32,
    /// When to try again, and when to stop.
    pub policy: SendPolicy,
    /// How long a send whose answer was lost waits for a receipt.
    pub unsure_wait: Duration,
    /// How often that wait is looked at, and what the store says is being sent is compared with
    /// what is known here.
    pub tend_every: Duration,
}

/// The parts that a sender is made of.
pub struct SenderParts {
    /// The ledger.
    pub store: SharedStore,
    /// This process as the ledger knows it.
    pub membership: Arc<Membership>,
    /// The way to Meta.
    pub graph: Graph,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// Whether deliveries are being answered 200 now: receipts can arrive.
    pub receiving: Arc<AtomicBool>,
}

/// The stage.
pub struct Sender {
    parts: SenderParts,
    settings: SenderSettings,
    pace: Mutex<Pace>,
    setbacks: Mutex<Setbacks>,
    underway: Arc<Underway>,
}

/// The longest wait between two looks: bounds what a lost wake-up can cost.
const POLL: Duration = Duration::from_secs(1);
/// The shortest wait after a look that found nothing to send, whatever the store says is due.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The wait after a failed look at the store, and while the lease is over.
const AFTER_ERROR: Duration = Duration::from_millis(200);
/// How often a settlement is tried again. What stays unsettled becomes unsure, as if the answer
/// of its send had been lost.
const SETTLE_TRIES: u32 = 150;

impl Sender {
    /// A sender that does nothing yet.
    pub fn new(parts: SenderParts, settings: SenderSettings) -> Arc<Self> {
        let pace = Mutex::new(Pace::new(settings.per_second));
        Arc::new(Self {
            parts,
            settings,
            pace,
            setbacks: Mutex::default(),
            underway: Arc::new(Underway::default()),
        })
    }

    /// Sends until `stop`, then waits for the calls under way.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.settings.concurrency));
        let calls = TaskTracker::new();
        let mut changed = self.parts.store.sends_changed();
        loop {
            let slot = Arc::clone(&slots).acquire_owned();
            let Some(Ok(first)) = stop.run_until_cancelled(slot).await else {
                break;
            };
            if !self.is_entitled() {
                // What would be marked now could not be sent, and would be marked again and again.
                let pause = self.parts.clock.sleep(AFTER_ERROR);
                stop.run_until_cancelled(pause).await;
                continue;
            }
            // Registered before the look, so that nothing that becomes due after it is missed.
            changed.mark_unchanged();
            let sends = match self.take(1 + slots.available_permits()).await {
                Ok(sends) => sends,
                Err(error) => {
                    warn!(%error, "no outgoing could be taken");
                    stop.run_until_cancelled(self.parts.clock.sleep(AFTER_ERROR))
                        .await;
                    continue;
                }
            };
            let wait = sends
                .outgoings
                .is_empty()
                .then(|| self.until(sends.next_due));
            self.start(&calls, sends.outgoings, first, &slots);
            if let Some(wait) = wait {
                tokio::select! {
                    () = stop.cancelled() => break,
                    _ = changed.changed() => {}
                    () = self.parts.clock.sleep(wait) => {}
                }
            }
        }
        calls.close();
        calls.wait().await;
    }

    /// Looks, again and again until `stop`, after what nobody knows: ends the wait of sends that
    /// no receipt has settled, and makes unsure what this process has lost sight of.
    pub async fn tend(self: Arc<Self>, stop: CancellationToken) {
        let receiving = Arc::clone(&self.parts.receiving);
        let (now, every) = (self.parts.clock.boottime(), self.settings.tend_every);
        let mut healthy = Healthy::from(receiving, now, every);
        loop {
            let pause = self.parts.clock.sleep(self.settings.tend_every);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
            let expired = self.expire_unsure(&mut healthy).await;
            for looked in [expired, self.doubt_unknown().await] {
                match looked {
                    Ok(()) => {}
                    Err(StoreError::Fatal(_)) => return,
                    Err(error) => error!(%error, "unsure sends could not be looked for"),
                }
            }
        }
    }

    async fn expire_unsure(&self, healthy: &mut Healthy) -> Result<(), StoreError> {
        let (store, clock) = (&self.parts.store, &self.parts.clock);
        let told = healthy.tell(clock.boottime());
        let expired = store.expire_unsure(told, self.settings.unsure_wait).await;
        if expired.is_err() {
            healthy.pass_over(clock.boottime());
        }
        for id in expired? {
            self.parts.metrics.dead_letter(DeadLetterKind::Unsure);
            error!(outgoing.id = %id, "a send stayed unsure and became a dead letter");
        }
        Ok(())
    }

    async fn doubt_unknown(&self) -> Result<(), StoreError> {
        let (node, keep) = (self.parts.membership.node(), self.underway.keep());
        let doubted = self.parts.store.doubt_unknown(node, keep).await?;
        for id in &doubted {
            warn!(outgoing.id = %id, "lost sight of a send, it is unsure: waiting for a receipt");
        }
        self.underway.forget_given_up(&doubted);
        for (id, attempt) in self.underway.unheard() {
            let reason = "its mark was not heard of, and nobody was called".to_owned();
            let result = SendResult::Retry {
                after: Duration::ZERO,
                reason,
            };
            let settle = Settle {
                id,
                attempt,
                result,
                answer: None,
            };
            self.parts.store.settle(settle).await?;
            warn!(outgoing.id = %id, outgoing.attempt = attempt,
                  "a mark was not heard of: the send is tried again");
        }
        Ok(())
    }

    fn is_entitled(&self) -> bool {
        let membership = &self.parts.membership;
        membership.is_entitled(membership.node())
    }

    async fn take(&self, slots: usize) -> Result<Sends, StoreError> {
        let now = self.parts.clock.boottime();
        let request = SendRequest {
            node: self.parts.membership.node(),
            limit: u32::try_from(slots)
                .unwrap_or(u32::MAX)
                .min(self.settings.per_second),
            budget: self.pace().budget(now),
        };
        let taking = self.underway.begin();
        let sends = self.parts.store.send(request).await?;
        taking.answered(&sends);
        let mut pace = self.pace();
        sends
            .outgoings
            .iter()
            .for_each(|sending| pace.spend(&sending.number, now));
        Ok(sends)
    }

    fn start(
        self: &Arc<Self>,
        calls: &TaskTracker,
        outgoings: Vec<Sending>,
        first: OwnedSemaphorePermit,
        slots: &Arc<Semaphore>,
    ) {
        let mut first = Some(first);
        for sending in outgoings {
            // The store was asked for no more than there were slots, and only this loop takes them.
            let permit = first
                .take()
                .or_else(|| Arc::clone(slots).try_acquire_owned().ok());
            let sender = Arc::clone(self);
            let mut known = self.underway.hold(&sending);
            calls.spawn(async move {
                if sender.send(sending).await {
                    known.settled();
                }
                drop(known);
                drop(permit);
            });
        }
    }

    /// Whether what became of it is settled.
    async fn send(&self, sending: Sending) -> bool {
        let clocked = self.parts.clock.boottime();
        // Paused since the mark: the call was not made, and saying so settles it.
        let mut answer = None;
        let result = if self.parts.membership.is_entitled(sending.node) {
            let sent = self.call(&sending).await;
            answer = sent.answer.filter(|_| sending.is_bots);
            let verdict = sent.verdict;
            let in_a_row = self.setbacks().count(sending.id, &verdict);
            let policy = &self.settings.policy;
            policy.conclude(verdict, in_a_row, sending.age)
        } else {
            let reason = "the lease was over before the call".to_owned();
            SendResult::Retry {
                after: Duration::ZERO,
                reason,
            }
        };
        let took = self.parts.clock.boottime().saturating_sub(clocked);
        let settled = self.settle(&sending, result.clone(), answer).await;
        let is_settled = settled.is_ok();
        self.tell(&sending, &result, settled, took);
        is_settled
    }

    async fn call(&self, sending: &Sending) -> Sent {
        let tag = sending.tag.to_string();
        crash_point::pass(Point::BeforeGraph);
        let sent = self
            .parts
            .graph
            .send(&sending.number, &sending.recipient, &sending.body, &tag)
            .await;
        crash_point::pass(Point::AfterGraph);
        sent
    }

    /// Brings the evidence to the store, however long that takes within reason: without it a
    /// message that was accepted would have to wait for its receipt.
    async fn settle(
        &self,
        sending: &Sending,
        result: SendResult,
        answer: Option<GraphAnswer>,
    ) -> Result<OutgoingState, StoreError> {
        let settle = Settle {
            id: sending.id,
            attempt: sending.attempt,
            result,
            answer,
        };
        let mut tries = 1;
        loop {
            match self.parts.store.settle(settle.clone()).await {
                Err(StoreError::Unavailable(_) | StoreError::Lost) if tries < SETTLE_TRIES => {
                    tries += 1;
                    self.parts.clock.sleep(AFTER_ERROR).await;
                }
                known => return known,
            }
        }
    }

    fn tell(
        &self,
        sending: &Sending,
        result: &SendResult,
        settled: Result<OutgoingState, StoreError>,
        took: Duration,
    ) {
        let (word, reason) = result.describe();
        let latency_ms = took.as_millis() as u64;
        self.parts.metrics.send(word, took);
        let word = word.as_str();
        macro_rules! line {
            ($level:ident, $text:literal) => {
                $level!(outgoing.id = %sending.id, outgoing.attempt = sending.attempt,
                        conversation.id = %sending.conversation, turn.id = %sending.turn,
                        send.result = word, latency_ms, reason, $text)
            };
        }
        match (result, settled) {
            (_, Err(error)) => {
                error!(outgoing.id = %sending.id, %error, send.result = word,
                       "what became of a send could not be written");
            }
            (SendResult::Accepted(_), Ok(_)) => line!(info, "sent"),
            (SendResult::Retry { .. }, Ok(_)) => line!(warn, "not sent, will be tried again"),
            (SendResult::PauseNumber { .. }, Ok(_)) => {
                line!(error, "not sent: the number is paused");
            }
            (SendResult::Refused { .. }, Ok(_)) => {
                self.parts.metrics.dead_letter(DeadLetterKind::Outgoing);
                line!(error, "refused by Meta: a dead letter");
            }
            (SendResult::Unsure { .. }, Ok(OutgoingState::Unsure)) => {
                line!(warn, "unsure whether it was sent: waiting for a receipt");
            }
            (SendResult::Unsure { .. }, Ok(_)) => {
                line!(info, "the answer was lost, but a receipt has settled it");
            }
        }
    }

    fn until(&self, due: Option<Duration>) -> Duration {
        let refill = self.pace().refill().unwrap_or(PAUSE_MIN);
        due.unwrap_or(POLL).max(refill).min(POLL)
    }

    fn setbacks(&self) -> std::sync::MutexGuard<'_, Setbacks> {
        self.setbacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SendResult {
    /// The word used in logs and metrics, and the reason.
    fn describe(&self) -> (SentResult, &str) {
        match self {
            Self::Accepted(_) => (SentResult::Accepted, ""),
            Self::Retry { reason, .. } => (SentResult::Retry, reason),
            Self::PauseNumber { reason, .. } => (SentResult::Paused, reason),
            Self::Refused { reason } => (SentResult::Refused, reason),
            Self::Unsure { reason } => (SentResult::Unsure, reason),
        }
    }
}
