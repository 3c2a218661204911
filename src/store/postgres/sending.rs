//! SEND: takes due outgoings and marks them before anybody calls Meta.

use std::time::Duration;

use tokio_postgres::Row;

use super::super::{SendRequest, Sending, Sends};
use super::fault::Fault;
use super::node::IS_NODE;
use super::outbox::read_attempt;
use super::parameter::parameters;
use super::tx::Tx;
use crate::crash_point::Method;
use crate::model::{
    ConversationId, NodeId, NumberId, OutgoingId, Recipient, Tag, Timestamp, TurnId,
};

// Locks the conversations of due heads, at most so many of each number that is not paused. Only
// heads have a due time, and nothing is sent beside a send in question.
//
// The node's row is kept until the commit, so that nothing is given to one that is declared dead
// meanwhile; but only where something is due: who locks a row has to wait for the disk.
pub(super) const LOCK_DUE: &str = "
    WITH due AS MATERIALIZED (
        SELECT d.conversation, d.due_at
          FROM number m
          LEFT JOIN unnest($3::text[], $4::int8[]) AS b(number, budget) ON b.number = m.id
         CROSS JOIN LATERAL (
               SELECT o.conversation, o.due_at FROM outbox o
                WHERE o.number = m.id AND o.due_at <= now_ms()
                  AND NOT EXISTS (SELECT 1 FROM outbox q
                                   WHERE q.conversation = o.conversation AND q.state IN (1, 2))
                ORDER BY o.due_at LIMIT least($2, coalesce(b.budget, $2))) d
         WHERE m.paused_until <= now_ms() ORDER BY d.due_at LIMIT $2),
    member AS MATERIALIZED (
        SELECT 1 FROM node WHERE id = $1 AND EXISTS (SELECT 1 FROM due) FOR KEY SHARE)
    SELECT c.id FROM due d JOIN conversation c ON c.id = d.conversation
     WHERE EXISTS (SELECT 1 FROM member)
       FOR UPDATE OF c SKIP LOCKED";
// Looked at again, now that nobody else can change it.
const MARK: &str = "
    WITH marked AS (
        UPDATE outbox o SET state = 1, due_at = NULL, node = $1
         WHERE o.conversation = ANY($2) AND o.due_at <= now_ms() AND o.state = 0
           AND NOT EXISTS (SELECT 1 FROM outbox q
                            WHERE q.conversation = o.conversation AND q.state IN (1, 2))
        RETURNING o.conversation, o.outgoing)
    UPDATE outgoing o SET state = 1, attempt = o.attempt + 1, changed_at = now_ms()
      FROM marked m JOIN conversation c ON c.id = m.conversation
                    LEFT JOIN bot_send b ON b.outgoing = m.outgoing
     WHERE o.id = m.outgoing AND o.conversation = m.conversation
    RETURNING o.id, o.attempt, o.conversation, o.number, coalesce(b.recipient, c.recipient),
              o.body, o.created_at, o.turn_seq, b.id IS NOT NULL";
const NEXT_DUE: &str = "
    SELECT min(greatest(d.due_at, m.paused_until)) - now_ms()
      FROM number m
     CROSS JOIN LATERAL (
           SELECT o.due_at FROM outbox o
            WHERE o.number = m.id AND o.due_at IS NOT NULL
              AND NOT EXISTS (SELECT 1 FROM outbox q
                               WHERE q.conversation = o.conversation AND q.state IN (1, 2))
            ORDER BY o.due_at LIMIT 1) d";

pub(super) async fn send(tx: &mut Tx, send: &SendRequest) -> Result<Sends, Fault> {
    let (numbers, budgets): (Vec<String>, Vec<i64>) = send
        .budget
        .iter()
        .map(|(number, budget)| (number.as_str().to_owned(), i64::from(*budget)))
        .unzip();
    let member = tx.queue(IS_NODE, parameters![send.node.0]);
    let limit = i64::from(send.limit);
    let due = tx.queue(LOCK_DUE, parameters![send.node.0, limit, numbers, budgets]);
    let mut answers = tx.flush().await?;
    if answers.take(member).is_empty() {
        return Err(Fault::DeadNode);
    }
    let conversations: Vec<i64> = answers.take(due).iter().map(|row| row.get(0)).collect();
    let mut sends = Sends::default();
    if conversations.is_empty() {
        let next = tx.queue(NEXT_DUE, Vec::new());
        let next = tx.commit().await?.take(next);
        sends.next_due = next.first().and_then(|row| read_wait(row.get(0)));
        return Ok(sends);
    }
    tx.carries(Method::Send);
    let marked = tx.queue(MARK, parameters![send.node.0, conversations]);
    let marked = tx.commit().await?.take(marked);
    sends.outgoings = marked
        .iter()
        .map(|row| read_sending(tx, send.node, row))
        .collect();
    if sends.outgoings.is_empty() {
        sends.next_due = Some(Duration::ZERO);
    }
    Ok(sends)
}

/// Milliseconds from now; what is overdue waits for nothing but its turn.
pub(super) fn read_wait(millis: Option<i64>) -> Option<Duration> {
    millis.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

fn read_sending(tx: &Tx, node: NodeId, row: &Row) -> Sending {
    let id = OutgoingId(row.get(0));
    let attempt = read_attempt(row.get(1));
    let conversation = ConversationId(row.get(2));
    let recipient: String = row.get(4);
    Sending {
        id,
        attempt,
        node,
        tag: Tag {
            store: tx.store(),
            outgoing: id,
            attempt,
        },
        conversation,
        number: NumberId::new(row.get::<_, String>(3)),
        // Written by Recipient::encode alone.
        recipient: Recipient::decode(&recipient).unwrap_or(Recipient::Phone(recipient)),
        body: row.get(5),
        age: tx.now().since(Timestamp(row.get(6))),
        turn: TurnId {
            conversation,
            seq: row.get(7),
        },
        is_bots: row.get(8),
    }
}
