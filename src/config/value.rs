//! From the text of one setting to its value. Each parser says what it expected, and never
//! repeats what it was given: that may be a secret.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;

use crate::model::NumberId;

/// What a parser would have taken.
pub(super) type Expected = Cow<'static, str>;

/// The longest duration that can be set: far beyond any use, far below any overflow.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// A duration with its unit, more than zero and at most a year.
pub(super) fn duration(text: &str) -> Result<Duration, Expected> {
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| !duration.is_zero() && *duration <= DURATION_MAX)
        .ok_or("a duration of more than 0 with its unit, for example \"60s\" or \"24h\"".into())
}

/// A whole number from 1 to `max`.
fn number(text: &str, max: u32) -> Result<u32, Expected> {
    text.parse()
        .ok()
        .filter(|number| (1..=max).contains(number))
        .ok_or_else(|| format!("a whole number from 1 to {max}").into())
}

/// So many of something may be held or run at once, at most.
pub(super) const COUNT_MAX: u32 = 1_000_000;

/// How many of something may be held or run at once.
pub(super) fn count(text: &str) -> Result<usize, Expected> {
    let count = number(text, COUNT_MAX)?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// How many connections are shared: one alone would let a slow transaction hold up all others.
pub(super) fn connections(text: &str) -> Result<usize, Expected> {
    let count = text.parse().ok().filter(|count| (2..=256).contains(count));
    count.ok_or("a whole number from 2 to 256".into())
}

/// The longest name of a schema: the names of things in it begin with it, and PostgreSQL cuts
/// names after 63 bytes.
const SCHEMA_CHARS_MAX: usize = 48;

/// The name of a schema that needs no quotes and is not one of the server's own.
pub(super) fn schema(text: &str) -> Result<String, Expected> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_name = (1..=SCHEMA_CHARS_MAX).contains(&text.len()) && text.bytes().all(fits);
    let begins_right = !text.starts_with(|first: char| first.is_ascii_digit());
    let is_the_servers = text.starts_with("pg_") || text == "information_schema";
    if is_name && begins_right && !is_the_servers {
        Ok(text.to_owned())
    } else {
        Err("1 to 48 of a-z, 0-9 and _, no digit first, and not one of PostgreSQL's own".into())
    }
}

/// How often something is done.
pub(super) fn times(text: &str) -> Result<u32, Expected> {
    number(text, 10_000)
}

/// The units of a size: decimal ones as on a disk's label, and binary ones.
const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A size with its unit: `"3.5MB"` is 3,500,000 bytes, `"64MiB"` is 64 times 1,048,576.
pub(super) fn size(text: &str) -> Result<u64, Expected> {
    size_in_bytes(text)
        .filter(|size| *size > 0)
        .ok_or("a size with its unit, for example \"3.5MB\" or \"64MiB\"".into())
}

fn size_in_bytes(text: &str) -> Option<u64> {
    let (number, unit) = UNITS.iter().find_map(|(unit, bytes)| {
        let at = text.len().checked_sub(unit.len())?;
        let fits = text.get(at..)?.eq_ignore_ascii_case(unit);
        fits.then(|| (text[..at].trim_end(), *bytes))
    })?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
    let part = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u64>().ok()?.checked_mul(unit)? / scale
    };
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(unit)?
        .checked_add(part)
}

/// A size as [`size`] reads it back.
pub(super) fn size_text(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes >= MIB && bytes.is_multiple_of(MIB) {
        return format!("{}MiB", bytes / MIB);
    }
    for (unit, scale) in [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)] {
        let (whole, rest) = (bytes / scale, bytes % scale);
        if whole > 0 && rest.is_multiple_of(scale / 1_000) {
            let decimals = format!("{:03}", rest / (scale / 1_000));
            let decimals = decimals.trim_end_matches('0');
            let point = if decimals.is_empty() { "" } else { "." };
            return format!("{whole}{point}{decimals}{unit}");
        }
    }
    format!("{bytes}B")
}

/// An IP address and a port.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Expected> {
    text.parse()
        .map_err(|_| "an IP address and a port, for example \"127.0.0.1:8080\"".into())
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Result<bool, Expected> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false".into()),
    }
}

/// One of several words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Expected> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        words.join(" or ").into()
    })
}

/// Any text.
pub(super) fn any(text: &str) -> Result<String, Expected> {
    Ok(text.to_owned())
}

/// What can stand in an HTTP header: visible ASCII without spaces.
pub(super) fn header_text(text: &str) -> Result<String, Expected> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("letters, digits and signs of ASCII only, without spaces or line breaks".into())
    }
}

/// A secret of the Standard Webhooks convention, or plain text.
pub(super) fn signing_secret(text: &str) -> Result<String, Expected> {
    let key = text.strip_prefix("whsec_").map(|key| {
        let engine = base64::engine::general_purpose::STANDARD;
        engine.decode(key).is_ok_and(|key| !key.is_empty())
    });
    if key == Some(false) {
        return Err("base64 after \"whsec_\", or a plain text without that prefix".into());
    }
    Ok(text.to_owned())
}

/// An http or https URL. User name and password are refused: they would end up in logs.
pub(super) fn url(text: &str) -> Result<http::Uri, Expected> {
    text.parse::<http::Uri>()
        .ok()
        .filter(|url| matches!(url.scheme_str(), Some("http" | "https")))
        .filter(|url| {
            url.authority()
                .is_some_and(|host| !host.host().is_empty() && !host.as_str().contains('@'))
        })
        .ok_or("an http:// or https:// URL with a host and without user name or password".into())
}

/// One or several URLs, separated by commas.
pub(super) fn urls(text: &str) -> Result<Vec<String>, Expected> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let mut urls = Vec::new();
    for part in parts {
        url(part).map_err(|_| {
            Expected::from(
                "one or several http:// or https:// URLs, separated by commas, \
                 without user name or password",
            )
        })?;
        if !urls.iter().any(|known| known == part) {
            urls.push(part.to_owned());
        }
    }
    if urls.is_empty() {
        return Err("at least one http:// or https:// URL".into());
    }
    Ok(urls)
}

/// One URL for each of some numbers: `NUMBER=URL`, separated by commas.
pub(super) fn number_urls(text: &str) -> Result<Vec<(NumberId, String)>, Expected> {
    let expected = || {
        Expected::from(
            "PHONE_NUMBER_ID=URL, one for each of some numbers, separated by commas, with http:// \
             or https:// URLs without user name or password",
        )
    };
    let parts = text.split(',').map(str::trim);
    let mut of_numbers: Vec<(NumberId, String)> = Vec::new();
    for part in parts.filter(|part| !part.is_empty()) {
        let (number, address) = part.split_once('=').ok_or_else(expected)?;
        let is_id = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if !is_id || url(address).is_err() {
            return Err(expected());
        }
        if of_numbers.iter().any(|(known, _)| known.as_str() == number) {
            return Err("each number once".into());
        }
        of_numbers.push((NumberId::new(number), address.to_owned()));
    }
    if of_numbers.is_empty() {
        return Err(expected());
    }
    Ok(of_numbers)
}

/// The https address under which Meta reaches the public listener.
pub(super) fn public_url(text: &str) -> Result<String, Expected> {
    let url = url(text)
        .ok()
        .filter(|url| url.scheme_str() == Some("https") && url.query().is_none());
    if url.is_none() {
        return Err("an https:// URL, since Meta calls no other".into());
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
    let rest = rest.trim_end_matches('/');
    let rest = rest.strip_suffix(WEBHOOK).unwrap_or(rest);
    Ok(format!("{scheme}://{}", rest.trim_end_matches('/')))
}

/// What Meta's page asks for behind [`public_url`], and people may write with it.
const WEBHOOK: &str = "/webhook";

/// An address as [`public_url`] reads it back.
pub(super) fn public_url_text(base: &str) -> String {
    let is_cut = base.ends_with(WEBHOOK);
    format!("{base}{}", if is_cut { WEBHOOK } else { "" })
}

/// The base of the Graph API.
pub(super) fn api_url(text: &str) -> Result<String, Expected> {
    let url = url(text)?;
    let base = text.trim_end_matches('/');
    let last = base.rsplit('/').next().unwrap_or(base);
    let is_version = last.strip_prefix('v').is_some_and(|rest| {
        rest.starts_with(|first: char| first.is_ascii_digit())
            && rest.chars().all(|c| c.is_ascii_digit() || c == '.')
    });
    if is_version || url.query().is_some() {
        return Err("a base URL without the version, which is a setting of its own".into());
    }
    Ok(base.to_owned())
}

/// A version of the Graph API.
pub(super) fn api_version(text: &str) -> Result<String, Expected> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.strip_prefix('v')
        .and_then(|rest| rest.split_once('.'))
        .filter(|(major, minor)| digits(major) && digits(minor))
        .map(|_| text.to_owned())
        .ok_or("a version such as \"v25.0\"".into())
}

/// Meta's id of a business number.
pub(super) fn number_id(text: &str) -> Result<String, Expected> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("digits only: the \"Phone number ID\" of Meta's page, not the phone number".into())
    }
}

/// A level, or directives of `EnvFilter`. A single word is a level: `EnvFilter` itself would take
/// a misspelt one for the name of a module and say nothing more.
pub(super) fn log_level(text: &str) -> Result<String, Expected> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let fits = if is_word {
        LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
    } else {
        // `EnvFilter` panics at some texts that are not ASCII, and no module is named so.
        text.is_ascii() && tracing_subscriber::EnvFilter::try_new(text).is_ok()
    };
    fits.then(|| text.to_owned()).ok_or(
        "off, error, warn, info, debug or trace, or directives such as \"warn,hapax=debug\"".into(),
    )
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact_and_read_back() {
        let cases = [
            ("3.5MB", 3_500_000),
            ("256MB", 256_000_000),
            ("64 MiB", 67_108_864),
            ("0.5kB", 500),
            ("1gb", 1_000_000_000),
            ("7B", 7),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size(&size_text(bytes)), Ok(bytes), "{text}");
        }
        assert_eq!(size_text(3_500_000), "3.5MB");
        assert_eq!(size_text(67_108_864), "64MiB");
        assert_eq!(size_text(64_000_000), "64MB");
        for wrong in [
            "",
            "B",
            "MB",
            "3",
            "3.5",
            "-1MB",
            "0MB",
            ".5MB",
            "1e3MB",
            "3,5MB",
            "+3MB",
            "99999999999999GB",
            "é",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_a_limit() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for wrong in ["60", "0s", "-1s", "soon", "1000years"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_have_limits() {
        assert_eq!(count("4096"), Ok(4096));
        assert_eq!(times("80"), Ok(80));
        for wrong in ["0", "-1", "1.5", "many", "99999999999"] {
            assert!(count(wrong).is_err() && times(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn connections_are_shared_by_two_at_least() {
        assert_eq!(connections("2"), Ok(2));
        assert_eq!(connections("256"), Ok(256));
        for wrong in ["", "0", "1", "257", "-2", "8.0"] {
            assert!(connections(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn schemas_need_no_quotes() {
        let longest = "a".repeat(48);
        for right in ["hapax", "public", "_", "a1_b", "pg", "pgx", &longest] {
            assert_eq!(schema(right), Ok(right.to_owned()), "{right}");
        }
        let too_long = "a".repeat(49);
        let wrong = [
            "",
            "1a",
            "Hapax",
            "a-b",
            "a b",
            "a\"b",
            "a;b",
            "é",
            "pg_temp",
            "pg_",
            "information_schema",
            &too_long,
        ];
        for wrong in wrong {
            assert!(schema(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_are_http_and_hold_no_password() {
        let two = urls("http://a:5000/x, https://b/y,http://a:5000/x,").expect("two URLs");
        assert_eq!(two, ["http://a:5000/x", "https://b/y"]);
        for wrong in [
            "",
            ",",
            "ftp://a",
            "a:5000",
            "/x",
            "http://u:p@a/",
            "http://",
            "http:///x",
        ] {
            assert!(urls(wrong).is_err(), "{wrong}");
        }
        assert_eq!(public_url("https://b/webhook/"), Ok("https://b".into()));
        assert_eq!(public_url("https://b/x/"), Ok("https://b/x".into()));
        assert_eq!(public_url("https://webhook"), Ok("https://webhook".into()));
        let twice = public_url("https://b/webhook/webhook").expect("right");
        assert_eq!(twice, "https://b/webhook");
        assert_eq!(public_url(&public_url_text(&twice)), Ok(twice));
        assert!(public_url("http://b").is_err());
    }

    #[test]
    fn the_api_url_has_no_version_and_the_version_no_other_form() {
        assert_eq!(
            api_url("https://g.example/"),
            Ok("https://g.example".into())
        );
        assert_eq!(
            api_url("http://g.example/vendor"),
            Ok("http://g.example/vendor".into())
        );
        assert!(api_url("https://g.example/v25.0").is_err());
        assert!(api_url("https://g.example/v25/").is_err());
        assert_eq!(api_version("v25.0"), Ok("v25.0".into()));
        for wrong in ["25.0", "v25", "v25.", "v.0", "v25.0/", "1.2.3"] {
            assert!(api_version(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_module() {
        for right in [
            "info",
            "DEBUG",
            "warn,hapax=debug",
            "hapax::store=trace",
            "off",
        ] {
            assert!(log_level(right).is_ok(), "{right}");
        }
        for wrong in ["inof", "hapax=loud", "verbose", " ᴀ=", "é"] {
            assert!(log_level(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_have_the_form_that_their_use_needs() {
        assert!(signing_secret("whsec_c2VjcmV0").is_ok());
        assert!(signing_secret("plain").is_ok());
        assert!(signing_secret("whsec_").is_err());
        assert!(signing_secret("whsec_?").is_err());
        assert!(header_text("EAAG-x").is_ok());
        assert!(header_text("two words").is_err());
        assert!(header_text("line\nbreak").is_err());
        assert!(number_id("106540352242922").is_ok());
        assert!(number_id("+49 151").is_err());
    }
}
