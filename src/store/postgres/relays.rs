//! RELAY: statuses and notices that a bot is to get wait here, are taken, and end. No row of these
//! is ever waited for: what somebody else has locked is passed over.

use tokio_postgres::Row;

use super::super::relays::UNTOLD_MAX;
use super::super::{OwnMessage, RelayEnd, RelayRequest, Relaying, Verdict};
use super::fault::Fault;
use super::gate::Arriving;
use super::node::IS_NODE;
use super::parameter::{Key, indexed, parameters, storable};
use super::tx::Tx;
use crate::crash_point::Method;
use crate::model::bot_send::Told;
use crate::model::{BotSendId, ConversationId, EventKey, NodeId, NumberId};

const ADD: &str = "
    INSERT INTO relay (event, number, at, due_at, envelope)
    SELECT event, number, at, now_ms(), envelope
      FROM unnest($1::uuid[], $2::text[], $3::int8[], $4::text[]) WITH ORDINALITY
           AS n(event, number, at, envelope, place)
     ORDER BY place
    ON CONFLICT (event) DO NOTHING";

/// Queues what of a batch is new and to be relayed.
pub(super) fn queue_new(tx: &mut Tx, arriving: &[Arriving<'_>], verdicts: &[Verdict]) {
    let (mut keys, mut numbers) = (Vec::new(), Vec::new());
    let (mut ats, mut envelopes) = (Vec::new(), Vec::new());
    for (one, verdict) in arriving.iter().zip(verdicts) {
        let Some(envelope) = &one.event.relay else {
            continue;
        };
        if *verdict == Verdict::Accepted {
            let number = one.event.number.as_ref().map_or("", NumberId::as_str);
            keys.push(Key::from(one.event.key));
            numbers.push(indexed(number));
            ats.push(tx.translate(one.delivery.at).0);
            envelopes.push(storable(envelope));
        }
    }
    if !keys.is_empty() {
        tx.queue(ADD, parameters![keys, numbers, ats, envelopes]);
        tx.woke_relays = true;
    }
}

const FREE_LOST: &str = "
    UPDATE relay SET node = NULL WHERE node = $1 AND NOT event = ANY($2)";
// The node's row is kept until the commit, so that nothing is given to one that is declared dead
// meanwhile; but only where something is due. A status of a bot's send whose caller is about to be
// told of it comes after that.
const TAKE: &str = "
    WITH RECURSIVE each (number) AS (
        SELECT min(number) FROM relay WHERE node IS NULL
        UNION ALL
        SELECT (SELECT min(number) FROM relay WHERE node IS NULL AND number > each.number)
          FROM each WHERE each.number IS NOT NULL),
    due AS MATERIALIZED (
        SELECT d.event, d.id FROM each
         CROSS JOIN LATERAL (
               SELECT r.event, r.id FROM relay r
                WHERE r.number = each.number AND r.node IS NULL AND r.due_at <= now_ms()
                  AND NOT EXISTS (
                      SELECT 1 FROM receipt p JOIN bot_send b ON b.outgoing = p.outgoing
                       WHERE p.event = r.event AND b.told = 0 AND b.heard_at > now_ms() - $4)
                ORDER BY r.id LIMIT $3 FOR UPDATE OF r SKIP LOCKED) d
         WHERE each.number IS NOT NULL AND NOT each.number = ANY($2)
         ORDER BY d.id LIMIT $3),
    member AS MATERIALIZED (
        SELECT 1 FROM node WHERE id = $1 AND EXISTS (SELECT 1 FROM due) FOR KEY SHARE),
    taken AS (
        UPDATE relay r SET node = $1 FROM due
         WHERE r.event = due.event AND EXISTS (SELECT 1 FROM member)
        RETURNING r.event, r.id, r.number, r.failures, r.envelope)
    SELECT t.event, t.number, t.failures, t.envelope, o.conversation, b.callback, b.id, b.told
      FROM taken t LEFT JOIN receipt p ON p.event = t.event
                   LEFT JOIN outgoing o ON o.id = p.outgoing
                   LEFT JOIN bot_send b ON b.outgoing = p.outgoing
     ORDER BY t.id";

pub(super) async fn take(tx: &mut Tx, request: &RelayRequest) -> Result<Vec<Relaying>, Fault> {
    let member = tx.queue(IS_NODE, parameters![request.node.0]);
    let holds: Vec<Key> = request.holds.iter().copied().map(Key::from).collect();
    tx.queue(FREE_LOST, parameters![request.node.0, holds]);
    let except = request.except.iter();
    let except: Vec<String> = except.map(|number| indexed(number.as_str())).collect();
    let untold_ms = UNTOLD_MAX.as_millis() as i64;
    let limit = i64::from(request.limit);
    let parameters = parameters![request.node.0, except, limit, untold_ms];
    let taken = tx.queue(TAKE, parameters);
    let mut answers = tx.flush().await?;
    if answers.take(member).is_empty() {
        return Err(Fault::DeadNode);
    }
    let taken: Vec<Relaying> = answers.take(taken).iter().map(read).collect();
    if !taken.is_empty() {
        tx.carries(Method::Relay);
    }
    Ok(taken)
}

fn read(row: &Row) -> Relaying {
    let conversation: Option<i64> = row.get(4);
    let is_own = row.get::<_, Option<i16>>(7) == Some(Told::OwnId as i16);
    let send: Option<i64> = row.get(6);
    Relaying {
        key: row.get::<_, Key>(0).into(),
        number: NumberId::new(row.get::<_, String>(1)),
        failures: u32::try_from(row.get::<_, i32>(2)).unwrap_or(0),
        envelope: row.get(3),
        of: conversation.map(|conversation| OwnMessage {
            conversation: ConversationId(conversation),
            callback: row.get(5),
            known_as: send.filter(|_| is_own).map(BotSendId),
        }),
    }
}

const OVER: &str = "DELETE FROM relay WHERE event = $1";
const AGAIN: &str = "
    UPDATE relay SET node = NULL, due_at = now_ms() + $3, failures = failures + $4
     WHERE event = $1 AND node = $2";

pub(super) async fn end(
    tx: &mut Tx,
    node: NodeId,
    key: EventKey,
    end: RelayEnd,
) -> Result<(), Fault> {
    tx.carries(Method::Relayed);
    match end {
        RelayEnd::Over => tx.queue(OVER, parameters![Key::from(key)]),
        RelayEnd::Again { wait, counts } => {
            let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 4);
            let parameters = parameters![Key::from(key), node.0, wait_ms, i32::from(counts)];
            tx.queue(AGAIN, parameters)
        }
    };
    tx.commit().await.map(drop)
}

const FREE: &str = "UPDATE relay SET node = NULL WHERE node = ANY($1)";

/// Queues that what these nodes had is free again. Their rows are gone.
pub(super) fn queue_free(tx: &mut Tx, nodes: Vec<i64>) {
    tx.queue(FREE, parameters![nodes]);
    tx.woke_relays = true;
}
