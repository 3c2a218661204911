//! Where a call of the Graph API shows its access token, and how another one is put there.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use serde_json::value::RawValue;

use super::parameters::Written;

/// The parameter that holds it.
const NAME: &str = "access_token";
/// The parameter that proves who holds the token: worthless beside another one.
const PROOF: &str = "appsecret_proof";
/// The words that may stand before it in the header.
const SCHEMES: [&str; 2] = ["bearer", "oauth"];

/// The token in the header `authorization`.
pub fn in_headers(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = split(headers.get(AUTHORIZATION)?)?;
    let is_known = SCHEMES
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known));
    (is_known && !token.is_empty()).then_some(token)
}

fn split(value: &HeaderValue) -> Option<(&str, &str)> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    Some((scheme, token.trim()))
}

/// The header with another token, and the same word before it. `None` where the token can't
/// stand in a header.
pub fn header_with(headers: &HeaderMap, token: &str) -> Option<HeaderValue> {
    let scheme = headers.get(AUTHORIZATION).and_then(split);
    let scheme = scheme.map_or("Bearer", |(scheme, _)| scheme);
    let mut value = HeaderValue::try_from(format!("{scheme} {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The token in a query or a form; of several the last one.
pub fn in_form(text: &str) -> Option<Cow<'_, str>> {
    let named = form_urlencoded::parse(text.as_bytes()).filter(|(name, _)| name == NAME);
    named.last().map(|(_, token)| token)
}

/// The query or form with another token in each place where there was one, and otherwise as it
/// came, byte by byte. A proof of the token before is left out.
pub fn form_with(text: &str, token: &str) -> String {
    let mut parts: Vec<Cow<'_, str>> = Vec::new();
    for pair in text.split('&') {
        let name = form_urlencoded::parse(pair.as_bytes()).next();
        match name.as_ref().map(|(name, _)| &**name) {
            Some(NAME) => {
                let token: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
                parts.push(format!("{NAME}={token}").into());
            }
            Some(PROOF) => {}
            Some(_) | None => parts.push(pair.into()),
        }
    }
    parts.join("&")
}

/// The token in a body.
pub fn in_body(written: Written, body: &[u8]) -> Option<String> {
    match written {
        Written::Json => serde_json::from_str(members(body)?.get(NAME)?.get()).ok(),
        Written::Form => in_form(std::str::from_utf8(body).ok()?).map(Cow::into_owned),
        Written::Multipart | Written::Otherwise => None,
    }
}

/// The body with another token where there was one. `None` where there was none.
pub fn body_with(written: Written, body: &[u8], token: &str) -> Option<String> {
    match written {
        Written::Json => {
            let mut members = members(body)?;
            members.remove(PROOF);
            let token = serde_json::value::to_raw_value(token).ok()?;
            *members.get_mut(NAME)? = token;
            serde_json::to_string(&members).ok()
        }
        Written::Form => {
            let text = std::str::from_utf8(body).ok()?;
            in_form(text)?;
            Some(form_with(text, token))
        }
        Written::Multipart | Written::Otherwise => None,
    }
}

fn members(body: &[u8]) -> Option<BTreeMap<String, Box<RawValue>>> {
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::try_from(value).unwrap());
        headers
    }

    #[test]
    fn a_token_stands_in_the_header_with_either_word() {
        for (value, token) in [
            ("Bearer EAAG", Some("EAAG")),
            ("bearer  EAAG", Some("EAAG")),
            ("OAuth EAAG", Some("EAAG")),
            ("Basic EAAG", None),
            ("Bearer ", None),
            ("EAAG", None),
        ] {
            assert_eq!(in_headers(&headers(value)), token, "{value}");
        }
        let with = header_with(&headers("OAuth EAAG"), "NEW").unwrap();
        assert_eq!(with, "OAuth NEW");
        assert!(with.is_sensitive());
        assert_eq!(header_with(&HeaderMap::new(), "NEW").unwrap(), "Bearer NEW");
        assert_eq!(header_with(&HeaderMap::new(), "a\nb"), None);
    }

    #[test]
    fn a_token_stands_in_a_query_and_all_else_stays() {
        assert_eq!(in_form("a=1&access%5Ftoken=E%41").as_deref(), Some("EA"));
        assert_eq!(in_form("access_tokens=E"), None);
        let with = form_with(
            "fields=a%2cb,c&access_token=E&x=+%20&appsecret_proof=9&",
            "N&",
        );
        assert_eq!(with, "fields=a%2cb,c&access_token=N%26&x=+%20&");
        assert_eq!(form_with("", "N"), "");
    }

    #[test]
    fn a_token_stands_in_a_body_and_all_else_stays() {
        let json = br#"{ "access_token" : "E", "big": 123456789012345678901, "a":"\u00e4"}"#;
        assert_eq!(in_body(Written::Json, json).as_deref(), Some("E"));
        let with = body_with(Written::Json, json, "N\"");
        let expected =
            r#"{"a":"\u00e4","access_token":"N\"","big":123456789012345678901}"#.to_owned();
        assert_eq!(with, Some(expected));
        assert_eq!(
            in_body(Written::Form, b"access_token=E").as_deref(),
            Some("E")
        );
        let with = body_with(Written::Form, b"access_token=E&a=1", "N");
        assert_eq!(with.as_deref(), Some("access_token=N&a=1"));
        for (written, body) in [
            (Written::Json, "{}"),
            (Written::Form, "a=1"),
            (Written::Multipart, "access_token=E"),
        ] {
            assert_eq!(in_body(written, body.as_bytes()), None);
            assert_eq!(body_with(written, body.as_bytes(), "N"), None);
        }
    }
}
