//! What a signature promises of any secret, any body and any header.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::model::property;

fn secret() -> impl Strategy<Value = Secret> {
    // HMAC fills short keys with NUL, so that one at the end makes no other key.
    "\\PC{1,90}".prop_map(Secret::new)
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

proptest! {
    #![proptest_config(property::cases(128))]

    #[test]
    fn what_is_signed_is_accepted(secret in secret(), body in body()) {
        let header = AppSecrets::sign(&secret, &body);
        prop_assert!(AppSecrets::new(secret, None).verify(Some(&header), &body));
    }

    #[test]
    fn both_secrets_are_accepted_and_no_third(
        secrets in [secret(), secret(), secret()],
        body in body(),
    ) {
        let [current, previous, third] = secrets;
        let is_third_other = third != current && third != previous;
        let headers = [&current, &previous, &third].map(|one| AppSecrets::sign(one, &body));
        let secrets = AppSecrets::new(current, Some(previous));
        prop_assert!(secrets.verify(Some(&headers[0]), &body));
        prop_assert!(secrets.verify(Some(&headers[1]), &body));
        prop_assert_eq!(secrets.verify(Some(&headers[2]), &body), !is_third_other);
    }

    #[test]
    fn no_bit_may_be_another(
        secret in secret(),
        body in body(),
        at in any::<Index>(),
        bit in 0..8_u8,
    ) {
        let header = AppSecrets::sign(&secret, &body);
        let secrets = AppSecrets::new(secret.clone(), None);

        let mut other = body.clone();
        if !other.is_empty() {
            other[at.index(body.len())] ^= 1 << bit;
            prop_assert!(!secrets.verify(Some(&header), &other));
        }
        other = body.clone();
        other.push(bit);
        prop_assert!(!secrets.verify(Some(&header), &other));

        let mut bytes = header.clone().into_bytes();
        let place = at.index(bytes.len());
        bytes[place] ^= 1 << bit;
        // The case of a digit says nothing.
        let is_same = bytes.starts_with(PREFIX.as_bytes())
            && bytes.eq_ignore_ascii_case(header.as_bytes());
        if let Ok(other) = String::from_utf8(bytes) {
            prop_assert_eq!(secrets.verify(Some(&other), &body), is_same, "{}", other);
        }
        prop_assert!(!secrets.verify(Some(&header[..place]), &body));

        let mut chars: Vec<char> = secret.expose().chars().collect();
        let place = at.index(chars.len());
        let flipped = char::from_u32(u32::from(chars[place]) ^ (1 << bit));
        if let Some(flipped) = flipped.filter(|flipped| *flipped != '\0') {
            chars[place] = flipped;
            let other = Secret::new(chars.into_iter().collect::<String>());
            prop_assert!(!AppSecrets::new(other, None).verify(Some(&header), &body));
        }
    }

    #[test]
    fn any_other_header_is_refused(
        secret in secret(),
        body in body(),
        header in "(sha256=)?(\\PC{0,70}|[0-9a-f]{60,68}|.{64})",
    ) {
        let is_signed = header.eq_ignore_ascii_case(&AppSecrets::sign(&secret, &body));
        let secrets = AppSecrets::new(secret, Some(Secret::new("")));
        prop_assert_eq!(secrets.verify(Some(&header), &body), is_signed);
    }
}
