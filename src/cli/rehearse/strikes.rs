//! Carries out a plan: each fault when so many messages have been written, whatever else is
//! broken at that moment.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::fleet::{Blow, Doors, Striker};
use crate::clock::Clock;
use crate::simulator::faults::{Breakage, Fault, FaultPlan};
use crate::simulator::history::History;
use crate::simulator::{Bot, Wire};

/// How slow a slow wire is.
const SLOW: Duration = Duration::from_millis(5);

/// A fault that was carried out; times since boot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Struck {
    pub(super) fault: Fault,
    pub(super) began: Duration,
    pub(super) ended: Duration,
}

/// Everything that can break.
pub(super) struct Around<'a> {
    pub(super) fleet: Striker,
    pub(super) doors: &'a [Doors],
    pub(super) bot: &'a Bot,
    pub(super) history: &'a Arc<History>,
    pub(super) clock: &'a Clock,
}

impl Around<'_> {
    /// Returns when all faults are over and every node is up.
    pub(super) async fn carry_out(&self, plan: &FaultPlan) -> Vec<Struck> {
        let strike = async |fault: Fault| {
            let mut progress = self.history.watch();
            let written = progress.wait_for(|progress| progress.messages >= fault.after);
            // The history outlives this, so the wait does not fail.
            let _ = written.await;
            let began = self.clock.boottime();
            self.apply(&fault).await;
            Struck {
                fault,
                began,
                ended: self.clock.boottime(),
            }
        };
        join_all(plan.faults.iter().copied().map(strike)).await
    }

    async fn apply(&self, fault: &Fault) {
        let (node, lasts) = (fault.node, fault.lasts());
        let doors = &self.doors[node];
        match (fault.what, &doors.store) {
            (Breakage::Kill, _) => self.fleet.strike(node, Blow::Kill(lasts)).await,
            (Breakage::Pause, _) => self.fleet.strike(node, Blow::Pause(lasts)).await,
            (Breakage::Restart, _) => self.fleet.strike(node, Blow::Restart(lasts)).await,
            (Breakage::CutMeta, _) => self.cut(&doors.meta, lasts).await,
            (Breakage::HoldMeta, _) => self.hold(&doors.meta, lasts).await,
            (Breakage::CutBot, _) => self.cut(&doors.bot, lasts).await,
            (Breakage::HoldBot, _) => self.hold(&doors.bot, lasts).await,
            (Breakage::CutGraph, _) => self.cut(&doors.graph, lasts).await,
            (Breakage::HoldGraph, _) => self.hold(&doors.graph, lasts).await,
            (Breakage::CutStore, Some(wire)) => self.cut(wire, lasts).await,
            (Breakage::HoldStore, Some(wire)) => self.hold(wire, lasts).await,
            (Breakage::SlowStore, Some(wire)) => {
                wire.delay(SLOW);
                self.clock.sleep(lasts).await;
                wire.pass();
            }
            (Breakage::CutStore | Breakage::HoldStore | Breakage::SlowStore, None) => {}
            (Breakage::BotDown, _) => {
                self.bot.stop().await;
                self.clock.sleep(lasts).await;
                // Its port is still its own.
                let _ = self.bot.restart().await;
            }
        }
    }

    async fn cut(&self, wire: &Wire, lasts: Duration) {
        wire.cut();
        self.clock.sleep(lasts).await;
        wire.pass();
    }

    async fn hold(&self, wire: &Wire, lasts: Duration) {
        wire.hold();
        self.clock.sleep(lasts).await;
        wire.pass();
    }
}
