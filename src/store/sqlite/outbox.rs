//! The outbox, and the receipts that speak of it. Whatever shows what became of an outgoing, an
//! answer or a receipt, comes in by [`merge`].

use rusqlite::{Row, params};

use super::super::evidence::{self, Facts, Reading, Shown, Silence};
use super::super::{DeadKind, KeepSends, SendResult, Settle};
use super::bot_sends;
use super::tx::Tx;
use crate::crash_point::Method;
use crate::guard::{self, Guard};
use crate::model::{
    Attempt, ConversationId, EventKey, Evidence, NodeId, NumberId, OutgoingId, OutgoingState,
    Receipt, ReceiptStatus, Tag, Timestamp, Transition, Wamid,
};

/// An outgoing as far as evidence concerns it.
struct Standing {
    id: OutgoingId,
    conversation: ConversationId,
    number: NumberId,
    turn_seq: i64,
    state: OutgoingState,
    attempt: Attempt,
    wamid: Option<Wamid>,
    rank: u8,
    failed_attempt: Option<Attempt>,
    /// Whether retention has left something to send.
    is_full: bool,
}

const STANDING: &str = "
    SELECT id, conversation, number, turn_seq, state, attempt, wamid, rank, failed_attempt,
           body <> ''
      FROM outgoing WHERE id = ?1";

fn read_standing(row: &Row<'_>) -> rusqlite::Result<Standing> {
    Ok(Standing {
        id: OutgoingId(row.get(0)?),
        conversation: ConversationId(row.get(1)?),
        number: NumberId::new(row.get::<_, String>(2)?),
        turn_seq: row.get(3)?,
        state: read_state(row, 4)?,
        attempt: row.get(5)?,
        wamid: row.get::<_, Option<String>>(6)?.map(Wamid::new),
        rank: row.get(7)?,
        failed_attempt: row.get(8)?,
        is_full: row.get(9)?,
    })
}

pub(super) fn read_state(row: &Row<'_>, at: usize) -> rusqlite::Result<OutgoingState> {
    let number: u8 = row.get(at)?;
    OutgoingState::from_number(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(
        at,
        i64::from(number),
    ))
}

/// Merges evidence into an outgoing; answers where it stands then, or `None` if there is none.
pub(super) fn merge(
    tx: &Tx<'_>,
    id: OutgoingId,
    evidence: Evidence,
    facts: &Facts,
) -> rusqlite::Result<Option<OutgoingState>> {
    let Some(standing) = tx.row(STANDING, [id.0], read_standing)? else {
        return Ok(None);
    };
    let state = match standing
        .state
        .merge(standing.attempt, standing.failed_attempt, evidence)
    {
        Transition::Stay => standing.state,
        Transition::To(state) => {
            enter(tx, &standing, state, evidence, facts)?;
            state
        }
    };
    // A failure that was parked until now may have the last word.
    if let Some(wamid) = &facts.wamid
        && learn_wamid(tx, &standing, wamid)?
    {
        let now = tx.row(STANDING, [id.0], read_standing)?;
        return Ok(now.map(|standing| standing.state));
    }
    Ok(Some(state))
}

const ENTER: &str = "
    UPDATE outgoing
       SET state = ?2, node = NULL, due_at = NULL, error = coalesce(?3, error), changed_at = ?4,
           kept_at = NULL, unsure_at_ms = CASE WHEN ?2 = 2 THEN (SELECT healthy_ms FROM ledger) END
     WHERE id = ?1";

fn enter(
    tx: &Tx<'_>,
    standing: &Standing,
    state: OutgoingState,
    evidence: Evidence,
    facts: &Facts,
) -> rusqlite::Result<()> {
    let id = standing.id;
    tx.wake_settled();
    tx.execute(ENTER, params![id.0, state as u8, facts.reason, tx.now.0])?;
    match state {
        OutgoingState::Pending => {
            hold_back_later(tx, standing)?;
            promote_head(
                tx,
                standing.conversation,
                tx.now.after(facts.retry_after.unwrap_or_default()),
            )?;
        }
        OutgoingState::Sent => {
            close_dead_letter(tx, id)?;
            promote_head(tx, standing.conversation, tx.now)?;
        }
        OutgoingState::Dead => {
            bury(tx, standing, evidence, facts)?;
            promote_head(tx, standing.conversation, tx.now)?;
        }
        OutgoingState::Sending | OutgoingState::Unsure => {}
    }
    Ok(())
}

// The head of a conversation's outbox --------------------------------------------------------

const PROMOTE_HEAD: &str = "
    UPDATE outgoing SET due_at = ?2
     WHERE id = (SELECT min(id) FROM outgoing WHERE conversation = ?1 AND state < 3)
       AND state = 0 AND due_at IS NULL";

/// Makes the oldest open outgoing of a conversation due, if it waits for nothing else. Called
/// whenever the head may have changed: a head without a due time would wait for ever.
pub(super) fn promote_head(
    tx: &Tx<'_>,
    conversation: ConversationId,
    at: Timestamp,
) -> rusqlite::Result<()> {
    if tx.execute(PROMOTE_HEAD, params![conversation.0, at.0])? > 0 {
        tx.wake_sends();
    }
    Ok(())
}

const HOLD_BACK_LATER: &str = "
    UPDATE outgoing SET due_at = NULL
     WHERE conversation = ?1 AND id > ?2 AND due_at IS NOT NULL";

/// An outgoing that is open again stands before those that had moved up.
fn hold_back_later(tx: &Tx<'_>, standing: &Standing) -> rusqlite::Result<()> {
    tx.execute(
        HOLD_BACK_LATER,
        params![standing.conversation.0, standing.id.0],
    )?;
    Ok(())
}

// A turn's replies may stand beside what its bot has sent by itself.
const ENQUEUE: &str = "
    INSERT INTO outgoing (conversation, number, turn_seq, position, body, created_at, changed_at)
    VALUES (?1, ?2, ?3, (SELECT coalesce(max(position) + 1, 0) FROM outgoing
                          WHERE conversation = ?1 AND turn_seq = ?3), ?4, ?5, ?5)";
const KNOW_NUMBER: &str = "INSERT OR IGNORE INTO number (id) VALUES (?1)";

/// Puts a turn's replies into the outbox, in order.
pub(super) fn enqueue(
    tx: &Tx<'_>,
    conversation: ConversationId,
    number: &str,
    turn_seq: i64,
    bodies: &[String],
) -> rusqlite::Result<()> {
    for body in bodies {
        add(tx, conversation, number, turn_seq, body)?;
    }
    promote_head(tx, conversation, tx.now)
}

/// Puts one message into the outbox, behind all others of its conversation. If it is the head
/// now, it is not due yet.
pub(super) fn add(
    tx: &Tx<'_>,
    conversation: ConversationId,
    number: &str,
    turn_seq: i64,
    body: &str,
) -> rusqlite::Result<OutgoingId> {
    tx.execute(KNOW_NUMBER, [number])?;
    let params = params![conversation.0, number, turn_seq, body, tx.now.0];
    tx.execute(ENQUEUE, params)?;
    Ok(OutgoingId(tx.conn.last_insert_rowid()))
}

// Dead letters -------------------------------------------------------------------------------

const BURY: &str = "
    INSERT INTO dead_letter (kind, conversation, seq, seq_last, outgoing, reason, attempts, at)
    VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7)";

fn bury(
    tx: &Tx<'_>,
    standing: &Standing,
    evidence: Evidence,
    facts: &Facts,
) -> rusqlite::Result<()> {
    let kind = match evidence {
        Evidence::WaitOver(_) => DeadKind::Unsure,
        _ => DeadKind::Outgoing,
    };
    let reason = facts.reason.as_deref().unwrap_or("no reason was given");
    tx.execute(
        BURY,
        params![
            kind as u8,
            standing.conversation.0,
            standing.turn_seq,
            standing.id.0,
            reason,
            standing.attempt,
            tx.now.0
        ],
    )?;
    Ok(())
}

const CLOSE_DEAD_LETTER: &str = "
    UPDATE dead_letter SET closed_at = ?2 WHERE outgoing = ?1 AND closed_at IS NULL";

fn close_dead_letter(tx: &Tx<'_>, id: OutgoingId) -> rusqlite::Result<()> {
    tx.execute(CLOSE_DEAD_LETTER, params![id.0, tx.now.0])?;
    Ok(())
}

// Answers ------------------------------------------------------------------------------------

const PAUSE_NUMBER: &str = "
    INSERT INTO number (id, paused_until, reason) VALUES (?1, ?2, ?3)
    ON CONFLICT (id) DO UPDATE SET paused_until = max(paused_until, ?2), reason = ?3";

pub(super) fn settle(tx: &Tx<'_>, settle: &Settle) -> rusqlite::Result<Option<OutgoingState>> {
    tx.carries(Method::Settle);
    if let SendResult::PauseNumber { wait, reason } = &settle.result {
        pause_number(tx, settle.id, tx.now.after(*wait), reason)?;
    }
    if let Some(answer) = &settle.answer {
        bot_sends::answered(tx, settle.id, answer)?;
    }
    let (evidence, facts) = evidence::of_result(settle.attempt, &settle.result);
    merge(tx, settle.id, evidence, &facts)
}

fn pause_number(
    tx: &Tx<'_>,
    id: OutgoingId,
    until: Timestamp,
    reason: &str,
) -> rusqlite::Result<()> {
    if let Some(standing) = tx.row(STANDING, [id.0], read_standing)? {
        tx.execute(
            PAUSE_NUMBER,
            params![standing.number.as_str(), until.0, reason],
        )?;
    }
    Ok(())
}

// Receipts -----------------------------------------------------------------------------------

const FIND_BY_WAMID: &str = "
    SELECT id FROM outgoing WHERE number = ?1 AND wamid = ?2 ORDER BY id LIMIT 1";
const FIND_BY_TAG: &str = "SELECT id FROM outgoing WHERE id = ?1 AND number = ?2";
const KEEP_RECEIPT: &str = "
    INSERT INTO receipt (event, number, wamid, status, participant, at, received_at, outgoing,
                         attempt, code, retryable, raw)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

/// Keeps a new receipt and merges it into its outgoing; parks it if nobody has claimed its
/// wamid yet.
pub(super) fn receive(
    tx: &Tx<'_>,
    key: EventKey,
    number: &NumberId,
    receipt: &Receipt,
    received_at: Timestamp,
) -> rusqlite::Result<Option<OutgoingId>> {
    let tag = receipt
        .callback_data
        .as_deref()
        .and_then(Tag::parse)
        .filter(|tag| tag.store == tx.store);
    let read_id = |row: &Row<'_>| row.get(0).map(OutgoingId);
    let tagged = match tag {
        Some(tag) => tx.row(FIND_BY_TAG, (tag.outgoing.0, number.as_str()), read_id)?,
        None => None,
    };
    let outgoing = match tagged {
        Some(id) => Some(id),
        None => tx.row(
            FIND_BY_WAMID,
            (number.as_str(), receipt.wamid.as_str()),
            read_id,
        )?,
    };
    if outgoing.is_none() && !guard::holds(Guard::ReceiptParking) {
        return Ok(None);
    }
    let attempt = tagged.and(tag).map(|tag| tag.attempt);
    let reading = Reading::of(receipt, attempt);
    tx.execute(
        KEEP_RECEIPT,
        params![
            key.0,
            number.as_str(),
            receipt.wamid.as_str(),
            receipt.status.as_str(),
            receipt.participant.as_deref().unwrap_or_default(),
            receipt.at.map(|at| at.0),
            received_at.0,
            outgoing.map(|id| id.0),
            attempt,
            reading.code,
            reading.retryable,
            receipt.raw,
        ],
    )?;
    if let Some(id) = outgoing {
        read_receipt(tx, id, &receipt.wamid, &reading)?;
    }
    Ok(outgoing)
}

const RAISE_RANK: &str = "UPDATE outgoing SET rank = max(rank, ?2) WHERE id = ?1";

fn read_receipt(
    tx: &Tx<'_>,
    id: OutgoingId,
    wamid: &Wamid,
    reading: &Reading,
) -> rusqlite::Result<()> {
    let Some(standing) = tx.row(STANDING, [id.0], read_standing)? else {
        return Ok(());
    };
    match reading.shows(standing.rank, standing.attempt, standing.is_full) {
        Shown::Nothing => {}
        Shown::Progress(rank, evidence) => {
            // First, so that a failure that was parked till now is read as what it is: old news.
            tx.execute(RAISE_RANK, params![id.0, rank as u8])?;
            merge(tx, id, evidence, &Facts::known_as(wamid.clone()))?;
        }
        Shown::Failure(attempt, evidence, facts) => {
            merge(tx, id, evidence, &facts)?;
            tx.execute(MARK_FAILED, params![id.0, attempt])?;
        }
        Shown::OldFailure(evidence, facts) => {
            merge(tx, id, evidence, &facts)?;
        }
    }
    // Whatever it says, it names the wamid; one that came before may say more.
    if standing.wamid.is_none() {
        learn_wamid(tx, &standing, wamid)?;
    }
    Ok(())
}

const MARK_FAILED: &str = "UPDATE outgoing SET failed_attempt = ?2 WHERE id = ?1";
const SET_WAMID: &str = "UPDATE outgoing SET wamid = ?2 WHERE id = ?1";
const ADOPT: &str = "
    UPDATE receipt SET outgoing = ?3 WHERE number = ?1 AND wamid = ?2 AND outgoing IS NULL
    RETURNING status, attempt, code, retryable, participant <> ''";

/// The outgoing is known under this wamid now: receipts that came before are its own. Answers
/// whether there were any.
fn learn_wamid(tx: &Tx<'_>, standing: &Standing, wamid: &Wamid) -> rusqlite::Result<bool> {
    if standing.wamid.as_ref() == Some(wamid) {
        return Ok(false);
    }
    tx.execute(SET_WAMID, params![standing.id.0, wamid.as_str()])?;
    let params = params![standing.number.as_str(), wamid.as_str(), standing.id.0];
    let parked = tx.rows(ADOPT, params, |row| {
        Ok(Reading {
            status: ReceiptStatus::parse(&row.get::<_, String>(0)?),
            attempt: row.get(1)?,
            code: row.get(2)?,
            retryable: row.get(3)?,
            of_participant: row.get(4)?,
        })
    })?;
    for reading in &parked {
        read_receipt(tx, standing.id, wamid, reading)?;
    }
    Ok(!parked.is_empty())
}

// json_patch merges member by member; what is not JSON to SQLite stays as it was.
const ENRICH: &str = "
    UPDATE receipt SET raw = json_patch(raw, ?2)
     WHERE event = ?1 AND raw <> ?2 AND json_valid(raw) AND json_valid(?2)";

/// Adds what a repeated status carries beyond the first.
pub(super) fn enrich(tx: &Tx<'_>, key: EventKey, raw: &str) -> rusqlite::Result<()> {
    tx.execute(ENRICH, params![key.0, raw])?;
    Ok(())
}

// Unsure -------------------------------------------------------------------------------------

const SENDING: &str = "SELECT id, attempt FROM outgoing WHERE node = ?1 AND state = 1";

/// Makes unsure what `node` is sending, as far as it `is_lost`.
pub(super) fn doubt(
    tx: &Tx<'_>,
    node: NodeId,
    silence: Silence,
    is_lost: impl Fn(OutgoingId, Attempt) -> bool,
) -> rusqlite::Result<Vec<OutgoingId>> {
    let mut sending = tx.rows(SENDING, [node.0], |row| {
        Ok((OutgoingId(row.get(0)?), row.get::<_, Attempt>(1)?))
    })?;
    sending.retain(|(id, attempt)| is_lost(*id, *attempt));
    for &(id, attempt) in &sending {
        let (evidence, facts) = evidence::of_silence(attempt, silence);
        merge(tx, id, evidence, &facts)?;
    }
    Ok(sending.into_iter().map(|(id, _)| id).collect())
}

/// Makes unsure what `node` is sending and `keep` denies.
pub(super) fn doubt_unknown(
    tx: &Tx<'_>,
    node: NodeId,
    keep: &KeepSends,
) -> rusqlite::Result<Vec<OutgoingId>> {
    let is_lost = |id, attempt| !keep(id, attempt);
    let doubted = doubt(tx, node, Silence::NodeDenies, is_lost)?;
    if !doubted.is_empty() {
        tx.carries(Method::DoubtUnknown);
    }
    Ok(doubted)
}

// Each bounds the other: neither a clock that somebody has set nor a caller that says too much
// moves it far.
const COUNT_HEALTHY: &str = "
    UPDATE ledger SET healthy_ms = healthy_ms + max(0, min(?2 - healthy_at, ?1)),
                      healthy_at = ?2
     WHERE ?1 > 0";
const OVERDUE: &str = "
    SELECT id, attempt FROM outgoing
     WHERE state = 2 AND unsure_at_ms <= (SELECT healthy_ms FROM ledger) - ?1 LIMIT 1000";

pub(super) fn expire_unsure(
    tx: &Tx<'_>,
    healthy_ms: i64,
    unsure_wait_ms: i64,
) -> rusqlite::Result<Vec<OutgoingId>> {
    tx.execute(COUNT_HEALTHY, params![healthy_ms, tx.now.0])?;
    let overdue = tx.rows(OVERDUE, [unsure_wait_ms], |row| {
        Ok((OutgoingId(row.get(0)?), row.get::<_, Attempt>(1)?))
    })?;
    if !overdue.is_empty() {
        tx.carries(Method::ExpireUnsure);
    }
    let reason = Facts::because("nobody learnt whether it was sent: no receipt came");
    for &(id, attempt) in &overdue {
        merge(tx, id, Evidence::WaitOver(attempt), &reason)?;
    }
    Ok(overdue.into_iter().map(|(id, _)| id).collect())
}
