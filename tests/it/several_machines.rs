//! Four processes on one database: whichever of them a delivery reaches, and however often, its
//! message is handled once and in order, and their joined logs show it.

use std::collections::BTreeMap;

use bytes::Bytes;
use hapax::simulator::checker::{Terms, check};
use hapax::simulator::meta::Meta;
use hapax::simulator::seed::Draw;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::killed::seed;
use crate::scene::{deliver, person, says, text};
use crate::talk::{field, key_of};
use crate::world::{Node, World};

const NODES: usize = 4;
const PEOPLE: usize = 200;
const EACH: usize = 25;
/// So many messages one person writes without waiting for the answers to the ones before.
const BURST_MAX: u64 = 3;
const COPIES_MAX: u64 = 4;

/// Not the short one: here nobody is to be taken for dead, however slow the machine is.
const CALM: [(&str, &str); 2] = [
    ("HAPAX_NODE_LEASE_TTL", "60s"),
    ("HAPAX_NODE_RENEW_EVERY", "1s"),
];

/// One message, before it is written.
struct Message {
    text: String,
    key: String,
    body: Bytes,
    copies: u64,
}

fn messages(world: &World, who: usize, draw: &mut Draw) -> Vec<Message> {
    let message = |index| {
        let said = format!("p{who} #{index}");
        let body = text(world, &person(who), &said);
        Message {
            text: said,
            key: key_of(&body).to_string(),
            body,
            copies: draw.between(1, COPIES_MAX),
        }
    };
    (0..EACH).map(message).collect()
}

/// Writes a person's messages, each copy to any of the nodes, all copies of a burst at once.
async fn write(metas: Vec<Meta>, messages: Vec<(Bytes, u64)>, mut draw: Draw) {
    let mut left = &messages[..];
    while !left.is_empty() {
        let size = draw.between(1, BURST_MAX) as usize;
        let (burst, rest) = left.split_at(size.min(left.len()));
        let mut copies = JoinSet::new();
        for (body, count) in burst {
            for _ in 0..*count {
                let (meta, body) = (draw.pick(&metas).clone(), body.clone());
                copies.spawn(async move { deliver(&meta, body).await });
            }
        }
        copies.join_all().await;
        left = rest;
    }
}

async fn everybody_writes(world: &World, nodes: &[Node], seed: u64) -> Vec<Vec<Message>> {
    let metas: Vec<Meta> = nodes.iter().map(|node| world.meta(node)).collect();
    let mut writing = JoinSet::new();
    let mut all = Vec::new();
    for who in 0..PEOPLE {
        let mut draw = Draw::new(seed).fork(&format!("person {who}"));
        let messages = messages(world, who, &mut draw);
        let copies = messages
            .iter()
            .map(|message| (message.body.clone(), message.copies));
        writing.spawn(write(metas.clone(), copies.collect(), draw));
        all.push(messages);
    }
    writing.join_all().await;
    all
}

/// What the joined logs say of one message.
#[derive(Default)]
struct Told {
    accepted: u64,
    duplicates: u64,
    finished: u64,
    conversation: String,
    seq: i64,
    epoch: i64,
}

fn told(logs: &[Vec<Value>]) -> BTreeMap<String, Told> {
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    for line in logs.iter().flatten() {
        let of = told.entry(field(line, "event.key").to_owned()).or_default();
        if says(line, "arrival") {
            match field(line, "verdict") {
                "accepted" => {
                    of.accepted += 1;
                    field(line, "conversation.id").clone_into(&mut of.conversation);
                    of.seq = line["message.seq"].as_i64().expect("a place");
                }
                "duplicate" => of.duplicates += 1,
                other => panic!("{other}: {line}"),
            }
        } else if says(line, "turn finished") {
            of.finished += 1;
            of.epoch = line["lease.epoch"].as_i64().expect("an epoch");
        }
    }
    told
}

/// One person's messages, in the order of their places.
fn in_order<'a>(messages: &'a [Message], told: &BTreeMap<String, Told>) -> Vec<&'a str> {
    let mut placed: Vec<(&Told, &Message)> = messages
        .iter()
        .map(|message| (told.get(&message.key).expect("it was told"), message))
        .collect();
    placed.sort_by_key(|(told, _)| told.seq);
    for (told, message) in &placed {
        assert_eq!(told.accepted, 1, "{}", message.text);
        assert_eq!(told.duplicates, message.copies - 1, "{}", message.text);
        assert_eq!(told.finished, 1, "{}", message.text);
        assert_eq!(
            told.conversation, placed[0].0.conversation,
            "one conversation"
        );
    }
    let seqs: Vec<i64> = placed.iter().map(|(told, _)| told.seq).collect();
    assert_eq!(seqs, (1..=EACH as i64).collect::<Vec<_>>(), "no gap");
    let grows = placed.is_sorted_by(|(one, _), (next, _)| one.epoch < next.epoch);
    assert!(grows, "each turn has a later epoch than the one before");
    let texts = placed.iter().map(|(_, message)| message.text.as_str());
    texts.collect()
}

/// What Graph took, by person.
fn replies(world: &World) -> BTreeMap<String, Vec<String>> {
    let mut replies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for sent in world.graph.accepted() {
        let text = sent.text().to_owned();
        replies.entry(sent.recipient).or_default().push(text);
    }
    replies
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "shown when the test fails")]
async fn five_thousand_messages_in_copies_to_any_of_four_processes_are_each_handled_once() {
    let world = World::on_postgres();
    let seed = seed(&world);
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(world.node(&CALM).await);
    }
    let written = everybody_writes(&world, &nodes, seed).await;
    world.settle(&nodes[0]).await;
    for node in &nodes {
        assert_eq!(node.figures().await.dead_letters(), 0);
    }
    let mut logs = Vec::new();
    for node in &mut nodes {
        assert_eq!(node.stop().await.code(), Some(0));
        logs.push(node.log());
    }

    let copies: u64 = written.iter().flatten().map(|message| message.copies).sum();
    world.history.read(|record| {
        let refused = record.posted.iter().filter(|post| post.status != Some(200));
        assert_eq!(refused.count(), 0, "every post is answered 200");
        assert_eq!(record.posted.len() as u64, copies);
        let report = check(record, &Terms::Echo);
        assert!(report.is_clean(), "{report}");
    });
    let mut replies = replies(&world);
    let told = told(&logs);
    for (who, messages) in written.iter().enumerate() {
        let person = person(who);
        let mut aliases = person.aliases();
        let received = aliases.find_map(|alias| replies.remove(alias));
        let received = received.expect("there are replies");
        assert_eq!(received, in_order(messages, &told), "one reply to each");
    }
    assert!(replies.is_empty(), "nobody else got one");
    let finished = |log: &Vec<Value>| {
        log.iter()
            .filter(|line| says(line, "turn finished"))
            .count()
    };
    let shares: Vec<usize> = logs.iter().map(finished).collect();
    eprintln!("{copies} deliveries; turns of each process: {shares:?}");
    assert_eq!(shares.iter().sum::<usize>(), PEOPLE * EACH);
    assert!(
        shares.iter().all(|turns| *turns > 0),
        "all work: {shares:?}"
    );
}
