//! The primary dies under load and its standby takes over: what was answered 200 is there,
//! because no commit was answered before the standby had it. Without such a standby several
//! hosts are refused.

use crate::cluster::{Cluster, Stop};
use crate::load::{Load, judge, number, on_database, until_number, until_ready};
use crate::provided::connect;
use crate::scene::{person, say};
use crate::world::{LIMIT, World};

const PEOPLE: usize = 8;

async fn commits_wait_for_a_standby(world: &World, primary: &Cluster) {
    let names = "ALTER SYSTEM SET synchronous_standby_names = 'second'";
    primary.execute(names).await;
    primary.execute("SELECT pg_reload_conf()").await;
    let admin = connect(&primary.admin_url()).await.expect("a connection");
    let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    until_number(world, &admin, synchronous, 1).await;
}

fn both(one: &Cluster, two: &Cluster) -> String {
    let (one, two) = (one.port(), two.port());
    format!(
        "postgres://hapax@127.0.0.1:{one},127.0.0.1:{two}/hapax?target_session_attrs=read-write"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_synchronous_standby_loses_nothing_that_was_acknowledged() {
    let mut primary = Cluster::start(&[]).await;
    let standby = primary.standby("second").await;
    let world = World::new();
    commits_wait_for_a_standby(&world, &primary).await;
    let url = both(&primary, &standby);
    let settings = on_database(&url);
    let nodes = [world.node(&settings).await, world.node(&settings).await];
    let load = Load::start(&world, &[&nodes[0], &nodes[1]], PEOPLE);
    load.takes(300).await;

    primary.stop(Stop::Immediate).await;
    load.refuses(3).await;
    standby.promote().await;
    for node in &nodes {
        until_ready(&world, node, 200).await;
    }
    load.takes(300).await;
    let written = load.end().await;
    let new = standby.url();
    let missing = judge(&world, &nodes[0], &new, &written).await;
    assert!(missing <= PEOPLE, "{missing} replies never came");

    let client = connect(&new).await.expect("a connection");
    assert_eq!(number(&client, "SELECT era FROM hapax.ledger").await, 1);
    let lowest = "SELECT count(*) FROM hapax.turn WHERE epoch > 1::int8 << 40";
    assert!(
        number(&client, lowest).await >= 300,
        "epochs go on above all that were"
    );
    let raised = "the database has failed over: every epoch is raised";
    let told = nodes.iter().flat_map(|node| node.log());
    let told = told.filter(|line| line["message"] == raised).count();
    assert_eq!(told, 1, "one transaction has raised them");
    for mut node in nodes {
        assert_eq!(node.stop().await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hosts_without_a_synchronous_standby_are_taken_only_when_told_so() {
    let primary = Cluster::start(&[]).await;
    let world = World::new();
    let elsewhere = primary.port();
    let url = format!("postgres://hapax@127.0.0.1:{elsewhere},127.0.0.1:1/hapax");
    let settings = on_database(&url);
    let mut command = world.command(&settings);
    let output = world
        .clock
        .timeout(LIMIT, command.arg("serve").output())
        .await;
    let output = output.expect("it ends in time").expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{said}");
    for word in ["synchronous_standby_names", "store.async_failover"] {
        assert!(said.contains(word), "{said}");
    }

    let mut settings = settings;
    settings.push(("HAPAX_STORE_ASYNC_FAILOVER", "allow"));
    let node = world.node(&settings).await;
    say(&world, &world.meta(&node), &person(1), "hello").await;
    world.settle(&node).await;
}
