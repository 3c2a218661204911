//! The gate: each event passes once. What comes again is counted, and remembered as arrivals.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_postgres::Row;

use super::super::{ARRIVAL_LOG_MAX, Delivery, Verdict};
use super::fault::Fault;
use super::parameter::{Key, parameters};
use super::tx::{Slot, Tx};
use crate::model::{Answer, Event, EventKey, Timestamp};

/// One event of a batch of deliveries.
#[derive(Clone, Copy)]
pub(super) struct Arriving<'a> {
    pub(super) delivery: &'a Delivery,
    pub(super) event: &'a Event,
}

const PASS: &str = "
    INSERT INTO event (key, kind, arrivals, first_at, last_at, delivery)
    SELECT key, kind, 1, now_ms() - age, now_ms() - age, delivery
      FROM unnest($1::uuid[], $2::int2[], $3::int8[], $4::int8[]) AS n(key, kind, age, delivery)
     ORDER BY key
    ON CONFLICT (key) DO NOTHING RETURNING key";

/// Queues the gate for all events; in the order of their keys, so that two batches with the same
/// ones wait for each other and don't lock each other out.
pub(super) fn queue_pass(tx: &mut Tx, arriving: &[Arriving<'_>]) -> Slot {
    let mut first: BTreeMap<Key, Arriving<'_>> = BTreeMap::new();
    for one in arriving {
        first.entry(one.event.key.into()).or_insert(*one);
    }
    let kinds = first
        .values()
        .map(|one| one.event.kind() as i16)
        .collect::<Vec<_>>();
    let ages = first
        .values()
        .map(|one| tx.age(one.delivery.at))
        .collect::<Vec<_>>();
    let deliveries = first
        .values()
        .map(|one| one.delivery.id.0)
        .collect::<Vec<_>>();
    let keys: Vec<Key> = first.into_keys().collect();
    tx.queue(PASS, parameters![keys, kinds, ages, deliveries])
}

const SEEN: &str = "
    SELECT e.key, e.arrivals, e.first_at, e.last_at, e.delivery, d.status, d.latency_us, d.events
      FROM event e LEFT JOIN delivery d ON d.id = e.delivery
     WHERE e.key = ANY($1) ORDER BY e.key FOR UPDATE OF e";

/// Which events of a batch were new when it came, and what is known of the others.
pub(super) struct Gate {
    passed: BTreeSet<EventKey>,
    seen: BTreeMap<EventKey, Seen>,
    log: Vec<Logged>,
}

/// What the gate remembers of an event.
struct Seen {
    arrivals: i64,
    first_at: Timestamp,
    last_at: Timestamp,
    delivery: i64,
    answer: Option<Answer>,
    events: Option<i64>,
    changed: bool,
}

/// One line of an event's arrivals.
struct Logged {
    key: EventKey,
    slot: i16,
    at: Timestamp,
    delivery: Option<i64>,
    answer: Option<Answer>,
}

impl Gate {
    /// From the rows of the pass.
    pub(super) fn new(passed: &[Row]) -> Self {
        Self {
            passed: passed
                .iter()
                .map(|row| row.get::<_, Key>(0).into())
                .collect(),
            seen: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// Queues the look at what is known of those that did not pass.
    pub(super) fn queue_seen(&self, tx: &mut Tx, arriving: &[Arriving<'_>]) -> Option<Slot> {
        let known: BTreeSet<Key> = arriving
            .iter()
            .map(|one| one.event.key)
            .filter(|key| !self.passed.contains(key))
            .map(Key::from)
            .collect();
        let keys: Vec<Key> = known.into_iter().collect();
        (!keys.is_empty()).then(|| tx.queue(SEEN, parameters![keys]))
    }

    /// From the rows of that look.
    pub(super) fn read_seen(&mut self, rows: &[Row]) {
        for row in rows {
            let seen = Seen {
                arrivals: row.get(1),
                first_at: Timestamp(row.get(2)),
                last_at: Timestamp(row.get(3)),
                delivery: row.get(4),
                answer: read_answer(row, 5),
                events: row.get::<_, Option<i32>>(7).map(i64::from),
                changed: false,
            };
            self.seen.insert(row.get::<_, Key>(0).into(), seen);
        }
    }

    /// Whether this is the first arrival of an event in the whole ledger; true once per event.
    pub(super) fn passes(&mut self, tx: &Tx, one: Arriving<'_>) -> Verdict {
        let key = one.event.key;
        let at = tx.translate(one.delivery.at);
        let is_new = self.passed.remove(&key);
        if is_new {
            let seen = Seen {
                arrivals: 0,
                first_at: at,
                last_at: at,
                delivery: one.delivery.id.0,
                answer: None,
                events: None,
                changed: false,
            };
            self.seen.insert(key, seen);
        }
        let Some(mut seen) = self.seen.remove(&key) else {
            return Verdict::Accepted;
        };
        let verdict = self.arrive(tx, one, &mut seen, at);
        self.seen.insert(key, seen);
        if is_new { Verdict::Accepted } else { verdict }
    }

    fn arrive(&mut self, tx: &Tx, one: Arriving<'_>, seen: &mut Seen, at: Timestamp) -> Verdict {
        let key = one.event.key;
        let of_this = |failed: &&super::super::FailedArrival| failed.key == key;
        let failed: Vec<_> = one.delivery.failed_before.iter().filter(of_this).collect();
        let is_first = seen.arrivals == 0;
        if seen.arrivals == 1 {
            self.note(key, 1, seen.last_at, Some(seen.delivery), None);
        }
        let mut previous = (seen.last_at, seen.answer);
        for arrival in &failed {
            seen.arrivals += 1;
            let at = tx.translate(arrival.at);
            seen.first_at = seen.first_at.min(at);
            previous = (at, Some(arrival.answer));
            self.note(key, seen.arrivals, at, None, Some(arrival.answer));
        }
        seen.arrivals += 1;
        if !is_first || !failed.is_empty() {
            self.note(key, seen.arrivals, at, Some(one.delivery.id.0), None);
            seen.changed = true;
        }
        let rebatched = seen
            .events
            .is_some_and(|events| events != one.delivery.events.len() as i64);
        seen.first_at = seen.first_at.min(at);
        seen.last_at = seen.last_at.max(at);
        seen.delivery = one.delivery.id.0;
        (seen.answer, seen.events) = (None, None);
        Verdict::Duplicate {
            count: seen.arrivals,
            gap: at.since(previous.0),
            previous: previous.1,
            rebatched,
        }
    }

    fn note(
        &mut self,
        key: EventKey,
        count: i64,
        at: Timestamp,
        delivery: Option<i64>,
        answer: Option<Answer>,
    ) {
        self.log.push(Logged {
            key,
            slot: (count % ARRIVAL_LOG_MAX) as i16,
            at,
            delivery,
            answer,
        });
    }

    /// Queues what was counted.
    pub(super) fn write(self, tx: &mut Tx) {
        let counted: Vec<_> = self.seen.iter().filter(|(_, seen)| seen.changed).collect();
        if counted.is_empty() {
            return;
        }
        let parameters = parameters![
            counted
                .iter()
                .map(|(key, _)| Key::from(**key))
                .collect::<Vec<_>>(),
            counted
                .iter()
                .map(|(_, seen)| seen.arrivals)
                .collect::<Vec<_>>(),
            counted
                .iter()
                .map(|(_, seen)| seen.first_at.0)
                .collect::<Vec<_>>(),
            counted
                .iter()
                .map(|(_, seen)| seen.last_at.0)
                .collect::<Vec<_>>(),
            counted
                .iter()
                .map(|(_, seen)| seen.delivery)
                .collect::<Vec<_>>(),
        ];
        tx.queue(COUNT, parameters);
        // The ring may have gone round inside this batch: the last line of each slot stands.
        let mut ring: BTreeMap<(EventKey, i16), Logged> = BTreeMap::new();
        for line in self.log {
            ring.insert((line.key, line.slot), line);
        }
        let lines: Vec<Logged> = ring.into_values().collect();
        let parameters = parameters![
            lines
                .iter()
                .map(|line| Key::from(line.key))
                .collect::<Vec<_>>(),
            lines.iter().map(|line| line.slot).collect::<Vec<_>>(),
            lines.iter().map(|line| line.at.0).collect::<Vec<_>>(),
            lines.iter().map(|line| line.delivery).collect::<Vec<_>>(),
            lines
                .iter()
                .map(|line| line.answer.map(|a| a.status as i16))
                .collect::<Vec<_>>(),
            lines
                .iter()
                .map(|line| line.answer.map(latency_us))
                .collect::<Vec<_>>(),
        ];
        tx.queue(LOG, parameters);
    }
}

// Neither column has an index that these values are in.
const COUNT: &str = "
    UPDATE event e SET arrivals = n.arrivals, first_at = n.first_at, last_at = n.last_at,
                       delivery = n.delivery
      FROM unnest($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::int8[])
           AS n(key, arrivals, first_at, last_at, delivery)
     WHERE e.key = n.key";
const LOG: &str = "
    INSERT INTO arrival (event, slot, at, delivery, status, latency_us)
    SELECT * FROM unnest($1::uuid[], $2::int2[], $3::int8[], $4::int8[], $5::int2[], $6::int8[])
    ON CONFLICT (event, slot)
    DO UPDATE SET at = excluded.at, delivery = excluded.delivery, status = excluded.status,
                  latency_us = excluded.latency_us";

pub(super) fn latency_us(answer: Answer) -> i64 {
    i64::try_from(answer.latency.as_micros()).unwrap_or(i64::MAX)
}

/// An answer from the columns `at` (status) and `at + 1` (latency in microseconds).
pub(super) fn read_answer(row: &Row, at: usize) -> Option<Answer> {
    let status: Option<i16> = row.get(at);
    let latency: Option<i64> = row.get(at + 1);
    status.zip(latency).map(|(status, latency)| Answer {
        status: u16::try_from(status).unwrap_or(0),
        latency: Duration::from_micros(u64::try_from(latency).unwrap_or(0)),
    })
}

impl Gate {
    /// # Errors
    /// An event is neither new nor known: retention took it out in between.
    pub(super) fn check(&self, arriving: &[Arriving<'_>]) -> Result<(), Fault> {
        let is_known = |key: &EventKey| self.passed.contains(key) || self.seen.contains_key(key);
        if arriving.iter().all(|one| is_known(&one.event.key)) {
            return Ok(());
        }
        Err(Fault::Again("an event was forgotten meanwhile".to_owned()))
    }
}
