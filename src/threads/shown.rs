//! What is answered, as JSON. Ids have the form that they have in logs.

use std::time::Duration;

use serde::Serialize;

use crate::model::ThreadId;
use crate::model::thread::{PastThread, Standing};
use crate::store::{OrphanRecord, ThreadRecord};

/// How a thread stands for the one who asks.
#[derive(Serialize)]
pub(super) struct Shown {
    thread: Option<String>,
    version: i64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
}

pub(super) fn ready(version: i64, thread: &ThreadId) -> Shown {
    Shown {
        thread: Some(thread.as_str().to_owned()),
        version,
        state: "ready",
        expires_in_ms: None,
    }
}

pub(super) fn create(version: i64, left: Duration) -> Shown {
    Shown {
        state: "create",
        expires_in_ms: Some(millis(left)),
        ..vacant(version)
    }
}

pub(super) fn pending(version: i64, left: Duration) -> Shown {
    Shown {
        state: "pending",
        expires_in_ms: Some(millis(left)),
        ..vacant(version)
    }
}

/// There is no thread, and nobody makes one.
pub(super) const fn vacant(version: i64) -> Shown {
    Shown {
        thread: None,
        version,
        state: "none",
        expires_in_ms: None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A conversation's thread, and its history.
#[derive(Serialize)]
pub(super) struct ShownRecord {
    number: String,
    conversation: String,
    contact: String,
    #[serde(flatten)]
    shown: Shown,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    history: Vec<ShownPast>,
}

#[derive(Serialize)]
struct ShownPast {
    thread: String,
    version: i64,
    since: String,
    until: String,
}

impl From<&PastThread> for ShownPast {
    fn from(past: &PastThread) -> Self {
        Self {
            thread: past.thread.as_str().to_owned(),
            version: past.version,
            since: past.since.to_string(),
            until: past.until.to_string(),
        }
    }
}

/// Whether there is a thread, or was one, or somebody is making one.
pub(super) fn has_something(record: &ThreadRecord) -> bool {
    let is_ready = matches!(record.thread.standing, Standing::Ready { .. });
    is_ready || record.left.is_some() || !record.past.is_empty()
}

pub(super) fn record(record: &ThreadRecord) -> ShownRecord {
    let version = record.thread.version;
    let (shown, since) = match (&record.thread.standing, record.left) {
        (Standing::Ready { thread, since }, _) => (ready(version, thread), Some(since)),
        (Standing::Making(_), Some(left)) => (pending(version, left), None),
        (Standing::Making(_), None) | (Standing::Vacant, _) => (vacant(version), None),
    };
    ShownRecord {
        number: record.number.to_string(),
        conversation: record.conversation.to_string(),
        contact: record.contact.to_string(),
        shown,
        since: since.map(ToString::to_string),
        history: record.past.iter().map(ShownPast::from).collect(),
    }
}

/// What was made for nothing.
#[derive(Serialize)]
pub(super) struct Orphans {
    orphans: Vec<ShownOrphan>,
}

#[derive(Serialize)]
struct ShownOrphan {
    number: String,
    conversation: String,
    version: i64,
    thread: Option<String>,
    at: String,
}

pub(super) fn orphans(records: Vec<OrphanRecord>) -> Orphans {
    let shown = records.into_iter().map(|orphan| ShownOrphan {
        number: orphan.number.to_string(),
        conversation: orphan.conversation.to_string(),
        version: orphan.version,
        thread: orphan.thread.map(|thread| thread.as_str().to_owned()),
        at: orphan.at.to_string(),
    });
    Orphans {
        orphans: shown.collect(),
    }
}
