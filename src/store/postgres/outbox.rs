//! The outbox. Evidence is merged in memory, for all outgoings of a transaction, under the locks
//! of their conversations; then what has changed is written.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Row;

use super::super::DeadKind;
use super::super::evidence::{Facts, Reading, Shown};
use super::fault::Fault;
use super::lock::{Lock, lock};
use super::parameter::{indexed, parameters, storable};
use super::tx::Tx;
use crate::model::{
    Attempt, ConversationId, Evidence, OutgoingId, OutgoingState, Timestamp, Transition, Wamid,
};

/// Locks conversations, in the one order in which everybody locks them.
pub(super) const LOCK: Lock = lock!("SELECT id FROM conversation WHERE id = ANY($1)");
/// Locks the conversations of outgoings.
pub(super) const LOCK_OF: Lock = lock!(
    "
    SELECT id FROM conversation
     WHERE id IN (SELECT conversation FROM outgoing WHERE id = ANY($1))"
);
/// Outgoings as far as evidence concerns them; to be read after the lock.
pub(super) const STANDINGS: &str = "
    SELECT id, conversation, number, turn_seq, state, attempt, wamid, rank, failed_attempt, is_full
      FROM outgoing WHERE id = ANY($1)";

/// An outgoing as far as evidence concerns it, and what is to be written of it.
struct Standing {
    conversation: ConversationId,
    number: String,
    turn_seq: i64,
    state: OutgoingState,
    attempt: Attempt,
    wamid: Option<String>,
    rank: u8,
    failed_attempt: Option<Attempt>,
    /// Whether retention has left something to send.
    is_full: bool,
    /// Whether anything has changed.
    dirty: bool,
    /// Whether it went through other states, if only to come back.
    moved: bool,
    /// When the oldest open outgoing of its conversation becomes due, as far as it is up to this.
    head_at: Option<Timestamp>,
    reason: Option<String>,
    /// A dead letter of before is closed: it got out after all.
    closes: bool,
    dead: Option<(DeadKind, String)>,
}

/// The outgoings of one transaction.
#[derive(Default)]
pub(super) struct Book {
    standings: BTreeMap<OutgoingId, Standing>,
}

impl Book {
    /// From the rows of [`STANDINGS`].
    pub(super) fn read(&mut self, rows: &[Row]) -> Result<(), Fault> {
        for row in rows {
            let id = OutgoingId(row.get(0));
            self.standings.insert(id, read_standing(row)?);
        }
        Ok(())
    }

    /// The number of an outgoing, if there is such an outgoing.
    pub(super) fn number(&self, id: OutgoingId) -> Option<&str> {
        self.standings
            .get(&id)
            .map(|standing| standing.number.as_str())
    }

    /// Where an outgoing stands.
    pub(super) fn state(&self, id: OutgoingId) -> Option<OutgoingState> {
        self.standings.get(&id).map(|standing| standing.state)
    }

    /// Whether an outgoing is known under this wamid already.
    pub(super) fn is_known_as(&self, id: OutgoingId, wamid: &Wamid) -> bool {
        let known = self
            .standings
            .get(&id)
            .and_then(|standing| standing.wamid.as_deref());
        known == Some(indexed(wamid.as_str()).as_str())
    }

    /// Merges evidence into an outgoing. Never refused; without such an outgoing it is void.
    pub(super) fn merge(
        &mut self,
        now: Timestamp,
        id: OutgoingId,
        evidence: Evidence,
        facts: Facts,
    ) {
        let Some(standing) = self.standings.get_mut(&id) else {
            return;
        };
        if let Some(wamid) = &facts.wamid {
            let wamid = Some(indexed(wamid.as_str()));
            standing.dirty |= standing.wamid != wamid;
            standing.wamid = wamid;
        }
        let merged = standing
            .state
            .merge(standing.attempt, standing.failed_attempt, evidence);
        let Transition::To(state) = merged else {
            return;
        };
        standing.enter(state, evidence, &facts);
        standing.head_at = match state {
            OutgoingState::Pending => Some(now.after(facts.retry_after.unwrap_or(Duration::ZERO))),
            OutgoingState::Sent | OutgoingState::Dead => Some(now),
            OutgoingState::Unsure | OutgoingState::Sending => None,
        };
    }

    /// Conversations whose oldest open outgoing becomes due, and when.
    fn heads(&self) -> BTreeMap<ConversationId, Timestamp> {
        let mut heads = BTreeMap::new();
        for standing in self.standings.values() {
            if let Some(at) = standing.head_at {
                // Of a back-off and a plain wake-up the back-off counts.
                let head = heads.entry(standing.conversation).or_insert(at);
                *head = at.max(*head);
            }
        }
        heads
    }

    /// Merges what a receipt says.
    pub(super) fn read_receipt(
        &mut self,
        now: Timestamp,
        id: OutgoingId,
        wamid: &Wamid,
        reading: &Reading,
    ) {
        let Some(standing) = self.standings.get(&id) else {
            return;
        };
        match reading.shows(standing.rank, standing.attempt, standing.is_full) {
            Shown::Nothing => {}
            Shown::Progress(rank, evidence) => {
                self.merge(now, id, evidence, Facts::known_as(wamid.clone()));
                self.mark(id, |standing| {
                    standing.dirty |= standing.rank < rank as u8;
                    standing.rank = standing.rank.max(rank as u8);
                });
            }
            Shown::Failure(attempt, evidence, facts) => {
                self.merge(now, id, evidence, facts);
                self.mark(id, |standing| {
                    standing.failed_attempt = Some(attempt);
                    standing.dirty = true;
                });
            }
            Shown::OldFailure(evidence, facts) => self.merge(now, id, evidence, facts),
        }
    }

    fn mark(&mut self, id: OutgoingId, change: impl FnOnce(&mut Standing)) {
        if let Some(standing) = self.standings.get_mut(&id) {
            change(standing);
        }
    }

    /// Queues everything that has changed.
    pub(super) fn write(self, tx: &mut Tx) {
        let changed: Vec<(OutgoingId, &Standing)> = self
            .standings
            .iter()
            .filter(|(_, standing)| standing.dirty)
            .map(|(id, standing)| (*id, standing))
            .collect();
        if changed.is_empty() {
            return;
        }
        queue_states(tx, &changed);
        queue_outbox(tx, &changed);
        queue_dead_letters(tx, &changed);
        queue_heads(tx, &self.heads());
        tx.woke_settled = true;
    }
}

impl Standing {
    fn enter(&mut self, state: OutgoingState, evidence: Evidence, facts: &Facts) {
        self.state = state;
        self.dirty = true;
        self.moved = true;
        if facts.reason.is_some() {
            self.reason.clone_from(&facts.reason);
        }
        match state {
            OutgoingState::Sent => {
                self.closes = true;
                self.dead = None;
            }
            OutgoingState::Dead => {
                let kind = match evidence {
                    Evidence::WaitOver(_) => DeadKind::Unsure,
                    _ => DeadKind::Outgoing,
                };
                let reason = facts.reason.clone();
                self.dead = Some((kind, reason.unwrap_or_else(|| "no reason was given".into())));
            }
            OutgoingState::Pending | OutgoingState::Sending | OutgoingState::Unsure => {}
        }
    }
}

fn read_standing(row: &Row) -> Result<Standing, Fault> {
    let state = read_state(row.get(4))?;
    Ok(Standing {
        conversation: ConversationId(row.get(1)),
        number: row.get(2),
        turn_seq: row.get(3),
        state,
        attempt: read_attempt(row.get(5)),
        wamid: row.get(6),
        rank: u8::try_from(row.get::<_, i16>(7)).unwrap_or(0),
        failed_attempt: row.get::<_, Option<i64>>(8).map(read_attempt),
        is_full: row.get(9),
        dirty: false,
        moved: false,
        head_at: None,
        reason: None,
        closes: false,
        dead: None,
    })
}

pub(super) fn read_state(number: i16) -> Result<OutgoingState, Fault> {
    u8::try_from(number)
        .ok()
        .and_then(OutgoingState::from_number)
        .ok_or_else(|| Fault::Refused(format!("no state has the number {number}")))
}

pub(super) fn read_attempt(attempt: i64) -> Attempt {
    Attempt::try_from(attempt).unwrap_or(Attempt::MAX)
}

// What is written ----------------------------------------------------------------------------

// None of these columns has an index.
const STATES: &str = "
    UPDATE outgoing o
       SET state = n.state, wamid = n.wamid, rank = n.rank, failed_attempt = n.failed,
           error = coalesce(n.error, o.error),
           changed_at = CASE WHEN n.moved THEN now_ms() ELSE o.changed_at END
      FROM unnest($1::int8[], $2::int8[], $3::int2[], $4::text[], $5::int2[], $6::int8[],
                  $7::text[], $8::bool[])
           AS n(id, conversation, state, wamid, rank, failed, error, moved)
     WHERE o.id = n.id AND o.conversation = n.conversation";

fn queue_states(tx: &mut Tx, changed: &[(OutgoingId, &Standing)]) {
    let of = |changed: &[(OutgoingId, &Standing)]| -> Vec<i64> {
        changed.iter().map(|(id, _)| id.0).collect()
    };
    let parameters = parameters![
        of(changed),
        changed
            .iter()
            .map(|(_, s)| s.conversation.0)
            .collect::<Vec<_>>(),
        changed
            .iter()
            .map(|(_, s)| s.state as i16)
            .collect::<Vec<_>>(),
        changed
            .iter()
            .map(|(_, s)| s.wamid.clone())
            .collect::<Vec<_>>(),
        changed
            .iter()
            .map(|(_, s)| i16::from(s.rank))
            .collect::<Vec<_>>(),
        changed
            .iter()
            .map(|(_, s)| s.failed_attempt.map(i64::from))
            .collect::<Vec<_>>(),
        changed
            .iter()
            .map(|(_, s)| s.reason.as_deref().map(storable))
            .collect::<Vec<_>>(),
        changed.iter().map(|(_, s)| s.moved).collect::<Vec<_>>(),
    ];
    tx.queue(STATES, parameters);
}

const CLOSE: &str = "
    DELETE FROM outbox b USING unnest($1::int8[], $2::int8[]) AS n(conversation, outgoing)
     WHERE b.conversation = n.conversation AND b.outgoing = n.outgoing";
const REOPEN: &str = "
    INSERT INTO outbox (conversation, outgoing, number)
    SELECT conversation, outgoing, number
      FROM unnest($1::int8[], $2::int8[], $3::text[]) AS n(conversation, outgoing, number)
     ORDER BY conversation, outgoing
    ON CONFLICT (conversation, outgoing)
    DO UPDATE SET state = 0, due_at = NULL, node = NULL, unsure_at_ms = NULL";
// An outgoing that is open again stands before those that had moved up.
const HOLD_BACK: &str = "
    UPDATE outbox b SET due_at = NULL
      FROM unnest($1::int8[], $2::int8[]) AS n(conversation, outgoing)
     WHERE b.conversation = n.conversation AND b.outgoing > n.outgoing AND b.due_at IS NOT NULL";
const QUESTION: &str = "
    UPDATE outbox b SET state = 2, due_at = NULL, node = NULL, unsure_at_ms = l.healthy_ms
      FROM unnest($1::int8[], $2::int8[]) AS n(conversation, outgoing), ledger l
     WHERE b.conversation = n.conversation AND b.outgoing = n.outgoing";

fn queue_outbox(tx: &mut Tx, changed: &[(OutgoingId, &Standing)]) {
    let in_state = |wanted: fn(OutgoingState) -> bool| -> Vec<&(OutgoingId, &Standing)> {
        let moved = |(_, s): &&(OutgoingId, &Standing)| s.moved && wanted(s.state);
        changed.iter().filter(moved).collect()
    };
    let keys = |of: &[&(OutgoingId, &Standing)]| -> (Vec<i64>, Vec<i64>) {
        of.iter().map(|(id, s)| (s.conversation.0, id.0)).unzip()
    };
    let closed = in_state(|state| !state.is_open());
    if !closed.is_empty() {
        let (conversations, ids) = keys(&closed);
        tx.queue(CLOSE, parameters![conversations, ids]);
    }
    let reopened = in_state(|state| state == OutgoingState::Pending);
    if !reopened.is_empty() {
        let (conversations, ids) = keys(&reopened);
        let numbers: Vec<String> = reopened.iter().map(|(_, s)| s.number.clone()).collect();
        tx.queue(
            REOPEN,
            parameters![conversations.clone(), ids.clone(), numbers],
        );
        tx.queue(HOLD_BACK, parameters![conversations, ids]);
    }
    let unsure = in_state(|state| state == OutgoingState::Unsure);
    if !unsure.is_empty() {
        let (conversations, ids) = keys(&unsure);
        tx.queue(QUESTION, parameters![conversations, ids]);
    }
}

const CLOSE_DEAD_LETTERS: &str = "
    UPDATE dead_letter SET closed_at = now_ms()
     WHERE outgoing = ANY($1) AND closed_at IS NULL";
const BURY: &str = "
    INSERT INTO dead_letter (kind, conversation, seq, seq_last, outgoing, reason, attempts, at)
    SELECT kind, conversation, seq, seq, outgoing, reason, attempts, now_ms()
      FROM unnest($1::int2[], $2::int8[], $3::int8[], $4::int8[], $5::text[], $6::int8[])
           AS n(kind, conversation, seq, outgoing, reason, attempts)";

fn queue_dead_letters(tx: &mut Tx, changed: &[(OutgoingId, &Standing)]) {
    let closes = |(_, s): &&(OutgoingId, &Standing)| s.closes;
    let closed: Vec<i64> = changed.iter().filter(closes).map(|(id, _)| id.0).collect();
    if !closed.is_empty() {
        tx.queue(CLOSE_DEAD_LETTERS, parameters![closed]);
    }
    let dead: Vec<_> = changed
        .iter()
        .filter_map(|(id, s)| Some((id, s, s.dead.as_ref()?)))
        .collect();
    if dead.is_empty() {
        return;
    }
    let parameters = parameters![
        dead.iter()
            .map(|(_, _, (kind, _))| *kind as i16)
            .collect::<Vec<_>>(),
        dead.iter()
            .map(|(_, s, _)| s.conversation.0)
            .collect::<Vec<_>>(),
        dead.iter().map(|(_, s, _)| s.turn_seq).collect::<Vec<_>>(),
        dead.iter().map(|(id, _, _)| id.0).collect::<Vec<_>>(),
        dead.iter()
            .map(|(_, _, (_, reason))| storable(reason))
            .collect::<Vec<_>>(),
        dead.iter()
            .map(|(_, s, _)| i64::from(s.attempt))
            .collect::<Vec<_>>(),
    ];
    tx.queue(BURY, parameters);
}

const PROMOTE: &str = "
    UPDATE outbox b SET due_at = n.at
      FROM unnest($1::int8[], $2::int8[]) AS n(conversation, at)
     CROSS JOIN LATERAL (SELECT h.outgoing, h.state, h.due_at FROM outbox h
                          WHERE h.conversation = n.conversation ORDER BY h.outgoing LIMIT 1) h
     WHERE b.conversation = n.conversation AND b.outgoing = h.outgoing
       AND h.state = 0 AND h.due_at IS NULL";

/// Makes the oldest open outgoing of each conversation due, if it waits for nothing else. Called
/// whenever the head may have changed: a head without a due time would wait for ever.
pub(super) fn queue_heads(tx: &mut Tx, heads: &BTreeMap<ConversationId, Timestamp>) {
    if heads.is_empty() {
        return;
    }
    let (conversations, at): (Vec<i64>, Vec<i64>) = heads
        .iter()
        .map(|(conversation, at)| (conversation.0, at.0))
        .unzip();
    tx.queue(PROMOTE, parameters![conversations, at]);
    tx.woke_sends = true;
}

// Wamids -------------------------------------------------------------------------------------

const LEARN: &str = "
    INSERT INTO wamid (number, wamid, outgoing, conversation, at)
    SELECT n.number, n.wamid, n.outgoing, o.conversation, now_ms()
      FROM unnest($1::text[], $2::text[], $3::int8[]) AS n(number, wamid, outgoing)
      JOIN outgoing o ON o.id = n.outgoing
     ORDER BY n.number, n.wamid
    ON CONFLICT (number, wamid)
    DO UPDATE SET outgoing = coalesce(wamid.outgoing, excluded.outgoing),
                  conversation = coalesce(wamid.conversation, excluded.conversation)";
// Receipts that came before are the outgoing's own.
const ADOPT: &str = "
    UPDATE receipt r SET outgoing = n.outgoing
      FROM unnest($1::text[], $2::text[], $3::int8[]) AS n(number, wamid, outgoing)
     WHERE r.number = n.number AND r.wamid = n.wamid AND r.outgoing IS NULL
    RETURNING r.outgoing, r.wamid, r.status, r.attempt, r.code, r.retryable,
              r.participant <> ''";

/// Outgoings that are known under these wamids from now on.
#[derive(Default)]
pub(super) struct Learnt(BTreeMap<(String, String), OutgoingId>);

impl Learnt {
    /// `number` and `wamid` as they stand in the ledger.
    pub(super) fn add(&mut self, number: String, wamid: String, id: OutgoingId) {
        self.0.entry((number, wamid)).or_insert(id);
    }

    pub(super) fn get(&self, number: &str, wamid: &str) -> Option<OutgoingId> {
        self.0.get(&(number.to_owned(), wamid.to_owned())).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Queues both statements; the rows of the answered slot are for [`read_adopted`]. Under the
    /// locks of the conversations, and after them: both sides of a wamid write its row.
    pub(super) fn queue(&self, tx: &mut Tx) -> super::tx::Slot {
        let columns = || {
            let numbers: Vec<String> = self.0.keys().map(|(number, _)| number.clone()).collect();
            let wamids: Vec<String> = self.0.keys().map(|(_, wamid)| wamid.clone()).collect();
            let ids: Vec<i64> = self.0.values().map(|id| id.0).collect();
            parameters![numbers, wamids, ids]
        };
        tx.queue(LEARN, columns());
        tx.queue(ADOPT, columns())
    }
}

/// Merges the receipts that were parked until now.
pub(super) fn read_adopted(book: &mut Book, now: Timestamp, rows: &[Row]) {
    for row in rows {
        let id = OutgoingId(row.get(0));
        let wamid = Wamid::new(row.get::<_, String>(1));
        let reading = Reading {
            status: crate::model::ReceiptStatus::parse(row.get(2)),
            attempt: row.get::<_, Option<i64>>(3).map(read_attempt),
            code: row.get(4),
            retryable: row.get(5),
            of_participant: row.get(6),
        };
        book.read_receipt(now, id, &wamid, &reading);
    }
}
