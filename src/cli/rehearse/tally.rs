//! What all runs of a rehearsal come to: in words, in JSON, and as one command for each that
//! went wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::stage::Played;
use crate::simulator::checker::Report;
use crate::simulator::faults::Breakage;

/// One run, as far as it is told afterwards.
pub(super) struct Line {
    pub(super) seed: u64,
    pub(super) report: Report,
    pub(super) took: Duration,
    /// What repeats it.
    pub(super) command: String,
    pub(super) logs: Option<String>,
}

/// All runs so far.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) lines: Vec<Line>,
    pub(super) total: Report,
    pub(super) faults: BTreeMap<Breakage, u64>,
    /// How often nodes were started.
    pub(super) starts: u64,
    /// From a message's first posting to its reply, in seconds, of all runs.
    pub(super) waits: Vec<f64>,
    /// The run that the pictures show: the first that went wrong, or else the last.
    pub(super) shown: Option<Played>,
}

impl Tally {
    pub(super) fn add(&mut self, played: Played, command: String) {
        for struck in &played.struck {
            *self.faults.entry(struck.fault.what).or_default() += 1;
        }
        self.starts += u64::from(played.starts);
        let waits = played.timeline.waits.iter().map(|(_, wait)| *wait);
        self.waits.extend(waits);
        self.total.absorb(played.report.clone());
        self.lines.push(Line {
            seed: played.plan.seed,
            report: played.report.clone(),
            took: played.took,
            command,
            logs: played.logs.as_ref().map(|path| path.display().to_string()),
        });
        let shows_fault = self.shown.as_ref().is_some_and(|s| !s.report.is_clean());
        if !shows_fault {
            self.shown = Some(played);
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.lines.iter().all(|line| line.report.is_clean())
    }

    pub(super) fn failed(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| !line.report.is_clean())
    }

    pub(super) fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// What is shown first: what was done, and what came of it.
    pub(super) fn rows(&self) -> Vec<(&'static str, u64)> {
        let total = &self.total;
        let violations: u64 = total.breaches().map(|(_, found)| found.count).sum();
        vec![
            ("runs", self.lines.len() as u64),
            ("faults injected", self.faults()),
            ("starts of a node", self.starts),
            ("deliveries", total.deliveries),
            ("messages", total.messages),
            ("events", total.events),
            ("duplicates", total.duplicates_posted),
            ("calls of the bot", total.calls),
            ("replies", total.replies),
            ("dead turns", total.dead_turns),
            ("dead sends", total.dead_sends),
            ("unsure sends", total.unsure),
            ("violations", violations + total.undelivered),
        ]
    }

    /// Everything, for scripts.
    pub(super) fn json(&self, store: &str, nodes: usize) -> Value {
        let rows = self.rows().into_iter();
        let totals: BTreeMap<String, u64> = rows.map(|(n, v)| (n.replace(' ', "_"), v)).collect();
        let faults = self.faults.iter().map(|(what, n)| (what.as_str(), *n));
        let found = |report: &Report| {
            let found = report.breaches().map(|(breach, found)| {
                json!({ "breach": breach.as_str(), "count": found.count,
                        "examples": found.examples })
            });
            found.collect::<Vec<Value>>()
        };
        let failures = self.failed().map(|line| {
            json!({
                "seed": line.seed, "violations": found(&line.report),
                "undelivered": line.report.undelivered, "repeat": line.command,
                "logs": line.logs,
            })
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "store": store,
            "nodes": nodes,
            "passed": self.is_clean(),
            "seeds": self.lines.iter().map(|line| line.seed).collect::<Vec<u64>>(),
            "seconds": self.lines.iter().map(|line| line.took.as_secs_f64()).sum::<f64>(),
            "totals": totals,
            "faults": faults.collect::<BTreeMap<_, _>>(),
            "failures": failures.collect::<Vec<Value>>(),
        })
    }

    /// The verdict in words; the command that repeats it beside each failure.
    pub(super) fn words(&self) -> String {
        let mut words = String::new();
        for (name, count) in self.rows() {
            words += &format!("  {name:<20}{count:>10}\n");
        }
        if self.is_clean() {
            words += "\nEvery promise was kept.\n";
            return words;
        }
        for line in self.failed() {
            words += &format!("\nseed {}: {}\n", line.seed, line.report);
            for (breach, found) in line.report.breaches() {
                for example in &found.examples {
                    words += &format!("  {}: {example}\n", breach.as_str());
                }
            }
            if let Some(logs) = &line.logs {
                words += &format!("  logs of the nodes: {logs}\n");
            }
            words += &format!("  again: {}\n", line.command);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::rehearse::page::page;
    use crate::cli::rehearse::strikes::Struck;
    use crate::cli::rehearse::timeline::Timeline;
    use crate::simulator::checker::Breach;
    use crate::simulator::faults::{FaultPlan, Handler};

    fn played(seed: u64, breach: Option<Breach>) -> Played {
        let plan = FaultPlan::draw(seed, Handler::Ask, 2, false);
        let mut report = Report::default();
        if let Some(breach) = breach {
            report.add(breach, "message 3 of person <1>".to_owned());
        }
        let second = Duration::from_secs(1);
        let struck = plan.faults.iter().map(|fault| Struck {
            fault: *fault,
            began: second,
            ended: second * 2,
        });
        Played {
            struck: struck.collect(),
            plan,
            report,
            took: second * 5,
            timeline: Timeline {
                began: Duration::ZERO,
                posts: vec![(0.1, true), (0.2, false)],
                replies: vec![0.3],
                waits: vec![(0.1, 0.2)],
            },
            starts: 3,
            blown: false,
            left: None,
            logs: None,
        }
    }

    #[test]
    fn a_failure_prints_the_one_command_that_repeats_it() {
        let mut tally = Tally::default();
        let command = |seed: u64| format!("hapax rehearse --seed {seed} --nodes 2");
        tally.add(played(1, None), command(1));
        assert!(tally.is_clean());
        assert!(tally.words().ends_with("Every promise was kept.\n"));
        tally.add(played(2, Some(Breach::Double)), command(2));
        tally.add(played(3, None), command(3));
        assert!(!tally.is_clean());
        let words = tally.words();
        assert!(
            words.contains("  again: hapax rehearse --seed 2 --nodes 2\n"),
            "{words}"
        );
        assert_eq!(words.matches("again:").count(), 1, "{words}");
        let json = tally.json("sqlite", 2);
        assert_eq!(json["passed"], false);
        assert_eq!(json["failures"][0]["repeat"], command(2));
        assert_eq!(json["totals"]["faults_injected"], tally.faults());
        let page = page(&tally, "sqlite", 2);
        assert!(
            page.contains("seed 2"),
            "the run that went wrong is the one shown"
        );
        assert!(page.contains("&lt;1&gt;") && !page.contains("<1>"));
        assert!(!page.contains("http"), "a page that needs nothing else");
    }
}
