//! Asks a gateway at its admin side what it still has open, and what became of everything.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cli::figures::Figures;
use crate::clock::Clock;
use crate::simulator::accounts::{Accounts, DeadLetter, Outgoing};

/// The most that one answer holds.
const PAGE: usize = 10_000;
/// Longer than any answer takes; a node may be paused or gone.
const ANSWER_MAX: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct DeadLetters {
    dead_letters: Vec<DeadLetter>,
}

#[derive(Deserialize)]
struct Page {
    outgoing: Vec<Outgoing>,
    next: Option<String>,
}

/// The admin side of a node.
pub(super) struct Admin {
    at: SocketAddr,
    http: reqwest::Client,
    clock: Clock,
}

impl Admin {
    pub(super) fn at(at: SocketAddr, clock: &Clock) -> Result<Self, String> {
        let http = reqwest::Client::builder().no_proxy().build();
        Ok(Self {
            at,
            http: http.map_err(|error| format!("no HTTP client: {error}"))?,
            clock: clock.clone(),
        })
    }

    /// Messages and sends that have no end yet.
    pub(super) async fn open(&self) -> Result<(u64, u64), String> {
        let figures = self.figures().await?;
        if figures.sum("hapax_store_up", "") != 1 {
            return Err("the admin side can't read the ledger".to_owned());
        }
        let sum = |name| figures.sum(name, "");
        Ok((sum("hapax_messages_pending"), sum("hapax_outgoing_open")))
    }

    /// How many dead letters are open.
    pub(super) async fn dead_letters(&self) -> Result<u64, String> {
        Ok(self.figures().await?.sum("hapax_dead_letters_open", ""))
    }

    /// Everything.
    pub(super) async fn accounts(&self) -> Result<Accounts, String> {
        let (messages_pending, outgoing_open) = self.open().await?;
        let DeadLetters { dead_letters } = self.get(&format!("dead-letters?limit={PAGE}")).await?;
        if dead_letters.len() == PAGE {
            return Err(format!("there are {PAGE} dead letters or more"));
        }
        let mut outgoing = Vec::new();
        let mut after = String::new();
        loop {
            let page: Page = self.get(&format!("outgoing?limit={PAGE}{after}")).await?;
            outgoing.extend(page.outgoing);
            match page.next {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        Ok(Accounts {
            messages_pending,
            outgoing_open,
            dead_letters,
            outgoing,
            disturbed: Vec::new(),
        })
    }

    async fn figures(&self) -> Result<Figures, String> {
        let asked = self
            .clock
            .timeout(ANSWER_MAX, Figures::fetch(self.at))
            .await;
        let figures = asked.ok().flatten();
        figures.ok_or_else(|| "the admin side does not answer".to_owned())
    }

    async fn get<T: DeserializeOwned>(&self, what: &str) -> Result<T, String> {
        let failed = |error: reqwest::Error| format!("the admin side: {error}");
        let url = format!("http://{}/v1/{what}", self.at);
        let asked = async {
            let answer = self.http.get(url).send().await.map_err(failed)?;
            let status = answer.status();
            if !status.is_success() {
                return Err(format!("the admin side answers {status} to {what}"));
            }
            answer.json().await.map_err(failed)
        };
        let answered = self.clock.timeout(ANSWER_MAX, asked).await;
        answered.map_err(|_| format!("the admin side does not answer to {what}"))?
    }
}
