//! SIGTERM: what runs may finish, what does not is given back, and nothing new is taken.

use std::sync::Arc;

use hapax::simulator::gate::Gate;
use hapax::simulator::script::Answer;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::door::{Door, Heard, SendingBot};
use crate::engines::on_each_engine;
use crate::scene::{bot, calls_of, person, say, says, taken, text, took, until};
use crate::world::{LIMIT, Node, World};

on_each_engine!(
    a_turn_that_runs_at_the_signal_finishes_before_the_exit_and_nothing_new_is_taken,
    a_turn_that_does_not_finish_in_time_is_given_back_and_costs_no_attempt,
    a_second_signal_ends_the_process_at_once_and_the_turn_is_tried_again,
    a_bot_that_is_at_work_at_the_signal_can_still_send,
);

async fn forwarding(world: &World, url: &str, settings: &[(&str, &str)]) -> Node {
    let mut all = vec![
        ("HAPAX_HANDLER", "forward"),
        ("HAPAX_BOT_URL", url),
        ("HAPAX_TURN_DEADLINE", "10m"),
    ];
    all.extend(settings);
    world.node(&all).await
}

/// Waits until nobody listens for deliveries any more.
async fn until_closed(world: &World, node: &Node) {
    let closed = async {
        while TcpStream::connect(node.public).await.is_ok() {
            world
                .clock
                .sleep(std::time::Duration::from_millis(20))
                .await;
        }
    };
    let closed = world.clock.timeout(LIMIT, closed).await;
    closed.expect("the door is closed while the turn goes on");
}

async fn a_bot_that_is_at_work_at_the_signal_can_still_send(world: World) {
    let (gate, called) = (Gate::closed(), Arc::new(Notify::new()));
    let bot = SendingBot::start({
        let (gate, called) = (gate.clone(), Arc::clone(&called));
        move |door: Door, heard: Heard| {
            let (gate, called) = (gate.clone(), Arc::clone(&called));
            async move {
                called.notify_one();
                gate.pass().await;
                door.say(&heard.from, "after the signal").await.id();
                200
            }
        }
    })
    .await;
    let drain = [("HAPAX_WORKER_DRAIN_TIMEOUT", "10m")];
    let mut node = forwarding(&world, &bot.url, &drain).await;
    bot.sends_through(&Door::of(&node).await);
    say(&world, &world.meta(&node), &person(1), "hello").await;
    called.notified().await;
    node.signal(Signal::TERM);
    until_closed(&world, &node).await;
    gate.release();
    assert_eq!(node.ended().await.code(), Some(0));
    let sent = world.graph.accepted();
    let texts: Vec<&str> = sent.iter().map(|sent| sent.text()).collect();
    assert_eq!(texts, ["after the signal"]);
}

async fn a_turn_that_runs_at_the_signal_finishes_before_the_exit_and_nothing_new_is_taken(
    world: World,
) {
    let bot = bot(&world);
    let gate = Gate::closed();
    bot.next(Answer::Status(200).held_by(&gate));
    let url = bot.url();
    let drain = [
        ("HAPAX_WORKER_DRAIN_TIMEOUT", "10m"),
        // On a machine that stands still for a second, a short lease would be over, and the turn
        // would be taken up again.
        ("HAPAX_NODE_LEASE_TTL", "60s"),
    ];
    let mut node = forwarding(&world, &url, &drain).await;
    let meta = world.meta(&node);
    say(&world, &meta, &person(1), "under way").await;
    until(&bot, "the turn runs", |calls| calls.len() == 1).await;
    // Taken before the signal, but not begun: left for the next process.
    say(&world, &meta, &person(1), "waiting").await;
    node.signal(Signal::TERM);
    until_closed(&world, &node).await;
    let late = text(&world, &person(2), "too late");
    // On a connection of its own: one that is open may carry a last request.
    let taken_late = world.meta(&node).post(late.clone()).await;
    assert_eq!(taken_late, None, "no delivery is taken");
    gate.release();
    let ended = node.ended().await;
    assert_eq!(ended.code(), Some(0));

    assert_eq!(taken(&bot), ["under way"], "finished before the exit");
    node.logged(|line| says(line, "turn finished")).await;
    node.logged(|line| says(line, "drained")).await;
    let next = forwarding(&world, &url, &drain).await;
    let meta = world.meta(&next);
    assert_eq!(meta.post(late).await, Some(200));
    until(&bot, "the next process goes on", |calls| {
        took(calls, "waiting") && took(calls, "too late")
    })
    .await;
    world.settle(&next).await;
    assert_eq!(bot.calls().len(), 3, "each once");
}

/// The leases are so long that only what was given back can be handled within the test.
async fn a_turn_that_does_not_finish_in_time_is_given_back_and_costs_no_attempt(world: World) {
    let bot = bot(&world);
    bot.next(Answer::Hang);
    let url = bot.url();
    let settings = [
        ("HAPAX_WORKER_DRAIN_TIMEOUT", "1s"),
        ("HAPAX_NODE_LEASE_TTL", "10m"),
    ];
    let mut node = forwarding(&world, &url, &settings).await;
    say(&world, &world.meta(&node), &person(1), "unfinished").await;
    until(&bot, "the turn runs", |calls| calls.len() == 1).await;
    let ended = node.stop().await;
    assert_eq!(ended.code(), Some(0));
    node.logged(|line| says(line, "turn released") && line["reason"] == "stopping")
        .await;

    let next = forwarding(&world, &url, &settings).await;
    until(&bot, "the next process takes it", |calls| {
        took(calls, "unfinished")
    })
    .await;
    world.settle(&next).await;
    let calls = calls_of(&bot, "unfinished");
    let attempts: Vec<&str> = calls.iter().map(|c| c.header("x-hapax-attempt")).collect();
    assert_eq!(attempts, ["1", "1"], "the attempt was not counted");
    assert_eq!(calls[0].status, None, "the first call was cut");
}

async fn a_second_signal_ends_the_process_at_once_and_the_turn_is_tried_again(world: World) {
    let bot = bot(&world);
    bot.next(Answer::Hang);
    let url = bot.url();
    let drain = [("HAPAX_WORKER_DRAIN_TIMEOUT", "10m")];
    let mut node = forwarding(&world, &url, &drain).await;
    say(&world, &world.meta(&node), &person(1), "hello").await;
    until(&bot, "the turn runs", |calls| calls.len() == 1).await;
    node.signal(Signal::TERM);
    until_closed(&world, &node).await;
    node.signal(Signal::TERM);
    let ended = node.ended().await;
    assert_eq!(ended.code(), Some(130));
    assert!(!node.log().iter().any(|line| says(line, "drained")));

    let next = forwarding(&world, &url, &drain).await;
    until(&bot, "the lease ends", |calls| took(calls, "hello")).await;
    world.settle(&next).await;
    let calls = calls_of(&bot, "hello");
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1].header("x-hapax-attempt"), "2");
}
