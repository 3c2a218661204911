//! Ingress's transaction: each event passes the gate once, and new ones take their place.

use std::time::Duration;

use rusqlite::{Row, params};

use super::super::{ARRIVAL_LOG_MAX, Appended, AppendedEvent, Delivery, FailedArrival, Verdict};
use super::tx::Tx;
use super::{identity, outbox, relays};
use crate::crash_point::Method;
use crate::model::{
    Answer, ConversationId, Event, EventBody, EventKey, InboundMessage, Notice, NumberId,
    Recipient, Timestamp,
};

pub(super) fn append(tx: &Tx<'_>, delivery: &Delivery) -> rusqlite::Result<Appended> {
    tx.carries(Method::Append);
    let events: Result<Vec<_>, _> = delivery
        .events
        .iter()
        .map(|event| append_event(tx, delivery, event))
        .collect();
    Ok(Appended { events: events? })
}

fn append_event(
    tx: &Tx<'_>,
    delivery: &Delivery,
    event: &Event,
) -> rusqlite::Result<AppendedEvent> {
    let mut appended = AppendedEvent {
        key: event.key,
        kind: event.kind(),
        verdict: pass_gate(tx, delivery, event)?,
        place: None,
        outgoing: None,
        collision: false,
    };
    let accepted = appended.verdict == Verdict::Accepted;
    if let Some(envelope) = event.relay.as_ref().filter(|_| accepted) {
        relays::add(tx, delivery.at, event, envelope)?;
    }
    match (&event.body, &event.number) {
        (EventBody::Message(message), Some(number)) if accepted => {
            let placed = place_message(tx, delivery.at, event.key, number, message)?;
            appended.place = Some((placed.conversation, placed.seq));
            appended.collision = placed.collision;
        }
        (EventBody::Status(receipt), Some(number)) if accepted => {
            appended.outgoing = outbox::receive(tx, event.key, number, receipt, delivery.at)?;
        }
        // A repeated status may bring what the first lacked: pricing, errors.
        (EventBody::Status(receipt), Some(_)) => outbox::enrich(tx, event.key, &receipt.raw)?,
        (EventBody::Notice(notice), number) if accepted => {
            keep_notice(tx, delivery.at, event.key, number.as_ref(), notice)?;
        }
        (EventBody::Message(_) | EventBody::Notice(_), _) | (EventBody::Status(_), None) => {}
    }
    Ok(appended)
}

// The gate -----------------------------------------------------------------------------------

const PASS: &str = "
    INSERT INTO event (key, kind, arrivals, first_at, last_at, delivery, message)
    VALUES (?1, ?2, 1, ?3, ?3, ?4, ?5) ON CONFLICT (key) DO NOTHING";
const SEEN: &str = "
    SELECT e.arrivals, e.last_at, e.delivery, d.status, d.latency_us, d.events, e.first_at
      FROM event e LEFT JOIN delivery d ON d.id = e.delivery WHERE e.key = ?1";
const COUNT: &str = "
    UPDATE event SET arrivals = ?2, last_at = max(last_at, ?3), delivery = ?4 WHERE key = ?1";
// Apart from the count, because it rarely changes and stands in an index.
const CAME_EARLIER: &str = "UPDATE event SET first_at = ?2 WHERE key = ?1";

/// What the gate remembers of an event.
struct Seen {
    arrivals: i64,
    first_at: Timestamp,
    last_at: Timestamp,
    delivery: i64,
    answer: Option<Answer>,
    events: Option<i64>,
}

fn pass_gate(tx: &Tx<'_>, delivery: &Delivery, event: &Event) -> rusqlite::Result<Verdict> {
    let key = event.key;
    let message = match event.body {
        EventBody::Message(_) => Some(tx.next_message()?),
        EventBody::Status(_) | EventBody::Notice(_) => None,
    };
    let params = params![
        key.0,
        event.kind() as u8,
        delivery.at.0,
        delivery.id.0,
        message
    ];
    let is_new = tx.execute(PASS, params)? == 1;
    let failed: Vec<&FailedArrival> = delivery
        .failed_before
        .iter()
        .filter(|arrival| arrival.key == key)
        .collect();
    if is_new && failed.is_empty() {
        return Ok(Verdict::Accepted);
    }
    let Some(seen) = tx.row(SEEN, [key.0], read_seen)? else {
        return Ok(Verdict::Accepted);
    };
    let log = ArrivalLog { tx, key };
    if seen.arrivals == 1 && !is_new {
        log.write(1, seen.last_at, Some(seen.delivery), None)?;
    }
    let mut count = if is_new { 0 } else { seen.arrivals };
    for arrival in &failed {
        count += 1;
        log.write(count, arrival.at, None, Some(arrival.answer))?;
    }
    count += 1;
    log.write(count, delivery.at, Some(delivery.id.0), None)?;
    let first_at = failed.first().map_or(delivery.at, |arrival| arrival.at);
    tx.execute(COUNT, params![key.0, count, delivery.at.0, delivery.id.0])?;
    if first_at < seen.first_at {
        tx.execute(CAME_EARLIER, params![key.0, first_at.0])?;
    }
    if is_new {
        return Ok(Verdict::Accepted);
    }
    let (last_at, previous) = match failed.last() {
        Some(arrival) => (arrival.at, Some(arrival.answer)),
        None => (seen.last_at, seen.answer),
    };
    Ok(Verdict::Duplicate {
        count,
        gap: delivery.at.since(last_at),
        previous,
        rebatched: seen
            .events
            .is_some_and(|events| events != delivery.events.len() as i64),
    })
}

fn read_seen(row: &Row<'_>) -> rusqlite::Result<Seen> {
    Ok(Seen {
        arrivals: row.get(0)?,
        first_at: Timestamp(row.get(6)?),
        last_at: Timestamp(row.get(1)?),
        delivery: row.get(2)?,
        answer: read_answer(row, 3)?,
        events: row.get(5)?,
    })
}

/// An answer from the columns `at` (status) and `at + 1` (latency in microseconds).
pub(super) fn read_answer(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Answer>> {
    let status: Option<u16> = row.get(at)?;
    let latency: Option<i64> = row.get(at + 1)?;
    Ok(status.zip(latency).map(|(status, latency)| Answer {
        status,
        latency: Duration::from_micros(u64::try_from(latency).unwrap_or(0)),
    }))
}

struct ArrivalLog<'a> {
    tx: &'a Tx<'a>,
    key: EventKey,
}

const LOG: &str = "
    INSERT OR REPLACE INTO arrival (event, slot, at, delivery, status, latency_us)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

impl ArrivalLog<'_> {
    fn write(
        &self,
        count: i64,
        at: Timestamp,
        delivery: Option<i64>,
        answer: Option<Answer>,
    ) -> rusqlite::Result<()> {
        let status = answer.map(|answer| answer.status);
        let latency = answer.map(|answer| answer.latency.as_micros() as i64);
        let slot = count % ARRIVAL_LOG_MAX;
        self.tx.execute(
            LOG,
            params![self.key.0, slot, at.0, delivery, status, latency],
        )?;
        Ok(())
    }
}

// Messages -----------------------------------------------------------------------------------

struct Placed {
    conversation: ConversationId,
    seq: i64,
    collision: bool,
}

const END: &str = "
    SELECT next_seq, last_message, head_message IS NOT NULL FROM conversation WHERE id = ?1";
// Only a claim takes a conversation off the ready set; only this and the end of a turn put it
// there.
const TAKE_PLACE: &str = "
    UPDATE conversation
       SET next_seq = ?2 + 1, recipient = ?3, last_message = ?4,
           head_message = coalesce(head_message, ?4),
           ready_at = CASE WHEN owner IS NULL AND ready_at IS NULL
                           THEN max(?5, not_before, quiet_until) ELSE ready_at END
     WHERE id = ?1 AND merged_into IS NULL";
const KEEP_MESSAGE: &str = "
    INSERT INTO message (id, conversation, seq, prev, event, wamid, kind, sent_at, received_at,
                         envelope)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const KEEP_NEXT: &str = "INSERT INTO message_next (id, next) VALUES (?1, ?2)";

fn place_message(
    tx: &Tx<'_>,
    at: Timestamp,
    key: EventKey,
    number: &NumberId,
    message: &InboundMessage,
) -> rusqlite::Result<Placed> {
    let identity::Resolved {
        conversation,
        collision,
    } = identity::resolve(tx, number, &message.sender)?;
    let recipient = message
        .sender
        .recipient()
        .as_ref()
        .map(Recipient::encode)
        .unwrap_or_default();
    let id = tx.take_message()?;
    let (seq, prev, is_pending): (i64, Option<i64>, bool) = tx
        .row(END, [conversation.0], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let place = params![conversation.0, seq, recipient, id, tx.now.0];
    if tx.execute(TAKE_PLACE, place)? == 0 {
        return Err(rusqlite::Error::QueryReturnedNoRows);
    }
    if let Some(prev) = prev.filter(|_| is_pending) {
        tx.execute(KEEP_NEXT, [prev, id])?;
    }
    tx.execute(
        KEEP_MESSAGE,
        params![
            id,
            conversation.0,
            seq,
            prev,
            key.0,
            message.wamid.as_str(),
            message.kind,
            message.sent_at.map(|at| at.0),
            at.0,
            message.envelope,
        ],
    )?;
    tx.wake_turns();
    Ok(Placed {
        conversation,
        seq,
        collision,
    })
}

// Notices ------------------------------------------------------------------------------------

const KEEP_NOTICE: &str = "
    INSERT INTO notice (event, number, kind, at, raw) VALUES (?1, ?2, ?3, ?4, ?5)";

fn keep_notice(
    tx: &Tx<'_>,
    at: Timestamp,
    key: EventKey,
    number: Option<&NumberId>,
    notice: &Notice,
) -> rusqlite::Result<()> {
    let number = number.map(NumberId::as_str);
    tx.execute(
        KEEP_NOTICE,
        params![key.0, number, notice.kind, at.0, notice.raw],
    )?;
    Ok(())
}
