//! What the parsers of single values promise: whatever the text, a value or what was expected;
//! and what is written of a value is read as the same.

use proptest::prelude::*;

use super::*;
use crate::model::property;

type Forms = [fn(&str) -> Option<String>; 8];

/// Parsers of values that are kept as text, each with what it keeps.
const KEPT: Forms = [
    |text| api_url(text).ok(),
    |text| api_version(text).ok(),
    |text| number_id(text).ok(),
    |text| log_level(text).ok(),
    |text| schema(text).ok(),
    |text| header_text(text).ok(),
    |text| signing_secret(text).ok(),
    |text| urls(text).ok().map(|urls| urls.join(",")),
];

/// Texts near those that are right.
fn near() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "https://",
        "http://",
        "webhook",
        "/",
        "//",
        "/webhook",
        "v25.0",
        "v1",
        "b",
        "[::1]",
        ":",
        "?",
        "#",
        "@",
        ",",
        " ",
        ".",
        "1",
        "KiB",
        "kB",
        "B",
        "s",
        "min",
        "whsec_",
        "c2Vj",
        "=",
        "info",
        "hapax",
        "[",
        "]",
        "{",
        "}",
        "é",
        "\u{7f}",
        "\0",
        "99999999999",
        "-",
        "+",
        "%",
    ]);
    let url = prop::sample::select(vec![
        "webhook",
        "/webhook",
        "/",
        "b",
        "v25.0",
        "/v1",
        ":1",
        "?x",
        "#x",
        ",",
        "https://b",
    ]);
    let url = ("https?://", prop::collection::vec(url, 1..4));
    prop_oneof![
        3 => url.prop_map(|(scheme, pieces)| format!("{scheme}{}", pieces.concat())),
        3 => prop::collection::vec(piece, 0..7).prop_map(|pieces| pieces.concat()),
        1 => "\\PC{0,20}",
    ]
}

proptest! {
    #![proptest_config(property::cases(768))]

    #[test]
    fn what_is_kept_is_kept_as_it_is(text in near()) {
        for kept in KEPT {
            let Some(once) = kept(&text) else { continue };
            prop_assert_eq!(kept(&once), Some(once), "of {:?}", text);
        }
        if let Ok(base) = public_url(&text) {
            prop_assert_eq!(public_url(&public_url_text(&base)), Ok(base), "of {:?}", text);
        }
        let _ = (count(&text), times(&text), connections(&text), switch(&text));
        if let Ok(listen) = listen(&text) {
            prop_assert_eq!(super::listen(&listen.to_string()), Ok(listen));
        }
    }

    #[test]
    fn a_public_url_keeps_its_host(host in "webhook|[a-z]{1,9}", path in "(/[a-z]{0,7}){0,3}") {
        let base = public_url(&format!("https://{host}{path}")).expect("it is right");
        let read = url(&base).expect("a URL");
        prop_assert_eq!(read.host(), Some(&*host), "{}", base);
    }

    #[test]
    fn every_size_is_read_back(bytes in 1..=u64::MAX, shift in 0..64_u32, text in near()) {
        for bytes in [bytes, (bytes >> shift).max(1), (bytes >> shift >> 20).max(1) << 20] {
            prop_assert_eq!(size(&size_text(bytes)), Ok(bytes));
        }
        for bytes in [(bytes >> shift) / 1_000 * 1_000, bytes % 10_000 * 100_000_000] {
            prop_assert!(bytes == 0 || size(&size_text(bytes)) == Ok(bytes), "{}", bytes);
        }
        if let Ok(bytes) = size(&text) {
            prop_assert_eq!(size(&size_text(bytes)), Ok(bytes), "{}", text);
        }
    }

    #[test]
    fn every_duration_is_read_back(
        nanos in 1..=366 * 86_400 * 1_000_000_000_u64,
        shift in 0..56_u32,
        text in near(),
    ) {
        let written = |duration| humantime::format_duration(duration).to_string();
        for one in [nanos, (nanos >> shift).max(1), nanos / 1_000_000_000 * 1_000_000_000] {
            let one = Duration::from_nanos(one.max(1));
            prop_assert_eq!(duration(&written(one)), Ok(one), "{:?}", one);
        }
        if let Ok(one) = duration(&text) {
            prop_assert!(!one.is_zero() && one <= DURATION_MAX);
            prop_assert_eq!(duration(&written(one)), Ok(one), "{}", text);
        }
    }
}
