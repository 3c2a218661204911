//! A pretend Graph API on loopback: takes sends, refuses what Meta would refuse, and misbehaves
//! as scripted. Everything it was asked goes into the history.

mod for_bots;
mod other;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};

use super::courier::Courier;
use super::elsewhere::{self, Elsewhere};
use super::history::History;
use super::meta::Plan;
use super::payload::{Side, wamid};
use super::person::Person;
use super::receipts::{self, Receipts};
use super::record::Sent;
use super::script::{Behaviour, Script};
use super::seed::Draw;
use super::server::{Hangup, Port, Server};
use crate::clock::{Clock, Elapsed};
use crate::model::Secret;

const TEXT_MAX: usize = 4096;
/// Errors of Meta's own service: the message may be out all the same.
const LEAVE_DOUBT: [i64; 6] = [1, 2, 131_000, 131_016, 131_057, 133_004];
const BODY_MAX: usize = 1 << 20;
const HELD_MAX: Duration = Duration::from_secs(600);
const STATUS_LIMIT: Duration = Duration::from_secs(10);
/// How long a call takes that may take long.
const MOMENT_MIN: Duration = Duration::from_millis(10);
const MOMENT_OVER: Duration = Duration::from_millis(40);
const GRACE: Duration = Duration::from_millis(500);

/// What the pretend Graph API needs to know.
#[derive(Debug, Clone)]
pub struct GraphSettings {
    /// The access token it takes; any other is refused with Graph's error 190.
    pub token: Secret,
    /// The seed of the ids it gives and the statuses it reports.
    pub seed: u64,
}

/// The pretend Graph API. Clones share everything.
#[derive(Clone)]
pub struct Graph(Arc<Inner>);

struct Inner {
    service: Arc<Service>,
    server: Server,
    addr: SocketAddr,
    _port: Port,
}

struct Service {
    settings: GraphSettings,
    history: Arc<History>,
    clock: Clock,
    script: Script<Value, Behaviour>,
    ids: Mutex<Draw>,
    draw: Draw,
    reporting: Mutex<Option<(Courier, Receipts)>>,
    marked_read: AtomicU64,
    typing: AtomicU64,
    elsewhere: elsewhere::Calls,
    addr: SocketAddr,
    is_for_bots: AtomicBool,
    is_lenient: AtomicBool,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("addr", &self.0.addr)
            .finish_non_exhaustive()
    }
}

impl Graph {
    /// Starts on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(settings: GraphSettings, history: Arc<History>, clock: Clock) -> io::Result<Self> {
        let draw = Draw::new(settings.seed).fork("graph");
        let port = Port::reserve()?;
        let service = Arc::new(Service {
            settings,
            history,
            clock: clock.clone(),
            script: Script::new(Behaviour::Accept),
            ids: Mutex::new(draw.fork("ids")),
            draw,
            reporting: Mutex::new(None),
            marked_read: AtomicU64::new(0),
            typing: AtomicU64::new(0),
            elsewhere: elsewhere::Calls::default(),
            addr: port.addr(),
            is_for_bots: AtomicBool::new(false),
            is_lenient: AtomicBool::new(false),
        });
        let router = router(&service);
        Ok(Self(Arc::new(Inner {
            service,
            server: Server::start(&port, router, clock, GRACE)?,
            addr: port.addr(),
            _port: port,
        })))
    }

    /// The base URL, without a version and without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.addr)
    }

    /// The same, to be served elsewhere as well. A connection that is to be reset stays open there.
    pub fn router(&self) -> Router {
        router(&self.0.service).layer(Extension(Hangup::never()))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// From now on it is as bots meet it: it knows other paths well enough to keep one going, and
    /// a call takes some tens of milliseconds, as over a network.
    pub fn be_as_bots_meet_it(&self) {
        self.0.service.is_for_bots.store(true, Ordering::SeqCst);
    }

    /// From now on it takes what Meta takes, though its pages ask for more: a number without `+`,
    /// a text without a type; and any token.
    pub fn be_lenient(&self) {
        self.0.service.is_lenient.store(true, Ordering::SeqCst);
    }

    /// The history it records into.
    pub fn history(&self) -> &Arc<History> {
        &self.0.service.history
    }

    /// How sends are treated, by their bodies: `graph.script().next(..)`, `.always(..)`,
    /// `.when(..)`. Calls that are refused for their token or shape do not count.
    pub fn script(&self) -> &Script<Value, Behaviour> {
        &self.0.service.script
    }

    /// The next send is treated so.
    pub fn next(&self, behaviour: Behaviour) {
        self.script().next(behaviour);
    }

    /// All sends without a rule of their own are treated so.
    pub fn always(&self, behaviour: Behaviour) {
        self.script().always(behaviour);
    }

    /// Sends whose body `applies` are treated so.
    pub fn when(
        &self,
        applies: impl Fn(&Value) -> bool + Send + Sync + 'static,
        behaviour: Behaviour,
    ) {
        self.script().when(applies, behaviour);
    }

    /// From now on statuses are reported through `courier`: those of `receipts` unasked, others
    /// by [`Graph::report`] and [`Behaviour::StatusBeforeAnswer`].
    pub fn report_to(&self, courier: Courier, receipts: Receipts) {
        *self.0.service.reporting() = Some((courier, receipts));
    }

    /// Reports one status of an accepted message and waits for the 200. `code` is the error of
    /// a `failed`. `false`: nobody to report to, an unknown message, or never answered 200.
    pub async fn report(&self, wamid: &str, status: &str, code: Option<i64>) -> bool {
        let service = &self.0.service;
        let sends = |sent: &&Sent| sent.wamid.as_deref() == Some(wamid);
        let sent = service
            .history
            .read(|r| r.sends.iter().find(sends).cloned());
        match sent {
            Some(sent) => service.report(&sent, status, code).await,
            None => false,
        }
    }

    /// Every send so far, refused ones included, in order.
    pub fn sent(&self) -> Vec<Sent> {
        self.history().read(|record| record.sends.clone())
    }

    /// Every accepted send so far, in order.
    pub fn accepted(&self) -> Vec<Sent> {
        let mut sent = self.sent();
        sent.retain(|sent| sent.accepted);
        sent
    }

    /// Calls that marked a message as read, those with a typing indicator included.
    pub fn marked_read(&self) -> u64 {
        self.0.service.marked_read.load(Ordering::SeqCst)
    }

    /// Calls that showed a typing indicator.
    pub fn typing(&self) -> u64 {
        self.0.service.typing.load(Ordering::SeqCst)
    }

    /// Calls so far that were about no message: media that went up or down, and what is unknown
    /// here, which is answered so.
    pub fn elsewhere(&self) -> Vec<Elsewhere> {
        self.0.service.elsewhere.all()
    }

    /// Waits until the sends are as wanted, looking after each one.
    ///
    /// # Errors
    /// When they are not within `limit`.
    pub async fn wait_until(
        &self,
        mut wanted: impl FnMut(&[Sent]) -> bool,
        limit: Duration,
    ) -> Result<(), Elapsed> {
        let clock = &self.0.service.clock;
        self.history()
            .wait_until(clock, limit, |record| wanted(&record.sends))
            .await
    }

    /// Stops listening, cuts what is held, and returns when nothing is left.
    pub async fn stop(&self) {
        // The courier is let go, or two services that report to each other never end.
        *self.0.service.reporting() = None;
        self.0.server.stop().await;
    }
}

fn router(service: &Arc<Service>) -> Router {
    Router::new()
        .route("/{version}/{number}/messages", post(messages))
        .route("/{number}/messages", post(unversioned))
        .route("/{version}/{number}/media", post(other::media_up))
        .route("/media/{length}", get(other::media_down))
        .fallback(other::any)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Arc::clone(service))
}

impl Service {
    fn is_lenient(&self) -> bool {
        self.is_lenient.load(Ordering::SeqCst)
    }

    fn is_for_bots(&self) -> bool {
        self.is_for_bots.load(Ordering::SeqCst)
    }

    fn origin(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// As far away as Meta is: a call takes its time, and others come meanwhile.
    async fn take_a_moment(&self) {
        let pause = {
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            MOMENT_MIN + ids.duration_below(MOMENT_OVER)
        };
        self.clock.sleep(pause).await;
    }

    fn number(&self) -> u64 {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.between(10_000_000_000, 99_999_999_999)
    }

    fn reporting(&self) -> std::sync::MutexGuard<'_, Option<(Courier, Receipts)>> {
        self.reporting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The person a message goes to, with every id by which they are known.
    fn person(&self, recipient: &str) -> Person {
        let known = self
            .history
            .read(|record| record.person(recipient).cloned());
        known.unwrap_or_else(|| {
            if recipient.contains('.') {
                Person::by_bsuid(recipient)
            } else {
                Person::by_phone(recipient)
            }
        })
    }

    async fn report(&self, sent: &Sent, status: &str, code: Option<i64>) -> bool {
        let Some((courier, _)) = self.reporting().clone() else {
            return false;
        };
        let person = self.person(&sent.recipient);
        let said = receipts::Said {
            status,
            code,
            participant: None,
        };
        let element = receipts::element(sent, &person, &said, self.clock.now());
        match courier.offer(element, &Plan::once()) {
            Some(answered) => answered.wait().await,
            None => false,
        }
    }

    /// Takes a message: from here on the person has it.
    fn accept(&self, mut sent: Sent, report: bool) -> Sent {
        let person = self.person(&sent.recipient);
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        sent.wamid = Some(wamid(&person, Side::Business, &mut ids));
        drop(ids);
        sent.accepted = true;
        self.history.sent(sent.clone());
        if let (true, Some((courier, receipts))) = (report, self.reporting().as_ref()) {
            let of = (&sent, &person);
            receipts::report(*receipts, courier, &self.draw, of, self.clock.now());
        }
        sent
    }

    /// Holds the connection until the client gives up, or for longer than any client waits.
    async fn never_answer(&self) -> Response {
        self.clock.sleep(HELD_MAX).await;
        StatusCode::GATEWAY_TIMEOUT.into_response()
    }
}

async fn unversioned(
    service: State<Arc<Service>>,
    Path(number): Path<String>,
    hangup: Extension<Hangup>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    messages(
        service,
        Path((String::new(), number)),
        hangup,
        headers,
        body,
    )
    .await
}

async fn messages(
    State(service): State<Arc<Service>>,
    Path((_version, number)): Path<(String, String)>,
    Extension(hangup): Extension<Hangup>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !service.is_lenient() && !is_authorized(&headers, &service.settings.token) {
        return Refusal::bad_token().into_response();
    }
    let Ok(mut body) = serde_json::from_slice::<Value>(&body) else {
        return Refusal::invalid("the body is not JSON").into_response();
    };
    if service.is_lenient() {
        body = for_bots::as_documented(body);
    }
    if service.is_for_bots() {
        service.take_a_moment().await;
    }
    let at = service.clock.boottime();
    if body["status"] == "read" {
        return mark_read(&service, &body);
    }
    match validate(&body) {
        Ok(recipient) => send(&service, &hangup, asked(at, number, recipient, body)).await,
        Err(details) => {
            let recipient = body["to"].as_str().or(body["recipient"].as_str());
            let recipient = recipient.unwrap_or_default().to_owned();
            let mut sent = asked(at, number, recipient, body);
            sent.refused = Some(100);
            service.history.sent(sent);
            Refusal::invalid(details).into_response()
        }
    }
}

async fn send(service: &Service, hangup: &Hangup, mut sent: Sent) -> Response {
    let behaviour = service.script.choose(&sent.body);
    sent.is_clear = is_clear(&behaviour);
    match behaviour {
        Behaviour::Accept => answer(&service.accept(sent, true)),
        Behaviour::AcceptNeverAnswer => {
            service.accept(sent, true);
            service.never_answer().await
        }
        Behaviour::AcceptThenReset => {
            service.accept(sent, true);
            match hangup.reset().await {}
        }
        Behaviour::Reset => {
            service.history.sent(sent);
            match hangup.reset().await {}
        }
        Behaviour::Reject { http, code } => {
            let refused = Some(code).filter(|code| !LEAVE_DOUBT.contains(code));
            service.history.sent(Sent { refused, ..sent });
            Refusal::scripted(http, code).into_response()
        }
        Behaviour::Delay(wait) => {
            let sent = service.accept(sent, true);
            service.clock.sleep(wait).await;
            answer(&sent)
        }
        Behaviour::Hold(gate) => {
            let sent = service.accept(sent, true);
            // Too long is the client's own time-out by then.
            let _ = service.clock.timeout(HELD_MAX, gate.pass()).await;
            answer(&sent)
        }
        Behaviour::StatusBeforeAnswer => {
            let sent = service.accept(sent, false);
            let reported = service.report(&sent, "sent", None);
            let _ = service.clock.timeout(STATUS_LIMIT, reported).await;
            answer(&sent)
        }
    }
}

/// Whether who sends learns at once what became of it.
fn is_clear(behaviour: &Behaviour) -> bool {
    match behaviour {
        Behaviour::Accept | Behaviour::StatusBeforeAnswer => true,
        Behaviour::Reject { code, .. } => !LEAVE_DOUBT.contains(code),
        Behaviour::AcceptNeverAnswer
        | Behaviour::AcceptThenReset
        | Behaviour::Reset
        | Behaviour::Delay(_)
        | Behaviour::Hold(_) => false,
    }
}

fn asked(at: Duration, number: String, recipient: String, body: Value) -> Sent {
    Sent {
        at_order: 0,
        at,
        number,
        recipient,
        tag: body["biz_opaque_callback_data"].as_str().map(str::to_owned),
        body,
        wamid: None,
        accepted: false,
        refused: None,
        is_clear: true,
        answers: Vec::new(),
        expected: false,
    }
}

fn is_authorized(headers: &HeaderMap, token: &Secret) -> bool {
    let sent = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    sent.and_then(|value| value.strip_prefix("Bearer ")) == Some(token.expose())
}

fn mark_read(service: &Service, body: &Value) -> Response {
    if !body["message_id"].is_string() {
        return Refusal::invalid("message_id is required").into_response();
    }
    service.marked_read.fetch_add(1, Ordering::SeqCst);
    if body["typing_indicator"].is_object() {
        service.typing.fetch_add(1, Ordering::SeqCst);
    }
    Json(json!({ "success": true })).into_response()
}

/// Who the message goes to, or what Meta would find wrong with it.
fn validate(body: &Value) -> Result<String, &'static str> {
    if body["messaging_product"] != "whatsapp" {
        return Err("messaging_product must be whatsapp");
    }
    let recipient = match (body["to"].as_str(), body["recipient"].as_str()) {
        // Meta takes other forms of `to`, but then guesses the country: a message to a stranger.
        (Some(group), _) if body["recipient_type"] == "group" => group,
        (Some(to), _) => to
            .strip_prefix('+')
            .ok_or("to must begin with + and a country code")?,
        (None, Some(recipient)) => recipient,
        (None, None) => return Err("to or recipient is required"),
    };
    if recipient.is_empty() {
        return Err("the recipient is empty");
    }
    let kind = body["type"].as_str().ok_or("type is required")?;
    let object = &body[kind];
    if !object.is_object() && !object.is_array() {
        return Err("the object named by type is required");
    }
    if kind == "text" {
        let text = object["body"].as_str().ok_or("text.body is required")?;
        match text.chars().count() {
            0 => return Err("text.body is empty"),
            1..=TEXT_MAX => {}
            _ => return Err("text.body is longer than 4096 characters"),
        }
    }
    Ok(recipient.to_owned())
}

fn answer(sent: &Sent) -> Response {
    let contact = match sent.body["to"].as_str() {
        Some(to) => json!({ "input": to, "wa_id": sent.recipient }),
        None => json!({ "input": sent.recipient, "user_id": sent.recipient }),
    };
    let answer = json!({
        "messaging_product": "whatsapp",
        "contacts": [contact],
        "messages": [{ "id": sent.wamid }],
    });
    Json(answer).into_response()
}

/// An error in Graph's shape.
struct Refusal {
    http: u16,
    code: i64,
    message: &'static str,
    details: &'static str,
}

impl Refusal {
    const fn bad_token() -> Self {
        Self {
            http: 401,
            code: 190,
            message: "Invalid OAuth access token",
            details: "The access token is not the one of this simulator.",
        }
    }

    const fn invalid(details: &'static str) -> Self {
        Self {
            http: 400,
            code: 100,
            message: "(#100) Invalid parameter",
            details,
        }
    }

    const fn unknown_path() -> Self {
        Self {
            http: 404,
            code: 100,
            message: "Unsupported request",
            details: "The simulator knows messages and media only.",
        }
    }

    const fn scripted(http: u16, code: i64) -> Self {
        Self {
            http,
            code,
            message: "Refused as scripted",
            details: "The simulator was told to refuse this.",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.http).unwrap_or(StatusCode::BAD_REQUEST);
        let error = json!({
            "message": self.message,
            "type": "OAuthException",
            "code": self.code,
            "error_data": { "messaging_product": "whatsapp", "details": self.details },
            "fbtrace_id": "Asimulated",
        });
        (status, Json(json!({ "error": error }))).into_response()
    }
}

#[cfg(test)]
mod tests;
