//! Signs a question by the Standard Webhooks convention (standard-webhooks/standard-webhooks,
//! spec version 1.0.0), symmetric scheme `v1`, so that bots can check it with a stock library.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use crate::handler::SettingsError;
use crate::handler::call::headers::value;
use crate::model::{Secret, Timestamp};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// A key, ready to sign.
#[derive(Clone)]
pub(super) struct Signer(Hmac<Sha256>);

impl Signer {
    /// `whsec_` and base64 is the convention's form of a key; any other text is one as it stands.
    pub(super) fn new(secret: &Secret) -> Result<Self, SettingsError> {
        let fault = |found| SettingsError::Secret { found };
        let text = secret.expose();
        let key = match text.strip_prefix("whsec_") {
            Some(encoded) => STANDARD
                .decode(encoded)
                .map_err(|_| fault("no base64 after whsec_"))?,
            None => text.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err(fault("nothing"));
        }
        Ok(Self(
            Hmac::new_from_slice(&key).expect("HMAC takes a key of any length"),
        ))
    }

    /// Adds the three headers. `id` is the same over all attempts; `at` is this attempt's time,
    /// because receivers refuse what is some minutes old.
    pub(super) fn sign(
        &self,
        headers: &mut HeaderMap,
        id: impl std::fmt::Display,
        at: Timestamp,
        body: &[u8],
    ) {
        let seconds = at.as_seconds();
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let signature = HeaderValue::try_from(format!("v1,{signature}"));
        headers.insert(ID, value(id));
        headers.insert(TIMESTAMP, HeaderValue::from(seconds));
        headers.insert(SIGNATURE, signature.expect("base64 is ASCII"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(secret: &str) -> HeaderMap {
        let signer = Signer::new(&Secret::new(secret)).expect("is a key");
        let mut headers = HeaderMap::new();
        let at = Timestamp(1_614_265_330_999);
        let body = br#"{"test": 2432232314}"#;
        signer.sign(&mut headers, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, body);
        headers
    }

    /// The example that the libraries of the convention test themselves with.
    #[test]
    fn the_example_of_the_convention_comes_out() {
        let headers = signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(headers[ID], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers[TIMESTAMP], "1614265330");
        assert_eq!(
            headers[SIGNATURE],
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_without_the_prefix_is_taken_as_it_stands() {
        assert_ne!(
            signed("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")[SIGNATURE],
            signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")[SIGNATURE]
        );
    }

    #[test]
    fn a_secret_that_is_no_key_is_refused_without_being_shown() {
        for wrong in ["", "whsec_", "whsec_???"] {
            let error = Signer::new(&Secret::new(wrong)).err().expect("is no key");
            assert!(!error.to_string().contains("???"), "{error}");
        }
    }
}
