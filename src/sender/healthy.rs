//! For how long this process could take receipts, from one look at what is unsure to the next.
//! Says what it knows of itself only: what the time of all processes comes to is the store's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A process that has looked so many times later than it should was not running, or the machine
/// was suspended: no receipt got in either.
const LATE_MAX: u32 = 2;

/// The measure of one process. Times are those since boot, which no one can set.
pub(super) struct Healthy {
    /// Whether deliveries are being answered 200.
    receiving: Arc<AtomicBool>,
    /// Whether they were at the look before.
    was_receiving: bool,
    /// The end of what is told already.
    told_until: Duration,
    /// The most that one look may tell.
    most: Duration,
}

impl Healthy {
    /// Starts to measure at `now`; nothing before it will be told. It is looked every `every`.
    pub(super) fn from(receiving: Arc<AtomicBool>, now: Duration, every: Duration) -> Self {
        Self {
            was_receiving: receiving.load(Ordering::Relaxed),
            receiving,
            told_until: now,
            most: every.saturating_mul(LATE_MAX),
        }
    }

    /// For how long it was healthy since the last look, as far as that is sure: zero unless
    /// deliveries were answered 200 both then and now.
    pub(super) fn tell(&mut self, now: Duration) -> Duration {
        let receives = self.receiving.load(Ordering::Relaxed);
        let both = std::mem::replace(&mut self.was_receiving, receives) && receives;
        let passed = now.saturating_sub(self.told_until);
        self.told_until = now;
        if both {
            passed.min(self.most)
        } else {
            Duration::ZERO
        }
    }

    /// The store could not be asked until `now`: it could not have kept a receipt either.
    pub(super) fn pass_over(&mut self, now: Duration) {
        self.told_until = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    fn started() -> (Arc<AtomicBool>, Healthy) {
        let receiving = Arc::new(AtomicBool::new(true));
        let healthy = Healthy::from(Arc::clone(&receiving), at(0), EVERY);
        (receiving, healthy)
    }

    #[test]
    fn it_tells_the_time_since_its_last_look_and_nothing_before_its_start() {
        let (_, mut healthy) = started();
        assert_eq!(healthy.tell(at(1)), EVERY);
        assert_eq!(healthy.tell(at(1)), Duration::ZERO);
        assert_eq!(healthy.tell(at(2)), EVERY);
        let late = at(3) + Duration::from_millis(300);
        assert_eq!(healthy.tell(late), Duration::from_millis(1300));
    }

    #[test]
    fn it_tells_nothing_where_it_failed_at_either_end() {
        let (receiving, mut healthy) = started();
        receiving.store(false, Ordering::Relaxed);
        for second in 1..60 {
            assert_eq!(healthy.tell(at(second)), Duration::ZERO);
        }
        receiving.store(true, Ordering::Relaxed);
        assert_eq!(healthy.tell(at(60)), Duration::ZERO, "it failed in between");
        assert_eq!(healthy.tell(at(61)), EVERY);
    }

    #[test]
    fn a_pause_is_not_told() {
        let (_, mut healthy) = started();
        assert_eq!(healthy.tell(at(3600)), EVERY * LATE_MAX);
        assert_eq!(healthy.tell(at(3601)), EVERY);
    }

    #[test]
    fn an_outage_of_the_store_is_not_told() {
        let (_, mut healthy) = started();
        assert_eq!(healthy.tell(at(1)), EVERY);
        healthy.pass_over(at(2));
        assert_eq!(healthy.tell(at(3)), EVERY);
    }
}
