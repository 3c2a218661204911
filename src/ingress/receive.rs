//! From a request to a verified body: the checks that cost nothing first.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::OwnedSemaphorePermit;

use super::Ingress;
use crate::model::{Event, EventBody, Notice, NumberId};

/// A body that was signed with our app secret. Holds its share of memory until it is dropped.
#[derive(Debug)]
pub struct Verified {
    /// The raw bytes.
    pub body: Bytes,
    _memory: OwnedSemaphorePermit,
}

/// Why a request is no delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Longer than the limit.
    #[error("the body is longer than this server takes")]
    TooLong,
    /// The body did not come in time.
    #[error("the body did not come in time")]
    TooSlow,
    /// The connection broke inside the body.
    #[error("the body did not come whole")]
    Broken,
    /// Not signed at all: not from Meta.
    #[error("X-Hub-Signature-256 is missing")]
    Unsigned,
    /// Signed with another secret.
    #[error("X-Hub-Signature-256 does not fit the body and the app secret")]
    Signature,
    /// Too many bodies are under way.
    #[error("too much is under way")]
    Busy,
}

impl Refusal {
    /// The answer.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Unsigned | Self::Signature => StatusCode::UNAUTHORIZED,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The word used in logs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::TooSlow => "too_slow",
            Self::Broken => "broken",
            Self::Unsigned => "unsigned",
            Self::Signature => "signature",
            Self::Busy => "busy",
        }
    }
}

/// Bytes of a body that is refused anyway, read and thrown away at most.
const DISCARD_MAX: usize = 64 << 20;
const SIGNATURE: &str = "x-hub-signature-256";

impl Ingress {
    /// Reads a body within all bounds and verifies it.
    pub(crate) async fn receive(&self, request: Request<Body>) -> Result<Verified, Refusal> {
        let (head, body) = request.into_parts();
        let memory = match self.reserve(&head.headers) {
            Err(Refusal::TooLong) => {
                self.discard(body).await;
                return Err(Refusal::TooLong);
            }
            reserved => reserved?,
        };
        let body = self.read(body).await?;
        let signature = head
            .headers
            .get(SIGNATURE)
            .and_then(|value| value.to_str().ok());
        if !self.parts.secrets.verify(signature, &body) {
            return Err(match signature {
                Some(_) => Refusal::Signature,
                None => Refusal::Unsigned,
            });
        }
        Ok(Verified {
            body,
            _memory: memory,
        })
    }

    fn reserve(&self, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, Refusal> {
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|length| length.parse::<usize>().ok());
        // A body of unknown length may be as long as the limit.
        let length = announced.unwrap_or(self.limits.body_max);
        if length > self.limits.body_max {
            return Err(Refusal::TooLong);
        }
        let share = u32::try_from(kibibytes(length)).unwrap_or(u32::MAX);
        Arc::clone(&self.memory)
            .try_acquire_many_owned(share)
            .map_err(|_| Refusal::Busy)
    }

    /// Lets a body that is too long pass by, up to a limit: a client that is cut off while it
    /// writes would not see the answer.
    async fn discard(&self, body: Body) {
        let mut body = Limited::new(body, DISCARD_MAX);
        let pass_by = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = self
            .parts
            .clock
            .timeout(self.limits.body_timeout, pass_by)
            .await;
    }

    async fn read(&self, body: Body) -> Result<Bytes, Refusal> {
        let limited = Limited::new(body, self.limits.body_max).collect();
        match self
            .parts
            .clock
            .timeout(self.limits.body_timeout, limited)
            .await
        {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLong),
            Ok(Err(_)) => Err(Refusal::Broken),
            Err(_) => Err(Refusal::TooSlow),
        }
    }
}

/// Memory is counted in KiB, at least one for each body.
pub(super) fn kibibytes(bytes: usize) -> usize {
    bytes.div_ceil(1024).max(1)
}

/// Turns an event of another number than ours into a notice: kept, never answered, and not
/// for our bot.
pub(super) fn set_aside_other_number(event: &mut Event, only: &NumberId) {
    if event.number.as_ref().is_none_or(|number| number == only) {
        return;
    }
    event.relay = None;
    let raw = match &mut event.body {
        EventBody::Message(message) => std::mem::take(&mut message.envelope),
        EventBody::Status(receipt) => std::mem::take(&mut receipt.raw),
        EventBody::Notice(_) => return,
    };
    event.body = EventBody::Notice(Notice {
        kind: "other_number".to_owned(),
        raw,
    });
}
