//! STAGE: what a bot asks to send, put on record and, if it is new, into the outbox.

use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::super::bot_sends::{BotSendRow, Place, REPEAT_MAX, Scene, decision};
use super::super::{DeadKind, Fate, Heard, SendWhen, Stage, Staged, TurnRun};
use super::identity;
use super::outbox::{self, read_state};
use super::tx::Tx;
use crate::crash_point::Method;
use crate::model::bot_send::{Asked, Decision, Likeness, RETIRED, Told};
use crate::model::{
    BotSendId, ConversationId, GraphAnswer, NumberId, OutgoingId, Timestamp, TurnId, Wamid,
};

const CONVERSATION: &str = "
    SELECT c.epoch, c.done_seq, c.turn_last IS NOT NULL, t.seq, t.epoch, t.finished_at
      FROM conversation c
      LEFT JOIN turn t ON t.conversation = c.id
                      AND t.seq = (SELECT max(seq) FROM turn WHERE conversation = ?1)
     WHERE c.id = ?1";

fn scene(tx: &Tx<'_>, conversation: ConversationId) -> rusqlite::Result<Option<Scene>> {
    tx.row(CONVERSATION, [conversation.0], |row| {
        let ended = match (row.get(3)?, row.get(4)?, row.get::<_, Option<i64>>(5)?) {
            (Some(seq), Some(epoch), Some(at)) => Some((seq, epoch, tx.now.since(Timestamp(at)))),
            _ => None,
        };
        Ok(Scene {
            epoch: row.get(0)?,
            done_seq: row.get(1)?,
            is_open: row.get(2)?,
            ended,
        })
    })
}

/// `None`: the turn has asked for as many as it may. Otherwise what it came to, but for its fate.
pub(super) fn stage(tx: &Tx<'_>, stage: &Stage) -> rusqlite::Result<Option<Staged>> {
    let conversation = whom(tx, stage)?;
    let scene = scene(tx, conversation)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    tx.carries(Method::Stage);
    let place = scene.place(stage);
    let is_late = is_late(tx, conversation, &scene)?;
    let decision = match (elsewhere(tx, conversation, place, stage)?, place) {
        (Some(same), _) => Some(Decision::Known(same, Likeness::Joined)),
        (None, Place::In { seq, epoch }) => in_turn(tx, conversation, seq, epoch, false, stage)?,
        (None, Place::After { seq, epoch }) => in_turn(tx, conversation, seq, epoch, true, stage)?,
        (None, Place::Outside) => Some(Decision::New),
    };
    let Some(decision) = decision else {
        return Ok(None);
    };
    let (seq, epoch) = match place {
        Place::In { seq, epoch } | Place::After { seq, epoch } => (seq, epoch),
        Place::Outside => (0, 0),
    };
    let (id, taken_for) = match decision {
        Decision::New | Decision::InPlaceOf(_) => {
            let position = match decision {
                Decision::InPlaceOf(retired) => Some(retire(tx, retired)?),
                Decision::New | Decision::Known(..) => None,
            };
            let id = record(tx, conversation, (seq, epoch, position), stage)?;
            let holds = matches!(place, Place::In { .. }) && stage.when == SendWhen::AtFinish;
            match holds {
                true => hold(tx, id, &stage.body)?,
                false => enqueue(
                    tx,
                    id,
                    conversation,
                    stage.number.as_str(),
                    seq,
                    &stage.body,
                )?,
            }
            (id, None)
        }
        Decision::Known(id, likeness) => {
            let params = params![id.0, epoch, tx.now.0, stage.content.0, stage.key];
            tx.execute(SEE, params)?;
            (id, Some(likeness))
        }
    };
    let turn = (seq > 0).then_some(TurnId { conversation, seq });
    Ok(Some(Staged {
        id,
        conversation,
        turn,
        taken_for,
        is_late,
        fate: fate(tx.conn, id)?,
    }))
}

/// The conversation of whom it goes to: a person who is known by the other way to dial them is
/// no stranger.
fn whom(tx: &Tx<'_>, stage: &Stage) -> rusqlite::Result<ConversationId> {
    if let Some(twin) = stage.twin()
        && identity::find(tx, &stage.number, &stage.to)?.is_none()
        && let Some(known) = identity::find(tx, &stage.number, &twin)?
    {
        return Ok(known);
    }
    Ok(identity::resolve(tx, &stage.number, &stage.to)?.conversation)
}

const SEE: &str = "
    UPDATE bot_send
       SET seen = max(seen, ?2), heard_at = ?3, told = 0,
           also = CASE WHEN content <> ?4 THEN ?4 ELSE also END,
           also_key = CASE WHEN key IS NOT ?5 THEN coalesce(?5, also_key) ELSE also_key END
     WHERE id = ?1";

const OF_TURN: &str = "
    SELECT b.id, b.content, b.also, b.born, b.seen, b.told,
           coalesce(o.state = 4 AND o.wamid IS NULL
                    AND NOT EXISTS (SELECT 1 FROM dead_letter d
                                     WHERE d.outgoing = o.id AND d.kind = ?3), 0)
      FROM bot_send b LEFT JOIN outgoing o ON o.id = b.outgoing
     WHERE b.conversation = ?1 AND b.turn_seq = ?2 ORDER BY b.position";
// What an attempt has held that is over will never go out, and stands for nothing.
const DROP_OLD: &str = "
    DELETE FROM bot_send
     WHERE conversation = ?1 AND turn_seq = ?2 AND outgoing IS NULL AND born < ?3";

fn in_turn(
    tx: &Tx<'_>,
    conversation: ConversationId,
    seq: i64,
    epoch: i64,
    is_finished: bool,
    stage: &Stage,
) -> rusqlite::Result<Option<Decision>> {
    tx.execute(DROP_OLD, [conversation.0, seq, epoch])?;
    let params = [conversation.0, seq, DeadKind::Unsure as i64];
    let recorded = tx.rows(OF_TURN, params, read_recorded)?;
    let recorded: Vec<_> = recorded.into_iter().map(BotSendRow::read).collect();
    let asked = Asked {
        content: stage.content,
        epoch,
        is_finished,
    };
    Ok(decision(&recorded, &asked))
}

fn read_recorded(row: &Row<'_>) -> rusqlite::Result<BotSendRow> {
    Ok(BotSendRow {
        id: row.get(0)?,
        content: row.get(1)?,
        also: row.get(2)?,
        born: row.get(3)?,
        seen: row.get(4)?,
        told: row.get(5)?,
        is_void: row.get(6)?,
    })
}

// Held sends of attempts that are over stand for nothing.
const OF_KEY: &str = "
    SELECT b.id FROM bot_send b JOIN conversation c ON c.id = b.conversation
     WHERE b.conversation = ?1 AND (b.key = ?2 OR b.also_key = ?2)
       AND (b.outgoing IS NOT NULL OR b.born = c.epoch)
     ORDER BY b.id DESC LIMIT 1";
const UNHEARD: &str = "
    SELECT id FROM bot_send
     WHERE conversation = ?1 AND content = ?2 AND told = 0 AND heard_at >= ?3
       AND outgoing IS NOT NULL
     ORDER BY id LIMIT 1";

/// The one that this is a client's second try of, in whatever turn that was: it has the same key;
/// or no turn is open, and it says the same as one whose caller has heard nothing.
fn elsewhere(
    tx: &Tx<'_>,
    conversation: ConversationId,
    place: Place,
    stage: &Stage,
) -> rusqlite::Result<Option<BotSendId>> {
    let read = |row: &Row<'_>| row.get(0).map(BotSendId);
    if let Some(key) = &stage.key {
        return tx.row(OF_KEY, params![conversation.0, key], read);
    }
    if matches!(place, Place::In { .. }) {
        return Ok(None);
    }
    let since = tx.now.0.saturating_sub(millis(REPEAT_MAX));
    tx.row(
        UNHEARD,
        params![conversation.0, stage.content.0, since],
        read,
    )
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

const SENT_IN_TIME: &str = "
    SELECT 1 FROM bot_send b JOIN turn t ON t.conversation = b.conversation AND t.seq = b.turn_seq
     WHERE b.conversation = ?1 AND b.turn_seq = ?2 AND b.outgoing IS NOT NULL
       AND b.heard_at <= t.finished_at LIMIT 1";

/// Whether the last turn has just ended without a send, so that this one may be its answer.
fn is_late(tx: &Tx<'_>, conversation: ConversationId, scene: &Scene) -> rusqlite::Result<bool> {
    let Some((seq, _)) = scene.may_be_late_for() else {
        return Ok(false);
    };
    let in_time = tx.row(SENT_IN_TIME, [conversation.0, seq], |_| Ok(()))?;
    Ok(in_time.is_none())
}

const RECORD: &str = "
    INSERT INTO bot_send (conversation, turn_seq, position, content, born, seen, heard_at, key,
                          recipient, callback)
    VALUES (?1, ?2, coalesce(?9, (SELECT coalesce(max(position) + 1, 0) FROM bot_send
                                   WHERE conversation = ?1 AND turn_seq = ?2)),
            ?3, ?4, ?4, ?5, ?6, ?7, ?8)";

fn record(
    tx: &Tx<'_>,
    conversation: ConversationId,
    (seq, epoch, position): (i64, i64, Option<i64>),
    stage: &Stage,
) -> rusqlite::Result<BotSendId> {
    let params = params![
        conversation.0,
        seq,
        stage.content.0,
        epoch,
        tx.now.0,
        stage.key,
        stage.recipient.encode(),
        stage.callback,
        position,
    ];
    tx.execute(RECORD, params)?;
    Ok(BotSendId(tx.conn.last_insert_rowid()))
}

const POSITION: &str = "SELECT position FROM bot_send WHERE id = ?1";
const RETIRE: &str = "
    UPDATE bot_send
       SET seen = ?2,
           position = (SELECT max(of_turn.position) + 1 FROM bot_send of_turn
                        WHERE of_turn.conversation = bot_send.conversation
                          AND of_turn.turn_seq = bot_send.turn_seq)
     WHERE id = ?1";

/// Takes its place from a send that has surely not gone out; answers which that was.
fn retire(tx: &Tx<'_>, id: BotSendId) -> rusqlite::Result<i64> {
    let position = tx.row(POSITION, [id.0], |row| row.get(0))?;
    tx.execute(RETIRE, [id.0, RETIRED])?;
    position.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

const HOLD: &str = "UPDATE bot_send SET body = ?2 WHERE id = ?1";

fn hold(tx: &Tx<'_>, id: BotSendId, body: &str) -> rusqlite::Result<()> {
    tx.execute(HOLD, params![id.0, body])?;
    Ok(())
}

const LET_GO: &str = "UPDATE bot_send SET body = NULL, outgoing = ?2 WHERE id = ?1";

fn enqueue(
    tx: &Tx<'_>,
    id: BotSendId,
    conversation: ConversationId,
    number: &str,
    seq: i64,
    body: &str,
) -> rusqlite::Result<()> {
    let outgoing = outbox::add(tx, conversation, number, seq, body)?;
    tx.execute(LET_GO, [id.0, outgoing.0])?;
    outbox::promote_head(tx, conversation, tx.now)
}

// The end of a turn ----------------------------------------------------------------------------

const HELD: &str = "
    SELECT id, body FROM bot_send
     WHERE conversation = ?1 AND turn_seq = ?2 AND born = ?3 AND body IS NOT NULL
     ORDER BY position";
const DROP_HELD: &str = "
    DELETE FROM bot_send WHERE conversation = ?1 AND turn_seq = ?2 AND outgoing IS NULL";
const HAS_SENT: &str = "
    SELECT 1 FROM bot_send WHERE conversation = ?1 AND turn_seq = ?2 LIMIT 1";

/// Lets go what the last attempt of a turn has asked for, or drops it, as that attempt `is_well`;
/// what earlier attempts have asked for is dropped. Answers whether the turn has sent anything.
pub(super) fn finish(
    tx: &Tx<'_>,
    turn: TurnId,
    epoch: i64,
    number: &str,
    is_well: bool,
) -> rusqlite::Result<bool> {
    let TurnId { conversation, seq } = turn;
    if tx
        .row(HAS_SENT, [conversation.0, seq], |_| Ok(()))?
        .is_none()
    {
        return Ok(false);
    }
    if is_well {
        let held = tx.rows(HELD, [conversation.0, seq, epoch], |row| {
            Ok((BotSendId(row.get(0)?), row.get::<_, String>(1)?))
        })?;
        for (id, body) in held {
            enqueue(tx, id, conversation, number, seq, &body)?;
        }
    }
    tx.execute(DROP_HELD, [conversation.0, seq])?;
    Ok(tx
        .row(HAS_SENT, [conversation.0, seq], |_| Ok(()))?
        .is_some())
}

// What became of it ----------------------------------------------------------------------------

const ANSWERED: &str = "
    UPDATE bot_send SET answer_status = ?2, answer = ?3 WHERE outgoing = ?1";

/// Keeps what Meta has answered to a send of a bot's.
pub(super) fn answered(
    tx: &Tx<'_>,
    outgoing: OutgoingId,
    answer: &GraphAnswer,
) -> rusqlite::Result<()> {
    tx.execute(ANSWERED, params![outgoing.0, answer.status, answer.body])?;
    Ok(())
}

const TOLD: &str = "UPDATE bot_send SET told = ?2 WHERE id = ?1";

pub(super) fn told(tx: &Tx<'_>, id: BotSendId, told: Told) -> rusqlite::Result<()> {
    tx.carries(Method::Told);
    tx.execute(TOLD, params![id.0, told as u8])?;
    // A status of it may wait for that.
    tx.wake_relays();
    Ok(())
}

const FATE: &str = "
    SELECT b.body IS NOT NULL, o.state, o.wamid, o.error, b.answer_status, b.answer,
           (SELECT d.kind FROM dead_letter d WHERE d.outgoing = o.id AND d.closed_at IS NULL)
      FROM bot_send b LEFT JOIN outgoing o ON o.id = b.outgoing WHERE b.id = ?1";

/// How a bot's send stands.
pub(super) fn fate(conn: &Connection, id: BotSendId) -> rusqlite::Result<Fate> {
    let mut statement = conn.prepare_cached(FATE)?;
    let mut rows = statement.query([id.0])?;
    let Some(row) = rows.next()? else {
        return Ok(Fate::Gone);
    };
    if row.get(0)? {
        return Ok(Fate::Held);
    }
    if row.get::<_, Option<u8>>(1)?.is_none() {
        return Ok(Fate::Gone);
    }
    let state = read_state(row, 1)?;
    let wamid = row.get::<_, Option<String>>(2)?.map(Wamid::new);
    let answer = match (row.get(4)?, row.get(5)?) {
        (Some(status), Some(body)) => Some(GraphAnswer { status, body }),
        _ => None,
    };
    let unsure = row.get::<_, Option<u8>>(6)? == Some(DeadKind::Unsure as u8);
    let reason = row.get::<_, Option<String>>(3)?.unwrap_or_default();
    Ok(Fate::of(state, wamid, answer, unsure, reason))
}

// What was held by an attempt that is over is no answer, nor is what another stands in for.
const HEARD: &str = "
    SELECT max(heard_at) FROM bot_send
     WHERE conversation = ?1 AND turn_seq = ?2 AND seen >= ?3 AND seen < ?4
       AND (outgoing IS NOT NULL OR born = ?3)";

pub(super) fn heard(
    conn: &Connection,
    runs: &[TurnRun],
    now: Timestamp,
) -> rusqlite::Result<Vec<Heard>> {
    let mut statement = conn.prepare_cached(HEARD)?;
    let mut all = Vec::new();
    for &run in runs {
        let of = params![run.turn.conversation.0, run.turn.seq, run.epoch, RETIRED];
        let at: Option<i64> = statement.query_row(of, |row| row.get(0))?;
        all.extend(at.map(|at| Heard {
            run,
            ago: now.since(Timestamp(at)),
        }));
    }
    Ok(all)
}

/// See [`identity::link_dialled`].
pub(super) fn link_dialled(
    tx: &Tx<'_>,
    number: &NumberId,
    dialled: &str,
    wa_id: &str,
) -> rusqlite::Result<()> {
    tx.carries(Method::LinkDialled);
    identity::link_dialled(tx, number, dialled, wa_id)
}
