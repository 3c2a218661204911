//! A bot that fails, hangs or is away: nothing is lost, nobody is mute, order is kept.

use hapax::simulator::bot::{Call, Proof};
use hapax::simulator::payload::{Element, Side, single, wamid};
use hapax::simulator::script::Answer;
use hapax::simulator::seed::Draw;
use serde_json::{Value, json};

use crate::engines::on_each_engine;
use crate::scene::{bot, calls_of, deliver, logged_times, person, say, says, taken, took, until};
use crate::world::{NUMBER, Node, World};

on_each_engine!(
    a_bot_that_is_away_for_a_while_costs_no_message_no_order_and_no_attempt,
    a_handler_that_fails_three_times_is_called_a_fourth_time_as_the_same_turn,
    a_message_that_always_fails_becomes_a_dead_letter_and_the_next_one_goes_on,
    a_handler_that_hangs_is_ended_by_the_deadline_and_tried_again,
    a_bot_that_fails_on_one_kind_of_message_leaves_nobody_mute,
);

async fn forwarding(world: &World, url: &str, settings: &[(&str, &str)]) -> Node {
    let mut all = vec![("HAPAX_HANDLER", "forward"), ("HAPAX_BOT_URL", url)];
    all.extend(settings);
    world.node(&all).await
}

fn headers<'a>(calls: &'a [Call], name: &str) -> Vec<&'a str> {
    calls.iter().map(|call| call.header(name)).collect()
}

fn is_dead_letter(line: &Value) -> bool {
    says(line, "a turn became a dead letter")
}

async fn a_handler_that_fails_three_times_is_called_a_fourth_time_as_the_same_turn(world: World) {
    let bot = bot(&world);
    for _ in 0..3 {
        bot.next(Answer::Status(500));
    }
    let node = forwarding(&world, &bot.url(), &[]).await;
    let meta = world.meta(&node);
    say(&world, &meta, &person(1), "try me").await;
    until(&bot, "it is handled", |calls| took(calls, "try me")).await;
    world.settle(&node).await;

    let calls = bot.calls();
    let statuses: Vec<Option<u16>> = calls.iter().map(|call| call.status).collect();
    assert_eq!(statuses, [Some(500), Some(500), Some(500), Some(200)]);
    assert_eq!(headers(&calls, "x-hapax-attempt"), ["1", "2", "3", "4"]);
    for name in ["x-hapax-turn", "idempotency-key", "x-hapax-event"] {
        let values = headers(&calls, name);
        assert!(!values[0].is_empty(), "{name}");
        assert!(values.iter().all(|value| *value == values[0]), "{name}");
    }
    assert!(calls.iter().all(|call| call.proof == Proof::Valid));
    assert!(calls.iter().all(|call| call.body == calls[0].body));
    assert_eq!(node.figures().await.dead_letters(), 0);
}

async fn a_message_that_always_fails_becomes_a_dead_letter_and_the_next_one_goes_on(world: World) {
    let bot = bot(&world);
    bot.when(|text| text == "poison", Answer::Status(500));
    let node = forwarding(&world, &bot.url(), &[]).await;
    let meta = world.meta(&node);
    for text in ["before", "poison", "after"] {
        say(&world, &meta, &person(1), text).await;
    }
    until(&bot, "the next one goes on", |calls| took(calls, "after")).await;
    world.settle(&node).await;

    assert_eq!(taken(&bot), ["before", "after"]);
    let poison = calls_of(&bot, "poison");
    let attempts = ["1", "2", "3", "4", "5", "6", "7"];
    assert_eq!(headers(&poison, "x-hapax-attempt"), attempts);
    let after = &calls_of(&bot, "after")[0];
    assert!(after.began > poison[6].began, "it waited for its turn");
    let dead = node.logged(is_dead_letter).await;
    assert_eq!(dead["turn.id"], poison[0].header("x-hapax-turn"));
    assert_eq!(dead["turn.attempt"], 7);
    let reason = dead["reason"].as_str().expect("it has a reason");
    assert!(reason.contains("answered 500"), "{reason}");
    assert_eq!(node.figures().await.dead_letters(), 1);
}

/// One message hangs once, another one always.
async fn a_handler_that_hangs_is_ended_by_the_deadline_and_tried_again(world: World) {
    let bot = bot(&world);
    bot.script()
        .once_when(|call| call.text() == "slow once", Answer::Hang);
    bot.when(|text| text == "slow always", Answer::Hang);
    let settings = [
        ("HAPAX_TURN_DEADLINE", "1500ms"),
        ("HAPAX_TURN_ATTEMPTS_MAX", "3"),
    ];
    let node = forwarding(&world, &bot.url(), &settings).await;
    let meta = world.meta(&node);
    for text in ["slow once", "slow always", "after"] {
        say(&world, &meta, &person(1), text).await;
    }
    until(&bot, "the next one goes on", |calls| took(calls, "after")).await;
    world.settle(&node).await;

    assert_eq!(taken(&bot), ["slow once", "after"]);
    assert_eq!(calls_of(&bot, "slow once")[0].status, None, "it was cut");
    let always = calls_of(&bot, "slow always");
    assert_eq!(headers(&always, "x-hapax-attempt"), ["1", "2", "3"]);
    assert_eq!(
        bot.overlaps(),
        [],
        "what is tried again is not still running"
    );
    let dead = node.logged(is_dead_letter).await;
    assert_eq!(dead["turn.id"], always[0].header("x-hapax-turn"));
    let reason = dead["reason"].as_str().expect("it has a reason");
    assert!(reason.contains("gave no answer within"), "{reason}");
    assert_eq!(node.figures().await.dead_letters(), 1);
}

async fn a_bot_that_is_away_for_a_while_costs_no_message_no_order_and_no_attempt(world: World) {
    const PEOPLE: usize = 3;
    const EACH: usize = 4;
    let bot = bot(&world);
    bot.stop().await;
    // So many looks while it is away that attempts, were they counted, would be used up.
    let settings = [
        ("HAPAX_TURN_ATTEMPTS_MAX", "2"),
        ("HAPAX_TURN_UNAVAILABLE_BACKOFF_MAX", "100ms"),
    ];
    let node = forwarding(&world, &bot.url(), &settings).await;
    let meta = world.meta(&node);
    for message in 0..EACH {
        for who in 0..PEOPLE {
            let text = format!("p{who} #{message}");
            say(&world, &meta, &person(who), &text).await;
        }
    }
    logged_times(&world, &node, 8 * PEOPLE, |line| {
        let reason = line["reason"].as_str().unwrap_or_default();
        says(line, "turn released") && reason.starts_with("the bot is down")
    })
    .await;
    bot.restart().await.expect("the bot comes back");
    until(&bot, "all are handled", |calls| {
        let taken = calls.iter().filter(|call| call.status == Some(200));
        taken.count() == PEOPLE * EACH
    })
    .await;
    world.settle(&node).await;

    let calls = bot.calls();
    assert_eq!(calls.len(), PEOPLE * EACH, "each once");
    assert!(headers(&calls, "x-hapax-attempt").iter().all(|n| *n == "1"));
    for who in 0..PEOPLE {
        let person = format!("p{who} ");
        let texts = taken(&bot).into_iter().filter(|t| t.starts_with(&person));
        let expected: Vec<String> = (0..EACH).map(|n| format!("p{who} #{n}")).collect();
        assert_eq!(texts.collect::<Vec<_>>(), expected);
    }
    assert_eq!(node.figures().await.dead_letters(), 0);
}

async fn a_bot_that_fails_on_one_kind_of_message_leaves_nobody_mute(world: World) {
    let bot = bot(&world);
    let is_image = |call: &Call| {
        let message = &call.json["entry"][0]["changes"][0]["value"]["messages"][0];
        message["type"] == "image"
    };
    bot.script().when(is_image, Answer::Status(500));
    let settings = [("HAPAX_TURN_ATTEMPTS_MAX", "2")];
    let node = forwarding(&world, &bot.url(), &settings).await;
    let meta = world.meta(&node);
    let mut draw = Draw::new(1);
    for who in 0..3 {
        let (writer, at) = (person(who), world.clock.now());
        say(&world, &meta, &writer, &format!("p{who} look")).await;
        let id = wamid(&writer, Side::Person, &mut draw);
        let picture = json!({ "id": "1", "mime_type": "image/jpeg" });
        let image = Element::message_of_type(NUMBER, &writer, &id, at, "image", picture);
        deliver(&meta, single(&image)).await;
        say(&world, &meta, &writer, &format!("p{who} nice?")).await;
    }
    for who in 0..3 {
        let last = format!("p{who} nice?");
        until(&bot, "they are not mute", |calls| took(calls, &last)).await;
    }
    world.settle(&node).await;

    let calls = bot.calls();
    let images: Vec<&Call> = calls.iter().filter(|call| is_image(call)).collect();
    assert_eq!(images.len(), 6, "each image is tried twice");
    assert!(images.iter().all(|call| call.status == Some(500)));
    assert_eq!(taken(&bot).len(), 6, "each text is handled once");
    assert_eq!(node.figures().await.dead_letters(), 3);
}
