//! A plan of misfortunes: what breaks after how many messages, for how long, drawn from a seed or
//! written by hand. It only plans; whoever runs the processes and the wires carries it out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::manners::Manners;
use super::seed::Draw;

/// The most nodes that a plan speaks of.
pub const NODES_MAX: usize = 8;
/// The most messages of a plan: all of a run is kept until it is judged.
pub const MESSAGES_MAX: u64 = 100_000;
/// The most faults of a plan.
pub const FAULTS_MAX: usize = 1000;

/// Few people who write as fast as anybody takes it.
const RUSH: (usize, f64) = (8, 5000.0);

/// How the gateway reaches the bot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handler {
    /// The bot is asked, and its replies are in its answers.
    #[default]
    Ask,
    /// The bot gets Meta's webhooks, and sends its replies by itself.
    Forward,
}

impl Handler {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Ask, Self::Forward];

    /// Its name in plans and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Forward => "forward",
        }
    }

    /// Whether something may break where a bot is reached so. A bot that sends by itself must be
    /// done with one attempt before the next begins, or what it says belongs to either: nothing
    /// may take a turn from a node that still has the bot at work.
    pub const fn bears(self, what: Breakage) -> bool {
        match (self, what) {
            (Self::Ask, _) => true,
            (
                Self::Forward,
                Breakage::Pause
                | Breakage::HoldBot
                | Breakage::CutStore
                | Breakage::HoldStore
                | Breakage::SlowStore,
            ) => false,
            (
                Self::Forward,
                Breakage::Kill
                | Breakage::Restart
                | Breakage::CutMeta
                | Breakage::HoldMeta
                | Breakage::CutBot
                | Breakage::CutGraph
                | Breakage::HoldGraph
                | Breakage::BotDown,
            ) => true,
        }
    }
}

/// One run: who writes how much, how the others behave, and what breaks when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    /// Decides everything that is not said here.
    pub seed: u64,
    /// How the gateway reaches the bot.
    #[serde(default)]
    pub handler: Handler,
    /// How many messages are written.
    #[serde(default = "messages")]
    pub messages: u64,
    /// By how many people.
    #[serde(default = "people")]
    pub people: usize,
    /// How many a second, of all people together.
    #[serde(default = "rate")]
    pub rate: f64,
    /// How the bot and Meta behave.
    #[serde(default)]
    pub manners: Manners,
    /// What breaks, in order.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

const fn messages() -> u64 {
    200
}

const fn people() -> usize {
    24
}

const fn rate() -> f64 {
    120.0
}

/// One thing that breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// After so many messages have been written.
    pub after: u64,
    /// What breaks.
    pub what: Breakage,
    /// At which node, from 0; nothing to the bot.
    #[serde(default)]
    pub node: usize,
    /// For how many milliseconds.
    pub for_ms: u64,
}

impl Fault {
    /// How long it lasts.
    pub const fn lasts(&self) -> Duration {
        Duration::from_millis(self.for_ms)
    }
}

/// What can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Breakage {
    /// The node is killed (`SIGKILL`) and started again afterwards.
    Kill,
    /// The node stands still (`SIGSTOP`): to the others it is dead, and then it goes on.
    Pause,
    /// The node is asked to stop (`SIGTERM`), and started again afterwards.
    Restart,
    /// The wire from Meta is cut: answers are lost, and deliveries come again.
    CutMeta,
    /// The wire from Meta stands still.
    HoldMeta,
    /// The wire to the bot is cut.
    CutBot,
    /// The wire to the bot stands still.
    HoldBot,
    /// The wire to the Graph API is cut: sends may have gone out, or not.
    CutGraph,
    /// The wire to the Graph API stands still.
    HoldGraph,
    /// The wire to the database is cut, commits included.
    CutStore,
    /// The wire to the database stands still.
    HoldStore,
    /// The wire to the database is slow: each piece takes 5 ms.
    SlowStore,
    /// The bot is gone for all nodes, and comes back.
    BotDown,
}

impl Breakage {
    /// Every one.
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::Pause,
        Self::Restart,
        Self::CutMeta,
        Self::HoldMeta,
        Self::CutBot,
        Self::HoldBot,
        Self::CutGraph,
        Self::HoldGraph,
        Self::CutStore,
        Self::HoldStore,
        Self::SlowStore,
        Self::BotDown,
    ];

    /// Its name in plans, tables and pictures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Restart => "restart",
            Self::CutMeta => "cut-meta",
            Self::HoldMeta => "hold-meta",
            Self::CutBot => "cut-bot",
            Self::HoldBot => "hold-bot",
            Self::CutGraph => "cut-graph",
            Self::HoldGraph => "hold-graph",
            Self::CutStore => "cut-store",
            Self::HoldStore => "hold-store",
            Self::SlowStore => "slow-store",
            Self::BotDown => "bot-down",
        }
    }

    /// Whether it needs a wire to the database; one in a file has none.
    pub const fn is_of_store(self) -> bool {
        matches!(self, Self::CutStore | Self::HoldStore | Self::SlowStore)
    }

    /// How often it is drawn, beside the others.
    const fn weight(self) -> usize {
        match self {
            Self::Kill => 5,
            Self::Pause => 4,
            Self::Restart | Self::CutMeta | Self::CutGraph | Self::CutStore => 2,
            Self::HoldMeta
            | Self::CutBot
            | Self::HoldBot
            | Self::HoldGraph
            | Self::HoldStore
            | Self::SlowStore
            | Self::BotDown => 1,
        }
    }

    /// The longest that a plan may ask for. Beyond it something ends that must not be mistaken for
    /// a broken promise: Meta's attempts, the turn's, or the wait for a late call.
    const fn longest(self) -> Duration {
        match self {
            Self::Pause | Self::HoldGraph => Duration::from_millis(1500),
            Self::CutMeta | Self::HoldMeta | Self::CutBot | Self::HoldBot | Self::BotDown => {
                Duration::from_secs(8)
            }
            Self::Kill
            | Self::Restart
            | Self::CutGraph
            | Self::CutStore
            | Self::HoldStore
            | Self::SlowStore => Duration::from_secs(20),
        }
    }

    /// How long it lasts where a seed draws it, in milliseconds.
    const fn span(self) -> (u64, u64) {
        match self {
            Self::Kill | Self::Restart => (20, 500),
            // Around the lease: shorter, and longer.
            Self::Pause => (100, 1500),
            Self::CutMeta | Self::CutBot | Self::CutGraph | Self::CutStore => (10, 400),
            Self::HoldMeta | Self::HoldBot | Self::HoldGraph | Self::HoldStore => (100, 900),
            Self::SlowStore | Self::BotDown => (100, 700),
        }
    }
}

/// What is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanFault {
    /// It cannot be read.
    #[error("line {line}, column {column}: {what}")]
    Unreadable {
        /// Where.
        line: usize,
        /// Where.
        column: usize,
        /// What was found, or is missing.
        what: String,
    },
    /// A number is out of its bounds.
    #[error("{name}: expected {expected}, found {found}")]
    Bound {
        /// Which.
        name: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
}

impl FaultPlan {
    /// The plan of a seed: 200 messages, and 20 faults or a few more. `has_wire`: the store is
    /// behind one.
    pub fn draw(seed: u64, handler: Handler, nodes: usize, has_wire: bool) -> Self {
        let mut draw = Draw::new(seed).fork("faults");
        let choice: Vec<Breakage> = Breakage::ALL
            .into_iter()
            .filter(|breakage| has_wire || !breakage.is_of_store())
            .filter(|breakage| handler.bears(*breakage))
            .flat_map(|breakage| std::iter::repeat_n(breakage, breakage.weight()))
            .collect();
        let messages = messages();
        let mut faults: Vec<Fault> = (0..20)
            .map(|_| {
                let what = *draw.pick(&choice);
                let (low, high) = what.span();
                Fault {
                    after: draw.below(messages * 9 / 10),
                    what,
                    node: draw.below(nodes.max(1) as u64) as usize,
                    for_ms: draw.between(low, high),
                }
            })
            .collect();
        let (people, rate) = *draw.pick(&[(24, 120.0), (60, 200.0), RUSH]);
        let may_be_slow = has_wire && handler.bears(Breakage::SlowStore);
        if may_be_slow && (people, rate) == RUSH {
            // Transactions that take their time get into each other's way.
            faults.extend((0..nodes).map(|node| Fault {
                after: 0,
                what: Breakage::SlowStore,
                node,
                for_ms: 2000,
            }));
        }
        faults.sort_by_key(|fault| fault.after);
        Self {
            seed,
            handler,
            messages,
            people,
            rate,
            manners: Manners::default(),
            faults,
        }
    }

    /// Reads a plan in JSON, for so many nodes.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse(text: &str, nodes: usize, has_wire: bool) -> Result<Self, PlanFault> {
        let plan: Self = serde_json::from_str(text).map_err(|error| PlanFault::Unreadable {
            line: error.line(),
            column: error.column(),
            what: error.to_string(),
        })?;
        plan.check(nodes, has_wire)?;
        Ok(plan)
    }

    fn check(&self, nodes: usize, has_wire: bool) -> Result<(), PlanFault> {
        let bound = |ok: bool, name, expected: String, found: String| match ok {
            true => Ok(()),
            false => Err(PlanFault::Bound {
                name,
                expected,
                found,
            }),
        };
        let (messages, people, rate) = (self.messages, self.people, self.rate);
        let most = MESSAGES_MAX;
        bound(
            (1..=most).contains(&messages),
            "messages",
            format!("1 to {most}"),
            messages.to_string(),
        )?;
        bound(
            people >= 1 && people as u64 <= messages,
            "people",
            "1 to as many as there are messages".to_owned(),
            people.to_string(),
        )?;
        bound(
            rate.is_finite() && (0.1..=100_000.0).contains(&rate),
            "rate",
            "0.1 to 100000 a second".to_owned(),
            rate.to_string(),
        )?;
        let count = self.faults.len();
        let expected = format!("at most {FAULTS_MAX}");
        bound(count <= FAULTS_MAX, "faults", expected, count.to_string())?;
        for fault in &self.faults {
            bound(
                fault.node < nodes,
                "node",
                format!("0 to {}", nodes - 1),
                fault.node.to_string(),
            )?;
            let longest = fault.what.longest();
            bound(
                fault.lasts() <= longest,
                "for_ms",
                format!(
                    "at most {} for {}",
                    longest.as_millis(),
                    fault.what.as_str()
                ),
                fault.for_ms.to_string(),
            )?;
            bound(
                fault.after <= messages,
                "after",
                format!("at most {messages}, as many as are written"),
                fault.after.to_string(),
            )?;
            bound(
                has_wire || !fault.what.is_of_store(),
                "what",
                "nothing of the store: one in a file has no wire".to_owned(),
                fault.what.as_str().to_owned(),
            )?;
            bound(
                self.handler.bears(fault.what),
                "what",
                "nothing that lets two attempts of a bot that sends by itself run at once"
                    .to_owned(),
                fault.what.as_str().to_owned(),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_draws_one_plan_and_together_they_draw_everything() {
        let plan = |seed| FaultPlan::draw(seed, Handler::Ask, 2, true);
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        let drawn = |handler: Handler, has_wire: bool| -> BTreeSet<Breakage> {
            let plans = (0..50).map(|seed| FaultPlan::draw(seed, handler, 2, has_wire));
            plans.flat_map(|p| p.faults).map(|f| f.what).collect()
        };
        assert_eq!(drawn(Handler::Ask, true).len(), Breakage::ALL.len());
        assert!(
            drawn(Handler::Ask, false)
                .iter()
                .all(|what| !what.is_of_store())
        );
        let borne = Breakage::ALL
            .into_iter()
            .filter(|what| Handler::Forward.bears(*what));
        assert_eq!(drawn(Handler::Forward, true), borne.collect());
    }

    #[test]
    fn a_plan_reads_back_as_it_was_written() {
        let plan = FaultPlan::draw(7, Handler::Forward, 2, true);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(FaultPlan::parse(&text, 2, true), Ok(plan));
    }

    #[test]
    fn a_wrong_plan_is_told_apart_from_a_right_one() {
        let told = |text: &str| FaultPlan::parse(text, 2, false).unwrap_err().to_string();
        let fault = |what: &str, node: u32| {
            format!(
                r#"{{"seed": 1, "faults": [
                    {{"after": 1, "what": "{what}", "node": {node}, "for_ms": 5}}]}}"#
            )
        };
        assert!(FaultPlan::parse(&fault("kill", 1), 2, false).is_ok());
        assert!(told("{").starts_with("line 1, column 1"), "{}", told("{"));
        assert!(told(r#"{"seed": 1, "foo": 2}"#).contains("foo"));
        assert!(told(&fault("smash", 0)).contains("smash"));
        assert_eq!(told(&fault("kill", 2)), "node: expected 0 to 1, found 2");
        assert!(told(&fault("cut-store", 0)).contains("has no wire"));
        let overlaps = fault("pause", 0).replace("\"seed\"", "\"handler\": \"forward\", \"seed\"");
        assert!(
            told(&overlaps).contains("two attempts"),
            "{}",
            told(&overlaps)
        );
        let late = r#"{"seed": 1, "messages": 9, "people": 1, "faults": [
            {"after": 10, "what": "kill", "for_ms": 1}]}"#;
        assert!(
            told(late).starts_with("after: expected at most 9"),
            "{}",
            told(late)
        );
        let long = r#"{"seed": 1, "faults": [{"after": 1, "what": "pause", "for_ms": 2000}]}"#;
        assert!(
            told(long).contains("at most 1500 for pause"),
            "{}",
            told(long)
        );
        assert!(told(r#"{"seed": 1, "messages": 0}"#).contains("expected 1 to 100000"));
    }
}
