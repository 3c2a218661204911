//! One thing that happened, as decoded from a delivery: a message, a status or a notice.

use std::fmt;

use super::ids::{EventKey, NumberId, Wamid};
use super::outgoing::{FailureClass, Recipient};
use super::time::Timestamp;

/// One event of a delivery, ready to be appended.
#[derive(Clone, PartialEq)]
pub struct Event {
    /// Equal across redeliveries.
    pub key: EventKey,
    /// Our business number it concerns; `None` for account-wide notices.
    pub number: Option<NumberId>,
    /// What happened.
    pub body: EventBody,
    /// A whole webhook body in Meta's shape that holds this one event, where the bot is to get it:
    /// never for a message, which has its own.
    pub relay: Option<String>,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("key", &self.key)
            .field("number", &self.number)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// The three kinds of event.
#[derive(Debug, Clone, PartialEq)]
pub enum EventBody {
    /// A contact wrote to us.
    Message(InboundMessage),
    /// Something became of a message that we sent.
    Status(Receipt),
    /// Anything else: kept, never answered.
    Notice(Notice),
}

/// The kind of an event. The numbers are the ledger's and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// See [`EventBody::Message`].
    Message = 1,
    /// See [`EventBody::Status`].
    Status = 2,
    /// See [`EventBody::Notice`].
    Notice = 3,
}

impl Event {
    /// Which of the three kinds this is.
    pub const fn kind(&self) -> EventKind {
        match self.body {
            EventBody::Message(_) => EventKind::Message,
            EventBody::Status(_) => EventKind::Status,
            EventBody::Notice(_) => EventKind::Notice,
        }
    }
}

impl EventKind {
    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Status => "status",
            Self::Notice => "notice",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is appended of a message. What it says is read from the envelope when it is handled, so
/// that a type we do not know yet loses nothing on the way.
#[derive(Clone, PartialEq)]
pub struct InboundMessage {
    /// Meta's id of the message.
    pub wamid: Wamid,
    /// Meta's `type`, or `unknown` where the element has none or is malformed.
    pub kind: String,
    /// Who wrote it.
    pub sender: Aliases,
    /// When Meta says it was written.
    pub sent_at: Option<Timestamp>,
    /// A whole webhook body in Meta's shape that holds this one message and its contact.
    pub envelope: String,
}

impl fmt::Debug for InboundMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundMessage")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The ways in which a payload names a person. At least one is present in a decoded message.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Aliases {
    /// Business-scoped user id, for example `US.13491208655302741918`.
    pub bsuid: Option<String>,
    /// Parent business-scoped user id, shared by the portfolios of one enterprise.
    pub parent: Option<String>,
    /// Phone number: digits with country code, without `+`.
    pub phone: Option<String>,
    /// Group id: where set, the conversation is with the group, not with the person.
    pub group: Option<String>,
}

impl Aliases {
    /// Whether nothing names the person.
    pub const fn is_empty(&self) -> bool {
        self.bsuid.is_none()
            && self.parent.is_none()
            && self.phone.is_none()
            && self.group.is_none()
    }

    /// Where an answer goes: the way in which the person wrote last. An older phone number is
    /// not used once the person writes without one, since numbers are recycled.
    pub fn recipient(&self) -> Option<Recipient> {
        let Self {
            bsuid,
            parent,
            phone,
            group,
        } = self;
        group
            .as_ref()
            .map(|id| Recipient::Group(id.clone()))
            .or_else(|| phone.as_ref().map(|phone| Recipient::Phone(phone.clone())))
            .or_else(|| {
                bsuid
                    .as_ref()
                    .or(parent.as_ref())
                    .map(|id| Recipient::Bsuid(id.clone()))
            })
    }

    /// Every alias with its kind, in the order in which they are looked up. A group stands alone.
    pub fn iter(&self) -> impl Iterator<Item = (AliasKind, &str)> {
        let person = [
            (AliasKind::Bsuid, self.bsuid.as_deref()),
            (AliasKind::Parent, self.parent.as_deref()),
            (AliasKind::Phone, self.phone.as_deref()),
        ];
        let group = self.group.as_deref();
        let person = person.into_iter().filter(move |_| group.is_none());
        std::iter::once((AliasKind::Group, group))
            .chain(person)
            .filter_map(|(kind, value)| value.map(|value| (kind, value)))
    }
}

impl fmt::Debug for Aliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<AliasKind> = self.iter().map(|(kind, _)| kind).collect();
        write!(f, "Aliases{kinds:?}")
    }
}

/// The kinds of alias. The numbers are the ledger's and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AliasKind {
    /// Business-scoped user id.
    Bsuid = 1,
    /// Parent business-scoped user id.
    Parent = 2,
    /// Phone number.
    Phone = 3,
    /// Group id.
    Group = 4,
}

/// What a status event says of a message we sent.
#[derive(Clone, PartialEq)]
pub struct Receipt {
    /// The message it speaks of.
    pub wamid: Wamid,
    /// What became of it.
    pub status: ReceiptStatus,
    /// The participant it concerns, in a group.
    pub participant: Option<String>,
    /// When Meta says it happened.
    pub at: Option<Timestamp>,
    /// `biz_opaque_callback_data` as it came back: our tag, or another sender's text.
    pub callback_data: Option<String>,
    /// The first error, on `failed`.
    pub failure: Option<ReceiptFailure>,
    /// The status element as it came, with pricing and whatever else it carries.
    pub raw: String,
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("status", &self.status)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

/// The status values of Meta that move a receipt, and every other one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReceiptStatus {
    /// Meta has taken it on.
    Sent,
    /// It is on the person's device.
    Delivered,
    /// The person has seen it.
    Read,
    /// The person has played our voice message.
    Played,
    /// It will not arrive.
    Failed,
    /// A value that says nothing of the message's way: payments, legacy, or one we do not know.
    Other(String),
}

impl ReceiptStatus {
    /// Reads Meta's word.
    pub fn parse(word: &str) -> Self {
        match word {
            "sent" => Self::Sent,
            "delivered" => Self::Delivered,
            "read" => Self::Read,
            "played" => Self::Played,
            "failed" => Self::Failed,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Meta's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Played => "played",
            Self::Failed => "failed",
            Self::Other(word) => word,
        }
    }
}

/// Why a receipt says `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptFailure {
    /// Meta's error code.
    pub code: i64,
    /// What that code asks us to do.
    pub class: FailureClass,
}

/// Every other kind of event: kept, never answered.
#[derive(Clone, PartialEq)]
pub struct Notice {
    /// Meta's `field`, or our word for what has none: `undecodable`, `foreign`.
    pub kind: String,
    /// The element as it came.
    pub raw: String,
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notice")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_where_the_person_wrote_from() {
        let both = Aliases {
            bsuid: Some("US.1".into()),
            phone: Some("4915".into()),
            ..Aliases::default()
        };
        assert_eq!(both.recipient(), Some(Recipient::Phone("4915".into())));
        let hidden = Aliases {
            phone: None,
            ..both.clone()
        };
        assert_eq!(hidden.recipient(), Some(Recipient::Bsuid("US.1".into())));
        let group = Aliases {
            group: Some("g1".into()),
            ..both
        };
        assert_eq!(group.recipient(), Some(Recipient::Group("g1".into())));
        assert_eq!(
            group.iter().count(),
            1,
            "a group's conversation is not its participant's"
        );
    }
}
