//! The pretend Graph API, asked over HTTP.

use super::super::gate::Gate;
use super::super::meta::{Meta, MetaSettings};
use super::*;
use crate::simulator::record::StatusKey;

const LIMIT: Duration = Duration::from_secs(10);

fn start() -> Graph {
    let settings = GraphSettings {
        token: Secret::new("token"),
        seed: 1,
    };
    Graph::start(settings, History::new(), Clock::system()).unwrap()
}

fn text(to: &str, body: &str) -> Value {
    json!({
        "messaging_product": "whatsapp", "to": to, "type": "text", "text": { "body": body },
        "biz_opaque_callback_data": "tag-1",
    })
}

async fn call(graph: &Graph, token: &str, body: &Value) -> Result<(u16, Value), reqwest::Error> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}/v26.0/106540352242922/messages", graph.url());
    let answer = client
        .post(url)
        .bearer_auth(token)
        .json(body)
        .send()
        .await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

#[tokio::test]
async fn a_good_send_is_taken_and_recorded() {
    let graph = start();
    let (status, answer) = call(&graph, "token", &text("+15550000001", "hi"))
        .await
        .unwrap();
    assert_eq!(status, 200);
    assert_eq!(answer["contacts"][0]["wa_id"], "15550000001");
    let sent = &graph.accepted()[0];
    assert_eq!(answer["messages"][0]["id"].as_str(), sent.wamid.as_deref());
    assert_eq!(
        (sent.number.as_str(), sent.text()),
        ("106540352242922", "hi")
    );
    assert_eq!(sent.tag.as_deref(), Some("tag-1"));
    assert!(!sent.expected, "nobody wrote that");

    let to_bsuid = json!({
        "messaging_product": "whatsapp", "recipient": "US.1", "type": "image", "image": {},
    });
    let (_, answer) = call(&graph, "token", &to_bsuid).await.unwrap();
    assert_eq!(
        answer["contacts"],
        json!([{ "input": "US.1", "user_id": "US.1" }])
    );
    assert_ne!(graph.sent()[0].wamid, graph.sent()[1].wamid);
    graph.stop().await;
}

#[tokio::test]
async fn what_meta_refuses_is_refused() {
    let graph = start();
    let (status, answer) = call(&graph, "wrong", &text("+1", "hi")).await.unwrap();
    assert_eq!((status, &answer["error"]["code"]), (401, &json!(190)));
    let bad = [
        text("15550000001", "no plus"),
        text("+", "nobody"),
        text("+15550000001", ""),
        text("+15550000001", &"é".repeat(4097)),
        json!({ "messaging_product": "whatsapp", "to": "+1", "type": "image" }),
        json!({ "messaging_product": "whatsapp", "type": "text", "text": { "body": "x" } }),
        json!({ "to": "+1", "type": "text", "text": { "body": "x" } }),
    ];
    for body in &bad {
        let (status, answer) = call(&graph, "token", body).await.unwrap();
        assert_eq!(
            (status, &answer["error"]["code"]),
            (400, &json!(100)),
            "{body}"
        );
    }
    assert!(graph.accepted().is_empty());
    assert_eq!(graph.sent().len(), bad.len());
    let longest = text("+15550000001", &"é".repeat(4096));
    assert_eq!(call(&graph, "token", &longest).await.unwrap().0, 200);
    graph.stop().await;
}

#[tokio::test]
async fn reading_and_typing_are_no_sends() {
    let graph = start();
    let mut body = json!({
        "messaging_product": "whatsapp", "status": "read", "message_id": "wamid.A",
    });
    let (_, answer) = call(&graph, "token", &body).await.unwrap();
    assert_eq!(answer, json!({ "success": true }));
    body["typing_indicator"] = json!({ "type": "text" });
    call(&graph, "token", &body).await.unwrap();
    assert_eq!((graph.marked_read(), graph.typing()), (2, 1));
    assert!(graph.sent().is_empty());
    graph.stop().await;
}

#[tokio::test]
async fn refusals_and_resets_come_as_scripted() {
    let graph = start();
    graph.next(Behaviour::Reject {
        http: 400,
        code: 131_056,
    });
    graph.next(Behaviour::AcceptThenReset);
    graph.next(Behaviour::Reset);
    graph.when(
        |body| body["text"]["body"] == "slow",
        Behaviour::Delay(Duration::from_millis(1)),
    );
    let body = text("+15550000001", "slow");
    let (status, answer) = call(&graph, "token", &body).await.unwrap();
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(131_056)));
    call(&graph, "token", &body).await.unwrap_err();
    call(&graph, "token", &body).await.unwrap_err();
    assert_eq!(call(&graph, "token", &body).await.unwrap().0, 200);
    let accepted: Vec<bool> = graph.sent().iter().map(|sent| sent.accepted).collect();
    assert_eq!(accepted, [false, true, false, true]);
    graph.stop().await;
}

#[tokio::test]
async fn a_held_send_is_out_before_it_is_answered() {
    let graph = start();
    let gate = Gate::closed();
    graph.next(Behaviour::Hold(gate.clone()));
    graph.next(Behaviour::AcceptNeverAnswer);
    let first = tokio::spawn({
        let graph = graph.clone();
        async move { call(&graph, "token", &text("+15550000001", "one")).await }
    });
    graph
        .wait_until(|sent| sent.len() == 1, LIMIT)
        .await
        .unwrap();
    assert!(!first.is_finished());
    gate.release();
    assert_eq!(first.await.unwrap().unwrap().0, 200);

    let never = tokio::spawn({
        let graph = graph.clone();
        async move { call(&graph, "token", &text("+15550000001", "two")).await }
    });
    graph
        .wait_until(|sent| sent.len() == 2, LIMIT)
        .await
        .unwrap();
    assert!(graph.accepted().len() == 2 && !never.is_finished());
    graph.stop().await;
    assert!(never.await.unwrap().is_err());
}

#[tokio::test]
async fn a_status_can_be_known_before_the_send_is_answered() {
    let graph = start();
    let port = Port::reserve().unwrap();
    let webhook = Router::new().route("/", post(async || StatusCode::OK));
    let server = Server::start(&port, webhook, Clock::system(), Duration::ZERO).unwrap();
    let settings = MetaSettings::new(format!("http://{}/", port.addr()), Secret::new("secret"));
    let meta = Meta::new(settings, Arc::clone(graph.history()), Clock::system()).unwrap();
    let courier = Courier::start(meta, Draw::new(1), Clock::system());
    graph.report_to(courier.clone(), Receipts::None);

    let body = text("+15550000001", "hi");
    graph.next(Behaviour::StatusBeforeAnswer);
    let (_, answer) = call(&graph, "token", &body).await.unwrap();
    let wamid = answer["messages"][0]["id"].as_str().unwrap().to_owned();
    let key = StatusKey {
        wamid: wamid.clone(),
        status: "sent".to_owned(),
        participant: None,
    };
    let known = graph
        .history()
        .read(|r| (r.statuses[&key].copies, r.posted[0].status));
    assert_eq!(known, (1, Some(200)));

    assert!(graph.report(&wamid, "failed", Some(131_026)).await);
    assert!(!graph.report("wamid.unknown", "sent", None).await);
    assert_eq!(graph.history().progress().statuses, 2);
    graph.stop().await;
    courier.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_lenient_one_takes_what_bots_send_and_knows_other_paths() {
    let graph = start();
    let bare = json!({
        "messaging_product": "whatsapp", "to": "15550000001", "text": { "body": "hi" },
    });
    let strict = call(&graph, "another", &bare).await.unwrap().0;
    assert_eq!(strict, 401);
    assert_eq!(call(&graph, "token", &bare).await.unwrap().0, 400);

    graph.be_lenient();
    let (status, answer) = call(&graph, "another", &bare).await.unwrap();
    assert_eq!(
        (status, &answer["contacts"][0]["wa_id"]),
        (200, &json!("15550000001"))
    );
    assert_eq!(graph.accepted()[0].text(), "hi");
    let nothing = json!({ "messaging_product": "whatsapp", "to": "15550000001" });
    assert_eq!(call(&graph, "any", &nothing).await.unwrap().0, 400);

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let unknown = http
        .post(format!("{}/v23.0/106/subscribed_apps", graph.url()))
        .send();
    assert_eq!(unknown.await.unwrap().status(), 404);
    graph.be_as_bots_meet_it();
    let base = format!("{}/v23.0", graph.url());
    let upload = http.post(format!("{base}/106/media")).send().await;
    let id = upload.unwrap().json::<Value>().await.unwrap()["id"].clone();
    let media = http.get(format!("{base}/{}", id.as_str().unwrap())).send();
    let media = media.await.unwrap().json::<Value>().await.unwrap();
    let file = http
        .get(media["url"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(file.headers()["content-type"], "image/png");
    assert!(file.bytes().await.unwrap().starts_with(b"\x89PNG"));
    let set = http
        .post(format!("{base}/106/subscribed_apps"))
        .send()
        .await;
    assert_eq!(set.unwrap().json::<Value>().await.unwrap()["success"], true);
}
