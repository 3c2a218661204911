//! A trial: the same people write the same messages to a webhook, each posted several times at the
//! same moment, and what came of it is counted. Unlike a rehearsal it expects nothing of what
//! stands behind the webhook but that replies quote the tokens of their messages.

mod counts;
mod play;
mod script;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use self::counts::{Counts, Message, Played, Reply, count};
use super::courier::Courier;
use super::graph::Graph;
use super::history::{History, Progress};
use super::meta::{Meta, MetaError, MetaSettings};
use super::receipts::{Odds, Receipts};
use super::seed::Draw;
use crate::clock::Clock;
use crate::model::Secret;

/// The most people who may write.
pub const PEOPLE_MAX: usize = 1000;
/// The most messages they may write.
pub const MESSAGES_MAX: usize = 20_000;
/// The most copies of one message.
pub const COPIES_MAX: usize = 10;
/// The longest wait between two receipts of one message.
const RECEIPT_STEP: Duration = Duration::from_millis(200);

/// What is tried.
#[derive(Debug, Clone)]
pub struct TrialSettings {
    /// Decides who writes what and when.
    pub seed: u64,
    /// Goes into the ids of people and messages and into nothing else: a bot that remembers an
    /// earlier trial takes nobody for known and nothing for seen.
    pub salt: u64,
    /// How many people write; from 1 to [`PEOPLE_MAX`].
    pub people: usize,
    /// How many messages they write together; from 1 to [`MESSAGES_MAX`].
    pub messages: usize,
    /// How often each message is posted, at the same moment; from 1 to
    /// [`COPIES_MAX`].
    pub copies: usize,
    /// Where it is posted.
    pub webhook_url: String,
    /// Signs it.
    pub app_secret: Secret,
    /// The business number (`phone_number_id`) that is written to.
    pub number: String,
    /// How long a person waits for an answer before writing on.
    pub patience: Duration,
    /// How long nothing at all may happen before what has no answer is called missing.
    pub missing_after: Duration,
    /// How long nothing may happen once everything is answered: a second answer that comes later
    /// is not seen.
    pub calm: Duration,
}

impl TrialSettings {
    /// 300 messages of 40 people, each posted three times.
    pub fn new(webhook_url: impl Into<String>, app_secret: Secret) -> Self {
        Self {
            seed: 1,
            salt: 0,
            people: 40,
            messages: 300,
            copies: 3,
            webhook_url: webhook_url.into(),
            app_secret,
            number: "106540352242922".to_owned(),
            patience: Duration::from_secs(5),
            missing_after: Duration::from_secs(15),
            calm: Duration::from_secs(1),
        }
    }
}

/// One run, ready to begin.
#[derive(Debug)]
pub struct Trial {
    settings: TrialSettings,
    meta: Meta,
    courier: Courier,
    history: Arc<History>,
    clock: Clock,
}

impl Trial {
    /// Prepares a run whose replies come to `graph`, which from now on reports statuses to the
    /// webhook. Needs a Tokio runtime; posts nothing yet.
    ///
    /// # Errors
    /// [`MetaError::Client`].
    pub fn new(settings: TrialSettings, graph: &Graph, clock: Clock) -> Result<Self, MetaError> {
        let people = settings.people.clamp(1, PEOPLE_MAX);
        let meta_settings = MetaSettings {
            // Copies that wait for their turn would not be posted at the same moment.
            under_way_max: 64 + 2 * people * settings.copies.clamp(1, COPIES_MAX),
            answer_limit: Duration::from_secs(20),
            ..MetaSettings::new(&*settings.webhook_url, settings.app_secret.clone())
        };
        let history = Arc::clone(graph.history());
        let meta = Meta::new(meta_settings, Arc::clone(&history), clock.clone())?;
        let draw = Draw::new(settings.seed).fork("courier");
        let courier = Courier::start(meta.clone(), draw, clock.clone());
        let odds = Odds {
            never: 0.0,
            ..Odds::mild(RECEIPT_STEP)
        };
        graph.report_to(courier.clone(), Receipts::Drawn(odds));
        Ok(Self {
            settings,
            meta,
            courier,
            history,
            clock,
        })
    }

    /// The counters as they change, for a line on the terminal.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.history.watch()
    }

    /// Lets everything be written, and waits until it is answered and calm, or until nothing has
    /// happened for as long as one waits for what is missing. Nothing of it runs any more when it
    /// returns. Of a trial that is dropped nothing is posted any more either.
    pub async fn run(&self) -> Played {
        let writers = script::writers(&self.settings);
        self.history
            .introduce(writers.iter().map(|writer| &writer.person));
        let played = play::play(self, writers).await;
        self.courier.stop().await;
        played
    }
}
