//! Finds the bot's webhook: the port on which it listens, and the path that answers Meta's
//! verification handshake.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::child::{Bot, with_port};
use super::environment::VERIFY_TOKEN;
use super::listening;
use crate::clock::Clock;

/// Where webhooks usually are.
const PATHS: [&str; 14] = [
    "/webhook",
    "/",
    "/webhooks",
    "/api/webhook",
    "/whatsapp",
    "/webhook/whatsapp",
    "/whatsapp/webhook",
    "/api/webhooks",
    "/api/whatsapp",
    "/api/whatsapp/webhook",
    "/api/webhook/whatsapp",
    "/webhooks/whatsapp",
    "/meta/webhook",
    "/callback",
];
const CHALLENGE: &str = "1158201444";
/// How long a bot may take until it listens.
const START_MAX: Duration = Duration::from_secs(60);
/// How long it gets to listen where it was told.
const TOLD_MAX: Duration = Duration::from_secs(3);
/// How long a bot that listens may answer no handshake: it may be starting still.
const READY_MAX: Duration = Duration::from_secs(15);
const ANSWER_MAX: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(50);

/// The webhook of a bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Webhook {
    /// Where it is.
    pub(super) url: String,
    /// Whether it knows the verify token that the bot was told.
    pub(super) is_verified: bool,
}

impl Webhook {
    /// The same of the same bot when it is told another port.
    pub(super) fn at(&self, port: u16, told: u16) -> String {
        let old = format!("http://{}:{port}/", Ipv4Addr::LOCALHOST);
        let new = format!("http://{}:{told}/", Ipv4Addr::LOCALHOST);
        match self.url.strip_prefix(&old) {
            Some(rest) => format!("{new}{rest}"),
            None => self.url.clone(),
        }
    }
}

/// What the search goes by.
pub(super) struct Search<'a> {
    /// The port that the bot was told.
    pub(super) port: u16,
    /// The address that the user has given; `{port}` stands for the port.
    pub(super) url: Option<&'a str>,
    pub(super) clock: &'a Clock,
}

/// What an address answered to the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handshake {
    Passed,
    /// It is a webhook that expects another token.
    OtherToken,
    /// It is none.
    No,
    /// Nobody answers: it speaks no HTTP, or not yet.
    Silence,
}

impl Search<'_> {
    /// The webhook of `bot`, once it answers.
    pub(super) async fn webhook(&self, bot: &mut Bot) -> Result<Webhook, String> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        let started = self.clock.boottime();
        let passed = || self.clock.boottime().saturating_sub(started);
        let mut listens_since = None;
        loop {
            if let Some(status) = bot.has_ended() {
                return Err(bot.obituary(Some(status)));
            }
            let places = self.places(bot, passed()).await;
            if !places.is_empty() {
                let since = *listens_since.get_or_insert_with(passed);
                if let Some(webhook) = self.among(&http, &places).await {
                    return Ok(webhook);
                }
                if passed().saturating_sub(since) > READY_MAX {
                    return Err(bot.complaint(&self.no_webhook(&places)));
                }
            }
            if passed() > START_MAX {
                return Err(bot.complaint(&self.does_not_listen()));
            }
            self.clock.sleep(LOOK).await;
        }
    }

    /// The addresses at which somebody listens, without a path unless the user has given one.
    async fn places(&self, bot: &Bot, passed: Duration) -> Vec<String> {
        if let Some(url) = self.url {
            let url = with_port(url, self.port);
            let parsed = reqwest::Url::parse(&url).ok();
            let port = parsed.and_then(|url| url.port_or_known_default());
            return match port {
                Some(port) if self.listens(port).await => vec![url],
                _ => Vec::new(),
            };
        }
        let mut ports = Vec::new();
        if self.listens(self.port).await {
            ports.push(self.port);
        } else if passed > TOLD_MAX {
            ports = bot.pid().map(listening::ports).unwrap_or_default();
        }
        let place = |port| format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
        ports.into_iter().map(place).collect()
    }

    async fn listens(&self, port: u16) -> bool {
        let connecting = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let connected = self.clock.timeout(ANSWER_MAX, connecting).await;
        connected.is_ok_and(|connected| connected.is_ok())
    }

    async fn among(&self, http: &reqwest::Client, places: &[String]) -> Option<Webhook> {
        let paths: &[&str] = match self.url {
            Some(_) => &[""],
            None => &PATHS,
        };
        let mut refusing = None;
        for place in places {
            for path in paths {
                let url = format!("{place}{path}");
                let is_verified = match self.shake_hands(http, &url).await {
                    Handshake::Passed => true,
                    Handshake::OtherToken => false,
                    // The user knows better.
                    Handshake::No if self.url.is_some() => false,
                    Handshake::No => continue,
                    Handshake::Silence => break,
                };
                let webhook = Webhook { url, is_verified };
                if is_verified {
                    return Some(webhook);
                }
                refusing.get_or_insert(webhook);
            }
        }
        refusing
    }

    async fn shake_hands(&self, http: &reqwest::Client, url: &str) -> Handshake {
        let Ok(mut url) = reqwest::Url::parse(url) else {
            return Handshake::No;
        };
        url.query_pairs_mut().extend_pairs([
            ("hub.mode", "subscribe"),
            ("hub.challenge", CHALLENGE),
            ("hub.verify_token", VERIFY_TOKEN),
        ]);
        let ask = async {
            let answer = http.get(url).send().await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        };
        match self.clock.timeout(ANSWER_MAX, ask).await.ok().flatten() {
            Some((200, body)) if body.trim_matches(['"', '\n']) == CHALLENGE => Handshake::Passed,
            Some((401 | 403, _)) => Handshake::OtherToken,
            Some(_) => Handshake::No,
            None => Handshake::Silence,
        }
    }

    fn no_webhook(&self, places: &[String]) -> String {
        format!(
            "the bot listens on {}, but none of the usual paths answers Meta's verification \
             handshake; tell its webhook with --url http://127.0.0.1:{{port}}/path",
            places.join(" and ")
        )
    }

    fn does_not_listen(&self) -> String {
        match self.url {
            Some(url) => format!("nobody listens at {url}"),
            None => format!(
                "the bot listens nowhere; it was told port {} in PORT, and {{port}} in the \
                 command stands for it",
                self.port
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bot_is_found_at_its_next_port_or_at_its_own() {
        let told = Webhook {
            url: "http://127.0.0.1:4001/webhook".to_owned(),
            is_verified: true,
        };
        assert_eq!(told.at(4001, 4002), "http://127.0.0.1:4002/webhook");
        assert_eq!(told.at(4000, 4002), "http://127.0.0.1:4001/webhook");
    }
}
