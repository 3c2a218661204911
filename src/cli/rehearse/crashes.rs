//! A crash at every named point of the first node, in a small run each: before and after each
//! commit, before and after each call.

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::stage::{Setup, play};
use crate::crash_point::{Method, Point, VARIABLE};
use crate::simulator::checker::Report;
use crate::simulator::faults::{Breakage, Fault, FaultPlan, Handler};
use crate::simulator::manners::Manners;
use crate::simulator::seed::Draw;

/// Past so many passings the crash comes, unless the point is passed less often.
const LATER_MAX: u64 = 6;

/// What became of a crash at one point.
pub(super) struct Crash {
    point: Point,
    seed: u64,
    reached: bool,
    report: Report,
    logs: Option<String>,
}

/// Crashes at all points whose name contains `only`, or at all.
pub(super) async fn matrix(
    setup: &Setup,
    seed: u64,
    only: &str,
    bar: &ProgressBar,
    tell: &mut dyn FnMut(&Crash),
) -> Result<Vec<Crash>, String> {
    let points: Vec<Point> = Point::ALL
        .into_iter()
        .filter(|point| point.as_str().contains(only) && !is_elsewhere(*point))
        .collect();
    if points.is_empty() {
        return Err(format!("--crash-points: no point has {only} in its name"));
    }
    bar.set_length(points.len() as u64);
    let mut crashes = Vec::new();
    for point in points {
        bar.set_message(point.as_str());
        let crash = crash(point, setup, seed).await?;
        tell(&crash);
        crashes.push(crash);
        bar.inc(1);
    }
    Ok(crashes)
}

async fn crash(point: Point, setup: &Setup, seed: u64) -> Result<Crash, String> {
    let name = point.as_str();
    let mut draw = Draw::new(seed).fork(name);
    let mut crash = None;
    for (seed, later) in [
        (seed, draw.below(LATER_MAX)),
        (seed, 0),
        (seed + 1, 0),
        (seed + 2, 0),
    ] {
        let handler = handler(point);
        let plan = plan(seed, handler, setup.nodes, setup.store_end.is_some());
        let fuse = format!("{name}={later}*off->1*return");
        let fuse = (VARIABLE.to_owned(), fuse);
        let played = play(&plan, Some(fuse), setup, &mut |_| ()).await?;
        let is_over = played.blown || !played.report.is_clean();
        crash = Some(Crash {
            point,
            seed,
            reached: played.blown,
            logs: played.logs.as_ref().map(|path| path.display().to_string()),
            report: played.report,
        });
        if is_over {
            break;
        }
    }
    crash.ok_or_else(|| "no run".to_owned())
}

/// Whether a point is passed only where a bot asks for AI threads, or dials a number that Meta
/// takes for another one, which none does in a rehearsal.
const fn is_elsewhere(point: Point) -> bool {
    use Method::{ClaimThread, CompleteThread, ForgetThread, LinkDialled};
    let (Point::BeforeCommit(method) | Point::AfterCommit(method)) = point else {
        return false;
    };
    matches!(
        method,
        ClaimThread | CompleteThread | ForgetThread | LinkDialled
    )
}

/// The bot in whose run a point is passed.
const fn handler(point: Point) -> Handler {
    use Method::{Relay, Relayed, Stage, Told};
    match point {
        Point::BeforeCommit(method) | Point::AfterCommit(method)
            if matches!(method, Stage | Told | Relay | Relayed) =>
        {
            Handler::Forward
        }
        _ => Handler::Ask,
    }
}

/// Whether a point is passed only where an answer is lost inside the process, or at the wire to
/// the database: a run that does not pass it shows nothing, and breaks nothing.
const fn is_rare(point: Point) -> bool {
    matches!(
        point,
        Point::BeforeCommit(Method::FreeUnknown | Method::DoubtUnknown)
            | Point::AfterCommit(Method::FreeUnknown | Method::DoubtUnknown)
    )
}

/// A small run in which every step of the protocol happens at the first node.
fn plan(seed: u64, handler: Handler, nodes: usize, has_wire: bool) -> FaultPlan {
    let fault = |after, what, node, for_ms| Fault {
        after,
        what,
        node,
        for_ms,
    };
    // Every other node is away, with a bot that is asked for longer than a lease: what one node
    // does for all, such as to forget what is old, comes to the first, whoever did it before.
    let mut faults: Vec<Fault> = (1..nodes)
        .map(|node| fault(5, Breakage::Kill, node, 1000))
        .collect();
    faults.extend([
        fault(20, Breakage::CutGraph, 0, 30),
        fault(30, Breakage::CutBot, 0, 30),
        fault(40, Breakage::Restart, 0, 20),
    ]);
    if has_wire && handler.bears(Breakage::CutStore) {
        faults.push(fault(12, Breakage::CutStore, 0, 20));
    }
    FaultPlan {
        seed,
        handler,
        messages: 60,
        people: 12,
        rate: 120.0,
        manners: Manners {
            bot_fails: 0.15,
            meta_mute: 0.05,
            meta_resets: 0.2,
            ..Manners::default()
        },
        faults,
    }
}

impl Crash {
    /// Whether a promise was broken, or a crash that was to happen did not.
    pub(super) fn has_failed(&self) -> bool {
        !self.report.is_clean() || !self.reached && !is_rare(self.point)
    }

    fn command(&self, rest: &str) -> String {
        let (point, seed) = (self.point.as_str(), self.seed);
        format!("hapax rehearse --crash-points {point} --seed {seed}{rest}")
    }

    /// A line of the table, and more where a promise was broken; `rest` ends the command that
    /// repeats it.
    pub(super) fn line(&self, rest: &str) -> String {
        let name = self.point.as_str();
        if !self.report.is_clean() {
            let logs = self.logs.as_deref().unwrap_or_default();
            let (report, command) = (&self.report, self.command(rest));
            return format!("  {name:<30}BROKEN: {report}\n    logs: {logs}\n    again: {command}");
        }
        match (self.reached, is_rare(self.point)) {
            (true, _) => format!("  {name:<30}kept"),
            (false, true) => format!("  {name:<30}not passed in this run"),
            (false, false) => format!("  {name:<30}NOT PASSED"),
        }
    }

    /// The same, for scripts.
    pub(super) fn json(&self, rest: &str) -> Value {
        json!({
            "point": self.point.as_str(), "reached": self.reached,
            "kept": self.report.is_clean(), "verdict": self.report.to_string(),
            "repeat": self.command(rest),
        })
    }
}
