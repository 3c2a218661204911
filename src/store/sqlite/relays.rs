//! RELAY: statuses and notices that a bot is to get wait here, are taken, and end.

use rusqlite::{Row, params};

use super::super::relays::UNTOLD_MAX;
use super::super::{OwnMessage, RelayEnd, RelayRequest, Relaying};
use super::node::is_member;
use super::tx::Tx;
use crate::crash_point::Method;
use crate::model::bot_send::Told;
use crate::model::{BotSendId, ConversationId, Event, EventKey, NodeId, NumberId, Timestamp};

const ADD: &str = "
    INSERT INTO relay (event, number, at, due_at, envelope) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (event) DO NOTHING";

/// Has a new event wait.
pub(super) fn add(
    tx: &Tx<'_>,
    at: Timestamp,
    event: &Event,
    envelope: &str,
) -> rusqlite::Result<()> {
    let number = event.number.as_ref().map_or("", NumberId::as_str);
    let params = params![event.key.0, number, at.0, tx.now.0, envelope];
    tx.execute(ADD, params)?;
    tx.wake_relays();
    Ok(())
}

const OF_NODE: &str = "SELECT event FROM relay WHERE node = ?1";
const FREE_ONE: &str = "UPDATE relay SET node = NULL WHERE event = ?1";
const NUMBERS: &str = "
    WITH RECURSIVE each (number) AS (
        SELECT min(number) FROM relay WHERE node IS NULL
        UNION ALL
        SELECT (SELECT min(number) FROM relay WHERE node IS NULL AND number > each.number)
          FROM each WHERE each.number IS NOT NULL)
    SELECT number FROM each WHERE number IS NOT NULL";
// A status of a bot's send whose caller is about to be told of it comes after that.
const DUE: &str = "
    SELECT r.id FROM relay r
     WHERE r.number = ?1 AND r.node IS NULL AND r.due_at <= ?2
       AND NOT EXISTS (SELECT 1 FROM receipt p JOIN bot_send b ON b.outgoing = p.outgoing
                        WHERE p.event = r.event AND b.told = 0 AND b.heard_at > ?3)
     ORDER BY r.id LIMIT ?4";
const TAKE: &str = "UPDATE relay SET node = ?2 WHERE id = ?1";
const TAKEN: &str = "
    SELECT r.event, r.number, r.failures, r.envelope, o.conversation, b.callback, b.id, b.told
      FROM relay r LEFT JOIN receipt p ON p.event = r.event
                   LEFT JOIN outgoing o ON o.id = p.outgoing
                   LEFT JOIN bot_send b ON b.outgoing = p.outgoing
     WHERE r.id = ?1";

/// `None` when the node has been declared dead.
pub(super) fn take(tx: &Tx<'_>, request: &RelayRequest) -> rusqlite::Result<Option<Vec<Relaying>>> {
    if !is_member(tx, request.node)? {
        return Ok(None);
    }
    let of_node = tx.rows(OF_NODE, [request.node.0], |row| row.get(0).map(EventKey))?;
    for lost in of_node.iter().filter(|key| !request.holds.contains(key)) {
        tx.execute(FREE_ONE, [lost.0])?;
    }
    let untold_since = tx.now.0 - UNTOLD_MAX.as_millis() as i64;
    let mut due: Vec<i64> = Vec::new();
    for number in tx.rows(NUMBERS, [], |row| row.get::<_, String>(0))? {
        if request
            .except
            .iter()
            .any(|except| except.as_str() == number)
        {
            continue;
        }
        let params = params![number, tx.now.0, untold_since, request.limit];
        due.extend(tx.rows(DUE, params, |row| row.get::<_, i64>(0))?);
    }
    due.sort_unstable();
    due.truncate(request.limit as usize);
    let mut taken = Vec::with_capacity(due.len());
    for id in due {
        tx.carries(Method::Relay);
        tx.execute(TAKE, [id, request.node.0])?;
        taken.extend(tx.row(TAKEN, [id], read)?);
    }
    Ok(Some(taken))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Relaying> {
    let conversation: Option<i64> = row.get(4)?;
    let (callback, send, told): (_, Option<i64>, Option<u8>) =
        (row.get(5)?, row.get(6)?, row.get(7)?);
    let is_own = told == Some(Told::OwnId as u8);
    Ok(Relaying {
        key: EventKey(row.get(0)?),
        number: NumberId::new(row.get::<_, String>(1)?),
        failures: row.get(2)?,
        envelope: row.get(3)?,
        of: conversation.map(|conversation| OwnMessage {
            conversation: ConversationId(conversation),
            callback,
            known_as: send.filter(|_| is_own).map(BotSendId),
        }),
    })
}

const OVER: &str = "DELETE FROM relay WHERE event = ?1";
const AGAIN: &str = "
    UPDATE relay SET node = NULL, due_at = ?3, failures = failures + ?4
     WHERE event = ?1 AND node = ?2";

pub(super) fn end(tx: &Tx<'_>, node: NodeId, key: EventKey, end: RelayEnd) -> rusqlite::Result<()> {
    tx.carries(Method::Relayed);
    match end {
        RelayEnd::Over => tx.execute(OVER, [key.0])?,
        RelayEnd::Again { wait, counts } => {
            let due_at = tx.now.after(wait);
            tx.execute(AGAIN, params![key.0, node.0, due_at.0, counts])?
        }
    };
    Ok(())
}

const FREE: &str = "UPDATE relay SET node = NULL WHERE node = ?1";

/// Frees what a node had that is gone.
pub(super) fn free(tx: &Tx<'_>, node: NodeId) -> rusqlite::Result<()> {
    if tx.execute(FREE, [node.0])? > 0 {
        tx.wake_relays();
    }
    Ok(())
}
