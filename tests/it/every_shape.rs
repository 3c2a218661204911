//! Every shape that Meta sends is taken, counted for what it is, and taken once.
//!
//! `HAPAX_PAYLOADS` names a file of others (lines of `{name, payload}`) to post instead of ours.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use hapax::model::{EventKey, EventKind};
use hapax::simulator::meta::Plan;
use hapax::whatsapp::decode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::talk::stored;
use crate::world::{Figures, World};

const OURS: &str = include_str!("../payloads/cloud-api.jsonl");

#[derive(Deserialize)]
struct Case<'a> {
    name: String,
    #[serde(borrow)]
    payload: &'a RawValue,
    expect: Option<Vec<Expected>>,
}

#[derive(Deserialize)]
struct Expected {
    kind: String,
}

impl Case<'_> {
    fn body(&self) -> Bytes {
        Bytes::copy_from_slice(self.payload.get().as_bytes())
    }

    /// The kind of each event: as the file says, or else as the decoder finds.
    fn kinds(&self) -> Vec<String> {
        match &self.expect {
            Some(expected) => expected.iter().map(|e| e.kind.clone()).collect(),
            None => decode(&self.body())
                .iter()
                .map(|event| event.kind().to_string())
                .collect(),
        }
    }
}

/// How often each kind should have been accepted, and how many arrivals were duplicates.
fn expected(cases: &[Case<'_>]) -> (BTreeMap<String, u64>, u64) {
    let mut seen: HashSet<EventKey> = HashSet::new();
    let mut accepted = BTreeMap::new();
    let mut duplicates = 0;
    for case in cases {
        let events = decode(&case.body());
        assert_eq!(events.len(), case.kinds().len(), "{}", case.name);
        for (event, kind) in events.iter().zip(case.kinds()) {
            if seen.insert(event.key) {
                *accepted.entry(kind).or_insert(0) += 1;
            } else {
                duplicates += 1;
            }
        }
    }
    (accepted, duplicates)
}

fn accepted(figures: &Figures) -> BTreeMap<String, u64> {
    let kinds = [EventKind::Message, EventKind::Status, EventKind::Notice];
    let count = |kind: EventKind| {
        let label = format!("kind=\"{kind}\",verdict=\"accepted\"");
        let count = figures.sum("hapax_events_total", &label);
        (count > 0).then(|| (kind.to_string(), count))
    };
    kinds.into_iter().filter_map(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_payload_is_answered_200_and_counted_for_what_it_is() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no config to take it from"
    )]
    let file = std::env::var("HAPAX_PAYLOADS");
    let lines = file.map_or(OURS.to_owned(), |file| {
        std::fs::read_to_string(file).expect("HAPAX_PAYLOADS names a readable file")
    });
    let cases: Vec<Case<'_>> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is a case"))
        .collect();
    let world = World::new();
    let node = world.node(&[]).await;
    let meta = world.meta(&node);
    for case in &cases {
        assert_eq!(meta.post(case.body()).await, Some(200), "{}", case.name);
    }
    world.settle(&node).await;
    let (kinds, twins) = expected(&cases);
    let figures = node.figures().await;
    assert_eq!(accepted(&figures), kinds);
    assert_eq!(figures.duplicates(), twins);
    let rejected = "verdict=\"rejected\"";
    assert_eq!(figures.sum("hapax_events_total", rejected), 0);
    let undecodable = "SELECT count(*) FROM notice WHERE kind = 'undecodable'";
    assert_eq!(stored(&world, undecodable), 0);
    let turns = figures.sum("hapax_turns_total", "");
    assert_eq!(
        Some(&turns),
        kinds.get("message"),
        "each message has one turn"
    );

    let events: u64 = kinds.values().sum::<u64>() + twins;
    let sent = world.graph.sent().len();
    for case in &cases {
        let again = meta.deliver(case.body(), &Plan::once()).await;
        assert_eq!(again.undelivered, 0, "{}", case.name);
    }
    world.settle(&node).await;
    let figures = node.figures().await;
    assert_eq!(figures.duplicates(), twins + events, "all of it was known");
    assert_eq!(accepted(&figures), kinds);
    assert_eq!(world.graph.sent().len(), sent, "nothing is answered twice");
}
