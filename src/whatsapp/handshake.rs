//! Meta's check of a callback URL: a GET that we answer with the challenge it carries, if it
//! knows our verify token.
//!
//! It says nothing of the deliveries that follow; those are signed.

use std::fmt;

use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::model::Secret;

/// The query of Meta's GET. What is missing is simply not there; it is no error.
#[derive(Clone, Default, Deserialize)]
pub struct Handshake {
    /// `subscribe`.
    #[serde(rename = "hub.mode", default)]
    pub mode: Option<String>,
    /// The verify token as it was entered in Meta's dashboard.
    #[serde(rename = "hub.verify_token", default)]
    pub verify_token: Option<String>,
    /// To be sent back as the whole body.
    #[serde(rename = "hub.challenge", default)]
    pub challenge: Option<String>,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handshake(…)")
    }
}

/// The verify tokens we answer to: the current one, and while it is being rotated the previous.
#[derive(Debug, Clone)]
pub struct VerifyTokens {
    current: Secret,
    previous: Option<Secret>,
}

impl VerifyTokens {
    /// Answers to either token. An empty token answers to nothing.
    pub const fn new(current: Secret, previous: Option<Secret>) -> Self {
        Self { current, previous }
    }

    /// The challenge to answer with (status 200, as the raw body); `None`: refuse (403).
    ///
    /// Source: Meta, *Create a webhook endpoint: verification requests*.
    pub fn answer<'a>(&self, query: &'a Handshake) -> Option<&'a str> {
        let token = query.verify_token.as_deref()?;
        let known = std::iter::once(&self.current)
            .chain(&self.previous)
            .map(Secret::expose)
            .any(|ours| !ours.is_empty() && ours.as_bytes().ct_eq(token.as_bytes()).into());
        let subscribes = query.mode.as_deref() == Some("subscribe");
        query.challenge.as_deref().filter(|_| known && subscribes)
    }
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    use super::*;

    fn query(mode: &str, token: &str) -> Handshake {
        Handshake {
            mode: Some(mode.to_owned()),
            verify_token: Some(token.to_owned()),
            challenge: Some("1158201444".to_owned()),
        }
    }

    #[test]
    fn either_token_is_answered_with_the_challenge() {
        let tokens = VerifyTokens::new(Secret::new("new"), Some(Secret::new("old")));
        for token in ["new", "old"] {
            assert_eq!(
                tokens.answer(&query("subscribe", token)),
                Some("1158201444")
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let tokens = VerifyTokens::new(Secret::new("new"), Some(Secret::new("")));
        let silent = Handshake {
            challenge: None,
            ..query("subscribe", "new")
        };
        let nameless = Handshake {
            verify_token: None,
            ..query("subscribe", "new")
        };
        for refused in [
            query("subscribe", "old"),
            query("subscribe", "ne"),
            query("subscribe", ""),
            query("unsubscribe", "new"),
            silent,
            nameless,
            Handshake::default(),
        ] {
            assert_eq!(tokens.answer(&refused), None);
        }
    }
}
