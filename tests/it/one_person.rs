//! A person keeps one conversation through every way in which Meta shows them, and is answered
//! in the way in which they wrote last.

use std::collections::HashMap;

use hapax::model::{EventKey, Secret};
use hapax::simulator::bot::Bot;
use hapax::simulator::person::Person;
use serde_json::Value;

use crate::engines::on_each_engine;
use crate::talk::{Talk, field, is_of};
use crate::world::{APP_SECRET, LIMIT, Node, World};

on_each_engine!(
    phone_then_both_then_user_id_is_one_conversation_answered_as_shown,
    the_bot_sees_one_conversation_throughout,
    a_recycled_phone_number_does_not_open_the_old_conversation,
);

const PHONE: &str = "15550001";
const BSUID: &str = "US.1";

/// The same person, in the order in which Meta shows them over the years.
fn faces() -> Vec<(&'static str, Person)> {
    vec![
        ("by phone", Person::by_phone(PHONE)),
        ("by both", Person::by_both(PHONE, BSUID)),
        ("by user id", Person::by_bsuid(BSUID)),
        ("by both again", Person::by_both(PHONE, BSUID)),
        ("by phone again", Person::by_phone(PHONE)),
    ]
}

fn somebody_else() -> Person {
    Person::by_both("15550002", "US.2")
}

/// Says one text under each face, and one as somebody else; answers each text's event.
async fn say_all(talk: &Talk) -> HashMap<&'static str, EventKey> {
    let mut said = HashMap::new();
    for (text, person) in faces() {
        said.insert(text, talk.say(&person, text).await);
    }
    let stranger = "somebody else";
    said.insert(stranger, talk.say(&somebody_else(), stranger).await);
    said
}

async fn conversation(node: &Node, key: EventKey) -> String {
    let accepted = |line: &Value| is_of(line, key) && field(line, "verdict") == "accepted";
    let line = node.logged(accepted).await;
    field(&line, "conversation.id").to_owned()
}

async fn phone_then_both_then_user_id_is_one_conversation_answered_as_shown(world: World) {
    let node = world.node(&[]).await;
    let talk = Talk::with(&world, &node, 1);
    let mut seen = Vec::new();
    // One after the other: an answer goes where the person wrote from last.
    for (text, person) in faces() {
        let key = talk.say(&person, text).await;
        seen.push(conversation(&node, key).await);
        world.settle(&node).await;
    }
    assert!(seen[0].starts_with("cv_"), "{seen:?}");
    assert!(seen.iter().all(|id| *id == seen[0]), "{seen:?}");
    let other = talk.say(&somebody_else(), "hello").await;
    assert_ne!(conversation(&node, other).await, seen[0]);
    world.settle(&node).await;

    let sent = world.graph.accepted();
    for (index, (text, person)) in faces().iter().enumerate() {
        let body = &sent[index].body;
        assert_eq!(sent[index].text(), *text);
        match &person.phone {
            Some(phone) => {
                assert_eq!(body["to"], format!("+{phone}"), "{text}");
                assert!(body.get("recipient").is_none(), "{text}");
            }
            None => {
                assert_eq!(body["recipient"], BSUID, "{text}");
                assert!(body.get("to").is_none(), "{text}");
            }
        }
    }
    assert_eq!(sent.len(), faces().len() + 1);
    assert_eq!(node.figures().await.dead_letters(), 0);
}

async fn the_bot_sees_one_conversation_throughout(world: World) {
    let bot = Bot::start(Secret::new(APP_SECRET), world.clock.clone()).expect("a bot");
    let url = bot.url();
    let node = world
        .node(&[("HAPAX_HANDLER", "forward"), ("HAPAX_BOT_URL", &url)])
        .await;
    let talk = Talk::with(&world, &node, 1);
    let said = say_all(&talk).await;
    bot.wait_until(|calls| calls.len() >= said.len(), LIMIT)
        .await
        .expect("every message is forwarded");
    world.settle(&node).await;
    let calls = bot.calls();
    assert_eq!(calls.len(), said.len());
    let forwarded: HashMap<String, &str> = calls
        .iter()
        .map(|call| (call.text(), call.conversation()))
        .collect();
    let hers = forwarded["by phone"];
    for (text, key) in &said {
        let logged = conversation(&node, *key).await;
        assert_eq!(forwarded[*text], logged, "{text}: as the log says");
        assert_eq!(forwarded[*text] == hers, *text != "somebody else", "{text}");
    }
}

/// Numbers are given to new people: a user id that is not hers is not her.
async fn a_recycled_phone_number_does_not_open_the_old_conversation(world: World) {
    let node = world.node(&[]).await;
    let talk = Talk::with(&world, &node, 1);
    let hers = talk.say(&Person::by_both(PHONE, BSUID), "mine").await;
    let hers = conversation(&node, hers).await;
    let stranger = talk.say(&Person::by_both(PHONE, "US.9"), "new here").await;
    let strangers = conversation(&node, stranger).await;
    assert_ne!(strangers, hers);
    // Shown by phone alone, it is whoever has the number now; by her user id, it is still her.
    let by_phone = talk.say(&Person::by_phone(PHONE), "who am I").await;
    assert_eq!(conversation(&node, by_phone).await, strangers);
    let still = talk.say(&Person::by_bsuid(BSUID), "still me").await;
    assert_eq!(conversation(&node, still).await, hers);
    world.settle(&node).await;
}
