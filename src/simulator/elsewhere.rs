//! What the pretend Graph API knows beside messages: media that go up and come down in pieces,
//! and a record of every other call, which it does not know.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Uri, header};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;

/// The pieces in which media come down, in bytes.
const PIECE: usize = 64 * 1024;
/// Of other bodies so much is kept.
const KEPT_MAX: usize = 64 * 1024;

/// A call that sends no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// The first of its body.
    pub body: Bytes,
    /// How long the whole of that was.
    pub length: u64,
    /// Whether every byte of it was that of [`pattern`] at its place.
    pub is_pattern: bool,
}

impl Elsewhere {
    /// A header as text, empty when it is missing.
    pub fn header(&self, name: header::HeaderName) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }
}

/// The byte of test media at this place.
pub const fn pattern(at: u64) -> u8 {
    // So that no two pieces that were swapped, lost or doubled look right.
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// So many bytes of test media, in pieces.
pub fn media(length: u64) -> Body {
    let pieces = stream::unfold(0, move |at: u64| async move {
        let end = length.min(at + PIECE as u64);
        let piece: Vec<u8> = (at..end).map(pattern).collect();
        (at < length).then(|| (Ok::<_, std::convert::Infallible>(Bytes::from(piece)), end))
    });
    Body::from_stream(pieces)
}

/// The calls so far.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<Vec<Elsewhere>>);

impl Calls {
    pub(super) fn all(&self) -> Vec<Elsewhere> {
        self.lock().clone()
    }

    /// Reads a call to its end and keeps it; `None` where its body breaks off.
    pub(super) async fn take(
        &self,
        (method, uri, headers): (Method, Uri, HeaderMap),
        body: Body,
    ) -> Option<u64> {
        let (mut kept, mut length, mut is_pattern) = (Vec::new(), 0_u64, true);
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.ok()?;
            is_pattern &= (length..)
                .zip(&piece)
                .all(|(at, byte)| pattern(at) == *byte);
            let room = KEPT_MAX.saturating_sub(kept.len()).min(piece.len());
            kept.extend_from_slice(&piece[..room]);
            length += piece.len() as u64;
        }
        self.lock().push(Elsewhere {
            method,
            target: uri.to_string(),
            headers,
            body: Bytes::from(kept),
            length,
            is_pattern,
        });
        Some(length)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Elsewhere>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
