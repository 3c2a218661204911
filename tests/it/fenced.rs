//! A process that was paused for longer than its lease comes back too late: the end of its turn
//! is refused, and what it then learns of its send is evidence.

use hapax::simulator::gate::Gate;
use hapax::simulator::meta::Meta;
use hapax::simulator::script::{Answer, Behaviour};
use rustix::process::Signal;
use serde_json::json;

use crate::engines::on_each_engine;
use crate::scene::{bot, person, say, says, text, until};
use crate::talk::{field, figures_until, received};
use crate::world::{LIMIT, Node, World};

on_each_engine!(
    a_process_that_wakes_up_after_its_lease_cannot_answer_a_second_time,
    a_process_that_wakes_up_in_the_middle_of_a_send_settles_it_and_sends_nothing_again,
);

/// Stops `node`, but never inside a write: it would hold the file's lock, and then no process
/// gets further until it goes on, or the locks of rows, and then none does until the database
/// ends its transaction. The other one taking a delivery shows that it does not.
async fn pause(world: &World, node: &Node, other: &Meta) {
    let pausing = async {
        for tries in 0.. {
            node.signal(Signal::STOP);
            let body = text(world, &person(1000), &format!("anybody there? #{tries}"));
            if other.post(body).await == Some(200) {
                return;
            }
            node.signal(Signal::CONT);
        }
    };
    let paused = world.clock.timeout(LIMIT, pausing).await;
    paused.expect("it is paused outside a write");
}

async fn a_process_that_wakes_up_after_its_lease_cannot_answer_a_second_time(world: World) {
    let bot = bot(&world);
    let gate = Gate::closed();
    let reply = Answer::json(|call| json!({ "text": format!("attempt {}", call["attempt"]) }));
    bot.script()
        .once_when(|call| call.text() == "hello", reply.clone().held_by(&gate));
    bot.when(|text| text == "hello", reply);
    bot.always(Answer::Status(204));
    let url = bot.url();
    let settings = [
        ("HAPAX_HANDLER", "ask"),
        ("HAPAX_BOT_URL", url.as_str()),
        ("HAPAX_ASK_SECRET", crate::world::APP_SECRET),
        ("HAPAX_TURN_DEADLINE", "10m"),
    ];
    let paused = world.node(&settings).await;
    say(&world, &world.meta(&paused), &person(1), "hello").await;
    until(&bot, "the turn begins", |calls| calls.len() == 1).await;
    // Only now, so that it is surely the first one that holds the turn.
    let other = world.node(&settings).await;
    pause(&world, &paused, &world.meta(&other)).await;

    let sent = |sent: &[hapax::simulator::Sent]| !sent.is_empty();
    let replied = world.graph.wait_until(sent, LIMIT).await;
    replied.expect("the other process takes the turn up and answers");
    let hello = crate::scene::calls_of(&bot, "hello");
    assert_eq!(hello.len(), 2);
    assert_eq!(hello[0].status, None, "the first call is still held");
    assert_eq!(
        hello[0].header("x-hapax-turn"),
        hello[1].header("x-hapax-turn")
    );

    paused.signal(Signal::CONT);
    gate.release();
    let turn = hello[0].header("x-hapax-turn");
    let fenced = paused
        .logged(|line| says(line, "a late finish was fenced") && line["turn.id"] == turn)
        .await;
    assert_eq!(fenced["turn.outcome"], "fenced");
    assert_eq!(fenced["turn.attempt"], 1);
    paused
        .logged(|line| says(line, "was paused for longer than the lease: joined anew"))
        .await;
    world.settle(&paused).await;
    world.settle(&other).await;

    let replies: Vec<String> = world
        .graph
        .accepted()
        .iter()
        .map(|sent| sent.text().to_owned())
        .collect();
    assert_eq!(replies, ["attempt 2"], "one reply, of who held the lease");
    let figures = paused.figures().await;
    assert_eq!(figures.sum("hapax_fenced_total", "write=\"finish\""), 1);
    assert_eq!(figures.dead_letters(), 0);
    // Who had been paused works on, as a new node.
    say(&world, &world.meta(&paused), &person(1), "and now?").await;
    until(&bot, "the conversation goes on", |calls| {
        calls
            .iter()
            .any(|call| call.text() == "and now?" && call.status == Some(204))
    })
    .await;
}

/// The answer of the pretend Graph comes while the process that asked for it is stopped, and long
/// taken for dead.
async fn a_process_that_wakes_up_in_the_middle_of_a_send_settles_it_and_sends_nothing_again(
    world: World,
) {
    let ann = person(1);
    let gate = Gate::closed();
    world.graph.next(Behaviour::Hold(gate.clone()));
    let settings = [
        ("HAPAX_SEND_TIMEOUT", "10m"),
        ("HAPAX_SEND_UNSURE_WAIT", "10m"),
    ];
    let paused = world.node(&settings).await;
    say(&world, &world.meta(&paused), &ann, "one").await;
    let called = |sent: &[hapax::simulator::Sent]| !sent.is_empty();
    let called = world.graph.wait_until(called, LIMIT).await;
    called.expect("the call is out");
    // Only now, so that it is surely the first one that makes the call.
    let other = world.node(&settings).await;
    let meta = world.meta(&other);
    pause(&world, &paused, &meta).await;

    let unsure = |figures: &crate::world::Figures| figures.sum("hapax_outgoing_unsure", "") == 1;
    figures_until(&world, &other, unsure).await;
    say(&world, &meta, &ann, "two").await;
    // Its reply is decided, and waits behind the one that is unsure.
    let decided = |line: &serde_json::Value| {
        says(line, "turn finished") && field(line, "turn.id").ends_with("_2")
    };
    other.logged(decided).await;
    assert_eq!(received(&world, &ann), ["one"], "the next reply waits");

    paused.signal(Signal::CONT);
    gate.release();
    let next = |sent: &[hapax::simulator::Sent]| sent.iter().any(|sent| sent.text() == "two");
    let next = world.graph.wait_until(next, LIMIT).await;
    next.expect("what the late answer settles lets the next one pass");
    let settled = paused
        .logged(|line| says(line, "sent") && field(line, "send.result") == "accepted")
        .await;
    assert_eq!(settled["outgoing.attempt"], 1);
    paused
        .logged(|line| says(line, "was paused for longer than the lease: joined anew"))
        .await;
    world.settle(&paused).await;
    world.settle(&other).await;
    assert_eq!(received(&world, &ann), ["one", "two"], "each once");
    let asked = world.graph.sent();
    let asked = asked.iter().filter(|sent| sent.text() == "one").count();
    assert_eq!(asked, 1, "nothing is sent again on a guess");
    for node in [&paused, &other] {
        let figures = node.figures().await;
        assert_eq!(figures.sum("hapax_outgoing_unsure", ""), 0);
        assert_eq!(figures.sum("hapax_dead_letters_total", ""), 0);
        assert_eq!(figures.dead_letters(), 0);
    }
}
