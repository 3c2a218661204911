//! One URL of a bot: its name, its permits, and whether it was down a moment ago.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Url;
use tokio::sync::Semaphore;

use super::route::Place;
use super::settings::{BotSettings, SettingsError};

/// One URL of a bot.
pub(super) struct Target {
    pub(super) url: Url,
    /// Host and port: what logs and reasons call it.
    pub(super) name: String,
    pub(super) place: Place,
    /// One for each call at a time.
    pub(super) permits: Semaphore,
    /// Milliseconds of boot time until which it is passed over; 0 when it is up.
    down_until: AtomicU64,
}

impl Target {
    /// All URLs of the settings, in their order.
    pub(super) fn all(settings: &BotSettings) -> Result<Vec<Self>, SettingsError> {
        if settings.urls.is_empty() {
            return Err(SettingsError::NoUrl);
        }
        if settings.concurrency == 0 {
            return Err(SettingsError::NoCalls);
        }
        let mut targets: Vec<Self> = Vec::new();
        for (index, text) in settings.urls.iter().enumerate() {
            let position = index + 1;
            let target = Self::parse(text, settings.concurrency)
                .map_err(|found| SettingsError::Url { position, found })?;
            if let Some(earlier) = targets.iter().position(|other| other.url == target.url) {
                let earlier = earlier + 1;
                return Err(SettingsError::Twice { position, earlier });
            }
            targets.push(target);
        }
        Ok(targets)
    }

    fn parse(text: &str, concurrency: usize) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        let host = match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(host)) => host,
            (scheme, _) => return Err(format!("the scheme {scheme}")),
        };
        Ok(Self {
            name: format!("{host}:{}", url.port_or_known_default().unwrap_or(0)),
            place: Place::of(url.as_str()),
            permits: Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)),
            down_until: AtomicU64::new(0),
            url,
        })
    }

    /// Whether it is not passed over at the boot time `now`.
    pub(super) fn is_up(&self, now: Duration) -> bool {
        self.down_until.load(Ordering::Relaxed) <= millis(now)
    }

    /// To be passed over until the boot time `until`.
    pub(super) fn mark_down(&self, until: Duration, reason: &str) {
        if self.down_until.swap(millis(until), Ordering::Relaxed) == 0 {
            tracing::warn!(bot.url = self.name, reason, "a URL of the bot is down");
        }
    }

    /// It has answered.
    pub(super) fn mark_up(&self) {
        if self.down_until.swap(0, Ordering::Relaxed) != 0 {
            tracing::info!(bot.url = self.name, "a URL of the bot is up again");
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(urls: &[&str]) -> Result<Vec<String>, SettingsError> {
        let settings = BotSettings {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            concurrency: 8,
            down_for: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
        };
        let targets = Target::all(&settings)?;
        Ok(targets.into_iter().map(|target| target.name).collect())
    }

    #[test]
    fn a_bot_is_named_by_host_and_port_alone() {
        let urls = [
            "http://ann:secret@bot.example/hook?token=secret#top",
            "https://bot.example/",
            "http://[::1]:8000",
        ];
        let names = ["bot.example:80", "bot.example:443", "[::1]:8000"];
        assert_eq!(all(&urls), Ok(names.map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_wrong_url_is_named_by_its_position() {
        assert_eq!(all(&[]), Err(SettingsError::NoUrl));
        for wrong in ["", "bot:8000/hook", "ftp://bot/secret", "http://", "/hook"] {
            let error = all(&["http://bot", wrong]).expect_err("is wrong");
            let text = error.to_string();
            assert!(
                text.starts_with("bot URL 2: expected an http or https URL"),
                "{text}"
            );
            assert!(!text.contains("secret"), "{text}");
        }
        assert_eq!(
            all(&["http://a", "http://b", "http://a/"]),
            Err(SettingsError::Twice {
                position: 3,
                earlier: 1
            })
        );
    }
}
