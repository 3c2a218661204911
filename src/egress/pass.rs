//! Calls that go through to Meta: with another token in the place where one was, and otherwise as
//! they came.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, Stream};

use super::Egress;
use super::asked::{Call, Whole};
use crate::whatsapp::asked::{Written, token};
use crate::whatsapp::passage::{NotPassed, Passing};
use crate::whatsapp::told::Refused;

/// Passes on a call in pieces. Read whole is only one whose token stands in its body.
pub(super) async fn through(egress: &Arc<Egress>, call: Call) -> Result<Response, Refused> {
    if call.shown().is_none() {
        let written = Written::of(call.content_type(), b"");
        return match written {
            Written::Json | Written::Form => whole(egress, egress.whole(call).await?).await,
            Written::Multipart | Written::Otherwise => Err(Refused::token()),
        };
    }
    egress.admit_shown(&call)?;
    let (headers, target) = egress.with_token(&call.headers, &call.uri)?;
    let passing = Passing {
        method: call.method,
        target,
        headers,
        body: call.body.into_data_stream(),
    };
    pass(egress, passing).await
}

/// Passes on a call that was read whole.
pub(super) async fn whole(egress: &Arc<Egress>, call: Whole) -> Result<Response, Refused> {
    let (mut headers, target) = egress.with_token(&call.headers, &call.uri)?;
    let token = egress.parts.passage.token().expose();
    let body = match token::body_with(call.written, &call.body, token) {
        Some(body) => Bytes::from(body),
        None => call.body,
    };
    if !body.is_empty() || headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let passing = Passing {
        method: call.method,
        target,
        headers,
        body: at_once(body),
    };
    pass(egress, passing).await
}

/// Posts this JSON to the path of a call.
pub(super) async fn json(
    egress: &Arc<Egress>,
    uri: &Uri,
    body: String,
) -> Result<Response, Refused> {
    let token = egress.parts.passage.token().expose();
    let mut headers = HeaderMap::new();
    let authorization = token::header_with(&HeaderMap::new(), token);
    headers.insert(
        header::AUTHORIZATION,
        authorization.ok_or_else(Refused::token)?,
    );
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let passing = Passing {
        method: Method::POST,
        target: uri.path().to_owned(),
        headers,
        body: at_once(Bytes::from(body)),
    };
    pass(egress, passing).await
}

fn at_once(body: Bytes) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
    stream::iter([Ok(body)])
}

async fn pass<S, E>(egress: &Arc<Egress>, passing: Passing<S>) -> Result<Response, Refused>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let passed = match egress.parts.passage.pass(passing).await {
        Ok(passed) => passed,
        Err(error) => {
            tracing::warn!(%error, "a call of the bot's could not be passed on to Meta");
            return Err(match error {
                NotPassed::Full => Refused::unavailable(error.to_string()),
                NotPassed::Target => Refused::wrong(error.to_string()),
                NotPassed::Lost(_) | NotPassed::Idle(_) => Refused::no_way(error.to_string()),
            });
        }
    };
    let mut response = Response::new(Body::from_stream(passed.body));
    *response.status_mut() = passed.status;
    *response.headers_mut() = passed.headers;
    Ok(response)
}

impl Egress {
    /// The headers and the target of a call with Meta's token in place of the one shown, and
    /// without headers that are meant for us.
    fn with_token(&self, headers: &HeaderMap, uri: &Uri) -> Result<(HeaderMap, String), Refused> {
        let token = self.parts.passage.token().expose();
        let mut kept: HeaderMap = headers.clone();
        kept.remove("idempotency-key");
        let ours: Vec<_> = headers
            .keys()
            .filter(|name| is_ours(name.as_str()))
            .collect();
        for name in ours {
            kept.remove(name);
        }
        if token::in_headers(headers).is_some() {
            let value = token::header_with(headers, token).ok_or_else(Refused::token)?;
            kept.insert(header::AUTHORIZATION, value);
        }
        let target = match uri.query() {
            Some(query) if token::in_form(query).is_some() => {
                format!("{}?{}", uri.path(), token::form_with(query, token))
            }
            Some(query) => format!("{}?{query}", uri.path()),
            None => uri.path().to_owned(),
        };
        Ok((kept, target))
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with("x-hapax-")
}
