//! The nodes of a run: real processes, each behind wires of its own, that are killed, paused and
//! started again as they are told, and started again when they end by themselves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::simulator::{Breach, Port, Report, Wire};

/// How long a start may take, a database that is away included.
const START_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);
/// Before a node that has ended by itself is started again.
const AGAIN: Duration = Duration::from_millis(50);
/// What a node gets to do between two blows.
const BREATH: Duration = Duration::from_millis(300);
/// Settings were wrong, or the database is away.
const EXIT_SETTINGS: i32 = 2;
/// How long an orderly end may take; a little over the drain time-out.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The addresses of a node, and the wires between it and the others.
pub(super) struct Doors {
    pub(super) public: Port,
    pub(super) admin: Port,
    /// Where a bot that sends by itself finds the Graph API.
    pub(super) bot_side: Port,
    /// From Meta to the node.
    pub(super) meta: Wire,
    pub(super) bot: Wire,
    pub(super) graph: Wire,
    /// None where the ledger is a file.
    pub(super) store: Option<Wire>,
}

/// Where the wires lead.
#[derive(Clone, Copy)]
pub(super) struct FarEnds {
    pub(super) bot: SocketAddr,
    pub(super) graph: SocketAddr,
    pub(super) store: Option<SocketAddr>,
}

impl Doors {
    pub(super) async fn open(far: FarEnds, clock: &Clock) -> std::io::Result<Self> {
        let public = Port::reserve()?;
        let wire = |to| Wire::start(to, clock.clone());
        Ok(Self {
            meta: wire(public.addr()).await?,
            public,
            admin: Port::reserve()?,
            bot_side: Port::reserve()?,
            bot: wire(far.bot).await?,
            graph: wire(far.graph).await?,
            store: match far.store {
                Some(store) => Some(wire(store).await?),
                None => None,
            },
        })
    }
}

/// What is done to a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Blow {
    /// `SIGKILL`, and started again after so long.
    Kill(Duration),
    /// `SIGSTOP` for so long.
    Pause(Duration),
    /// `SIGTERM`, and started again after so long.
    Restart(Duration),
}

/// How a node is started.
#[derive(Clone)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) settings: Vec<(String, String)>,
    /// Only for the first start: what makes the process end itself, and that this is meant.
    pub(super) fuse: Option<(String, String)>,
    pub(super) log: PathBuf,
    pub(super) readyz: String,
}

/// What has happened to a node that nobody did to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Fortune {
    /// It ended by itself though it had no fuse: how.
    pub(super) crashes: Vec<String>,
    /// Its fuse has blown.
    pub(super) blown: bool,
    /// How often it was started.
    pub(super) starts: u32,
    /// Its process, while it runs.
    pub(super) pid: Option<u32>,
}

type Order = (Option<Blow>, oneshot::Sender<()>);

/// All nodes. Dropped, they are killed.
pub(super) struct Fleet {
    orders: Vec<mpsc::Sender<Order>>,
    fortunes: Vec<Arc<Mutex<Fortune>>>,
    keepers: JoinSet<Result<(), String>>,
}

impl Fleet {
    /// Starts them, and returns when all of them take deliveries.
    pub(super) async fn start(launches: Vec<Launch>, clock: &Clock) -> Result<Self, String> {
        let mut fleet = Self {
            orders: Vec::new(),
            fortunes: Vec::new(),
            keepers: JoinSet::new(),
        };
        let http = reqwest::Client::builder().no_proxy().build();
        let http = http.map_err(|error| format!("no HTTP client: {error}"))?;
        let mut ready = Vec::new();
        for launch in launches {
            let (orders, taken) = mpsc::channel(1024);
            let (up, is_up) = oneshot::channel();
            let fortune = Arc::new(Mutex::new(Fortune::default()));
            let keeper = Keeper {
                launch,
                http: http.clone(),
                clock: clock.clone(),
                fortune: Arc::clone(&fortune),
            };
            fleet.keepers.spawn(keeper.keep(taken, up));
            fleet.orders.push(orders);
            fleet.fortunes.push(fortune);
            ready.push(is_up);
        }
        for is_up in ready {
            if is_up.await.is_err() {
                return Err(fleet.fault().await);
            }
        }
        Ok(fleet)
    }

    /// What strikes the nodes, while the fleet is watched.
    pub(super) fn striker(&self) -> Striker {
        Striker(self.orders.clone())
    }

    /// Tells the process of a node, while the fleet is watched.
    pub(super) fn pids(&self) -> impl Fn(usize) -> Option<u32> + use<> {
        let fortunes = self.fortunes.clone();
        move |node| {
            let fortune = fortunes[node].lock();
            fortune.unwrap_or_else(PoisonError::into_inner).pid
        }
    }

    /// Returns, with the reason, when a node can't be kept running.
    pub(super) async fn fault(&mut self) -> String {
        loop {
            match self.keepers.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(reason))) => return reason,
                Some(Err(error)) => return format!("a node's keeper ended: {error}"),
                None => return "the nodes have ended".to_owned(),
            }
        }
    }

    /// Kills what still runs, and returns when it does no more.
    pub(super) async fn kill(mut self) {
        self.keepers.shutdown().await;
    }

    /// Ends all of them in order; answers what has happened to each by itself. Who crashed is in
    /// the report.
    pub(super) async fn stop(mut self, report: &mut Report) -> Result<Vec<Fortune>, String> {
        let mut ends = Vec::new();
        for orders in &self.orders {
            let (done, is_done) = oneshot::channel();
            // An error: the keeper has ended already, and says why below.
            let _ = orders.send((None, done)).await;
            ends.push(is_done);
        }
        for end in ends {
            let _ = end.await;
        }
        self.orders.clear();
        while let Some(ended) = self.keepers.join_next().await {
            ended.map_err(|error| format!("a node's keeper ended: {error}"))??;
        }
        let fortune = |fortune: &Arc<Mutex<Fortune>>| {
            let fortune = fortune.lock().unwrap_or_else(PoisonError::into_inner);
            fortune.clone()
        };
        let fortunes: Vec<Fortune> = self.fortunes.iter().map(fortune).collect();
        for (node, fortune) in fortunes.iter().enumerate() {
            for crash in &fortune.crashes {
                report.add(Breach::Crashed, format!("node {node}: {crash}"));
            }
        }
        Ok(fortunes)
    }
}

/// Strikes nodes.
pub(super) struct Striker(Vec<mpsc::Sender<Order>>);

impl Striker {
    /// Does something to a node, after whatever was ordered before; returns when it is done and
    /// the node is up again.
    pub(super) async fn strike(&self, node: usize, blow: Blow) {
        let (done, is_done) = oneshot::channel();
        if self.0[node].send((Some(blow), done)).await.is_ok() {
            // An error: the keeper has failed, which ends the run.
            let _ = is_done.await;
        }
    }
}

/// Keeps one process running.
struct Keeper {
    launch: Launch,
    http: reqwest::Client,
    clock: Clock,
    fortune: Arc<Mutex<Fortune>>,
}

impl Keeper {
    async fn keep(
        self,
        mut orders: mpsc::Receiver<Order>,
        up: oneshot::Sender<()>,
    ) -> Result<(), String> {
        let mut child = self.run().await?;
        // The fleet may be gone already.
        let _ = up.send(());
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((blow, done)) = order else { return Ok(()) };
                    match blow {
                        Some(blow) => child = self.strike(child, blow).await?,
                        None => {
                            self.end(&mut child).await?;
                            let _ = done.send(());
                            return Ok(());
                        }
                    }
                    let _ = done.send(());
                }
                ended = child.wait() => {
                    self.has_ended(ended)?;
                    self.clock.sleep(AGAIN).await;
                    child = self.run().await?;
                }
            }
        }
    }

    async fn strike(&self, mut child: Child, blow: Blow) -> Result<Child, String> {
        let failed = |error: std::io::Error| format!("a node can't be struck: {error}");
        match blow {
            Blow::Kill(down) => {
                if let Some(status) = child.try_wait().map_err(failed)? {
                    // It was quicker.
                    self.has_ended(Ok(status))?;
                }
                child.kill().await.map_err(failed)?;
                self.clock.sleep(down).await;
                self.run().await
            }
            Blow::Restart(down) => {
                self.end(&mut child).await?;
                self.clock.sleep(down).await;
                self.run().await
            }
            Blow::Pause(lasts) => {
                // One that has ended by itself meanwhile is found by the keeper.
                signal(&child, Signal::STOP);
                self.clock.sleep(lasts).await;
                signal(&child, Signal::CONT);
                // Two pauses in a row are not one that is twice as long.
                self.clock.sleep(BREATH).await;
                Ok(child)
            }
        }
    }

    /// Starts it until it serves: a database that is away ends a start, and so may its fuse.
    async fn run(&self) -> Result<Child, String> {
        let run = async {
            loop {
                let mut child = self.spawn()?;
                tokio::select! {
                    () = self.is_ready() => return Ok(child),
                    ended = child.wait() => {
                        let ended = ended.map_err(|error| error.to_string())?;
                        if ended.code() != Some(EXIT_SETTINGS) {
                            self.has_ended(Ok(ended))?;
                        }
                        self.clock.sleep(AGAIN).await;
                    }
                }
            }
        };
        let started = self.clock.timeout(START_MAX, run).await;
        started.map_err(|_| {
            let log = std::fs::read_to_string(&self.launch.log).unwrap_or_default();
            format!(
                "a node does not start: {}",
                log.lines().last().unwrap_or_default()
            )
        })?
    }

    fn spawn(&self) -> Result<Child, String> {
        let failed = |error: std::io::Error| format!("a node can't be started: {error}");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.launch.log)
            .map_err(failed)?;
        let mut fortune = self.fortune.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = Command::new(&self.launch.program);
        command
            .arg("serve")
            .env_clear()
            .envs(self.launch.settings.iter().cloned())
            .current_dir(self.launch.log.parent().unwrap_or(Path::new("/")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for who watches them.
            .process_group(0)
            .kill_on_drop(true);
        if let (Some((name, value)), false) = (&self.launch.fuse, fortune.blown) {
            command.env(name, value);
        }
        fortune.starts += 1;
        let child = command.spawn().map_err(failed)?;
        fortune.pid = child.id();
        Ok(child)
    }

    async fn is_ready(&self) {
        loop {
            let asked = self.http.get(&self.launch.readyz).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            self.clock.sleep(LOOK).await;
        }
    }

    async fn end(&self, child: &mut Child) -> Result<(), String> {
        signal(child, Signal::TERM);
        let ended = self.clock.timeout(STOP_MAX, child.wait()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(ended) => self.has_ended(ended),
            Err(_) => {
                self.crashed("did not end when it was told to".to_owned());
                child.kill().await.map_err(|error| error.to_string())
            }
        }
    }

    /// It has ended by itself: by its fuse, or it crashed.
    fn has_ended(&self, ended: std::io::Result<ExitStatus>) -> Result<(), String> {
        let status = ended.map_err(|error| format!("a node can't be waited for: {error}"))?;
        let mut fortune = self.fortune.lock().unwrap_or_else(PoisonError::into_inner);
        if self.launch.fuse.is_some() && !fortune.blown && is_killed(status) {
            fortune.blown = true;
            return Ok(());
        }
        drop(fortune);
        self.crashed(status.to_string());
        Ok(())
    }

    fn crashed(&self, how: String) {
        let mut fortune = self.fortune.lock().unwrap_or_else(PoisonError::into_inner);
        fortune.crashes.push(how);
    }
}

fn is_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(Signal::KILL.as_raw())
}

fn signal(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = id.and_then(Pid::from_raw) {
        // Fails only when it has ended, which is seen where it is waited for.
        let _ = kill_process(pid, signal);
    }
}
