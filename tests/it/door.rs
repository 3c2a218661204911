//! The bot's side of the Graph door: a client that speaks to it, and a bot that does so while it
//! is called.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use hapax::clock::Clock;
use hapax::listener::{self, Limits};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::scene::says;
use crate::talk::field;
use crate::world::{LIMIT, NUMBER, Node, TOKEN};

/// A client of the door.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) client: reqwest::Client,
    pub(crate) url: String,
}

/// What it was answered.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Door {
    pub(crate) async fn of(node: &Node) -> Self {
        // Whoever was first in this process; every client needs one, though it speaks no TLS.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let line = node.logged(|line| says(line, "serving")).await;
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build();
        Self {
            client: client.expect("a client"),
            url: format!("http://{}", field(&line, "bot")),
        }
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let call = self.client.request(method, format!("{}{path}", self.url));
        call.bearer_auth(TOKEN)
    }

    pub(crate) fn messages(&self) -> RequestBuilder {
        self.call(Method::POST, &format!("/v25.0/{NUMBER}/messages"))
    }

    /// Sends a text.
    pub(crate) async fn say(&self, to: &str, text: &str) -> Told {
        Told::of(self.messages().json(&message(to, text))).await
    }

    pub(crate) async fn post(&self, body: &Value) -> Told {
        Told::of(self.messages().json(body)).await
    }
}

impl Told {
    pub(crate) async fn of(call: RequestBuilder) -> Self {
        let answer = call.send().await.expect("it is answered");
        let status = answer.status().as_u16();
        let body = answer.json().await.expect("JSON");
        Self { status, body }
    }

    /// The id of the message that was taken on.
    pub(crate) fn id(&self) -> &str {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["messages"][0]["id"].as_str().expect("an id")
    }

    pub(crate) fn is_refused(&self, status: u16, code: i64) {
        assert_eq!(self.status, status, "{}", self.body);
        let error = &self.body["error"];
        assert_eq!(error["code"], code, "{}", self.body);
        assert_eq!(error["type"], "OAuthException", "{}", self.body);
        assert!(error["fbtrace_id"].is_string(), "{}", self.body);
    }
}

/// A text as bots send it.
pub(crate) fn message(to: &str, text: &str) -> Value {
    json!({"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": text}})
}

type Answering = Pin<Box<dyn Future<Output = u16> + Send>>;
type Behave = dyn Fn(Door, Heard) -> Answering + Send + Sync;

/// What a bot was told.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) from: String,
    pub(crate) text: String,
    pub(crate) attempt: u32,
}

/// A bot that sends through the door while it is called. Gone when dropped.
pub(crate) struct SendingBot {
    pub(crate) url: String,
    door: Arc<OnceLock<Door>>,
    _stop: DropGuard,
}

#[derive(Clone)]
struct Service {
    door: Arc<OnceLock<Door>>,
    behave: Arc<Behave>,
}

impl SendingBot {
    /// A bot that does this with each call, and answers with the status that comes of it.
    pub(crate) async fn start<F>(behave: impl Fn(Door, Heard) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = u16> + Send + 'static,
    {
        let door = Arc::new(OnceLock::new());
        let service = Service {
            door: Arc::clone(&door),
            behave: Arc::new(move |door, heard| Box::pin(behave(door, heard))),
        };
        let router = Router::new().fallback(hear).with_state(service);
        let listener = listener::bind(([127, 0, 0, 1], 0).into()).await;
        let listener = listener.expect("a port");
        let url = format!("http://{}/webhook", listener.local_addr().expect("bound"));
        let stop = CancellationToken::new();
        let limits = Limits {
            connections: 64,
            header: LIMIT,
            age: LIMIT * 2,
            drain: Duration::from_millis(1),
        };
        let serving = listener::serve(listener, router, limits, Clock::system(), stop.clone());
        tokio::spawn(serving);
        Self {
            url,
            door,
            _stop: stop.drop_guard(),
        }
    }

    /// The settings with which a node calls this bot.
    pub(crate) fn settings(&self) -> Vec<(&str, &str)> {
        vec![("HAPAX_HANDLER", "forward"), ("HAPAX_BOT_URL", &self.url)]
    }

    /// Through which it sends; it is not called before.
    pub(crate) fn sends_through(&self, door: &Door) {
        assert!(self.door.set(door.clone()).is_ok(), "one door");
    }
}

async fn hear(
    State(service): State<Service>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> StatusCode {
    let json: Value = serde_json::from_slice(&body).expect("JSON");
    let message = &json["entry"][0]["changes"][0]["value"]["messages"][0];
    let attempt = headers["x-hapax-attempt"].to_str().expect("text");
    let heard = Heard {
        from: field(message, "from").to_owned(),
        text: field(&message["text"], "body").to_owned(),
        attempt: attempt.parse().expect("a number"),
    };
    let door = service.door.get().expect("it is called later").clone();
    let status = (service.behave)(door, heard).await;
    StatusCode::from_u16(status).expect("a status")
}
