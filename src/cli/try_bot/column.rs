//! One column: the bot is started, found, written to, and ended; and what came of it is counted.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::TryBot;
use super::child::{Bot, Launch, with_port};
use super::environment::{self, APP_SECRET, NUMBER, Surroundings, TOKEN};
use super::gateway::{self, Between};
use super::kills::Kills;
use super::listening;
use super::port;
use super::way::Way;
use super::webhook::{Search, Webhook};
use crate::app::Running;
use crate::clock::Clock;
use crate::model::Secret;
use crate::simulator::{
    Ai, Counts, Graph, GraphSettings, History, Played, Trial, TrialSettings, count,
};

/// How often the line on the terminal changes.
const LINE_EVERY: Duration = Duration::from_millis(100);
/// Longer than the waits between the attempts of one turn; the same for a bot alone.
const MISSING_AFTER: Duration = Duration::from_secs(15);
/// How long a second answer is waited for where the bot is killed: longer than those waits, too.
const CALM_WITH_KILLS: Duration = Duration::from_secs(12);

/// Where both columns stand.
pub(super) struct Ground<'a> {
    pub(super) plan: &'a TryBot,
    /// Ids of people and messages that no other trial has had.
    pub(super) salts: [u64; 2],
    /// Gone at the end.
    pub(super) folder: &'a Path,
    /// Stays.
    pub(super) logs: &'a Path,
    pub(super) clock: &'a Clock,
}

/// What was found of the bot in the first column.
pub(super) struct Found {
    pub(super) webhook: Webhook,
    /// The port that it was told.
    pub(super) told: u16,
}

/// What came of one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) counts: Counts,
    /// How often the bot was killed.
    pub(super) kills: u64,
}

/// The pretend services of one column.
struct Stage {
    graph: Graph,
    ai: Ai,
}

/// Which column.
#[derive(Clone, Copy)]
enum Name {
    Alone,
    Behind,
}

impl Name {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Behind => "behind-hapax",
        }
    }
}

impl Ground<'_> {
    /// Meta posts to the bot, and the bot calls Graph.
    pub(super) async fn alone(&self) -> Result<(Counted, Found), String> {
        let stage = self.stage()?;
        let folder = self.folder(Name::Alone)?;
        let way = Way::to_graph(&stage.graph, &folder, self.clock).await?;
        let port = port::free()?;
        self.expect_silence(port).await?;
        let mut bot = self.bot(Name::Alone, &stage, &way, port)?;
        let webhook = self.search(port, self.plan.url.as_deref());
        let webhook = webhook.webhook(&mut bot).await?;
        let trial = self.trial(Name::Alone, &webhook.url, &stage)?;
        let kills = self.kills(&webhook.url);
        let watched = self.watch(Name::Alone, &trial, (&mut bot, &kills), None);
        let watched = watched.await;
        bot.stop().await;
        way.close().await;
        let counts = watched.map(|played| self.count(&played, &stage, &kills));
        stage.stop().await;
        Ok((
            counts?,
            Found {
                webhook,
                told: port,
            },
        ))
    }

    /// Meta posts to Hapax, which calls the bot; and what the bot sends goes through Hapax.
    pub(super) async fn behind(&self, found: &Found) -> Result<Counted, String> {
        let stage = self.stage()?;
        let folder = self.folder(Name::Behind)?;
        let port = port::free()?;
        let url = match &self.plan.url {
            Some(url) => with_port(url, port),
            None => found.webhook.at(found.told, port),
        };
        let between = Between {
            graph: &stage.graph.url(),
            bot: &url,
            done: self.plan.done,
            retry_id: self.plan.retry_id,
            folder: &folder,
        };
        let gateway = gateway::start(&between, self.clock).await?;
        let way = Way::through(&gateway, &folder, self.clock)?;
        self.expect_silence(port).await?;
        let mut bot = self.bot(Name::Behind, &stage, &way, port)?;
        self.search(port, Some(&url)).webhook(&mut bot).await?;
        let trial = self.trial(Name::Behind, &gateway.webhook_url(), &stage)?;
        let (running, kills) = (Some(&gateway), self.kills(&url));
        let watched = self.watch(Name::Behind, &trial, (&mut bot, &kills), running);
        let watched = watched.await;
        gateway.drain().await;
        bot.stop().await;
        way.close().await;
        let counts = watched.map(|played| self.count(&played, &stage, &kills));
        stage.stop().await;
        counts
    }

    /// Whoever listens before the bot is started would get what is meant for it.
    async fn expect_silence(&self, port: u16) -> Result<(), String> {
        let Some(url) = &self.plan.url else {
            return Ok(());
        };
        let url = with_port(url, port);
        let parsed = reqwest::Url::parse(&url).map_err(|error| format!("--url {url}: {error}"))?;
        match parsed.port_or_known_default() {
            Some(port) if listening::answers(port, self.clock).await => Err(format!(
                "--url {url}: somebody listens there already; stop that first, so that it does not \
                 get what is meant for the bot that is tried"
            )),
            _ => Ok(()),
        }
    }

    fn stage(&self) -> Result<Stage, String> {
        let settings = GraphSettings {
            token: Secret::new(TOKEN),
            seed: self.plan.seed,
        };
        let graph = Graph::start(settings, History::new(), self.clock.clone())
            .map_err(|error| format!("no pretend Graph API: {error}"))?;
        graph.be_as_bots_meet_it();
        let ai = Ai::start(self.plan.seed, self.clock.clone())
            .map_err(|error| format!("no pretend AI server: {error}"))?;
        Ok(Stage { graph, ai })
    }

    fn folder(&self, name: Name) -> Result<PathBuf, String> {
        let folder = self.folder.join(name.as_str());
        std::fs::create_dir_all(folder.join("state"))
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(folder)
    }

    fn bot(&self, name: Name, stage: &Stage, way: &Way, port: u16) -> Result<Bot<'_>, String> {
        let ai = stage.ai.base_url();
        let folder = self.folder.join(name.as_str()).join("state");
        let mut env = environment::of(&Surroundings {
            port,
            ai: &ai,
            folder: &folder,
        });
        let reached = way.variables().iter();
        env.extend(reached.map(|(name, value)| (name.clone(), value.clone())));
        let launch = Launch {
            command: &self.plan.command,
            port,
            env,
            log: self.logs.join(format!("{}.log", name.as_str())),
        };
        Bot::start(launch, self.clock.clone())
    }

    fn search<'a>(&'a self, port: u16, url: Option<&'a str>) -> Search<'a> {
        Search {
            port,
            url,
            clock: self.clock,
        }
    }

    fn trial(&self, name: Name, webhook: &str, stage: &Stage) -> Result<Trial, String> {
        let [alone, behind] = self.salts;
        let settings = TrialSettings {
            seed: self.plan.seed,
            salt: match name {
                Name::Alone => alone,
                Name::Behind => behind,
            },
            missing_after: MISSING_AFTER,
            people: self.plan.people,
            messages: self.plan.messages,
            copies: self.plan.copies,
            number: NUMBER.to_owned(),
            ..TrialSettings::new(webhook, Secret::new(APP_SECRET))
        };
        let settings = match self.plan.kill_every {
            Some(_) => TrialSettings {
                calm: CALM_WITH_KILLS,
                ..settings
            },
            None => settings,
        };
        let trial = Trial::new(settings, &stage.graph, self.clock.clone());
        trial.map_err(|error| error.to_string())
    }

    fn count(&self, played: &Played, stage: &Stage, kills: &Kills<'_>) -> Counted {
        Counted {
            counts: count(played, &stage.ai.threads(), self.plan.replies as u64),
            kills: kills.count.get(),
        }
    }

    /// What is done to a bot with its webhook at `url`.
    fn kills(&self, url: &str) -> Kills<'_> {
        let url = reqwest::Url::parse(url).ok();
        Kills {
            every: self.plan.kill_every,
            port: url.and_then(|url| url.port_or_known_default()),
            clock: self.clock,
            count: Cell::new(0),
            is_over: Cell::new(false),
        }
    }

    /// Runs the trial; ends early when the bot does, or the ledger fails.
    async fn watch(
        &self,
        name: Name,
        trial: &Trial,
        (bot, kills): (&mut Bot<'_>, &Kills<'_>),
        gateway: Option<&Running>,
    ) -> Result<Played, String> {
        let line = Line::new(name, self.plan.messages as u64);
        let mut progress = trial.watch();
        let run = trial.run();
        tokio::pin!(run);
        let failed = async {
            match gateway {
                Some(running) => running.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(failed);
        let ended = kills.attend(bot);
        tokio::pin!(ended);
        loop {
            tokio::select! {
                played = &mut run => return Ok(played),
                said = &mut ended => return Err(said),
                reason = &mut failed => return Err(format!("the store failed: {reason}")),
                () = self.clock.sleep(LINE_EVERY) => {
                    let progress = *progress.borrow_and_update();
                    line.show(progress.messages, progress.replies);
                    kills.is_over.set(progress.messages >= self.plan.messages as u64);
                }
            }
        }
    }
}

impl Stage {
    async fn stop(self) {
        self.graph.stop().await;
        self.ai.stop().await;
    }
}

/// The live line. Shows nothing where nobody watches.
struct Line(ProgressBar);

impl Line {
    fn new(name: Name, messages: u64) -> Self {
        let bar = ProgressBar::new(messages);
        let style = ProgressStyle::with_template("{prefix:13} {bar:30} {pos}/{len}  {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_prefix(name.as_str());
        Self(bar)
    }

    fn show(&self, messages: u64, replies: u64) {
        self.0.set_position(messages);
        self.0.set_message(format!("{replies} replies"));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
