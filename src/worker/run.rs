//! The life of one claimed turn, as a column of steps.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::Worker;
use super::conclude::{Circumstances, Conclusion};
use super::replies::{Reply, ReplyPolicy};
use crate::crash_point::{self, Point};
use crate::model::{EventKey, Outcome, Timestamp, Turn, Wamid};
use crate::store::{ClaimedTurn, Finish, Release, StoreError, TurnEnd, TurnRun, Written};
use crate::telemetry::{DeadLetterKind, FencedWrite, TurnResult};
use crate::whatsapp;

/// How long a write under a lease is tried again when the store can't be reached. After that the
/// conversation is freed as if the claim's answer had been lost.
const WRITE_TRIES: u32 = 50;
/// A handler that keeps its deadline itself can say what it waited for; it gets so much longer.
const DEADLINE_GRACE: Duration = Duration::from_millis(500);
const WRITE_PAUSE: Duration = Duration::from_millis(200);

/// What the handler came to, or that it was stopped.
#[derive(PartialEq)]
enum Called {
    Decided(Outcome),
    Cut,
}

impl Worker {
    /// Holds `slot` as long as the handler works.
    pub(super) async fn run_turn(
        &self,
        claimed: ClaimedTurn,
        cut: CancellationToken,
        slot: OwnedSemaphorePermit,
    ) {
        let started_at = self.parts.clock.now();
        if self.settings.retry.is_exhausted(claimed.attempt) {
            return self.bury(&claimed, started_at).await;
        }
        // Paused since the claim: somebody else may already be at work.
        if !self.parts.membership.is_entitled(claimed.lease.node) {
            warn!(conversation.id = %claimed.lease.conversation, turn.id = %claimed.id,
                  lease.epoch = claimed.lease.epoch, "the lease was over before the turn began");
            return;
        }
        let turn = self.open(&claimed);
        self.mark_read(&turn);
        let clocked = self.parts.clock.boottime();
        crash_point::pass(Point::BeforeHandle);
        let called = self.call(&turn, &cut).await;
        crash_point::pass(Point::AfterHandle);
        let called = self.await_reply(&claimed, called, &cut, slot).await;
        let took = self.parts.clock.boottime().saturating_sub(clocked);
        let (word, conclusion) = self.conclude(&claimed, called);
        let written = self.write(&claimed, &conclusion, started_at).await;
        self.tell(&claimed, word, &conclusion, written, took);
    }

    fn open(&self, claimed: &ClaimedTurn) -> Turn {
        let messages = claimed
            .messages
            .iter()
            .map(|stored| whatsapp::message::parse(stored.key, stored.envelope.clone()))
            .collect();
        Turn {
            id: claimed.id,
            number: claimed.number.clone(),
            conversation: claimed.lease.conversation,
            contact: claimed.contact,
            attempt: claimed.attempt,
            epoch: claimed.lease.epoch,
            is_again: claimed.is_again,
            is_new: claimed.is_new,
            messages,
            deadline: self.settings.deadline,
        }
    }

    /// The blue ticks and "typing"; harmless when repeated, and nobody waits for it.
    fn mark_read(&self, turn: &Turn) {
        let Some(last) = turn.messages.last() else {
            return;
        };
        if !self.settings.mark_read || turn.attempt > 1 {
            return;
        }
        let (graph, number) = (self.parts.graph.clone(), turn.number.clone());
        let (wamid, key) = (Wamid::new(last.id.as_str()), last.key);
        tokio::spawn(async move {
            if let Err(reason) = graph.mark_read(&number, &wamid, true).await {
                info!(event.key = %key, %reason, "a message could not be marked as read");
            }
        });
    }

    /// Calls the handler in a task of its own, so that a panic is a failure like any other.
    async fn call(&self, turn: &Turn, cut: &CancellationToken) -> Called {
        let handler = Arc::clone(&self.parts.handler);
        let turn = turn.clone();
        let deadline = turn.deadline;
        let limit = deadline + DEADLINE_GRACE;
        let running =
            AbortOnDropHandle::new(tokio::spawn(async move { handler.handle(&turn).await }));
        tokio::select! {
            decided = self.parts.clock.timeout(limit, running) => Called::Decided(match decided {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Outcome::failed("the handler panicked"),
                Err(_) => Outcome::failed(format!("the handler took over {deadline:?}")),
            }),
            () = cut.cancelled() => Called::Cut,
        }
    }

    /// A bot that has acknowledged the turn may take its time until it sends, if the settings say
    /// so. The conversation stays closed meanwhile, and the slot is somebody else's.
    async fn await_reply(
        &self,
        claimed: &ClaimedTurn,
        called: Called,
        cut: &CancellationToken,
        slot: OwnedSemaphorePermit,
    ) -> Called {
        if called != Called::Decided(Outcome::Acknowledged) {
            return called;
        }
        let Some(policy) = &self.settings.reply else {
            self.notice_swallowed(claimed).await;
            return called;
        };
        // Without a place to wait in, it waits in its slot.
        let _place = match Arc::clone(&self.waiting).try_acquire_owned() {
            Ok(place) => {
                drop(slot);
                place
            }
            Err(_) => slot,
        };
        let run = TurnRun {
            turn: claimed.id,
            epoch: claimed.lease.epoch,
        };
        let waited = self.replies.wait_for(run, policy, &self.parts.clock, cut);
        match waited.await {
            Reply::Seen => called,
            Reply::Cut => Called::Cut,
            Reply::None => self.without_reply(claimed, policy).await,
        }
    }

    /// Where an earlier attempt has sent something there is no dead letter in the end.
    async fn without_reply(&self, claimed: &ClaimedTurn, policy: &ReplyPolicy) -> Called {
        let outcome = policy.without_reply();
        let is_last = claimed.attempt >= self.settings.retry.attempts_max;
        let is_lost = match &outcome {
            Outcome::Retry { .. } => is_last,
            Outcome::Discard { .. } => true,
            Outcome::Reply(_) | Outcome::Silence | Outcome::Acknowledged => false,
        };
        match is_lost && self.has_sent(claimed).await {
            true => Called::Decided(Outcome::Acknowledged),
            false => Called::Decided(outcome),
        }
    }

    /// Whether the bot has sent something for this turn, in whatever attempt. Where the store
    /// can't say, it has not.
    async fn has_sent(&self, claimed: &ClaimedTurn) -> bool {
        let any = TurnRun {
            turn: claimed.id,
            epoch: 0,
        };
        let heard = self.parts.store.heard(vec![any]).await;
        heard.is_ok_and(|heard| !heard.is_empty())
    }

    /// A bot that notes a message before it works on it takes the second attempt for a duplicate.
    async fn notice_swallowed(&self, claimed: &ClaimedTurn) {
        if claimed.is_again && !self.has_sent(claimed).await {
            warn!(conversation.id = %claimed.lease.conversation, turn.id = %claimed.id,
                  turn.attempt = claimed.attempt,
                  "the bot has taken a message that it had failed on, and sent nothing: if it keeps \
                   a list of message ids, set forward.retry_id = \"fresh\"");
        }
    }

    fn conclude(&self, claimed: &ClaimedTurn, called: Called) -> (TurnResult, Conclusion) {
        match called {
            Called::Cut => {
                let back = Release {
                    wait: Duration::ZERO,
                    counts: false,
                    unavailable: false,
                    error: None,
                };
                (TurnResult::Retry, Conclusion::Release(back))
            }
            Called::Decided(outcome) => {
                let of = Circumstances {
                    attempt: claimed.attempt,
                    unavailable_for: claimed.unavailable_for,
                    spread: spread(claimed.messages.first().map(|message| message.key)),
                };
                let discarded = matches!(outcome, Outcome::Discard { .. });
                let acknowledged = outcome == Outcome::Acknowledged;
                let conclusion = self.settings.retry.conclude(outcome, &of);
                let word = match &conclusion {
                    Conclusion::Finish(TurnEnd::Reply(_)) => TurnResult::Reply,
                    Conclusion::Finish(TurnEnd::Silence) if acknowledged => {
                        TurnResult::Acknowledged
                    }
                    Conclusion::Finish(TurnEnd::Silence) => TurnResult::Silence,
                    Conclusion::Finish(TurnEnd::Dead(_)) if discarded => TurnResult::Discard,
                    Conclusion::Finish(TurnEnd::Dead(_)) => TurnResult::Dead,
                    Conclusion::Release(_) => TurnResult::Retry,
                };
                (word, conclusion)
            }
        }
    }

    /// Writes until it is known whether it is written. Both writes may be repeated: a finish
    /// that finds itself done has succeeded, and a release that finds nothing to do is fenced.
    async fn write(
        &self,
        claimed: &ClaimedTurn,
        conclusion: &Conclusion,
        started_at: Timestamp,
    ) -> Result<Written, StoreError> {
        let store = &self.parts.store;
        let mut tries = 1;
        loop {
            let written = match conclusion {
                Conclusion::Finish(end) => {
                    let seq_last = claimed
                        .messages
                        .last()
                        .map_or(claimed.id.seq, |last| last.seq);
                    let finish = Finish {
                        seq_last,
                        end: end.clone(),
                        started_at,
                    };
                    store.finish(claimed.lease, finish).await
                }
                Conclusion::Release(release) => store.release(claimed.lease, release.clone()).await,
            };
            match written {
                Err(StoreError::Unavailable(_) | StoreError::Lost) if tries < WRITE_TRIES => {
                    tries += 1;
                    self.parts.clock.sleep(WRITE_PAUSE).await;
                }
                known => return known,
            }
        }
    }

    async fn bury(&self, claimed: &ClaimedTurn, started_at: Timestamp) {
        let last = claimed
            .last_error
            .as_deref()
            .unwrap_or("nothing was heard of them");
        let reason = format!(
            "{} attempts ended with their process; the last error before: {last}",
            claimed.attempt - 1
        );
        let conclusion = Conclusion::Finish(TurnEnd::Dead(reason));
        let written = self.write(claimed, &conclusion, started_at).await;
        self.tell(
            claimed,
            TurnResult::Dead,
            &conclusion,
            written,
            Duration::ZERO,
        );
    }

    fn tell(
        &self,
        claimed: &ClaimedTurn,
        word: TurnResult,
        conclusion: &Conclusion,
        written: Result<Written, StoreError>,
        took: Duration,
    ) {
        let metrics = &self.parts.metrics;
        let key = claimed
            .messages
            .first()
            .map(|message| message.key.to_string());
        let (key, latency_ms) = (key.unwrap_or_default(), took.as_millis() as u64);
        macro_rules! line {
            ($level:ident, $word:expr, $reason:expr, $text:literal) => {
                $level!(event.key = %key, trace_id = %key,
                        conversation.id = %claimed.lease.conversation, turn.id = %claimed.id,
                        turn.attempt = claimed.attempt, lease.epoch = claimed.lease.epoch,
                        node.id = %claimed.lease.node, turn.outcome = $word, latency_ms,
                        reason = $reason, $text)
            };
        }
        match (written, conclusion) {
            (Ok(Written::Done), Conclusion::Finish(TurnEnd::Dead(reason))) => {
                metrics.turn(word, took);
                metrics.dead_letter(DeadLetterKind::Turn);
                line!(error, word.as_str(), reason, "a turn became a dead letter");
            }
            (Ok(Written::Done), Conclusion::Finish(_)) => {
                metrics.turn(word, took);
                line!(info, word.as_str(), "", "turn finished");
            }
            (Ok(Written::Done), Conclusion::Release(release)) => {
                metrics.turn(word, took);
                let reason = release.error.as_deref().unwrap_or("stopping");
                line!(warn, word.as_str(), reason, "turn released");
            }
            (Ok(Written::Fenced), Conclusion::Finish(_)) => {
                metrics.turn(TurnResult::Fenced, took);
                metrics.fenced(FencedWrite::Finish);
                line!(
                    info,
                    "fenced",
                    "the lease was no longer valid",
                    "a late finish was fenced"
                );
            }
            (Ok(Written::Fenced), Conclusion::Release(_)) => {
                metrics.turn(TurnResult::Fenced, took);
                metrics.fenced(FencedWrite::Release);
                line!(
                    info,
                    "fenced",
                    "the lease was no longer valid",
                    "a late release was fenced"
                );
            }
            (Err(error), _) => {
                line!(
                    error,
                    "lost",
                    error.to_string(),
                    "a turn's end could not be written"
                );
            }
        }
    }
}

/// Retries of different messages spread by their keys, which are as good as random.
fn spread(key: Option<EventKey>) -> u64 {
    key.map_or(0, |EventKey(bytes)| {
        bytes
            .iter()
            .take(8)
            .fold(0, |number, byte| (number << 8) | u64::from(*byte))
    })
}
