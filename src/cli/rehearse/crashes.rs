//! A crash at every named point of the first node, in a small run each: before and after each
//! commit, before and after each call.

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::stage::{Setup, play};
use crate::crash_point::{Point, VARIABLE};
use crate::simulator::checker::Report;
use crate::simulator::faults::{Breakage, Fault, FaultPlan};
use crate::simulator::manners::Manners;
use crate::simulator::seed::Draw;

/// Past so many passings the crash comes, unless the point is passed less often.
const LATER_MAX: u64 = 6;

/// What became of a crash at one point.
pub(super) struct Crash {
    point: Point,
    reached: bool,
    report: Report,
    logs: Option<String>,
    command: String,
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
        .filter(|point| point.as_str().contains(only))
        .collect();
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
    let has_wire = setup.ground.far_end().await.is_some();
    let plan = plan(seed, setup.nodes, has_wire);
    let mut draw = Draw::new(seed).fork(name);
    let mut result = None;
    for later in [draw.below(LATER_MAX), 0] {
        let fuse = format!("{name}={later}*off->1*return");
        let fuse = (VARIABLE.to_owned(), fuse);
        let played = play(&plan, Some(fuse), setup, &mut |_| ()).await?;
        let crash = Crash {
            point,
            reached: played.blown,
            logs: played.logs.as_ref().map(|path| path.display().to_string()),
            report: played.report,
            command: format!("hapax rehearse --crash-points {name} --seed {seed}"),
        };
        let is_over = crash.reached || !crash.report.is_clean();
        result = Some(crash);
        if is_over {
            break;
        }
    }
    result.ok_or_else(|| "no run".to_owned())
}

/// A small run in which every step of the protocol happens at the first node.
fn plan(seed: u64, nodes: usize, has_wire: bool) -> FaultPlan {
    let fault = |after, what, node: usize, for_ms| Fault {
        after,
        what,
        node: node.min(nodes - 1),
        for_ms,
    };
    let mut faults = vec![
        fault(5, Breakage::Kill, 1, 500),
        fault(20, Breakage::CutGraph, 0, 30),
        fault(30, Breakage::CutBot, 0, 30),
        fault(40, Breakage::Restart, 0, 20),
    ];
    if has_wire {
        faults.push(fault(12, Breakage::CutStore, 0, 20));
    }
    FaultPlan {
        seed,
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
    /// Whether a promise was broken.
    pub(super) fn is_broken(&self) -> bool {
        !self.report.is_clean()
    }

    /// A line of the table, and more where a promise was broken.
    pub(super) fn line(&self) -> String {
        let name = self.point.as_str();
        if self.is_broken() {
            let logs = self.logs.as_deref().unwrap_or_default();
            let (report, command) = (&self.report, &self.command);
            return format!("  {name:<30}BROKEN: {report}\n    logs: {logs}\n    again: {command}");
        }
        match self.reached {
            true => format!("  {name:<30}kept"),
            false => format!("  {name:<30}not passed in this run"),
        }
    }

    /// The same, for scripts.
    pub(super) fn json(&self) -> Value {
        json!({
            "point": self.point.as_str(), "reached": self.reached, "kept": !self.is_broken(),
            "verdict": self.report.to_string(), "repeat": self.command,
        })
    }
}
