//! Something that may happen often and is said once a minute.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

const EVERY: Duration = Duration::from_secs(60);

pub(super) struct Seldom {
    clock: Clock,
    /// When it was said last, on the boot clock, and how often it has happened since.
    state: Mutex<(Option<Duration>, u64)>,
}

impl Seldom {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    /// It happens. If it is to be said now: how often it has happened since it was said last.
    pub(super) fn count(&self) -> Option<u64> {
        let now = self.clock.boottime();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        let is_due = state.0.is_none_or(|said| now.saturating_sub(said) >= EVERY);
        is_due.then(|| std::mem::replace(&mut *state, (Some(now), 0)).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn it_is_said_at_once_and_then_once_a_minute() {
        let clock = Clock::manual(Timestamp(0));
        let seldom = Seldom::new(clock.clone());
        assert_eq!(seldom.count(), Some(1));
        assert_eq!((seldom.count(), seldom.count()), (None, None));
        clock.advance(EVERY);
        assert_eq!(seldom.count(), Some(3));
        assert_eq!(seldom.count(), None);
    }
}
