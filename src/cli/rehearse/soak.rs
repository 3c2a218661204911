//! A long run in which nothing breaks: many people, many messages, and nodes whose memory must
//! not grow.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::accounts::Admin;
use super::fleet::{Doors, FarEnds, Fleet, Launch};
use super::ground::Place;
use super::settings::{APP_SECRET, Answers, TOKEN, VERIFY_TOKEN, of_node};
use super::stage::Setup;
use crate::model::Secret;
use crate::simulator::checker::{Breach, Report};
use crate::simulator::graph::{Graph, GraphSettings};
use crate::simulator::history::{History, Progress};
use crate::simulator::rehearsal::{Rehearsal, Settings};

/// Between two looks at the memory.
const LOOK: Duration = Duration::from_secs(1);
/// How long the end of everything may take after the last message.
const SETTLE_MAX: Duration = Duration::from_secs(300);
/// What a node's memory may grow by from the second quarter of a run to the last: a share, and
/// what an allocator keeps for later.
const GROWTH_MAX: f64 = 1.25;
/// Of fewer looks nothing can be said.
const SAMPLES_MIN: usize = 12;
const SLACK_BYTES: f64 = 16.0 * 1024.0 * 1024.0;

/// What is written.
pub(super) struct Load {
    pub(super) seed: u64,
    pub(super) messages: u64,
    pub(super) people: usize,
}

/// A run that is over.
pub(super) struct Soaked {
    pub(super) report: Report,
    took: Duration,
    /// Dead letters and open ends; all zero, or it is in the report.
    left: (u64, u64, u64),
    /// Of each node, in bytes, a sample a second.
    memory: Vec<Vec<u64>>,
}

/// Runs until everything is written and answered.
pub(super) async fn soak(
    load: &Load,
    setup: &Setup,
    watch: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Soaked, String> {
    let place = Place::make(&setup.ground)?;
    let mut fleet = None;
    let soaked = tokio::select! {
        soaked = soak_at(&place, &mut fleet, load, setup, watch) => soaked,
        () = setup.stop.cancelled() => Err("interrupted".to_owned()),
    };
    if let Some(fleet) = fleet {
        fleet.kill().await;
    }
    let destroyed = place.destroy(&setup.clock).await;
    match (soaked, destroyed) {
        (soaked, Ok(())) => soaked,
        (Ok(_), Err(left)) => Err(left),
        (Err(fault), Err(left)) => Err(format!("{fault}\n{left}")),
    }
}

async fn soak_at(
    place: &Place,
    fleet: &mut Option<Fleet>,
    load: &Load,
    setup: &Setup,
    watch: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Soaked, String> {
    let failed = |error: std::io::Error| format!("no pretend WhatsApp: {error}");
    let clock = &setup.clock;
    let settings = GraphSettings {
        token: Secret::new(TOKEN),
        seed: load.seed,
    };
    let graph = Graph::start(settings, History::new(), clock.clone()).map_err(failed)?;
    let doors = doors(&graph, setup).await.map_err(failed)?;
    let rehearsal = Rehearsal::new(people(load, &doors), &graph, clock.clone());
    let rehearsal = rehearsal.map_err(|error| error.to_string())?;
    let nodes = fleet.insert(Fleet::start(launches(&doors, setup, place), clock).await?);
    let began = clock.boottime();
    let mut memory = vec![Vec::new(); setup.nodes];
    let mut report = {
        let never = CancellationToken::new();
        let run = rehearsal.run(&never);
        tokio::pin!(run);
        let mut progress = rehearsal.watch();
        let pid = nodes.pids();
        loop {
            tokio::select! {
                report = &mut run => break report.map_err(|error| error.to_string())?,
                fault = nodes.fault() => return Err(fault),
                () = clock.sleep(LOOK) => {
                    watch(&progress.borrow_and_update());
                    for (node, samples) in memory.iter_mut().enumerate() {
                        samples.extend(pid(node).and_then(resident_bytes));
                    }
                }
            }
        }
    };
    let took = clock.boottime() - began;
    let left = settled(doors[0].admin.addr(), setup).await?;
    judge(&mut report, left, &memory);
    if let Some(fleet) = fleet.take() {
        fleet.stop(&mut report).await?;
    }
    graph.stop().await;
    Ok(Soaked {
        report,
        took,
        left,
        memory,
    })
}

async fn doors(graph: &Graph, setup: &Setup) -> std::io::Result<Vec<Doors>> {
    let far = FarEnds {
        // Nobody is called there.
        bot: graph.addr(),
        graph: graph.addr(),
        store: None,
    };
    let mut doors = Vec::new();
    for _ in 0..setup.nodes {
        doors.push(Doors::open(far, &setup.clock).await?);
    }
    Ok(doors)
}

fn people(load: &Load, doors: &[Doors]) -> Settings {
    let secrets = (Secret::new(APP_SECRET), Secret::new(VERIFY_TOKEN));
    let mut settings = Settings::live("", secrets.0, secrets.1).counted(load.messages);
    let webhook = |doors: &Doors| format!("http://{}/webhook", doors.public.addr());
    settings.webhook_urls = doors.iter().map(webhook).collect();
    settings.seed = load.seed;
    settings.people = load.people;
    settings
}

fn launches(doors: &[Doors], setup: &Setup, place: &Place) -> Vec<Launch> {
    let launch = |(node, doors): (usize, &Doors)| {
        let mut settings = of_node(node, doors, Answers::Echo, false);
        settings.extend(place.settings(None));
        settings.push(("HAPAX_SEND_PER_SECOND".to_owned(), "10000".to_owned()));
        Launch {
            program: setup.program.clone(),
            settings,
            fuse: None,
            log: place.path().join(format!("node-{node}.log")),
            readyz: format!("http://{}/readyz", doors.public.addr()),
        }
    };
    doors.iter().enumerate().map(launch).collect()
}

/// Waits until nothing is open; answers what is left then: messages, sends, dead letters.
async fn settled(admin: SocketAddr, setup: &Setup) -> Result<(u64, u64, u64), String> {
    let admin = Admin::at(admin, &setup.clock)?;
    let began = setup.clock.boottime();
    loop {
        let open = admin.open().await;
        let over = setup.clock.boottime() - began > SETTLE_MAX;
        match open {
            Ok((pending, open)) if over || (pending, open) == (0, 0) => {
                return Ok((pending, open, admin.dead_letters().await?));
            }
            Err(error) if over => return Err(error),
            Ok(_) | Err(_) => setup.clock.sleep(LOOK).await,
        }
    }
}

fn judge(report: &mut Report, (pending, open, dead): (u64, u64, u64), memory: &[Vec<u64>]) {
    if pending + open > 0 {
        let words = format!("{pending} messages and {open} sends still wait");
        report.add(Breach::Unsettled, words);
    }
    if dead > 0 {
        report.add(Breach::Missing, format!("{dead} dead letters"));
    }
    for (node, samples) in memory.iter().enumerate() {
        let (early, late) = quarters(samples);
        if samples.len() < SAMPLES_MIN {
            continue;
        }
        if late > early * GROWTH_MAX + SLACK_BYTES {
            let words = format!("node {node}: {} MB, then {} MB", mega(early), mega(late));
            report.add(Breach::Memory, words);
        }
    }
}

/// The means of the second quarter and of the last.
fn quarters(samples: &[u64]) -> (f64, f64) {
    let quarter = samples.len() / 4;
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len().max(1) as f64;
    (
        mean(&samples[quarter..quarter * 2]),
        mean(&samples[quarter * 3..]),
    )
}

fn mega(bytes: f64) -> u64 {
    (bytes / (1024.0 * 1024.0)).round() as u64
}

/// What a process holds in memory, by `/proc`; `None` where there is none.
fn resident_bytes(pid: u32) -> Option<u64> {
    let path = Path::new("/proc").join(pid.to_string()).join("status");
    let status = std::fs::read_to_string(path).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

impl Soaked {
    fn per_second(&self) -> f64 {
        self.report.messages as f64 / self.took.as_secs_f64()
    }

    /// The verdict in words.
    pub(super) fn words(&self) -> String {
        let (pending, open, dead) = self.left;
        let mut words = format!(
            "  {}\n  {} s, {} messages a second\n  left: {pending} messages, {open} sends, {dead} \
             dead letters\n",
            self.report,
            self.took.as_secs(),
            self.per_second().round(),
        );
        for (node, samples) in self.memory.iter().enumerate() {
            let (early, late) = quarters(samples);
            let most = samples.iter().copied().max().unwrap_or(0) as f64;
            words += &format!(
                "  memory of node {node}: {} MB in the second quarter, {} MB in the last, {} MB \
                 at most\n",
                mega(early),
                mega(late),
                mega(most)
            );
        }
        for (breach, found) in self.report.breaches() {
            for example in &found.examples {
                words += &format!("  {}: {example}\n", breach.as_str());
            }
        }
        words
    }

    /// The same, for scripts; memory in bytes.
    pub(super) fn json(&self) -> Value {
        let (pending, open, dead) = self.left;
        let memory = self.memory.iter().map(|samples| {
            let (early, late) = quarters(samples);
            json!({ "second_quarter": early as u64, "last_quarter": late as u64,
                    "most": samples.iter().max() })
        });
        json!({
            "passed": self.report.is_clean(), "verdict": self.report.to_string(),
            "messages": self.report.messages, "deliveries": self.report.deliveries,
            "duplicates": self.report.duplicates_posted, "replies": self.report.replies,
            "seconds": self.took.as_secs_f64(), "messages_per_second": self.per_second(),
            "left": { "messages": pending, "sends": open, "dead_letters": dead },
            "memory_bytes": memory.collect::<Vec<Value>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_is_told_from_memory_that_settles() {
        let mega = |n: u64| n * 1024 * 1024;
        let judged = |samples: Vec<u64>| {
            let mut report = Report::default();
            judge(&mut report, (0, 0, 0), &[samples]);
            report.count(Breach::Memory)
        };
        assert_eq!(judged((0..100).map(|n| mega(40 + n)).collect()), 1);
        let settles = (0..100).map(|n| mega(60.min(40 + n)));
        assert_eq!(judged(settles.collect()), 0);
        for few in 0..SAMPLES_MIN as u64 {
            assert_eq!(judged((0..few).map(|n| mega(100 * n)).collect()), 0);
        }
    }
}
