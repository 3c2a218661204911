//! Whatever the level and whatever goes wrong, logs carry no phone number, no user id, no name,
//! no text, no message id and no secret, unless an operator asks for identifiers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hapax::model::Secret;
use hapax::simulator::bot::{Bot, Call};
use hapax::simulator::courier::Courier;
use hapax::simulator::meta::Plan;
use hapax::simulator::payload::{Element, StatusOf, sign, single};
use hapax::simulator::person::Person;
use hapax::simulator::script::{Answer, Behaviour};
use hapax::simulator::seed::Draw;
use hapax::simulator::{Odds, Receipts};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::talk::{Talk, figures_until, post_head, post_raw, raw};
use crate::world::{APP_SECRET, NUMBER, Node, TOKEN, VERIFY_TOKEN, World};

const PEOPLE: usize = 12;
const MESSAGES_EACH: usize = 30;
/// In every text, so that no part of one passes unseen.
const SAID: &str = "whispered";
const REPLIED: &str = "murmured";

/// Secrets that the nodes are given beside those of every test.
const GIVEN: [(&str, &str); 6] = [
    (
        "WHATSAPP_APP_SECRET_PREVIOUS",
        "the-app-secret-of-last-year",
    ),
    (
        "WHATSAPP_VERIFY_TOKEN_PREVIOUS",
        "the-verify-token-of-last-year",
    ),
    ("HAPAX_ASK_SECRET", "the-secret-between-us-and-the-bot"),
    ("HAPAX_BOT_TOKEN", "the-token-of-the-bot-side"),
    // Not ours, so it is only noted at the start.
    ("HAPAX_ZEBRA", "the-value-of-an-unknown-setting"),
    ("HAPAX_LOG", "hapax=trace,debug"),
];
const SECRETS_GIVEN: usize = 5;
const URL_SECRET: &str = "the-key-in-the-bots-url";
const GUESS: &str = "a-guessed-verify-token";
const CHALLENGE: &str = "challenge-of-a-handshake";

fn person(index: usize) -> Person {
    let phone = format!("155501{index:05}");
    let bsuid = format!("US.7731{index:012}");
    let mut person = match index % 3 {
        0 => Person::by_phone(&phone),
        1 => Person::by_bsuid(&bsuid),
        _ => Person::by_both(&phone, &bsuid),
    };
    person.name = format!("Quillfeather the {index}th");
    person
}

fn text(index: usize, number: usize) -> String {
    format!("{SAID} {index}-{number}")
}

/// A bot that fails in every way now and then, and otherwise answers.
fn faulty_bot(world: &World) -> Bot {
    let bot = Bot::start(Secret::new(APP_SECRET), world.clock.clone()).expect("a bot");
    let first = |ending: &'static str| {
        move |call: &Call| call.text().ends_with(ending) && call.header("x-hapax-attempt") == "1"
    };
    let script = bot.script();
    script.when(first("-7"), Answer::Status(500));
    script.when(first("-13"), Answer::Reset);
    // An outage is no attempt.
    script.once_when(first("-17"), Answer::Status(503));
    script.once_when(first("-23"), Answer::Hang);
    script.when(|call| call.text().ends_with("-9"), Answer::Status(400));
    script.when(first("-21"), Answer::json(|call| json!({ "text": [call] })));
    bot.reply_json(|call| {
        let message = &call["messages"][0];
        json!({ "text": format!("{REPLIED} after {message}") })
    });
    bot
}

/// A Graph that refuses, forgets and resets now and then.
fn faulty_graph(world: &World) {
    let graph = &world.graph;
    let reject = |code| Behaviour::Reject { http: 400, code };
    for code in [131_047, 131_026, 190, 130_429, 131_000, 999_999] {
        graph.next(reject(code));
        graph.next(Behaviour::Accept);
    }
    graph.next(Behaviour::AcceptThenReset);
    graph.next(Behaviour::Reset);
    graph.next(Behaviour::StatusBeforeAnswer);
    graph.next(Behaviour::AcceptNeverAnswer);
}

/// One person writes, each message one to four times, to both nodes in turn.
async fn write(talks: Arc<[Talk; 2]>, index: usize) {
    let mut draw = Draw::new(index as u64);
    for number in 0..MESSAGES_EACH {
        let talk = &talks[(index + number) % 2];
        let (_, body) = talk.text(&person(index), &text(index, number));
        let plan = Plan::draw(&mut draw, Duration::from_millis(20));
        let delivered = talk.meta.deliver(body, &plan).await;
        assert_eq!(delivered.undelivered, 0);
    }
}

/// What is not Meta's, or not whole: it fails where it is read.
async fn disturb(world: &World, node: &Node) {
    let talk = Talk::with(world, node, 99);
    let (_, body) = talk.text(&person(0), &text(0, 1000));
    let forged = post_head(
        body.len(),
        Some(&sign("the-secret-of-somebody-else", &body)),
    );
    let answer = raw(&world.clock, node.public, &[forged.as_bytes(), &body]).await;
    assert_eq!(answer.status, 401);
    let cut = body.slice(..body.len() - 9);
    assert_eq!(post_raw(&world.clock, node.public, &cut).await.status, 200);
    for token in [GUESS, VERIFY_TOKEN] {
        let query =
            format!("hub.mode=subscribe&hub.challenge={CHALLENGE}&hub.verify_token={token}");
        let head =
            format!("GET /webhook?{query} HTTP/1.1\r\nHost: hapax\r\nConnection: close\r\n\r\n");
        raw(&world.clock, node.public, &[head.as_bytes()]).await;
    }
    // Nobody's: a status of a message that we did not send.
    let of = StatusOf {
        wamid: "wamid.HBgLsomebodyElses==",
        person: &person(1),
        status: "failed",
        code: Some(131_026),
        tag: Some("the-tag-of-somebody-else"),
        participant: None,
    };
    talk.deliver(&single(&Element::status(NUMBER, &of, world.clock.now())))
        .await;
}

/// Everything that no log may hold, each with what it is.
fn private(world: &World) -> Vec<(&'static str, String)> {
    let mut private: Vec<(&str, String)> = Vec::new();
    for person in (0..PEOPLE).map(person) {
        private.push(("a name", person.name.clone()));
        private.extend(person.phone.map(|phone| ("a phone number", phone)));
        private.extend(person.bsuid.map(|bsuid| ("a user id", bsuid)));
    }
    private.push(("a name", "Quillfeather".to_owned()));
    private.extend([SAID, REPLIED].map(|text| ("a text", text.to_owned())));
    let bare = |wamid: &str| wamid.trim_start_matches("wamid.").to_owned();
    world.history.read(|record| {
        let inbound = record.messages.iter().map(|said| bare(&said.wamid));
        private.extend(inbound.map(|id| ("an inbound wamid", id)));
        let outbound = record.sends.iter().filter_map(|sent| sent.wamid.as_deref());
        private.extend(outbound.map(|id| ("an outbound wamid", bare(id))));
    });
    private.push(("a foreign wamid", "somebodyElses".to_owned()));
    let secrets = GIVEN[..SECRETS_GIVEN].iter().map(|(_, secret)| *secret);
    let others = [
        TOKEN,
        APP_SECRET,
        VERIFY_TOKEN,
        URL_SECRET,
        GUESS,
        CHALLENGE,
    ];
    let more = ["the-tag-of-somebody-else", "the-secret-of-somebody-else"];
    private.extend(
        secrets
            .chain(others)
            .chain(more)
            .map(|secret| ("a secret", secret.to_owned())),
    );
    private
}

fn assert_private(log: &str, private: &[(&str, String)]) {
    for (what, needle) in private {
        let line = log.lines().find(|line| line.contains(needle));
        assert_eq!(line, None, "{what}: {needle}");
    }
}

/// It would prove nothing if the things that could leak had not happened, or had not been told.
fn assert_eventful(log: &str) {
    for word in [
        "\"level\":\"DEBUG\",\"target\":\"hyper",
        "\"level\":\"WARN\"",
        "\"level\":\"ERROR\"",
        "\"verdict\":\"duplicate\"",
        "\"verdict\":\"rejected\"",
        "\"event.kind\":\"status\"",
        "\"event.kind\":\"notice\"",
        "turn released",
        "a turn became a dead letter",
        "\"send.result\":\"accepted\"",
        "\"send.result\":\"refused\"",
        "\"send.result\":\"paused\"",
        "\"send.result\":\"unsure\"",
        "handshake",
        "drained",
    ] {
        assert!(log.contains(word), "never happened: {word}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_line_of_a_long_and_faulty_run_holds_anything_private() {
    let world = World::new();
    let bot = faulty_bot(&world);
    let url = format!("{}?key={URL_SECRET}", bot.url());
    let settings = |handler| {
        let mut settings = GIVEN.to_vec();
        settings.extend([
            ("HAPAX_HANDLER", handler),
            ("HAPAX_BOT_URL", url.as_str()),
            ("HAPAX_TURN_MARK_READ", "true"),
            ("HAPAX_TURN_DEADLINE", "4s"),
            ("HAPAX_SEND_TIMEOUT", "4s"),
            ("HAPAX_SEND_CONNECT_TIMEOUT", "4s"),
            ("HAPAX_SEND_UNSURE_WAIT", "1s"),
            ("HAPAX_SEND_PAUSE", "200ms"),
        ]);
        settings
    };
    let mut nodes = [
        world.node(&settings("ask")).await,
        world.node(&settings("forward")).await,
    ];
    let courier = Courier::start(world.meta(&nodes[0]), Draw::new(1), world.clock.clone());
    let receipts = Receipts::Drawn(Odds::mild(Duration::from_millis(20)));
    world.graph.report_to(courier, receipts);
    faulty_graph(&world);

    let talks = Arc::new([1, 2].map(|n| Talk::with(&world, &nodes[n - 1], n as u64 * 1000)));
    let mut writers = JoinSet::new();
    for index in 0..PEOPLE {
        writers.spawn(write(Arc::clone(&talks), index));
    }
    writers.join_all().await;
    for node in &nodes {
        disturb(&world, node).await;
        world.settle(node).await;
    }
    let mut log = String::new();
    for node in &mut nodes {
        assert!(node.stop().await.success());
        log.push_str(&node.log_text());
    }
    let private = private(&world);
    assert!(private.len() > PEOPLE * MESSAGES_EACH, "{}", private.len());
    assert_eventful(&log);
    assert_private(&log, &private);
}

#[tokio::test(flavor = "multi_thread")]
async fn identifiers_are_logged_where_an_operator_asks_for_them() {
    let world = World::new();
    let hidden = world.node(&[]).await;
    let plain = world.node(&[("HAPAX_LOG_IDENTIFIERS", "plain")]).await;
    let (wamid, body) = Talk::with(&world, &plain, 1).text(&person(2), &text(2, 0));
    for node in [&plain, &hidden] {
        let posted: Bytes = body.clone();
        assert_eq!(world.meta(node).post(posted).await, Some(200));
        figures_until(&world, node, |f| f.sum("hapax_events_total", "") == 1).await;
        world.settle(node).await;
    }
    let arrival = |line: &Value| line["message"] == "arrival";
    let line = plain.logged(arrival).await;
    assert_eq!(line["message.wamid"], wamid);
    hidden.logged(arrival).await;
    for node in [&plain, &hidden] {
        let log = node.log_text();
        assert_eq!(log.contains(&wamid), std::ptr::eq(node, &raw const plain));
        assert!(!log.contains(SAID), "a text is never an identifier");
    }
}
