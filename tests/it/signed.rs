//! What Hapax forwards passes the bot's own check with its app secret, in whatever script people
//! write, however Meta has written it in JSON, and also when it comes again under another id.

use bytes::Bytes;
use hapax::simulator::bot::Proof;
use hapax::simulator::script::Answer;

use crate::scene::{bot, deliver, person, text, until};
use crate::world::World;

const SAID: &str = "Grüße, 你好, مرحبا, 👩🏽‍🌾 \u{0} / \\ \" <b>&amp;";

/// The same JSON with everything that is not ASCII, and every slash, as an escape.
fn escaped(body: &[u8]) -> Bytes {
    let mut escaped = String::new();
    for sign in std::str::from_utf8(body).expect("JSON").chars() {
        match sign {
            '/' => escaped.push_str("\\/"),
            ascii if ascii.is_ascii() => escaped.push(ascii),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    escaped.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    Bytes::from(escaped)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forwarded_passes_the_bots_own_check_whatever_was_written() {
    let world = World::new();
    let bot = bot(&world);
    bot.next(Answer::Status(500));
    let url = bot.url();
    let settings = [
        ("HAPAX_HANDLER", "forward"),
        ("HAPAX_BOT_URL", &*url),
        ("HAPAX_FORWARD_RETRY_ID", "fresh"),
    ];
    let node = world.node(&settings).await;
    let meta = world.meta(&node);
    let plain = text(&world, &person(1), SAID);
    let other = text(&world, &person(2), SAID);
    assert_ne!(escaped(&other), other);
    deliver(&meta, plain).await;
    deliver(&meta, escaped(&other)).await;
    until(&bot, "two messages, one of them twice", |calls| {
        calls.len() == 3
    })
    .await;
    let calls = bot.calls();
    for call in &calls {
        assert_eq!((call.proof, call.text().as_str()), (Proof::Valid, SAID));
    }
    let ids: Vec<String> = calls.iter().flat_map(|call| call.wamids()).collect();
    let fresh = ids.iter().filter(|id| id.contains('~')).count();
    assert_eq!(fresh, 1, "the second attempt has an id of its own");
}
