//! Whole runs against gateways that are too simple to be right or wrong by accident.

use std::collections::HashMap;
use std::sync::Mutex;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::OnceCell;

use super::*;
use crate::simulator::checker::Breach;
use crate::simulator::graph::GraphSettings;
use crate::simulator::payload::sign;
use crate::simulator::seen::{Seen, read};
use crate::simulator::server::{Port, Server};

/// Echoes in the webhook call itself; tells duplicates apart if it is told to. A duplicate is
/// answered only after the echo: were it answered before, the next message could overtake.
struct Gateway {
    graph_url: String,
    http: reqwest::Client,
    seen: Option<Mutex<HashMap<String, Arc<OnceCell<()>>>>>,
}

async fn receive(
    State(gateway): State<Arc<Gateway>>,
    headers: axum::http::HeaderMap,
    body: Bytes,
) -> StatusCode {
    if headers["x-hub-signature-256"] != *sign("secret", &body) {
        return StatusCode::UNAUTHORIZED;
    }
    for element in read(&body) {
        if let Seen::Message {
            wamid,
            aliases,
            text,
        } = element
        {
            let once = gateway.seen.as_ref().map_or_else(Arc::default, |seen| {
                Arc::clone(seen.lock().unwrap().entry(wamid).or_default())
            });
            let text = text.unwrap();
            once.get_or_init(|| gateway.echo(&aliases[0], &text)).await;
        }
    }
    StatusCode::OK
}

async fn verify(Query(query): Query<HashMap<String, String>>) -> (StatusCode, String) {
    match query["hub.verify_token"].as_str() {
        "verify" => (StatusCode::OK, query["hub.challenge"].clone()),
        _ => (StatusCode::FORBIDDEN, String::new()),
    }
}

impl Gateway {
    async fn echo(&self, alias: &str, text: &str) {
        let mut body = json!({
            "messaging_product": "whatsapp", "type": "text", "text": { "body": text },
        });
        match alias.contains('.') {
            true => body["recipient"] = json!(alias),
            false => body["to"] = json!(format!("+{alias}")),
        }
        let url = format!("{}/v26.0/106540352242922/messages", self.graph_url);
        let call = self.http.post(url).bearer_auth("token").json(&body);
        assert_eq!(call.send().await.unwrap().status(), 200);
    }
}

struct Setting {
    graph: Graph,
    server: Server,
    port: Port,
}

fn set_up(tells_duplicates: bool) -> Setting {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = GraphSettings {
        token: Secret::new("token"),
        seed: 1,
    };
    let graph = Graph::start(settings, History::new(), Clock::system()).unwrap();
    let gateway = Arc::new(Gateway {
        graph_url: graph.url(),
        http: reqwest::Client::builder().no_proxy().build().unwrap(),
        seen: tells_duplicates.then(Mutex::default),
    });
    let router = Router::new()
        .route("/webhook", get(verify).post(receive))
        .with_state(gateway);
    let port = Port::reserve().unwrap();
    let server = Server::start(&port, router, Clock::system(), Duration::ZERO).unwrap();
    Setting {
        graph,
        server,
        port,
    }
}

impl Setting {
    fn settings(&self) -> Settings {
        let url = format!("http://{}/webhook", self.port.addr());
        Settings::live(url, Secret::new("secret"), Secret::new("verify"))
    }

    fn rehearsal(&self, settings: Settings) -> Rehearsal {
        Rehearsal::new(settings, &self.graph, Clock::system()).unwrap()
    }

    async fn tear_down(self) {
        self.graph.stop().await;
        self.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_tells_duplicates_apart_is_clean() {
    let setting = set_up(true);
    let rehearsal = setting.rehearsal(setting.settings().counted(300));
    let report = rehearsal.run(&CancellationToken::new()).await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.messages, report.replies), (300, 300));
    assert!(report.duplicates_posted > 300, "{report}");
    assert!(report.events > 1000, "statuses were reported: {report}");
    let progress = *rehearsal.watch().borrow();
    assert_eq!((progress.messages, progress.waiting), (300, 0));
    assert_eq!(setting.graph.accepted().len(), 300);
    setting.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_does_not_is_found_out() {
    let setting = set_up(false);
    let rehearsal = setting.rehearsal(setting.settings().counted(100));
    let report = rehearsal.run(&CancellationToken::new()).await.unwrap();
    assert!(report.count(Breach::Double) > 50, "{report}");
    assert_eq!(report.count(Breach::Double), report.replies - 100);
    assert!(
        report.of(Breach::Missing).is_empty() && report.of(Breach::Unexpected).is_empty(),
        "{report}"
    );
    setting.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_run_ends_when_it_is_told_to() {
    let setting = set_up(true);
    let mut settings = setting.settings();
    settings.rate = Some(1000.0);
    settings.late = Duration::from_millis(20);
    let rehearsal = setting.rehearsal(settings);
    let stop = CancellationToken::new();
    let mut progress = rehearsal.watch();
    let watcher = tokio::spawn({
        let stop = stop.clone();
        async move {
            progress
                .wait_for(|progress| progress.replies >= 50)
                .await
                .unwrap();
            stop.cancel();
        }
    });
    let report = rehearsal.run(&stop).await.unwrap();
    watcher.await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(report.messages >= 50, "{report}");
    setting.tear_down().await;
}

#[tokio::test]
async fn a_webhook_that_refuses_the_handshake_is_not_written_to() {
    let setting = set_up(true);
    let mut settings = setting.settings().counted(10);
    settings.verify_token = Secret::new("other");
    let rehearsal = setting.rehearsal(settings);
    let refused = rehearsal.run(&CancellationToken::new()).await;
    assert!(matches!(
        refused,
        Err(MetaError::Handshake { status: Some(403) })
    ));
    assert_eq!(setting.graph.history().progress(), Progress::default());
    setting.tear_down().await;
}

#[tokio::test]
async fn a_seed_decides_who_writes_what() {
    let setting = set_up(true);
    let drawn = |seed| {
        let mut settings = setting.settings();
        settings.seed = seed;
        let mut writers = setting.rehearsal(settings).writers();
        writers
            .iter_mut()
            .map(|w| (w.person.clone(), w.phrases.say()))
            .collect::<Vec<_>>()
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
    setting.tear_down().await;
}
