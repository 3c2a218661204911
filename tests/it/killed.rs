//! `kill -9`: what was answered 200 is handled after the next start, and nothing twice.

use std::collections::HashMap;
use std::time::Duration;

use hapax::model::{OutgoingId, Secret, Tag};
use hapax::simulator::checker::Breach;
use hapax::simulator::rehearsal::{Rehearsal, Settings};
use hapax::simulator::script::Answer;
use hapax::simulator::seed::Draw;
use hapax::store::{DeadKind, DeadLetter};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

use crate::engines::on_each_engine;
use crate::scene::{bot, calls_of, person, say, says, until};
use crate::world::{APP_SECRET, LIMIT, Node, VERIFY_TOKEN, World};

on_each_engine!(
    a_turn_that_ran_at_the_kill_is_tried_again_as_the_same_turn,
    a_message_that_kills_its_process_each_time_ends_as_a_dead_letter,
);

const MESSAGES: u64 = 2000;
const KILLS: usize = 5;
const SENDS_AT_ONCE: &str = "8";

/// Another one each time; `HAPAX_TEST_SEED` repeats a run.
#[expect(clippy::print_stderr, reason = "shown when the test fails")]
pub(crate) fn seed(world: &World) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test has no config")]
    let chosen = std::env::var("HAPAX_TEST_SEED").ok();
    let chosen = chosen.map(|seed| seed.parse().expect("HAPAX_TEST_SEED is a number"));
    let seed = chosen.unwrap_or(world.clock.now().0.cast_unsigned());
    eprintln!("to repeat this run: HAPAX_TEST_SEED={seed}");
    seed
}

/// An address that stays ours while nobody listens: Meta delivers to one URL all the time.
fn reserve() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("may be shared");
    let any = "127.0.0.1:0".parse().expect("an address");
    socket.bind(any).expect("a free port");
    let address = socket.local_addr().expect("is bound").to_string();
    (socket, address)
}

fn rehearsal(world: &World, seed: u64, address: &str) -> Rehearsal {
    let url = format!("http://{address}/webhook");
    let secrets = (Secret::new(APP_SECRET), Secret::new(VERIFY_TOKEN));
    let mut settings = Settings::live(url, secrets.0, secrets.1).counted(MESSAGES);
    settings.seed = seed;
    settings.people = 40;
    // Longer than a send can stay unsure.
    settings.patience = Duration::from_secs(12);
    Rehearsal::new(settings, &world.graph, world.clock.clone()).expect("a client")
}

async fn dead_letters(world: &World) -> Vec<DeadLetter> {
    let ledger = world.ledger().await;
    let letters = ledger.dead_letters(10_000).await.expect("they are read");
    ledger.close().await;
    letters
}

/// How many messages may lack a reply: those whose send was marked but did not come to Meta
/// before the kill. Nobody can tell such a send from one that came through, so it is a dead
/// letter and not sent again. Every other dead letter would be a fault.
pub(crate) async fn never_sent(world: &World) -> u64 {
    let sent: HashMap<OutgoingId, String> = world
        .graph
        .accepted()
        .into_iter()
        .filter_map(|sent| Some((Tag::parse(&sent.tag?)?.outgoing, sent.wamid?)))
        .collect();
    let mut never = 0;
    for letter in dead_letters(world).await {
        assert_eq!(letter.kind, DeadKind::Unsure, "{letter:?}");
        let outgoing = letter.outgoing.expect("it was a send");
        match sent.get(&outgoing) {
            None => never += 1,
            Some(wamid) => world.history.read(|record| {
                let told = record.statuses.keys().any(|key| key.wamid == *wamid);
                assert!(!told, "a receipt tells what became of {outgoing}");
            }),
        }
    }
    never
}

/// Five kills in a run of two thousand messages, at moments that the seed decides.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_all_that_was_acknowledged_is_answered_once() {
    let world = World::new();
    let seed = seed(&world);
    let (_reserved, address) = reserve();
    let settings = [
        ("HAPAX_PUBLIC_LISTEN", address.as_str()),
        ("HAPAX_SEND_UNSURE_WAIT", "4s"),
        ("HAPAX_SEND_CONCURRENCY", SENDS_AT_ONCE),
    ];
    let mut draw = Draw::new(seed).fork("kills");
    let mut moments: Vec<u64> = (0..KILLS)
        .map(|_| draw.between(20, MESSAGES - 20))
        .collect();
    moments.sort_unstable();
    let mut node = world.node(&settings).await;
    let rehearsal = rehearsal(&world, seed, &address);
    let mut progress = rehearsal.watch();
    let kills = async {
        for moment in moments {
            let written = progress.wait_for(|progress| progress.messages >= moment);
            written.await.expect("the run is watched");
            let more = draw.duration_below(Duration::from_millis(30));
            world.clock.sleep(more).await;
            node.kill().await;
            node = world.node(&settings).await;
        }
        node
    };
    let never_stopped = CancellationToken::new();
    let both = async { tokio::join!(rehearsal.run(&never_stopped), kills) };
    let run = world.clock.timeout(LIMIT * 3, both).await;
    let (report, mut node) = run.expect("the run ends");
    let report = report.expect("the handshake is answered");
    world.settle(&node).await;
    assert_eq!(node.stop().await.code(), Some(0));

    assert_eq!(report.messages, MESSAGES);
    assert_eq!(report.undelivered, 0, "{report}");
    assert_eq!(report.of(Breach::Double).examples, [""; 0], "{report}");
    assert_eq!(report.of(Breach::Order).examples, [""; 0], "{report}");
    assert_eq!(report.of(Breach::Unexpected).examples, [""; 0], "{report}");
    let never_sent = never_sent(&world).await;
    assert_eq!(report.count(Breach::Missing), never_sent, "{report}");
    let at_once: u64 = SENDS_AT_ONCE.parse().expect("a number");
    assert!(never_sent <= KILLS as u64 * at_once, "{report}");
}

async fn asking(world: &World, url: &str, settings: &[(&str, &str)]) -> Node {
    let mut all = vec![
        ("HAPAX_HANDLER", "ask"),
        ("HAPAX_BOT_URL", url),
        ("HAPAX_ASK_SECRET", APP_SECRET),
        ("HAPAX_TURN_DEADLINE", "10m"),
    ];
    all.extend(settings);
    world.node(&all).await
}

async fn a_turn_that_ran_at_the_kill_is_tried_again_as_the_same_turn(world: World) {
    let bot = bot(&world);
    bot.next(Answer::Hang);
    bot.reply_json(|call| json!({ "text": format!("attempt {}", call["attempt"]) }));
    let url = bot.url();
    let mut node = asking(&world, &url, &[]).await;
    say(&world, &world.meta(&node), &person(1), "hello").await;
    until(&bot, "the turn runs", |calls| calls.len() == 1).await;
    node.kill().await;

    let node = asking(&world, &url, &[]).await;
    let replied = world.graph.wait_until(|sent| !sent.is_empty(), LIMIT).await;
    replied.expect("it is tried again");
    world.settle(&node).await;
    let calls = bot.calls();
    assert_eq!(calls.len(), 2);
    for name in ["x-hapax-turn", "webhook-id"] {
        assert!(!calls[0].header(name).is_empty(), "{name}");
        assert_eq!(calls[0].header(name), calls[1].header(name), "{name}");
    }
    let sent = world.graph.accepted();
    let replies: Vec<&str> = sent.iter().map(|sent| sent.text()).collect();
    assert_eq!(replies, ["attempt 2"]);
}

/// The bot's answer to one message never comes, because the process dies first, each time.
async fn a_message_that_kills_its_process_each_time_ends_as_a_dead_letter(world: World) {
    let bot = bot(&world);
    bot.when(|text| text == "poison", Answer::Hang);
    bot.always(Answer::Status(204));
    let url = bot.url();
    let settings = [("HAPAX_TURN_ATTEMPTS_MAX", "2")];
    let mut node = asking(&world, &url, &settings).await;
    let meta = world.meta(&node);
    say(&world, &meta, &person(1), "poison").await;
    say(&world, &meta, &person(1), "after").await;
    for attempt in 1..=2 {
        until(&bot, "it is tried", |calls| {
            let poison = calls.iter().filter(|call| call.text() == "poison");
            poison.count() == attempt
        })
        .await;
        node.kill().await;
        node = asking(&world, &url, &settings).await;
    }

    let dead = node
        .logged(|line| says(line, "a turn became a dead letter"))
        .await;
    let reason = dead["reason"].as_str().expect("it has a reason");
    assert!(
        reason.contains("2 attempts ended with their process"),
        "{reason}"
    );
    until(&bot, "the person is not mute", |calls| {
        calls
            .iter()
            .any(|call| call.text() == "after" && call.status == Some(204))
    })
    .await;
    world.settle(&node).await;
    let poison = calls_of(&bot, "poison");
    assert_eq!(poison.len(), 2, "no third try");
    assert_eq!(dead["turn.id"], poison[0].header("x-hapax-turn"));
    assert_eq!(node.figures().await.dead_letters(), 1);
}
