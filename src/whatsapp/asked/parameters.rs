//! The parameters of a call, in whichever of three ways they are written: JSON, a form, or the
//! query of the path. Graph takes each parameter from any of them.

use serde_json::{Map, Value};

use crate::whatsapp::told::Refused;

/// Parameters that steer the call and are no part of what it says.
const CONTROL: [&str; 8] = [
    "access_token",
    "appsecret_proof",
    "method",
    "format",
    "pretty",
    "debug",
    "locale",
    "suppress_http_code",
];

/// Parameters that are text whatever they look like.
const OPAQUE: [&str; 1] = ["biz_opaque_callback_data"];

/// How the body of a call is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `multipart/form-data`, which is read only where it passes through.
    Multipart,
    /// As nothing that holds parameters.
    Otherwise,
}

impl Written {
    /// By the header `content-type`. Without one, or as plain text, it is what it looks like.
    pub fn of(content_type: Option<&str>, body: &[u8]) -> Self {
        let kind = content_type.unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        match kind.to_ascii_lowercase().as_str() {
            "application/json" | "text/json" => Self::Json,
            "application/x-www-form-urlencoded" => Self::of_form(body),
            "multipart/form-data" => Self::Multipart,
            "" | "text/plain" if looks_like_json(body) => Self::Json,
            "" | "text/plain" => Self::Form,
            _ => Self::Otherwise,
        }
    }

    /// Common clients call what they send a form unless they are told otherwise.
    fn of_form(body: &[u8]) -> Self {
        match looks_like_json(body) {
            true => Self::Json,
            false => Self::Form,
        }
    }
}

fn looks_like_json(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{")
}

/// The parameters of a call by name, what it says and what steers it.
#[derive(Clone, Default, PartialEq)]
pub struct Parameters(Map<String, Value>);

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parameters(…)")
    }
}

impl Parameters {
    /// Reads the parameters of a query and of a body. Those of the body count before those of
    /// the query; of two with one name in one place the last one counts.
    ///
    /// # Errors
    /// A body that is neither a JSON object nor a form.
    pub fn read(query: &str, written: Written, body: &[u8]) -> Result<Self, Refused> {
        let mut all = of_form(query.as_bytes());
        if !body.trim_ascii().is_empty() {
            all.extend(match written {
                Written::Json => of_json(body)?,
                Written::Form => of_form(body),
                Written::Multipart => return Err(Refused::wrong(MULTIPART)),
                Written::Otherwise => return Err(Refused::wrong(NEITHER)),
            });
        }
        let unfolded = all.into_iter().map(|(name, value)| {
            let value = unfolded(&name, value);
            (name, value)
        });
        Ok(Self(unfolded.collect()))
    }

    /// A parameter as it came.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A parameter that is a text or a number, and not empty.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name)
            .and_then(as_text)
            .filter(|text| !text.is_empty())
    }

    /// The method that a call names in place of its own.
    pub fn method(&self) -> Option<http::Method> {
        method(&self.text("method")?)
    }

    /// Whether it names a webhook that Meta is to deliver to in place of the app's own.
    ///
    /// Source: Meta, *Webhook overrides*.
    pub fn leads_away(&self) -> bool {
        let names = ["override_callback_uri", "webhook_configuration"];
        names.iter().any(|name| self.get(name).is_some())
    }

    /// What the call says, without what steers it.
    pub fn into_said(self) -> Map<String, Value> {
        let mut said = self.0;
        said.retain(|name, value| !CONTROL.contains(&name.as_str()) && !value.is_null());
        said
    }
}

const MULTIPART: &str = "Hapax reads the parameters of this call from JSON or from a form \
                         (application/x-www-form-urlencoded), not from multipart/form-data";
const NEITHER: &str = "the body is neither JSON nor a form, by its content-type";

/// The method that the parameter `method` of a query names, in place of the call's own.
pub(super) fn method_of_query(query: &str) -> Option<http::Method> {
    let named = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "method");
    named.last().and_then(|(_, word)| method(&word))
}

fn method(word: &str) -> Option<http::Method> {
    match word.trim().to_ascii_uppercase().as_str() {
        "GET" => Some(http::Method::GET),
        "POST" => Some(http::Method::POST),
        "PUT" => Some(http::Method::PUT),
        "DELETE" => Some(http::Method::DELETE),
        _ => None,
    }
}

fn of_json(body: &[u8]) -> Result<Map<String, Value>, Refused> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(all)) => Ok(all),
        Ok(_) => Err(Refused::wrong("the body is JSON, but no object")),
        Err(error) => Err(Refused::wrong(format!(
            "the body is no JSON from line {}, column {} on",
            error.line(),
            error.column()
        ))),
    }
}

fn of_form(text: &[u8]) -> Map<String, Value> {
    form_urlencoded::parse(text)
        .map(|(name, value)| (name.into_owned(), Value::from(value)))
        .collect()
}

/// Objects and lists are written into a form as JSON; Graph takes them so in JSON as well.
fn unfolded(name: &str, value: Value) -> Value {
    match value {
        Value::String(text) if !OPAQUE.contains(&name) && text.starts_with(['{', '[']) => {
            match serde_json::from_str(&text) {
                Ok(inner @ (Value::Object(_) | Value::Array(_))) => inner,
                Ok(_) | Err(_) => Value::String(text),
            }
        }
        other => other,
    }
}

/// A text, or a number or a switch as a form would write it.
pub(super) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(switch) => Some(switch.to_string()),
        Value::Null | Value::Object(_) | Value::Array(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(query: &str, written: Written, body: &str) -> Value {
        let read = Parameters::read(query, written, body.as_bytes());
        Value::Object(read.expect("it can be read").into_said())
    }

    #[test]
    fn three_ways_of_writing_say_the_same() {
        let json = r#"{"to":"49 15","text":{"body":"ä & b"},"access_token":"t"}"#;
        let form = "to=49+15&text=%7B%22body%22%3A%22%C3%A4%20%26%20b%22%7D&access_token=t";
        let expected = json!({"to": "49 15", "text": {"body": "ä & b"}});
        assert_eq!(said("", Written::Json, json), expected);
        assert_eq!(said("", Written::Form, form), expected);
        assert_eq!(said(form, Written::Otherwise, ""), expected);
        assert_eq!(said("to=1&method=post", Written::Json, json), expected);
    }

    #[test]
    fn a_text_of_the_bots_own_stays_a_text() {
        let form = r#"biz_opaque_callback_data={"a":1}&text={broken"#;
        let expected = json!({"biz_opaque_callback_data": r#"{"a":1}"#, "text": "{broken"});
        assert_eq!(said("", Written::Form, form), expected);
    }

    #[test]
    fn a_body_is_taken_for_what_it_is() {
        let of = |kind: &str, body: &str| Written::of(Some(kind), body.as_bytes());
        assert_eq!(of("application/json; charset=utf-8", ""), Written::Json);
        assert_eq!(
            of("application/x-www-form-urlencoded", "a=1"),
            Written::Form
        );
        assert_eq!(
            of("application/x-www-form-urlencoded", " {\"a\":1}"),
            Written::Json
        );
        assert_eq!(
            of("Multipart/Form-Data; boundary=x", "--x"),
            Written::Multipart
        );
        assert_eq!(of("image/png", "{"), Written::Otherwise);
        assert_eq!(Written::of(None, b"{}"), Written::Json);
        assert_eq!(Written::of(None, b"a=1"), Written::Form);
    }

    #[test]
    fn what_holds_no_parameters_is_refused() {
        for (written, body) in [
            (Written::Json, "[]"),
            (Written::Json, "{"),
            (Written::Multipart, "--x"),
            (Written::Otherwise, "x"),
        ] {
            let refused = Parameters::read("", written, body.as_bytes());
            assert_eq!(refused.expect_err(body).code(), 100, "{body}");
        }
    }

    #[test]
    fn a_method_may_be_named() {
        let named = |query: &str| method_of_query(query).map(|method| method.to_string());
        assert_eq!(named("a=1&method=post").as_deref(), Some("POST"));
        assert_eq!(named("method=DELETE").as_deref(), Some("DELETE"));
        assert_eq!(named("method=brew"), None);
        assert_eq!(named(""), None);
    }
}
