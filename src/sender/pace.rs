//! How fast one number may send: a bucket that fills steadily and holds one second's worth.
//!
//! A library's rate limiter answers "may this one go?"; the sender has to know how many may go
//! before it asks the store, because what the store hands out is already marked as sending.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::NumberId;

/// The buckets of all numbers seen so far.
pub(super) struct Pace {
    per_second: u32,
    buckets: HashMap<NumberId, Bucket>,
}

struct Bucket {
    /// In millionths of a message.
    level: u64,
    filled_at: Duration,
}

const ONE: u64 = 1_000_000;

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second: per_second.max(1),
            buckets: HashMap::new(),
        }
    }

    /// How many messages each known number may send at `now` (time since boot).
    pub(super) fn budget(&mut self, now: Duration) -> Vec<(NumberId, u32)> {
        let full = u64::from(self.per_second) * ONE;
        self.buckets
            .iter_mut()
            .map(|(number, bucket)| {
                let passed = now.saturating_sub(bucket.filled_at).as_micros();
                let gained = u64::try_from(passed).unwrap_or(u64::MAX);
                let gained = gained.saturating_mul(u64::from(self.per_second));
                bucket.level = bucket.level.saturating_add(gained).min(full);
                bucket.filled_at = now;
                (
                    number.clone(),
                    u32::try_from(bucket.level / ONE).unwrap_or(u32::MAX),
                )
            })
            .collect()
    }

    /// One message of `number` goes out.
    pub(super) fn spend(&mut self, number: &NumberId, now: Duration) {
        let full = u64::from(self.per_second) * ONE;
        let bucket = self.buckets.entry(number.clone()).or_insert(Bucket {
            level: full,
            filled_at: now,
        });
        bucket.level = bucket.level.saturating_sub(ONE);
    }

    /// When a number that has nothing left may send again; `None` when none has run dry.
    pub(super) fn refill(&self) -> Option<Duration> {
        let dry = self.buckets.values().any(|bucket| bucket.level < ONE);
        dry.then(|| Duration::from_secs(1) / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_sends_no_faster_than_its_rate() {
        let number = NumberId::from("1");
        let mut pace = Pace::new(10);
        let start = Duration::from_secs(100);
        for _ in 0..10 {
            pace.spend(&number, start);
        }
        assert_eq!(pace.budget(start), [(number.clone(), 0)]);
        assert_eq!(pace.refill(), Some(Duration::from_millis(100)));
        assert_eq!(
            pace.budget(start + Duration::from_millis(250)),
            [(number.clone(), 2)]
        );
        assert_eq!(pace.budget(start + Duration::from_secs(60)), [(number, 10)]);
        assert_eq!(pace.refill(), None);
    }
}
