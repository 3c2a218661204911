//! The life of one message to send, as a pure function over evidence.
//!
//! Evidence is never refused, whoever brings it and however late: it is merged, and only ever
//! upward. The worst that may happen is a wait; a second send without proof may not.

use std::fmt;
use std::time::Duration;

/// Where an outgoing stands. The numbers are the ledger's and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OutgoingState {
    /// Waits for its turn, its time, or its number.
    Pending = 0,
    /// A call to Meta is under way, or was when its node stopped.
    Sending = 1,
    /// The call may or may not have reached Meta.
    Unsure = 2,
    /// Meta has accepted it.
    Sent = 3,
    /// A dead letter: refused, out of attempts, or unsure for too long.
    Dead = 4,
}

impl OutgoingState {
    /// Reads the ledger's number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Pending),
            1 => Some(Self::Sending),
            2 => Some(Self::Unsure),
            3 => Some(Self::Sent),
            4 => Some(Self::Dead),
            _ => None,
        }
    }

    /// Whether later messages of the conversation must wait for this one.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Pending | Self::Sending | Self::Unsure => true,
            Self::Sent | Self::Dead => false,
        }
    }

    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Unsure => "unsure",
            Self::Sent => "sent",
            Self::Dead => "dead",
        }
    }
}

/// How far a message has come, by its receipts. Only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Rank {
    /// No receipt yet.
    None = 0,
    /// See Meta's `sent`.
    Sent = 1,
    /// See Meta's `delivered`.
    Delivered = 2,
    /// See Meta's `read`.
    Read = 3,
    /// See Meta's `played`.
    Played = 4,
}

impl Rank {
    /// Reads the ledger's number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Sent),
            2 => Some(Self::Delivered),
            3 => Some(Self::Read),
            4 => Some(Self::Played),
            _ => None,
        }
    }

    /// The word shown to operators: Meta's own, or `none`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Played => "played",
        }
    }
}

/// Who a message goes to.
#[derive(Clone, PartialEq, Eq)]
pub enum Recipient {
    /// Digits with country code, without `+`.
    Phone(String),
    /// Business-scoped user id.
    Bsuid(String),
    /// Group id.
    Group(String),
}

impl Recipient {
    /// One text for the ledger: a letter for the kind, a colon, the value.
    pub fn encode(&self) -> String {
        match self {
            Self::Phone(value) => format!("p:{value}"),
            Self::Bsuid(value) => format!("b:{value}"),
            Self::Group(value) => format!("g:{value}"),
        }
    }

    /// Reads the ledger's text.
    pub fn decode(text: &str) -> Option<Self> {
        let (kind, value) = text.split_once(':')?;
        match kind {
            "p" => Some(Self::Phone(value.to_owned())),
            "b" => Some(Self::Bsuid(value.to_owned())),
            "g" => Some(Self::Group(value.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Phone(_) => "Phone(…)",
            Self::Bsuid(_) => "Bsuid(…)",
            Self::Group(_) => "Group(…)",
        })
    }
}

/// The number of a send of one outgoing, from 1.
pub type Attempt = u32;

/// What a code of Meta's asks us to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// Too fast for this person: this conversation waits, others go on. Surely not sent.
    PairRate,
    /// Too fast for this number: everything of the number waits. Surely not sent.
    NumberRate,
    /// The number can't send at all now (token, permission, account): everything of it waits
    /// until somebody mends it. Surely not sent.
    NumberBlocked,
    /// May have been sent.
    Ambiguous,
    /// This message will never be accepted. Surely not sent.
    Refused,
}

/// What one call to Meta showed.
#[derive(Clone, PartialEq, Eq)]
pub enum SendVerdict {
    /// Accepted under this wamid.
    Accepted {
        /// Meta's id of the message.
        wamid: super::ids::Wamid,
    },
    /// Surely not sent: the connection was refused before a byte was written.
    Unreachable {
        /// Why.
        reason: String,
    },
    /// Meta said no, in words we know.
    Rejected {
        /// Meta's error code.
        code: i64,
        /// What it asks of us; never [`FailureClass::Ambiguous`].
        class: FailureClass,
        /// Meta's own advice on when to try again.
        after: Option<Duration>,
        /// What was wrong, without any personal data.
        reason: String,
    },
    /// Nobody knows: time-out, reset, 5xx, or an answer that can't be read.
    Unsure {
        /// Why.
        reason: String,
    },
}

impl fmt::Debug for SendVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { .. } => f.write_str("Accepted"),
            Self::Unreachable { reason } => write!(f, "Unreachable({reason})"),
            Self::Rejected { code, class, .. } => write!(f, "Rejected({code}, {class:?})"),
            Self::Unsure { reason } => write!(f, "Unsure({reason})"),
        }
    }
}

/// What Meta answered to a send, as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct GraphAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The body; JSON.
    pub body: String,
}

impl GraphAnswer {
    /// The longest body that is kept, in bytes.
    pub const BODY_MAX: usize = 8 * 1024;

    /// Whether Meta has accepted the message.
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

impl fmt::Debug for GraphAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GraphAnswer({}, …)", self.status)
    }
}

/// Something that shows what became of an outgoing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Meta's answer to this attempt: accepted.
    Accepted(Attempt),
    /// Meta's answer to this attempt: surely not sent, may be tried again.
    NotSent(Attempt),
    /// Meta's answer to this attempt: surely not sent, and never will be.
    Refused(Attempt),
    /// The answer to this attempt was lost, or its node died.
    Lost(Attempt),
    /// A receipt says that Meta has taken it on. `None`: the receipt named no attempt.
    SentReceipt(Option<Attempt>),
    /// A receipt says it reached the person, whichever attempt that was.
    Arrived,
    /// A receipt says it failed for good. `None`: the receipt named no attempt.
    FailedReceipt(Option<Attempt>),
    /// A receipt says it failed, and its class allows another try.
    RetryableReceipt(Option<Attempt>),
    /// No receipt came in `unsure_wait`.
    WaitOver(Attempt),
}

/// What evidence does to an outgoing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Nothing new.
    Stay,
    /// It goes to this state.
    To(OutgoingState),
}

impl OutgoingState {
    /// What `evidence` does to an outgoing that stands at this state in its `attempt`-th attempt,
    /// `failed` being the attempt that a receipt has called failed, if any.
    ///
    /// Evidence of an older attempt counts only where it proves that the message is out. That
    /// Meta had accepted an attempt is no news once a receipt has called that attempt failed, or
    /// a later one: there was a later one only because this one had come to nothing.
    pub fn merge(
        self,
        attempt: Attempt,
        failed: Option<Attempt>,
        evidence: Evidence,
    ) -> Transition {
        use OutgoingState::{Dead, Pending, Sending, Sent, Unsure};
        use Transition::{Stay, To};
        let current = |of: Attempt| of == attempt;
        let in_question = matches!(self, Sending | Unsure);
        let came_to_nothing = |of: Attempt| failed.is_some_and(|failed| of <= failed);
        match evidence {
            Evidence::Accepted(of) if came_to_nothing(of) => Stay,
            Evidence::SentReceipt(of) if came_to_nothing(of.unwrap_or(attempt)) => Stay,
            Evidence::Accepted(_) | Evidence::SentReceipt(_) | Evidence::Arrived => match self {
                Sent => Stay,
                Pending | Sending | Unsure | Dead => To(Sent),
            },
            Evidence::NotSent(of) if in_question && current(of) => To(Pending),
            Evidence::Refused(of) if in_question && current(of) => To(Dead),
            Evidence::Lost(of) if self == Sending && current(of) => To(Unsure),
            Evidence::WaitOver(of) if self == Unsure && current(of) => To(Dead),
            Evidence::FailedReceipt(of) if of.is_none_or(current) => match self {
                Sending | Unsure | Sent => To(Dead),
                Pending | Dead => Stay,
            },
            Evidence::RetryableReceipt(of) if of.is_none_or(current) => match self {
                Sending | Unsure | Sent => To(Pending),
                Pending | Dead => Stay,
            },
            Evidence::NotSent(_)
            | Evidence::Refused(_)
            | Evidence::Lost(_)
            | Evidence::WaitOver(_)
            | Evidence::FailedReceipt(_)
            | Evidence::RetryableReceipt(_) => Stay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutgoingState::{Dead, Pending, Sending, Sent, Unsure};

    const ALL: [OutgoingState; 5] = [Pending, Sending, Unsure, Sent, Dead];

    #[test]
    fn proof_of_acceptance_settles_every_state() {
        for state in ALL {
            for evidence in [
                Evidence::Arrived,
                Evidence::Accepted(1),
                Evidence::Accepted(9),
            ] {
                let expected = if state == Sent {
                    Transition::Stay
                } else {
                    Transition::To(Sent)
                };
                assert_eq!(state.merge(3, None, evidence), expected);
            }
        }
    }

    #[test]
    fn evidence_of_an_older_attempt_opens_nothing_again() {
        for state in ALL {
            for evidence in [
                Evidence::NotSent(1),
                Evidence::Refused(1),
                Evidence::Lost(1),
                Evidence::WaitOver(1),
                Evidence::FailedReceipt(Some(1)),
                Evidence::RetryableReceipt(Some(1)),
            ] {
                assert_eq!(
                    state.merge(2, None, evidence),
                    Transition::Stay,
                    "{state:?} {evidence:?}"
                );
            }
        }
    }

    #[test]
    fn only_a_sure_no_makes_a_second_send_possible() {
        for state in ALL {
            for evidence in [Evidence::Lost(2), Evidence::WaitOver(2), Evidence::Arrived] {
                assert_ne!(state.merge(2, None, evidence), Transition::To(Pending));
            }
        }
        assert_eq!(
            Unsure.merge(2, None, Evidence::NotSent(2)),
            Transition::To(Pending)
        );
        assert_eq!(Sent.merge(2, None, Evidence::NotSent(2)), Transition::Stay);
    }

    #[test]
    fn an_unsure_send_ends_by_evidence_or_by_waiting() {
        assert_eq!(
            Sending.merge(1, None, Evidence::Lost(1)),
            Transition::To(Unsure)
        );
        assert_eq!(
            Unsure.merge(1, None, Evidence::WaitOver(1)),
            Transition::To(Dead)
        );
        assert_eq!(Dead.merge(1, None, Evidence::Arrived), Transition::To(Sent));
    }

    #[test]
    fn that_it_was_accepted_does_not_undo_a_failure_of_the_same_attempt() {
        for state in [Dead, Pending] {
            for evidence in [Evidence::Accepted(1), Evidence::SentReceipt(Some(1))] {
                assert_eq!(state.merge(1, Some(1), evidence), Transition::Stay);
            }
            assert_eq!(
                state.merge(1, Some(1), Evidence::Arrived),
                Transition::To(Sent)
            );
        }
        assert_eq!(
            Sending.merge(2, Some(1), Evidence::Accepted(2)),
            Transition::To(Sent)
        );
    }

    #[test]
    fn that_it_was_accepted_does_not_undo_a_failure_of_a_later_attempt() {
        for state in [Dead, Pending] {
            for evidence in [Evidence::Accepted(1), Evidence::SentReceipt(Some(1))] {
                assert_eq!(state.merge(2, Some(2), evidence), Transition::Stay);
            }
        }
    }
}
