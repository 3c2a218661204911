//! Every guard switched off in turn: a rehearsal that does not find that is no proof of anything.

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::ground::Ground;
use super::stage::{Setup, play};
use crate::guard::{Engine, Guard, VARIABLE};
use crate::simulator::checker::{Breach, Report};
use crate::simulator::faults::{FaultPlan, Handler};

/// A guard may stay unfound for so many seeds.
const SEEDS_MAX: u64 = 20;

/// What became of one guard.
pub(super) struct Trial {
    guard: Guard,
    outcome: Outcome,
}

enum Outcome {
    /// The engine has no such guard.
    Idle,
    /// Found at this seed.
    Found(u64, Report),
    /// Not within [`SEEDS_MAX`] seeds.
    Unfound,
}

/// Tries all guards whose name contains `only`, from the seed `first` on.
pub(super) async fn trials(
    setup: &Setup,
    first: u64,
    only: &str,
    bar: &ProgressBar,
    tell: &mut dyn FnMut(&Trial),
) -> Result<Vec<Trial>, String> {
    let engine = match setup.ground {
        Ground::Sqlite => Engine::Sqlite,
        Ground::Postgres(_) => Engine::Postgres,
    };
    let mut trials = Vec::new();
    let guards = Guard::ALL.into_iter();
    let guards: Vec<Guard> = guards.filter(|g| g.as_str().contains(only)).collect();
    if guards.is_empty() {
        return Err(format!("--guards: no guard has {only} in its name"));
    }
    bar.set_length(guards.len() as u64);
    for guard in guards {
        bar.set_message(guard.as_str());
        let outcome = match guard.applies_to(engine) {
            true => trial(guard, setup, first).await?,
            false => Outcome::Idle,
        };
        let trial = Trial { guard, outcome };
        tell(&trial);
        trials.push(trial);
        bar.inc(1);
    }
    Ok(trials)
}

async fn trial(guard: Guard, setup: &Setup, first: u64) -> Result<Outcome, String> {
    let mut setup = setup.clone();
    let off = (VARIABLE.to_owned(), guard.as_str().to_owned());
    setup.more.push(off);
    let has_wire = setup.store_end.is_some();
    for seed in first..first + SEEDS_MAX {
        let plan = FaultPlan::draw(seed, handler(guard), setup.nodes, has_wire);
        let played = play(&plan, None, &setup, &mut |_| ()).await?;
        played.forget_logs();
        let shows = |breach: &Breach| played.report.count(*breach) > 0;
        if expected(guard).iter().any(shows) {
            return Ok(Outcome::Found(seed, played.report));
        }
    }
    Ok(Outcome::Unfound)
}

/// Of the bot with which a guard shows.
const fn handler(guard: Guard) -> Handler {
    match guard {
        Guard::UniqueKey
        | Guard::EpochCheck
        | Guard::OutboxMark
        | Guard::ReReady
        | Guard::CommitBeforeOk
        | Guard::ReceiptParking
        | Guard::LockOrder
        | Guard::TwoStepClaim => Handler::Ask,
        Guard::SendRecord => Handler::Forward,
    }
}

/// What shows that a guard is missing. Anything else may have another cause: a machine that is
/// too busy, for instance.
const fn expected(guard: Guard) -> &'static [Breach] {
    match guard {
        Guard::UniqueKey => &[Breach::Double, Breach::Changed],
        Guard::EpochCheck => &[Breach::Double, Breach::Overlap, Breach::Changed],
        Guard::OutboxMark => &[Breach::DoubleSend, Breach::Double],
        Guard::ReReady => &[Breach::Missing, Breach::Unsettled],
        Guard::CommitBeforeOk => &[Breach::Missing, Breach::Receipt],
        Guard::ReceiptParking => &[Breach::Receipt],
        Guard::LockOrder => &[Breach::Deadlock],
        Guard::SendRecord => &[Breach::Double],
        Guard::TwoStepClaim => &[Breach::Missing, Breach::Double, Breach::Changed],
    }
}

impl Trial {
    /// Whether the rehearsal is blind to this guard.
    pub(super) const fn is_unfound(&self) -> bool {
        matches!(self.outcome, Outcome::Unfound)
    }

    /// A line of the table.
    pub(super) fn line(&self, first: u64) -> String {
        let name = self.guard.as_str();
        match &self.outcome {
            Outcome::Idle => format!("  {name:<20}not of this engine"),
            Outcome::Unfound => format!("  {name:<20}NOT FOUND in {SEEDS_MAX} seeds"),
            Outcome::Found(seed, report) => {
                let nth = seed - first + 1;
                let found: Vec<String> = report
                    .breaches()
                    .map(|(breach, found)| format!("{} {}", found.count, breach.as_str()))
                    .collect();
                format!("  {name:<20}seed {seed:<6}{nth:>3}.  {}", found.join(", "))
            }
        }
    }

    /// The same, for scripts.
    pub(super) fn json(&self) -> Value {
        let (seed, found) = match &self.outcome {
            Outcome::Idle => (None, "not of this engine".to_owned()),
            Outcome::Unfound => (None, "not found".to_owned()),
            Outcome::Found(seed, report) => {
                let worst = report.breaches().next();
                let name = worst.map_or("undelivered", |(breach, _)| breach.as_str());
                (Some(*seed), name.to_owned())
            }
        };
        json!({ "guard": self.guard.as_str(), "seed": seed, "found": found })
    }
}
