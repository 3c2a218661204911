//! `hapax rehearse`: real nodes under a pretend WhatsApp while things break, by seed; and a
//! verdict from outside.

mod accounts;
#[cfg(feature = "failpoints")]
mod crashes;
mod fleet;
mod ground;
#[cfg(feature = "sabotage")]
mod guards;
mod page;
mod plot;
mod settings;
mod soak;
mod stage;
mod strikes;
mod tally;
mod timeline;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use self::ground::Ground;
use self::stage::{Setup, play};
use self::tally::Tally;
use super::fault;
use super::interrupt::Interrupt;
use crate::clock::Clock;
use crate::model::Secret;
use crate::simulator::faults::{FaultPlan, Handler, NODES_MAX};
use crate::simulator::history::Progress;

#[derive(Debug, Args)]
pub(super) struct Rehearse {
    /// The first seed: it decides who writes what, what is delivered how often, and what breaks.
    #[arg(long, value_name = "S", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(..=u64::MAX / 2))]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        conflicts_with = "minutes"
    )]
    seeds: u64,
    /// Seed after seed for so long.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    minutes: Option<u32>,
    /// How many nodes share the ledger.
    #[arg(long, value_name = "K", default_value_t = 2)]
    nodes: usize,
    /// How the bot is reached: ask, or forward, where it sends by itself.
    #[arg(long, value_name = "HANDLER", default_value = "ask", value_parser = handler,
          conflicts_with_all = ["plan", "soak"])]
    handler: Handler,
    /// sqlite, or postgres://…; a run makes a file or a schema of its own, and takes it away.
    #[arg(long, value_name = "URL", value_parser = super::address)]
    store: Option<Secret>,
    /// A plan of faults (JSON) in place of the one that the seed draws.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "minutes", "seed"])]
    plan: Option<PathBuf>,
    /// Show the plan that the seed draws, and do nothing.
    #[arg(long)]
    show_plan: bool,
    /// In place of faults, a long run: so many messages, as fast as they are taken, answered by the
    /// built-in echo; memory is watched.
    #[arg(long, value_name = "MESSAGES", conflicts_with_all = ["seeds", "minutes", "plan", "report"])]
    soak: Option<u64>,
    /// How many people write in a long run.
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "soak")]
    people: usize,
    /// Write a page with pictures to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Crash at every named point of the program, or at those whose name contains this.
    #[cfg(feature = "failpoints")]
    #[arg(long, value_name = "POINT", num_args = 0..=1, default_missing_value = "",
          conflicts_with_all = ["seeds", "minutes", "plan", "report", "soak", "handler"])]
    crash_points: Option<String>,
    /// Switch off every guard in turn, or those whose name contains this, and see whether that is
    /// found.
    #[cfg(feature = "sabotage")]
    #[arg(long, value_name = "GUARD", num_args = 0..=1, default_missing_value = "",
          conflicts_with_all = ["seeds", "minutes", "plan", "report", "soak", "handler",
                                "crash_points"])]
    guards: Option<String>,
    /// The verdict as JSON, and nothing else, on stdout.
    #[arg(long)]
    json: bool,
}

impl Rehearse {
    pub(super) async fn run(self) -> ExitCode {
        match self.rehearse().await {
            Ok(code) => code,
            Err(text) => fault(&text),
        }
    }

    #[expect(clippy::print_stdout, reason = "what the command is for")]
    async fn rehearse(self) -> Result<ExitCode, String> {
        let setup = self.setup().await?;
        if self.show_plan {
            let plan = self.plan(self.seed, &setup)?;
            let shown = serde_json::to_string_pretty(&plan).map_err(|error| error.to_string())?;
            println!("{shown}");
            return Ok(ExitCode::SUCCESS);
        }
        let mut interrupt = Interrupt::listen()?;
        let work = self.work(&setup);
        interrupt.stops(&setup.stop, work).await
    }

    #[expect(clippy::print_stdout, reason = "what the command is for")]
    async fn work(&self, setup: &Setup) -> Result<ExitCode, String> {
        #[cfg(feature = "failpoints")]
        if let Some(only) = &self.crash_points {
            return self.crash(setup, only).await;
        }
        #[cfg(feature = "sabotage")]
        if let Some(only) = &self.guards {
            return self.switch_off(setup, only).await;
        }
        if let Some(messages) = self.soak {
            return self.soak(setup, messages).await;
        }
        let (tally, ended) = self.all(setup).await;
        if let Some(path) = &self.report {
            let page = page::page(&tally, setup.ground.as_str(), self.nodes);
            let written = std::fs::write(path, page);
            written.map_err(|error| format!("--report: {}: {error}", path.display()))?;
        }
        match self.json {
            true => println!("{}", tally.json(setup.ground.as_str(), self.nodes)),
            false => print!("{}", tally.words()),
        }
        match (tally.is_clean(), ended) {
            (false, ended) => {
                ended.err().iter().for_each(|text| complain(text));
                Ok(ExitCode::FAILURE)
            }
            (true, Err(text)) => Err(text),
            (true, Ok(())) => Ok(ExitCode::SUCCESS),
        }
    }

    async fn setup(&self) -> Result<Setup, String> {
        if !(1..=NODES_MAX).contains(&self.nodes) {
            return Err(format!(
                "--nodes: expected 1 to {NODES_MAX}, found {}",
                self.nodes
            ));
        }
        let program = std::env::current_exe();
        let ground = Ground::parse(self.store.as_ref())?;
        Ok(Setup {
            store_end: ground.far_end().await,
            ground,
            nodes: self.nodes,
            program: program.map_err(|error| format!("where is this binary? {error}"))?,
            more: Vec::new(),
            clock: Clock::system(),
            stop: CancellationToken::new(),
        })
    }

    fn plan(&self, seed: u64, setup: &Setup) -> Result<FaultPlan, String> {
        let has_wire = setup.store_end.is_some();
        let Some(path) = &self.plan else {
            return Ok(FaultPlan::draw(seed, self.handler, self.nodes, has_wire));
        };
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| format!("--plan: {}: {error}", path.display()))?;
        let plan = FaultPlan::parse(&text, self.nodes, has_wire);
        plan.map_err(|fault| format!("--plan: {}: {fault}", path.display()))
    }

    /// All runs, or those that were over when something came in between.
    async fn all(&self, setup: &Setup) -> (Tally, Result<(), String>) {
        let began = setup.clock.boottime();
        let limit = self
            .minutes
            .map(|minutes| Duration::from_secs(60) * minutes);
        let bar = Bar::new(self.seeds, limit);
        if setup.store_end.is_none() && setup.ground.is_postgres() {
            bar.tell("no fault at the wire to the database: it speaks TLS, or has several hosts");
        }
        let mut tally = Tally::default();
        let mut ended = Ok(());
        for (done, seed) in (self.seed..).enumerate() {
            let done = done as u64;
            let elapsed = setup.clock.boottime() - began;
            let over = limit.map_or(done >= self.seeds, |limit| elapsed >= limit);
            if over && done > 0 {
                break;
            }
            bar.begin(seed, elapsed);
            ended = self.one(seed, setup, &mut tally, &bar).await;
            if ended.is_err() {
                break;
            }
            bar.end_of(done + 1);
        }
        bar.finish();
        (tally, ended)
    }

    async fn one(
        &self,
        seed: u64,
        setup: &Setup,
        tally: &mut Tally,
        bar: &Bar,
    ) -> Result<(), String> {
        let plan = self.plan(seed, setup)?;
        let failed = tally.failed().count();
        let mut watch = |progress: &_| bar.show(progress, failed);
        let played = play(&plan, None, setup, &mut watch).await?;
        if let Some(left) = &played.left {
            bar.tell(left);
        }
        if !played.report.is_clean() {
            bar.tell(&format!("seed {seed}: {}", played.report));
        }
        tally.add(played, self.again(seed));
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "what the command is for")]
    async fn soak(&self, setup: &Setup, messages: u64) -> Result<ExitCode, String> {
        let load = soak::Load {
            seed: self.seed,
            messages,
            people: self.people,
        };
        let bar = plain_bar();
        bar.set_length(messages);
        let mut watch = |progress: &Progress| {
            bar.set_position(progress.messages);
            let Progress {
                deliveries,
                replies,
                waiting,
                ..
            } = progress;
            bar.set_message(format!(
                "{deliveries} deliveries, {replies} replies, {waiting} waiting"
            ));
        };
        let soaked = soak::soak(&load, setup, &mut watch).await?;
        bar.finish_and_clear();
        match self.json {
            true => println!("{}", soaked.json()),
            false => print!("{}", soaked.words()),
        }
        Ok(match soaked.report.is_clean() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    #[cfg(feature = "failpoints")]
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    async fn crash(&self, setup: &Setup, only: &str) -> Result<ExitCode, String> {
        let bar = plain_bar();
        let mut tell = |crash: &crashes::Crash| {
            if !self.json {
                bar.suspend(|| println!("{}", crash.line(&self.rest())));
            }
        };
        let crashes = crashes::matrix(setup, self.seed, only, &bar, &mut tell).await?;
        bar.finish_and_clear();
        if self.json {
            let points: Vec<_> = crashes.iter().map(|c| c.json(&self.rest())).collect();
            println!("{}", serde_json::json!({ "points": points }));
        }
        Ok(match crashes.iter().any(crashes::Crash::has_failed) {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    }

    #[cfg(feature = "sabotage")]
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    async fn switch_off(&self, setup: &Setup, only: &str) -> Result<ExitCode, String> {
        let bar = plain_bar();
        let mut tell = |trial: &guards::Trial| {
            if !self.json {
                bar.suspend(|| println!("{}", trial.line(self.seed)));
            }
        };
        let trials = guards::trials(setup, self.seed, only, &bar, &mut tell).await?;
        bar.finish_and_clear();
        if self.json {
            let guards: Vec<_> = trials.iter().map(guards::Trial::json).collect();
            println!("{}", serde_json::json!({ "guards": guards }));
        }
        Ok(match trials.iter().any(guards::Trial::is_unfound) {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    }

    /// The command that repeats the run of a seed.
    fn again(&self, seed: u64) -> String {
        match &self.plan {
            Some(path) => format!("hapax rehearse --plan '{}'{}", path.display(), self.rest()),
            None => {
                let handler = match self.handler {
                    Handler::Ask => String::new(),
                    other => format!(" --handler {}", other.as_str()),
                };
                format!("hapax rehearse --seed {seed}{handler}{}", self.rest())
            }
        }
    }

    /// What every command that repeats something ends with.
    fn rest(&self) -> String {
        // The address may hold a password, so it is not repeated.
        let store = match self.store.as_ref().map(Secret::expose) {
            None | Some("sqlite") => "",
            Some(_) => " --store \"$HAPAX_STORE\"",
        };
        format!(" --nodes {}{store}", self.nodes)
    }
}

fn handler(text: &str) -> Result<Handler, String> {
    let found = Handler::ALL
        .into_iter()
        .find(|handler| handler.as_str() == text);
    found.ok_or_else(|| "expected ask or forward".to_owned())
}

#[expect(clippy::print_stderr, reason = "for the person who waits")]
fn complain(text: &str) {
    eprintln!("hapax: {text}");
}

fn plain_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}") {
        bar.set_style(style);
    }
    bar
}

/// The line on the terminal. Shows nothing where nobody watches.
struct Bar {
    bar: ProgressBar,
    limit: Option<Duration>,
}

impl Bar {
    fn new(seeds: u64, limit: Option<Duration>) -> Self {
        let length = limit.map_or(seeds, |limit| limit.as_secs());
        let bar = ProgressBar::new(length);
        let unit = limit.map_or("seeds", |_| "s");
        let template = format!("{{bar:24}} {{pos}}/{{len}} {unit}  {{msg}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        Self { bar, limit }
    }

    fn begin(&self, seed: u64, elapsed: Duration) {
        if let Some(limit) = self.limit {
            self.bar.set_position(elapsed.min(limit).as_secs());
        }
        self.bar.set_prefix(format!("seed {seed}"));
    }

    /// Says something at once, and not only at the end.
    fn tell(&self, text: &str) {
        self.bar.suspend(|| complain(text));
    }

    fn show(&self, progress: &Progress, failed: usize) {
        self.bar.set_message(format!(
            "{}: {} messages, {} deliveries, {} replies; {} runs went wrong",
            self.bar.prefix(),
            progress.messages,
            progress.deliveries,
            progress.replies,
            failed,
        ));
        self.bar.tick();
    }

    fn end_of(&self, done: u64) {
        if self.limit.is_none() {
            self.bar.set_position(done);
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
