//! Questions to the ledger, which change nothing.

use std::time::Duration;

use tokio_postgres::Row;

use super::super::{
    ArrivalRecord, Arrivals, Backlog, ClaimToken, DeadKind, DeadLetter, Oldest, OutgoingRecord,
    WaitReason,
};
use super::fault::Fault;
use super::gate::read_answer;
use super::outbox::{read_attempt, read_state};
use super::parameter::{Key, parameters};
use super::tx::Tx;
use crate::model::{
    ConversationId, DeliveryId, EventKey, Lease, NodeId, OutgoingId, Rank, Timestamp, Wamid,
};

const PENDING: &str = "
    SELECT count(*), coalesce(sum(c.next_seq - 1 - c.done_seq), 0)::bigint
      FROM pending p JOIN conversation c ON c.id = p.conversation";
// The heads are found from the pending ones, whatever is thought about their number: led by the
// order of messages, a ledger with nothing pending would be read to its end.
const OLDEST: &str = "
    WITH head AS MATERIALIZED (
        SELECT c.id, m.received_at, c.owner IS NOT NULL AS owned, c.not_before
          FROM pending p
          JOIN conversation c ON c.id = p.conversation
          JOIN message m ON m.conversation = c.id AND m.seq = c.done_seq + 1)
    SELECT id, now_ms() - received_at, owned, not_before > now_ms()
      FROM head ORDER BY received_at LIMIT 1";
const OUTGOING: &str = "SELECT count(*), count(*) FILTER (WHERE state = 2) FROM outbox";
const REST: &str = "
    SELECT (SELECT count(*) FROM dead_letter WHERE closed_at IS NULL),
           (SELECT count(*) FROM number WHERE paused_until > now_ms())";
const RELAYS: &str = "SELECT count(*), 0::bigint FROM relay";

pub(super) async fn backlog(tx: &mut Tx) -> Result<Backlog, Fault> {
    let pending = tx.queue(PENDING, Vec::new());
    let oldest = tx.queue(OLDEST, Vec::new());
    let outgoing = tx.queue(OUTGOING, Vec::new());
    let rest = tx.queue(REST, Vec::new());
    let relays = tx.queue(RELAYS, Vec::new());
    let mut answers = tx.commit().await?;
    let mut pair = |slot| {
        let rows = answers.take(slot);
        rows.first()
            .map_or((0, 0), |row| (count(row, 0), count(row, 1)))
    };
    let (conversations_pending, messages_pending) = pair(pending);
    let (outgoing_open, outgoing_unsure) = pair(outgoing);
    let (dead_letters, numbers_paused) = pair(rest);
    let (relays, _) = pair(relays);
    Ok(Backlog {
        messages_pending,
        conversations_pending,
        oldest: answers.take(oldest).first().map(read_oldest),
        outgoing_open,
        outgoing_unsure,
        dead_letters,
        numbers_paused,
        relays,
    })
}

fn count(row: &Row, at: usize) -> u64 {
    u64::try_from(row.get::<_, i64>(at)).unwrap_or(0)
}

fn read_oldest(row: &Row) -> Oldest {
    let reason = match (row.get(2), row.get(3)) {
        (true, _) => WaitReason::Turn,
        (false, true) => WaitReason::Retry,
        (false, false) => WaitReason::Worker,
    };
    Oldest {
        conversation: ConversationId(row.get(0)),
        waiting: Duration::from_millis(count(row, 1)),
        reason,
    }
}

const DEAD_LETTERS: &str = "
    SELECT kind, conversation, outgoing, seq, reason, attempts, at FROM dead_letter
     WHERE closed_at IS NULL ORDER BY id DESC LIMIT $1";

pub(super) async fn dead_letters(tx: &mut Tx, limit: u32) -> Result<Vec<DeadLetter>, Fault> {
    let dead = tx.queue(DEAD_LETTERS, parameters![i64::from(limit)]);
    let dead = tx.commit().await?.take(dead);
    dead.iter().map(read_dead_letter).collect()
}

fn read_dead_letter(row: &Row) -> Result<DeadLetter, Fault> {
    let kind = match row.get::<_, i16>(0) {
        1 => DeadKind::Turn,
        2 => DeadKind::Outgoing,
        3 => DeadKind::Unsure,
        other => return Err(Fault::Refused(format!("no kind has the number {other}"))),
    };
    Ok(DeadLetter {
        kind,
        conversation: ConversationId(row.get(1)),
        outgoing: row.get::<_, Option<i64>>(2).map(OutgoingId),
        seq: row.get(3),
        reason: row.get(4),
        attempts: read_attempt(row.get(5)),
        at: Timestamp(row.get(6)),
    })
}

const OUTGOINGS: &str = "
    SELECT id, conversation, turn_seq, state, attempt, rank, failed_attempt, wamid
      FROM outgoing WHERE id > $1 ORDER BY id LIMIT $2";

pub(super) async fn outgoings(
    tx: &mut Tx,
    after: Option<OutgoingId>,
    limit: u32,
) -> Result<Vec<OutgoingRecord>, Fault> {
    let after = after.map_or(i64::MIN, |id| id.0);
    let outgoings = tx.queue(OUTGOINGS, parameters![after, i64::from(limit)]);
    let outgoings = tx.commit().await?.take(outgoings);
    outgoings.iter().map(read_outgoing).collect()
}

fn read_outgoing(row: &Row) -> Result<OutgoingRecord, Fault> {
    let number: i16 = row.get(5);
    let rank = u8::try_from(number).ok().and_then(Rank::from_number);
    let unknown = || Fault::Refused(format!("no rank has the number {number}"));
    Ok(OutgoingRecord {
        id: OutgoingId(row.get(0)),
        conversation: ConversationId(row.get(1)),
        seq: row.get(2),
        state: read_state(row.get(3))?,
        attempt: read_attempt(row.get(4)),
        rank: rank.ok_or_else(unknown)?,
        failed: row.get::<_, Option<i64>>(6).map(read_attempt),
        wamid: row.get::<_, Option<String>>(7).map(Wamid::new),
    })
}

const EVENT: &str = "SELECT arrivals, first_at, last_at FROM event WHERE key = $1";
// One that came once has no log yet.
const LOG: &str = "
    SELECT a.at, a.delivery, coalesce(a.status, d.status), coalesce(a.latency_us, d.latency_us)
      FROM (SELECT at, delivery, status, latency_us FROM arrival WHERE event = $1
            UNION ALL
            SELECT first_at, delivery, NULL, NULL FROM event
             WHERE key = $1 AND NOT EXISTS (SELECT 1 FROM arrival WHERE event = $1)) a
      LEFT JOIN delivery d ON d.id = a.delivery
     ORDER BY a.at, a.delivery NULLS FIRST";

pub(super) async fn arrivals(tx: &mut Tx, key: EventKey) -> Result<Option<Arrivals>, Fault> {
    let event = tx.queue(EVENT, parameters![Key::from(key)]);
    let log = tx.queue(LOG, parameters![Key::from(key)]);
    let mut answers = tx.commit().await?;
    let event = answers.take(event);
    let Some(event) = event.first() else {
        return Ok(None);
    };
    Ok(Some(Arrivals {
        count: event.get(0),
        first_at: Timestamp(event.get(1)),
        last_at: Timestamp(event.get(2)),
        log: answers.take(log).iter().map(read_arrival).collect(),
    }))
}

fn read_arrival(row: &Row) -> ArrivalRecord {
    ArrivalRecord {
        at: Timestamp(row.get(0)),
        delivery: row.get::<_, Option<i64>>(1).map(DeliveryId),
        answer: read_answer(row, 2),
    }
}

const HELD: &str = "
    SELECT c.id, c.epoch, c.claim FROM pending p JOIN conversation c ON c.id = p.conversation
     WHERE p.node = $1 AND c.owner = $1";

/// What the ledger says a node holds.
pub(super) async fn held(tx: &mut Tx, node: NodeId) -> Result<Vec<(ClaimToken, Lease)>, Fault> {
    let held = tx.queue(HELD, parameters![node.0]);
    let held = tx.commit().await?.take(held);
    let read = |row: &Row| {
        let lease = Lease {
            conversation: ConversationId(row.get(0)),
            epoch: row.get(1),
            node,
        };
        (ClaimToken(row.get(2)), lease)
    };
    Ok(held.iter().map(read).collect())
}
