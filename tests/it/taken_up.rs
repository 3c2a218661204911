//! `kill -9` of processes on one database: what a dead one held is taken up by the others within
//! two leases, and nothing is lost, and nothing is twice in effect.
//!
//! Leases are counted in renewals. Those that live renew as often as the dead one would have, on a
//! slow machine as on a fast one; and the database itself counts them.

use std::collections::BTreeMap;
use std::time::Duration;

use hapax::model::Secret;
use hapax::simulator::checker::Breach;
use hapax::simulator::rehearsal::{Rehearsal, Settings};
use hapax::simulator::script::Answer;
use hapax::simulator::seed::Draw;
use tokio_util::sync::CancellationToken;

use crate::front::Front;
use crate::killed::{never_sent, seed};
use crate::scene::{bot, person, say, says, took, until};
use crate::witness::{Seen, What, Witness};
use crate::world::{APP_SECRET, LEASE, LIMIT, Node, RENEWAL, VERIFY_TOKEN, World};

const MESSAGES: u64 = 2000;
const NODES: usize = 3;
const KILLS: usize = 8;
const SENDS_AT_ONCE: &str = "8";

/// Two leases.
fn renewals_max() -> usize {
    (2 * LEASE.as_millis() / RENEWAL.as_millis()) as usize
}

/// As which node a process has joined, the last time.
fn id(node: &Node) -> i64 {
    let joined = |line: &serde_json::Value| {
        says(line, "joined") || says(line, "was paused for longer than the lease: joined anew")
    };
    let log = node.log();
    let joined = log.iter().rfind(|line| joined(line));
    let id = &joined.expect("it has joined")["node.id"];
    let text = id.as_str().map(str::to_owned).unwrap_or(id.to_string());
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.parse().expect("a number")
}

/// How often those that live have renewed in this time: the one that did so most often.
fn renewals(seen: &[Seen]) -> usize {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for one in seen.iter().filter(|one| one.what == What::Renewed) {
        *counts.entry(one.node).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

/// Asserts that what happened from the mark to `end` happened within two leases.
#[expect(clippy::print_stderr, reason = "shown when the test fails")]
fn within_two_leases(seen: &[Seen], mark: usize, end: usize) {
    let took = renewals(&seen[mark..end]);
    let measured = format!(
        "taken up {took} renewals, {} ms, after node {} was killed",
        seen[end].at - seen[mark].at,
        seen[mark].node,
    );
    eprintln!("{measured}");
    let max = renewals_max();
    assert!(took <= max, "{measured}; two leases are {max} renewals");
}

fn place(seen: &[Seen], wanted: impl Fn(&Seen) -> bool) -> usize {
    let place = seen.iter().position(wanted);
    place.unwrap_or_else(|| panic!("never seen: {seen:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_held_is_taken_up_within_two_leases() {
    const HELD: usize = 5;
    let world = World::on_postgres();
    let bot = bot(&world);
    let first = |call: &hapax::simulator::bot::Call| call.header("x-hapax-attempt") == "1";
    bot.script().when(first, Answer::Hang);
    let url = bot.url();
    let settings = [
        ("HAPAX_HANDLER", "forward"),
        ("HAPAX_BOT_URL", url.as_str()),
        ("HAPAX_TURN_DEADLINE", "10m"),
    ];
    let mut dying = world.node(&settings).await;
    let witness = Witness::start(world.schema().expect("on PostgreSQL")).await;
    let meta = world.meta(&dying);
    for who in 0..HELD {
        say(&world, &meta, &person(who), &format!("p{who}")).await;
    }
    until(&bot, "it holds them all", |calls| calls.len() == HELD).await;
    let living = [world.node(&settings).await, world.node(&settings).await];
    let dead = id(&dying);
    dying.kill().await;
    witness.mark(dead).await;
    for who in 0..HELD {
        let text = format!("p{who}");
        until(&bot, "it is taken up", |calls| took(calls, &text)).await;
    }
    for node in &living {
        world.settle(node).await;
    }

    let seen = witness.seen().await;
    let mark = place(&seen, |one| one.what == What::Marked);
    let mut held: Vec<i64> = seen[..mark]
        .iter()
        .filter(|one| one.what == What::Claimed && one.node == dead)
        .map(|one| one.conversation)
        .collect();
    held.dedup();
    assert_eq!(held.len(), HELD);
    for conversation in held {
        let claimed = |one: &Seen| one.what == What::Claimed && one.conversation == conversation;
        let again = mark + place(&seen[mark..], claimed);
        assert_ne!(seen[again].node, dead);
        within_two_leases(&seen, mark, again);
    }
    assert_eq!(bot.calls().len(), 2 * HELD, "once more, and no more");
}

/// The processes that are there; each end and each beginning is told to the front.
struct Fleet<'a> {
    world: &'a World,
    settings: [(&'a str, &'a str); 2],
    front: &'a Front,
    nodes: Vec<Node>,
}

impl Fleet<'_> {
    async fn add(&mut self) {
        self.nodes.push(self.world.node(&self.settings).await);
        self.lead();
    }

    /// Kills any of them; answers as which node it had joined.
    async fn kill(&mut self, draw: &mut Draw) -> i64 {
        let last = self.nodes.len() as u64 - 1;
        let mut node = self.nodes.remove(draw.between(0, last) as usize);
        node.kill().await;
        self.lead();
        id(&node)
    }

    fn lead(&self) {
        let nodes = self.nodes.iter().map(|node| node.public);
        self.front.lead_to(nodes.collect());
    }
}

fn rehearsal(world: &World, seed: u64, front: &Front) -> Rehearsal {
    let url = format!("http://{}/webhook", front.address());
    let secrets = (Secret::new(APP_SECRET), Secret::new(VERIFY_TOKEN));
    let mut settings = Settings::live(url, secrets.0, secrets.1).counted(MESSAGES);
    settings.seed = seed;
    settings.people = 40;
    // Longer than a send can stay unsure.
    settings.patience = Duration::from_secs(12);
    Rehearsal::new(settings, &world.graph, world.clock.clone()).expect("a client")
}

/// Eight kills in a run of two thousand messages, at moments that the seed decides; each time
/// the others are alone with it until the next moment, when another one starts.
#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_throughout_nothing_is_lost_and_nothing_is_twice_in_effect() {
    let world = World::on_postgres();
    let seed = seed(&world);
    let front = Front::start().await;
    let mut fleet = Fleet {
        world: &world,
        settings: [
            ("HAPAX_SEND_UNSURE_WAIT", "4s"),
            ("HAPAX_SEND_CONCURRENCY", SENDS_AT_ONCE),
        ],
        front: &front,
        nodes: Vec::new(),
    };
    for _ in 0..NODES {
        fleet.add().await;
    }
    let witness = Witness::start(world.schema().expect("on PostgreSQL")).await;
    let mut draw = Draw::new(seed).fork("kills");
    let mut moments: Vec<u64> = (0..KILLS)
        .map(|_| draw.between(20, MESSAGES - 20))
        .collect();
    moments.sort_unstable();
    let rehearsal = rehearsal(&world, seed, &front);
    let mut progress = rehearsal.watch();
    let kills = async {
        for moment in moments {
            let written = progress.wait_for(|progress| progress.messages >= moment);
            written.await.expect("the run is watched");
            if fleet.nodes.len() < NODES {
                fleet.add().await;
            }
            witness.mark(fleet.kill(&mut draw).await).await;
        }
        fleet.nodes
    };
    let never_stopped = CancellationToken::new();
    let both = async { tokio::join!(rehearsal.run(&never_stopped), kills) };
    let run = world.clock.timeout(LIMIT * 3, both).await;
    let (report, mut nodes) = run.expect("the run ends");
    let report = report.expect("the handshake is answered");
    world.settle(&nodes[0]).await;
    let seen = witness.seen().await;
    for node in &mut nodes {
        assert_eq!(node.stop().await.code(), Some(0));
    }

    assert_eq!(report.messages, MESSAGES);
    assert_eq!(report.undelivered, 0, "{report}");
    assert_eq!(report.of(Breach::Double).examples, [""; 0], "{report}");
    assert_eq!(report.of(Breach::Order).examples, [""; 0], "{report}");
    assert_eq!(report.of(Breach::Unexpected).examples, [""; 0], "{report}");
    let never_sent = never_sent(&world).await;
    assert_eq!(report.count(Breach::Missing), never_sent, "{report}");
    let at_once: u64 = SENDS_AT_ONCE.parse().expect("a number");
    assert!(never_sent <= KILLS as u64 * at_once, "{report}");
    each_end_was_seen_within_two_leases(&seen);
}

fn each_end_was_seen_within_two_leases(seen: &[Seen]) {
    let marks = seen.iter().enumerate();
    let marks: Vec<usize> = marks
        .filter(|(_, one)| one.what == What::Marked)
        .map(|(place, _)| place)
        .collect();
    assert_eq!(marks.len(), KILLS);
    for mark in marks {
        let of = |one: &Seen| one.what == What::Ended && one.node == seen[mark].node;
        let end = place(seen, of);
        // It may have been too slow for its lease before.
        if end > mark {
            within_two_leases(seen, mark, end);
        }
    }
}
