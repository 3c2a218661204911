//! The keys of events: what makes two arrivals the same event.
//!
//! Frozen. A changed part, order or word makes everything that Meta redelivers look new.

use crate::model::EventKey;

/// A status element's identity beside its number.
pub(super) struct StatusParts<'a> {
    pub(super) wamid: &'a [u8],
    pub(super) status: &'a [u8],
    /// A group's statuses come once per participant under one wamid.
    pub(super) participant: &'a [u8],
    /// A payment's statuses may come once per transaction.
    pub(super) transaction: &'a [u8],
}

pub(super) fn message(number: &[u8], wamid: &[u8]) -> EventKey {
    EventKey::derive(&[number, b"message", wamid])
}

/// Not [`message`]: if the same message comes again with a sender, it must be new then.
pub(super) fn unaddressed(number: &[u8], wamid: &[u8]) -> EventKey {
    EventKey::derive(&[number, b"unaddressed", wamid])
}

pub(super) fn system(number: &[u8], wamid: &[u8]) -> EventKey {
    EventKey::derive(&[number, b"system", wamid])
}

pub(super) fn status(number: &[u8], status: &StatusParts<'_>) -> EventKey {
    EventKey::derive(&[
        number,
        b"status",
        status.wamid,
        status.status,
        status.participant,
        status.transaction,
    ])
}

pub(super) fn echo(number: &[u8], id: &[u8]) -> EventKey {
    EventKey::derive(&[number, b"echo", id])
}

/// `step` is the call's event, or its status where it has no event.
pub(super) fn call(number: &[u8], id: &[u8], step: &[u8]) -> EventKey {
    EventKey::derive(&[number, b"call", id, step])
}

/// `what` is `message` or `echo`.
pub(super) fn standby(number: &[u8], what: &[u8], id: &[u8]) -> EventKey {
    EventKey::derive(&[number, b"standby", what, id])
}

pub(super) fn standby_status(number: &[u8], status: &StatusParts<'_>) -> EventKey {
    EventKey::derive(&[
        number,
        b"standby",
        b"status",
        status.wamid,
        status.status,
        status.participant,
        status.transaction,
    ])
}

/// What has no id of its own: its canonical JSON, and the account and time it came with.
pub(super) fn notice(
    number: &[u8],
    kind: &[u8],
    account: &[u8],
    time: &[u8],
    canonical: &[u8],
) -> EventKey {
    EventKey::derive(&[number, b"notice", kind, account, time, canonical])
}

/// A body that could not be read.
pub(super) fn body(kind: &[u8], body: &[u8]) -> EventKey {
    EventKey::derive(&[b"", kind, body])
}
