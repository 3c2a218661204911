//! PostgreSQL goes away under load and comes back: meanwhile a node answers 503 and lives on, and
//! what it had answered 200 is handled once. The server's connections are killed, or stand still.

use std::net::SocketAddr;
use std::time::Duration;

use hapax::clock::Clock;
use hapax::simulator::wire::Wire;

use crate::cluster::{Cluster, Stop};
use crate::load::{Load, judge, number, on_database, ready, until_ready};
use crate::provided::connect;
use crate::world::{Node, World};

const PEOPLE: usize = 8;
/// How long the database is away at least.
const OUTAGE: Duration = Duration::from_secs(20);

/// A wire in front of a server, and the address of its database through it.
async fn proxied(cluster: &Cluster) -> (Wire, String) {
    let target: SocketAddr = ([127, 0, 0, 1], cluster.port()).into();
    let wire = Wire::start(target, Clock::system()).await.expect("a port");
    let url = format!("postgres://hapax@127.0.0.1:{}/hapax", wire.port());
    (wire, url)
}

async fn end_well(nodes: Vec<Node>) {
    for mut node in nodes {
        assert_eq!(node.stop().await.code(), Some(0), "no process has ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_for_twenty_seconds_loses_nothing() {
    let mut cluster = Cluster::start(&[]).await;
    let url = cluster.url();
    let world = World::new();
    let settings = on_database(&url);
    let nodes = vec![world.node(&settings).await, world.node(&settings).await];
    let load = Load::start(&world, &[&nodes[0], &nodes[1]], PEOPLE);
    load.takes(200).await;

    cluster.stop(Stop::Immediate).await;
    let outage = world.clock.sleep(OUTAGE);
    load.refuses(5).await;
    for node in &nodes {
        until_ready(&world, node, 503).await;
    }
    load.refuses(5).await;
    outage.await;
    let before = load.answers();
    load.refuses(5).await;
    for (at, node) in nodes.iter().enumerate() {
        assert_eq!(ready(&world, node).await, 503);
        assert_eq!(
            load.answers()[at].taken,
            before[at].taken,
            "none stored, none taken"
        );
    }
    cluster.start_again().await;
    for node in &nodes {
        until_ready(&world, node, 200).await;
    }
    load.takes(200).await;
    let written = load.end().await;
    // At most the calls under way: marked, and the process could not know whether to make them.
    let missing = judge(&world, &nodes[0], &url, &written).await;
    assert!(missing <= PEOPLE, "{missing} replies never came");
    end_well(nodes).await;
}

const KILL: &str = "
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'hapax'";

/// Whatever the connections are doing, also between a commit and its answer.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_killed_again_and_again_lose_nothing() {
    let cluster = Cluster::start(&[]).await;
    let (wire, url) = proxied(&cluster).await;
    let world = World::new();
    let settings = on_database(&url);
    let nodes = vec![world.node(&settings).await, world.node(&settings).await];
    let admin = connect(&cluster.admin_url()).await.expect("a connection");
    let load = Load::start(&world, &[&nodes[0], &nodes[1]], PEOPLE);
    for _ in 0..10 {
        load.takes(20).await;
        assert!(number(&admin, KILL).await > 0);
        load.takes(20).await;
        wire.cut();
        wire.pass();
    }
    load.takes(100).await;
    let answers = load.answers();
    let written = load.end().await;
    assert!(answers.iter().any(|node| node.refused > 0), "{answers:?}");
    let missing = judge(&world, &nodes[0], &url, &written).await;
    assert_eq!(
        missing, 0,
        "nobody died, so every send was made or known not to be"
    );
    end_well(nodes).await;
}

/// One of two nodes loses the database without being told: no byte comes through any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_a_dead_wire_stops_in_time_and_comes_back() {
    for comes_back in [Wire::pass, Wire::cut] {
        let cluster = Cluster::start(&[]).await;
        let (wire, url) = proxied(&cluster).await;
        let direct = cluster.url();
        let world = World::new();
        let cut_off = world.node(&on_database(&url)).await;
        let other = world.node(&on_database(&direct)).await;
        let load = Load::start(&world, &[&cut_off, &other], PEOPLE);
        load.takes(100).await;

        wire.hold();
        until_ready(&world, &cut_off, 503).await;
        let before = load.answers();
        load.until("the other node goes on", |answers| {
            answers[0].refused >= before[0].refused + 5 && answers[1].taken >= before[1].taken + 50
        })
        .await;
        assert_eq!(load.answers()[0].taken, before[0].taken);
        cut_off.logged(says_of_lease).await;

        comes_back(&wire);
        wire.pass();
        until_ready(&world, &cut_off, 200).await;
        let before = load.answers()[0].taken;
        load.until("it takes again", |answers| answers[0].taken >= before + 50)
            .await;
        let written = load.end().await;
        let missing = judge(&world, &other, &direct, &written).await;
        assert!(missing <= PEOPLE, "{missing} replies never came");
        end_well(vec![cut_off, other]).await;
    }
}

fn says_of_lease(line: &serde_json::Value) -> bool {
    line["message"] == "the lease could not be renewed"
}
