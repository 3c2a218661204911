//! `hapax bench turns`: from the delivery of a message to its settled reply, through the whole
//! gateway, each engine in turn in one process.
//!
//! The bot is the echo and costs nothing, sends are not paced, and nothing is marked as read: what
//! is left is the store and the HTTP around it. Load, pretend Graph and gateway share the
//! processor; the server of a database is another process.

mod contender;
mod show;

use std::ops::RangeInclusive;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use self::contender::{Contender, Turned};
use super::ledger::{Engine, Ledgers};
use super::shots::Generator;
use crate::app;
use crate::cli::fault;
use crate::cli::interrupt::Interrupt;
use crate::clock::Clock;
use crate::model::Secret;

/// Of messages and of people: a round is held in memory.
const COUNT: RangeInclusive<i64> = 1..=1_000_000;

#[derive(Debug, Args)]
pub(in crate::cli) struct Turns {
    /// Messages a round.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(COUNT))]
    messages: u32,
    /// People who write; the turns of one of them follow each other.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(COUNT))]
    people: u32,
    /// Connections, each with one delivery under way.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Measure PostgreSQL as well: postgres://…, in a schema of its own that is dropped at the end.
    #[arg(long, value_name = "URL", value_parser = crate::cli::address)]
    store: Option<Secret>,
    /// Rounds of each engine, after one to warm up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// What was measured of one engine.
struct Measured {
    engine: Engine,
    rounds: Vec<Turned>,
}

impl Turns {
    pub(super) async fn run(self) -> ExitCode {
        match self.measure().await {
            Ok(measured) => self.show(&measured),
            Err(text) => return fault(&text),
        }
        ExitCode::SUCCESS
    }

    async fn measure(&self) -> Result<Vec<Measured>, String> {
        let clock = Clock::system();
        let log = contender::log_config()?;
        app::init_logging(&log, clock.clone()).map_err(|error| error.to_string())?;
        let mut interrupt = Interrupt::listen()?;
        let ledgers = Ledgers::plan(None, self.store.as_ref())?;
        let mut contenders = Vec::new();
        let started = interrupt.cuts(start(&ledgers, &mut contenders, &clock));
        let measured = match started.await {
            Ok(()) => interrupt.cuts(self.take_turns(&contenders, &clock)).await,
            Err(text) => Err(text),
        };
        for contender in contenders {
            contender.close().await;
        }
        let destroyed = ledgers.destroy(&clock).await;
        measured.and_then(|measured| destroyed.map(|()| measured))
    }

    async fn take_turns(
        &self,
        contenders: &[Contender],
        clock: &Clock,
    ) -> Result<Vec<Measured>, String> {
        let mut generator = Generator::new(self.people as usize, clock.clone());
        let bar = self.bar(contenders.len());
        let unmeasured = |contender: &Contender| Measured {
            engine: contender.engine,
            rounds: Vec::new(),
        };
        let mut measured: Vec<Measured> = contenders.iter().map(unmeasured).collect();
        for round in 0..=self.rounds {
            for (contender, measured) in contenders.iter().zip(&mut measured) {
                let shots = generator.shots(self.messages as usize);
                let turned = contender.round(shots, self.connections.into(), &bar);
                let turned = turned.await?;
                // The first round fills caches and makes the people known.
                measured.rounds.extend((round > 0).then_some(turned));
            }
        }
        bar.finish_and_clear();
        Ok(measured)
    }

    /// Replies of all rounds.
    fn bar(&self, contenders: usize) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        let rounds = contenders as u64 * (u64::from(self.rounds) + 1);
        let bar = ProgressBar::new(rounds * u64::from(self.messages));
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} replies") {
            bar.set_style(style);
        }
        bar
    }
}

/// Those that have started are closed by the caller, also where another one could not.
async fn start(
    ledgers: &Ledgers,
    contenders: &mut Vec<Contender>,
    clock: &Clock,
) -> Result<(), String> {
    for ledger in &ledgers.all {
        contenders.push(Contender::start(ledger, clock).await?);
    }
    Ok(())
}
