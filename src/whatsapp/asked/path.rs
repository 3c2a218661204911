//! Which call of the Graph API a method and a path are, as far as it matters who hears of it.

use http::Method;

use super::parameters;
use crate::model::NumberId;

/// The longest id of a number; Meta's have 15 to 17 digits.
const NUMBER_DIGITS_MAX: usize = 32;

/// A call of the Graph API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Called {
    /// Sends a message from this number, or marks one as read.
    Messages(NumberId),
    /// Sends a marketing template by Meta's other way.
    MarketingMessages,
    /// Several calls in one.
    Batch,
    /// Changes the webhooks of an app.
    Subscriptions,
    /// Subscribes an app to an account, perhaps with another webhook.
    Subscribe,
    /// Ends that.
    Unsubscribe,
    /// Changes a number or an account, perhaps its webhook.
    Settings,
    /// Anything else.
    Other,
}

/// What is called. A method that the query names counts in place of the call's own, as at Meta.
pub fn called(method: &Method, path: &str, query: &str) -> Called {
    let method = parameters::method_of_query(query).unwrap_or_else(|| method.clone());
    let segments: Vec<String> = path
        .split('/')
        .map(unescaped)
        .filter(|segment| !segment.is_empty())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let segments = match segments.as_slice() {
        [version, rest @ ..] if is_version(version) => rest,
        all => all,
    };
    match (segments, method == Method::POST) {
        ([], is_post) if is_post || is_batch(query) => Called::Batch,
        ([number, edge], true) if is_number(number) => match edge.to_ascii_lowercase().as_str() {
            "messages" => Called::Messages(NumberId::from(*number)),
            "marketing_messages" => Called::MarketingMessages,
            edge => webhooks(edge, true),
        },
        ([number], true) if is_number(number) => Called::Settings,
        ([_, edge], is_post) if is_post || method == Method::DELETE => {
            webhooks(&edge.to_ascii_lowercase(), is_post)
        }
        _ => Called::Other,
    }
}

fn webhooks(edge: &str, is_post: bool) -> Called {
    match (edge, is_post) {
        ("subscriptions", _) => Called::Subscriptions,
        ("subscribed_apps", true) => Called::Subscribe,
        ("subscribed_apps", false) => Called::Unsubscribe,
        _ => Called::Other,
    }
}

/// `v25.0` or `v25`.
fn is_version(segment: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let Some(version) = segment.strip_prefix(['v', 'V']) else {
        return false;
    };
    match version.split_once('.') {
        Some((major, minor)) => digits(major) && digits(minor),
        None => digits(version),
    }
}

fn is_number(segment: &str) -> bool {
    (1..=NUMBER_DIGITS_MAX).contains(&segment.len())
        && segment.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_batch(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "batch")
}

/// A segment with its `%` escapes read; one that is no text stands for itself.
fn unescaped(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_owned();
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| {
            after
                .get(at)
                .and_then(|byte| char::from(*byte).to_digit(16))
        };
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| segment.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, target: &str, expected: Called) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        assert_eq!(called(&method, path, query), expected, "{method} {target}");
    }

    #[test]
    fn a_send_is_found_however_it_is_written() {
        let messages = || Called::Messages(NumberId::from("106"));
        for target in [
            "/v25.0/106/messages",
            "/v25/106/messages",
            "/106/messages",
            "/106/messages/",
            "//v25.0//106/messages",
            "/v25.0/106/%6dessages",
            "/v25.0/106/Messages?method=POST",
        ] {
            check(Method::POST, target, messages());
        }
        check(Method::GET, "/v25.0/106/messages?method=post", messages());
        check(
            Method::POST,
            "/v25.0/106/messages?method=get",
            Called::Other,
        );
        check(Method::GET, "/v25.0/106/messages", Called::Other);
        check(Method::POST, "/v25.0/me/messages", Called::Other);
        check(Method::POST, "/v25.0/106/messages/x", Called::Other);
        check(Method::POST, "/vx/106/messages", Called::Other);
        check(
            Method::POST,
            "/106/marketing_messages",
            Called::MarketingMessages,
        );
    }

    #[test]
    fn what_leads_meta_elsewhere_is_found() {
        for target in [
            "/v25.0/7/subscriptions",
            "/7/subscriptions",
            "/app/subscriptions",
        ] {
            check(Method::POST, target, Called::Subscriptions);
            check(Method::DELETE, target, Called::Subscriptions);
            check(Method::GET, target, Called::Other);
        }
        check(Method::POST, "/v25.0/7/subscribed_apps", Called::Subscribe);
        check(
            Method::DELETE,
            "/v25.0/7/subscribed_apps",
            Called::Unsubscribe,
        );
        check(
            Method::POST,
            "/7/subscribed_apps?method=delete",
            Called::Unsubscribe,
        );
        check(Method::POST, "/v25.0/106", Called::Settings);
        check(Method::GET, "/v25.0/106", Called::Other);
    }

    #[test]
    fn several_calls_in_one_are_found() {
        for target in ["/", "/v25.0", "/v25.0/", "/?batch=[]"] {
            check(Method::POST, target, Called::Batch);
        }
        check(Method::GET, "/?batch=%5B%5D", Called::Batch);
        check(Method::GET, "/?method=post", Called::Batch);
        check(Method::GET, "/v25.0/", Called::Other);
    }

    #[test]
    fn all_else_is_something_else() {
        check(Method::POST, "/v25.0/106/media", Called::Other);
        check(Method::POST, "/v25.0/7/message_templates", Called::Other);
        check(Method::DELETE, "/v25.0/999", Called::Other);
        check(Method::POST, "/v25.0/106/%zz%F", Called::Other);
    }
}
