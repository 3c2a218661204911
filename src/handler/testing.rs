//! What the tests of the handlers share: turns, and a bot on a loopback socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use super::BotSettings;
use crate::model::{
    ContactId, ConversationId, EventKey, Failure, Message, NumberId, Outcome, Turn, TurnId,
};

/// How every envelope made here ends.
const END: &str = " ☕\"}";

/// A message of a type that may have a text.
pub(super) fn message(kind: &str, text: Option<&str>) -> Message {
    let content = format!("{kind}:{}", text.unwrap_or_default());
    Message {
        id: "wamid.secret".to_owned(),
        kind: kind.to_owned(),
        from: Some("15550100".to_owned()),
        from_user_id: None,
        name: Some("Ann".to_owned()),
        timestamp: Some(1_760_000_000),
        text: text.map(str::to_owned),
        reply_to: None,
        button: None,
        media: None,
        forwarded: false,
        raw: RawValue::from_string(r#"{"type":"text"}"#.to_owned()).expect("is JSON"),
        key: EventKey::derive(&[content.as_bytes()]),
        envelope: format!(r#"{{"object" : "whatsapp_business_account","note":"{content}{END}"#),
    }
}

/// The turn `turn_<conversation>_3` over text messages, in its first attempt.
pub(super) fn turn(conversation: i64, texts: &[&str]) -> Turn {
    let conversation = ConversationId(conversation);
    Turn {
        id: TurnId {
            conversation,
            seq: 3,
        },
        number: NumberId::from("106540352242922"),
        conversation,
        contact: ContactId(1),
        attempt: 1,
        epoch: 5,
        is_again: false,
        is_new: false,
        messages: texts.iter().map(|t| message("text", Some(t))).collect(),
        deadline: Duration::from_secs(30),
    }
}

/// Settings under which nothing but the bot itself decides how a call ends.
pub(super) fn settings(urls: Vec<String>) -> BotSettings {
    BotSettings {
        urls,
        concurrency: 8,
        down_for: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
    }
}

/// What a bot was sent.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A bot on a loopback socket; it keeps what it is sent.
pub(super) struct TestBot {
    address: SocketAddr,
    received: mpsc::Receiver<Received>,
}

impl TestBot {
    /// One that always answers with this status and an empty body.
    pub(super) async fn answering(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a status");
        Self::start(move || status.into_response()).await
    }

    /// One that answers at once.
    pub(super) async fn start(answer: impl Fn() -> Response + Send + Sync + 'static) -> Self {
        Self::gated(Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)), answer).await
    }

    /// One that needs a permit of `gate` for each answer.
    pub(super) async fn gated(
        gate: Arc<Semaphore>,
        answer: impl Fn() -> Response + Send + Sync + 'static,
    ) -> Self {
        let (sender, received) = mpsc::channel(64);
        let answer = Arc::new(answer);
        let router = Router::new().fallback(move |uri, headers, body| {
            let (sender, gate, answer) = (sender.clone(), gate.clone(), answer.clone());
            async move {
                let request = Received { uri, headers, body };
                sender.send(request).await.expect("the test listens");
                gate.acquire().await.expect("never closed").forget();
                answer()
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, received }
    }

    /// Its URL, with what must never show up in a reason.
    pub(super) fn url(&self) -> String {
        format!("http://{}/hook?token=secret", self.address)
    }

    /// Its host and port.
    pub(super) fn name(&self) -> String {
        self.address.to_string()
    }

    /// What it was sent next; waits for it.
    pub(super) async fn next(&mut self) -> Received {
        self.received
            .recv()
            .await
            .expect("runs as long as the test")
    }

    /// How many calls it got since this was last asked.
    pub(super) fn count(&mut self) -> usize {
        std::iter::from_fn(|| self.received.try_recv().ok()).count()
    }
}

/// A bot below HTTP: takes one request on each connection, writes `answer` as it stands, and closes
/// without warning. Gives its URL, and a signal for each request.
pub(super) async fn raw_bot(answer: &'static str) -> (String, mpsc::Receiver<()>) {
    let (sender, received) = mpsc::channel(64);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/", listener.local_addr().expect("is bound"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(END.as_bytes()) {
                if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                    // A client may open a connection and find that it needs none.
                    assert!(request.is_empty(), "the request ended early");
                    break;
                }
            }
            if !request.is_empty() {
                sender.send(()).await.expect("the test listens");
                stream.write_all(answer.as_bytes()).await.expect("writes");
            }
        }
    });
    (url, received)
}

/// The URL of a port on which nobody listens.
pub(super) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    format!("http://{}/", listener.local_addr().expect("is bound"))
}

/// What kind of failure an outcome is, and its reason; the reason is checked for secrets.
pub(super) fn retry(outcome: Outcome) -> (Failure, String, Option<Duration>) {
    match outcome {
        Outcome::Retry {
            reason,
            failure,
            after,
        } => {
            assert!(!reason.contains("secret"), "{reason}");
            (failure, reason, after)
        }
        other => panic!("expected a retry, found {other:?}"),
    }
}
