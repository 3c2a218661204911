//! What an answer of Meta's or a receipt shows of an outgoing: the same for every engine.

use std::time::Duration;

use super::SendResult;
use crate::guard::{self, Guard};
use crate::model::{Attempt, Backoff, Evidence, FailureClass, Rank, Receipt, ReceiptStatus, Wamid};

/// What comes along with evidence.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) reason: Option<String>,
    pub(super) wamid: Option<Wamid>,
    pub(super) retry_after: Option<Duration>,
}

impl Facts {
    pub(super) fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: Some(reason.into()),
            ..Self::default()
        }
    }

    pub(super) fn known_as(wamid: Wamid) -> Self {
        Self {
            wamid: Some(wamid),
            ..Self::default()
        }
    }
}

/// What Meta's answer to the `attempt`-th send shows. That the number has to wait is not said
/// here: it concerns every message of the number.
pub(super) fn of_result(attempt: Attempt, result: &SendResult) -> (Evidence, Facts) {
    match result {
        SendResult::Accepted(wamid) => {
            (Evidence::Accepted(attempt), Facts::known_as(wamid.clone()))
        }
        SendResult::Retry { after, reason } => (
            Evidence::NotSent(attempt),
            Facts {
                retry_after: Some(*after),
                ..Facts::because(reason)
            },
        ),
        SendResult::PauseNumber { reason, .. } => {
            (Evidence::NotSent(attempt), Facts::because(reason))
        }
        SendResult::Refused { reason } => (Evidence::Refused(attempt), Facts::because(reason)),
        SendResult::Unsure { reason } => (Evidence::Lost(attempt), Facts::because(reason)),
    }
}

/// Why nobody will say any more what became of a send.
#[derive(Debug, Clone, Copy)]
pub(super) enum Silence {
    /// Its node was declared dead, or has left.
    NodeEnded,
    /// Its node lives, and has given up to say.
    NodeDenies,
}

/// What it shows that nobody will say what became of the `attempt`-th send: next to nothing. It
/// may have gone out.
pub(super) fn of_silence(attempt: Attempt, silence: Silence) -> (Evidence, Facts) {
    let reason = match silence {
        Silence::NodeEnded => "the process ended while sending",
        Silence::NodeDenies => "what became of the send could not be written",
    };
    if !guard::holds(Guard::OutboxMark) {
        return (Evidence::NotSent(attempt), Facts::because(reason));
    }
    (Evidence::Lost(attempt), Facts::because(reason))
}

/// What a receipt, new or parked, says.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) status: ReceiptStatus,
    /// Whether it speaks of one participant of a group only.
    pub(super) of_participant: bool,
    /// The attempt that its tag names.
    pub(super) attempt: Option<Attempt>,
    pub(super) code: Option<i64>,
    pub(super) retryable: bool,
}

/// What a receipt shows of an outgoing.
#[derive(Debug)]
pub(super) enum Shown {
    /// Nothing of its way.
    Nothing,
    /// It has come so far.
    Progress(Rank, Evidence),
    /// This attempt has failed.
    Failure(Attempt, Evidence, Facts),
    /// An attempt that is no longer the last one has failed.
    OldFailure(Evidence, Facts),
}

/// How long a message waits that Meta accepted first and then called too fast.
const AFTER_RECEIPT: Backoff = Backoff {
    first: Duration::from_secs(15),
    factor: 4,
    max: Duration::from_secs(3600),
};
/// Attempts of such a message; then it is a dead letter.
const ATTEMPTS_BY_RECEIPT_MAX: Attempt = 6;

impl Reading {
    /// A new receipt; `attempt` is what our tag in it says.
    pub(super) fn of(receipt: &Receipt, attempt: Option<Attempt>) -> Self {
        let class = receipt.failure.map(|failure| failure.class);
        Self {
            status: receipt.status.clone(),
            of_participant: receipt.participant.is_some(),
            attempt,
            code: receipt.failure.map(|failure| failure.code),
            retryable: class.is_some_and(is_retryable),
        }
    }

    /// What it shows of an outgoing that has come as far as `rank` in its `attempt`-th send. One
    /// that is not `is_full` any more was emptied by retention: nothing is left to send again.
    pub(super) fn shows(&self, rank: u8, attempt: Attempt, is_full: bool) -> Shown {
        let of = self.attempt;
        match self.status {
            ReceiptStatus::Sent => Shown::Progress(Rank::Sent, Evidence::SentReceipt(of)),
            ReceiptStatus::Delivered => Shown::Progress(Rank::Delivered, Evidence::Arrived),
            ReceiptStatus::Read => Shown::Progress(Rank::Read, Evidence::Arrived),
            ReceiptStatus::Played => Shown::Progress(Rank::Played, Evidence::Arrived),
            // What one participant did not get, others may have got: sent again, they had it
            // twice.
            ReceiptStatus::Failed if self.of_participant => Shown::Nothing,
            // Meta has been seen to call failed what the person has.
            ReceiptStatus::Failed if rank >= Rank::Delivered as u8 => Shown::Nothing,
            ReceiptStatus::Failed => self.failure(attempt, is_full),
            ReceiptStatus::Other(_) => Shown::Nothing,
        }
    }

    fn failure(&self, attempt: Attempt, is_full: bool) -> Shown {
        let reason = match self.code {
            Some(code) => format!("a receipt says failed, code {code}"),
            None => "a receipt says failed".to_owned(),
        };
        let evidence = if self.retryable && is_full && attempt < ATTEMPTS_BY_RECEIPT_MAX {
            Evidence::RetryableReceipt(self.attempt)
        } else {
            Evidence::FailedReceipt(self.attempt)
        };
        let facts = Facts {
            retry_after: Some(AFTER_RECEIPT.wait(attempt, 0)),
            ..Facts::because(reason)
        };
        match self.attempt {
            Some(of) if of != attempt => Shown::OldFailure(evidence, facts),
            _ => Shown::Failure(attempt, evidence, facts),
        }
    }
}

/// A failure after acceptance that may be tried again: surely not delivered, and only too fast.
const fn is_retryable(class: FailureClass) -> bool {
    match class {
        FailureClass::PairRate | FailureClass::NumberRate => true,
        FailureClass::NumberBlocked | FailureClass::Ambiguous | FailureClass::Refused => false,
    }
}
