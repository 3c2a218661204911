//! What tests say again and again: a person who writes, a bot that is called, a line of the log.

use std::time::Duration;

use bytes::Bytes;
use hapax::model::Secret;
use hapax::simulator::bot::{Bot, Call};
use hapax::simulator::meta::{Meta, Plan};
use hapax::simulator::payload::{Element, Side, single, wamid};
use hapax::simulator::person::Person;
use hapax::simulator::seed::Draw;
use serde_json::Value;

use crate::world::{APP_SECRET, LIMIT, NUMBER, Node, World};

/// The `index`-th of several people.
pub(crate) fn person(index: usize) -> Person {
    Person::by_both(&format!("1555{index:07}"), &format!("US.{index:010}"))
}

/// A delivery with one text. Each text of a person is one message, however often it is made.
pub(crate) fn text(world: &World, person: &Person, text: &str) -> Bytes {
    let mut draw = Draw::new(1).fork(text);
    let id = wamid(person, Side::Person, &mut draw);
    let element = Element::text(NUMBER, person, &id, world.clock.now(), text);
    single(&element)
}

/// Delivers a text, again until it is answered 200.
pub(crate) async fn say(world: &World, meta: &Meta, person: &Person, said: &str) {
    deliver(meta, text(world, person, said)).await;
}

/// Delivers a body, again until it is answered 200.
pub(crate) async fn deliver(meta: &Meta, body: Bytes) {
    let delivered = meta.deliver(body, &Plan::once()).await;
    assert_eq!(delivered.copies, 1, "a delivery is answered 200");
}

/// A bot that knows the secret with which it is called.
pub(crate) fn bot(world: &World) -> Bot {
    Bot::start(Secret::new(APP_SECRET), world.clock.clone()).expect("the bot starts")
}

/// Waits until the bot's calls are as wanted.
pub(crate) async fn until(bot: &Bot, why: &str, wanted: impl FnMut(&[Call]) -> bool) {
    if bot.wait_until(wanted, LIMIT).await.is_err() {
        let calls: Vec<(String, String, Option<u16>)> = bot
            .calls()
            .iter()
            .map(|call| {
                let attempt = call.header("x-hapax-attempt").to_owned();
                (call.text(), attempt, call.status)
            })
            .collect();
        panic!("{why}; the calls were {calls:?}");
    }
}

/// Whether the bot has taken a call with this text.
pub(crate) fn took(calls: &[Call], text: &str) -> bool {
    calls
        .iter()
        .any(|call| call.text() == text && call.status == Some(200))
}

/// The texts that the bot took, in order.
pub(crate) fn taken(bot: &Bot) -> Vec<String> {
    let calls = bot.calls();
    let taken = calls.iter().filter(|call| call.status == Some(200));
    taken.map(Call::text).collect()
}

/// The calls with this text, in order.
pub(crate) fn calls_of(bot: &Bot, text: &str) -> Vec<Call> {
    let mut calls = bot.calls();
    calls.retain(|call| call.text() == text);
    calls
}

/// Whether a log line says this.
pub(crate) fn says(line: &Value, message: &str) -> bool {
    line["message"] == message
}

/// Waits until so many log lines are as wanted.
pub(crate) async fn logged_times(
    world: &World,
    node: &Node,
    times: usize,
    wanted: impl Fn(&Value) -> bool,
) {
    let logged = async {
        while node.log().iter().filter(|line| wanted(line)).count() < times {
            world.clock.sleep(Duration::from_millis(20)).await;
        }
    };
    let logged = world.clock.timeout(LIMIT, logged).await;
    logged.expect("it is logged so often");
}
