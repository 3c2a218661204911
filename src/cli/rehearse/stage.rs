//! One run: a pretend WhatsApp, real nodes on one ledger, a plan of misfortunes, and the verdict.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::accounts::Admin;
use super::fleet::{Doors, FarEnds, Fleet, Launch};
use super::ground::{Ground, Place};
use super::settings::{APP_SECRET, Answers, TOKEN, VERIFY_TOKEN, of_node};
use super::strikes::{Around, Struck};
use super::timeline::Timeline;
use crate::clock::Clock;
use crate::model::Secret;
use crate::simulator::accounts::Accounts;
use crate::simulator::acts::Variety;
use crate::simulator::checker::{Breach, Report, Terms, check};
use crate::simulator::faults::{Breakage, FaultPlan, Handler};
use crate::simulator::graph::{Graph, GraphSettings};
use crate::simulator::history::{History, Progress};
use crate::simulator::record::Record;
use crate::simulator::rehearsal::{Rehearsal, Settings};
use crate::simulator::sending::Sending;
use crate::simulator::{Bot, Odds};

/// How long everything may take to come to its end after the last fault.
const SETTLE_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(40);
/// Meta's seven days.
const REDELIVERY: Duration = Duration::from_secs(15);
/// What a copy of a delivery, or a receipt, may be late by.
const LATE: Duration = Duration::from_millis(120);
/// How long somebody waits for a reply before they write on.
const PATIENCE: Duration = Duration::from_millis(400);

/// What is the same for all runs.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) ground: Ground,
    /// The database, where a wire can be put before it.
    pub(super) store_end: Option<SocketAddr>,
    pub(super) nodes: usize,
    /// Of the nodes' own binary.
    pub(super) program: PathBuf,
    /// Settings of the nodes beside the usual ones.
    pub(super) more: Vec<(String, String)>,
    pub(super) clock: Clock,
    /// Ends a run where it stands; what it made is taken away all the same.
    pub(super) stop: CancellationToken,
}

/// A run that has been judged.
pub(super) struct Played {
    pub(super) plan: FaultPlan,
    pub(super) report: Report,
    pub(super) took: Duration,
    pub(super) struck: Vec<Struck>,
    pub(super) timeline: Timeline,
    /// How often nodes were started.
    pub(super) starts: u32,
    /// Whether a fuse has blown.
    #[cfg_attr(
        not(feature = "failpoints"),
        expect(dead_code, reason = "only then there is one")
    )]
    pub(super) blown: bool,
    /// What of the ledger could not be taken away, in words.
    pub(super) left: Option<String>,
    /// Where the nodes' logs were left, if something was wrong.
    pub(super) logs: Option<PathBuf>,
}

#[cfg(feature = "sabotage")]
impl Played {
    /// Takes away the logs of a run that was to go wrong.
    pub(super) fn forget_logs(&self) {
        if let Some(logs) = &self.logs {
            // A folder that stays is no more than that.
            let _ = std::fs::remove_dir_all(logs);
        }
    }
}

/// Plays one plan. `fuse` is what makes the first node end itself; `watch` hears of progress.
///
/// # Errors
/// Something that has nothing to do with the promises: no port, no database, no process.
pub(super) async fn play(
    plan: &FaultPlan,
    fuse: Option<(String, String)>,
    setup: &Setup,
    watch: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Played, String> {
    let place = Place::make(&setup.ground)?;
    let mut fleet = None;
    let played = tokio::select! {
        played = play_at(&place, &mut fleet, plan, fuse, setup, watch) => played,
        () = setup.stop.cancelled() => Err("interrupted".to_owned()),
    };
    if let Some(fleet) = fleet {
        fleet.kill().await;
    }
    // Whatever came of it, nothing stays behind.
    let destroyed = place.destroy(&setup.clock).await;
    let mut played = match (played, destroyed) {
        (Ok(played), Ok(())) => played,
        (Ok(mut played), Err(left)) => {
            played.left = Some(left);
            played
        }
        (Err(fault), Ok(())) => return Err(fault),
        (Err(fault), Err(left)) => return Err(format!("{fault}\n{left}")),
    };
    if !played.report.is_clean() {
        played.logs = Some(place.folder.keep());
    }
    Ok(played)
}

async fn play_at(
    place: &Place,
    fleet: &mut Option<Fleet>,
    plan: &FaultPlan,
    fuse: Option<(String, String)>,
    setup: &Setup,
    watch: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Played, String> {
    let began = setup.clock.boottime();
    let scene = Scene::set(plan, setup).await?;
    let fuse_is_set = fuse.is_some();
    let launches = scene.launches(plan.handler, fuse, setup, place);
    let nodes = fleet.insert(Fleet::start(launches, &setup.clock).await?);
    let struck = scene.act(plan, nodes, setup, watch).await;
    let struck = struck.map_err(|fault| with_log(fault, place))?;
    let mut accounts = scene.settle(&setup.clock).await?;
    accounts.disturbed = disturbances(&struck);
    if fuse_is_set {
        // When it blows is not known; around that moment anything may be in doubt.
        accounts.disturbed.push((began, setup.clock.boottime()));
    }
    let mut report = scene
        .history
        .read(|record| check(record, &terms(plan.handler, accounts)));
    let timeline = scene.history.read(|record| Timeline::of(record, began));
    let fortunes = match fleet.take() {
        Some(fleet) => fleet.stop(&mut report).await?,
        None => Vec::new(),
    };
    scene.strike_set().await;
    read_logs(place, setup.nodes, &mut report);
    Ok(Played {
        plan: plan.clone(),
        took: setup.clock.boottime() - began,
        report,
        struck,
        timeline,
        starts: fortunes.iter().map(|fortune| fortune.starts).sum(),
        blown: fortunes.iter().any(|fortune| fortune.blown),
        left: None,
        logs: None,
    })
}

/// When a fault may have left a send without an answer.
fn disturbances(struck: &[Struck]) -> Vec<(Duration, Duration)> {
    let troubles = struck.iter().filter(|struck| match struck.fault.what {
        Breakage::Kill
        | Breakage::Pause
        | Breakage::Restart
        | Breakage::CutGraph
        | Breakage::HoldGraph
        | Breakage::CutStore
        | Breakage::HoldStore
        | Breakage::SlowStore => true,
        Breakage::CutMeta
        | Breakage::HoldMeta
        | Breakage::CutBot
        | Breakage::HoldBot
        | Breakage::BotDown => false,
    });
    troubles
        .map(|struck| (struck.began, struck.ended))
        .collect()
}

/// A fault with the last lines that the first node wrote.
fn with_log(fault: String, place: &Place) -> String {
    let log = std::fs::read_to_string(place.path().join(log_name(0))).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(5)..].join("\n");
    format!("{fault}\n{last}")
}

/// Everything around the nodes.
struct Scene {
    history: Arc<History>,
    graph: Graph,
    bot: Bot,
    doors: Vec<Doors>,
    rehearsal: Rehearsal,
}

impl Scene {
    async fn set(plan: &FaultPlan, setup: &Setup) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("no pretend WhatsApp: {error}");
        let clock = &setup.clock;
        let history = History::new();
        let settings = GraphSettings {
            token: Secret::new(TOKEN),
            seed: plan.seed,
        };
        let graph = Graph::start(settings, Arc::clone(&history), clock.clone()).map_err(failed)?;
        let secret = Secret::new(APP_SECRET);
        let bot = Bot::recording(secret, Arc::clone(&history), clock.clone()).map_err(failed)?;
        plan.manners.teach_graph(&graph, plan.seed);
        let far = FarEnds {
            bot: bot.addr(),
            graph: graph.addr(),
            store: setup.store_end,
        };
        let mut doors = Vec::new();
        for _ in 0..setup.nodes {
            doors.push(Doors::open(far, clock).await.map_err(failed)?);
        }
        let sending = match plan.handler {
            Handler::Ask => None,
            Handler::Forward => Some(sending(&doors)?),
        };
        plan.manners.teach_bot(&bot, plan.seed, sending);
        let rehearsal = Rehearsal::new(people(plan, &doors), &graph, clock.clone())
            .map_err(|error| error.to_string())?;
        Ok(Self {
            history,
            graph,
            bot,
            doors,
            rehearsal,
        })
    }

    fn launches(
        &self,
        handler: Handler,
        fuse: Option<(String, String)>,
        setup: &Setup,
        place: &Place,
    ) -> Vec<Launch> {
        let launch = |(node, doors): (usize, &Doors)| {
            let mut settings = of_node(node, doors, Answers::Bot(handler), true);
            settings.extend(place.settings(doors.store.as_ref().map(|wire| wire.address())));
            settings.extend(setup.more.iter().cloned());
            Launch {
                program: setup.program.clone(),
                settings,
                fuse: fuse.clone().filter(|_| node == 0),
                log: place.path().join(log_name(node)),
                readyz: format!("http://{}/readyz", doors.public.addr()),
            }
        };
        self.doors.iter().enumerate().map(launch).collect()
    }

    /// Everybody writes, and things break.
    async fn act(
        &self,
        plan: &FaultPlan,
        fleet: &mut Fleet,
        setup: &Setup,
        watch: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<Vec<Struck>, String> {
        let (never, over) = (CancellationToken::new(), CancellationToken::new());
        let writing = self.rehearsal.play(&never);
        let around = Around {
            fleet: fleet.striker(),
            doors: &self.doors,
            bot: &self.bot,
            history: &self.history,
            clock: &setup.clock,
            over: &over,
            bot_turn: tokio::sync::Mutex::default(),
        };
        let written = async {
            let written = writing.await.map_err(|error| error.to_string());
            over.cancel();
            written
        };
        let broken = async { Ok::<_, String>(around.carry_out(plan).await) };
        let both = async { tokio::try_join!(written, broken) };
        tokio::pin!(both);
        let mut progress = self.history.watch();
        loop {
            tokio::select! {
                ended = &mut both => return ended.map(|((), struck)| struck),
                fault = fleet.fault() => return Err(fault),
                () = setup.clock.sleep(LOOK) => watch(&progress.borrow_and_update()),
            }
        }
    }

    /// Waits until nothing is open and nothing is on its way; or for so long that what is still
    /// open then is a breach. What the gateway says is of the moment at which the record ends.
    async fn settle(&self, clock: &Clock) -> Result<Accounts, String> {
        let admin = Admin::at(self.doors[0].admin.addr(), clock)?;
        let began = clock.boottime();
        loop {
            let is_late = clock.boottime() - began > SETTLE_MAX;
            if is_late || admin.open().await.is_ok_and(|open| open == (0, 0)) {
                self.rehearsal.quiet().await;
                let mark = self.history.read(Record::mark);
                let fetched = admin.accounts().await;
                let stands_still = mark == self.history.read(Record::mark);
                match fetched {
                    Ok(accounts) if is_late || stands_still && accounts.is_settled() => {
                        return Ok(accounts);
                    }
                    Err(error) if is_late => return Err(error),
                    // A receipt may have opened something again, or the node may be starting.
                    Ok(_) | Err(_) => {}
                }
            }
            clock.sleep(LOOK).await;
        }
    }

    /// Ends what is around the nodes.
    async fn strike_set(self) {
        self.rehearsal.end().await;
        self.bot.stop().await;
        self.graph.stop().await;
    }
}

fn terms(handler: Handler, accounts: Accounts) -> Terms {
    match handler {
        Handler::Ask => Terms::Answers(accounts),
        Handler::Forward => Terms::Sends(accounts),
    }
}

fn sending(doors: &[Doors]) -> Result<Sending, String> {
    let url = |doors: &Doors| format!("http://{}", doors.bot_side.addr());
    let urls = doors.iter().map(url).collect();
    let sending = Sending::to(urls, Secret::new(TOKEN));
    sending.map_err(|error| format!("no HTTP client: {error}"))
}

fn people(plan: &FaultPlan, doors: &[Doors]) -> Settings {
    let secrets = (Secret::new(APP_SECRET), Secret::new(VERIFY_TOKEN));
    let mut settings = Settings::live("", secrets.0, secrets.1).counted(plan.messages);
    settings.webhook_urls = doors
        .iter()
        .map(|doors| format!("http://{}/webhook", doors.meta.address()))
        .collect();
    settings.seed = plan.seed;
    settings.people = plan.people;
    settings.rate = Some(plan.rate);
    settings.late = LATE;
    settings.variety = Variety::All;
    settings.receipts = Odds {
        step: LATE,
        never: 0.05,
        disorder: 0.3,
        failed: plan.manners.meta_fails_later,
        untagged: 0.25,
    };
    settings.redelivery = REDELIVERY;
    settings.answer_limit = Duration::from_secs(2);
    settings.patience = PATIENCE;
    settings
}

fn log_name(node: usize) -> String {
    format!("node-{node}.log")
}

/// What only the nodes' logs tell.
fn read_logs(place: &Place, nodes: usize, report: &mut Report) {
    for node in 0..nodes {
        let log = std::fs::read_to_string(place.path().join(log_name(node))).unwrap_or_default();
        let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        for _ in 0..lines("the server undid a transaction to end a deadlock") {
            report.add(Breach::Deadlock, format!("node {node}"));
        }
        for _ in 0..lines("panicked at") {
            report.add(Breach::Crashed, format!("node {node} panicked"));
        }
    }
}
