//! `hapax dev`: the gateway and a pretend WhatsApp in one process. No account, no network.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::fault;
use super::figures::Figures;
use crate::app::{self, Listeners, Parts, Running};
use crate::clock::Clock;
use crate::config::{self, Config, Sources};
use crate::model::Secret;
use crate::simulator::checker::{Breach, Report};
use crate::simulator::graph::{Graph, GraphSettings};
use crate::simulator::history::{History, Progress};
use crate::simulator::rehearsal::{Rehearsal, Settings};

#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Your own bot's webhook instead of the built-in echo.
    #[arg(long, value_name = "URL")]
    bot: Option<String>,
    /// Stop after so many messages; without it, run until Ctrl-C.
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
    /// Decides who writes what and how often it is delivered.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// Secrets of a world that exists in one process only.
const TOKEN: &str = "dev-access-token";
const APP_SECRET: &str = "dev-app-secret";
const VERIFY_TOKEN: &str = "dev-verify-token";
/// Meta's highest throughput: the pretend people are faster than the default of 80 a second.
const PER_SECOND: u32 = 1000;
/// How often the line on the terminal changes.
const LINE_EVERY: Duration = Duration::from_millis(100);
/// A bot of your own may take its time, or not answer through the pretend Graph at all.
const BOT_PATIENCE: Duration = Duration::from_secs(5);

impl Dev {
    pub(super) async fn run(self) -> ExitCode {
        match self.play().await {
            Ok(code) => code,
            Err(text) => fault(&text),
        }
    }

    async fn play(self) -> Result<ExitCode, String> {
        let clock = Clock::system();
        let folder =
            tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let graph_settings = GraphSettings {
            token: Secret::new(TOKEN),
            seed: self.seed,
        };
        let graph = Graph::start(graph_settings, History::new(), clock.clone())
            .map_err(|error| format!("no pretend Graph API: {error}"))?;
        let config = self.config(&graph, folder.path())?;
        app::init_logging(&config.log, clock.clone()).map_err(|error| error.to_string())?;
        let listeners = Listeners::bind(&config)
            .await
            .map_err(|error| error.to_string())?;
        let parts = Parts {
            listeners,
            clock: clock.clone(),
            handler: None,
        };
        let running = app::start(&config, parts)
            .await
            .map_err(|error| error.to_string())?;
        self.greet(&running, &graph);
        let result = self.rehearse(&running, &graph, &clock).await;
        let figures = Figures::fetch(running.admin).await;
        running.drain().await;
        graph.stop().await;
        let (report, figures) = (result?, figures.ok_or("the admin side did not answer")?);
        Ok(self.judge(&report, &figures))
    }

    fn config(&self, graph: &Graph, folder: &std::path::Path) -> Result<Config, String> {
        let mut env: Vec<(String, String)> = Sources::from_process(None, None)
            .env
            .into_iter()
            .filter(|(name, _)| name == "HAPAX_LOG" || name == "HAPAX_LOG_FORMAT")
            .collect();
        let mut set = |name: &str, value: &str| env.push((name.to_owned(), value.to_owned()));
        for door in [
            "HAPAX_PUBLIC_LISTEN",
            "HAPAX_BOT_LISTEN",
            "HAPAX_ADMIN_LISTEN",
        ] {
            set(door, "127.0.0.1:0");
        }
        set(
            "HAPAX_STORE",
            &format!("sqlite:{}", folder.join("hapax.db").display()),
        );
        let authority = folder.join("hapax-ca");
        set("HAPAX_BOT_CA_DIR", &authority.display().to_string());
        set("WHATSAPP_ACCESS_TOKEN", TOKEN);
        set("WHATSAPP_APP_SECRET", APP_SECRET);
        set("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN);
        set("WHATSAPP_API_URL", &graph.url());
        match &self.bot {
            Some(url) => set("HAPAX_BOT_URL", url),
            None => set("HAPAX_HANDLER", "echo"),
        }
        let asked_for_logs = env.iter().any(|(name, _)| name == "HAPAX_LOG");
        let sources = Sources {
            env,
            ..Sources::default()
        };
        let mut config = config::load(sources)
            .map_err(|faults| faults.to_string())?
            .config;
        config.send.per_second = PER_SECOND;
        if !asked_for_logs {
            // The line on the terminal is what one looks at.
            "error".clone_into(&mut config.log.level);
        }
        Ok(config)
    }

    #[expect(clippy::print_stdout, reason = "for the person who typed the command")]
    fn greet(&self, running: &Running, graph: &Graph) {
        println!("A pretend WhatsApp writes to hapax, and posts every message one to four times.");
        println!("  webhook   {}", running.webhook_url());
        println!("  metrics   http://{}/metrics", running.admin);
        match &self.bot {
            Some(url) => {
                println!("  Graph     http://{}", running.bot);
                println!("  bot       {url}");
                println!(
                    "Tell your bot that this is Graph's address (WHATSAPP_API_URL, or as it calls it): what it sends goes"
                );
                println!(
                    "out once, and is counted. The access token is {TOKEN}, the app secret {APP_SECRET}."
                );
            }
            None => {
                println!("  Graph     {}", graph.url());
                println!("  bot       the built-in echo");
            }
        }
        if self.messages.is_none() {
            println!("Ctrl-C ends it and shows the table.");
        }
    }

    async fn rehearse(
        &self,
        running: &Running,
        graph: &Graph,
        clock: &Clock,
    ) -> Result<Report, String> {
        let secret = Secret::new(APP_SECRET);
        let mut settings = Settings::live(running.webhook_url(), secret, Secret::new(VERIFY_TOKEN));
        settings.seed = self.seed;
        if let Some(messages) = self.messages {
            settings = settings.counted(messages);
        }
        if self.bot.is_some() {
            settings.patience = BOT_PATIENCE;
        }
        let rehearsal =
            Rehearsal::new(settings, graph, clock.clone()).map_err(|error| error.to_string())?;
        let stop = CancellationToken::new();
        let line = Line::new(self.messages);
        let mut progress = rehearsal.watch();
        let run = rehearsal.run(&stop);
        tokio::pin!(run);
        let report = loop {
            tokio::select! {
                report = &mut run => break report,
                _ = tokio::signal::ctrl_c(), if !stop.is_cancelled() => stop.cancel(),
                reason = running.failed() => return Err(format!("the store failed: {reason}")),
                () = clock.sleep(LINE_EVERY) => line.show(&progress.borrow_and_update()),
            }
        };
        line.end();
        report.map_err(|error| error.to_string())
    }

    /// Prints the table; the exit status says whether every promise was kept.
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn judge(&self, report: &Report, figures: &Figures) -> ExitCode {
        let ended = |how: &str| figures.sum("hapax_turns_total", &format!("outcome=\"{how}\""));
        let handled = ended("reply") + ended("silence") + ended("acknowledged");
        let refused = figures.sum("hapax_events_total", "verdict=\"duplicate\"");
        let dead = figures.sum("hapax_dead_letters_open", "");
        let missing = match self.bot {
            // Whether a bot of your own replies, and with what, is its own affair.
            Some(_) => report.messages.saturating_sub(handled),
            None => report.count(Breach::Missing),
        };
        let rows = [
            ("deliveries", report.deliveries),
            ("events", report.events),
            ("duplicates refused", refused),
            ("messages handled", handled),
            ("replies sent", report.replies),
            ("order violations", report.count(Breach::Order)),
            ("missing", missing),
        ];
        println!();
        for (name, count) in rows {
            println!("  {name:<20}{count:>10}");
        }
        let kept = match self.bot {
            Some(_) => missing == 0 && report.undelivered == 0,
            None => report.is_clean(),
        };
        if kept && dead == 0 {
            println!("\nEvery message was handled once, in order.");
            return ExitCode::SUCCESS;
        }
        println!("\nA promise was broken ({dead} dead letters):\n{report}");
        println!(
            "Once more, the same: hapax dev --seed {}{}",
            self.seed,
            self.again()
        );
        ExitCode::FAILURE
    }

    fn again(&self) -> String {
        let messages = self.messages.map(|count| format!(" --messages {count}"));
        let bot = self.bot.as_ref().map(|url| format!(" --bot {url}"));
        messages.unwrap_or_default() + &bot.unwrap_or_default()
    }
}

/// The live line; a bar where the end is known. Shows nothing where nobody watches.
struct Line(ProgressBar);

impl Line {
    fn new(messages: Option<u64>) -> Self {
        let bar = match messages {
            Some(count) => ProgressBar::new(count),
            None => ProgressBar::no_length(),
        };
        let template = match messages {
            Some(_) => "{bar:30} {pos}/{len} messages  {msg}",
            None => "{elapsed} {pos} messages  {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn show(&self, progress: &Progress) {
        self.0.set_position(progress.messages);
        self.0.set_message(format!(
            "{} deliveries, {} duplicates, {} replies, {} waiting",
            progress.deliveries, progress.duplicates, progress.replies, progress.waiting
        ));
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}
