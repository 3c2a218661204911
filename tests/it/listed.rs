//! Operators are told of every outgoing and of every open dead letter, and of nobody's number.

use std::net::SocketAddr;

use hapax::simulator::person::Person;
use hapax::simulator::script::Behaviour;
use serde_json::{Value, json};

use crate::engines::on_each_engine;
use crate::talk::{Talk, figures_until, reporting, wamid_of};
use crate::world::{LIMIT, World};

on_each_engine!(outgoings_are_listed_in_pages_and_the_dead_ones_with_their_reason,);

const CLOSED_WINDOW: i64 = 131_047;

/// What the admin side answers, which is JSON.
async fn listed(admin: SocketAddr, path: &str) -> Value {
    let client = reqwest::Client::builder().no_proxy().build();
    let url = format!("http://{admin}{path}");
    let answer = client.expect("a client").get(url).send().await;
    let answer = answer.expect("the admin side answers");
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.expect("JSON")
}

async fn outgoings_are_listed_in_pages_and_the_dead_ones_with_their_reason(world: World) {
    let node = world.node(&[]).await;
    let _courier = reporting(&world, &node);
    let talk = Talk::with(&world, &node, 1);
    let (ann, bob) = (Person::by_phone("15550001"), Person::by_phone("15550002"));
    talk.say(&ann, "one").await;
    let sent = world.graph.wait_until(|sent| sent.len() == 1, LIMIT).await;
    sent.expect("it is sent");
    world.settle(&node).await;
    let known = wamid_of(&world, "one");
    assert!(
        world.graph.report(&known, "read", None).await,
        "it is reported"
    );
    let read = "kind=\"status\"";
    figures_until(&world, &node, |f| f.sum("hapax_events_total", read) == 1).await;
    let (http, code) = (400, CLOSED_WINDOW);
    world.graph.next(Behaviour::Reject { http, code });
    talk.say(&bob, "two").await;
    figures_until(&world, &node, |figures| figures.dead_letters() == 1).await;

    let all = listed(node.admin, "/v1/outgoing").await;
    let outgoing = all["outgoing"].as_array().expect("a list");
    let [one, two] = outgoing.as_slice() else {
        panic!("two replies were made: {all}");
    };
    assert_eq!(all["next"], Value::Null);
    let standing =
        |of: &Value| json!([of["state"], of["attempt"], of["rank"], of["failed_attempt"]]);
    assert_eq!(standing(one), json!(["sent", 1, "read", null]));
    assert_eq!(standing(two), json!(["dead", 1, "none", null]));

    let first = listed(node.admin, "/v1/outgoing?limit=1").await;
    assert_eq!(first, json!({"outgoing": [one], "next": one["id"]}));
    let next = one["id"].as_str().expect("an id");
    let second = listed(node.admin, &format!("/v1/outgoing?after={next}&limit=1")).await;
    assert_eq!(second, json!({"outgoing": [two], "next": null}));

    let dead = listed(node.admin, "/v1/dead-letters").await;
    let letter = &dead["dead_letters"][0];
    for name in ["conversation", "turn"] {
        assert_eq!(letter[name], two[name], "{dead}");
    }
    assert_eq!(letter["outgoing"], two["id"]);
    assert_eq!(
        (&letter["kind"], &letter["attempts"]),
        (&json!("outgoing"), &json!(1))
    );
    let reason = letter["reason"].as_str().expect("a reason");
    assert!(reason.contains("24-hour window"), "{reason}");
    for shown in [&all, &dead] {
        let text = shown.to_string();
        for secret in ["1555", known.as_str()] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
