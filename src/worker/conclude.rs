//! From a handler's outcome to what is written: pure, so that every rule can be tested as it is.

use std::time::Duration;

use crate::model::{Attempt, Backoff, Failure, Outcome, Reply};
use crate::store::{Release, TurnEnd};
use crate::whatsapp::compose;

/// When a turn is tried again, and when it is a dead letter.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Attempts of a turn whose handler fails, the first included.
    pub attempts_max: Attempt,
    /// The wait after such a failure.
    pub backoff: Backoff,
    /// How long a turn waits for something that is down, in all.
    pub unavailable_max: Duration,
    /// The longest wait between two looks whether it is up again.
    pub unavailable_wait_max: Duration,
}

/// What is known of the turn apart from its outcome.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    pub(super) attempt: Attempt,
    pub(super) unavailable_for: Option<Duration>,
    /// A random number that spreads retries.
    pub(super) spread: u64,
}

/// What is written under the lease.
#[derive(Debug)]
pub(super) enum Conclusion {
    Finish(TurnEnd),
    Release(Release),
}

impl RetryPolicy {
    pub(super) fn conclude(&self, outcome: Outcome, of: &Circumstances) -> Conclusion {
        match outcome {
            Outcome::Reply(replies) => match bodies(&replies) {
                Ok(bodies) if bodies.is_empty() => Conclusion::Finish(TurnEnd::Silence),
                Ok(bodies) => Conclusion::Finish(TurnEnd::Reply(bodies)),
                Err(reason) => self.after_failure(reason, None, of),
            },
            Outcome::Silence | Outcome::Acknowledged => Conclusion::Finish(TurnEnd::Silence),
            Outcome::Discard { reason } => Conclusion::Finish(TurnEnd::Dead(reason)),
            Outcome::Retry {
                reason,
                failure: Failure::Failed,
                after,
            } => self.after_failure(reason, after, of),
            Outcome::Retry {
                reason,
                failure: Failure::Unavailable,
                after,
            } => self.after_outage(reason, after, of),
        }
    }

    /// A turn that was claimed more often than it may be tried: its earlier attempts ended with
    /// their process, so that nobody could count them as failures.
    pub(super) fn is_exhausted(&self, attempt: Attempt) -> bool {
        attempt > self.attempts_max
    }

    fn after_failure(
        &self,
        reason: String,
        after: Option<Duration>,
        of: &Circumstances,
    ) -> Conclusion {
        if of.attempt >= self.attempts_max {
            let reason = format!("failed {} times, the last time: {reason}", of.attempt);
            return Conclusion::Finish(TurnEnd::Dead(reason));
        }
        let wait = self
            .backoff
            .wait(of.attempt, of.spread)
            .max(after.unwrap_or_default());
        Conclusion::Release(Release {
            wait,
            counts: true,
            unavailable: false,
            error: Some(reason),
        })
    }

    fn after_outage(
        &self,
        reason: String,
        after: Option<Duration>,
        of: &Circumstances,
    ) -> Conclusion {
        let down_for = of.unavailable_for.unwrap_or_default();
        if down_for >= self.unavailable_max {
            let hours = down_for.as_secs() / 3600;
            let reason = format!("unavailable for {hours} h, the last time: {reason}");
            return Conclusion::Finish(TurnEnd::Dead(reason));
        }
        // A share of the time that has passed: frequent at first, rare in a long outage.
        let grown = Backoff {
            first: (down_for / 4).max(self.backoff.first),
            factor: 1,
            max: self.unavailable_wait_max,
        };
        let wait = grown.wait(1, of.spread).max(after.unwrap_or_default());
        Conclusion::Release(Release {
            wait,
            counts: false,
            unavailable: true,
            error: Some(reason),
        })
    }
}

fn bodies(replies: &[Reply]) -> Result<Vec<String>, String> {
    let composed: Result<Vec<_>, _> = replies.iter().map(compose::bodies).collect();
    Ok(composed
        .map_err(|error| format!("a reply can't be sent: {error}"))?
        .concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts_max: 4,
        backoff: Backoff {
            first: Duration::from_secs(1),
            factor: 2,
            max: Duration::from_secs(60),
        },
        unavailable_max: Duration::from_secs(24 * 3600),
        unavailable_wait_max: Duration::from_secs(30),
    };

    fn at(attempt: Attempt) -> Circumstances {
        Circumstances {
            attempt,
            unavailable_for: None,
            spread: 0,
        }
    }

    fn released(conclusion: Conclusion) -> Release {
        match conclusion {
            Conclusion::Release(release) => release,
            Conclusion::Finish(end) => panic!("finished: {end:?}"),
        }
    }

    #[test]
    fn a_failure_counts_and_the_last_one_is_a_dead_letter() {
        let waits: Vec<u64> = (1..4)
            .map(|attempt| {
                let release = released(POLICY.conclude(Outcome::failed("no"), &at(attempt)));
                assert!(release.counts && !release.unavailable);
                release.wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4]);
        let last = POLICY.conclude(Outcome::failed("no"), &at(4));
        assert!(matches!(last, Conclusion::Finish(TurnEnd::Dead(reason)) if reason.contains("no")));
    }

    #[test]
    fn an_outage_costs_no_attempt_until_it_lasts_too_long() {
        for (down_ms, wait_ms) in [(0, 1000), (40_000, 10_000), (900_000, 30_000)] {
            let of = Circumstances {
                unavailable_for: Some(Duration::from_millis(down_ms)),
                ..at(4)
            };
            let release = released(POLICY.conclude(Outcome::unavailable("down"), &of));
            assert!(!release.counts && release.unavailable);
            assert_eq!(release.wait, Duration::from_millis(wait_ms));
        }
        let of = Circumstances {
            unavailable_for: Some(Duration::from_secs(25 * 3600)),
            ..at(1)
        };
        let end = POLICY.conclude(Outcome::unavailable("down"), &of);
        assert!(matches!(end, Conclusion::Finish(TurnEnd::Dead(_))));
    }

    #[test]
    fn a_handlers_own_wait_is_honoured() {
        let outcome = Outcome::Retry {
            reason: "later".into(),
            failure: Failure::Unavailable,
            after: Some(Duration::from_secs(90)),
        };
        let release = released(POLICY.conclude(outcome, &at(1)));
        assert_eq!(release.wait, Duration::from_secs(90));
    }

    #[test]
    fn a_reply_that_cannot_be_sent_is_a_failure_of_the_handler() {
        let outcome = Outcome::Reply(vec![Reply::Text(String::new())]);
        assert!(released(POLICY.conclude(outcome, &at(1))).counts);
        let silence = POLICY.conclude(Outcome::Reply(vec![]), &at(1));
        assert!(matches!(silence, Conclusion::Finish(TurnEnd::Silence)));
    }
}
