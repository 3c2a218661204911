//! What is old is forgotten by itself, and what is young is not.

use std::time::Duration;

use hapax::simulator::meta::Plan;
use rusqlite::Connection;

use crate::scene::{person, says, text};
use crate::world::{LIMIT, World};

/// No setting makes a real node forget what is younger than a week, so the file is made older
/// while nobody has it open.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_forgets_the_old_and_refuses_the_young() {
    let world = World::new();
    let mut node = world.node(&[]).await;
    let (ann, bob) = (person(1), person(2));
    let (old, young) = (text(&world, &ann, "old"), text(&world, &bob, "young"));
    for body in [&old, &young] {
        world.meta(&node).deliver(body.clone(), &Plan::once()).await;
    }
    world.settle(&node).await;
    assert!(node.stop().await.success());
    make_the_first_message_older(&world);

    let mut node = world.node(&[]).await;
    let told = node.logged(|line| says(line, "pruned")).await;
    assert_eq!(told["pruned.events"], 1);
    assert_eq!(node.figures().await.sum("hapax_pruned_events_total", ""), 1);
    for body in [old, young] {
        world.meta(&node).deliver(body, &Plan::once()).await;
    }
    world
        .graph
        .wait_until(|sent| sent.len() >= 3, LIMIT)
        .await
        .expect("the old one is new again");
    world.settle(&node).await;
    assert_eq!(node.figures().await.duplicates(), 1, "the young one is not");
    assert!(node.stop().await.success());
    assert_eq!(world.graph.accepted().len(), 3);
}

fn make_the_first_message_older(world: &World) {
    let months = Duration::from_secs(60 * 24 * 3600).as_millis() as i64;
    let file = Connection::open(world.store()).expect("the file opens");
    let older = "UPDATE event SET first_at = first_at - ?1 WHERE message = 1";
    let changed = file.execute(older, [months]).expect("it is made older");
    assert_eq!(changed, 1);
}
