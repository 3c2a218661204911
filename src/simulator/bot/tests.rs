//! The pretend bot is called over HTTP, and answers as scripted.

use serde_json::json;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

fn start() -> Bot {
    Bot::start(Secret::new("secret"), Clock::system()).unwrap()
}

async fn call(bot: &Bot, conversation: &str, text: &str) -> Option<(u16, String)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({ "messages": [{ "text": text }] }).to_string();
    let post = client
        .post(bot.url())
        .header("X-Hapax-Conversation", conversation)
        .header("X-Hub-Signature-256", sign("secret", body.as_bytes()));
    let answer = post.body(body).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

fn call_later(bot: &Bot, conversation: &'static str) -> tokio::task::JoinHandle<Option<u16>> {
    let bot = bot.clone();
    tokio::spawn(async move { Some(call(&bot, conversation, "hi").await?.0) })
}

#[tokio::test]
async fn calls_are_answered_as_scripted() {
    let bot = start();
    bot.next(Answer::Status(503));
    bot.when(|text| text == "reset", Answer::Reset);
    bot.reply_json(|call| json!({ "text": call["messages"][0]["text"] }));
    assert_eq!(call(&bot, "cv_1", "hi").await.unwrap().0, 503);
    assert_eq!(call(&bot, "cv_1", "reset").await, None);
    let answer = call(&bot, "cv_1", "hi").await.unwrap();
    assert_eq!(answer, (200, r#"{"text":"hi"}"#.to_owned()));
    let statuses: Vec<Option<u16>> = bot.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [Some(503), None, Some(200)]);
    assert!(bot.calls().iter().all(|call| call.proof == Proof::Valid));
    assert!(bot.overlaps().is_empty());
    bot.stop().await;
}

#[tokio::test]
async fn held_calls_show_who_overlaps() {
    let bot = start();
    bot.hold();
    let calls = [
        call_later(&bot, "cv_1"),
        call_later(&bot, "cv_2"),
        call_later(&bot, "cv_1"),
    ];
    bot.wait_until(|calls| calls.len() == 3, LIMIT)
        .await
        .unwrap();
    assert!(bot.calls().iter().all(|call| call.ended.is_none()));
    bot.release();
    for call in calls {
        assert_eq!(call.await.unwrap(), Some(200));
    }
    let overlaps = bot.overlaps();
    assert_eq!(overlaps.len(), 1);
    let (first, second) = overlaps[0];
    assert_eq!(
        bot.calls()[first].conversation(),
        bot.calls()[second].conversation()
    );
    bot.stop().await;
}

#[tokio::test]
async fn a_bot_that_was_down_comes_back_with_its_memory() {
    let bot = start();
    bot.next(Answer::Hang);
    let cut = call_later(&bot, "cv_1");
    bot.wait_until(|calls| calls.len() == 1, LIMIT)
        .await
        .unwrap();
    bot.stop().await;
    assert_eq!(cut.await.unwrap(), None);
    assert_eq!(call(&bot, "cv_1", "hi").await, None, "refused");
    bot.restart().await.unwrap();
    assert_eq!(call(&bot, "cv_1", "hi").await.unwrap().0, 200);
    assert_eq!(bot.calls().len(), 2);
    assert_eq!(bot.calls()[0].status, None);
    assert!(bot.calls()[0].ended.is_some(), "it ended when it was cut");
    bot.stop().await;
}

#[test]
fn both_ways_of_signing_are_known() {
    let mut headers = HeaderMap::new();
    let proof = |headers: &HeaderMap| {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        prove(headers, br#"{"test": 2432232314}"#, &secret)
    };
    assert_eq!(proof(&headers), Proof::Absent);
    // The example of the Standard Webhooks specification's reference libraries.
    for (name, value) in [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        (
            "webhook-signature",
            "v1,x v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    assert_eq!(proof(&headers), Proof::Valid);
    headers.insert("webhook-id", "msg_other".parse().unwrap());
    assert_eq!(proof(&headers), Proof::Invalid);
    headers.insert("x-hub-signature-256", "sha256=00".parse().unwrap());
    assert_eq!(proof(&headers), Proof::Invalid);
}
