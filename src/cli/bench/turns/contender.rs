//! One gateway on one ledger, with a pretend Graph of its own: takes a round of messages and
//! tells how long it was until the last reply was settled.

use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::app::{self, Listeners, Parts, Running};
use crate::cli::bench::ledger::{Engine, Ledger};
use crate::cli::bench::load::{Moment, fire};
use crate::cli::bench::shots::{APP_SECRET, Shot, index_of};
use crate::cli::bench::statistics::commits_since;
use crate::clock::Clock;
use crate::config::{self, Config, LogConfig, Sources};
use crate::model::Secret;
use crate::simulator::graph::{Graph, GraphSettings};
use crate::simulator::history::History;
use crate::store::Commits;

const TOKEN: &str = "bench-access-token";
/// Turns at once: more than an engine needs to form its batches.
pub(super) const TURNS: usize = 256;
/// Sends at once.
pub(super) const SENDS: usize = 256;
/// Messages a second of one number: as good as no limit, so that the store is what limits.
const PER_SECOND: u32 = 1_000_000;
/// As many connections as the load generator can open, and some.
const CONNECTIONS_MAX: usize = 8192;
const STORE_WAIT_MAX: Duration = Duration::from_secs(60);
/// A round in which nothing moves for so long has failed.
const STALL: Duration = Duration::from_secs(60);
/// Between two looks whether the last replies are settled.
const LOOK: Duration = Duration::from_millis(2);

/// One side of the comparison.
pub(super) struct Contender {
    pub(super) engine: Engine,
    running: Running,
    graph: Graph,
    clock: Clock,
}

/// How one round went.
pub(super) struct Turned {
    messages: usize,
    began: Moment,
    ended: Moment,
    /// From the post to the call of the pretend Graph, sorted.
    pub(super) latencies: Vec<Duration>,
    pub(super) commits: Commits,
}

impl Turned {
    pub(super) fn per_second(&self) -> f64 {
        self.messages as f64 / self.ended.since(&self.began).as_secs_f64()
    }

    /// Processor microseconds for one message, load generator and pretend Graph included.
    pub(super) fn processor_us(&self) -> f64 {
        self.ended.processor_us(&self.began, self.messages)
    }

    pub(super) fn commits_per_message(&self) -> f64 {
        self.commits.commits as f64 / self.messages as f64
    }
}

impl Contender {
    /// Makes the ledger, and serves.
    pub(super) async fn start(ledger: &Ledger, clock: &Clock) -> Result<Self, String> {
        let engine = ledger.engine;
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", engine.as_str());
        let settings = GraphSettings {
            token: Secret::new(TOKEN),
            seed: 1,
        };
        let graph = Graph::start(settings, History::new(), clock.clone());
        let graph = graph.map_err(|error| format!("no pretend Graph API: {error}"))?;
        let config = config(ledger, &graph)?;
        let listeners = Listeners::bind(&config).await;
        let parts = Parts {
            listeners: listeners.map_err(|error| failed(&error))?,
            clock: clock.clone(),
            handler: None,
        };
        let running = app::start(&config, parts).await;
        Ok(Self {
            engine,
            running: running.map_err(|error| failed(&error))?,
            graph,
            clock: clock.clone(),
        })
    }

    pub(super) async fn close(self) {
        self.running.drain().await;
        self.graph.stop().await;
    }

    /// Posts the messages and waits until every reply is settled. `bar` counts replies.
    pub(super) async fn round(
        &self,
        shots: Vec<Shot>,
        connections: usize,
        bar: &ProgressBar,
    ) -> Result<Turned, String> {
        let messages = shots.len();
        let store = self.running.store();
        let before = store.commits();
        let round = async {
            let posts = fire(
                self.running.public,
                Arc::new(shots),
                connections,
                &self.clock,
            );
            let (posted, ()) = tokio::try_join!(posts, self.replied(messages, bar))?;
            self.settled().await?;
            Ok(posted)
        };
        let posted = tokio::select! {
            posted = round => posted,
            reason = self.running.failed() => Err(format!("the store failed: {reason}")),
        };
        let posted = posted.map_err(|error| format!("{}: {error}", self.engine.as_str()))?;
        let ended = Moment::now(&self.clock);
        let commits = commits_since(before, store.commits());
        Ok(Turned {
            messages,
            began: posted.began,
            ended,
            latencies: self.latencies(&posted.fired)?,
            commits,
        })
    }

    /// Waits for so many more replies.
    async fn replied(&self, messages: usize, bar: &ProgressBar) -> Result<(), String> {
        let mut progress = self.graph.history().watch();
        let before = progress.borrow_and_update().replies;
        let mut seen = 0;
        while seen < messages as u64 {
            let changed = self.clock.timeout(STALL, progress.changed()).await;
            if changed.is_err() {
                let missing = messages as u64 - seen;
                return Err(format!("no reply for {STALL:?}, {missing} are missing"));
            }
            let now = progress.borrow_and_update().replies - before;
            bar.inc(now - seen);
            seen = now;
        }
        Ok(())
    }

    /// Waits until the ledger has nothing open.
    async fn settled(&self) -> Result<(), String> {
        let store = self.running.store();
        let began = self.clock.boottime();
        loop {
            let backlog = store.backlog().await.map_err(|error| error.to_string())?;
            let (pending, open) = (backlog.messages_pending, backlog.outgoing_open);
            if (pending, open, backlog.dead_letters) == (0, 0, 0) {
                return Ok(());
            }
            if backlog.dead_letters > 0 {
                let dead = backlog.dead_letters;
                return Err(format!("{dead} dead letters: HAPAX_LOG=warn tells why"));
            }
            if self.clock.boottime().saturating_sub(began) > STALL {
                return Err(format!("{pending} messages and {open} sends stay open"));
            }
            self.clock.sleep(LOOK).await;
        }
    }

    /// Empties the record of what crossed the wire; each reply tells its message by its text.
    fn latencies(&self, fired: &[Duration]) -> Result<Vec<Duration>, String> {
        let record = self.graph.history().take();
        let replies = record.sends.iter().filter(|sent| sent.accepted);
        let mut first: Vec<Option<Duration>> = vec![None; fired.len()];
        let mut twice = 0_usize;
        for sent in replies {
            let Some(slot) = index_of(sent.text()).and_then(|index| first.get_mut(index)) else {
                return Err("a reply to nothing that was written".to_owned());
            };
            twice += usize::from(slot.replace(sent.at).is_some());
        }
        let pairs = first.iter().zip(fired);
        let latencies = pairs.filter_map(|(at, fired)| Some((*at)?.saturating_sub(*fired)));
        let mut latencies: Vec<Duration> = latencies.collect();
        if twice > 0 || latencies.len() < fired.len() {
            let missing = fired.len() - latencies.len();
            return Err(format!("{missing} replies are missing, {twice} came twice"));
        }
        latencies.sort_unstable();
        Ok(latencies)
    }
}

/// Everything but the ledger is the bench's own and comes from nowhere else.
fn config(ledger: &Ledger, graph: &Graph) -> Result<Config, String> {
    let mut config = sole_config(&graph.url())?;
    config.store = ledger.config.clone();
    config.store.wait_max = STORE_WAIT_MAX;
    config.public.connections_max = CONNECTIONS_MAX;
    config.worker.concurrency = TURNS;
    config.send.concurrency = SENDS;
    config.send.per_second = PER_SECOND;
    config.turn.mark_read = false;
    Ok(config)
}

fn sole_config(graph_url: &str) -> Result<Config, String> {
    let own = [
        ("HAPAX_PUBLIC_LISTEN", "127.0.0.1:0"),
        ("HAPAX_BOT_LISTEN", "127.0.0.1:0"),
        ("HAPAX_ADMIN_LISTEN", "127.0.0.1:0"),
        ("HAPAX_HANDLER", "echo"),
        ("WHATSAPP_ACCESS_TOKEN", TOKEN),
        ("WHATSAPP_APP_SECRET", APP_SECRET),
        ("WHATSAPP_VERIFY_TOKEN", "bench-verify-token"),
        ("WHATSAPP_API_URL", graph_url),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env = Sources::from_process(None, None).env.into_iter();
    let log = env.filter(|(name, _)| name == "HAPAX_LOG" || name == "HAPAX_LOG_FORMAT");
    let sources = Sources {
        env: log.chain(own).collect(),
        ..Sources::default()
    };
    let loaded = config::load(sources).map_err(|faults| faults.to_string())?;
    Ok(loaded.config)
}

/// Errors alone, unless somebody asks for more: lines cost time, and are not what is measured.
pub(super) fn log_config() -> Result<LogConfig, String> {
    let mut log = sole_config("http://127.0.0.1:1")?.log;
    let env = Sources::from_process(None, None).env;
    if !env.iter().any(|(name, _)| name == "HAPAX_LOG") {
        "error".clone_into(&mut log.level);
    }
    Ok(log)
}
