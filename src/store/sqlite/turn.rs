//! CLAIM, FINISH and RELEASE: the conversation row is the lock, and its epoch the fence.

use std::time::Duration;

use rusqlite::{Row, params};

use super::super::{
    ClaimRequest, ClaimToken, Claimed, ClaimedTurn, DeadKind, Finish, Keep, Policy, Release,
    StoredMessage, TurnEnd, Written,
};
use super::tx::Tx;
use super::{bot_sends, node, outbox};
use crate::crash_point::Method;
use crate::guard::{self, Guard};
use crate::model::{
    ContactId, ConversationId, EventKey, Lease, NodeId, NumberId, Timestamp, TurnId,
};

// Claim --------------------------------------------------------------------------------------

const DUE: &str = "
    SELECT id, turn_last IS NOT NULL FROM conversation
     WHERE ready_at <= ?1 ORDER BY ready_at LIMIT ?2";
const NEXT_DUE: &str = "SELECT min(ready_at) FROM conversation WHERE ready_at IS NOT NULL";
// The turn's end is frozen at its first claim, so that a retry consumes the same messages.
const TAKE: &str = "
    UPDATE conversation
       SET epoch = epoch + 1, owner = ?2, claim = ?3, attempt = attempt + 1, ready_at = NULL,
           turn_last = coalesce(turn_last, done_seq + ?4)
     WHERE id = ?1
    RETURNING epoch, number, contact, attempt, done_seq, turn_last, unavailable_since, last_error,
              head_message";
const MESSAGE: &str = "
    SELECT m.seq, m.event, m.received_at, m.envelope, n.next
      FROM message m LEFT JOIN message_next n ON n.id = m.id
     WHERE m.id = ?1 AND m.conversation = ?2";

/// `None` when the node has been declared dead.
pub(super) fn claim(tx: &Tx<'_>, claim: &ClaimRequest) -> rusqlite::Result<Option<Claimed>> {
    if !node::is_member(tx, claim.node)? {
        return Ok(None);
    }
    let due: Vec<(i64, bool)> = tx.rows(DUE, params![tx.now.0, claim.limit], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    let mut turns = Vec::with_capacity(due.len());
    for (id, is_again) in due {
        turns.extend(take(tx, claim, ConversationId(id), is_again)?);
    }
    let next_due = tx
        .row(NEXT_DUE, [], |row| row.get::<_, Option<i64>>(0))?
        .flatten();
    Ok(Some(Claimed {
        turns,
        next_due: next_due.map(|due| Timestamp(due).since(tx.now)),
    }))
}

fn take(
    tx: &Tx<'_>,
    claim: &ClaimRequest,
    conversation: ConversationId,
    is_again: bool,
) -> rusqlite::Result<Option<ClaimedTurn>> {
    let messages_max = match claim.policy {
        Policy::Queue => 1,
    };
    let params = params![conversation.0, claim.node.0, claim.token.0, messages_max];
    let read = |row: &Row<'_>| {
        let done_seq: i64 = row.get(4)?;
        let turn_last: i64 = row.get(5)?;
        let turn = ClaimedTurn {
            lease: Lease {
                conversation,
                epoch: row.get(0)?,
                node: claim.node,
            },
            id: TurnId {
                conversation,
                seq: done_seq + 1,
            },
            number: NumberId::new(row.get::<_, String>(1)?),
            contact: ContactId(row.get(2)?),
            attempt: row.get(3)?,
            is_again,
            is_new: done_seq == 0,
            unavailable_for: row
                .get::<_, Option<i64>>(6)?
                .map(|since| tx.now.since(Timestamp(since))),
            last_error: row.get(7)?,
            messages: Vec::new(),
        };
        Ok((turn, row.get::<_, Option<i64>>(8)?, turn_last))
    };
    let Some((mut turn, head, turn_last)) = tx.row(TAKE, params, read)? else {
        return Ok(None);
    };
    tx.carries(Method::Claim);
    turn.messages = chain(tx, conversation, head, turn_last)?;
    Ok(Some(turn))
}

/// The messages from `head` on, up to the one that takes the place `last`.
fn chain(
    tx: &Tx<'_>,
    conversation: ConversationId,
    head: Option<i64>,
    last: i64,
) -> rusqlite::Result<Vec<StoredMessage>> {
    let mut messages = Vec::with_capacity(1);
    let mut next = head;
    while let Some(id) = next {
        let Some((message, after)) = tx.row(MESSAGE, [id, conversation.0], read_message)? else {
            break;
        };
        let is_last = message.seq >= last;
        messages.push(message);
        next = after.filter(|_| !is_last);
    }
    Ok(messages)
}

fn read_message(row: &Row<'_>) -> rusqlite::Result<(StoredMessage, Option<i64>)> {
    let message = StoredMessage {
        seq: row.get(0)?,
        key: EventKey(row.get(1)?),
        received_at: Timestamp(row.get(2)?),
        envelope: row.get(3)?,
    };
    Ok((message, row.get(4)?))
}

// What the store says a node holds -------------------------------------------------------------

const HELD: &str = "SELECT id, epoch, claim FROM conversation WHERE owner = ?1";

pub(super) fn free_unknown(tx: &Tx<'_>, node: NodeId, keep: &Keep) -> rusqlite::Result<Vec<Lease>> {
    let held = tx.rows(HELD, [node.0], |row| {
        let lease = Lease {
            conversation: ConversationId(row.get(0)?),
            epoch: row.get(1)?,
            node,
        };
        Ok((lease, ClaimToken(row.get(2)?)))
    })?;
    let mut freed = Vec::new();
    for (lease, token) in held {
        if !keep(token, lease) {
            let back = Release {
                wait: Duration::ZERO,
                counts: false,
                unavailable: false,
                error: None,
            };
            tx.carries(Method::FreeUnknown);
            give_back(tx, lease, &back)?;
            freed.push(lease);
        }
    }
    Ok(freed)
}

// Finish -------------------------------------------------------------------------------------

const STANDING: &str = "
    SELECT epoch, done_seq, turn_last, attempt, number, head_message
      FROM conversation WHERE id = ?1";
const NEXT: &str = "DELETE FROM message_next WHERE id = ?1 RETURNING next";
const FINISH: &str = "
    UPDATE conversation
       SET done_seq = ?2, owner = NULL, claim = NULL, attempt = 0, turn_last = NULL,
           not_before = 0, unavailable_since = NULL, last_error = NULL, head_message = ?4,
           ready_at = CASE WHEN ?5 THEN max(?3, quiet_until) END
     WHERE id = ?1 RETURNING ready_at";
const RECORD_TURN: &str = "
    INSERT INTO turn (conversation, seq, seq_last, outcome, attempts, epoch, node, started_at,
                      finished_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const BURY: &str = "
    INSERT INTO dead_letter (kind, conversation, seq, seq_last, reason, attempts, at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

struct Standing {
    epoch: i64,
    done_seq: i64,
    turn_last: Option<i64>,
    attempt: i64,
    number: String,
    head_message: Option<i64>,
}

pub(super) fn finish(tx: &Tx<'_>, lease: Lease, finish: &Finish) -> rusqlite::Result<Written> {
    let conversation = lease.conversation;
    let Some(standing) = tx.row(STANDING, [conversation.0], read_standing)? else {
        return Ok(Written::Fenced);
    };
    let is_old = standing.epoch != lease.epoch;
    if is_old && guard::holds(Guard::EpochCheck) {
        return Ok(Written::Fenced);
    }
    // The answer of an earlier try of this very write was lost.
    if !is_old && standing.done_seq >= finish.seq_last {
        return Ok(Written::Done);
    }
    if !is_old && standing.turn_last != Some(finish.seq_last) {
        return Ok(Written::Fenced);
    }
    tx.carries(Method::Finish);
    let head = head_after(tx, &standing, finish.seq_last)?;
    let is_due = head.is_some() && guard::holds(Guard::ReReady);
    let done_seq = standing.done_seq.max(finish.seq_last);
    let params = params![conversation.0, done_seq, tx.now.0, head, is_due];
    let ready: Option<i64> = tx.row(FINISH, params, |row| row.get(0))?.flatten();
    if ready.is_some() {
        tx.wake_turns();
    }
    let seq = standing.done_seq + 1;
    let turn = TurnId { conversation, seq };
    let is_well = !matches!(finish.end, TurnEnd::Dead(_));
    let has_sent = bot_sends::finish(tx, turn, lease.epoch, &standing.number, is_well)?;
    record_turn(tx, lease, &standing, finish, has_sent)?;
    match &finish.end {
        TurnEnd::Reply(bodies) => {
            outbox::enqueue(tx, conversation, &standing.number, seq, bodies)?;
        }
        TurnEnd::Silence => {}
        TurnEnd::Dead(reason) => {
            let kind = DeadKind::Turn as u8;
            let attempts = standing.attempt;
            tx.execute(
                BURY,
                params![
                    kind,
                    conversation.0,
                    seq,
                    finish.seq_last,
                    reason,
                    attempts,
                    tx.now.0
                ],
            )?;
        }
    }
    Ok(Written::Done)
}

/// The first message that is still pending once those up to `seq_last` are done.
fn head_after(tx: &Tx<'_>, standing: &Standing, seq_last: i64) -> rusqlite::Result<Option<i64>> {
    let mut head = standing.head_message;
    for _ in standing.done_seq..seq_last {
        let Some(id) = head else { break };
        head = tx.row(NEXT, [id], |row| row.get(0))?;
    }
    Ok(head)
}

fn read_standing(row: &Row<'_>) -> rusqlite::Result<Standing> {
    Ok(Standing {
        epoch: row.get(0)?,
        done_seq: row.get(1)?,
        turn_last: row.get(2)?,
        attempt: row.get(3)?,
        number: row.get(4)?,
        head_message: row.get(5)?,
    })
}

fn record_turn(
    tx: &Tx<'_>,
    lease: Lease,
    standing: &Standing,
    finish: &Finish,
    has_sent: bool,
) -> rusqlite::Result<()> {
    let outcome = match finish.end {
        TurnEnd::Reply(_) => 1,
        TurnEnd::Silence if has_sent => 1,
        TurnEnd::Silence => 2,
        TurnEnd::Dead(_) => 3,
    };
    tx.execute(
        RECORD_TURN,
        params![
            lease.conversation.0,
            standing.done_seq + 1,
            finish.seq_last,
            outcome,
            standing.attempt,
            lease.epoch,
            lease.node.0,
            finish.started_at.0,
            tx.now.0,
        ],
    )?;
    Ok(())
}

// Release ------------------------------------------------------------------------------------

const RELEASE: &str = "
    UPDATE conversation
       SET owner = NULL, claim = NULL, not_before = ?4, ready_at = max(?4, quiet_until),
           attempt = attempt - ?5,
           unavailable_since = CASE WHEN ?6 THEN coalesce(unavailable_since, ?7) END,
           last_error = coalesce(?8, last_error)
     WHERE id = ?1 AND ((epoch = ?2 AND owner = ?3) OR NOT ?9)";

pub(super) fn release(tx: &Tx<'_>, lease: Lease, release: &Release) -> rusqlite::Result<Written> {
    tx.carries(Method::Release);
    give_back(tx, lease, release)
}

fn give_back(tx: &Tx<'_>, lease: Lease, release: &Release) -> rusqlite::Result<Written> {
    let released = tx.execute(
        RELEASE,
        params![
            lease.conversation.0,
            lease.epoch,
            lease.node.0,
            tx.now.after(release.wait).0,
            i64::from(!release.counts),
            release.unavailable,
            tx.now.0,
            release.error,
            guard::holds(Guard::EpochCheck),
        ],
    )?;
    if released == 0 {
        return Ok(Written::Fenced);
    }
    tx.wake_turns();
    Ok(Written::Done)
}
