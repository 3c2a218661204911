//! A bot sends through the door as if it were Meta's: it gets Meta's answers in time, and nobody
//! gets a message twice, however often the bot, its client or its turn tries.

use std::collections::BTreeMap;

use hapax::simulator::gate::Gate;
use hapax::simulator::record::Sent;
use hapax::simulator::script::Behaviour;
use hapax::whatsapp::minted;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::door::{Door, Heard, SendingBot, Told, message};
use crate::engines::on_each_engine;
use crate::scene::person;
use crate::talk::{Talk, field, reporting, wamid_of};
use crate::world::{LIMIT, NUMBER, Node, TOKEN, World};

on_each_engine!(
    two_sends_of_a_turn_arrive_in_order_and_get_metas_ids,
    what_a_failed_attempt_has_sent_is_not_sent_again_in_whatever_words,
    a_clients_second_try_after_a_hang_up_joins_the_first,
    where_metas_answer_is_lost_each_caller_is_answered_and_nobody_hears_twice,
    what_is_held_until_the_end_is_dropped_with_a_failed_attempt,
);

/// Texts that Meta has accepted, in order.
fn accepted(world: &World) -> Vec<String> {
    let sent = world.graph.accepted();
    sent.iter().map(|sent| text_of(&sent.body)).collect()
}

fn text_of(body: &Value) -> String {
    field(&body["text"], "body").to_owned()
}

/// Whether a line tells what became of a request to send.
fn is_account(line: &Value, verdict: &str, told: &str) -> bool {
    line["bot_send.id"].is_string() && line["verdict"] == verdict && line["told"] == told
}

async fn started(
    world: &World,
    bot: &SendingBot,
    more: &[(&'static str, &'static str)],
) -> (Node, Door) {
    let mut settings = bot.settings();
    settings.extend(more);
    let node = world.node(&settings).await;
    let door = Door::of(&node).await;
    bot.sends_through(&door);
    (node, door)
}

async fn two_sends_of_a_turn_arrive_in_order_and_get_metas_ids(world: World) {
    let (told, mut answers) = mpsc::channel(64);
    let bot = SendingBot::start(move |door, heard: Heard| {
        let told = told.clone();
        async move {
            for part in 1..=2 {
                let text = format!("{} {part} — ä 👩🏽‍🌾", heard.text);
                let answer = door.say(&heard.from, &text).await;
                told.send((text, answer)).await.expect("the test listens");
            }
            200
        }
    })
    .await;
    let (node, _) = started(&world, &bot, &[]).await;
    let talk = Talk::with(&world, &node, 1);
    for index in 0..5 {
        talk.say(&person(0), &format!("hello {index}")).await;
    }
    world.settle(&node).await;
    let expected: Vec<String> = (0..5)
        .flat_map(|index| (1..=2).map(move |part| format!("hello {index} {part} — ä 👩🏽‍🌾")))
        .collect();
    assert_eq!(accepted(&world), expected);
    for text in expected {
        let (asked, answer) = answers.recv().await.expect("an answer each");
        assert_eq!(asked, text);
        assert_eq!(answer.id(), wamid_of(&world, &text));
        let contact = json!({"input": "15550000000", "wa_id": "15550000000"});
        assert_eq!(answer.body["contacts"], json!([contact]));
        assert_eq!(answer.body["messaging_product"], "whatsapp");
    }
    let figures = node.figures().await;
    assert_eq!(figures.sum("hapax_bot_sends_total", "verdict=\"new\""), 10);
    assert_eq!(figures.sum("hapax_bot_sends_late_total", ""), 0);
    assert!(!node.log_text().contains("15550000000"));
}

async fn what_a_failed_attempt_has_sent_is_not_sent_again_in_whatever_words(world: World) {
    let (told, mut answers) = mpsc::channel(64);
    let bot = SendingBot::start(move |door, heard: Heard| {
        let told = told.clone();
        async move {
            let other = heard.attempt == 2 && heard.text == "other";
            let text = match other {
                true => "in other words".to_owned(),
                false => format!("said to {}", heard.text),
            };
            let answer = door.say(&heard.from, &text).await;
            told.send(answer.id().to_owned()).await.expect("heard");
            if heard.attempt == 1 { 500 } else { 200 }
        }
    })
    .await;
    let (node, _) = started(&world, &bot, &[]).await;
    let talk = Talk::with(&world, &node, 1);
    for (text, verdict) in [("same", "repeated"), ("other", "diverged")] {
        talk.say(&person(0), text).await;
        let first = answers.recv().await.expect("the first attempt");
        assert_eq!(answers.recv().await.expect("the second"), first);
        assert_eq!(first, wamid_of(&world, &format!("said to {text}")));
        node.logged(|line| is_account(line, verdict, "accepted"))
            .await;
    }
    world.settle(&node).await;
    assert_eq!(accepted(&world), ["said to same", "said to other"]);
    assert_eq!(node.figures().await.dead_letters(), 0);
}

async fn a_clients_second_try_after_a_hang_up_joins_the_first(world: World) {
    let node = world.node(&[("HAPAX_EGRESS_ANSWER_WITHIN", "50s")]).await;
    let door = Door::of(&node).await;
    let gate = Gate::closed();
    world.graph.next(Behaviour::Hold(gate.clone()));
    let first = door.messages().json(&message("15550001", "hi"));
    let first = tokio::spawn(first.send());
    let sent = world.graph.wait_until(|sent| sent.len() == 1, LIMIT);
    sent.await.expect("Meta has it");
    first.abort();
    node.logged(|line| is_account(line, "new", "nothing")).await;
    let second = tokio::spawn({
        let door = door.clone();
        async move { door.say("+1 555-0001", "hi").await }
    });
    gate.release();
    let second = second.await.expect("it is answered");
    assert_eq!(second.id(), wamid_of(&world, "hi"));
    assert_eq!(second.body["contacts"][0]["input"], "+1 555-0001");
    node.logged(|line| is_account(line, "joined", "accepted"))
        .await;
    // It has heard of that one, so this is another message.
    let third = door.say("15550001", "hi").await;
    assert_ne!(third.id(), second.id());
    assert_eq!(world.graph.accepted().len(), 2);
}

async fn where_metas_answer_is_lost_each_caller_is_answered_and_nobody_hears_twice(world: World) {
    const CALLERS: usize = 40;
    let settings = [
        ("HAPAX_EGRESS_ANSWER_WITHIN", "700ms"),
        ("HAPAX_SEND_TIMEOUT", "2s"),
        ("HAPAX_SEND_CONNECT_TIMEOUT", "1s"),
    ];
    let node = world.node(&settings).await;
    let door = Door::of(&node).await;
    let _courier = reporting(&world, &node);
    let is_tenth = |body: &Value| text_of(body).ends_with('0');
    world.graph.when(is_tenth, Behaviour::AcceptNeverAnswer);
    let mut callers = JoinSet::new();
    for index in 0..CALLERS {
        let door = door.clone();
        callers.spawn(async move {
            let text = format!("message {index}");
            let answer = door.say(&format!("1555{index:07}"), &text).await;
            (text, answer)
        });
    }
    let answers: BTreeMap<String, Told> = callers.join_all().await.into_iter().collect();
    let all_are_out = |sent: &[Sent]| sent.iter().filter(|sent| sent.accepted).count() == CALLERS;
    let out = world.graph.wait_until(all_are_out, LIMIT).await;
    out.expect("each goes out");
    let mut own = 0;
    for (text, answer) in &answers {
        let real = wamid_of(&world, text);
        let is_own = minted::parse(answer.id()).is_some();
        own += usize::from(is_own);
        assert!(is_own || answer.id() == real, "{text}");
        assert!(
            !text.ends_with('0') || is_own,
            "{text} has no answer of Meta's"
        );
    }
    assert!(own >= CALLERS / 10);
    let real = wamid_of(&world, "message 10");
    let quoted = answers["message 10"].id();
    assert!(
        world.graph.report(&real, "sent", None).await,
        "Meta says it is out"
    );
    let mut quoting = message("15550000010", "quoting");
    quoting["context"] = json!({"message_id": quoted});
    door.post(&quoting).await.id();
    let sent = world.graph.accepted();
    let sent = sent.iter().find(|sent| text_of(&sent.body) == "quoting");
    let context = &sent.expect("it was sent").body["context"];
    assert_eq!(
        context["message_id"],
        json!(real),
        "by the receipt the id is known"
    );

    let reaction = json!({"messaging_product": "whatsapp", "to": "15550000020",
        "type": "reaction", "reaction": {"message_id": answers["message 20"].id(), "emoji": "x"}});
    door.post(&reaction).await.is_refused(400, 131_009);
}

async fn what_is_held_until_the_end_is_dropped_with_a_failed_attempt(world: World) {
    let bot = SendingBot::start(async move |door: Door, heard: Heard| {
        let text = format!("attempt {}", heard.attempt);
        let answer = door.say(&heard.from, &text).await;
        assert!(minted::parse(answer.id()).is_some(), "it is not sent yet");
        if heard.attempt == 1 { 500 } else { 200 }
    })
    .await;
    let (node, _) = started(&world, &bot, &[("HAPAX_EGRESS_WHEN", "at_finish")]).await;
    Talk::with(&world, &node, 1).say(&person(0), "hello").await;
    let sent = world.graph.wait_until(|sent| sent.len() == 1, LIMIT);
    sent.await.expect("the end sends it");
    world.settle(&node).await;
    assert_eq!(accepted(&world), ["attempt 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_meta_refuses_and_what_can_not_be_meant_is_told_in_graphs_shape() {
    let world = World::new();
    let node = world.node(&[]).await;
    let door = Door::of(&node).await;
    let closed = Behaviour::Reject {
        http: 400,
        code: 131_047,
    };
    world.graph.when(|body| text_of(body) == "late", closed);
    let refused = door.say("15550001", "late").await;
    refused.is_refused(400, 131_047);
    assert_eq!(
        refused.body["error"]["message"], "Refused as scripted",
        "verbatim"
    );

    let path = format!("{}/v25.0/{NUMBER}/messages", door.url);
    let unsaid = || door.client.post(&path).json(&message("15550001", "hi"));
    Told::of(unsaid()).await.is_refused(401, 190);
    Told::of(unsaid().bearer_auth("other"))
        .await
        .is_refused(401, 190);
    let query = door.client.post(format!("{path}?access_token=other"));
    let query = query.json(&message("15550001", "hi"));
    Told::of(query).await.is_refused(401, 190);

    let mut body = message("15550001", "hi");
    body["messaging_product"] = Value::Null;
    door.post(&body).await.is_refused(400, 100);
    door.post(&json!([])).await.is_refused(400, 100);
    door.say("Ann", "hi").await.is_refused(400, 131_009);
    let mut body = message("15550001", "hi");
    body["type"] = json!("image");
    door.post(&body).await.is_refused(400, 131_008);
    let key = door.messages().header("idempotency-key", "a b");
    Told::of(key.json(&message("15550001", "hi")))
        .await
        .is_refused(400, 100);
    let long = message("15550001", &"x".repeat(300 * 1024));
    door.post(&long).await.is_refused(413, 100);
    assert_eq!(world.graph.accepted().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_be_written_in_each_way_that_graph_takes() {
    let world = World::new();
    let node = world.node(&[("HAPAX_EGRESS_TOKEN", "the-bots-own")]).await;
    let door = Door::of(&node).await;
    let form = [
        ("messaging_product", "whatsapp"),
        ("to", "+15550001"),
        ("text", r#"{"body":"als Formular: ä"}"#),
        ("access_token", "the-bots-own"),
    ];
    let path = format!("{}/{NUMBER}/messages", door.url);
    let written = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let post = door.client.post(&path).body(written.clone());
    let post = post.header("content-type", "application/x-www-form-urlencoded");
    Told::of(post).await.id();
    let get = door.client.get(format!(
        "{path}?method=post&{}",
        written.replace("ular", "")
    ));
    Told::of(get).await.id();
    let mut body = message("15550001", "json");
    body["access_token"] = json!("the-bots-own");
    Told::of(door.client.post(&path).json(&body)).await.id();
    assert_eq!(accepted(&world), ["als Formular: ä", "als Form: ä", "json"]);
    door.say("15550001", "Meta's own token")
        .await
        .is_refused(401, 190);
    for sent in world.graph.accepted() {
        assert_eq!(sent.recipient, "15550001");
        assert_eq!(sent.body.get("access_token"), None);
    }
    let log = node.log_text();
    assert!(!log.contains("the-bots-own") && !log.contains(TOKEN) && !log.contains("15550001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_one_message() {
    let world = World::new();
    let node = world.node(&[]).await;
    let door = Door::of(&node).await;
    let with_key = |text: &str| {
        let call = door.messages().header("idempotency-key", "order-17");
        Told::of(call.json(&message("15550001", text)))
    };
    let first = with_key("your order").await;
    assert_eq!(with_key("your order").await.id(), first.id());
    assert_eq!(with_key("Your order!").await.id(), first.id());
    assert_ne!(door.say("15550001", "your order").await.id(), first.id());
    assert_eq!(accepted(&world), ["your order", "your order"]);
}

/// The same twice, one behind the other, is meant twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_twice_is_sent_twice() {
    let world = World::new();
    let node = world.node(&[]).await;
    let door = Door::of(&node).await;
    for _ in 0..20 {
        door.say("15550001", "again").await.id();
    }
    assert_eq!(world.graph.accepted().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_sends_after_its_answer_is_told_of_once() {
    let world = World::new();
    let (asked, mut late) = mpsc::channel(8);
    let bot = SendingBot::start(move |door, heard: Heard| {
        let asked = asked.clone();
        async move {
            asked.send((door, heard)).await.expect("the test listens");
            200
        }
    })
    .await;
    let (node, _) = started(&world, &bot, &[]).await;
    let talk = Talk::with(&world, &node, 1);
    for index in 0..3 {
        talk.say(&person(index), "hello").await;
        world.settle(&node).await;
        let (door, heard) = late.recv().await.expect("it was called");
        door.say(&heard.from, "at last").await.id();
    }
    let warned = |line: &Value| line["level"] == "WARN" && line["turn.id"].is_string();
    let line = node.logged(warned).await;
    assert!(field(&line, "message").contains("forward.done"), "{line}");
    assert_eq!(node.log().iter().filter(|line| warned(line)).count(), 1);
    assert_eq!(
        node.figures().await.sum("hapax_bot_sends_late_total", ""),
        3
    );
    assert_eq!(world.graph.accepted().len(), 3);
}
