//! The same thing said many times is heard once.

use hapax::simulator::meta::Plan;
use hapax::simulator::payload::{Element, Side, single, wamid};
use hapax::simulator::person::Person;
use hapax::simulator::seed::Draw;

use crate::engines::on_each_engine;
use crate::world::{LIMIT, NUMBER, World};

on_each_engine!(fifty_copies_to_two_processes_are_handled_once);

/// The same delivery posted 50 times at once to two processes on one file.
async fn fifty_copies_to_two_processes_are_handled_once(world: World) {
    let nodes = [world.node(&[]).await, world.node(&[]).await];
    let ann = Person::by_both("15550001", "US.1");
    let id = wamid(&ann, Side::Person, &mut Draw::new(1));
    let body = single(&Element::text(
        NUMBER,
        &ann,
        &id,
        world.clock.now(),
        "hello",
    ));
    let (one, two) = (world.meta(&nodes[0]), world.meta(&nodes[1]));
    let half = Plan::at_once(25);
    let (first, second) = tokio::join!(
        one.deliver(body.clone(), &half),
        two.deliver(body.clone(), &half)
    );
    assert!(
        first.undelivered + second.undelivered == 0,
        "every copy is answered 200"
    );
    world
        .graph
        .wait_until(|sent| !sent.is_empty(), LIMIT)
        .await
        .expect("a reply comes");
    for node in &nodes {
        world.settle(node).await;
    }
    let mut duplicates = 0;
    for node in &nodes {
        duplicates += node.figures().await.duplicates();
    }
    assert_eq!(duplicates, 49);
    assert_eq!(world.graph.accepted().len(), 1, "one reply");
}
