//! What is not from Meta is refused and leaves nothing behind; what Meta signed is kept, however
//! odd it is; and the node goes on as if nothing had been.

use std::net::SocketAddr;

use bytes::Bytes;
use hapax::simulator::payload::{Side, sign, wamid};
use hapax::simulator::person::Person;
use hapax::simulator::seed::Draw;
use serde_json::{Value, json};

use crate::talk::{Answer, Talk, post_head, post_raw, raw, received, stored};
use crate::world::{APP_SECRET, NUMBER, Node, VERIFY_TOKEN, World};

const CHALLENGE: &str = "1158201444 <b>&amp;</b>";

fn ann() -> Person {
    Person::by_phone("15550001")
}

/// A GET or another bodiless request.
async fn ask(world: &World, to: SocketAddr, method: &str, path: &str) -> Answer {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: hapax\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    raw(&world.clock, to, &[head.as_bytes()]).await
}

fn handshake(token: &str) -> String {
    // The challenge, percent-encoded as a browser would.
    let challenge = "1158201444+%3Cb%3E%26amp%3B%3C%2Fb%3E";
    format!("/webhook?hub.mode=subscribe&hub.challenge={challenge}&hub.verify_token={token}")
}

/// Nothing was stored: not an event, not a person.
async fn nothing_is_stored(world: &World, node: &Node) {
    assert_eq!(node.figures().await.sum("hapax_events_total", ""), 0);
    for table in ["event", "message", "notice", "receipt", "contact", "alias"] {
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(stored(world, &count), 0, "{table}");
    }
}

/// A message is still handled, once.
async fn still_works(world: &World, node: &Node) {
    let before = world.graph.sent().len();
    let person = Person::by_phone("15550099");
    Talk::with(world, node, 99)
        .say(&person, "still there?")
        .await;
    world.settle(node).await;
    assert_eq!(received(world, &person), ["still there?"]);
    assert_eq!(world.graph.sent().len(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_the_right_signature_is_answered_401_and_not_stored() {
    let world = World::new();
    let node = world.node(&[]).await;
    let (_, body) = Talk::with(&world, &node, 1).text(&ann(), "hello");
    let right = sign(APP_SECRET, &body);
    let foreign = sign("another-app-secret", &body);
    let mut other_body = body.to_vec();
    let place = other_body.len() / 2;
    other_body[place] ^= 1;
    let of_other_body = sign(APP_SECRET, &other_body);
    let signatures = [
        None,
        Some(""),
        Some("sha256="),
        Some("sha256=zz"),
        Some(foreign.as_str()),
        Some(of_other_body.as_str()),
        Some(&right[..right.len() - 2]),
        Some(&right["sha256=".len()..]),
    ];
    for signature in signatures {
        let head = post_head(body.len(), signature);
        let answer = raw(&world.clock, node.public, &[head.as_bytes(), &body]).await;
        assert_eq!(answer.status, 401, "{signature:?}");
    }
    nothing_is_stored(&world, &node).await;
    let refused = node.figures().await;
    let refused = refused.sum("hapax_deliveries_total", "answer=\"401\"");
    assert_eq!(refused, signatures.len() as u64);
    still_works(&world, &node).await;
    assert!(received(&world, &ann()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_is_answered_to_who_knows_the_verify_token() {
    let world = World::new();
    let node = world.node(&[]).await;
    let answer = ask(&world, node.public, "GET", &handshake(VERIFY_TOKEN)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, CHALLENGE, "exactly the challenge");
    assert!(
        answer.head.contains("\r\ncontent-type: text/plain"),
        "{}",
        answer.head
    );
    let subscribe = format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}");
    let refused = [
        handshake("another-token"),
        handshake(""),
        "/webhook".to_owned(),
        format!("/webhook?{subscribe}"),
        format!("/webhook?hub.challenge=1&hub.verify_token={VERIFY_TOKEN}"),
        format!("/webhook?hub.mode=unsubscribe&hub.challenge=1&hub.verify_token={VERIFY_TOKEN}"),
    ];
    for path in refused {
        let answer = ask(&world, node.public, "GET", &path).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(!answer.body.contains("1158201444"), "{path}");
    }
    nothing_is_stored(&world, &node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_secret_and_token_are_good_while_they_are_set() {
    let world = World::new();
    let rotating = world
        .node(&[
            ("WHATSAPP_APP_SECRET_PREVIOUS", "old-secret"),
            ("WHATSAPP_VERIFY_TOKEN_PREVIOUS", "old-token"),
        ])
        .await;
    let rotated = world.node(&[]).await;
    let talk = Talk::with(&world, &rotating, 1);
    for secret in ["old-secret", APP_SECRET] {
        let (_, body) = talk.text(&ann(), secret);
        let head = post_head(body.len(), Some(&sign(secret, &body)));
        let parts: &[&[u8]] = &[head.as_bytes(), &body];
        let answer = raw(&world.clock, rotating.public, parts).await;
        assert_eq!(answer.status, 200, "{secret}");
        let answer = raw(&world.clock, rotated.public, parts).await;
        let expected = if secret == APP_SECRET { 200 } else { 401 };
        assert_eq!(answer.status, expected, "{secret}, after the rotation");
        world.settle(&rotating).await;
    }
    assert_eq!(received(&world, &ann()), ["old-secret", APP_SECRET]);
    for (node, token, status) in [
        (&rotating, "old-token", 200),
        (&rotating, VERIFY_TOKEN, 200),
        (&rotated, "old-token", 403),
    ] {
        let answer = ask(&world, node.public, "GET", &handshake(token)).await;
        assert_eq!(answer.status, status, "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_long_is_answered_413() {
    const LENGTH: usize = 10_000_000;
    const BODY_MAX: usize = 3_500_000;
    let world = World::new();
    let node = world.node(&[("HAPAX_PUBLIC_BODY_MAX", "3.5MB")]).await;
    let body = vec![b' '; LENGTH];
    let signature = sign(APP_SECRET, &body);
    let head = post_head(LENGTH, Some(&signature));
    let answer = raw(&world.clock, node.public, &[head.as_bytes(), &body]).await;
    assert_eq!(answer.status, 413);
    // Of unknown length: refused by the byte that is one too many, which is the last one here.
    let chunked = "Transfer-Encoding: chunked";
    let head = head.replace(&format!("Content-Length: {LENGTH}"), chunked);
    let size = format!("{:x}\r\n", BODY_MAX + 1);
    let parts: &[&[u8]] = &[head.as_bytes(), size.as_bytes(), &body[..=BODY_MAX]];
    let answer = raw(&world.clock, node.public, parts).await;
    assert_eq!(answer.status, 413, "chunked");
    nothing_is_stored(&world, &node).await;
    still_works(&world, &node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_answered_408() {
    let world = World::new();
    let node = world.node(&[("HAPAX_PUBLIC_BODY_TIMEOUT", "200ms")]).await;
    let (_, body) = Talk::with(&world, &node, 1).text(&ann(), "slow");
    let head = post_head(body.len(), Some(&sign(APP_SECRET, &body)));
    let half = &body[..body.len() / 2];
    let answer = raw(&world.clock, node.public, &[head.as_bytes(), half]).await;
    assert_eq!(answer.status, 408);
    nothing_is_stored(&world, &node).await;
    still_works(&world, &node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_answered_405_and_other_paths_404() {
    let world = World::new();
    let node = world.node(&[]).await;
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let answer = ask(&world, node.public, method, "/webhook").await;
        assert_eq!(answer.status, 405, "{method}");
    }
    let paths = [
        "/",
        "/webhook/",
        "/webhook/x",
        "/metrics",
        "/admin",
        "/v25.0/1/messages",
        "/../webhook",
        "/%00",
    ];
    for path in paths {
        for method in ["GET", "POST"] {
            let answer = ask(&world, node.public, method, path).await;
            assert_eq!(answer.status, 404, "{method} {path}");
        }
    }
    for path in ["/healthz", "/readyz"] {
        let answer = ask(&world, node.public, "GET", path).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    nothing_is_stored(&world, &node).await;
    still_works(&world, &node).await;
}

// Rightly signed, and odd -----------------------------------------------------------------------

/// What a signed body is kept as: messages, statuses, notices, and the kind of the notice.
struct Odd {
    name: &'static str,
    body: Bytes,
    messages: i64,
    notice: Option<&'static str>,
}

fn notice(name: &'static str, body: impl Into<Bytes>, kind: &'static str) -> Odd {
    Odd {
        name,
        body: body.into(),
        messages: 0,
        notice: Some(kind),
    }
}

fn delivery(value: &Value) -> Value {
    json!({
        "object": "whatsapp_business_account",
        "entry": [{ "id": "1", "changes": [{ "field": "messages", "value": value }] }],
    })
}

/// A delivery of one message, `with` something in it that JSON libraries do not write.
fn message(name: &'static str, draw: &mut Draw, with: &str) -> Odd {
    let id = wamid(&ann(), Side::Person, draw);
    let text = json!({
        "from": "15550001", "id": id, "timestamp": "1790000000",
        "type": "text", "text": { "body": "PLACE" },
    });
    let value = json!({
        "messaging_product": "whatsapp",
        "metadata": { "phone_number_id": NUMBER },
        "messages": [text],
    });
    let body = delivery(&value).to_string().replace("PLACE", with);
    Odd {
        name,
        body: body.into(),
        messages: 1,
        notice: None,
    }
}

fn odd_bodies(talk: &Talk) -> Vec<Odd> {
    let (_, whole) = talk.text(&ann(), "cut off");
    let draw = &mut Draw::new(7);
    let numbers = json!({
        "messaging_product": "whatsapp", "metadata": { "phone_number_id": 106_540_352_242_922_i64 },
        "messages": [{
            "from": 15_550_001, "id": wamid(&ann(), Side::Person, draw), "timestamp": 1_790_000_000,
            "type": "text", "text": { "body": 42 },
        }],
    });
    let empty =
        json!({ "metadata": { "phone_number_id": NUMBER }, "messages": [], "statuses": [] });
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let raw_control = message("", draw, "a\u{1}b").body;
    let mut odd = vec![
        notice("truncated", whole.slice(..whole.len() / 2), "undecodable"),
        notice("no bytes", "", "undecodable"),
        notice("no text", b"\xff\xfe\x00{".as_slice(), "undecodable"),
        notice("a deep list", deep, "foreign"),
        notice("a number", "42", "foreign"),
        notice("a list", "[]", "foreign"),
        notice(
            "another kind",
            r#"{"object":"page","entry":[{"id":"1"}]}"#,
            "foreign",
        ),
        notice("another shape", r#"{"hello":"world"}"#, "foreign"),
        notice("empty arrays", delivery(&empty).to_string(), "messages"),
        message("NUL", draw, r"a\u0000b"),
        message("a lone surrogate", draw, r"a\ud800b"),
        message(
            "a surrogate pair the wrong way round",
            draw,
            r"\udc00\ud800",
        ),
        notice("a raw control character", raw_control, "undecodable"),
    ];
    odd.push(Odd {
        name: "numbers for strings",
        body: delivery(&numbers).to_string().into(),
        messages: 1,
        notice: None,
    });
    odd
}

#[tokio::test(flavor = "multi_thread")]
async fn what_meta_signed_is_kept_and_answered_200_however_odd() {
    let world = World::new();
    let node = world.node(&[]).await;
    let talk = Talk::with(&world, &node, 1);
    for odd in odd_bodies(&talk) {
        let messages = stored(&world, "SELECT count(*) FROM message");
        let kinds = |kind| format!("SELECT count(*) FROM notice WHERE kind = '{kind}'");
        let notices = odd.notice.map(|kind| stored(&world, &kinds(kind)));
        for _ in 0..2 {
            let answer = post_raw(&world.clock, node.public, &odd.body).await;
            assert_eq!(answer.status, 200, "{}", odd.name);
        }
        let kept = stored(&world, "SELECT count(*) FROM message") - messages;
        assert_eq!(kept, odd.messages, "{}: messages", odd.name);
        if let Some((kind, before)) = odd.notice.zip(notices) {
            assert_eq!(stored(&world, &kinds(kind)) - before, 1, "{}", odd.name);
        }
    }
    world.settle(&node).await;
    let figures = node.figures().await;
    let messages = stored(&world, "SELECT count(*) FROM message") as u64;
    let label = "kind=\"message\",verdict=\"accepted\"";
    assert_eq!(figures.sum("hapax_events_total", label), messages);
    assert_eq!(figures.sum("hapax_turns_total", ""), messages);
    assert_eq!(figures.sum("hapax_events_total", "verdict=\"rejected\""), 0);
    assert_eq!(received(&world, &ann()).len() as u64, messages);
    still_works(&world, &node).await;
}
