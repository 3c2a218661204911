//! How often in a row the same has stood in the way of one message. What waits longer each time
//! must not do so for attempts that came to nothing for another reason.

use std::collections::HashMap;

use crate::model::{FailureClass, OutgoingId, SendVerdict};

/// So many messages are remembered; beyond, counting begins anew.
const REMEMBERED_MAX: usize = 10_000;

/// What stands in the way for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    Unreachable,
    Class(FailureClass),
}

/// The counts of this process. Another one begins anew, with the shortest wait.
#[derive(Default)]
pub(super) struct Setbacks(HashMap<OutgoingId, (Obstacle, u32)>);

impl Setbacks {
    /// Which setback of its kind in a row this is for a message, from 1; forgotten at any other
    /// verdict.
    pub(super) fn count(&mut self, of: OutgoingId, verdict: &SendVerdict) -> u32 {
        let obstacle = match verdict {
            SendVerdict::Unreachable { .. } => Obstacle::Unreachable,
            SendVerdict::Rejected { class, .. } => Obstacle::Class(*class),
            SendVerdict::Accepted { .. } | SendVerdict::Unsure { .. } => {
                self.0.remove(&of);
                return 1;
            }
        };
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(&of) {
            self.0.clear();
        }
        let known = self.0.entry(of).or_insert((obstacle, 0));
        if known.0 != obstacle {
            *known = (obstacle, 0);
        }
        known.1 = known.1.saturating_add(1);
        known.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(class: FailureClass) -> SendVerdict {
        SendVerdict::Rejected {
            code: 1,
            class,
            after: None,
            reason: "no".into(),
        }
    }

    #[test]
    fn only_the_same_obstacle_in_a_row_counts() {
        let unreachable = || SendVerdict::Unreachable {
            reason: "refused".into(),
        };
        let pair = || rejected(FailureClass::PairRate);
        let lost = || SendVerdict::Unsure {
            reason: "timed out".into(),
        };
        let mut setbacks = Setbacks::default();
        let mut count = |verdict| setbacks.count(OutgoingId(1), &verdict);
        assert_eq!([count(unreachable()), count(unreachable())], [1, 2]);
        assert_eq!([count(pair()), count(pair())], [1, 2]);
        assert_eq!([count(unreachable()), count(lost())], [1, 1]);
        assert_eq!(count(unreachable()), 1, "the answer came in between");
        assert_eq!(setbacks.count(OutgoingId(2), &pair()), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut setbacks = Setbacks::default();
        for id in 0..3 * REMEMBERED_MAX as i64 {
            setbacks.count(OutgoingId(id), &rejected(FailureClass::PairRate));
        }
        assert!(setbacks.0.len() <= REMEMBERED_MAX);
    }
}
