//! One POST with many events: each is taken for itself.

use std::collections::HashSet;

use bytes::Bytes;
use hapax::simulator::checker::{Terms, check};
use hapax::simulator::payload::{Element, Layout, Side, StatusOf, delivery, wamid};
use hapax::simulator::seed::Draw;
use serde_json::{Value, json};

use crate::scene::{person, says};
use crate::world::{NUMBER, World};

const MESSAGES: usize = 600;
const STATUSES: usize = 217;
const EACH_NOTICE: usize = 60;
const BROKEN: usize = 3;
const ALL: usize = MESSAGES + STATUSES + 3 * EACH_NOTICE + BROKEN;
const PEOPLE: usize = 200;

fn messages(world: &World, draw: &mut Draw) -> Vec<Element> {
    let message = |n: usize| {
        let writer = person(n % PEOPLE);
        let id = wamid(&writer, Side::Person, draw);
        Element::text(
            NUMBER,
            &writer,
            &id,
            world.clock.now(),
            &format!("text #{n}"),
        )
    };
    (0..MESSAGES).map(message).collect()
}

fn statuses(world: &World, draw: &mut Draw) -> Vec<Element> {
    let status = |n: usize| {
        let reader = person(n % PEOPLE);
        let id = wamid(&reader, Side::Business, draw);
        let of = StatusOf {
            wamid: &id,
            person: &reader,
            status: ["sent", "delivered", "read"][n % 3],
            code: None,
            tag: None,
            participant: None,
        };
        Element::status(NUMBER, &of, world.clock.now())
    };
    (0..STATUSES).map(status).collect()
}

/// What looks like a message and is none, and a field that nobody knows.
fn notices(n: usize) -> [Value; 3] {
    let metadata = json!({ "display_phone_number": "1", "phone_number_id": NUMBER });
    let message = |kind: &str| {
        json!({
            "from": "15550000001", "id": format!("wamid.{kind}{n}"), "timestamp": "1790000000",
            "type": "text", "text": { "body": format!("never answer {kind} #{n}") },
        })
    };
    [
        json!({ "field": "smb_message_echoes", "value": {
            "metadata": metadata, "message_echoes": [message("echo")] } }),
        json!({ "field": "standby", "value": {
            "metadata": metadata, "standby": { "messages": [message("standby")] } } }),
        json!({ "field": "field_of_tomorrow", "value": {
            "metadata": metadata, "messages": [message("tomorrow")] } }),
    ]
}

/// A message that is no object, one without id, and a change that is none.
fn broken() -> [Value; BROKEN] {
    let in_messages = |message: Value| {
        json!({ "field": "messages", "value": {
            "metadata": { "phone_number_id": NUMBER }, "messages": [message] } })
    };
    [
        in_messages(json!(42)),
        in_messages(json!({ "from": "15550000001", "type": "text", "text": { "body": "no id" } })),
        json!("no change at all"),
    ]
}

/// Everything in one body, in any order, in all layouts that Meta has.
fn body(world: &World, draw: &mut Draw) -> Bytes {
    let mut elements = messages(world, draw);
    elements.extend(statuses(world, draw));
    let entries = |body: &Bytes| {
        let body: Value = serde_json::from_slice(body).expect("is JSON");
        body["entry"].as_array().expect("has entries").clone()
    };
    let mut parts: Vec<Value> = Vec::new();
    // Two messages of one person must keep their order, so chunks stay as they are.
    for chunk in elements.chunks(23) {
        let chunk: Vec<&Element> = chunk.iter().collect();
        parts.extend(entries(&delivery(&chunk, *draw.pick(&Layout::ALL))));
    }
    let others = (0..EACH_NOTICE).flat_map(notices).chain(broken());
    for change in others {
        let at = draw.below(parts.len() as u64 + 1) as usize;
        parts.insert(at, json!({ "id": "100000000000001", "changes": [change] }));
    }
    let body = json!({ "object": "whatsapp_business_account", "entry": parts });
    Bytes::from(body.to_string())
}

/// A thousand events in one POST, three of them broken: one 200, nothing lost, nothing twice,
/// and only what people wrote is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_events_in_one_post_are_all_taken_and_broken_ones_harm_nobody() {
    let world = World::new();
    let node = world.node(&[]).await;
    let meta = world.meta(&node);
    let body = body(&world, &mut Draw::new(2));
    assert_eq!(ALL, 1000);
    assert_eq!(meta.post(body.clone()).await, Some(200));
    world.settle(&node).await;

    let report = world.history.read(|record| check(record, &Terms::Echo));
    assert!(report.is_clean(), "{report}: {report:?}");
    assert_eq!(
        report.replies, MESSAGES as u64,
        "only messages are answered"
    );
    let figures = node.figures().await;
    let accepted = |kind: &str| {
        let series = format!("kind=\"{kind}\",verdict=\"accepted\"");
        figures.sum("hapax_events_total", &series) as usize
    };
    assert_eq!(accepted("message"), MESSAGES);
    assert_eq!(accepted("status"), STATUSES);
    assert_eq!(accepted("notice"), 3 * EACH_NOTICE + BROKEN);
    assert_eq!(figures.dead_letters(), 0);
    let log = node.log();
    let arrivals = log.iter().filter(|line| says(line, "arrival"));
    let keys: HashSet<&str> = arrivals
        .filter_map(|line| line["event.key"].as_str())
        .collect();
    assert_eq!(
        keys.len(),
        ALL,
        "each event has a key and a line of its own"
    );

    assert_eq!(meta.post(body).await, Some(200));
    world.settle(&node).await;
    assert_eq!(node.figures().await.duplicates(), ALL as u64);
    assert_eq!(world.graph.accepted().len(), MESSAGES);
}
