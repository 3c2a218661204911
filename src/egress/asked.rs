//! From a request to a call whose token is right, read whole or left to be passed on in pieces.
//! Touches no ledger.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use subtle::ConstantTimeEq;

use super::Egress;
use crate::whatsapp::asked::{Called, Parameters, Written, token};
use crate::whatsapp::told::Refused;

/// The longest body that is read whole. A message of Meta's has a few kilobytes.
pub(super) const BODY_MAX: usize = 256 * 1024;
/// The longest key, in bytes.
const KEY_MAX: usize = 256;

/// A call with its body still to come.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// A call that was read whole, with the right token.
pub(super) struct Whole {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) written: Written,
    pub(super) parameters: Parameters,
}

impl Call {
    pub(super) fn of(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        Self {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
        }
    }

    pub(super) fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    pub(super) fn content_type(&self) -> Option<&str> {
        self.headers.get(header::CONTENT_TYPE)?.to_str().ok()
    }

    /// The token that stands before the body, whether or not it is right.
    pub(super) fn shown(&self) -> Option<String> {
        match token::in_headers(&self.headers) {
            Some(token) => Some(token.to_owned()),
            None => token::in_form(self.query()).map(std::borrow::Cow::into_owned),
        }
    }
}

impl Whole {
    /// Whether it names another webhook than the app's.
    pub(super) fn leads_away(&self) -> bool {
        self.parameters.leads_away()
    }

    /// Whether its body says that the subscription is to end.
    pub(super) fn ends_a_subscription(&self, called: &Called) -> bool {
        *called == Called::Subscribe && self.parameters.method() == Some(Method::DELETE)
    }

    /// Whether the caller says that the message belongs to no turn (`X-Hapax-Turn: none`).
    pub(super) fn is_apart(&self) -> Result<bool, Refused> {
        match self.headers.get("x-hapax-turn").map(HeaderValue::as_bytes) {
            None => Ok(false),
            Some(b"none") => Ok(true),
            Some(_) => Err(Refused::wrong(
                "X-Hapax-Turn: expected none, found something else",
            )),
        }
    }

    /// What the caller calls its request, if anything.
    pub(super) fn key(&self) -> Result<Option<String>, Refused> {
        let Some(value) = self.headers.get("idempotency-key") else {
            return Ok(None);
        };
        let is_visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
        let fits = (1..=KEY_MAX).contains(&value.len());
        match value.to_str() {
            Ok(text) if is_visible && fits => Ok(Some(text.to_owned())),
            Ok(_) | Err(_) => Err(Refused::wrong(format!(
                "Idempotency-Key: expected 1 to {KEY_MAX} ASCII characters that can be seen, \
                 found {} bytes that are not",
                value.len()
            ))),
        }
    }
}

impl Egress {
    /// Whether this is the token that callers must show.
    pub(super) fn is_right(&self, token: &str) -> bool {
        let expected = self.parts.token.expose().as_bytes();
        token.as_bytes().ct_eq(expected).into()
    }

    /// Refuses a call without the right token before its body.
    pub(super) fn admit_shown(&self, call: &Call) -> Result<(), Refused> {
        let is_right = call.shown().is_some_and(|token| self.is_right(&token));
        is_right.then_some(()).ok_or_else(Refused::token)
    }

    /// Reads a call whole and looks at its token, wherever that stands.
    pub(super) async fn whole(&self, call: Call) -> Result<Whole, Refused> {
        let shown = call.shown();
        if shown.as_ref().is_some_and(|token| !self.is_right(token)) {
            return Err(Refused::token());
        }
        let Call {
            method,
            uri,
            headers,
            body,
        } = call;
        let body = self.read(body).await?;
        let content_type = headers.get(header::CONTENT_TYPE);
        let written = Written::of(content_type.and_then(|kind| kind.to_str().ok()), &body);
        let in_body = || token::in_body(written, &body);
        let is_right = shown.is_some() || in_body().is_some_and(|token| self.is_right(&token));
        if !is_right {
            return Err(Refused::token());
        }
        let parameters = Parameters::read(uri.query().unwrap_or_default(), written, &body)?;
        Ok(Whole {
            method,
            uri,
            headers,
            body,
            written,
            parameters,
        })
    }

    /// Reads a body within bounds of size and time.
    pub(super) async fn read(&self, body: Body) -> Result<Bytes, Refused> {
        let limit = self.settings.body_timeout;
        let whole = Limited::new(body, BODY_MAX).collect();
        match self.parts.clock.timeout(limit, whole).await {
            Ok(Ok(whole)) => Ok(whole.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refused::too_long(BODY_MAX)),
            Ok(Err(_)) => Err(Refused::body("the body did not come whole")),
            Err(_) => Err(Refused::body(format!(
                "the body took longer than {limit:?}"
            ))),
        }
    }
}
