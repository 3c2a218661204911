//! `hapax try`: the user's own bot, unedited, alone and behind Hapax, under one pretend WhatsApp
//! that posts every message several times at the same moment. No account.

mod child;
mod column;
mod environment;
mod gateway;
mod listening;
mod table;
mod way;
mod webhook;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};

use self::column::{Found, Ground};
use self::table::{Columns, Tried};
use super::fault;
use super::interrupt::Interrupt;
use crate::clock::Clock;
use crate::simulator::trial::{COPIES_MAX, MESSAGES_MAX, PEOPLE_MAX};

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
    /// The bot's webhook, where it is not found; {port} stands for the port that the bot is told.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// When a message counts as done behind Hapax: at the bot's 200, or at its reply.
    #[arg(long, value_enum, default_value_t = Done::Response)]
    done: Done,
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
        Ok(self.judge(Columns { alone, behind }, &found, &logs))
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
        println!("  the bot's output   {}\n", logs.display());
    }

    /// Prints the table; the exit status says whether the column of Hapax is clean.
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn judge(&self, columns: Columns, found: &Found, logs: &Path) -> ExitCode {
        let command = self.command.join(" ");
        let tried = Tried {
            done: self.done,
            webhook: &found.webhook.url,
            is_verified: found.webhook.is_verified,
            command: &command,
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
        match columns.behind.is_clean() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
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
