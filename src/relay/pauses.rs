//! Numbers whose bot is down, and until when it is not called.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::{Backoff, NumberId};

/// By boot time.
struct Pause {
    times: u32,
    until: Duration,
}

/// As many as there are numbers with something to hand over.
pub(super) struct Pauses {
    backoff: Backoff,
    known: Mutex<HashMap<NumberId, Pause>>,
}

impl Pauses {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            known: Mutex::default(),
        }
    }

    /// The bot of this number did not answer for itself. Answers how long it is left alone, and
    /// whether it was well before. Calls that were under way together count once.
    pub(super) fn begin(
        &self,
        number: &NumberId,
        now: Duration,
        after: Option<Duration>,
    ) -> (Duration, bool) {
        let mut known = self.known();
        let pause = known.entry(number.clone()).or_insert(Pause {
            times: 0,
            until: now,
        });
        let is_first = pause.times == 0;
        if pause.until <= now {
            pause.times = pause.times.saturating_add(1);
            let wait = after.unwrap_or_else(|| self.backoff.wait(pause.times, 0));
            pause.until = now.saturating_add(wait);
        }
        (pause.until.saturating_sub(now), is_first)
    }

    /// It is well again.
    pub(super) fn over(&self, number: &NumberId) {
        self.known().remove(number);
    }

    /// Those that are left alone at `now`.
    pub(super) fn now(&self, now: Duration) -> Vec<NumberId> {
        let known = self.known();
        let paused = known.iter().filter(|(_, pause)| pause.until > now);
        paused.map(|(number, _)| number.clone()).collect()
    }

    /// How long until one of them is called again.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        let known = self.known();
        let left = known.values().filter(|pause| pause.until > now);
        left.map(|pause| pause.until - now).min()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<NumberId, Pause>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_and_calls_that_were_under_way_together_count_once() {
        let second = Duration::from_secs(1);
        let pauses = Pauses::new(Backoff {
            first: second,
            factor: 2,
            max: 3 * second,
        });
        let (one, two) = (NumberId::from("1"), NumberId::from("2"));
        assert_eq!(pauses.begin(&one, Duration::ZERO, None), (second, true));
        assert_eq!(pauses.begin(&one, Duration::ZERO, None), (second, false));
        assert_eq!(pauses.now(Duration::ZERO), vec![one.clone()]);
        assert_eq!(pauses.next(Duration::ZERO), Some(second));
        assert!(pauses.now(second).is_empty());
        assert_eq!(pauses.begin(&one, second, None), (2 * second, false));
        assert_eq!(pauses.begin(&one, 3 * second, None), (3 * second, false));
        let asked = Some(9 * second);
        assert_eq!(pauses.begin(&two, second, asked), (9 * second, true));
        pauses.over(&one);
        assert_eq!(pauses.begin(&one, 20 * second, None), (second, true));
    }
}
