//! A pretend AI server on loopback in OpenAI's shape: chat completions, responses, conversations.
//! It words answers by chance, takes a moment for each, quotes the token of what it was asked, and
//! knows afterwards which messages went into which thread. It must not judge that.

mod refusal;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod wording;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Query, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use self::refusal::Refusal;
use self::state::{Into, State};
pub use self::state::{Thread, Threads};
use super::seed::Draw;
use super::server::{Port, Server};
use crate::clock::Clock;

const MODEL: &str = "pretend-1";
const BODY_MAX: usize = 4 << 20;
const GRACE: Duration = Duration::from_millis(500);
const ITEMS_SHOWN: usize = 20;
const ITEMS_SHOWN_MAX: usize = 100;

/// The pretend AI server. Clones share everything.
#[derive(Clone)]
pub struct Ai(Arc<Inner>);

struct Inner {
    service: Arc<Service>,
    server: Server,
    port: Port,
}

struct Service {
    state: Mutex<State>,
    draw: Draw,
    clock: Clock,
}

impl std::fmt::Debug for Ai {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ai")
            .field("addr", &self.0.port.addr())
            .finish_non_exhaustive()
    }
}

impl Ai {
    /// Starts on a free port of the loopback interface. The seed decides the words and the pauses:
    /// the n-th answer to a question is the same and takes as long in every run.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(seed: u64, clock: Clock) -> io::Result<Self> {
        let draw = Draw::new(seed).fork("ai");
        let service = Arc::new(Service {
            state: Mutex::new(State::new(draw.fork("ids"))),
            draw,
            clock: clock.clone(),
        });
        let router = Router::new()
            .nest("/v1", api())
            .fallback(async || Refusal::NOT_FOUND)
            .layer(DefaultBodyLimit::max(BODY_MAX))
            .with_state(Arc::clone(&service));
        let port = Port::reserve()?;
        Ok(Self(Arc::new(Inner {
            service,
            server: Server::start(&port, router, clock, GRACE)?,
            port,
        })))
    }

    /// What `OPENAI_BASE_URL` is to be: with the version, without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.0.port.addr())
    }

    /// Where it listens.
    pub fn addr(&self) -> std::net::SocketAddr {
        self.0.port.addr()
    }

    /// Which messages went into which thread, so far.
    pub fn threads(&self) -> Threads {
        self.0.service.lock().threads()
    }

    /// Stops listening and returns when nothing is left.
    pub async fn stop(&self) {
        self.0.server.stop().await;
    }
}

fn api() -> Router<Arc<Service>> {
    Router::new()
        .route("/models", get(models))
        .route("/models/{model}", get(model))
        .route("/chat/completions", post(chat))
        .route("/responses", post(respond))
        .route("/responses/{id}", get(response))
        .route("/conversations", post(create))
        .route(
            "/conversations/{id}",
            get(show).post(set_metadata).delete(delete),
        )
        .route("/conversations/{id}/items", get(items).post(add_items))
        .route(
            "/conversations/{id}/items/{item}",
            get(item).delete(delete_item),
        )
}

type Answer = Result<Json<Value>, Refusal>;
type Of = Shared<Arc<Service>>;

impl Service {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made in one step, so a panic leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seconds(&self) -> i64 {
        self.clock.now().as_seconds()
    }
}

/// A conversation is free again when its answer is done, also when the client hangs up before.
struct Held<'a> {
    service: &'a Service,
    into: Into,
}

impl<'a> Held<'a> {
    fn begin(service: &'a Service, into: Into) -> Result<Self, Refusal> {
        service.lock().begin(&into)?;
        Ok(Self { service, into })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.service.lock().release(&self.into);
    }
}

/// The body as JSON, whatever type it says it is of; nothing reads as no members.
fn read(body: &Bytes) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    let value: Value =
        serde_json::from_slice(body).map_err(|_| Refusal::invalid("the body is not JSON"))?;
    let is_object = value.is_object();
    is_object
        .then_some(value)
        .ok_or(Refusal::invalid("the body is not an object"))
}

fn shown_model(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": 0, "owned_by": "hapax" })
}

async fn models() -> Json<Value> {
    Json(json!({ "object": "list", "data": [shown_model(MODEL)] }))
}

async fn model(Path(model): Path<String>) -> Json<Value> {
    Json(shown_model(&model))
}

fn usage(tokens: u64) -> Value {
    json!({
        "prompt_tokens": tokens, "completion_tokens": tokens,
        "input_tokens": tokens, "output_tokens": tokens, "total_tokens": 2 * tokens,
    })
}

/// What the answer to `tokens` is, after the time it takes.
async fn worded(service: &Service, tokens: &[String]) -> String {
    let count = service.lock().count(tokens);
    let worded = wording::answer(&service.draw, tokens, count);
    service.clock.sleep(worded.pause).await;
    worded.text
}

async fn chat(Shared(service): Of, body: Bytes) -> Result<Response, Refusal> {
    let body = read(&body)?;
    let messages = body["messages"].as_array();
    let messages = messages.ok_or(Refusal::invalid("messages is required"))?;
    let text = worded(&service, &wording::asked(messages)).await;
    let whole = json!({
        "id": service.lock().id("chatcmpl"),
        "object": "chat.completion",
        "created": service.seconds(),
        "model": body["model"].as_str().unwrap_or(MODEL),
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text, "refusal": null },
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": usage(16),
    });
    Ok(match body["stream"] == true {
        true => stream::chat(&whole),
        false => Json(whole).into_response(),
    })
}

/// `input`: a text, or a list of entries.
fn input(body: &Value) -> Result<Vec<Value>, Refusal> {
    match &body["input"] {
        Value::String(text) => Ok(vec![json!({ "role": "user", "content": text })]),
        Value::Array(entries) => Ok(entries.clone()),
        _ => Err(Refusal::invalid("input is required")),
    }
}

fn into(body: &Value) -> Result<Into, Refusal> {
    let conversation = match &body["conversation"] {
        Value::Object(conversation) => conversation.get("id").and_then(Value::as_str),
        other => other.as_str(),
    };
    match (conversation, body["previous_response_id"].as_str()) {
        (None, None) => Ok(Into::Nothing),
        (Some(id), None) => Ok(Into::Conversation(id.to_owned())),
        (None, Some(id)) => Ok(Into::Previous(id.to_owned())),
        (Some(_), Some(_)) => Err(Refusal::invalid(
            "conversation and previous_response_id exclude each other",
        )),
    }
}

async fn respond(Shared(service): Of, body: Bytes) -> Result<Response, Refusal> {
    let body = read(&body)?;
    let input = input(&body)?;
    let held = Held::begin(&service, into(&body)?)?;
    let text = worded(&service, &wording::asked(&input)).await;
    let is_stored = body["store"] != false;
    let whole = shown_response(&service, &body, &held.into, &text);
    service
        .lock()
        .complete(&held.into, &input, &whole, is_stored)?;
    Ok(match body["stream"] == true {
        true => stream::response(&whole),
        false => Json(whole).into_response(),
    })
}

fn shown_response(service: &Service, body: &Value, into: &Into, text: &str) -> Value {
    let (conversation, previous) = match into {
        Into::Nothing => (None, None),
        Into::Conversation(id) => (Some(json!({ "id": id })), None),
        Into::Previous(id) => (None, Some(id)),
    };
    let mut state = service.lock();
    let item = json!({
        "id": state.id("msg"),
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{ "type": "output_text", "text": text, "annotations": [], "logprobs": [] }],
    });
    json!({
        "id": state.id("resp"),
        "object": "response",
        "created_at": service.seconds(),
        "status": "completed",
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": body["instructions"],
        "max_output_tokens": null,
        "metadata": body.get("metadata").cloned().unwrap_or_else(|| json!({})),
        "model": body["model"].as_str().unwrap_or(MODEL),
        "output": [item],
        "parallel_tool_calls": true,
        "conversation": conversation,
        "previous_response_id": previous,
        "store": body["store"] != false,
        "temperature": 1.0,
        "text": { "format": { "type": "text" } },
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage(16),
    })
}

async fn response(Shared(service): Of, Path(id): Path<String>) -> Answer {
    service.lock().response(&id).map(Json)
}

async fn create(Shared(service): Of, body: Bytes) -> Answer {
    let body = read(&body)?;
    let mut draw = service
        .draw
        .fork(&format!("made {}", service.lock().made()));
    // As long as an answer: who asks twice meanwhile makes two.
    service.clock.sleep(wording::pause(&mut draw)).await;
    let now = service.seconds();
    service.lock().create(&body, now).map(Json)
}

async fn show(Shared(service): Of, Path(id): Path<String>) -> Answer {
    service.lock().show(&id).map(Json)
}

async fn set_metadata(Shared(service): Of, Path(id): Path<String>, body: Bytes) -> Answer {
    let mut body = read(&body)?;
    service
        .lock()
        .set_metadata(&id, body["metadata"].take())
        .map(Json)
}

async fn delete(Shared(service): Of, Path(id): Path<String>) -> Answer {
    service.lock().delete(&id).map(Json)
}

#[derive(Deserialize)]
struct Page {
    limit: Option<usize>,
    order: Option<String>,
}

async fn items(Shared(service): Of, Path(id): Path<String>, Query(page): Query<Page>) -> Answer {
    let limit = page.limit.unwrap_or(ITEMS_SHOWN).clamp(1, ITEMS_SHOWN_MAX);
    let ascending = page.order.as_deref() == Some("asc");
    service.lock().items(&id, limit, ascending).map(Json)
}

async fn add_items(Shared(service): Of, Path(id): Path<String>, body: Bytes) -> Answer {
    let body = read(&body)?;
    let items = body["items"].as_array();
    let items = items.ok_or(Refusal::invalid("items is required"))?;
    service.lock().add_items(&id, items).map(Json)
}

async fn item(Shared(service): Of, Path((id, item)): Path<(String, String)>) -> Answer {
    service.lock().item(&id, &item).map(Json)
}

async fn delete_item(Shared(service): Of, Path((id, item)): Path<(String, String)>) -> Answer {
    service.lock().delete_item(&id, &item).map(Json)
}
