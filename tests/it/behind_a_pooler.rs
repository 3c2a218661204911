//! PgBouncer in transaction mode between the nodes and the database: each transaction may run on
//! another connection, and nobody hears another process's wake-ups.

use hapax::simulator::meta::Plan;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::load::{Load, judge, number, on_database};
use crate::pooler::Pooler;
use crate::provided::connect;
use crate::scene::{person, text};
use crate::world::{LIMIT, World};

const PEOPLE: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_behind_a_pooler_handle_each_message_once_and_in_order() {
    let cluster = Cluster::start(&[]).await;
    let pooler = Pooler::start(cluster.port()).await;
    let url = pooler.url();
    let world = World::new();
    let mut settings = on_database(&url);
    settings.push(("HAPAX_STORE_POOLER", "transaction"));
    let nodes = [world.node(&settings).await, world.node(&settings).await];
    let load = Load::start(&world, &[&nodes[0], &nodes[1]], PEOPLE);
    load.takes(300).await;
    let written = load.end().await;
    assert_eq!(judge(&world, &nodes[0], &cluster.url(), &written).await, 0);

    let mut copies = JoinSet::new();
    for index in 0..20 {
        let body = text(&world, &person(100 + index), "again");
        for node in &nodes {
            let (meta, body) = (world.meta(node), body.clone());
            copies.spawn(async move { meta.deliver(body, &Plan::at_once(5)).await });
        }
    }
    let delivered = world.clock.timeout(LIMIT, copies.join_all()).await;
    let delivered = delivered.expect("all are taken in time");
    assert!(delivered.iter().all(|one| one.undelivered == 0));
    world.settle(&nodes[0]).await;
    let client = connect(&cluster.url()).await.expect("a connection");
    let again = "SELECT count(*) FROM hapax.event WHERE kind = 1 AND arrivals = 10";
    assert_eq!(number(&client, again).await, 20);
    let replies = world.graph.accepted();
    let replies = replies.iter().filter(|sent| sent.text() == "again").count();
    assert_eq!(replies, 20);
    for mut node in nodes {
        assert_eq!(node.stop().await.code(), Some(0));
    }
}
