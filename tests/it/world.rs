//! The world a test lives in: a pretend WhatsApp, real `hapax` processes on one ledger, in a file
//! or in PostgreSQL, and what they say of themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hapax::app;
use hapax::clock::Clock;
use hapax::config::{self, Sources};
use hapax::model::Secret;
use hapax::simulator::graph::{Graph, GraphSettings};
use hapax::simulator::history::History;
use hapax::simulator::meta::{Meta, MetaSettings};
use hapax::store::SharedStore;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::schema::Schema;

pub(crate) const TOKEN: &str = "test-access-token";
pub(crate) const APP_SECRET: &str = "test-app-secret";
pub(crate) const VERIFY_TOKEN: &str = "test-verify-token";
pub(crate) const NUMBER: &str = "106540352242922";

/// Longer than anything takes on a loaded machine; a test that reaches it has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// The lease of a node, unless a test asks for another one, and how often it is renewed.
pub(crate) const LEASE: Duration = Duration::from_millis(900);
pub(crate) const RENEWAL: Duration = Duration::from_millis(200);

/// Of each node's pool; one or two more are opened beside it.
const CONNECTIONS: &str = "4";

/// A pretend WhatsApp, and a folder or a schema for one ledger. To be declared before its nodes,
/// so that it is dropped after them.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    /// Where the ledger is; a file in the folder if there is none.
    schema: Option<Schema>,
    pub(crate) history: Arc<History>,
    pub(crate) graph: Graph,
    pub(crate) clock: Clock,
    started: AtomicU32,
}

impl World {
    /// On SQLite.
    pub(crate) fn new() -> Self {
        Self::on(None)
    }

    /// On PostgreSQL, in a schema of its own.
    pub(crate) fn on_postgres() -> Self {
        Self::on(Some(Schema::new()))
    }

    fn on(schema: Option<Schema>) -> Self {
        let clock = Clock::system();
        let history = History::new();
        let settings = GraphSettings {
            token: Secret::new(TOKEN),
            seed: 1,
        };
        let graph = Graph::start(settings, Arc::clone(&history), clock.clone())
            .expect("the pretend Graph starts");
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            folder,
            schema,
            history,
            graph,
            clock,
            started: AtomicU32::new(0),
        }
    }

    /// The ledger's file, on SQLite.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("hapax.db")
    }

    /// The ledger's schema, on PostgreSQL.
    pub(crate) fn schema(&self) -> Option<&Schema> {
        self.schema.as_ref()
    }

    /// This world's settings, with a short lease, and those of the test.
    pub(crate) fn settings(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let file = format!("sqlite:{}", self.store().display());
        let (store, schema) = match &self.schema {
            Some(schema) => (schema.database(), schema.name()),
            None => (file.as_str(), "hapax"),
        };
        let (lease, renewal) = (LEASE.as_millis(), RENEWAL.as_millis());
        let (lease, renewal) = (format!("{lease}ms"), format!("{renewal}ms"));
        let api = self.graph.url();
        let all = [
            ("HAPAX_STORE", store),
            ("HAPAX_STORE_SCHEMA", schema),
            ("HAPAX_STORE_CONNECTIONS", CONNECTIONS),
            ("HAPAX_HANDLER", "echo"),
            ("HAPAX_LOG_FORMAT", "json"),
            ("HAPAX_PUBLIC_LISTEN", "127.0.0.1:0"),
            ("HAPAX_BOT_LISTEN", "127.0.0.1:0"),
            ("HAPAX_ADMIN_LISTEN", "127.0.0.1:0"),
            ("HAPAX_NODE_LEASE_TTL", lease.as_str()),
            ("HAPAX_NODE_RENEW_EVERY", renewal.as_str()),
            ("HAPAX_TURN_BACKOFF_FIRST", "50ms"),
            ("HAPAX_SEND_PER_SECOND", "1000"),
            ("WHATSAPP_ACCESS_TOKEN", TOKEN),
            ("WHATSAPP_APP_SECRET", APP_SECRET),
            ("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN),
            ("WHATSAPP_API_URL", api.as_str()),
        ];
        // Of a name that is set twice the last one counts.
        let all = BTreeMap::from_iter(all.iter().chain(more).copied());
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        all.into_iter().map(owned).collect()
    }

    /// A `hapax` command with this world's settings; nothing is inherited.
    pub(crate) fn command(&self, settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
        command
            .env_clear()
            .envs(self.settings(settings))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The ledger itself, opened beside the nodes. To be closed by who asks for it.
    pub(crate) async fn ledger(&self) -> SharedStore {
        let sources = Sources {
            env: self.settings(&[]),
            ..Sources::default()
        };
        let config = config::load_store(sources).expect("the settings are right");
        let opened = app::store::open(&config, self.clock.clone()).await;
        opened.expect("the ledger opens")
    }

    /// Starts `hapax serve` and waits until it takes deliveries.
    pub(crate) async fn node(&self, settings: &[(&str, &str)]) -> Node {
        let mut command = self.command(settings);
        command.arg("serve");
        self.start(command).await.expect("the node starts")
    }

    /// Starts a prepared command; `Err` with its exit status when it ends before it serves.
    pub(crate) async fn start(
        &self,
        mut command: Command,
    ) -> Result<Node, std::process::ExitStatus> {
        let count = self.started.fetch_add(1, Ordering::Relaxed);
        let log = self.folder.path().join(format!("node-{count}.log"));
        let stderr = std::fs::File::create(&log).expect("a log file");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the binary runs");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let announced = read_addresses(&mut lines);
        let addresses = self
            .clock
            .timeout(LIMIT, announced)
            .await
            .expect("it starts in time");
        let Some((public, admin)) = addresses else {
            let ended = self
                .clock
                .timeout(LIMIT, child.wait())
                .await
                .expect("it ends in time");
            return Err(ended.expect("its status is known"));
        };
        Ok(Node {
            child,
            public,
            admin,
            log,
            clock: self.clock.clone(),
            _stdout: lines,
        })
    }

    /// The delivering side of the pretend WhatsApp, posting to `node`.
    pub(crate) fn meta(&self, node: &Node) -> Meta {
        self.meta_at(&node.webhook())
    }

    pub(crate) fn meta_at(&self, webhook: &str) -> Meta {
        let settings = MetaSettings::new(webhook, Secret::new(APP_SECRET));
        Meta::new(settings, Arc::clone(&self.history), self.clock.clone()).expect("a client")
    }

    /// Waits until nothing of the store is open, as `node` sees it.
    pub(crate) async fn settle(&self, node: &Node) {
        let settled = async {
            while !node.figures().await.is_settled() {
                self.clock.sleep(Duration::from_millis(20)).await;
            }
        };
        if self.clock.timeout(LIMIT, settled).await.is_err() {
            panic!(
                "not settled in time:\n{}\n{}",
                node.figures().await.0,
                node.log_tail()
            );
        }
    }
}

async fn read_addresses(
    lines: &mut Lines<BufReader<ChildStdout>>,
) -> Option<(SocketAddr, SocketAddr)> {
    let mut public = None;
    while let Ok(Some(line)) = lines.next_line().await {
        let address = |line: &str| -> Option<SocketAddr> {
            line.split("http://")
                .nth(1)?
                .split('/')
                .next()?
                .parse()
                .ok()
        };
        if line.trim_start().starts_with("webhook") {
            public = address(&line);
        } else if line.trim_start().starts_with("admin") {
            return public.zip(address(&line));
        }
    }
    None
}

/// One `hapax serve`. Killed when dropped.
pub(crate) struct Node {
    child: Child,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: PathBuf,
    clock: Clock,
    /// Kept open, so that the process never writes into a closed pipe.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Node {
    pub(crate) fn webhook(&self) -> String {
        format!("http://{}/webhook", self.public)
    }

    pub(crate) fn pid(&self) -> Pid {
        let id = self.child.id().expect("the process runs");
        Pid::from_raw(i32::try_from(id).expect("a pid")).expect("a pid")
    }

    /// The most memory that it has ever held, in bytes.
    pub(crate) fn high_water(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes = kilobytes.and_then(|number| number.trim().parse::<u64>().ok());
        kilobytes.expect("a size") * 1024
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the signal is sent");
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("it is killed");
    }

    /// SIGTERM; answers the exit status after the drain.
    pub(crate) async fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until the process ends by itself.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        let ended = self.clock.timeout(LIMIT, self.child.wait()).await;
        ended
            .expect("it ends in time")
            .expect("its status is known")
    }

    pub(crate) async fn figures(&self) -> Figures {
        Figures::of(self.admin).await
    }

    /// Every log line so far, as JSON.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = self.log_text();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Waits until so many log lines satisfy `wanted`.
    pub(crate) async fn logged_times(&self, wanted: impl Fn(&Value) -> bool, times: usize) {
        let found = async {
            while self.log().iter().filter(|line| wanted(line)).count() < times {
                self.clock.sleep(Duration::from_millis(20)).await;
            }
        };
        if self.clock.timeout(LIMIT, found).await.is_err() {
            panic!(
                "not logged {times} times; the last lines:\n{}",
                self.log_tail()
            );
        }
    }

    /// Waits until a log line satisfies `wanted`.
    pub(crate) async fn logged(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                if let Some(line) = self.log().into_iter().find(|line| wanted(line)) {
                    return line;
                }
                self.clock.sleep(Duration::from_millis(20)).await;
            }
        };
        match self.clock.timeout(LIMIT, found).await {
            Ok(line) => line,
            Err(_) => panic!("never logged; the last lines:\n{}", self.log_tail()),
        }
    }
}

impl Drop for Node {
    #[expect(clippy::print_stderr, reason = "shown with the failure of the test")]
    fn drop(&mut self) {
        // Gone before its ledger is: what it would still write would be in the way of that.
        if let Some(id) = self.child.id() {
            let id = i32::try_from(id).ok().and_then(Pid::from_raw);
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            // Both fail only when it has ended.
            let _ = self.child.start_kill();
            let _ = waitid(WaitId::Pid(id.expect("a pid")), options);
        }
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.log_tail());
        } else {
            assert!(
                !self.log_text().contains("panicked at"),
                "{}",
                self.log_tail()
            );
        }
    }
}

/// What `/metrics` said at one moment.
pub(crate) struct Figures(pub(crate) String);

impl Figures {
    /// What is said at the admin side now.
    pub(crate) async fn of(admin: SocketAddr) -> Self {
        let url = format!("http://{admin}/metrics");
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let answer = client.get(url).send().await;
        let answer = answer.expect("the admin side answers");
        Self(answer.text().await.expect("text"))
    }

    /// The sum of all samples of `name` whose labels contain `label` (`key="value"`).
    pub(crate) fn sum(&self, name: &str, label: &str) -> u64 {
        let samples = self.0.lines().filter(|line| !line.starts_with('#'));
        let value = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with([' ', '{']) && rest.contains(label))
                .then(|| line.rsplit(' ').next()?.parse().ok())?
        };
        samples.filter_map(value).sum::<f64>() as u64
    }

    /// Nothing waits, and nothing is under way.
    pub(crate) fn is_settled(&self) -> bool {
        let is_known = self.sum("hapax_store_up", "") == 1;
        let waits = ["hapax_messages_pending", "hapax_outgoing_open"];
        is_known && waits.iter().all(|name| self.sum(name, "") == 0)
    }

    pub(crate) fn duplicates(&self) -> u64 {
        self.sum("hapax_events_total", "verdict=\"duplicate\"")
    }

    pub(crate) fn dead_letters(&self) -> u64 {
        self.sum("hapax_dead_letters_open", "")
    }
}
