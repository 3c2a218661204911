//! The messages of one person are handled one after the other; nobody waits for somebody else.

use std::collections::BTreeMap;

use hapax::simulator::bot::Call;
use hapax::simulator::gate::Gate;
use hapax::simulator::script::Answer;
use tokio::task::JoinSet;

use crate::engines::on_each_engine;
use crate::scene::{bot, deliver, person, says, text, until};
use crate::world::{Node, World};

on_each_engine!(one_persons_turns_never_overlap_keep_their_order_and_slow_nobody_else);

const OTHERS: usize = 10;
const EACH: usize = 10;

/// Event keys by conversation.
type Order = BTreeMap<String, Vec<String>>;

/// In the order in which the store committed them, as the logs of all processes tell it.
fn committed(nodes: &[Node]) -> Order {
    let mut placed: BTreeMap<String, Vec<(i64, String)>> = BTreeMap::new();
    for line in nodes.iter().flat_map(Node::log) {
        if let (Some(conversation), Some(seq), Some(key)) = (
            line["conversation.id"].as_str(),
            line["message.seq"].as_i64(),
            line["event.key"].as_str(),
        ) && says(&line, "arrival")
        {
            let messages = placed.entry(conversation.to_owned()).or_default();
            messages.push((seq, key.to_owned()));
        }
    }
    let in_order = |(conversation, mut messages): (String, Vec<(i64, String)>)| {
        messages.sort();
        let seqs: Vec<i64> = messages.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(seqs, (1..=EACH as i64).collect::<Vec<_>>(), "no gap");
        let keys = messages.into_iter().map(|(_, key)| key).collect();
        (conversation, keys)
    };
    placed.into_iter().map(in_order).collect()
}

/// In the order in which the bot was called.
fn handled(calls: &[Call]) -> Order {
    let mut order = Order::new();
    for call in calls {
        let conversation = call.conversation().to_owned();
        let key = call.header("x-hapax-event").to_owned();
        order.entry(conversation).or_default().push(key);
    }
    order
}

/// Ten messages of each of eleven people, each in a POST of its own, all at once to two
/// processes. While the bot does not answer one person's first message, everybody else is done.
async fn one_persons_turns_never_overlap_keep_their_order_and_slow_nobody_else(world: World) {
    let bot = bot(&world);
    let gate = Gate::closed();
    let is_anns = |call: &Call| call.text().starts_with("p0 ");
    let held = Answer::Status(200).held_by(&gate);
    bot.script().once_when(is_anns, held);
    let url = bot.url();
    let settings = [
        ("HAPAX_HANDLER", "forward"),
        ("HAPAX_BOT_URL", url.as_str()),
        ("HAPAX_TURN_DEADLINE", "10m"),
    ];
    let nodes = [world.node(&settings).await, world.node(&settings).await];
    let metas = [world.meta(&nodes[0]), world.meta(&nodes[1])];
    let mut posts = JoinSet::new();
    for message in 0..EACH {
        for who in 0..=OTHERS {
            let body = text(&world, &person(who), &format!("p{who} #{message}"));
            let meta = metas[(message + who) % 2].clone();
            posts.spawn(async move { deliver(&meta, body).await });
        }
    }
    posts.join_all().await;

    let others_are_done = |calls: &[Call]| {
        let done = |call: &&Call| !is_anns(call) && call.status == Some(200);
        calls.iter().filter(done).count() == OTHERS * EACH
    };
    until(&bot, "the others wait for one person", others_are_done).await;
    until(&bot, "her first message came", |calls| {
        calls.iter().any(is_anns)
    })
    .await;
    let anns: Vec<Call> = bot.calls().into_iter().filter(is_anns).collect();
    assert_eq!(anns.len(), 1, "her next message waits for the first");
    assert_eq!(anns[0].status, None, "which is still being handled");
    gate.release();
    for node in &nodes {
        world.settle(node).await;
    }

    let calls = bot.calls();
    assert_eq!(calls.len(), (OTHERS + 1) * EACH, "each message once");
    assert_eq!(bot.overlaps(), []);
    assert_eq!(handled(&calls), committed(&nodes));
}
