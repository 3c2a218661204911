//! CLAIM: takes due conversations. The conversation row is locked and marked by one statement,
//! its messages are read by the next: read by the same one, they were those of before the lock.

use std::time::Duration;

use tokio_postgres::Row;

use super::super::{ClaimRequest, Claimed, ClaimedTurn, Policy, StoredMessage};
use super::fault::Fault;
use super::node::IS_NODE;
use super::outbox::read_attempt;
use super::parameter::{Key, parameters};
use super::sending::read_wait;
use super::tx::Tx;
use crate::crash_point::Method;
use crate::guard::{self, Guard};
use crate::model::{ContactId, ConversationId, Lease, NumberId, Timestamp, TurnId};

// The conditions on the conversation are looked at again under its lock; those on `pending` only
// lead there. The turn's end is frozen at its first claim, so that a retry consumes the same
// messages. An epoch never falls below its era's, so none is given out twice after a failover.
//
// The node's row is kept until the commit, so that nothing is given to one that is declared dead
// meanwhile; but only where something is due: who locks a row has to wait for the disk.
pub(super) const TAKE: &str = "
    WITH member AS MATERIALIZED (
        SELECT 1 FROM node
         WHERE id = $1 AND EXISTS (SELECT 1 FROM pending WHERE due_at <= now_ms())
           FOR KEY SHARE),
    due AS MATERIALIZED (
        SELECT c.id, p.due_at, c.turn_last IS NOT NULL AS is_again
          FROM pending p JOIN conversation c ON c.id = p.conversation
         WHERE p.due_at <= now_ms() AND c.owner IS NULL AND c.next_seq - 1 > c.done_seq
           AND greatest(c.not_before, c.quiet_until) <= now_ms()
           AND EXISTS (SELECT 1 FROM member)
         ORDER BY p.due_at LIMIT $3 FOR UPDATE OF c SKIP LOCKED)
    UPDATE conversation c
       SET epoch = greatest(c.epoch, l.era << 40) + 1, owner = $1, claim = $2,
           attempt = c.attempt + 1, turn_last = coalesce(c.turn_last, c.done_seq + $4)
      FROM due, ledger l
     WHERE c.id = due.id
    RETURNING c.id, c.epoch, c.number, c.contact, c.attempt, c.done_seq, c.turn_last,
              c.unavailable_since, c.last_error, due.due_at, due.is_again";
const OWN: &str = "
    UPDATE pending SET due_at = NULL, node = $1 WHERE conversation = ANY($2)";
const MESSAGES: &str = "
    SELECT m.conversation, m.seq, m.event, m.received_at, m.envelope
      FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS n(conversation, done, last)
      JOIN message m ON m.conversation = n.conversation AND m.seq > n.done AND m.seq <= n.last
     ORDER BY m.conversation, m.seq";
const NEXT_DUE: &str = "SELECT min(due_at) - now_ms() FROM pending WHERE due_at IS NOT NULL";

pub(super) async fn claim(tx: &mut Tx, claim: &ClaimRequest) -> Result<Claimed, Fault> {
    let messages_max: i64 = match claim.policy {
        Policy::Queue => 1,
    };
    let early = match guard::holds(Guard::TwoStepClaim) {
        true => None,
        false => Some(read_early(tx, messages_max).await?),
    };
    let member = tx.queue(IS_NODE, parameters![claim.node.0]);
    let limit = i64::from(claim.limit);
    let taken = tx.queue(
        TAKE,
        parameters![claim.node.0, claim.token.0, limit, messages_max],
    );
    let mut answers = tx.flush().await?;
    if answers.take(member).is_empty() {
        return Err(Fault::DeadNode);
    }
    let mut taken = answers.take(taken);
    if !taken.is_empty() {
        tx.carries(Method::Claim);
    }
    taken.sort_by_key(|row| row.get::<_, i64>(9));
    let mut turns: Vec<ClaimedTurn> = taken.iter().map(|row| read_turn(tx, claim, row)).collect();
    let conversations: Vec<i64> = taken.iter().map(|row| row.get(0)).collect();
    tx.queue(OWN, parameters![claim.node.0, conversations.clone()]);
    let done: Vec<i64> = taken.iter().map(|row| row.get(5)).collect();
    let last: Vec<i64> = taken.iter().map(|row| row.get(6)).collect();
    let messages = tx.queue(MESSAGES, parameters![conversations, done, last]);
    let next_due = tx.queue(NEXT_DUE, Vec::new());
    let mut answers = tx.commit().await?;
    let messages = answers.take(messages);
    for row in early.unwrap_or(messages) {
        let conversation = ConversationId(row.get(0));
        let turn = turns
            .iter_mut()
            .find(|turn| turn.lease.conversation == conversation);
        if let Some(turn) = turn {
            turn.messages.push(read_message(&row));
        }
    }
    Ok(Claimed {
        turns,
        next_due: answers
            .take(next_due)
            .first()
            .and_then(|row| read_wait(row.get(0))),
    })
}

const EARLY: &str = "
    SELECT m.conversation, m.seq, m.event, m.received_at, m.envelope
      FROM pending p JOIN conversation c ON c.id = p.conversation
      JOIN message m ON m.conversation = c.id AND m.seq > c.done_seq
                    AND m.seq <= coalesce(c.turn_last, c.done_seq + $1)
     ORDER BY m.conversation, m.seq";

/// What the messages of the turns would be if nothing changed until they are claimed.
async fn read_early(tx: &mut Tx, messages_max: i64) -> Result<Vec<Row>, Fault> {
    let early = tx.queue(EARLY, parameters![messages_max]);
    Ok(tx.flush().await?.take(early))
}

fn read_turn(tx: &Tx, claim: &ClaimRequest, row: &Row) -> ClaimedTurn {
    let conversation = ConversationId(row.get(0));
    let done_seq: i64 = row.get(5);
    let since = row.get::<_, Option<i64>>(7).map(Timestamp);
    ClaimedTurn {
        lease: Lease {
            conversation,
            epoch: row.get(1),
            node: claim.node,
        },
        id: TurnId {
            conversation,
            seq: done_seq + 1,
        },
        number: NumberId::new(row.get::<_, String>(2)),
        contact: ContactId(row.get(3)),
        attempt: read_attempt(row.get(4)),
        is_again: row.get(10),
        is_new: done_seq == 0,
        unavailable_for: since.map(|since| -> Duration { tx.now().since(since) }),
        last_error: row.get(8),
        messages: Vec::with_capacity(1),
    }
}

fn read_message(row: &Row) -> StoredMessage {
    StoredMessage {
        seq: row.get(1),
        key: row.get::<_, Key>(2).into(),
        received_at: Timestamp(row.get(3)),
        envelope: row.get(4),
    }
}
