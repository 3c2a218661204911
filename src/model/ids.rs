//! Typed identifiers. Each prints with a prefix that names its kind, so that a number in a log
//! or a header can never be taken for another kind of number.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// A text that is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an id of the form {expected}, found {found:?}")]
pub struct IdError {
    /// The form that was expected, for example `cv_<number>`.
    pub expected: &'static str,
    /// What stood there instead.
    pub found: String,
}

macro_rules! numbered_id {
    ($(#[$meta:meta])* $name:ident, $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(|digits| digits.parse().ok())
                    .map(Self)
                    .ok_or_else(|| IdError {
                        expected: concat!($prefix, "_<number>"),
                        found: text.to_owned(),
                    })
            }
        }
    };
}

numbered_id!(
    /// A conversation: the ordered messages between one number and one contact.
    ConversationId,
    "cv"
);
numbered_id!(
    /// A contact: the person, whatever phone number or user id they write from.
    ContactId,
    "ct"
);
numbered_id!(
    /// A row of the outbox: one message to send.
    OutgoingId,
    "out"
);
numbered_id!(
    /// A message that a bot has asked to send by itself.
    BotSendId,
    "bs"
);
numbered_id!(
    /// One incarnation of one running process. A restarted process gets a new one; they only grow.
    NodeId,
    "node"
);
numbered_id!(
    /// One delivery (one POST) that a node received: the node's id and a count.
    DeliveryId,
    "dl"
);

impl DeliveryId {
    const COUNT_BITS: u32 = 40;

    /// The `count`-th delivery that `node` received. Unique in a store because node ids are.
    pub const fn new(node: NodeId, count: i64) -> Self {
        Self((node.0 << Self::COUNT_BITS) | count)
    }

    /// The node that received it.
    pub const fn node(self) -> NodeId {
        NodeId(self.0 >> Self::COUNT_BITS)
    }
}

macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the identifier as it stands; it is opaque.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
    };
}

text_id!(
    /// Meta's `phone_number_id` of one of our business numbers. Not a phone number.
    NumberId
);
text_id!(
    /// Meta's id of one WhatsApp message. Opaque and case-sensitive. It contains the person's
    /// phone number, so it never prints by accident: `Debug` shows no content.
    Wamid
);

impl fmt::Display for NumberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NumberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Wamid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wamid(…)")
    }
}

/// The identity of an event, equal across redeliveries: the first 128 bits of SHA-256 over
/// length-prefixed parts. Never derived from a body, a text, a timestamp or pricing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey(pub [u8; 16]);

impl EventKey {
    /// Derives a key from its parts. Each part is preceded by its length in bytes (64-bit,
    /// little-endian), so that no two lists of parts run together into the same input.
    ///
    /// Frozen: a changed derivation would make every redelivered event look new.
    pub fn derive(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One run of the handler, named by the conversation and the first message it consumes. The
/// same over all attempts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TurnId {
    /// The conversation whose messages the turn consumes.
    pub conversation: ConversationId,
    /// The `seq` of the first of them.
    pub seq: i64,
}

impl fmt::Display for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "turn_{}_{}", self.conversation.0, self.seq)
    }
}

impl fmt::Debug for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Random name of one store, given at its creation. Part of every [`Tag`], so that a receipt of
/// another installation on the same number is never taken for one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreId(pub u32);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// What we write into Meta's `biz_opaque_callback_data`: it comes back in every receipt and
/// tells which attempt of which outgoing it speaks of, even when the answer to the send was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// The store that owns the outgoing.
    pub store: StoreId,
    /// The outgoing that was sent.
    pub outgoing: OutgoingId,
    /// The attempt that sent it, from 1.
    pub attempt: u32,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "hapax:{}:{}:{}",
            self.store, self.outgoing.0, self.attempt
        )
    }
}

impl Tag {
    /// Reads a tag back; `None` when the text is not one of ours, down to the last sign.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("hapax:")?.split(':');
        let store = StoreId(u32::from_str_radix(parts.next()?, 16).ok()?);
        let outgoing = OutgoingId(parts.next()?.parse().ok()?);
        let attempt = parts.next()?.parse().ok()?;
        let tag = Self {
            store,
            outgoing,
            attempt,
        };
        // Numbers can be written in more than one way, and we write them in one.
        (tag.to_string() == text).then_some(tag)
    }
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_as_it_went() {
        let tag = Tag {
            store: StoreId(0xab),
            outgoing: OutgoingId(77),
            attempt: 2,
        };
        assert_eq!(tag.to_string(), "hapax:000000ab:77:2");
        assert_eq!(Tag::parse(&tag.to_string()), Some(tag));
        for foreign in [
            "",
            "hapax:",
            "hapax:1:2",
            "hapax:1:2:3:4",
            "order-17",
            "hapax:zz:1:1",
            "hapax:AB:77:2",
            "hapax:000000ab:077:+2",
        ] {
            assert_eq!(Tag::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn parts_of_a_key_do_not_run_together() {
        assert_ne!(
            EventKey::derive(&[b"ab", b"c"]),
            EventKey::derive(&[b"a", b"bc"])
        );
        assert_ne!(EventKey::derive(&[b"a", b""]), EventKey::derive(&[b"a"]));
    }

    #[test]
    fn the_derivation_of_keys_is_frozen() {
        let key = EventKey::derive(&[b"106540352242922", b"message", b"wamid.A"]);
        assert_eq!(key.to_string(), "9338d20a76151668bd9e76b0fff0c589");
    }

    #[test]
    fn ids_print_their_kind_and_parse_back() {
        assert_eq!("cv_7".parse(), Ok(ConversationId(7)));
        assert_eq!(ConversationId(7).to_string(), "cv_7");
        assert!("ct_7".parse::<ConversationId>().is_err());
    }
}
