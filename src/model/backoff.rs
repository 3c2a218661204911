//! How long to wait before trying again.

use std::time::Duration;

/// Exponential back-off: `first`, then `factor` times longer each time, never over `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// How much longer each further wait is; at least 1.
    pub factor: u32,
    /// The longest wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait after the `failures`-th failure in a row (from 1). `spread` is a random number
    /// from the caller; it lengthens the wait by up to a quarter, so that conversations that
    /// failed together do not come back together.
    pub fn wait(&self, failures: u32, spread: u64) -> Duration {
        let steps = failures.saturating_sub(1);
        let grown = self.first.saturating_mul(self.factor.saturating_pow(steps));
        let wait = grown.min(self.max);
        let quarter = u64::try_from(wait.as_millis() / 4).unwrap_or(u64::MAX);
        wait + Duration::from_millis(if quarter == 0 { 0 } else { spread % quarter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_limit() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            factor: 2,
            max: Duration::from_secs(60),
        };
        let waits: Vec<u64> = (1..=8).map(|n| backoff.wait(n, 0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.wait(u32::MAX, 0).as_secs(), 60);
        assert!(backoff.wait(1, u64::MAX) < Duration::from_millis(1250));
    }
}
