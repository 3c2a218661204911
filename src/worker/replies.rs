//! Bots that take a turn with a 200 and answer it afterwards: the turn is open until they have.
//!
//! Many turns may wait at a time; one question to the store is for all of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::Clock;
use crate::model::Outcome;
use crate::store::{SharedStore, StoreError, TurnRun};

/// When a turn is done that its bot has only acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyPolicy {
    /// How long a bot may take until it has said what it wants to say.
    pub wait: Duration,
    /// How long it has to be quiet after a send until that was its last one.
    pub tail: Duration,
    /// What becomes of a turn for which it has sent nothing in that time.
    pub none: NoReply,
}

/// What becomes of a turn whose bot has taken it and sent nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoReply {
    /// It is tried again, as after a failure.
    Retry,
    /// It is done: the bot has nothing to say.
    Silence,
    /// It is a dead letter.
    Dead,
}

impl ReplyPolicy {
    /// What a turn without a reply comes to.
    pub(super) fn without_reply(&self) -> Outcome {
        let reason = format!(
            "the bot has taken it, and sent nothing within {:?}",
            self.wait
        );
        match self.none {
            NoReply::Retry => Outcome::failed(reason),
            NoReply::Silence => Outcome::Silence,
            NoReply::Dead => Outcome::Discard { reason },
        }
    }
}

/// What became of the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// The bot has sent something, and has been quiet since.
    Seen,
    /// It has sent nothing in time.
    None,
    /// The process ends.
    Cut,
}

/// The longest time between two looks at what bots have sent.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The shortest.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// The turns that wait, and when each was heard of last, on the clock of this process.
pub(super) struct Replies {
    waiting: Mutex<HashMap<TurnRun, Option<Duration>>>,
    /// Changes after each look, and when somebody begins to wait.
    looked: watch::Sender<u64>,
}

impl Replies {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            looked: watch::Sender::new(0),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<TurnRun, Option<Duration>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the bot has sent what belongs to `run`, or for as long as the policy says.
    pub(super) async fn wait_for(
        &self,
        run: TurnRun,
        policy: &ReplyPolicy,
        clock: &Clock,
        cut: &CancellationToken,
    ) -> Reply {
        let mut looked = self.looked.subscribe();
        let _place = Place::take(self, run);
        let until = clock.boottime() + policy.wait;
        loop {
            let now = clock.boottime();
            let heard = self.waiting().get(&run).copied().flatten();
            let quiet_at = heard.map(|heard| heard + policy.tail);
            if quiet_at.is_some_and(|at| at <= now) || (heard.is_some() && until <= now) {
                return Reply::Seen;
            }
            if until <= now {
                return Reply::None;
            }
            let rest = quiet_at.unwrap_or(until).min(until).saturating_sub(now);
            tokio::select! {
                // What it has said is said: that was its answer.
                () = cut.cancelled() => return match heard {
                    Some(_) => Reply::Seen,
                    None => Reply::Cut,
                },
                // Fails when this is dropped, which it is not while somebody waits in it.
                _ = looked.changed() => {}
                () = clock.sleep(rest) => {}
            }
        }
    }

    /// Looks, for all who wait, until it is dropped.
    pub(super) async fn look(&self, store: &SharedStore, clock: &Clock) {
        let mut staged = store.sends_changed();
        let mut began = self.looked.subscribe();
        loop {
            staged.mark_unchanged();
            let runs: Vec<TurnRun> = self.waiting().keys().copied().collect();
            if runs.is_empty() {
                let _ = began.changed().await;
                continue;
            }
            match store.heard(runs).await {
                Ok(heard) => {
                    let now = clock.boottime();
                    let mut waiting = self.waiting();
                    for one in heard {
                        if let Some(at) = waiting.get_mut(&one.run) {
                            *at = Some(now.saturating_sub(one.ago));
                        }
                    }
                }
                Err(StoreError::Fatal(_)) => return,
                Err(error) => warn!(%error, "what bots have sent could not be looked for"),
            }
            self.looked.send_modify(|count| *count += 1);
            clock.sleep(LOOK_PAUSE).await;
            tokio::select! {
                _ = staged.changed() => {}
                () = clock.sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// A turn among those that wait, as long as it does.
struct Place<'a> {
    replies: &'a Replies,
    run: TurnRun,
}

impl<'a> Place<'a> {
    fn take(replies: &'a Replies, run: TurnRun) -> Self {
        replies.waiting().insert(run, None);
        replies.looked.send_modify(|count| *count += 1);
        Self { replies, run }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.replies.waiting().remove(&self.run);
    }
}

/// Turns that wait for their bot hold no slot of the worker's, up to so many.
pub(super) const WAITING_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{ConversationId, Timestamp, TurnId};

    const SECOND: Duration = Duration::from_secs(1);
    const POLICY: ReplyPolicy = ReplyPolicy {
        wait: Duration::from_secs(10),
        tail: Duration::from_secs(2),
        none: NoReply::Retry,
    };
    const RUN: TurnRun = TurnRun {
        turn: TurnId {
            conversation: ConversationId(1),
            seq: 1,
        },
        epoch: 4,
    };

    struct Waiting {
        replies: Arc<Replies>,
        clock: Clock,
        cut: CancellationToken,
        waits: tokio::task::JoinHandle<Reply>,
    }

    async fn begin() -> Waiting {
        let (replies, clock) = (Arc::new(Replies::new()), Clock::manual(Timestamp(0)));
        let cut = CancellationToken::new();
        let mut began = replies.looked.subscribe();
        let waits = {
            let (replies, clock, cut) = (Arc::clone(&replies), clock.clone(), cut.clone());
            tokio::spawn(async move { replies.wait_for(RUN, &POLICY, &clock, &cut).await })
        };
        began.changed().await.unwrap();
        Waiting {
            replies,
            clock,
            cut,
            waits,
        }
    }

    impl Waiting {
        /// As a look would that has found a send of this moment.
        fn hear(&self) {
            let now = self.clock.boottime();
            self.replies.waiting().insert(RUN, Some(now));
            self.replies.looked.send_modify(|count| *count += 1);
        }

        /// Lets the time pass until the wait has ended; how long that took, and how it did.
        async fn end(self) -> (Duration, Reply) {
            let mut took = Duration::ZERO;
            while !self.waits.is_finished() {
                tokio::task::yield_now().await;
                self.clock.advance(SECOND / 10);
                took += SECOND / 10;
                for _ in 0..8 {
                    tokio::task::yield_now().await;
                }
                assert!(took < 60 * SECOND, "it never ends");
            }
            (took, self.waits.await.unwrap())
        }
    }

    #[tokio::test]
    async fn a_turn_is_done_when_its_bot_has_been_quiet_for_a_while_after_a_send() {
        let waiting = begin().await;
        waiting.hear();
        let replies = Arc::clone(&waiting.replies);
        let (took, reply) = waiting.end().await;
        assert_eq!(reply, Reply::Seen);
        assert!(took >= POLICY.tail && took < POLICY.wait, "{took:?}");
        assert!(replies.waiting().is_empty(), "nobody waits any more");
    }

    #[tokio::test]
    async fn a_bot_that_goes_on_sending_is_waited_for_but_not_for_ever() {
        let waiting = begin().await;
        for _ in 0..9 {
            waiting.hear();
            tokio::task::yield_now().await;
            waiting.clock.advance(SECOND);
            tokio::task::yield_now().await;
            assert!(!waiting.waits.is_finished());
        }
        waiting.hear();
        let (took, reply) = waiting.end().await;
        assert_eq!(reply, Reply::Seen);
        assert!(took <= SECOND + SECOND / 10, "{took:?}");
    }

    #[tokio::test]
    async fn without_a_send_the_wait_is_over_in_the_end() {
        let (took, reply) = begin().await.end().await;
        assert_eq!(reply, Reply::None);
        assert!(took >= POLICY.wait, "{took:?}");
    }

    #[tokio::test]
    async fn whoever_stops_does_not_wait() {
        let waiting = begin().await;
        waiting.cut.cancel();
        assert_eq!(waiting.waits.await.unwrap(), Reply::Cut);
    }

    #[test]
    fn a_turn_without_a_reply_comes_to_what_the_policy_says() {
        let of = |none| ReplyPolicy { none, ..POLICY }.without_reply();
        assert!(matches!(of(NoReply::Retry), Outcome::Retry { .. }));
        assert_eq!(of(NoReply::Silence), Outcome::Silence);
        assert!(matches!(of(NoReply::Dead), Outcome::Discard { .. }));
    }
}
