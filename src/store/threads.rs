//! What is asked and told of the AI threads of conversations.

use std::time::Duration;

use crate::model::thread::{PastThread, Right, Standing, Thread};
use crate::model::{Aliases, ContactId, ConversationId, NumberId, ThreadId, Timestamp};

/// How many past threads of one conversation are told, the newest ones.
pub const PAST_THREADS_MAX: u32 = 100;

/// A conversation, as somebody outside names it.
#[derive(Debug, Clone)]
pub struct Whose {
    /// The business number.
    pub number: NumberId,
    /// The other side.
    pub named: Named,
}

/// How the other side of a conversation is named.
#[derive(Debug, Clone)]
pub enum Named {
    /// As Meta names people; never empty.
    Person(Aliases),
    /// By our id of the person.
    Contact(ContactId),
    /// By our id of the conversation itself.
    Conversation(ConversationId),
}

/// A request for the thread of a conversation, or for the right to make it.
#[derive(Debug, Clone)]
pub struct ThreadClaim {
    /// Whose.
    pub whose: Whose,
    /// What the one who asks calls this request, so that it is known when it comes again.
    pub key: Option<String>,
    /// How long a right that is given now lasts.
    pub lasts: Duration,
}

/// The thread of a conversation and what went before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadRecord {
    /// The business number.
    pub number: NumberId,
    /// The conversation.
    pub conversation: ConversationId,
    /// The person.
    pub contact: ContactId,
    /// How it stands.
    pub thread: Thread,
    /// How long the right to make it lasts from now on; `None` if nobody has it.
    pub left: Option<Duration>,
    /// Earlier ones that retention has left, newest first, at most [`PAST_THREADS_MAX`].
    pub past: Vec<PastThread>,
}

/// A thread that was made for nothing, or may have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrphanRecord {
    /// The business number.
    pub number: NumberId,
    /// For which conversation.
    pub conversation: ConversationId,
    /// Under which version.
    pub version: i64,
    /// Which; `None` when nobody ever told.
    pub thread: Option<ThreadId>,
    /// When its completion came, or its right ended.
    pub at: Timestamp,
}

/// A thread as the ledger holds it, in one row, for both engines.
pub(super) struct ThreadRow {
    pub(super) version: i64,
    pub(super) thread: Option<String>,
    pub(super) since: i64,
    pub(super) until: Option<i64>,
    pub(super) key: Option<String>,
}

impl ThreadRow {
    /// A row for a thread that has just come to stand so.
    pub(super) fn of(thread: &Thread, now: Timestamp) -> Self {
        let vacant = Self {
            version: thread.version,
            thread: None,
            since: now.0,
            until: None,
            key: None,
        };
        match &thread.standing {
            Standing::Vacant => vacant,
            Standing::Making(Right { key, since, until }) => Self {
                since: since.0,
                until: Some(until.0),
                key: key.clone(),
                ..vacant
            },
            Standing::Ready { thread, since } => Self {
                thread: Some(thread.as_str().to_owned()),
                since: since.0,
                ..vacant
            },
        }
    }

    pub(super) fn read(self) -> Thread {
        let since = Timestamp(self.since);
        let standing = match (self.thread, self.until) {
            (Some(thread), _) => Standing::Ready {
                thread: ThreadId::stored(thread),
                since,
            },
            (None, Some(until)) => Standing::Making(Right {
                key: self.key,
                since,
                until: Timestamp(until),
            }),
            (None, None) => Standing::Vacant,
        };
        Thread {
            version: self.version,
            standing,
        }
    }
}
