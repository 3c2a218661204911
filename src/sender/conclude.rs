//! From Meta's answer to what is settled: pure, so that every rule can be tested as it is.

use std::time::Duration;

use crate::model::{Attempt, Backoff, FailureClass, SendVerdict};
use crate::store::SendResult;

/// When a send is tried again, and when it is a dead letter.
#[derive(Debug, Clone, Copy)]
pub struct SendPolicy {
    /// How old an outgoing may grow while it is tried again.
    pub retry_max: Duration,
    /// How long a number waits that Meta does not let send.
    pub pause: Duration,
}

/// While Meta can't be reached at all.
const UNREACHABLE: Backoff = Backoff {
    first: Duration::from_secs(1),
    factor: 2,
    max: Duration::from_secs(60),
};
/// Meta's own advice for its limit per pair of number and person: 4^n seconds.
const PAIR_RATE: Backoff = Backoff {
    first: Duration::from_secs(4),
    factor: 4,
    max: Duration::from_secs(3600),
};
/// The limit per number fills up again within a second or so.
const NUMBER_RATE: Backoff = Backoff {
    first: Duration::from_secs(1),
    factor: 2,
    max: Duration::from_secs(60),
};

impl SendPolicy {
    /// What to settle after the `attempt`-th send of an outgoing of this `age`.
    pub(super) fn conclude(
        &self,
        verdict: SendVerdict,
        attempt: Attempt,
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
                after: UNREACHABLE.wait(attempt, 0),
                reason,
            },
            SendVerdict::Rejected {
                class: FailureClass::PairRate,
                after,
                reason,
                ..
            } => {
                let after = after.unwrap_or_default().max(PAIR_RATE.wait(attempt, 0));
                SendResult::Retry { after, reason }
            }
            SendVerdict::Rejected {
                class: FailureClass::NumberRate,
                after,
                reason,
                ..
            } => {
                let wait = after.unwrap_or_default().max(NUMBER_RATE.wait(attempt, 0));
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

    fn conclude(verdict: SendVerdict, attempt: Attempt) -> SendResult {
        POLICY.conclude(verdict, attempt, Duration::ZERO)
    }

    #[test]
    fn a_rate_limit_waits_longer_each_time() {
        let waits: Vec<u64> = (1..=4)
            .map(
                |attempt| match conclude(rejected(FailureClass::PairRate), attempt) {
                    SendResult::Retry { after, .. } => after.as_secs(),
                    other => panic!("{other:?}"),
                },
            )
            .collect();
        assert_eq!(waits, [4, 16, 64, 256]);
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
