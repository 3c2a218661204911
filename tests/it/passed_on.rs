//! What a bot asks of the Graph API beside sends goes through to Meta as it came, with Meta's
//! token, in bounded memory; but for what would lead Meta away, or go round the record.

use hapax::simulator::elsewhere::{Elsewhere, media, pattern};
use hapax::simulator::gate::Gate;
use hapax::simulator::script::Behaviour;
use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::door::{Door, Told, message};
use crate::world::{NUMBER, Node, TOKEN, World};

const BOTS: &str = "the-bots-own-token";

async fn started(world: &World) -> (Node, Door) {
    let node = world.node(&[]).await;
    let door = Door::of(&node).await;
    (node, door)
}

fn last(world: &World) -> Elsewhere {
    let calls = world.graph.elsewhere();
    calls.last().expect("Meta was called").clone()
}

/// The most memory that a process has ever held, in bytes.
fn high_water(node: &Node) -> u64 {
    let path = format!("/proc/{}/status", node.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .expect("a size")
        .trim()
        .parse::<u64>()
        .expect("a number")
        * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn media_go_up_and_come_down_in_pieces() {
    const LENGTH: u64 = 40 << 20;
    const HELD_MAX: u64 = 10 << 20;
    let world = World::new();
    let (node, door) = started(&world).await;
    // So that what is made once is there already.
    let up = || door.call(Method::POST, &format!("/v25.0/{NUMBER}/media"));
    let typed = |length: u64| {
        let body = reqwest::Body::wrap_stream(media(length).into_data_stream());
        up().header(header::CONTENT_TYPE, "multipart/form-data; boundary=x")
            .body(body)
    };
    Told::of(typed(1 << 16)).await;
    let before = high_water(&node);
    let told = Told::of(typed(LENGTH)).await;
    assert_eq!(
        (told.status, &told.body["id"]),
        (200, &json!(format!("media-{LENGTH}")))
    );
    let call = last(&world);
    assert!(
        call.is_pattern && call.length == LENGTH,
        "{} bytes",
        call.length
    );
    assert_eq!(
        call.header(header::CONTENT_TYPE),
        "multipart/form-data; boundary=x"
    );
    let told = Told::of(typed(LENGTH).header(header::CONTENT_LENGTH, LENGTH)).await;
    assert_eq!(told.status, 200);
    assert_eq!(
        last(&world).header(header::CONTENT_LENGTH),
        LENGTH.to_string()
    );

    let down = door
        .call(Method::GET, &format!("/media/{LENGTH}"))
        .send()
        .await;
    let mut down = down.expect("it is answered");
    assert_eq!(down.headers()[header::CONTENT_TYPE], "image/webp");
    assert_eq!(down.content_length(), Some(LENGTH));
    let mut length = 0;
    while let Some(piece) = down.chunk().await.expect("it comes whole") {
        assert!(
            (length..)
                .zip(&piece)
                .all(|(at, byte)| pattern(at) == *byte)
        );
        length += piece.len() as u64;
    }
    assert_eq!(length, LENGTH);
    let held = high_water(&node) - before;
    assert!(held < HELD_MAX, "{held} bytes more were held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_through_as_it_came_with_metas_token_in_its_place() {
    let world = World::new();
    let node = world.node(&[("HAPAX_EGRESS_TOKEN", BOTS)]).await;
    let door = Door::of(&node).await;
    let bare = |method, target: &str| door.client.request(method, format!("{}{target}", door.url));

    let target = format!("/v24.0/7/message_templates?fields=a%2Cb,c&access_token={BOTS}&x=%20+");
    let answer = bare(Method::GET, &target)
        .header("x-hapax-test", "1")
        .header("x-bot", "2");
    // Of the pretend Graph, word for word.
    let told = Told::of(answer).await;
    told.is_refused(404, 100);
    assert_eq!(told.body["error"]["message"], "Unsupported request");
    let call = last(&world);
    assert_eq!(
        (call.method.as_str(), call.target),
        ("GET", target.replace(BOTS, TOKEN))
    );
    assert!(call.headers.get("x-hapax-test").is_none());
    assert_eq!(call.headers["x-bot"], "2");
    assert_eq!(
        call.headers["host"],
        world.graph.addr().to_string().as_str()
    );

    let oauth = format!("OAuth {BOTS}");
    let call = bare(Method::DELETE, "/v25.0/999").header(header::AUTHORIZATION, oauth);
    Told::of(call).await.is_refused(404, 100);
    let call = last(&world);
    assert_eq!(call.header(header::AUTHORIZATION), format!("OAuth {TOKEN}"));
    assert_eq!(
        (call.method.as_str(), call.target.as_str()),
        ("DELETE", "/v25.0/999")
    );

    let body = json!({"about": "ä", "access_token": BOTS});
    let profile = format!("/{NUMBER}/whatsapp_business_profile");
    Told::of(bare(Method::POST, &profile).json(&body))
        .await
        .is_refused(404, 100);
    let sent: Value = serde_json::from_slice(&last(&world).body).expect("JSON");
    assert_eq!(sent, json!({"about": "ä", "access_token": TOKEN}));
    let calls = world.graph.elsewhere().len();
    for call in [
        bare(Method::GET, "/v25.0/7"),
        door.call(Method::GET, "/v25.0/7"),
    ] {
        Told::of(call).await.is_refused(401, 190);
    }
    assert_eq!(
        world.graph.elsewhere().len(),
        calls,
        "and nothing went through"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_lead_meta_away_is_answered_and_not_passed_on() {
    let world = World::new();
    let (node, door) = started(&world).await;
    let other = json!({"override_callback_uri": "https://bot.example.org", "verify_token": "x"});
    let settings = json!({"webhook_configuration": {"override_callback_uri": "https://b.example"}});
    let withheld = [
        (
            Method::POST,
            "/v25.0/7/subscriptions?object=whatsapp_business_account".to_owned(),
            None,
        ),
        (Method::DELETE, "/7/subscriptions".to_owned(), None),
        (
            Method::POST,
            "/v25.0/7/subscribed_apps".to_owned(),
            Some(other),
        ),
        (
            Method::POST,
            "/7/subscribed_apps?override_callback_uri=https%3A%2F%2Fb".to_owned(),
            None,
        ),
        (Method::DELETE, "/v25.0/7/subscribed_apps".to_owned(), None),
        (
            Method::POST,
            "/v25.0/7/subscribed_apps?method=delete".to_owned(),
            None,
        ),
        (Method::POST, format!("/v25.0/{NUMBER}"), Some(settings)),
    ];
    let count = withheld.len();
    for (method, target, body) in withheld {
        let call = door.call(method, &target);
        let told = Told::of(match body {
            Some(body) => call.json(&body),
            None => call,
        });
        let told = told.await;
        assert_eq!(
            (told.status, told.body),
            (200, json!({"success": true})),
            "{target}"
        );
    }
    assert_eq!(world.graph.elsewhere(), []);
    let is_withheld = |line: &Value| line["reason"].is_string() && line["level"] == "WARN";
    node.logged_times(is_withheld, count).await;

    Told::of(door.call(Method::POST, "/v25.0/7/subscribed_apps"))
        .await
        .is_refused(404, 100);
    assert_eq!(last(&world).target, "/v25.0/7/subscribed_apps");
    let register = door.call(Method::POST, &format!("/v25.0/{NUMBER}"));
    Told::of(register.json(&json!({"pin": "1"})))
        .await
        .is_refused(404, 100);
    assert_eq!(last(&world).body, r#"{"pin":"1"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_go_round_the_record_is_refused_with_the_reason() {
    let world = World::new();
    let (_node, door) = started(&world).await;
    let batch = json!({"batch": [{"method": "POST", "relative_url": "106/messages"}]});
    for path in ["/", "/v25.0", "/v25.0/"] {
        let refused = Told::of(door.call(Method::POST, path).json(&batch)).await;
        refused.is_refused(400, 3);
        let details = refused.body["error"]["error_data"]["details"].as_str();
        assert!(details.expect("a reason").contains("batch"), "{details:?}");
    }
    let path = format!("/v25.0/{NUMBER}/marketing_messages");
    let refused = Told::of(
        door.call(Method::POST, &path)
            .json(&message("15550001", "x")),
    )
    .await;
    refused.is_refused(400, 3);
    assert_eq!(world.graph.elsewhere(), []);
    // What is Hapax's own stays so.
    let own = door
        .call(Method::GET, "/v1/elsewhere")
        .send()
        .await
        .expect("it is answered");
    assert_eq!(own.status(), 404);
    let own: Value = own.json().await.expect("JSON");
    assert_eq!(own["error"]["code"], "not_found");
    let threads = door.call(Method::GET, &format!("/v1/threads/{NUMBER}/15550001"));
    assert_eq!(threads.send().await.expect("it is answered").status(), 404);
    assert_eq!(world.graph.elsewhere(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_go_to_meta_at_once_but_for_messages_of_our_own_ids() {
    let world = World::new();
    let node = world.node(&[("HAPAX_EGRESS_ANSWER_WITHIN", "200ms")]).await;
    let door = Door::of(&node).await;
    let mark = |id: &str| {
        json!({"messaging_product": "whatsapp", "status": "read", "message_id": id,
               "typing_indicator": {"type": "text"}})
    };
    let told = door.post(&mark("wamid.HBgL")).await;
    assert_eq!((told.status, told.body), (200, json!({"success": true})));
    assert_eq!((world.graph.marked_read(), world.graph.typing()), (1, 1));
    let gate = Gate::closed();
    world.graph.next(Behaviour::Hold(gate.clone()));
    let own = door.say("15550001", "hi").await;
    let told = door.post(&mark(own.id())).await;
    gate.release();
    assert_eq!((told.status, told.body), (200, json!({"success": true})));
    assert_eq!(world.graph.marked_read(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_way_to_meta_is_told_in_graphs_shape() {
    let world = World::new();
    let node = world
        .node(&[("WHATSAPP_API_URL", "http://127.0.0.1:9")])
        .await;
    let door = Door::of(&node).await;
    let told = Told::of(door.call(Method::GET, "/v25.0/7")).await;
    told.is_refused(502, 2);
    assert_eq!(told.body["error"]["is_transient"], true);
}
