//! A pretend bot on loopback: records every call, answers as scripted, can be down and come back
//! on the same port. It checks signatures by itself and sees only what is called.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use super::gate::Gate;
use super::history::History;
use super::payload::{hmac_sha256, sign};
use super::record::{Asked, Asking};
use super::script::{Answer, Script};
use super::server::{Hangup, Port, Server};
use crate::clock::{Clock, Elapsed};
use crate::model::Secret;

const BODY_MAX: usize = 4 << 20;
const HELD_MAX: Duration = Duration::from_secs(600);

/// Whether a call proved where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Rightly signed, as Meta signs or as Standard Webhooks does.
    Valid,
    /// Signed wrongly.
    Invalid,
    /// Not signed.
    Absent,
}

/// One call. Does not print what it holds.
#[derive(Clone)]
pub struct Call {
    /// Its place among all beginnings and ends of calls.
    pub began: u64,
    /// Its number, which no other call has; the one in the history, if it is recorded there.
    pub number: u64,
    /// The place of its end; `None` while it runs and when it was cut.
    pub ended: Option<u64>,
    /// The path that was called.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The exact bytes.
    pub body: Bytes,
    /// The body as JSON; null when it is none.
    pub json: Value,
    /// Whether it was rightly signed.
    pub proof: Proof,
    /// What it was answered; `None` while it runs and when it was cut.
    pub status: Option<u16>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("began", &self.began)
            .field("ended", &self.ended)
            .field("proof", &self.proof)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// A header as text, empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// `X-Hapax-Conversation`.
    pub fn conversation(&self) -> &str {
        self.header("x-hapax-conversation")
    }

    /// The ids of its messages, of Meta's envelope or of a list `messages`.
    pub fn wamids(&self) -> Vec<String> {
        let id = |message: &Value| message["id"].as_str().map(str::to_owned);
        self.messages().iter().filter_map(id).collect()
    }

    /// The texts of its messages, one a line: of Meta's envelope or of a list `messages`.
    pub fn text(&self) -> String {
        let text = |m: &Value| {
            let text = m["text"].as_str().or_else(|| m["text"]["body"].as_str());
            text.map(str::to_owned)
        };
        let messages = self.messages();
        let texts: Vec<String> = messages.iter().filter_map(text).collect();
        texts.join("\n")
    }

    fn messages(&self) -> Vec<Value> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let changes = list(&self.json["entry"])
            .into_iter()
            .flat_map(|e| list(&e["changes"]));
        let mut messages = list(&self.json["messages"]);
        messages.extend(changes.flat_map(|change| list(&change["value"]["messages"])));
        messages
    }
}

/// The pretend bot. Clones share everything.
#[derive(Clone)]
pub struct Bot(Arc<Inner>);

struct Inner {
    port: Port,
    clock: Clock,
    service: Arc<Service>,
    server: tokio::sync::Mutex<Option<Server>>,
}

struct Service {
    secret: Secret,
    clock: Clock,
    history: Option<Arc<History>>,
    script: Script<Call, Answer>,
    gate: Gate,
    calls: Mutex<Calls>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Calls {
    mark: u64,
    all: Vec<Call>,
}

impl fmt::Debug for Bot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bot")
            .field("addr", &self.addr())
            .finish_non_exhaustive()
    }
}

impl Bot {
    /// Starts on a free port of the loopback interface and answers 200 to everything. `secret`
    /// checks the signatures.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(secret: Secret, clock: Clock) -> io::Result<Self> {
        Self::start_with(secret, None, clock)
    }

    /// The same, and every call but those that hand over statuses goes into the history and not
    /// into [`Bot::calls`].
    ///
    /// # Errors
    /// When no port can be had.
    pub fn recording(secret: Secret, history: Arc<History>, clock: Clock) -> io::Result<Self> {
        Self::start_with(secret, Some(history), clock)
    }

    fn start_with(secret: Secret, history: Option<Arc<History>>, clock: Clock) -> io::Result<Self> {
        let service = Arc::new(Service {
            secret,
            clock: clock.clone(),
            history,
            script: Script::new(Answer::Status(200)),
            gate: Gate::open(),
            calls: Mutex::default(),
            changed: watch::Sender::default(),
        });
        let port = Port::reserve()?;
        let server = serve(&port, &service)?;
        Ok(Self(Arc::new(Inner {
            port,
            clock,
            service,
            server: tokio::sync::Mutex::new(Some(server)),
        })))
    }

    /// The URL of its webhook. It answers on every other path, too.
    pub fn url(&self) -> String {
        format!("http://{}/webhook", self.addr())
    }

    /// Where it listens when it is up.
    pub fn addr(&self) -> SocketAddr {
        self.0.port.addr()
    }

    /// How calls are answered: `bot.script().when(|call| call.text() == "x", ..)` and so on.
    pub fn script(&self) -> &Script<Call, Answer> {
        &self.0.service.script
    }

    /// The next call is answered so.
    pub fn next(&self, answer: Answer) {
        self.script().next(answer);
    }

    /// All calls without a rule of their own are answered so.
    pub fn always(&self, answer: Answer) {
        self.script().always(answer);
    }

    /// Calls whose text `applies` are answered so.
    pub fn when(&self, applies: impl Fn(&str) -> bool + Send + Sync + 'static, answer: Answer) {
        self.script()
            .when(move |call| applies(&call.text()), answer);
    }

    /// All calls are answered 200 with JSON made from theirs.
    pub fn reply_json(&self, make: impl Fn(&Value) -> Value + Send + Sync + 'static) {
        self.always(Answer::json(make));
    }

    /// Calls that come from now on are recorded but not answered until [`Bot::release`].
    pub fn hold(&self) {
        self.0.service.gate.hold();
    }

    /// Answers whatever is held.
    pub fn release(&self) {
        self.0.service.gate.release();
    }

    /// Every call so far, in the order of their beginnings.
    pub fn calls(&self) -> Vec<Call> {
        self.0.service.calls().all.clone()
    }

    /// Pairs of calls of one conversation (by `X-Hapax-Conversation`) that ran at the same time,
    /// as indices into [`Bot::calls`]. A cut call counts up to the moment it was cut.
    pub fn overlaps(&self) -> Vec<(usize, usize)> {
        overlaps(&self.calls())
    }

    /// Waits until the calls are as wanted, looking after each beginning and end.
    ///
    /// # Errors
    /// When they are not within `limit`.
    pub async fn wait_until(
        &self,
        mut wanted: impl FnMut(&[Call]) -> bool,
        limit: Duration,
    ) -> Result<(), Elapsed> {
        let mut changes = self.0.service.changed.subscribe();
        let wait = async {
            while !wanted(&self.0.service.calls().all) {
                // The sender lives as long as `self`.
                let _ = changes.changed().await;
            }
        };
        self.0.clock.timeout(limit, wait).await
    }

    /// Goes down: calls under way are cut, new ones are refused. The port stays ours.
    pub async fn stop(&self) {
        if let Some(server) = self.0.server.lock().await.take() {
            server.stop().await;
        }
    }

    /// Comes back on the same port, with everything it recorded. Does nothing when it is up.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn restart(&self) -> io::Result<()> {
        let mut server = self.0.server.lock().await;
        if server.is_none() {
            *server = Some(serve(&self.0.port, &self.0.service)?);
        }
        Ok(())
    }
}

fn serve(port: &Port, service: &Arc<Service>) -> io::Result<Server> {
    let router = Router::new()
        .fallback(receive)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Arc::clone(service));
    Server::start(port, router, service.clock.clone(), Duration::ZERO)
}

fn overlaps(calls: &[Call]) -> Vec<(usize, usize)> {
    let ended = |call: &Call| call.ended.unwrap_or(u64::MAX);
    let mut found = Vec::new();
    for (i, first) in calls.iter().enumerate() {
        for (j, second) in calls.iter().enumerate().skip(i + 1) {
            let same =
                !first.conversation().is_empty() && first.conversation() == second.conversation();
            if same && second.began < ended(first) {
                found.push((i, j));
            }
        }
    }
    found
}

impl Service {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn begin(&self, uri: &Uri, headers: HeaderMap, body: Bytes) -> (Place, Call) {
        let mut call = Call {
            began: 0,
            number: 0,
            ended: None,
            path: uri.path().to_owned(),
            proof: prove(&headers, &body, &self.secret),
            json: serde_json::from_slice(&body).unwrap_or_default(),
            headers,
            body,
            status: None,
        };
        // A status that is handed over is nothing that the bot is asked.
        let is_asked = call.json["entry"][0]["changes"][0]["value"]["statuses"].is_null();
        let place = match self.history.as_ref().filter(|_| is_asked) {
            Some(history) => {
                let asking = history.asked(self.asked(&call));
                call.number = asking.number;
                Place::History(asking)
            }
            None => {
                let mut calls = self.calls();
                calls.mark += 1;
                (call.began, call.number) = (calls.mark, calls.mark);
                calls.all.push(call.clone());
                Place::Own(calls.all.len() - 1)
            }
        };
        self.changed();
        (place, call)
    }

    fn asked(&self, call: &Call) -> Asked {
        Asked {
            began: 0,
            began_at: self.clock.boottime(),
            ended: None,
            ended_at: None,
            status: None,
            replies: 0,
            conversation: call.conversation().to_owned(),
            turn: call.header("x-hapax-turn").to_owned(),
            wamids: call.wamids(),
            is_signed: call.proof == Proof::Valid,
        }
    }

    fn end(&self, place: Place, status: Option<u16>, replies: usize) {
        match (place, &self.history) {
            (Place::History(asking), Some(history)) => history.said(asking, status, replies),
            (Place::Own(index), _) => {
                let mut calls = self.calls();
                calls.mark += 1;
                let mark = calls.mark;
                let call = &mut calls.all[index];
                call.ended = Some(mark);
                call.status = status;
            }
            (Place::History(_), None) => {}
        }
        self.changed();
    }
}

/// Where a call is recorded.
#[derive(Clone, Copy)]
enum Place {
    Own(usize),
    History(Asking),
}

/// Marks the end of a call, also when it is cut: its handler is dropped then.
struct Running<'a> {
    service: &'a Service,
    place: Place,
    status: Option<u16>,
    replies: usize,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.service.end(self.place, self.status, self.replies);
    }
}

async fn receive(
    State(service): State<Arc<Service>>,
    Extension(hangup): Extension<Hangup>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (place, call) = service.begin(&uri, headers, body);
    let mut running = Running {
        service: &service,
        place,
        status: None,
        replies: 0,
    };
    // A gate nobody opens ends like a client that gives up.
    let _ = service.clock.timeout(HELD_MAX, service.gate.pass()).await;
    let mut answer = service.script.choose(&call);
    let response = loop {
        match answer {
            Answer::Status(status) => {
                break StatusCode::from_u16(status)
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
                    .into_response();
            }
            Answer::Json(make) => {
                let answer = make(&call);
                running.replies = answer["replies"].as_array().map_or(1, Vec::len);
                break Json(answer).into_response();
            }
            Answer::Work(work) => {
                let worked = work(call.clone()).await;
                running.replies = worked.replies;
                answer = Answer::Status(worked.status);
            }
            Answer::Delay(wait, then) => {
                service.clock.sleep(wait).await;
                answer = *then;
            }
            Answer::Hold(gate, then) => {
                let _ = service.clock.timeout(HELD_MAX, gate.pass()).await;
                answer = *then;
            }
            Answer::Hang => {
                service.clock.sleep(HELD_MAX).await;
                break StatusCode::GATEWAY_TIMEOUT.into_response();
            }
            Answer::Reset => match hangup.reset().await {},
        }
    };
    running.status = Some(response.status().as_u16());
    response
}

fn prove(headers: &HeaderMap, body: &[u8], secret: &Secret) -> Proof {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let valid = if let Some(signature) = text("x-hub-signature-256") {
        signature == sign(secret.expose(), body)
    } else if let Some(signatures) = text("webhook-signature") {
        let id = text("webhook-id").unwrap_or_default();
        let at = text("webhook-timestamp").unwrap_or_default();
        is_standard_webhook(secret, (id, at, body), signatures)
    } else {
        return Proof::Absent;
    };
    if valid { Proof::Valid } else { Proof::Invalid }
}

/// Standard Webhooks 1.0: `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; a key that
/// begins with `whsec_` is base64. Several signatures are separated by spaces.
fn is_standard_webhook(secret: &Secret, of: (&str, &str, &[u8]), signatures: &str) -> bool {
    let secret = secret.expose();
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).unwrap_or_default(),
        None => secret.as_bytes().to_vec(),
    };
    let (id, at, body) = of;
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", at.as_bytes(), b".", body];
    let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &parts)));
    signatures.split(' ').any(|signature| signature == expected)
}

#[cfg(test)]
mod tests;
