//! What Meta takes from bots though its pages ask for more, and the other paths that a bot may
//! call: only as much as keeps an unchanged bot going.

use axum::Json;
use axum::http::{Method, Uri, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Refusal, Service};

/// A PNG of one pixel: what every media id leads to.
const PIXEL: [u8; 67] = [
    0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, b'I', b'H', b'D', b'R', 0, 0, 0,
    1, 0, 0, 0, 1, 8, 0, 0, 0, 0, 0x3a, 0x7e, 0x9b, 0x55, 0, 0, 0, 10, b'I', b'D', b'A', b'T',
    0x78, 0x9c, 0x63, 0x60, 0, 0, 0, 2, 0, 1, 0x48, 0xaf, 0xa4, 0x71, 0, 0, 0, 0, b'I', b'E', b'N',
    b'D', 0xae, 0x42, 0x60, 0x82,
];
const DOWNLOADS: &str = "/pretend-media/";

/// The body as one would write it by Meta's pages: `to` with `+`, and a type.
pub(super) fn as_documented(mut body: Value) -> Value {
    let Some(members) = body.as_object_mut() else {
        return body;
    };
    let to = match members.get("to") {
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let is_group = members.get("recipient_type") == Some(&json!("group"));
    if let (Some(to), false) = (to, is_group) {
        let digits: String = to.chars().filter(char::is_ascii_digit).collect();
        members.insert("to".into(), json!(format!("+{digits}")));
    }
    if members.contains_key("text") {
        members.entry("type").or_insert_with(|| json!("text"));
    }
    body
}

/// Any path but that of sends: media, and whatever is asked for by its id.
pub(super) fn answer(service: &Service, method: &Method, uri: &Uri) -> Response {
    let path = uri.path();
    if path.starts_with(DOWNLOADS) {
        return ([(CONTENT_TYPE, "image/png")], PIXEL.to_vec()).into_response();
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (is_get, is_post) = (*method == Method::GET, *method == Method::POST);
    let answer = match parts.as_slice() {
        [_version, _number, "media"] if is_post => json!({ "id": service.number().to_string() }),
        [_version, id] if is_get => json!({
            "id": id,
            "messaging_product": "whatsapp",
            "url": format!("{}{DOWNLOADS}{id}", service.origin()),
            "mime_type": "image/png",
            "file_size": PIXEL.len(),
            "display_phone_number": "15550999999",
            "verified_name": "A pretend business",
        }),
        // Settings, subscriptions, registrations, deletions: as if done.
        [_, _, ..] if !is_get => json!({ "success": true }),
        [_, _, ..] => json!({ "data": [] }),
        _ => return Refusal::unknown_path().into_response(),
    };
    Json(answer).into_response()
}
