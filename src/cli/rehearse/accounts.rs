//! Asks a gateway at its admin side what it still has open, and what became of everything.

use std::net::SocketAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cli::figures::Figures;
use crate::simulator::accounts::{Accounts, DeadLetter, Outgoing};

/// The most that one answer holds.
const PAGE: usize = 10_000;

#[derive(Deserialize)]
struct DeadLetters {
    dead_letters: Vec<DeadLetter>,
}

#[derive(Deserialize)]
struct Page {
    outgoing: Vec<Outgoing>,
    next: Option<String>,
}

/// Messages and sends that have no end yet; `None` when the gateway can't say.
pub(super) async fn open(admin: SocketAddr) -> Option<(u64, u64)> {
    let figures = Figures::fetch(admin).await?;
    let is_known = figures.sum("hapax_store_up", "") == 1;
    is_known.then(|| {
        let sum = |name| figures.sum(name, "");
        (sum("hapax_messages_pending"), sum("hapax_outgoing_open"))
    })
}

/// How many dead letters are open.
pub(super) async fn dead_letters(admin: SocketAddr) -> Result<u64, String> {
    let figures = Figures::fetch(admin).await;
    let figures = figures.ok_or("the admin side does not answer")?;
    Ok(figures.sum("hapax_dead_letters_open", ""))
}

/// Everything.
pub(super) async fn fetch(admin: SocketAddr) -> Result<Accounts, String> {
    let (messages_pending, outgoing_open) =
        open(admin).await.ok_or("the admin side does not answer")?;
    let DeadLetters { dead_letters } = get(admin, &format!("dead-letters?limit={PAGE}")).await?;
    if dead_letters.len() == PAGE {
        return Err(format!("there are {PAGE} dead letters or more"));
    }
    let mut outgoing = Vec::new();
    let mut after = String::new();
    loop {
        let page: Page = get(admin, &format!("outgoing?limit={PAGE}{after}")).await?;
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
    })
}

async fn get<T: DeserializeOwned>(admin: SocketAddr, what: &str) -> Result<T, String> {
    let failed = |error: reqwest::Error| format!("the admin side: {error}");
    let url = format!("http://{admin}/v1/{what}");
    let answer = reqwest::get(url).await.map_err(failed)?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("the admin side answers {status} to {what}"));
    }
    answer.json().await.map_err(failed)
}
