//! Reads the answer of an asked bot: which replies it lists, or what is wrong with it.
//!
//! Pure. A fault is told by its place, never by what stands there: that is what people wrote.

use serde_json::{Map, Value};

use crate::model::{Outcome, Reply};

/// How many replies one answer may hold.
const REPLIES_MAX: usize = 20;

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("no JSON at line {line}, column {column}")]
    NotJson { line: usize, column: usize },
    #[error("{place}: expected {expected}")]
    Unexpected {
        place: String,
        expected: &'static str,
    },
    #[error("{0} replies, more than {REPLIES_MAX}")]
    TooMany(usize),
}

/// Reads the body of a 2xx.
///
/// Empty or `null` (what many frameworks send for a function that returns nothing) is silence, and
/// so is an empty list. A list, or an object with a list in `replies`, holds replies; any other
/// object is the one reply. A reply is a text, `{"text": "…"}`, or a message body of the Graph API.
pub(super) fn read(body: &[u8]) -> Result<Outcome, Fault> {
    if body.trim_ascii().is_empty() {
        return Ok(Outcome::Silence);
    }
    let answer = serde_json::from_slice(body).map_err(|error| Fault::NotJson {
        line: error.line(),
        column: error.column(),
    })?;
    let replies = match answer {
        Value::Null => Vec::new(),
        Value::Array(items) => list("the list", items)?,
        Value::Object(mut object) => match object.remove("replies") {
            Some(Value::Array(items)) => list("replies", items)?,
            Some(_) => return Err(unexpected("replies", "a list")),
            None => vec![from_object("the answer", object)?],
        },
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(unexpected("the answer", "an object or a list"));
        }
    };
    Ok(if replies.is_empty() {
        Outcome::Silence
    } else {
        Outcome::Reply(replies)
    })
}

fn list(name: &str, items: Vec<Value>) -> Result<Vec<Reply>, Fault> {
    if items.len() > REPLIES_MAX {
        return Err(Fault::TooMany(items.len()));
    }
    let place = |index| format!("{name}[{index}]");
    let items = items.into_iter().enumerate();
    items
        .map(|(index, item)| reply(&place(index), item))
        .collect()
}

fn reply(place: &str, item: Value) -> Result<Reply, Fault> {
    match item {
        Value::String(text) => from_text(place, text),
        Value::Object(object) => from_object(place, object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            Err(unexpected(place, "a text or an object"))
        }
    }
}

fn from_object(place: &str, mut object: Map<String, Value>) -> Result<Reply, Fault> {
    let typed = object.get("type").is_some_and(Value::is_string);
    match object.get_mut("text") {
        Some(Value::String(text)) if !typed => from_text(place, std::mem::take(text)),
        _ if typed => Ok(Reply::Body(Value::Object(object))),
        _ => Err(unexpected(
            place,
            "a text in `text`, or a Graph message body with its `type`",
        )),
    }
}

fn from_text(place: &str, text: String) -> Result<Reply, Fault> {
    if text.trim().is_empty() {
        return Err(unexpected(place, "a text that is not empty"));
    }
    Ok(Reply::Text(text))
}

fn unexpected(place: &str, expected: &'static str) -> Fault {
    Fault::Unexpected {
        place: place.to_owned(),
        expected,
    }
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts<const N: usize>(texts: [&str; N]) -> Result<Outcome, Fault> {
        let replies = texts.map(|text| Reply::Text(text.to_owned()));
        Ok(Outcome::Reply(replies.to_vec()))
    }

    #[test]
    fn nothing_said_is_silence() {
        for silent in ["", " \r\n", "null", "[]", r#"{"replies":[]}"#] {
            assert_eq!(read(silent.as_bytes()), Ok(Outcome::Silence), "{silent:?}");
        }
    }

    #[test]
    fn a_reply_may_be_written_in_several_ways() {
        assert_eq!(
            read(br#"{"replies":["a",{"text":"b"}]}"#),
            texts(["a", "b"])
        );
        assert_eq!(read(br#"["a","b"]"#), texts(["a", "b"]));
        assert_eq!(read(br#"{"text":"a","mood":3}"#), texts(["a"]));
        let image = json!({"type": "image", "image": {"id": "1"}});
        let text = json!({"type": "text", "text": {"body": "x"}});
        let answer = json!([image, text]).to_string();
        assert_eq!(
            read(answer.as_bytes()),
            Ok(Outcome::Reply(vec![Reply::Body(image), Reply::Body(text)]))
        );
    }

    #[test]
    fn a_fault_is_told_by_its_place() {
        let cases = [
            ("{\"text\":\n \"secret", "no JSON at line 2, column 8"),
            ("<html>secret", "no JSON at line 1, column 1"),
            ("\"secret\"", "the answer: expected an object or a list"),
            (r#"{"replies":"secret"}"#, "replies: expected a list"),
            (r#"["a",7]"#, "the list[1]: expected a text or an object"),
            (
                r#"{"replies":["a"," "]}"#,
                "replies[1]: expected a text that is not empty",
            ),
            (
                r#"{"status":"secret"}"#,
                "the answer: expected a text in `text`, or a Graph",
            ),
            (
                r#"[{"text":{"body":"secret"}}]"#,
                "the list[0]: expected a text in `text`, or a",
            ),
        ];
        for (body, expected) in cases {
            let fault = read(body.as_bytes()).expect_err(body).to_string();
            assert!(fault.starts_with(expected), "{body}: {fault}");
            assert!(!fault.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn replies_are_counted() {
        let answer = |count| json!({"replies": vec!["a"; count]}).to_string();
        assert!(read(answer(REPLIES_MAX).as_bytes()).is_ok());
        let many = REPLIES_MAX + 1;
        assert_eq!(read(answer(many).as_bytes()), Err(Fault::TooMany(many)));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = "[".repeat(100_000);
        assert!(matches!(read(deep.as_bytes()), Err(Fault::NotJson { .. })));
    }
}
