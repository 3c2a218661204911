//! The only source of time and of waiting: the real clock, or one that a test moves by hand.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::model::Timestamp;

/// A clock. Clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    /// What [`Clock::now`] is wrong by, in milliseconds; nothing, but for tests.
    System {
        wrong_by: i64,
    },
    Manual(Arc<watch::Sender<Manual>>),
}

#[derive(Debug, Clone, Copy)]
struct Manual {
    start: Timestamp,
    elapsed: Duration,
}

/// What was waited for did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(Source::System { wrong_by: 0 })
    }

    /// The machine's clock, whose time of day is ahead by so many milliseconds, or behind if they
    /// are negative; nothing else about it is wrong. For tests of what a machine does whose clock
    /// nobody has set right.
    pub const fn wrong_by(milliseconds: i64) -> Self {
        Self(Source::System {
            wrong_by: milliseconds,
        })
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        let manual = Manual {
            start,
            elapsed: Duration::ZERO,
        };
        Self(Source::Manual(Arc::new(watch::Sender::new(manual))))
    }

    /// Moves a manual clock forward and wakes who waited for that; does nothing to a real one.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.send_modify(|time| time.elapsed += by);
        }
    }

    /// The time of day. May be set back or forth by an operator: for records and for back-off,
    /// never for leases.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { wrong_by } => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
                Timestamp(time.tv_sec * 1000 + time.tv_nsec / 1_000_000 + wrong_by)
            }
            Source::Manual(manual) => {
                let time = *manual.borrow();
                time.start.after(time.elapsed)
            }
        }
    }

    /// The time of day of a manual clock; `None` for a real one. For a store whose own clock is
    /// elsewhere, and which a test moves by this one.
    pub fn by_hand(&self) -> Option<Timestamp> {
        match &self.0 {
            Source::System { .. } => None,
            Source::Manual(_) => Some(self.now()),
        }
    }

    /// Time since the machine booted, suspend included (`CLOCK_BOOTTIME`): never set, the same
    /// for all processes of the machine. What leases and measured durations use.
    pub fn boottime(&self) -> Duration {
        match &self.0 {
            Source::System { .. } => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                Duration::new(
                    u64::try_from(time.tv_sec).unwrap_or(0),
                    u32::try_from(time.tv_nsec).unwrap_or(0),
                )
            }
            Source::Manual(manual) => manual.borrow().elapsed,
        }
    }

    /// Processor time that this process has used, over all its threads.
    pub fn processor_time(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
            Source::System { .. } => tokio::time::sleep(duration).await,
            Source::Manual(manual) => {
                let mut changes = manual.subscribe();
                let target = changes.borrow().elapsed + duration;
                // The sender lives as long as `self`, so this ends only when the time has come.
                let _ = changes.wait_for(|time| time.elapsed >= target).await;
            }
        }
    }

    /// Waits for `future`, but no longer than `duration`; then it is dropped.
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = self.sleep(duration) => Err(Elapsed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_moves_only_by_hand() {
        let clock = Clock::manual(Timestamp(1_000));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(clock.now(), Timestamp(1_000));
        clock.advance(Duration::from_secs(5));
        sleeper.await.expect("the sleeper wakes");
        assert_eq!(clock.now(), Timestamp(6_000));
        assert_eq!(clock.boottime(), Duration::from_secs(5));
    }

    #[test]
    fn a_wrong_clock_shows_another_time_of_day_and_measures_rightly() {
        let (right, wrong) = (Clock::system(), Clock::wrong_by(-3_600_000));
        let before = right.now().0;
        let shown = wrong.now().0 + 3_600_000;
        assert!((before..=right.now().0).contains(&shown), "{shown}");
        let before = right.boottime();
        let shown = wrong.boottime();
        assert!((before..=right.boottime()).contains(&shown), "{shown:?}");
        assert_eq!(wrong.by_hand(), None);
    }

    #[tokio::test]
    async fn a_timeout_drops_what_is_too_slow() {
        let clock = Clock::system();
        let waited = clock
            .timeout(Duration::from_millis(1), std::future::pending::<()>())
            .await;
        assert_eq!(waited, Err(Elapsed));
        assert_eq!(
            clock.timeout(Duration::from_secs(60), async { 7 }).await,
            Ok(7)
        );
    }
}
