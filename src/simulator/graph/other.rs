//! The paths beside that of sends: media up and down, and whatever else a bot asks for.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Refusal, Service, is_authorized, lenient};
use crate::simulator::elsewhere;

pub(super) async fn media_up(
    State(service): State<Arc<Service>>,
    parts: (Method, Uri, HeaderMap),
    body: Body,
) -> Response {
    if !service.is_lenient() && !is_authorized(&parts.2, &service.settings.token) {
        return Refusal::bad_token().into_response();
    }
    match service.elsewhere.take(parts, body).await {
        Some(length) => Json(json!({ "id": format!("media-{length}") })).into_response(),
        None => Refusal::invalid("the media broke off").into_response(),
    }
}

pub(super) async fn media_down(
    State(service): State<Arc<Service>>,
    Path(length): Path<u64>,
    parts: (Method, Uri, HeaderMap),
) -> Response {
    if !service.is_lenient() && !is_authorized(&parts.2, &service.settings.token) {
        return Refusal::bad_token().into_response();
    }
    let _ = service.elsewhere.take(parts, Body::empty()).await;
    let mut response = Response::new(elsewhere::media(length));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/webp"));
    response
}

/// Anything else.
pub(super) async fn any(
    State(service): State<Arc<Service>>,
    parts: (Method, Uri, HeaderMap),
    body: Body,
) -> Response {
    let (method, uri) = (parts.0.clone(), parts.1.clone());
    let _ = service.elsewhere.take(parts, body).await;
    if service.is_lenient() {
        return lenient::answer(&service, &method, &uri);
    }
    Refusal::unknown_path().into_response()
}
