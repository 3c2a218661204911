//! The signature that shows a delivery to be Meta's: HMAC-SHA256 over the raw bytes.
//!
//! Only the bytes as they came are ever hashed; JSON that was read and written again is not what
//! Meta signed.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::model::Secret;

/// The header that carries the signature.
pub const HEADER: &str = "x-hub-signature-256";

const PREFIX: &str = "sha256=";
const DIGEST_BYTES: usize = 32;

/// The app secrets under which a delivery is accepted: the current one, and while it is being
/// rotated the previous one. One secret belongs to one Meta app, not to one number.
#[derive(Debug, Clone)]
pub struct AppSecrets {
    current: Secret,
    previous: Option<Secret>,
}

impl AppSecrets {
    /// Accepts what is signed with either secret. An empty secret accepts nothing, since anyone
    /// can sign with it.
    pub const fn new(current: Secret, previous: Option<Secret>) -> Self {
        Self { current, previous }
    }

    /// Whether `header` (the value of `X-Hub-Signature-256`) signs exactly these bytes. Takes the
    /// same time wherever a wrong signature differs.
    ///
    /// Source: Meta, *Webhooks: validating payloads*.
    pub fn verify(&self, header: Option<&str>, body: &[u8]) -> bool {
        let Some(claimed) = header.and_then(read_header) else {
            return false;
        };
        std::iter::once(&self.current)
            .chain(&self.previous)
            .filter(|secret| !secret.expose().is_empty())
            .any(|secret| digest(secret, body).ct_eq(&claimed).into())
    }

    /// The header value that Meta would send for this body: how a body is signed that goes on
    /// to a bot which checks signatures.
    pub fn sign(secret: &Secret, body: &[u8]) -> String {
        format!("{PREFIX}{}", hex::encode(digest(secret, body)))
    }
}

fn read_header(header: &str) -> Option<[u8; DIGEST_BYTES]> {
    let mut claimed = [0; DIGEST_BYTES];
    hex::decode_to_slice(header.strip_prefix(PREFIX)?, &mut claimed).ok()?;
    Some(claimed)
}

fn digest(secret: &Secret, body: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"object":"whatsapp_business_account","entry":[]}"#;
    const SIGNED: &str = "sha256=dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756";

    fn secrets() -> AppSecrets {
        AppSecrets::new(Secret::new("test_app_secret"), None)
    }

    #[test]
    fn the_known_vector_is_made_and_accepted() {
        assert_eq!(
            AppSecrets::sign(&Secret::new("test_app_secret"), BODY),
            SIGNED
        );
        assert!(secrets().verify(Some(SIGNED), BODY));
        let upper = SIGNED.to_uppercase().replace("SHA256", "sha256");
        assert!(secrets().verify(Some(&upper), BODY));
    }

    #[test]
    fn nothing_else_is_accepted() {
        let other_bytes = br#"{"object": "whatsapp_business_account","entry":[]}"#;
        assert!(!secrets().verify(Some(SIGNED), other_bytes));
        let bare = SIGNED.trim_start_matches("sha256=");
        let sha1 = format!("sha1={bare}");
        let long = format!("{SIGNED}00");
        let blank = format!(" {SIGNED}");
        let wrong = SIGNED.replace("dec6", "dec7");
        for header in [
            "",
            "sha256=",
            bare,
            &sha1,
            &long,
            &blank,
            &wrong,
            "sha256=zz",
        ] {
            assert!(!secrets().verify(Some(header), BODY), "{header}");
        }
        assert!(!secrets().verify(None, BODY));
    }

    #[test]
    fn both_secrets_hold_while_they_are_rotated() {
        let new = Secret::new("new");
        let rotated = AppSecrets::new(new.clone(), Some(Secret::new("test_app_secret")));
        assert!(rotated.verify(Some(SIGNED), BODY));
        assert!(rotated.verify(Some(&AppSecrets::sign(&new, BODY)), BODY));
        assert!(!AppSecrets::new(new, None).verify(Some(SIGNED), BODY));
    }

    #[test]
    fn an_empty_secret_accepts_nothing() {
        let empty = Secret::new("");
        let header = AppSecrets::sign(&empty, BODY);
        let secrets = AppSecrets::new(Secret::new("x"), Some(empty.clone()));
        assert!(!secrets.verify(Some(&header), BODY));
        assert!(!AppSecrets::new(empty, None).verify(Some(&header), BODY));
    }
}
