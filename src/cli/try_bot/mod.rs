//! `hapax try`: the user's own bot, unedited, alone and behind Hapax, under one pretend WhatsApp
//! that posts every message several times at the same moment. No account.

mod child;
mod column;
mod environment;
mod gateway;
mod kills;
mod listening;
mod port;
mod table;
mod way;
mod webhook;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};

use self::child::with_port;
use self::column::{Found, Ground};
use self::table::{Columns, Tried};
use super::fault;
use super::interrupt::Interrupt;
use crate::clock::Clock;
use crate::simulator::trial::{COPIES_MAX, MESSAGES_MAX, PEOPLE_MAX};

/// The port of a bot in what is told to be done next; it had a free one here.
const SHOWN_PORT: u16 = 5000;
/// Who answers one message with more is not answering.
const REPLIES_MAX: usize = 20;

fn up_to(max: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=max as u64)
}

#[derive(Debug, Args)]
pub(super) struct TryBot {
    /// Decides who writes what and when.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How many messages are written, in each column.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = up_to(MESSAGES_MAX))]
    messages: usize,
    /// How many people write them.
    #[arg(long, value_name = "P", default_value_t = 40, value_parser = up_to(PEOPLE_MAX))]
    people: usize,
    /// How often each message is posted, at the same moment.
    #[arg(long, value_name = "C", default_value_t = 3, value_parser = up_to(COPIES_MAX))]
    copies: usize,
    /// With how many messages the bot answers one, at most.
    #[arg(long, value_name = "R", default_value_t = 1, value_parser = up_to(REPLIES_MAX))]
    replies: usize,
    /// The bot's webhook, where it is not found; {port} stands for the port that the bot is told.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// When a message counts as done behind Hapax: at the bot's 200, or at its reply.
    #[arg(long, value_enum, default_value_t = Done::Response)]
    done: Done,
    /// Under which id a message comes to the bot again, when it has failed on it.
    #[arg(long, value_enum, default_value_t = RetryId::Same)]
    retry_id: RetryId,
    /// Kill the bot (kill -9) each time that it has worked for so long, and start it again.
    #[arg(long, value_name = "TIME", value_parser = kills::duration)]
    kill_every: Option<Duration>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Starts the bot; {port} stands for the port on which it is to listen.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// The setting `forward.done`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Done {
    Response,
    Reply,
}

impl Done {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Reply => "reply",
        }
    }
}

/// The setting `forward.retry_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RetryId {
    Same,
    Fresh,
}

impl RetryId {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Fresh => "fresh",
        }
    }
}

impl TryBot {
    pub(super) async fn run(self) -> ExitCode {
        let mut interrupt = match Interrupt::listen() {
            Ok(interrupt) => interrupt,
            Err(text) => return fault(&text),
        };
        // What is dropped in the middle kills its processes.
        match interrupt.cuts(self.both()).await {
            Ok(code) => code,
            Err(text) => fault(&text),
        }
    }

    async fn both(&self) -> Result<ExitCode, String> {
        // Fails where the process has installed a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::system();
        let folder =
            tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let logs = logs()?;
        let ground = Ground {
            plan: self,
            salts: [salt()?, salt()?],
            folder: folder.path(),
            logs: &logs,
            clock: &clock,
        };
        self.greet(&logs);
        let (alone, found) = ground.alone().await?;
        let behind = ground.behind(&found).await?;
        let columns = Columns {
            alone: alone.counts,
            behind: behind.counts,
            kills: [alone.kills, behind.kills],
        };
        Ok(self.judge(columns, &found, &logs))
    }

    #[expect(clippy::print_stdout, reason = "for the person who typed the command")]
    fn greet(&self, logs: &Path) {
        if self.json {
            return;
        }
        let (messages, people, copies) = (self.messages, self.people, self.copies);
        println!(
            "{people} people write {messages} messages to your bot, each posted {copies} times at \
             the same moment:"
        );
        println!("first to the bot alone, then to Hapax with the bot behind it.");
        println!("Graph and the AI are pretended; other hosts that it calls are really called.");
        println!("  the bot's output   {}\n", logs.display());
    }

    /// Prints the table; the exit status says whether the column of Hapax is clean.
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn judge(&self, columns: Columns, found: &Found, logs: &Path) -> ExitCode {
        let command = self.command.join(" ");
        let tried = Tried {
            done: self.done,
            webhook: &found.webhook.at(found.told, SHOWN_PORT),
            is_verified: found.webhook.is_verified,
            command: &command,
            start: &start(&command, found),
        };
        if self.json {
            let mut json = columns.json();
            json["seed"] = self.seed.into();
            json["people"] = self.people.into();
            json["copies"] = self.copies.into();
            json["done"] = self.done.as_str().into();
            json["logs"] = logs.display().to_string().into();
            json["advice"] = columns.advice(&tried).into();
            println!("{json}");
        } else {
            println!("{}\n{}", columns.table(), columns.advice(&tried));
        }
        match columns.is_clean() {
            Some(true) | None => ExitCode::SUCCESS,
            Some(false) => ExitCode::FAILURE,
        }
    }
}

/// How the bot is started for good, at the port that is shown.
fn start(command: &str, found: &Found) -> String {
    let at_port = with_port(command, SHOWN_PORT);
    let is_told = found.webhook.at(found.told, SHOWN_PORT) != found.webhook.url;
    match is_told && at_port == command {
        true => format!("PORT={SHOWN_PORT} hapax run -- {command}"),
        false => format!("hapax run -- {at_port}"),
    }
}

/// A folder that stays: what a bot said is looked at afterwards.
fn logs() -> Result<PathBuf, String> {
    let folder = tempfile::Builder::new().prefix("hapax-try-").tempdir();
    let folder = folder.map_err(|error| format!("no temporary folder: {error}"))?;
    Ok(folder.keep())
}

fn salt() -> Result<u64, String> {
    getrandom::u64().map_err(|error| format!("no randomness: {error}"))
}
