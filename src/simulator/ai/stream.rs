//! Answers as server-sent events: a client that asked for a stream gets the same text in pieces.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// `event: …` lines are of the responses API alone.
fn sent(events: impl Iterator<Item = (Option<&'static str>, Value)>, end: &str) -> Response {
    let mut body = String::new();
    for (name, data) in events {
        if let Some(name) = name {
            body.push_str(&format!("event: {name}\n"));
        }
        body.push_str(&format!("data: {data}\n\n"));
    }
    body.push_str(end);
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// A chat completion as chunks.
pub(super) fn chat(whole: &Value) -> Response {
    let text = whole["choices"][0]["message"]["content"].as_str();
    let chunk = |delta: Value, end: Option<&str>| {
        let chunk = json!({
            "id": whole["id"],
            "object": "chat.completion.chunk",
            "created": whole["created"],
            "model": whole["model"],
            "choices": [{ "index": 0, "delta": delta, "finish_reason": end }],
        });
        (None, chunk)
    };
    let first = chunk(json!({ "role": "assistant", "content": "" }), None);
    let words = text.unwrap_or_default().split_inclusive(' ');
    let words = words.map(|word| chunk(json!({ "content": word }), None));
    let last = chunk(json!({}), Some("stop"));
    let events = std::iter::once(first).chain(words).chain([last]);
    sent(events, "data: [DONE]\n\n")
}

/// A response as events.
pub(super) fn response(whole: &Value) -> Response {
    let item = &whole["output"][0];
    let text = item["content"][0]["text"].as_str().unwrap_or_default();
    let mut begun = whole.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    let mut events = vec![("response.created", json!({ "response": begun }))];
    events.extend(text.split_inclusive(' ').map(|word| {
        let delta = json!({
            "item_id": item["id"], "output_index": 0, "content_index": 0, "delta": word,
        });
        ("response.output_text.delta", delta)
    }));
    let done = json!({
        "item_id": item["id"], "output_index": 0, "content_index": 0, "text": text,
    });
    events.push(("response.output_text.done", done));
    events.push(("response.completed", json!({ "response": whole })));
    let numbered = events
        .into_iter()
        .enumerate()
        .map(|(number, (name, mut data))| {
            data["type"] = json!(name);
            data["sequence_number"] = json!(number);
            (Some(name), data)
        });
    sent(numbered, "")
}
