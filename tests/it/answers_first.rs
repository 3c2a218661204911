//! A bot that answers 200 first and sends afterwards keeps its order and its once, if Hapax is told
//! to wait for what it sends; and what it has sent outlives a crash of Hapax.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hapax::simulator::Port;
use hapax::simulator::gate::Gate;
use tokio::sync::mpsc;

use crate::door::{Door, Heard, SendingBot};
use crate::engines::on_each_engine;
use crate::scene::person;
use crate::talk::{Talk, field};
use crate::world::{Node, World};

on_each_engine!(
    the_next_message_waits_until_the_bot_has_sent,
    what_was_sent_before_a_crash_is_not_sent_again_after_it,
);

const REPLY: [(&str, &str); 2] = [
    ("HAPAX_FORWARD_DONE", "reply"),
    ("HAPAX_FORWARD_TAIL", "50ms"),
];

async fn started(world: &World, bot: &SendingBot, more: &[(&str, &str)]) -> Node {
    let mut settings = bot.settings();
    settings.extend(REPLY);
    settings.extend(more);
    let node = world.node(&settings).await;
    bot.sends_through(&Door::of(&node).await);
    node
}

fn accepted(world: &World) -> Vec<String> {
    let sent = world.graph.accepted();
    let text = |body| field(body, "body").to_owned();
    sent.iter().map(|sent| text(&sent.body["text"])).collect()
}

async fn the_next_message_waits_until_the_bot_has_sent(world: World) {
    let (events, gate) = (Arc::new(Mutex::new(Vec::new())), Gate::closed());
    let bot = SendingBot::start({
        let (events, gate) = (Arc::clone(&events), gate.clone());
        move |door: Door, heard: Heard| {
            let (events, gate) = (Arc::clone(&events), gate.clone());
            async move {
                events.lock().unwrap().push(format!("hears {}", heard.text));
                tokio::spawn(async move {
                    gate.pass().await;
                    events.lock().unwrap().push(format!("sends {}", heard.text));
                    door.say(&heard.from, &heard.text).await.id();
                });
                200
            }
        }
    })
    .await;
    let node = started(&world, &bot, &[]).await;
    let talk = Talk::with(&world, &node, 1);
    for text in ["a", "b", "c"] {
        talk.say(&person(0), text).await;
    }
    gate.release();
    world.settle(&node).await;
    assert_eq!(accepted(&world), ["a", "b", "c"]);
    let events = events.lock().unwrap().clone();
    let expected = ["a", "b", "c"].map(|text| [format!("hears {text}"), format!("sends {text}")]);
    assert_eq!(events, expected.concat());
    let figures = node.figures().await;
    assert_eq!(figures.sum("hapax_bot_sends_late_total", ""), 0);
}

/// How often the bot was called, and what was accepted, when it sends in no attempt before this.
async fn without_reply(no_reply: &'static str, sends_from: u32) -> (u64, Vec<String>, u64) {
    let (world, calls) = (World::new(), Arc::new(AtomicU64::new(0)));
    let bot = SendingBot::start({
        let calls = Arc::clone(&calls);
        move |door: Door, heard: Heard| {
            calls.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                if heard.attempt >= sends_from {
                    let text = format!("attempt {}", heard.attempt);
                    door.say(&heard.from, &text).await.id();
                }
            });
            async { 200 }
        }
    })
    .await;
    let settings = [
        ("HAPAX_FORWARD_NO_REPLY", no_reply),
        ("HAPAX_FORWARD_REPLY_WAIT", "1s"),
    ];
    let node = started(&world, &bot, &settings).await;
    Talk::with(&world, &node, 1).say(&person(0), "hello").await;
    world.settle(&node).await;
    let dead = node.figures().await.dead_letters();
    (calls.load(Ordering::SeqCst), accepted(&world), dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_takes_a_message_and_sends_nothing_is_asked_again() {
    let (calls, accepted, dead) = without_reply("retry", 2).await;
    assert_eq!((calls, dead), (2, 0));
    assert_eq!(accepted, ["attempt 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_sends_nothing_may_have_nothing_to_say_or_be_a_dead_letter() {
    assert_eq!(without_reply("silence", 9).await, (1, Vec::new(), 0));
    assert_eq!(without_reply("dead_letter", 9).await, (1, Vec::new(), 1));
}

async fn what_was_sent_before_a_crash_is_not_sent_again_after_it(world: World) {
    let (gate, (told, mut is_told)) = (Gate::closed(), mpsc::channel(8));
    let bot = SendingBot::start({
        let gate = gate.clone();
        move |door: Door, heard: Heard| {
            let (gate, told) = (gate.clone(), told.clone());
            async move {
                let text = format!("in the words of attempt {}", heard.attempt);
                door.say(&heard.from, &text).await.id();
                told.send(()).await.expect("the test listens");
                if heard.attempt == 1 {
                    // Until nobody waits for the answer any more.
                    gate.pass().await;
                }
                200
            }
        }
    })
    .await;
    let port = Port::reserve().expect("a port");
    let listen = port.addr().to_string();
    let mut settings = bot.settings();
    settings.push(("HAPAX_BOT_LISTEN", &listen));
    let mut node = world.node(&settings).await;
    bot.sends_through(&Door::of(&node).await);
    Talk::with(&world, &node, 1).say(&person(0), "hello").await;
    is_told.recv().await.expect("the first attempt has sent");
    node.kill().await;
    gate.release();
    let node = world.node(&settings).await;
    let again = |line: &serde_json::Value| line["verdict"] == "diverged";
    node.logged(again).await;
    world.settle(&node).await;
    assert_eq!(accepted(&world), ["in the words of attempt 1"]);
    assert_eq!(node.figures().await.dead_letters(), 0);
}
