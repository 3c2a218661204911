//! Carries out a plan: each fault when so many messages have been written, whatever else is
//! broken at that moment.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

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
    /// Nobody writes any more: what was to break later breaks now.
    pub(super) over: &'a CancellationToken,
    /// Whoever breaks the bot.
    pub(super) bot_turn: Mutex<()>,
}

impl Around<'_> {
    /// Returns when all faults are over and every node is up.
    pub(super) async fn carry_out(&self, plan: &FaultPlan) -> Vec<Struck> {
        let strike = async |fault: Fault| {
            let mut progress = self.history.watch();
            let written = progress.wait_for(|progress| progress.messages >= fault.after);
            // The history outlives this, so the wait does not fail.
            let _ = self.over.run_until_cancelled(written).await;
            let began = self.apply(&fault).await;
            Struck {
                fault,
                began,
                ended: self.clock.boottime(),
            }
        };
        join_all(plan.faults.iter().copied().map(strike)).await
    }

    /// Answers when it began: of several faults at one wire each waits for the one before.
    async fn apply(&self, fault: &Fault) -> Duration {
        let (node, lasts) = (fault.node, fault.lasts());
        let doors = &self.doors[node];
        match (fault.what, &doors.store) {
            (Breakage::Kill, _) => self.strike(node, Blow::Kill(lasts)).await,
            (Breakage::Pause, _) => self.strike(node, Blow::Pause(lasts)).await,
            (Breakage::Restart, _) => self.strike(node, Blow::Restart(lasts)).await,
            (Breakage::CutMeta, _) => self.at(&doors.meta, Wire::cut, lasts).await,
            (Breakage::HoldMeta, _) => self.at(&doors.meta, Wire::hold, lasts).await,
            (Breakage::CutBot, _) => self.at(&doors.bot, Wire::cut, lasts).await,
            (Breakage::HoldBot, _) => self.at(&doors.bot, Wire::hold, lasts).await,
            (Breakage::CutGraph, _) => self.at(&doors.graph, Wire::cut, lasts).await,
            (Breakage::HoldGraph, _) => self.at(&doors.graph, Wire::hold, lasts).await,
            (Breakage::CutStore, Some(wire)) => self.at(wire, Wire::cut, lasts).await,
            (Breakage::HoldStore, Some(wire)) => self.at(wire, Wire::hold, lasts).await,
            (Breakage::SlowStore, Some(wire)) => self.at(wire, |w| w.delay(SLOW), lasts).await,
            (Breakage::CutStore | Breakage::HoldStore | Breakage::SlowStore, None) => {
                self.clock.boottime()
            }
            (Breakage::BotDown, _) => self.bot_down(lasts).await,
        }
    }

    async fn strike(&self, node: usize, blow: Blow) -> Duration {
        let began = self.clock.boottime();
        self.fleet.strike(node, blow).await;
        began
    }

    async fn at(&self, wire: &Wire, breaks: impl Fn(&Wire), lasts: Duration) -> Duration {
        let _turn = wire.turn().await;
        let began = self.clock.boottime();
        breaks(wire);
        self.clock.sleep(lasts).await;
        wire.pass();
        began
    }

    async fn bot_down(&self, lasts: Duration) -> Duration {
        let _turn = self.bot_turn.lock().await;
        let began = self.clock.boottime();
        self.bot.stop().await;
        self.clock.sleep(lasts).await;
        // Its port is still its own.
        let _ = self.bot.restart().await;
        began
    }
}
