//! A bot that asks for statuses and notices gets each once, in its own terms, also when it was down
//! for a while; and none is lost with a process.

use std::collections::BTreeSet;
use std::time::Duration;

use hapax::model::bot_send::{Content, Told};
use hapax::model::{Aliases, NumberId, Recipient};
use hapax::simulator::bot::{Bot, Call, Proof};
use hapax::simulator::meta::{Meta, Plan};
use hapax::simulator::payload::{Element, StatusOf, single};
use hapax::simulator::script::Answer;
use hapax::store::{SendWhen, SharedStore, Stage};
use hapax::whatsapp::minted;
use serde_json::{Value, json};

use crate::engines::on_each_engine;
use crate::scene::{bot, person, say, says, took, until};
use crate::world::{LIMIT, NUMBER, Node, World};

on_each_engine!(
    each_status_comes_once_in_the_bots_own_terms,
    each_notice_comes_once_as_meta_would_send_it,
    nothing_comes_that_nobody_asked_for,
    what_a_bot_that_was_down_has_missed_comes_later_though_the_process_was_killed,
    what_was_under_way_at_the_kill_comes_again,
    what_the_bot_never_takes_ends_and_holds_up_nothing,
);

async fn node(world: &World, bot: &Bot, statuses: &str, notices: &str) -> Node {
    let url = bot.url();
    let settings = [
        ("HAPAX_HANDLER", "forward"),
        ("HAPAX_BOT_URL", url.as_str()),
        ("HAPAX_FORWARD_STATUSES", statuses),
        ("HAPAX_FORWARD_NOTICES", notices),
        ("HAPAX_TURN_UNAVAILABLE_BACKOFF_MAX", "200ms"),
    ];
    world.node(&settings).await
}

/// Stages a text from the bot and answers its id in our terms.
async fn staged(ledger: &SharedStore, text: &str, callback: Option<&str>, told: Told) -> String {
    let to = "15550000007".to_owned();
    let stage = Stage {
        number: NumberId::from(NUMBER),
        to: Aliases {
            phone: Some(to.clone()),
            ..Aliases::default()
        },
        recipient: Recipient::Phone(to),
        body: json!({"type": "text", "text": {"body": text}}).to_string(),
        content: Content::of(&[text]),
        key: None,
        callback: callback.map(str::to_owned),
        is_apart: false,
        when: SendWhen::Now,
        tail: Duration::from_secs(2),
    };
    let staged = ledger.stage(stage).await.expect("it is answered");
    let id = staged.expect("there is room").id;
    ledger.told(id, told).await.expect("it is noted");
    minted::mint(ledger.id(), id)
}

fn status(world: &World, wamid: &str, status: &str, tag: Option<&str>) -> Element {
    let person = person(7);
    let of = StatusOf {
        wamid,
        person: &person,
        status,
        code: None,
        tag,
        participant: None,
    };
    Element::status(NUMBER, &of, world.clock.now())
}

/// Posts it three times, each until it is answered 200.
async fn thrice(meta: &Meta, element: &Element) {
    let delivered = meta.deliver(single(element), &Plan::at_once(3)).await;
    assert_eq!(delivered.copies, 3, "each is answered 200");
}

/// Waits until nothing is left to relay.
async fn all_relayed(world: &World, node: &Node) {
    let done = async {
        while node.figures().await.sum("hapax_relays_waiting", "") > 0 {
            world.clock.sleep(Duration::from_millis(20)).await;
        }
    };
    let done = world.clock.timeout(LIMIT, done).await;
    done.expect("everything is relayed in time");
}

fn value(call: &Call) -> &Value {
    &call.json["entry"][0]["changes"][0]["value"]
}

fn status_of(call: &Call) -> (String, String, Value) {
    let statuses = value(call)["statuses"].as_array().expect("statuses");
    let [one] = statuses.as_slice() else {
        panic!("one each, found {}", statuses.len());
    };
    let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let callback = one["biz_opaque_callback_data"].clone();
    (text("id"), text("status"), callback)
}

fn rightly_signed(calls: &[Call]) {
    for call in calls {
        assert_eq!(call.proof, Proof::Valid);
        assert_eq!(value(call)["metadata"]["phone_number_id"], NUMBER);
        let key = call.header("idempotency-key");
        assert!(!key.is_empty());
        assert_eq!(call.header("x-hapax-event"), key);
    }
}

async fn each_status_comes_once_in_the_bots_own_terms(world: World) {
    let bot = bot(&world);
    let node = node(&world, &bot, "true", "false").await;
    let meta = world.meta(&node);
    let ledger = world.ledger().await;
    let minted = staged(&ledger, "one", Some("order 5"), Told::OwnId).await;
    staged(&ledger, "two", None, Told::Truth).await;
    ledger.close().await;
    let sent = world.graph.wait_until(|sent| sent.len() == 2, LIMIT).await;
    assert!(sent.is_ok(), "both go out");
    let mut expected = BTreeSet::new();
    for sent in world.graph.accepted() {
        let wamid = sent.wamid.clone().expect("it is accepted");
        let (id, callback) = match sent.text() {
            "one" => (minted.clone(), json!("order 5")),
            _ => (wamid.clone(), Value::Null),
        };
        for word in ["sent", "delivered", "read"] {
            thrice(&meta, &status(&world, &wamid, word, sent.tag.as_deref())).await;
            expected.insert((id.clone(), word.to_owned(), callback.to_string()));
        }
    }
    thrice(&meta, &status(&world, "wamid.X", "read", Some("their own"))).await;
    let theirs = json!("their own").to_string();
    expected.insert(("wamid.X".to_owned(), "read".to_owned(), theirs));
    all_relayed(&world, &node).await;
    let calls = bot.calls();
    rightly_signed(&calls);
    let came = calls.iter().map(status_of);
    let came: Vec<_> = came
        .map(|(id, status, callback)| (id, status, callback.to_string()))
        .collect();
    assert_eq!(came.len(), expected.len(), "each comes once: {came:?}");
    assert_eq!(BTreeSet::from_iter(came), expected);
    let taken = node.figures().await.sum("hapax_relays_total", "taken");
    assert_eq!(taken, expected.len() as u64);
}

fn members(value: Value) -> serde_json::Map<String, Value> {
    let Value::Object(members) = value else {
        panic!("members");
    };
    members
}

async fn each_notice_comes_once_as_meta_would_send_it(world: World) {
    let bot = bot(&world);
    let node = node(&world, &bot, "false", "true").await;
    let meta = world.meta(&node);
    let echo = |id: &str| json!({"id": id, "to": "15550000007", "type": "text"});
    let echoes = json!({"message_echoes": [echo("wamid.E1"), echo("wamid.E2")]});
    thrice(
        &meta,
        &Element::notice(NUMBER, "smb_message_echoes", members(echoes)),
    )
    .await;
    let update = json!({"event": "APPROVED", "message_template_id": 7});
    let update = Element::notice(NUMBER, "message_template_status_update", members(update));
    thrice(&meta, &update).await;
    thrice(&meta, &status(&world, "wamid.X", "read", None)).await;
    all_relayed(&world, &node).await;
    let calls = bot.calls();
    rightly_signed(&calls);
    let came: Vec<String> = calls
        .iter()
        .map(|call| {
            let change = &call.json["entry"][0]["changes"][0];
            let field = change["field"].as_str().expect("a field");
            let echoes = value(call)["message_echoes"].as_array();
            let echoes = echoes.map(|all| all.iter().map(|echo| echo["id"].to_string()).collect());
            let echoes: Vec<String> = echoes.unwrap_or_default();
            format!("{field} {}", echoes.join(" "))
        })
        .collect();
    let expected = [
        "smb_message_echoes \"wamid.E1\"",
        "smb_message_echoes \"wamid.E2\"",
        "message_template_status_update ",
    ];
    assert_eq!(came, expected);
    assert_eq!(value(&calls[2])["message_template_id"], 7);
}

async fn nothing_comes_that_nobody_asked_for(world: World) {
    let bot = bot(&world);
    let node = node(&world, &bot, "false", "false").await;
    let meta = world.meta(&node);
    thrice(&meta, &status(&world, "wamid.X", "read", None)).await;
    let update = members(json!({"event": "APPROVED"}));
    thrice(&meta, &Element::notice(NUMBER, "account_update", update)).await;
    let waiting = node.figures().await.sum("hapax_relays_waiting", "");
    assert_eq!(waiting, 0, "nothing is kept for the bot");
    say(&world, &meta, &person(7), "hello").await;
    until(&bot, "the message comes", |calls| took(calls, "hello")).await;
    assert_eq!(bot.calls().len(), 1);
}

const STATUSES: usize = 20;

async fn post_statuses(world: &World, meta: &Meta) -> Vec<String> {
    let mut ids = Vec::new();
    for place in 0..STATUSES {
        let id = format!("wamid.{place:03}");
        thrice(meta, &status(world, &id, "read", None)).await;
        ids.push(id);
    }
    ids
}

fn taken(bot: &Bot) -> Vec<String> {
    let calls = bot.calls();
    let taken = calls.iter().filter(|call| call.status == Some(200));
    taken.map(|call| status_of(call).0).collect()
}

async fn what_a_bot_that_was_down_has_missed_comes_later_though_the_process_was_killed(
    world: World,
) {
    let bot = bot(&world);
    bot.stop().await;
    let mut first = node(&world, &bot, "true", "false").await;
    let ids = post_statuses(&world, &world.meta(&first)).await;
    first
        .logged(|line| says(line, "statuses and notices wait for the bot"))
        .await;
    first.kill().await;
    let second = node(&world, &bot, "true", "false").await;
    second
        .logged(|line| says(line, "statuses and notices wait for the bot"))
        .await;
    let waiting = second.figures().await.sum("hapax_relays_waiting", "");
    assert_eq!(waiting, STATUSES as u64);
    bot.restart().await.expect("it comes back");
    all_relayed(&world, &second).await;
    // What the killed one had taken comes once it is known to be dead, behind the others.
    let mut taken = taken(&bot);
    taken.sort_unstable();
    assert_eq!(taken, ids, "each once");
}

async fn what_was_under_way_at_the_kill_comes_again(world: World) {
    let bot = bot(&world);
    bot.hold();
    let mut first = node(&world, &bot, "true", "false").await;
    let ids = post_statuses(&world, &world.meta(&first)).await;
    until(&bot, "one is under way", |calls| !calls.is_empty()).await;
    first.kill().await;
    let under_way = bot.calls().len();
    bot.release();
    let second = node(&world, &bot, "true", "false").await;
    all_relayed(&world, &second).await;
    let calls = bot.calls();
    let (before, after) = calls.split_at(under_way);
    assert_eq!(before.len(), 1, "of one lane one is handed over at a time");
    let mut after: Vec<String> = after.iter().map(|call| status_of(call).0).collect();
    after.sort_unstable();
    assert_eq!(after, ids, "the first comes again, and no other twice");
    let keys: BTreeSet<&str> = calls
        .iter()
        .map(|call| call.header("x-hapax-event"))
        .collect();
    assert_eq!(keys.len(), STATUSES, "it comes again under the same key");
}

async fn what_the_bot_never_takes_ends_and_holds_up_nothing(world: World) {
    let bot = bot(&world);
    for (id, answer) in [("wamid.500", 500), ("wamid.404", 404)] {
        let applies = move |call: &Call| status_of(call).0 == id;
        bot.script().when(applies, Answer::Status(answer));
    }
    let node = node(&world, &bot, "true", "false").await;
    let meta = world.meta(&node);
    for id in ["wamid.500", "wamid.404", "wamid.200"] {
        thrice(&meta, &status(&world, id, "read", None)).await;
    }
    all_relayed(&world, &node).await;
    let tries = |id: &str| {
        let calls = bot.calls();
        calls.iter().filter(|call| status_of(call).0 == id).count()
    };
    let tries = ["wamid.500", "wamid.404", "wamid.200"].map(tries);
    assert_eq!(tries, [4, 1, 1]);
    let figures = node.figures().await;
    let results = ["given_up", "refused", "taken", "retry"];
    let results = results.map(|result| figures.sum("hapax_relays_total", result));
    assert_eq!(results, [1, 1, 1, 3]);
}
