//! A bot that is killed again and again while it works, and started again.

use std::cell::Cell;
use std::time::Duration;

use super::child::{Bot, Killed};
use super::listening;
use crate::clock::Clock;

/// How long a bot may take until it listens again.
const START_MAX: Duration = Duration::from_secs(60);
/// The pause before one is started again that has ended by itself: its port may be taken still.
const PAUSE: Duration = Duration::from_millis(300);

/// Reads a time as the settings have it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000)];
    let read = units.into_iter().find_map(|(unit, millis)| {
        let count: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        count.checked_mul(millis).filter(|millis| *millis > 0)
    });
    read.map(Duration::from_millis)
        .ok_or_else(|| "expected a time, such as 500ms or 3s".to_owned())
}

/// What is done to a bot in one column.
pub(super) struct Kills<'a> {
    /// `None`: it is left alone.
    pub(super) every: Option<Duration>,
    /// Where it listens.
    pub(super) port: Option<u16>,
    pub(super) clock: &'a Clock,
    /// How often it was killed.
    pub(super) count: Cell<u64>,
    /// Whether everything is written: then it is left alone.
    pub(super) is_over: Cell<bool>,
}

impl Kills<'_> {
    /// Returns, with what is to be said of it, when the bot ends by itself or can't be started
    /// again.
    pub(super) async fn attend(&self, bot: &mut Bot<'_>) -> String {
        let Some(every) = self.every else {
            return bot.ends().await;
        };
        loop {
            self.clock.sleep(every).await;
            if self.is_over.get() {
                return bot.ends().await;
            }
            let what = match self.count.get() % 2 {
                0 => Killed::Master,
                _ => Killed::All,
            };
            bot.kill(what).await;
            self.count.set(self.count.get() + 1);
            if let Err(said) = self.revive(bot).await {
                return said;
            }
        }
    }

    /// Starts it until it listens.
    async fn revive(&self, bot: &mut Bot<'_>) -> Result<(), String> {
        let until = self.clock.boottime() + START_MAX;
        bot.start_again()?;
        loop {
            let listens = match self.port {
                Some(port) => listening::answers(port, self.clock).await,
                None => true,
            };
            if listens {
                return Ok(());
            }
            if self.clock.boottime() > until {
                return Err(bot.complaint("the bot did not come back after it was killed"));
            }
            self.clock.sleep(PAUSE).await;
            if bot.has_ended().is_some() {
                bot.start_again()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("3s"), Ok(Duration::from_secs(3)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "3", "0s", "-1s", "s", "1h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
