//! PRUNE: forgets what has reached its age, a bounded batch at a time.
//!
//! Each statement walks an index by age, oldest first. What is past its age and must stay is put
//! off, or each batch would begin with it again.

use std::time::Duration;

use tokio_postgres::Row;

use super::super::{KEPT_LOOK_EVERY, PARKED_AGE_MAX, PruneRequest, Pruned};
use super::fault::Fault;
use super::node::IS_MEMBER;
use super::outbox::LOCK;
use super::parameter::{Key, parameters};
use super::tx::Tx;
use crate::crash_point::Method;

const TAKE_DUTY: &str = "
    UPDATE ledger SET janitor = $1
     WHERE janitor IS NULL OR (janitor <> $1 AND janitor NOT IN (SELECT id FROM node))";
const HAS_DUTY: &str = "SELECT 1 FROM ledger WHERE janitor = $1";

/// `None` when another node has the duty.
pub(super) async fn prune(tx: &mut Tx, request: &PruneRequest) -> Result<Option<Pruned>, Fault> {
    let member = tx.queue(IS_MEMBER, parameters![request.node.0]);
    tx.queue(TAKE_DUTY, parameters![request.node.0]);
    let duty = tx.queue(HAS_DUTY, parameters![request.node.0]);
    let mut answers = tx.flush().await?;
    if answers.take(member).is_empty() {
        return Err(Fault::DeadNode);
    }
    if answers.take(duty).is_empty() {
        return Ok(None);
    }
    tx.carries(Method::Prune);
    let mut batch = Batch::new(tx, request);
    // Payloads first: what was put off by them may be old enough to be forgotten at once.
    batch.messages(tx, Age::Payloads).await?;
    batch.messages(tx, Age::Keys).await?;
    batch.other_events(tx).await?;
    batch.outgoings(tx, Age::Payloads).await?;
    batch.outgoings(tx, Age::Keys).await?;
    batch.rest(tx).await?;
    let limit = batch.limit;
    let used = [
        batch.emptied_events,
        batch.events,
        batch.outgoings,
        batch.others,
    ];
    batch.pruned.more |= used.iter().any(|used| *used >= limit);
    Ok(Some(batch.pruned))
}

/// Which of the two ages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// What has reached it is emptied.
    Payloads,
    /// What has reached it goes whole.
    Keys,
}

/// One batch: what has a time up to one of these has reached that age.
struct Batch {
    keys: i64,
    payloads: i64,
    parked: i64,
    relays: i64,
    /// In place of its own time, this hides a row that must stay from every batch of a day.
    put_off: i64,
    limit: i64,
    emptied_events: i64,
    events: i64,
    outgoings: i64,
    others: i64,
    pruned: Pruned,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Batch {
    fn new(tx: &Tx, request: &PruneRequest) -> Self {
        let before = |age: Duration| tx.now().0.saturating_sub(millis(age));
        let (keys, payloads) = (before(request.keys), before(request.payloads));
        Self {
            keys,
            payloads,
            parked: before(PARKED_AGE_MAX),
            relays: before(request.relays),
            put_off: keys.max(payloads).saturating_add(millis(KEPT_LOOK_EVERY)),
            limit: i64::from(request.limit.max(1)),
            emptied_events: 0,
            events: 0,
            outgoings: 0,
            others: 0,
            pruned: Pruned::default(),
        }
    }

    /// The times looked at: after the first, up to the second, of which fullness.
    const fn range(&self, age: Age) -> (i64, i64) {
        match age {
            Age::Payloads => (self.keys, self.payloads),
            Age::Keys => (i64::MIN, self.keys),
        }
    }
}

// Messages -----------------------------------------------------------------------------------

// Two walks of the index where emptied ones count, one where they don't.
const OLD_MESSAGES: &str = "
    SELECT m.conversation, m.seq, m.event, m.received_at,
           m.seq > c.done_seq OR EXISTS (
               SELECT 1 FROM dead_letter d
                WHERE d.conversation = m.conversation AND d.closed_at IS NULL
                  AND m.seq BETWEEN d.seq AND d.seq_last)
      FROM unnest($1::bool[]) AS f(is_full)
     CROSS JOIN LATERAL (
           SELECT * FROM message m
            WHERE m.is_full = f.is_full AND coalesce(m.kept_at, m.received_at) > $2
              AND coalesce(m.kept_at, m.received_at) <= $3
            ORDER BY coalesce(m.kept_at, m.received_at) LIMIT $4) m
      JOIN conversation c ON c.id = m.conversation
     LIMIT $4";
const KEEP_MESSAGES: &str = "
    UPDATE message m SET kept_at = $3
      FROM unnest($1::int8[], $2::int8[]) AS n(conversation, seq)
     WHERE m.conversation = n.conversation AND m.seq = n.seq";
const EMPTY_MESSAGES: &str = "
    UPDATE message m SET envelope = '', is_full = false, kept_at = NULL
      FROM unnest($1::int8[], $2::int8[]) AS n(conversation, seq)
     WHERE m.conversation = n.conversation AND m.seq = n.seq";
const FORGET_MESSAGES: &str = "
    DELETE FROM message m USING unnest($1::int8[], $2::int8[]) AS n(conversation, seq)
     WHERE m.conversation = n.conversation AND m.seq = n.seq";
const FORGET_TURNS: &str = "
    DELETE FROM turn t USING unnest($1::int8[], $2::int8[]) AS n(conversation, seq)
     WHERE t.conversation = n.conversation AND t.seq = n.seq";
const FORGET_EVENTS: &str = "DELETE FROM event WHERE key = ANY($1)";
const FORGET_ARRIVALS: &str = "DELETE FROM arrival WHERE event = ANY($1)";

/// Conversations and places, as two arrays.
fn places(rows: &[&Row]) -> (Vec<i64>, Vec<i64>) {
    rows.iter()
        .map(|row| (row.get::<_, i64>(0), row.get::<_, i64>(1)))
        .unzip()
}

impl Batch {
    async fn messages(&mut self, tx: &mut Tx, age: Age) -> Result<(), Fault> {
        let (after, until) = self.range(age);
        let fullness = match age {
            Age::Payloads => vec![true],
            Age::Keys => vec![false, true],
        };
        let old = tx.queue(
            OLD_MESSAGES,
            parameters![fullness, after, until, self.limit],
        );
        let old = tx.flush().await?.take(old);
        let (stay, go): (Vec<&Row>, Vec<&Row>) = old.iter().partition(|row| row.get(4));
        self.keep(tx, &stay, Some(self.put_off));
        match age {
            Age::Payloads => {
                self.emptied_events += old.len() as i64;
                // Those were put off; now they can be forgotten whole.
                let (whole, empty): (Vec<&Row>, Vec<&Row>) = go
                    .into_iter()
                    .partition(|row| row.get::<_, i64>(3) <= self.keys);
                self.keep(tx, &whole, None);
                self.pruned.payloads += empty.len() as u64;
                if !empty.is_empty() {
                    let (conversations, seqs) = places(&empty);
                    tx.queue(EMPTY_MESSAGES, parameters![conversations, seqs]);
                }
            }
            Age::Keys => {
                self.events += old.len() as i64;
                self.pruned.events += go.len() as u64;
                self.forget(tx, &go);
            }
        }
        Ok(())
    }

    fn keep(&self, tx: &mut Tx, rows: &[&Row], kept_at: Option<i64>) {
        if !rows.is_empty() {
            let (conversations, seqs) = places(rows);
            tx.queue(KEEP_MESSAGES, parameters![conversations, seqs, kept_at]);
        }
    }

    fn forget(&self, tx: &mut Tx, rows: &[&Row]) {
        if rows.is_empty() {
            return;
        }
        let (conversations, seqs) = places(rows);
        let keys: Vec<Key> = rows.iter().map(|row| row.get(2)).collect();
        // Events first, as everybody locks them.
        tx.queue(FORGET_EVENTS, parameters![keys.clone()]);
        tx.queue(FORGET_ARRIVALS, parameters![keys]);
        tx.queue(
            FORGET_MESSAGES,
            parameters![conversations.clone(), seqs.clone()],
        );
        tx.queue(FORGET_TURNS, parameters![conversations, seqs]);
    }
}

// Receipts and notices -----------------------------------------------------------------------

const OLD_EVENTS: &str = "
    SELECT e.key FROM unnest($1::bool[]) AS f(is_full)
     CROSS JOIN LATERAL (
           SELECT e.key FROM event e
            WHERE e.kind <> 1 AND e.is_full = f.is_full AND e.first_at > $2 AND e.first_at <= $3
            ORDER BY e.first_at LIMIT $4) e
     LIMIT $4";
const MARK_EMPTY: &str = "UPDATE event SET is_full = false WHERE key = ANY($1)";
const EMPTY_RECEIPTS: &str = "
    UPDATE receipt SET raw = '' WHERE event = ANY($1) AND raw <> '' RETURNING 1";
const EMPTY_NOTICES: &str = "
    UPDATE notice SET raw = '' WHERE event = ANY($1) AND raw <> '' RETURNING 1";
const FORGET_RECEIPTS: &str = "DELETE FROM receipt WHERE event = ANY($1)";
const FORGET_NOTICES: &str = "DELETE FROM notice WHERE event = ANY($1)";

impl Batch {
    async fn other_events(&mut self, tx: &mut Tx) -> Result<(), Fault> {
        let room = |used: i64| (self.limit - used).max(0);
        let (empty_room, forget_room) = (room(self.emptied_events), room(self.events));
        let (after, until) = self.range(Age::Payloads);
        let emptied = tx.queue(
            OLD_EVENTS,
            parameters![vec![true], after, until, empty_room],
        );
        let (after, until) = self.range(Age::Keys);
        let forgotten = tx.queue(
            OLD_EVENTS,
            parameters![vec![false, true], after, until, forget_room],
        );
        let mut answers = tx.flush().await?;
        let keys = |rows: Vec<Row>| -> Vec<Key> { rows.iter().map(|row| row.get(0)).collect() };
        let (emptied, forgotten) = (keys(answers.take(emptied)), keys(answers.take(forgotten)));
        self.emptied_events += emptied.len() as i64;
        self.events += forgotten.len() as i64;
        self.pruned.events += forgotten.len() as u64;
        if !forgotten.is_empty() {
            tx.queue(FORGET_EVENTS, parameters![forgotten.clone()]);
            tx.queue(FORGET_ARRIVALS, parameters![forgotten.clone()]);
            tx.queue(FORGET_RECEIPTS, parameters![forgotten.clone()]);
            tx.queue(FORGET_NOTICES, parameters![forgotten]);
        }
        if !emptied.is_empty() {
            tx.queue(MARK_EMPTY, parameters![emptied.clone()]);
            let receipts = tx.queue(EMPTY_RECEIPTS, parameters![emptied.clone()]);
            let notices = tx.queue(EMPTY_NOTICES, parameters![emptied]);
            let mut answers = tx.flush().await?;
            let rows = answers.take(receipts).len() + answers.take(notices).len();
            self.pruned.payloads += rows as u64;
        }
        Ok(())
    }
}

// Outgoings ----------------------------------------------------------------------------------

const OLD_OUTGOINGS: &str = "
    SELECT o.conversation, o.id FROM unnest($1::bool[]) AS f(is_full)
     CROSS JOIN LATERAL (
           SELECT o.conversation, o.id FROM outgoing o
            WHERE o.is_full = f.is_full AND coalesce(o.kept_at, o.created_at) > $2
              AND coalesce(o.kept_at, o.created_at) <= $3
            ORDER BY coalesce(o.kept_at, o.created_at) LIMIT $4) o
     LIMIT $4";
// Under the locks of the conversations: a receipt may want to send one again.
const STANDING: &str = "
    SELECT o.id, o.changed_at,
           o.state < 3 OR EXISTS (SELECT 1 FROM dead_letter d
                                   WHERE d.outgoing = o.id AND d.closed_at IS NULL)
      FROM outgoing o WHERE o.id = ANY($1)";
const KEEP_OUTGOINGS: &str = "
    UPDATE outgoing o SET kept_at = n.kept_at
      FROM unnest($1::int8[], $2::int8[]) AS n(id, kept_at) WHERE o.id = n.id";
const EMPTY_OUTGOINGS: &str = "
    UPDATE outgoing SET body = '', is_full = false, kept_at = NULL WHERE id = ANY($1)";
const EMPTY_BOT_SENDS: &str = "UPDATE bot_send SET answer = NULL WHERE outgoing = ANY($1)";
const FORGET_BOT_SENDS: &str = "DELETE FROM bot_send WHERE outgoing = ANY($1)";
const FORGET_OUTGOINGS: &str = "DELETE FROM outgoing WHERE id = ANY($1)";

impl Batch {
    async fn outgoings(&mut self, tx: &mut Tx, age: Age) -> Result<(), Fault> {
        let (after, until) = self.range(age);
        let fullness = match age {
            Age::Payloads => vec![true],
            Age::Keys => vec![false, true],
        };
        let old = tx.queue(
            OLD_OUTGOINGS,
            parameters![fullness, after, until, self.limit],
        );
        let old = tx.flush().await?.take(old);
        if old.is_empty() {
            return Ok(());
        }
        let conversations: Vec<i64> = old.iter().map(|row| row.get(0)).collect();
        let ids: Vec<i64> = old.iter().map(|row| row.get(1)).collect();
        tx.queue(LOCK.sql(), parameters![conversations]);
        let standing = tx.queue(STANDING, parameters![ids]);
        let standing = tx.flush().await?.take(standing);
        let mut kept: (Vec<i64>, Vec<Option<i64>>) = Default::default();
        let mut gone = Vec::new();
        for row in &standing {
            let (id, changed_at): (i64, i64) = (row.get(0), row.get(1));
            let keep = if row.get(2) {
                Some(Some(self.put_off))
            } else if changed_at > until {
                // Settled since: its age counts from then.
                Some(Some(changed_at))
            } else if age == Age::Payloads && changed_at <= self.keys {
                Some(None)
            } else {
                None
            };
            match keep {
                Some(kept_at) => {
                    kept.0.push(id);
                    kept.1.push(kept_at);
                }
                None => gone.push(id),
            }
        }
        self.outgoings = self.outgoings.max(old.len() as i64);
        if !kept.0.is_empty() {
            tx.queue(KEEP_OUTGOINGS, parameters![kept.0, kept.1]);
        }
        if !gone.is_empty() && age == Age::Payloads {
            self.pruned.payloads += gone.len() as u64;
            tx.queue(EMPTY_BOT_SENDS, parameters![gone.clone()]);
            tx.queue(EMPTY_OUTGOINGS, parameters![gone]);
        } else if !gone.is_empty() {
            tx.queue(FORGET_BOT_SENDS, parameters![gone.clone()]);
            tx.queue(FORGET_OUTGOINGS, parameters![gone]);
        }
        Ok(())
    }
}

// What nothing hangs on ----------------------------------------------------------------------

const FORGET_PARKED: &str = "
    DELETE FROM receipt WHERE event IN (
        SELECT event FROM receipt WHERE outgoing IS NULL AND received_at <= $1
         ORDER BY received_at LIMIT $2) RETURNING 1";
const FORGET_WAMIDS: &str = "
    DELETE FROM wamid WHERE (number, wamid) IN (
        SELECT number, wamid FROM wamid WHERE at <= $1 ORDER BY at LIMIT $2) RETURNING 1";
const FORGET_DEAD_LETTERS: &str = "
    DELETE FROM dead_letter WHERE (id, conversation) IN (
        SELECT id, conversation FROM dead_letter WHERE closed_at <= $1
         ORDER BY closed_at LIMIT $2) RETURNING 1";
const FORGET_DELIVERIES: &str = "
    DELETE FROM delivery WHERE id IN (
        SELECT id FROM delivery WHERE at <= $1 ORDER BY at LIMIT $2) RETURNING 1";

const FORGET_PAST_THREADS: &str = "
    DELETE FROM thread_past WHERE (conversation, version) IN (
        SELECT conversation, version FROM thread_past WHERE until <= $1
         ORDER BY until LIMIT $2) RETURNING 1";
const FORGET_ORPHANS: &str = "
    DELETE FROM thread_orphan WHERE (conversation, id) IN (
        SELECT conversation, id FROM thread_orphan WHERE at <= $1
         ORDER BY at LIMIT $2) RETURNING 1";
// The row stays, so that its version is not given again. Last, as everybody locks it after its
// conversation; and not one that somebody is just given anew.
const FORGET_RIGHTS: &str = "
    UPDATE thread SET until = NULL, claim_key = NULL
     WHERE until <= $1 AND conversation IN (
        SELECT conversation FROM thread WHERE until <= $1 ORDER BY until LIMIT $2) RETURNING 1";

// What no bot has taken for so long.
const DROP_RELAYS: &str = "
    DELETE FROM relay WHERE event IN (
        SELECT event FROM relay WHERE at <= $1 AND node IS NULL
         ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING 1";

impl Batch {
    async fn rest(&mut self, tx: &mut Tx) -> Result<(), Fault> {
        let slots = [
            tx.queue(FORGET_PARKED, parameters![self.parked, self.limit]),
            tx.queue(FORGET_WAMIDS, parameters![self.keys, self.limit]),
            tx.queue(FORGET_DEAD_LETTERS, parameters![self.keys, self.limit]),
            tx.queue(FORGET_DELIVERIES, parameters![self.keys, self.limit]),
        ];
        // Threads that were, and those that came to nothing; never the one that is.
        let threads = [FORGET_PAST_THREADS, FORGET_ORPHANS, FORGET_RIGHTS];
        let threads = threads.map(|sql| tx.queue(sql, parameters![self.payloads, self.limit]));
        let relays = tx.queue(DROP_RELAYS, parameters![self.relays, self.limit]);
        let mut answers = tx.flush().await?;
        let mut count = |slot| answers.take(slot).len() as i64;
        let relays = count(relays);
        self.pruned.relays += relays as u64;
        let threads = threads.map(&mut count);
        self.pruned.payloads += threads.iter().sum::<i64>() as u64;
        let counts = slots.map(count).into_iter().chain(threads).chain([relays]);
        self.others = counts.max().unwrap_or(0);
        Ok(())
    }
}
