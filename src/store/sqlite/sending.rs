//! SEND: takes due outgoings and marks them before anybody calls Meta.

use rusqlite::{Row, params};

use super::super::{SendRequest, Sending, Sends};
use super::node::is_member;
use super::tx::Tx;
use crate::crash_point::Method;
use crate::model::{
    ConversationId, NodeId, NumberId, OutgoingId, Recipient, Tag, Timestamp, TurnId,
};

const NUMBERS: &str = "SELECT id, paused_until FROM number";
// Only heads have a due time, and only a conversation without a send in question is sent from:
// the unique index on those refuses a second one in any case.
const DUE: &str = "
    SELECT o.due_at, o.id FROM outgoing o
     WHERE o.number = ?1 AND o.due_at <= ?2
       AND NOT EXISTS (SELECT 1 FROM outgoing q
                        WHERE q.conversation = o.conversation AND q.state IN (1, 2))
     ORDER BY o.due_at LIMIT ?3";
const MARK: &str = "
    UPDATE outgoing SET state = 1, attempt = attempt + 1, due_at = NULL, node = ?2, changed_at = ?3
     WHERE id = ?1";
const MARKED: &str = "
    SELECT o.id, o.attempt, o.conversation, o.number, coalesce(b.recipient, c.recipient), o.body,
           o.created_at, o.turn_seq, b.id IS NOT NULL
      FROM outgoing o JOIN conversation c ON c.id = o.conversation
                      LEFT JOIN bot_send b ON b.outgoing = o.id
     WHERE o.id = ?1";
const NEXT_DUE: &str = "
    SELECT min(max(o.due_at, n.paused_until))
      FROM number n JOIN outgoing o ON o.number = n.id AND o.due_at IS NOT NULL
     WHERE NOT EXISTS (SELECT 1 FROM outgoing q
                        WHERE q.conversation = o.conversation AND q.state IN (1, 2))";

/// `None` when the node has been declared dead.
pub(super) fn send(tx: &Tx<'_>, send: &SendRequest) -> rusqlite::Result<Option<Sends>> {
    if !is_member(tx, send.node)? {
        return Ok(None);
    }
    let mut sends = Sends::default();
    let numbers = tx.rows(NUMBERS, [], |row| {
        Ok((row.get::<_, String>(0)?, Timestamp(row.get(1)?)))
    })?;
    // Over all numbers the oldest go first: one with a long backlog must not keep back the others.
    let mut due: Vec<(i64, i64)> = Vec::new();
    for (number, paused_until) in &numbers {
        let limit = send.limit.min(budget(send, number));
        if limit == 0 || *paused_until > tx.now {
            continue;
        }
        let of_number = params![number, tx.now.0, limit];
        due.extend(tx.rows(DUE, of_number, |row| Ok((row.get(0)?, row.get(1)?)))?);
    }
    due.sort_unstable();
    for (_, id) in due.into_iter().take(send.limit as usize) {
        tx.carries(Method::Send);
        tx.execute(MARK, params![id, send.node.0, tx.now.0])?;
        let marked = tx.row(MARKED, [id], |row| read_sending(tx, send.node, row))?;
        sends.outgoings.extend(marked);
    }
    // Whoever got something asks again at once.
    if sends.outgoings.is_empty() {
        let due = tx.row(NEXT_DUE, [], |row| row.get::<_, Option<i64>>(0))?;
        sends.next_due = due.flatten().map(|due| Timestamp(due).since(tx.now));
    }
    Ok(Some(sends))
}

fn budget(send: &SendRequest, number: &str) -> u32 {
    send.budget
        .iter()
        .find(|(of, _)| of.as_str() == number)
        .map_or(send.limit, |(_, budget)| *budget)
}

fn read_sending(tx: &Tx<'_>, node: NodeId, row: &Row<'_>) -> rusqlite::Result<Sending> {
    let id = OutgoingId(row.get(0)?);
    let attempt = row.get(1)?;
    let conversation = ConversationId(row.get(2)?);
    let recipient: String = row.get(4)?;
    Ok(Sending {
        id,
        attempt,
        node,
        tag: Tag {
            store: tx.store,
            outgoing: id,
            attempt,
        },
        conversation,
        number: NumberId::new(row.get::<_, String>(3)?),
        // Written by Recipient::encode alone.
        recipient: Recipient::decode(&recipient).unwrap_or(Recipient::Phone(recipient)),
        body: row.get(5)?,
        age: tx.now.since(Timestamp(row.get(6)?)),
        turn: TurnId {
            conversation,
            seq: row.get(7)?,
        },
        is_bots: row.get(8)?,
    })
}
