//! The log tells a harmless redelivery from a broken subscription, and shows one message's way
//! through several processes.

use hapax::model::Secret;
use hapax::simulator::Gate;
use hapax::simulator::bot::Bot;
use hapax::simulator::person::Person;
use hapax::simulator::script::Answer;
use serde_json::Value;

use crate::talk::{LOOK, Talk, field, is_of, key_of, post_raw};
use crate::world::{APP_SECRET, LIMIT, Node, World};

/// Posts a body again and again until a line about it is as `wanted`.
async fn post_until(
    world: &World,
    node: &Node,
    body: &[u8],
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let key = key_of(body);
    let found = async {
        loop {
            assert_eq!(post_raw(&world.clock, node.public, body).await.status, 200);
            let line = |line: &Value| is_of(line, key) && wanted(line);
            if let Some(line) = node.log().into_iter().find(line) {
                return line;
            }
            world.clock.sleep(LOOK).await;
        }
    };
    world.clock.timeout(LIMIT, found).await.expect("it is told")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_tells_count_gap_previous_status_and_cause() {
    let world = World::new();
    let node = world.node(&[]).await;
    let ann = Person::by_phone("15550001");
    let (_, body) = Talk::with(&world, &node, 1).text(&ann, "hello");
    let first = post_until(&world, &node, &body, |_| true).await;
    assert_eq!(field(&first, "verdict"), "accepted");
    assert_eq!(first["arrival.count"], 1);
    assert!(first.get("cause").is_none(), "nothing came again: {first}");

    // What the arrival before was answered is known a moment after that answer.
    let answered = |line: &Value| line["arrival.previous_status"].is_u64();
    let line = post_until(&world, &node, &body, answered).await;
    assert_eq!(field(&line, "verdict"), "duplicate");
    assert_eq!(line["arrival.previous_status"], 200);
    assert!(line["arrival.count"].as_u64() >= Some(2), "{line}");
    assert!(line["arrival.gap_ms"].is_u64(), "{line}");
    assert!(!field(&line, "cause").is_empty(), "{line}");
    assert_eq!(line["http.status"], 200);

    // Again and again although it was answered 200: that is not normal, and has its own name.
    let storm = |line: &Value| field(line, "cause") == "storm";
    let line = post_until(&world, &node, &body, storm).await;
    assert!(line["arrival.count"].as_u64() >= Some(8), "{line}");
    let mut counts: Vec<u64> = Vec::new();
    for line in node.log().iter().filter(|line| is_of(line, key_of(&body))) {
        counts.extend(line["arrival.count"].as_u64());
    }
    let expected: Vec<u64> = (1..=counts.len() as u64).collect();
    assert_eq!(counts, expected, "each arrival has its line, in order");
    world.settle(&node).await;
}

/// The first node takes the delivery, but its only worker is busy: the second one handles it.
#[tokio::test(flavor = "multi_thread")]
async fn one_message_can_be_followed_through_two_processes() {
    let world = World::new();
    let bot = Bot::start(Secret::new(APP_SECRET), world.clock.clone()).expect("a bot");
    let gate = Gate::closed();
    bot.when(|text| text == "busy", Answer::Status(200).held_by(&gate));
    let url = bot.url();
    let settings = [
        ("HAPAX_HANDLER", "forward"),
        ("HAPAX_BOT_URL", url.as_str()),
        ("HAPAX_WORKERS", "1"),
    ];
    let taking = world.node(&settings).await;
    let talk = Talk::with(&world, &taking, 1);
    talk.say(&Person::by_phone("15550001"), "busy").await;
    bot.wait_until(|calls| calls.len() == 1, LIMIT)
        .await
        .expect("the only worker is busy");
    let handling = world.node(&settings).await;
    let key = talk.say(&Person::by_phone("15550002"), "follow me").await;
    let turn = handling
        .logged(|line| is_of(line, key) && field(line, "message") == "turn finished")
        .await;
    let arrival = taking
        .logged(|line| is_of(line, key) && field(line, "verdict") == "accepted")
        .await;
    for name in ["event.key", "trace_id", "conversation.id"] {
        assert!(!field(&turn, name).is_empty(), "{name}");
        assert_eq!(field(&turn, name), field(&arrival, name), "{name}");
    }
    assert_eq!(arrival["process.pid"], taking.pid().as_raw_pid());
    assert_eq!(turn["process.pid"], handling.pid().as_raw_pid());
    let calls = bot.calls();
    let call = calls.iter().find(|call| call.text() == "follow me");
    let call = call.expect("it was forwarded");
    assert_eq!(call.header("x-hapax-event"), key.to_string());
    assert!(call.header("traceparent").contains(&key.to_string()));
    gate.release();
    world.settle(&taking).await;
}
