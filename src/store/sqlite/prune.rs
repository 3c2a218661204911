//! PRUNE: forgets what has reached its age, a bounded batch at a time.
//!
//! Each statement walks an index that holds candidates only, oldest first, so a batch with
//! nothing to do reads a few pages and writes none. What is past its age and must stay is put
//! off, or each batch would begin with it again.

use std::time::Duration;

use rusqlite::{Row, params};

use super::super::{KEPT_LOOK_EVERY, PARKED_AGE_MAX, PruneRequest, Pruned};
use super::node;
use super::tx::Tx;
use crate::crash_point::Method;
use crate::model::{DeliveryId, EventKind, NodeId};

const TAKE_DUTY: &str = "
    UPDATE ledger SET janitor = ?1
     WHERE janitor IS NULL OR (janitor <> ?1 AND janitor NOT IN (SELECT id FROM node))";
const HAS_DUTY: &str = "SELECT janitor = ?1 FROM ledger";

/// The outer `None` when the node has been declared dead, the inner when another has the duty.
pub(super) fn prune(
    tx: &Tx<'_>,
    request: &PruneRequest,
) -> rusqlite::Result<Option<Option<Pruned>>> {
    if !node::is_member(tx, request.node)? {
        return Ok(None);
    }
    tx.execute(TAKE_DUTY, [request.node.0])?;
    if tx.row(HAS_DUTY, [request.node.0], |row| row.get(0))? != Some(true) {
        return Ok(Some(None));
    }
    tx.carries(Method::Prune);
    let batch = Batch::new(tx, request);
    let mut pruned = Pruned::default();
    // Payloads first: what was put off by them may be old enough to be forgotten at once.
    let used = [
        batch.empty_events(&mut pruned)?,
        batch.forget_events(&mut pruned)?,
        batch.empty_outgoings(&mut pruned)?,
        batch.forget_outgoings()?,
        batch.forget_parked()?,
        batch.forget_dead_letters()?,
        batch.forget_deliveries()?,
        batch.forget_threads(&mut pruned)?,
        batch.drop_relays(&mut pruned)?,
    ];
    pruned.more = used.iter().any(|used| *used >= batch.limit);
    Ok(Some(Some(pruned)))
}

/// One batch: what has a time up to one of these has reached that age.
struct Batch<'a> {
    tx: &'a Tx<'a>,
    keys: i64,
    payloads: i64,
    parked: i64,
    relays: i64,
    /// In place of its own time, this hides a row that must stay from every batch of a day.
    put_off: i64,
    limit: i64,
}

impl<'a> Batch<'a> {
    fn new(tx: &'a Tx<'a>, request: &PruneRequest) -> Self {
        let before = |age: Duration| tx.now.0.saturating_sub(millis(age));
        let (keys, payloads) = (before(request.keys), before(request.payloads));
        Self {
            tx,
            keys,
            payloads,
            put_off: keys.max(payloads).saturating_add(millis(KEPT_LOOK_EVERY)),
            parked: before(PARKED_AGE_MAX),
            relays: before(request.relays),
            limit: i64::from(request.limit.max(1)),
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

// Events, and what came as them ----------------------------------------------------------------

// An event may name a message id that another event's message got.
const OLD_EVENTS: &str = "
    SELECT e.key, e.kind, e.first_at, e.arrivals, m.id, m.conversation, m.seq,
           coalesce(m.seq > c.done_seq OR EXISTS (
               SELECT 1 FROM dead_letter d
                WHERE d.conversation = m.conversation AND d.closed_at IS NULL
                  AND m.seq BETWEEN d.seq AND d.seq_last), 0)
      FROM event e INDEXED BY event_age
      LEFT JOIN message m ON m.id = e.message AND m.event = e.key
      LEFT JOIN conversation c ON c.id = m.conversation
     WHERE e.is_full = ?1 AND coalesce(e.kept_at, e.first_at) > ?2
       AND coalesce(e.kept_at, e.first_at) <= ?3
     ORDER BY coalesce(e.kept_at, e.first_at) LIMIT ?4";
const KEEP_EVENT: &str = "UPDATE event SET kept_at = ?2 WHERE key = ?1";
const MARK_EMPTY: &str = "UPDATE event SET is_full = 0, kept_at = NULL WHERE key = ?1";
const EMPTY_MESSAGE: &str = "
    UPDATE message SET envelope = '' WHERE id = ?1 AND envelope <> ''";
const EMPTY_RECEIPT: &str = "UPDATE receipt SET raw = '' WHERE event = ?1 AND raw <> ''";
const EMPTY_NOTICE: &str = "UPDATE notice SET raw = '' WHERE event = ?1 AND raw <> ''";
const FORGET_EVENT: &str = "DELETE FROM event WHERE key = ?1";
const FORGET_ARRIVALS: &str = "DELETE FROM arrival WHERE event = ?1";
const FORGET_MESSAGE: &str = "DELETE FROM message WHERE id = ?1";
const FORGET_TURN: &str = "DELETE FROM turn WHERE conversation = ?1 AND seq = ?2";
const FORGET_RECEIPT: &str = "DELETE FROM receipt WHERE event = ?1";
const FORGET_NOTICE: &str = "DELETE FROM notice WHERE event = ?1";
const NEVER_AGAIN: &str = "
    UPDATE ledger SET forgotten_message = ?1 WHERE forgotten_message < ?1";

/// A message that came as an event.
struct OldMessage {
    id: i64,
    conversation: i64,
    seq: i64,
}

struct OldEvent {
    key: [u8; 16],
    kind: u8,
    first_at: i64,
    arrivals: i64,
    message: Option<OldMessage>,
    /// Its message is pending or under an open dead letter.
    must_stay: bool,
}

fn read_event(row: &Row<'_>) -> rusqlite::Result<OldEvent> {
    let message = match row.get(4)? {
        Some(id) => Some(OldMessage {
            id,
            conversation: row.get(5)?,
            seq: row.get(6)?,
        }),
        None => None,
    };
    Ok(OldEvent {
        key: row.get(0)?,
        kind: row.get(1)?,
        first_at: row.get(2)?,
        arrivals: row.get(3)?,
        message,
        must_stay: row.get(7)?,
    })
}

impl Batch<'_> {
    /// Those looked at have a time after `after` and up to `until`.
    fn old_events(
        &self,
        is_full: bool,
        after: i64,
        until: i64,
        limit: i64,
    ) -> rusqlite::Result<Vec<OldEvent>> {
        let params = params![is_full, after, until, limit];
        self.tx.rows(OLD_EVENTS, params, read_event)
    }

    fn keep_event(&self, event: &OldEvent, kept_at: Option<i64>) -> rusqlite::Result<()> {
        self.tx.execute(KEEP_EVENT, params![event.key, kept_at])?;
        Ok(())
    }

    /// Each of these answers how many rows of its kind it has looked at.
    fn empty_events(&self, pruned: &mut Pruned) -> rusqlite::Result<i64> {
        let events = self.old_events(true, self.keys, self.payloads, self.limit)?;
        for event in &events {
            if event.must_stay {
                self.keep_event(event, Some(self.put_off))?;
            } else if event.first_at <= self.keys {
                // It was put off; now it can be forgotten whole.
                self.keep_event(event, None)?;
            } else {
                pruned.payloads += self.empty_event(event)? as u64;
            }
        }
        Ok(events.len() as i64)
    }

    fn empty_event(&self, event: &OldEvent) -> rusqlite::Result<usize> {
        self.tx.execute(MARK_EMPTY, [event.key])?;
        if let Some(message) = &event.message {
            return self.tx.execute(EMPTY_MESSAGE, [message.id]);
        }
        match event.kind {
            STATUS => self.tx.execute(EMPTY_RECEIPT, [event.key]),
            NOTICE => self.tx.execute(EMPTY_NOTICE, [event.key]),
            _ => Ok(0),
        }
    }

    fn forget_events(&self, pruned: &mut Pruned) -> rusqlite::Result<i64> {
        let mut events = self.old_events(false, i64::MIN, self.keys, self.limit)?;
        let room = self.limit - events.len() as i64;
        events.extend(self.old_events(true, i64::MIN, self.keys, room)?);
        let mut last_message = 0;
        for event in &events {
            if event.must_stay {
                self.keep_event(event, Some(self.put_off))?;
                continue;
            }
            self.forget_event(event)?;
            pruned.events += 1;
            let message = event.message.as_ref().map_or(0, |message| message.id);
            last_message = last_message.max(message);
        }
        if last_message > 0 {
            self.tx.execute(NEVER_AGAIN, [last_message])?;
        }
        Ok(events.len() as i64)
    }

    fn forget_event(&self, event: &OldEvent) -> rusqlite::Result<()> {
        self.tx.execute(FORGET_EVENT, [event.key])?;
        if event.arrivals > 1 {
            self.tx.execute(FORGET_ARRIVALS, [event.key])?;
        }
        if let Some(message) = &event.message {
            self.tx.execute(FORGET_MESSAGE, [message.id])?;
            let turn = (message.conversation, message.seq);
            self.tx.execute(FORGET_TURN, turn)?;
        }
        match event.kind {
            STATUS => self.tx.execute(FORGET_RECEIPT, [event.key])?,
            NOTICE => self.tx.execute(FORGET_NOTICE, [event.key])?,
            _ => 0,
        };
        Ok(())
    }
}

const STATUS: u8 = EventKind::Status as u8;
const NOTICE: u8 = EventKind::Notice as u8;

// Outgoings --------------------------------------------------------------------------------------

const OLD_OUTGOINGS: &str = "
    SELECT o.id, o.changed_at,
           EXISTS (SELECT 1 FROM dead_letter d WHERE d.outgoing = o.id AND d.closed_at IS NULL)
      FROM outgoing o INDEXED BY outgoing_age
     WHERE o.state >= 3 AND (o.body <> '') = ?1 AND coalesce(o.kept_at, o.changed_at) > ?2
       AND coalesce(o.kept_at, o.changed_at) <= ?3
     ORDER BY coalesce(o.kept_at, o.changed_at) LIMIT ?4";
const KEEP_OUTGOING: &str = "UPDATE outgoing SET kept_at = ?2 WHERE id = ?1";
const EMPTY_OUTGOING: &str = "UPDATE outgoing SET body = '', kept_at = NULL WHERE id = ?1";
const EMPTY_BOT_SEND: &str = "UPDATE bot_send SET answer = NULL WHERE outgoing = ?1";
const FORGET_BOT_SEND: &str = "DELETE FROM bot_send WHERE outgoing = ?1";
const FORGET_OUTGOING: &str = "DELETE FROM outgoing WHERE id = ?1";

struct OldOutgoing {
    id: i64,
    changed_at: i64,
    must_stay: bool,
}

impl Batch<'_> {
    fn old_outgoings(
        &self,
        is_full: bool,
        after: i64,
        until: i64,
        limit: i64,
    ) -> rusqlite::Result<Vec<OldOutgoing>> {
        let params = params![is_full, after, until, limit];
        self.tx.rows(OLD_OUTGOINGS, params, |row| {
            Ok(OldOutgoing {
                id: row.get(0)?,
                changed_at: row.get(1)?,
                must_stay: row.get(2)?,
            })
        })
    }

    fn empty_outgoings(&self, pruned: &mut Pruned) -> rusqlite::Result<i64> {
        let outgoings = self.old_outgoings(true, self.keys, self.payloads, self.limit)?;
        for outgoing in &outgoings {
            if outgoing.must_stay {
                let kept_at = self.put_off;
                self.tx
                    .execute(KEEP_OUTGOING, params![outgoing.id, kept_at])?;
            } else if outgoing.changed_at <= self.keys {
                self.tx
                    .execute(KEEP_OUTGOING, params![outgoing.id, None::<i64>])?;
            } else {
                self.tx.execute(EMPTY_BOT_SEND, [outgoing.id])?;
                pruned.payloads += self.tx.execute(EMPTY_OUTGOING, [outgoing.id])? as u64;
            }
        }
        Ok(outgoings.len() as i64)
    }

    fn forget_outgoings(&self) -> rusqlite::Result<i64> {
        let mut outgoings = self.old_outgoings(false, i64::MIN, self.keys, self.limit)?;
        let room = self.limit - outgoings.len() as i64;
        outgoings.extend(self.old_outgoings(true, i64::MIN, self.keys, room)?);
        for outgoing in &outgoings {
            if outgoing.must_stay {
                let kept_at = self.put_off;
                self.tx
                    .execute(KEEP_OUTGOING, params![outgoing.id, kept_at])?;
            } else {
                self.tx.execute(FORGET_BOT_SEND, [outgoing.id])?;
                self.tx.execute(FORGET_OUTGOING, [outgoing.id])?;
            }
        }
        Ok(outgoings.len() as i64)
    }
}

// What nothing hangs on --------------------------------------------------------------------------

const FORGET_PARKED: &str = "
    DELETE FROM receipt WHERE rowid IN (
        SELECT rowid FROM receipt INDEXED BY receipt_parked
         WHERE outgoing IS NULL AND received_at <= ?1 ORDER BY received_at LIMIT ?2)";
const FORGET_DEAD_LETTERS: &str = "
    DELETE FROM dead_letter WHERE id IN (
        SELECT id FROM dead_letter INDEXED BY dead_letter_closed
         WHERE closed_at <= ?1 ORDER BY closed_at LIMIT ?2)";
const FIRST_DELIVERY: &str = "SELECT id, at FROM delivery WHERE id >= ?1 ORDER BY id LIMIT 1";
const FORGET_DELIVERIES: &str = "
    DELETE FROM delivery WHERE id IN (
        SELECT id FROM (SELECT id, at FROM delivery
                         WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3)
         WHERE at <= ?4)";

impl Batch<'_> {
    fn forget_parked(&self) -> rusqlite::Result<i64> {
        let forgotten = self.tx.execute(FORGET_PARKED, [self.parked, self.limit])?;
        Ok(forgotten as i64)
    }

    fn forget_dead_letters(&self) -> rusqlite::Result<i64> {
        let forgotten = self
            .tx
            .execute(FORGET_DEAD_LETTERS, [self.keys, self.limit])?;
        Ok(forgotten as i64)
    }

    /// The ids of one node count up in the order of arrival: each node's oldest tells whether
    /// any of its rows are old, without an index over their times.
    fn forget_deliveries(&self) -> rusqlite::Result<i64> {
        let mut from = i64::MIN;
        let mut used = 0;
        while used < self.limit {
            let first = self.tx.row(FIRST_DELIVERY, [from], |row| {
                Ok((DeliveryId(row.get(0)?), row.get::<_, i64>(1)?))
            })?;
            let Some((id, at)) = first else { break };
            let of_next = DeliveryId::new(NodeId(id.node().0 + 1), 0);
            if at <= self.keys {
                let room = self.limit - used;
                let params = params![id.0, of_next.0, room, self.keys];
                used += self.tx.execute(FORGET_DELIVERIES, params)? as i64;
            }
            from = of_next.0;
        }
        Ok(used)
    }
}

// Threads ----------------------------------------------------------------------------------------

const FORGET_PAST_THREADS: &str = "
    DELETE FROM thread_past WHERE (conversation, version) IN (
        SELECT conversation, version FROM thread_past INDEXED BY thread_past_age
         WHERE until <= ?1 ORDER BY until LIMIT ?2)";
const FORGET_ORPHANS: &str = "
    DELETE FROM thread_orphan WHERE id IN (
        SELECT id FROM thread_orphan INDEXED BY thread_orphan_age
         WHERE at <= ?1 ORDER BY at LIMIT ?2)";
// The row stays, so that its version is not given again.
const FORGET_RIGHTS: &str = "
    UPDATE thread SET until = NULL, claim_key = NULL WHERE conversation IN (
        SELECT conversation FROM thread INDEXED BY thread_right
         WHERE until <= ?1 ORDER BY until LIMIT ?2)";

impl Batch<'_> {
    /// Threads that were, and those that came to nothing; never the one that is.
    fn forget_threads(&self, pruned: &mut Pruned) -> rusqlite::Result<i64> {
        let mut most = 0;
        for sql in [FORGET_PAST_THREADS, FORGET_ORPHANS, FORGET_RIGHTS] {
            let forgotten = self.tx.execute(sql, [self.payloads, self.limit])? as i64;
            pruned.payloads += forgotten as u64;
            most = most.max(forgotten);
        }
        Ok(most)
    }
}

// Relays -----------------------------------------------------------------------------------------

const DROP_RELAYS: &str = "
    DELETE FROM relay WHERE id IN (
        SELECT id FROM relay INDEXED BY relay_age
         WHERE at <= ?1 AND node IS NULL ORDER BY at LIMIT ?2)";

impl Batch<'_> {
    /// What no bot has taken for so long.
    fn drop_relays(&self, pruned: &mut Pruned) -> rusqlite::Result<i64> {
        let dropped = self.tx.execute(DROP_RELAYS, [self.relays, self.limit])? as i64;
        pruned.relays += dropped as u64;
        Ok(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::SharedStore;
    use super::super::super::conformance::fixture::{self, Fixture, message, notice, phone};
    use super::super::{SqliteSettings, SqliteStore, schema};
    use super::*;
    use crate::clock::Clock;
    use crate::model::Timestamp;
    use crate::store::TurnEnd;
    use rusqlite::Connection;
    use std::sync::Arc;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    async fn with_file() -> (Fixture, Connection) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("hapax.db");
        let settings = SqliteSettings {
            path: path.clone(),
            queue_max: 4096,
            wal_max: 1 << 20,
        };
        let open = |clock: Clock| async move {
            let store = SqliteStore::open(&settings, clock).expect("a new file opens");
            (Arc::new(store) as SharedStore, folder)
        };
        let fixture = fixture::with(open).await;
        (fixture, Connection::open(path).expect("the file opens"))
    }

    async fn prune_all(f: &Fixture) -> u64 {
        let request = PruneRequest {
            node: f.node,
            keys: 30 * DAY,
            payloads: 10 * DAY,
            relays: Duration::MAX,
            limit: 100,
        };
        let mut events = 0;
        loop {
            let pruned = f.store.prune(request).await.expect("it is answered");
            let pruned = pruned.expect("the only node has the duty");
            events += pruned.events;
            if !pruned.more {
                return events;
            }
        }
    }

    fn number(conn: &Connection, sql: &str) -> i64 {
        conn.query_row(sql, [], |row| row.get(0)).expect("a number")
    }

    #[tokio::test]
    async fn what_goes_makes_room_for_what_comes() {
        let (f, conn) = with_file().await;
        let mut pages = Vec::new();
        for round in 0..4 {
            let text = |n| format!("{round} {n} {}", "x".repeat(3000));
            f.append((0..300).map(|n| notice(&text(n))).collect()).await;
            pages.push(number(&conn, "PRAGMA page_count"));
            f.clock.advance(30 * DAY);
            assert_eq!(prune_all(&f).await, 300);
        }
        assert!(pages[3] <= pages[0] + pages[0] / 20, "{pages:?}");
    }

    #[tokio::test]
    async fn a_batch_with_nothing_to_do_writes_nothing() {
        let (f, _) = with_file().await;
        f.append(
            (0..50)
                .map(|n| message(phone("1"), &n.to_string()))
                .collect(),
        )
        .await;
        f.clock.advance(30 * DAY);
        assert_eq!(prune_all(&f).await, 0);
        let before = f.store.commits();
        assert_eq!(prune_all(&f).await, 0, "what stays was put off");
        assert_eq!(f.store.commits(), before);
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_conversation_but_its_row_and_no_id_is_given_again() {
        let (f, conn) = with_file().await;
        f.answered_turn("1", "a", &["one"]).await;
        f.append_one(message(phone("1"), "a")).await;
        let sending = f.send_one().await;
        f.accepted(&sending, "w1").await;
        f.clock.advance(30 * DAY);
        assert_eq!(prune_all(&f).await, 1);
        for table in [
            "event",
            "arrival",
            "message",
            "message_next",
            "turn",
            "outgoing",
        ] {
            let count = number(&conn, &format!("SELECT count(*) FROM {table}"));
            assert_eq!(count, 0, "{table}");
        }
        f.append_one(message(phone("2"), "b")).await;
        assert_eq!(number(&conn, "SELECT id FROM message"), 2);
        let turn = f.claim_one().await;
        assert_eq!(turn.messages.len(), 1);
        f.end(&turn, TurnEnd::Silence).await;
    }

    /// The first young one of each node ends the walk, and hides none of another's.
    #[test]
    fn recorded_answers_go_node_by_node() {
        let mut conn = Connection::open_in_memory().expect("memory");
        schema::migrate(&mut conn, Timestamp(0)).expect("migrated");
        let known = super::super::known::KnownAliases::default();
        let clock = Clock::manual(Timestamp(1_000_000));
        let tx = Tx::new(&conn, &clock, "boot", crate::model::StoreId(1), &known);
        for (node, count, at) in [(1, 0, 9), (1, 1, 500), (2, 0, 500), (3, 0, 9), (3, 1, 10)] {
            let id = DeliveryId::new(NodeId(node), count).0;
            conn.execute(
                "INSERT INTO delivery VALUES (?1, ?2, 1, 200, 1)",
                params![id, at],
            )
            .expect("kept");
        }
        let batch = |limit| Batch {
            tx: &tx,
            keys: 10,
            payloads: 10,
            relays: 0,
            parked: 10,
            put_off: 10,
            limit,
        };
        assert_eq!(batch(2).forget_deliveries(), Ok(2));
        assert_eq!(batch(2).forget_deliveries(), Ok(1));
        assert_eq!(batch(2).forget_deliveries(), Ok(0));
        let left = number(&conn, "SELECT count(*) FROM delivery WHERE at = 500");
        assert_eq!(left, 2);
    }

    #[test]
    fn every_statement_walks_an_index_and_sorts_nothing() {
        let mut conn = Connection::open_in_memory().expect("memory");
        schema::migrate(&mut conn, Timestamp(0)).expect("migrated");
        for sql in [
            OLD_EVENTS,
            OLD_OUTGOINGS,
            FORGET_PARKED,
            FORGET_DEAD_LETTERS,
            FIRST_DELIVERY,
            FORGET_DELIVERIES,
            FORGET_PAST_THREADS,
            FORGET_ORPHANS,
            FORGET_RIGHTS,
        ] {
            let mut plan = conn
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .expect("a statement");
            let count = plan.parameter_count();
            let steps: Vec<String> = plan
                .query_map(rusqlite::params_from_iter(vec![1; count]), |row| row.get(3))
                .and_then(Iterator::collect)
                .expect("a plan");
            for step in steps {
                let reads_all = step.starts_with("SCAN") && !step.contains("subquery");
                assert!(!reads_all && !step.contains("TEMP B-TREE"), "{step}: {sql}");
            }
        }
    }
}
