//! The AI threads of conversations. One transaction runs at a time here, so that what is read is
//! what is changed.

use rusqlite::{Row, params};

use super::super::threads::ThreadRow;
use super::super::{Named, OrphanRecord, PAST_THREADS_MAX, ThreadClaim, ThreadRecord, Whose};
use super::identity;
use super::tx::Tx;
use crate::crash_point::Method;
use crate::model::thread::{Access, Completion, Orphan, PastThread, Standing, Step, Thread};
use crate::model::{ContactId, ConversationId, NumberId, ThreadId, Timestamp};

const OF_CONTACT: &str = "
    SELECT id FROM conversation WHERE number = ?1 AND contact = ?2 AND merged_into IS NULL";
const OF_ITSELF: &str = "
    SELECT id FROM conversation WHERE number = ?1 AND id = ?2 AND merged_into IS NULL";

fn find(tx: &Tx<'_>, whose: &Whose) -> rusqlite::Result<Option<ConversationId>> {
    let (sql, id) = match &whose.named {
        Named::Person(aliases) => return identity::find(tx, &whose.number, aliases),
        Named::Contact(contact) => (OF_CONTACT, contact.0),
        Named::Conversation(conversation) => (OF_ITSELF, conversation.0),
    };
    tx.row(sql, (whose.number.as_str(), id), |row| {
        Ok(ConversationId(row.get(0)?))
    })
}

fn find_or_make(tx: &Tx<'_>, whose: &Whose) -> rusqlite::Result<Option<ConversationId>> {
    match &whose.named {
        Named::Person(aliases) => {
            identity::resolve(tx, &whose.number, aliases).map(|found| Some(found.conversation))
        }
        Named::Contact(_) | Named::Conversation(_) => find(tx, whose),
    }
}

const STANDING: &str = "
    SELECT version, thread, since, until, claim_key FROM thread WHERE conversation = ?1";

/// `None` where nobody has asked for it yet.
fn standing(tx: &Tx<'_>, conversation: ConversationId) -> rusqlite::Result<Option<Thread>> {
    tx.row(STANDING, [conversation.0], |row| {
        let row = ThreadRow {
            version: row.get(0)?,
            thread: row.get(1)?,
            since: row.get(2)?,
            until: row.get(3)?,
            key: row.get(4)?,
        };
        Ok(row.read())
    })
}

pub(super) fn claim(
    tx: &Tx<'_>,
    claim: &ThreadClaim,
) -> rusqlite::Result<Option<(ConversationId, Access)>> {
    let Some(conversation) = find_or_make(tx, &claim.whose)? else {
        return Ok(None);
    };
    let thread = standing(tx, conversation)?.unwrap_or_else(Thread::unasked);
    let step = thread.access(tx.now, claim.key.as_deref(), claim.lasts);
    if step.writes() {
        tx.carries(Method::ClaimThread);
        write(tx, conversation, &step)?;
    }
    Ok(Some((conversation, step.answer)))
}

pub(super) fn complete(
    tx: &Tx<'_>,
    whose: &Whose,
    version: i64,
    thread: &ThreadId,
) -> rusqlite::Result<Option<(ConversationId, Completion)>> {
    let Some(conversation) = find(tx, whose)? else {
        return Ok(None);
    };
    let known = standing(tx, conversation)?.unwrap_or_else(Thread::unasked);
    let step = known.complete(tx.now, version, thread);
    if step.writes() {
        tx.carries(Method::CompleteThread);
        write(tx, conversation, &step)?;
    }
    Ok(Some((conversation, step.answer)))
}

pub(super) fn forget(
    tx: &Tx<'_>,
    whose: &Whose,
) -> rusqlite::Result<Option<(ConversationId, i64)>> {
    let Some(conversation) = find(tx, whose)? else {
        return Ok(None);
    };
    let Some(known) = standing(tx, conversation)? else {
        return Ok(None);
    };
    let step = known.forget(tx.now);
    if step.writes() {
        tx.carries(Method::ForgetThread);
        write(tx, conversation, &step)?;
    }
    Ok(Some((conversation, step.answer)))
}

const STAND: &str = "
    INSERT INTO thread (conversation, version, thread, since, until, claim_key)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (conversation) DO UPDATE
       SET version = ?2, thread = ?3, since = ?4, until = ?5, claim_key = ?6";
const KEEP_PAST: &str = "
    INSERT INTO thread_past (conversation, version, thread, since, until)
    VALUES (?1, ?2, ?3, ?4, ?5)";
// What was taken for an orphan and is in use after all.
const ADOPT: &str = "DELETE FROM thread_orphan WHERE conversation = ?1 AND thread = ?2";
const NEVER_LEARNT: &str = "
    INSERT INTO thread_orphan (conversation, version, thread, at) VALUES (?1, ?2, NULL, ?3)";
// One that was used, and one that is listed already, is no new orphan.
const LEARN: &str = "
    INSERT INTO thread_orphan (conversation, version, thread, at)
    SELECT ?1, ?2, ?3, ?4
     WHERE NOT EXISTS (SELECT 1 FROM thread_past WHERE conversation = ?1 AND thread = ?3)
       AND NOT EXISTS (SELECT 1 FROM thread_orphan WHERE conversation = ?1 AND thread = ?3)";
const LEARNT: &str = "
    DELETE FROM thread_orphan WHERE conversation = ?1 AND version = ?2 AND thread IS NULL";

fn write<A>(tx: &Tx<'_>, conversation: ConversationId, step: &Step<A>) -> rusqlite::Result<()> {
    let of = conversation.0;
    if let Some(next) = &step.next {
        let row = ThreadRow::of(next, tx.now);
        let values = params![of, row.version, row.thread, row.since, row.until, row.key];
        tx.execute(STAND, values)?;
        if let Standing::Ready { thread, .. } = &next.standing {
            tx.execute(ADOPT, params![of, thread.as_str()])?;
        }
    }
    if let Some(past) = &step.past {
        let (since, until) = (past.since.0, past.until.0);
        let values = params![of, past.version, past.thread.as_str(), since, until];
        tx.execute(KEEP_PAST, values)?;
    }
    match &step.orphan {
        Some(Orphan {
            version,
            thread: Some(thread),
            at,
        }) => {
            tx.execute(LEARNT, [of, *version])?;
            tx.execute(LEARN, params![of, version, thread.as_str(), at.0])?;
        }
        Some(Orphan {
            version,
            thread: None,
            at,
        }) => {
            tx.execute(NEVER_LEARNT, [of, *version, at.0])?;
        }
        None => {}
    }
    if step.wakes() {
        tx.wake_threads();
    }
    Ok(())
}

const CONTACT: &str = "SELECT contact FROM conversation WHERE id = ?1";
const PAST: &str = "
    SELECT version, thread, since, until FROM thread_past
     WHERE conversation = ?1 ORDER BY version DESC LIMIT ?2";

pub(super) fn thread(tx: &Tx<'_>, whose: &Whose) -> rusqlite::Result<Option<ThreadRecord>> {
    let Some(conversation) = find(tx, whose)? else {
        return Ok(None);
    };
    let (Some(thread), Some(contact)) = (
        standing(tx, conversation)?,
        tx.row(CONTACT, [conversation.0], |row| row.get(0))?,
    ) else {
        return Ok(None);
    };
    Ok(Some(ThreadRecord {
        number: whose.number.clone(),
        conversation,
        contact: ContactId(contact),
        left: thread.left(tx.now),
        thread,
        past: tx.rows(PAST, params![conversation.0, PAST_THREADS_MAX], read_past)?,
    }))
}

fn read_past(row: &Row<'_>) -> rusqlite::Result<PastThread> {
    Ok(PastThread {
        version: row.get(0)?,
        thread: ThreadId::stored(row.get::<_, String>(1)?),
        since: Timestamp(row.get(2)?),
        until: Timestamp(row.get(3)?),
    })
}

// A right that is over was given for nothing, whether or not another one was given since.
pub(super) const ORPHANS: &str = "
    SELECT c.number, o.conversation, o.version, o.thread, o.at
      FROM (SELECT * FROM (SELECT conversation, version, thread, at FROM thread_orphan
                            ORDER BY at DESC LIMIT ?2)
            UNION ALL
            SELECT * FROM (SELECT conversation, version, NULL, until FROM thread
                            WHERE until <= ?1 ORDER BY until DESC LIMIT ?2)) o
      JOIN conversation c ON c.id = o.conversation
     ORDER BY o.at DESC, o.conversation DESC, o.version DESC LIMIT ?2";

pub(super) fn read_orphan(row: &Row<'_>) -> rusqlite::Result<OrphanRecord> {
    Ok(OrphanRecord {
        number: NumberId::new(row.get::<_, String>(0)?),
        conversation: ConversationId(row.get(1)?),
        version: row.get(2)?,
        thread: row.get::<_, Option<String>>(3)?.map(ThreadId::stored),
        at: Timestamp(row.get(4)?),
    })
}
