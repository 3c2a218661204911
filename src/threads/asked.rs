//! From a request to what it means, or to what was expected instead. Touches no ledger.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{self, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::Refusal;
use crate::clock::Clock;
use crate::model::{NumberId, ThreadId};
use crate::store::{Named, Whose};
use crate::whatsapp;

/// The number and the contact of a path, as they came.
pub(super) struct Path(pub(super) String, pub(super) String);
/// The parameters of a request, as they came.
pub(super) struct Query(pub(super) Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = extract::Path::from_request_parts(parts, state).await;
        let extract::Path((number, contact)) = path.map_err(|_| not_text("wrong_path", "path"))?;
        Ok(Self(number, contact))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = extract::Query::from_request_parts(parts, state).await;
        let extract::Query(query) = query.map_err(|_| not_text("wrong_query", "query"))?;
        Ok(Self(query))
    }
}

fn not_text(code: &'static str, what: &str) -> Refusal {
    Refusal::asked(
        code,
        format!("expected a {what} in UTF-8, found other bytes"),
    )
}

/// The longest id of a number; Meta's have 15 to 17 digits.
const NUMBER_DIGITS_MAX: usize = 32;
/// The longest body: an id of a thread may be escaped byte by byte.
const BODY_MAX: usize = 8 * 1024;
/// The longest key, in bytes.
const KEY_MAX: usize = 255;
/// How many orphans are told where nothing else is asked for.
const LIMIT_DEFAULT: u32 = 100;
/// How many can be asked for.
const LIMIT_MAX: u32 = 10_000;

pub(super) fn whose(path: Path) -> Result<Whose, Refusal> {
    let Path(number, contact) = path;
    let is_number = (1..=NUMBER_DIGITS_MAX).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(Refusal::asked(
            "wrong_number",
            format!(
                "expected the business number's id of Meta (\"Phone number ID\"), digits only; \
                 found {} characters with others among them",
                number.chars().count()
            ),
        ));
    }
    let named = named(&contact).ok_or_else(|| {
        Refusal::asked(
            "wrong_contact",
            format!(
                "expected a phone number with country code (5 to 15 digits, no 0 first), a user \
                 id such as US.123, or an id of ours (cv_… or ct_…); found {} characters that \
                 are none of these",
                contact.chars().count()
            ),
        )
    })?;
    Ok(Whose {
        number: NumberId::new(number),
        named,
    })
}

fn named(contact: &str) -> Option<Named> {
    if let Ok(conversation) = contact.parse() {
        return Some(Named::Conversation(conversation));
    }
    if let Ok(contact) = contact.parse() {
        return Some(Named::Contact(contact));
    }
    whatsapp::person(contact).map(Named::Person)
}

/// Refuses what is not known.
fn only<'a>(query: &'a Query, known: &str) -> Result<Option<&'a str>, Refusal> {
    let mut found = None;
    for (name, value) in &query.0 {
        if name != known {
            return Err(Refusal::asked(
                "wrong_query",
                format!("expected only {known}, found {name:?}"),
            ));
        }
        found = Some(value.as_str());
    }
    Ok(found)
}

/// How long to wait: what is asked for, but no longer than `max`.
pub(super) fn wait(query: &Query, max: Duration) -> Result<Duration, Refusal> {
    let Some(text) = only(query, "wait")? else {
        return Ok(max);
    };
    match humantime::parse_duration(text) {
        Ok(wait) => Ok(wait.min(max)),
        Err(_) => Err(Refusal::asked(
            "wrong_query",
            format!(
                "wait: expected a duration with its unit, for example 500ms or 10s; found {text:?}"
            ),
        )),
    }
}

pub(super) fn limit(query: &Query) -> Result<u32, Refusal> {
    let Some(text) = only(query, "limit")? else {
        return Ok(LIMIT_DEFAULT);
    };
    let limit = text.parse().ok();
    limit
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| {
            let expected = format!("limit: expected a number from 1 to {LIMIT_MAX}");
            Refusal::asked("wrong_query", format!("{expected}, found {text:?}"))
        })
}

/// What the caller calls its request, if anything.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value.to_str().ok().map(str::trim);
    let fits = |text: &&str| (1..=KEY_MAX).contains(&text.len());
    match text.filter(fits) {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(Refusal::asked(
            "wrong_key",
            format!(
                "Idempotency-Key: expected 1 to {KEY_MAX} ASCII characters that can be seen, \
                 found {} bytes that are not",
                value.len()
            ),
        )),
    }
}

/// Reads a body within bounds of size and time.
pub(super) async fn body(body: Body, clock: &Clock, limit: Duration) -> Result<Bytes, Refusal> {
    let whole = Limited::new(body, BODY_MAX).collect();
    let read = clock.timeout(limit, whole).await;
    match read.map_err(|_| Refusal::body_too_slow(limit))? {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::body_too_long(BODY_MAX)),
        Err(_) => Err(wrong_body("a body that did not come whole")),
    }
}

/// The version and the thread that a body brings.
pub(super) fn completion(body: &[u8]) -> Result<(i64, ThreadId), Refusal> {
    let json: Value = serde_json::from_slice(body).map_err(|error| {
        wrong_body(&format!(
            "no JSON at line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    let object = json.as_object().ok_or_else(|| wrong_body("another JSON"))?;
    if let Some(other) = object.keys().find(|name| !is_known(name)) {
        return Err(wrong_body(&format!("{other:?} in it")));
    }
    let version = object.get("version").and_then(Value::as_i64);
    let version = version.filter(|version| *version >= 1);
    let version = version.ok_or_else(|| wrong_body("no whole number from 1 on as its version"))?;
    let thread = object.get("thread").and_then(Value::as_str);
    let thread = thread.ok_or_else(|| wrong_body("no text as its thread"))?;
    let thread = ThreadId::new(thread);
    let thread =
        thread.map_err(|error| Refusal::asked("wrong_thread", format!("thread: {error}")))?;
    Ok((version, thread))
}

fn is_known(name: &str) -> bool {
    ["version", "thread"].contains(&name)
}

fn wrong_body(found: &str) -> Refusal {
    Refusal::asked(
        "wrong_body",
        format!("expected {{\"version\":4,\"thread\":\"thr_abc\"}}, found {found}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Query {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Query(pairs.iter().map(owned).collect())
    }

    fn path(number: &str, contact: &str) -> Path {
        Path(number.to_owned(), contact.to_owned())
    }

    #[test]
    fn a_conversation_is_named_in_four_ways() {
        let named = |contact| whose(path("106540352242922", contact)).map(|whose| whose.named);
        assert!(matches!(named("cv_7"), Ok(Named::Conversation(id)) if id.0 == 7));
        assert!(matches!(named("ct_7"), Ok(Named::Contact(id)) if id.0 == 7));
        for contact in ["4915112345", "+4915112345", "US.7"] {
            assert!(matches!(named(contact), Ok(Named::Person(_))), "{contact}");
        }
        for contact in ["cv_", "cv_x", "out_7", "0123456", "Ann"] {
            let refused = named(contact).expect_err(contact);
            let text = format!("{refused:?}");
            assert!(text.contains("wrong_contact"), "{text}");
            assert!(!text.contains("0123456"), "{text}");
        }
        for number in ["", "+15550001", "12a"] {
            let refused = whose(path(number, "cv_7")).expect_err(number);
            assert!(format!("{refused:?}").contains("wrong_number"));
        }
    }

    #[test]
    fn a_wait_is_as_asked_for_and_no_longer_than_the_limit() {
        let max = Duration::from_secs(10);
        let waits = |pairs: &[(&str, &str)]| wait(&query(pairs), max);
        assert_eq!(waits(&[]), Ok(max));
        assert_eq!(waits(&[("wait", "0s")]), Ok(Duration::ZERO));
        assert_eq!(waits(&[("wait", "250ms")]), Ok(Duration::from_millis(250)));
        assert_eq!(waits(&[("wait", "1h")]), Ok(max));
        for wrong in [
            ("wait", "10"),
            ("wait", ""),
            ("wait", "-1s"),
            ("wiat", "1s"),
        ] {
            let refused = waits(&[wrong]);
            assert!(refused.is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_completion_is_a_version_and_a_thread_and_nothing_else() {
        let right = br#"{"thread":"thr_\u00e9","version":4}"#;
        let thread = ThreadId::new("thr_é").expect("an id");
        assert_eq!(completion(right), Ok((4, thread)));
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"version":4}"#,
            r#"{"version":"4","thread":"a"}"#,
            r#"{"version":0,"thread":"a"}"#,
            r#"{"version":4.5,"thread":"a"}"#,
            r#"{"version":4,"thread":null}"#,
            r#"{"version":4,"thread":""}"#,
            r#"{"version":4,"thread":"a\u0000"}"#,
            r#"{"version":4,"thread":"a","more":1}"#,
        ] {
            assert!(completion(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_can_be_seen_and_is_short() {
        let read = |text: &[u8]| {
            let mut headers = HeaderMap::new();
            let value = axum::http::HeaderValue::from_bytes(text).expect("a value");
            headers.insert("idempotency-key", value);
            key(&headers)
        };
        assert_eq!(read(b" k-1 "), Ok(Some("k-1".to_owned())));
        assert_eq!(key(&HeaderMap::new()), Ok(None));
        for wrong in [b"".as_slice(), b"  ", &[b'a'; 256], "é".as_bytes()] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
