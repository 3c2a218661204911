//! Any header, secret and body: accepted is what was signed, and nothing else.

#![no_main]

use hapax::model::Secret;
use hapax::whatsapp::AppSecrets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|parts: (&str, &str, &str, &[u8])| {
    let (header, current, previous, body) = parts;
    let [current, previous] = [current, previous].map(Secret::new);
    let secrets = AppSecrets::new(current.clone(), Some(previous.clone()));
    let mut is_right = false;
    for secret in [&current, &previous] {
        let signed = AppSecrets::sign(secret, body);
        let is_empty = secret.expose().is_empty();
        assert_eq!(
            secrets.verify(Some(&signed), body),
            !is_empty || both_sign(&current, &previous, &signed, body)
        );
        is_right |= !is_empty && is_same(header, &signed);
    }
    assert_eq!(secrets.verify(Some(header), body), is_right);
    assert!(!secrets.verify(None, body));
});

/// Whether one of the secrets that count makes this signature: to HMAC, NUL is as good as nothing.
fn both_sign(current: &Secret, previous: &Secret, signed: &str, body: &[u8]) -> bool {
    let mut secrets = [current, previous].into_iter();
    secrets.any(|secret| !secret.expose().is_empty() && AppSecrets::sign(secret, body) == signed)
}

/// The case of the digits says nothing, that of the prefix does.
fn is_same(header: &str, signed: &str) -> bool {
    header.starts_with("sha256=") && header.eq_ignore_ascii_case(signed)
}
