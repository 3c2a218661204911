//! The AI threads of conversations. A thread changes under the lock on its conversation's row, and
//! is read again after it; to look at it takes none, so that many may ask again and again.

use tokio_postgres::Row;

use super::super::threads::ThreadRow;
use super::super::{Named, OrphanRecord, PAST_THREADS_MAX, ThreadClaim, ThreadRecord, Whose};
use super::fault::Fault;
use super::identity;
use super::outbox::LOCK;
use super::parameter::{indexed, parameters};
use super::tx::{Slot, Tx};
use crate::crash_point::Method;
use crate::model::thread::{Access, Completion, Orphan, PastThread, Standing, Step, Thread};
use crate::model::{ContactId, ConversationId, NumberId, ThreadId, Timestamp};

const OF_CONTACT: &str = "
    SELECT id FROM conversation WHERE number = $1 AND contact = $2 AND merged_into IS NULL";
const OF_ITSELF: &str = "
    SELECT id FROM conversation WHERE number = $1 AND id = $2 AND merged_into IS NULL";

/// What is known of whom somebody outside names.
struct Found {
    conversation: Option<ConversationId>,
    /// For a person: whom each alias names today.
    known: Vec<Row>,
}

async fn find(tx: &mut Tx, whose: &Whose) -> Result<Found, Fault> {
    let number = indexed(whose.number.as_str());
    let (sql, id) = match &whose.named {
        Named::Person(aliases) => {
            let known = identity::queue_look_up(tx, std::iter::once((&whose.number, aliases)));
            let known = tx.flush().await?.take(known);
            let conversation = identity::find(&whose.number, aliases, &known);
            return Ok(Found {
                conversation,
                known,
            });
        }
        Named::Contact(contact) => (OF_CONTACT, contact.0),
        Named::Conversation(conversation) => (OF_ITSELF, conversation.0),
    };
    let found = tx.queue(sql, parameters![number, id]);
    let found = tx.flush().await?.take(found);
    Ok(Found {
        conversation: found.first().map(|row| ConversationId(row.get(0))),
        known: Vec::new(),
    })
}

/// Makes the person whom nobody has found.
async fn make(tx: &mut Tx, whose: &Whose, found: Found) -> Result<Option<ConversationId>, Fault> {
    let Named::Person(aliases) = &whose.named else {
        return Ok(found.conversation);
    };
    if found.conversation.is_some() {
        return Ok(found.conversation);
    }
    let sender = [(&whose.number, aliases)];
    let resolved = identity::resolve(tx, &sender, &found.known).await?;
    Ok(resolved.first().map(|resolved| resolved.conversation))
}

const STANDING: &str = "
    SELECT version, thread, since, until, claim_key FROM thread WHERE conversation = $1";

fn queue_standing(tx: &mut Tx, conversation: ConversationId) -> Slot {
    tx.queue(STANDING, parameters![conversation.0])
}

/// `None` where nobody has asked for it yet.
fn read_standing(rows: &[Row]) -> Option<Thread> {
    let row = rows.first()?;
    let row = ThreadRow {
        version: row.get(0),
        thread: row.get(1),
        since: row.get(2),
        until: row.get(3),
        key: row.get(4),
    };
    Some(row.read())
}

/// As it stands, without a lock: right when it was read.
async fn look(tx: &mut Tx, conversation: ConversationId) -> Result<Option<Thread>, Fault> {
    let standing = queue_standing(tx, conversation);
    let standing = tx.flush().await?.take(standing);
    Ok(read_standing(&standing))
}

/// As it stands, and nobody else changes it before the end of this transaction.
async fn hold(tx: &mut Tx, conversation: ConversationId) -> Result<Option<Thread>, Fault> {
    let locked = tx.queue(LOCK.sql(), parameters![vec![conversation.0]]);
    let standing = queue_standing(tx, conversation);
    let mut answers = tx.flush().await?;
    if answers.take(locked).is_empty() {
        return Err(Fault::Again("a conversation is gone meanwhile".to_owned()));
    }
    Ok(read_standing(&answers.take(standing)))
}

pub(super) async fn claim(
    tx: &mut Tx,
    claim: &ThreadClaim,
) -> Result<Option<(ConversationId, Access)>, Fault> {
    let access = |tx: &Tx, thread: Option<Thread>| {
        let thread = thread.unwrap_or_else(Thread::unasked);
        thread.access(tx.now(), claim.key.as_deref(), claim.lasts)
    };
    let found = find(tx, &claim.whose).await?;
    if let Some(conversation) = found.conversation {
        let thread = look(tx, conversation).await?;
        let step = access(tx, thread);
        if !step.writes() {
            return Ok(Some((conversation, step.answer)));
        }
    }
    let Some(conversation) = make(tx, &claim.whose, found).await? else {
        return Ok(None);
    };
    let thread = hold(tx, conversation).await?;
    let step = access(tx, thread);
    if step.writes() {
        tx.carries(Method::ClaimThread);
        queue_write(tx, conversation, &step);
    }
    Ok(Some((conversation, step.answer)))
}

pub(super) async fn complete(
    tx: &mut Tx,
    whose: &Whose,
    version: i64,
    thread: &ThreadId,
) -> Result<Option<(ConversationId, Completion)>, Fault> {
    let Some(conversation) = find(tx, whose).await?.conversation else {
        return Ok(None);
    };
    let known = hold(tx, conversation).await?;
    let known = known.unwrap_or_else(Thread::unasked);
    let step = known.complete(tx.now(), version, thread);
    if step.writes() {
        tx.carries(Method::CompleteThread);
        queue_write(tx, conversation, &step);
    }
    Ok(Some((conversation, step.answer)))
}

pub(super) async fn forget(
    tx: &mut Tx,
    whose: &Whose,
) -> Result<Option<(ConversationId, i64)>, Fault> {
    let Some(conversation) = find(tx, whose).await?.conversation else {
        return Ok(None);
    };
    let Some(known) = hold(tx, conversation).await? else {
        return Ok(None);
    };
    let step = known.forget(tx.now());
    if step.writes() {
        tx.carries(Method::ForgetThread);
        queue_write(tx, conversation, &step);
    }
    Ok(Some((conversation, step.answer)))
}

const STAND: &str = "
    INSERT INTO thread (conversation, version, thread, since, until, claim_key)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (conversation) DO UPDATE
       SET version = excluded.version, thread = excluded.thread, since = excluded.since,
           until = excluded.until, claim_key = excluded.claim_key";
const KEEP_PAST: &str = "
    INSERT INTO thread_past (conversation, version, thread, since, until)
    VALUES ($1, $2, $3, $4, $5)";
// What was taken for an orphan and is in use after all.
const ADOPT: &str = "DELETE FROM thread_orphan WHERE conversation = $1 AND thread = $2";
const NEVER_LEARNT: &str = "
    INSERT INTO thread_orphan (conversation, version, at) VALUES ($1, $2, $3)";
// One that was used, and one that is listed already, is no new orphan.
const LEARN: &str = "
    INSERT INTO thread_orphan (conversation, version, thread, at)
    SELECT $1, $2, $3, $4
     WHERE NOT EXISTS (SELECT 1 FROM thread_past WHERE conversation = $1 AND thread = $3)
       AND NOT EXISTS (SELECT 1 FROM thread_orphan WHERE conversation = $1 AND thread = $3)";
const LEARNT: &str = "
    DELETE FROM thread_orphan WHERE conversation = $1 AND version = $2 AND thread IS NULL";

fn queue_write<A>(tx: &mut Tx, conversation: ConversationId, step: &Step<A>) {
    let of = conversation.0;
    if let Some(next) = &step.next {
        let row = ThreadRow::of(next, tx.now());
        tx.queue(
            STAND,
            parameters![of, row.version, row.thread, row.since, row.until, row.key],
        );
        if let Standing::Ready { thread, .. } = &next.standing {
            tx.queue(ADOPT, parameters![of, thread.as_str().to_owned()]);
        }
    }
    if let Some(past) = &step.past {
        let thread = past.thread.as_str().to_owned();
        tx.queue(
            KEEP_PAST,
            parameters![of, past.version, thread, past.since.0, past.until.0],
        );
    }
    match &step.orphan {
        Some(Orphan {
            version,
            thread: Some(thread),
            at,
        }) => {
            tx.queue(LEARNT, parameters![of, *version]);
            let thread = thread.as_str().to_owned();
            tx.queue(LEARN, parameters![of, *version, thread, at.0]);
        }
        Some(Orphan {
            version,
            thread: None,
            at,
        }) => {
            tx.queue(NEVER_LEARNT, parameters![of, *version, at.0]);
        }
        None => {}
    }
    tx.woke_threads |= step.wakes();
}

const CONTACT: &str = "SELECT contact FROM conversation WHERE id = $1";
const PAST: &str = "
    SELECT version, thread, since, until FROM thread_past
     WHERE conversation = $1 ORDER BY version DESC LIMIT $2";

pub(super) async fn thread(tx: &mut Tx, whose: &Whose) -> Result<Option<ThreadRecord>, Fault> {
    let Some(conversation) = find(tx, whose).await?.conversation else {
        return Ok(None);
    };
    let standing = queue_standing(tx, conversation);
    let contact = tx.queue(CONTACT, parameters![conversation.0]);
    let past = tx.queue(
        PAST,
        parameters![conversation.0, i64::from(PAST_THREADS_MAX)],
    );
    let mut answers = tx.flush().await?;
    let thread = read_standing(&answers.take(standing));
    let contact = answers.take(contact);
    let (Some(thread), Some(contact)) = (thread, contact.first()) else {
        return Ok(None);
    };
    Ok(Some(ThreadRecord {
        number: whose.number.clone(),
        conversation,
        contact: ContactId(contact.get(0)),
        left: thread.left(tx.now()),
        thread,
        past: answers.take(past).iter().map(read_past).collect(),
    }))
}

fn read_past(row: &Row) -> PastThread {
    PastThread {
        version: row.get(0),
        thread: ThreadId::stored(row.get::<_, String>(1)),
        since: Timestamp(row.get(2)),
        until: Timestamp(row.get(3)),
    }
}

// A right that is over was given for nothing, whether or not another one was given since.
const ORPHANS: &str = "
    SELECT c.number, o.conversation, o.version, o.thread, o.at
      FROM ((SELECT conversation, version, thread, at FROM thread_orphan
              ORDER BY at DESC LIMIT $1)
            UNION ALL
            (SELECT conversation, version, NULL, until FROM thread
              WHERE until <= now_ms() ORDER BY until DESC LIMIT $1)) o
      JOIN conversation c ON c.id = o.conversation
     ORDER BY o.at DESC, o.conversation DESC, o.version DESC LIMIT $1";

pub(super) async fn orphans(tx: &mut Tx, limit: u32) -> Result<Vec<OrphanRecord>, Fault> {
    let orphans = tx.queue(ORPHANS, parameters![i64::from(limit)]);
    let orphans = tx.commit().await?.take(orphans);
    let read = |row: &Row| OrphanRecord {
        number: NumberId::new(row.get::<_, String>(0)),
        conversation: ConversationId(row.get(1)),
        version: row.get(2),
        thread: row.get::<_, Option<String>>(3).map(ThreadId::stored),
        at: Timestamp(row.get(4)),
    };
    Ok(orphans.iter().map(read).collect())
}
