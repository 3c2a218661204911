//! From Meta's answer to what is settled: pure, so that every rule can be tested as it is.

use std::time::Duration;

use crate::model::{Backoff, FailureClass, SendVerdict};
use crate::store::SendResult;

/// When a send is tried again, and when it is a dead letter.
#[derive(Debug, Clone, Copy)]
pub struct SendPolicy {
    /// How old an outgoing may grow while it is tried again.
    pub retry_max: Duration,
    /// The first wait after Meta could not be reached, or said that the number is too fast; twice
    /// as long each further time, up to a minute. The waits for one person's limit begin at four
    /// times this.
    pub backoff_first: Duration,
    /// How long a number waits that Meta does not let send.
    pub pause: Duration,
}

/// The longest wait while Meta can't be reached at all, or while the number is too fast: its limit
/// fills up again within a second or so.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// The longest wait of a pair of number and person that is too fast.
const PAIR_RATE_MAX: Duration = Duration::from_secs(3600);

impl SendPolicy {
    const fn backoff(&self) -> Backoff {
        Backoff {
            first: self.backoff_first,
            factor: 2,
            max: BACKOFF_MAX,
        }
    }

    /// Meta's own advice for its limit per pair of number and person is 4^n seconds, which this is
    /// where the first wait is a second.
    fn pair_rate(&self) -> Backoff {
        Backoff {
            first: self.backoff_first.saturating_mul(4),
            factor: 4,
            max: PAIR_RATE_MAX,
        }
    }

    /// What to settle after a send of an outgoing of this `age`. `in_a_row`: which verdict of its
    /// kind in a row this is, from 1.
    pub(super) fn conclude(
        &self,
        verdict: SendVerdict,
        in_a_row: u32,
        age: Duration,
    ) -> SendResult {
        let too_old = age >= self.retry_max;
        match verdict {
            SendVerdict::Accepted { wamid } => SendResult::Accepted(wamid),
            SendVerdict::Unsure { reason } => SendResult::Unsure { reason },
            SendVerdict::Rejected {
                class: FailureClass::Ambiguous,
                reason,
                ..
            } => SendResult::Unsure { reason },
            SendVerdict::Rejected {
                class: FailureClass::Refused,
                reason,
                ..
            } => SendResult::Refused { reason },
            SendVerdict::Unreachable { reason } | SendVerdict::Rejected { reason, .. }
                if too_old =>
            {
                SendResult::Refused {
                    reason: format!("tried for too long: {reason}"),
                }
            }
            SendVerdict::Unreachable { reason } => SendResult::Retry {
                after: self.backoff().wait(in_a_row, 0),
                reason,
            },
            SendVerdict::Rejected {
                class: FailureClass::PairRate,
                after,
                reason,
                ..
            } => {
                let after = after
                    .unwrap_or_default()
                    .max(self.pair_rate().wait(in_a_row, 0));
                SendResult::Retry { after, reason }
            }
            SendVerdict::Rejected {
                class: FailureClass::NumberRate,
                after,
                reason,
                ..
            } => {
                let wait = after
                    .unwrap_or_default()
                    .max(self.backoff().wait(in_a_row, 0));
                SendResult::PauseNumber { wait, reason }
            }
            SendVerdict::Rejected {
                class: FailureClass::NumberBlocked,
                after,
                reason,
                ..
            } => {
                let wait = after.unwrap_or_default().max(self.pause);
                SendResult::PauseNumber { wait, reason }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: SendPolicy = SendPolicy {
        retry_max: Duration::from_secs(86_400),
        backoff_first: Duration::from_secs(1),
        pause: Duration::from_secs(60),
    };

    fn rejected(class: FailureClass) -> SendVerdict {
        SendVerdict::Rejected {
            code: 1,
            class,
            after: None,
            reason: "no".into(),
        }
    }

    fn conclude(verdict: SendVerdict, in_a_row: u32) -> SendResult {
        POLICY.conclude(verdict, in_a_row, Duration::ZERO)
    }

    /// The first waits after these failures, in milliseconds.
    fn waits(policy: &SendPolicy, verdict: &SendVerdict, times: u32) -> Vec<u128> {
        let wait = |in_a_row| match policy.conclude(verdict.clone(), in_a_row, Duration::ZERO) {
            SendResult::Retry { after, .. } => after.as_millis(),
            SendResult::PauseNumber { wait, .. } => wait.as_millis(),
            other => panic!("{other:?}"),
        };
        (1..=times).map(wait).collect()
    }

    #[test]
    fn every_wait_grows_from_the_first_one() {
        let unreachable = SendVerdict::Unreachable {
            reason: "refused".into(),
        };
        let pair = rejected(FailureClass::PairRate);
        let number = rejected(FailureClass::NumberRate);
        assert_eq!(waits(&POLICY, &pair, 4), [4000, 16_000, 64_000, 256_000]);
        for verdict in [&unreachable, &number] {
            let grown = [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000];
            assert_eq!(waits(&POLICY, verdict, 8), grown);
        }
        let quick = SendPolicy {
            backoff_first: Duration::from_millis(10),
            ..POLICY
        };
        assert_eq!(waits(&quick, &pair, 3), [40, 160, 640]);
        assert_eq!(waits(&quick, &number, 3), [10, 20, 40]);
        let longest = waits(&quick, &pair, 40).into_iter().max();
        assert_eq!(
            longest,
            Some(PAIR_RATE_MAX.as_millis()),
            "no more than that"
        );
    }

    #[test]
    fn only_what_is_surely_not_sent_is_tried_again() {
        let unsure = SendVerdict::Unsure {
            reason: "reset".into(),
        };
        assert!(matches!(conclude(unsure, 1), SendResult::Unsure { .. }));
        let ambiguous = rejected(FailureClass::Ambiguous);
        assert!(matches!(conclude(ambiguous, 1), SendResult::Unsure { .. }));
        let refused = rejected(FailureClass::Refused);
        assert!(matches!(conclude(refused, 1), SendResult::Refused { .. }));
        let unreachable = SendVerdict::Unreachable {
            reason: "refused".into(),
        };
        assert!(matches!(conclude(unreachable, 1), SendResult::Retry { .. }));
    }

    #[test]
    fn a_blocked_number_pauses_and_an_old_message_ends() {
        let blocked = conclude(rejected(FailureClass::NumberBlocked), 9);
        assert!(matches!(blocked,
            SendResult::PauseNumber { wait, .. } if wait == Duration::from_secs(60)));
        let old = Duration::from_secs(86_400);
        let ended = POLICY.conclude(rejected(FailureClass::PairRate), 1, old);
        assert!(matches!(ended, SendResult::Refused { .. }));
    }
}
