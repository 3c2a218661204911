//! Questions to the ledger, asked on a connection that cannot write.

use rusqlite::{Connection, OptionalExtension, Row};

use super::super::{
    ArrivalRecord, Arrivals, Backlog, DeadKind, DeadLetter, Oldest, OrphanRecord, OutgoingRecord,
    WaitReason,
};
use super::append::read_answer;
use super::outbox::read_state;
use super::threads::{ORPHANS, read_orphan};
use crate::model::{ConversationId, DeliveryId, EventKey, OutgoingId, Rank, Timestamp, Wamid};

// Conversations with something pending are those that are ready and those that are owned.
const PENDING: &str = "
    SELECT count(*), coalesce(sum(next_seq - 1 - done_seq), 0) FROM (
        SELECT next_seq, done_seq FROM conversation WHERE ready_at IS NOT NULL
        UNION ALL
        SELECT next_seq, done_seq FROM conversation WHERE owner IS NOT NULL AND ready_at IS NULL)";
const OLDEST: &str = "
    SELECT c.id, m.received_at, c.owner IS NOT NULL, coalesce(c.not_before > ?1, 0)
      FROM (SELECT id, head_message, owner, not_before FROM conversation
             WHERE ready_at IS NOT NULL
            UNION ALL
            SELECT id, head_message, owner, not_before FROM conversation
             WHERE owner IS NOT NULL AND ready_at IS NULL) c
      JOIN message m ON m.id = c.head_message
     ORDER BY m.received_at LIMIT 1";
const OUTGOING: &str = "
    SELECT count(*), coalesce(sum(state = 2), 0) FROM outgoing WHERE state < 3";
const DEAD: &str = "SELECT count(*) FROM dead_letter WHERE closed_at IS NULL";
const PAUSED: &str = "SELECT count(*) FROM number WHERE paused_until > ?1";
// By its smallest index: the rows themselves are large.
const RELAYS: &str = "SELECT count(*) FROM relay INDEXED BY relay_age";

pub(super) fn backlog(conn: &Connection, now: Timestamp) -> rusqlite::Result<Backlog> {
    let pair = |row: &Row<'_>| Ok((count(row, 0)?, count(row, 1)?));
    let (conversations_pending, messages_pending) =
        conn.prepare_cached(PENDING)?.query_row([], pair)?;
    let (outgoing_open, outgoing_unsure) = conn.prepare_cached(OUTGOING)?.query_row([], pair)?;
    let oldest = conn
        .prepare_cached(OLDEST)?
        .query_row([now.0], |row| read_oldest(row, now))
        .optional()?;
    Ok(Backlog {
        messages_pending,
        conversations_pending,
        oldest,
        outgoing_open,
        outgoing_unsure,
        dead_letters: conn
            .prepare_cached(DEAD)?
            .query_row([], |row| count(row, 0))?,
        numbers_paused: conn
            .prepare_cached(PAUSED)?
            .query_row([now.0], |row| count(row, 0))?,
        relays: conn
            .prepare_cached(RELAYS)?
            .query_row([], |row| count(row, 0))?,
    })
}

fn count(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0))
}

fn read_oldest(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<Oldest> {
    let owned: bool = row.get(2)?;
    let waits: bool = row.get(3)?;
    let reason = match (owned, waits) {
        (true, _) => WaitReason::Turn,
        (false, true) => WaitReason::Retry,
        (false, false) => WaitReason::Worker,
    };
    Ok(Oldest {
        conversation: ConversationId(row.get(0)?),
        waiting: now.since(Timestamp(row.get(1)?)),
        reason,
    })
}

const DEAD_LETTERS: &str = "
    SELECT kind, conversation, outgoing, seq, reason, attempts, at FROM dead_letter
     WHERE closed_at IS NULL ORDER BY id DESC LIMIT ?1";

pub(super) fn dead_letters(conn: &Connection, limit: u32) -> rusqlite::Result<Vec<DeadLetter>> {
    conn.prepare_cached(DEAD_LETTERS)?
        .query_map([limit], read_dead_letter)?
        .collect()
}

fn read_dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    let kind = match row.get::<_, u8>(0)? {
        1 => DeadKind::Turn,
        2 => DeadKind::Outgoing,
        3 => DeadKind::Unsure,
        other => {
            return Err(rusqlite::Error::IntegralValueOutOfRange(
                0,
                i64::from(other),
            ));
        }
    };
    Ok(DeadLetter {
        kind,
        conversation: ConversationId(row.get(1)?),
        outgoing: row.get::<_, Option<i64>>(2)?.map(OutgoingId),
        seq: row.get(3)?,
        reason: row.get(4)?,
        attempts: row.get(5)?,
        at: Timestamp(row.get(6)?),
    })
}

const OUTGOINGS: &str = "
    SELECT id, conversation, turn_seq, state, attempt, rank, failed_attempt, wamid
      FROM outgoing WHERE id > ?1 ORDER BY id LIMIT ?2";

pub(super) fn outgoings(
    conn: &Connection,
    after: Option<OutgoingId>,
    limit: u32,
) -> rusqlite::Result<Vec<OutgoingRecord>> {
    let after = after.map_or(i64::MIN, |id| id.0);
    conn.prepare_cached(OUTGOINGS)?
        .query_map((after, limit), read_outgoing)?
        .collect()
}

fn read_outgoing(row: &Row<'_>) -> rusqlite::Result<OutgoingRecord> {
    let rank: u8 = row.get(5)?;
    let unknown = rusqlite::Error::IntegralValueOutOfRange(5, i64::from(rank));
    Ok(OutgoingRecord {
        id: OutgoingId(row.get(0)?),
        conversation: ConversationId(row.get(1)?),
        seq: row.get(2)?,
        state: read_state(row, 3)?,
        attempt: row.get(4)?,
        rank: Rank::from_number(rank).ok_or(unknown)?,
        failed: row.get(6)?,
        wamid: row.get::<_, Option<String>>(7)?.map(Wamid::new),
    })
}

pub(super) fn orphans(
    conn: &Connection,
    now: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<OrphanRecord>> {
    conn.prepare_cached(ORPHANS)?
        .query_map((now.0, limit), read_orphan)?
        .collect()
}

const EVENT: &str = "SELECT arrivals, first_at, last_at, delivery FROM event WHERE key = ?1";
const LOG: &str = "
    SELECT a.at, a.delivery, coalesce(a.status, d.status), coalesce(a.latency_us, d.latency_us)
      FROM arrival a LEFT JOIN delivery d ON d.id = a.delivery
     WHERE a.event = ?1 ORDER BY a.at, a.delivery";
const ONLY: &str = "
    SELECT ?1, ?2, (SELECT status FROM delivery WHERE id = ?2),
           (SELECT latency_us FROM delivery WHERE id = ?2)";

pub(super) fn arrivals(conn: &Connection, key: EventKey) -> rusqlite::Result<Option<Arrivals>> {
    let event = conn
        .prepare_cached(EVENT)?
        .query_row([key.0], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?))
        })
        .optional()?;
    let Some((count, first_at, last_at, delivery)) = event else {
        return Ok(None);
    };
    let mut log: Vec<ArrivalRecord> = conn
        .prepare_cached(LOG)?
        .query_map([key.0], read_arrival)?
        .collect::<Result<_, _>>()?;
    if log.is_empty() {
        let params: (i64, i64) = (first_at, delivery);
        log.push(conn.prepare_cached(ONLY)?.query_row(params, read_arrival)?);
    }
    let (first_at, last_at) = (Timestamp(first_at), Timestamp(last_at));
    Ok(Some(Arrivals {
        count,
        first_at,
        last_at,
        log,
    }))
}

fn read_arrival(row: &Row<'_>) -> rusqlite::Result<ArrivalRecord> {
    Ok(ArrivalRecord {
        at: Timestamp(row.get(0)?),
        delivery: row.get::<_, Option<i64>>(1)?.map(DeliveryId),
        answer: read_answer(row, 2)?,
    })
}
