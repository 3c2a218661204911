//! STAGE: what a bot asks to send, put on record and, if it is new, into the outbox. Under the
//! lock on its conversation's row, so that nobody else decides about the same turn meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Row;

use super::super::bot_sends::{BotSendRow, Place, REPEAT_MAX, Scene, decision};
use super::super::{DeadKind, Fate, Heard, SendWhen, Settle, Stage, Staged, TurnRun};
use super::fault::Fault;
use super::identity;
use super::outbox::{LOCK, queue_heads, read_state};
use super::parameter::{Key, indexed, parameters, storable};
use super::tx::Tx;
use crate::crash_point::Method;
use crate::model::bot_send::{Asked, Decision, Likeness, RETIRED, Recorded, Told};
use crate::model::{BotSendId, ConversationId, GraphAnswer, NumberId, TurnId, Wamid};

const CONVERSATION: &str = "
    SELECT c.epoch, c.done_seq, c.turn_last IS NOT NULL, t.seq, t.epoch, now_ms() - t.finished_at
      FROM conversation c
      LEFT JOIN LATERAL (SELECT seq, epoch, finished_at FROM turn
                          WHERE conversation = c.id ORDER BY seq DESC LIMIT 1) t ON true
     WHERE c.id = $1";
// Of the turn that has begun, and of the last one that has ended.
const RECORDED: &str = "
    SELECT b.turn_seq, b.id, b.content, b.also, b.born, b.seen, b.told, b.outgoing IS NOT NULL,
           now_ms() - b.heard_at,
           coalesce(o.state = 4 AND o.wamid IS NULL
                    AND NOT EXISTS (SELECT 1 FROM dead_letter d
                                     WHERE d.outgoing = o.id AND d.kind = $2), false)
      FROM bot_send b
      JOIN conversation c ON c.id = b.conversation
      LEFT JOIN outgoing o ON o.id = b.outgoing AND o.conversation = b.conversation
     WHERE b.conversation = $1
       AND (b.turn_seq = c.done_seq + 1
            OR b.turn_seq = (SELECT max(seq) FROM turn WHERE conversation = $1))
       AND (b.outgoing IS NOT NULL OR b.born = c.epoch)
     ORDER BY b.position";
// What an attempt has held that is over will never go out, and stands for nothing.
const DROP_OLD: &str = "
    DELETE FROM bot_send b USING conversation c
     WHERE c.id = $1 AND b.conversation = c.id AND b.turn_seq = c.done_seq + 1
       AND b.outgoing IS NULL AND b.born < c.epoch";
// The one that this is a client's second try of, in whatever turn that was: it has the same key; or
// it says the same as one whose caller has heard nothing.
const ELSEWHERE: &str = "
    (SELECT b.id, true FROM bot_send b JOIN conversation c ON c.id = b.conversation
      WHERE b.conversation = $1 AND (b.key = $2 OR b.also_key = $2)
        AND (b.outgoing IS NOT NULL OR b.born = c.epoch)
      ORDER BY b.id DESC LIMIT 1)
    UNION ALL
    (SELECT id, false FROM bot_send
      WHERE conversation = $1 AND content = $3 AND told = 0 AND $2::text IS NULL
        AND heard_at >= now_ms() - $4 AND outgoing IS NOT NULL
      ORDER BY id LIMIT 1)";

/// A send on record, and what else is to be known of it.
struct OnRecord {
    turn_seq: i64,
    recorded: Recorded,
    has_left: bool,
    ago: Duration,
}

/// A send that this may be a second try of.
struct Elsewhere {
    id: BotSendId,
    has_key: bool,
}

/// `None`: the turn has asked for as many as it may.
pub(super) async fn stage(tx: &mut Tx, stage: &Stage) -> Result<Option<Staged>, Fault> {
    let conversation = whom(tx, stage).await?;
    tx.carries(Method::Stage);
    let (scene, on_record, elsewhere) = look(tx, conversation, stage).await?;
    let place = scene.place(stage);
    let is_late = is_late(&scene, &on_record);
    let Some(decision) = decide_at(place, &on_record, &elsewhere, stage) else {
        return Ok(None);
    };
    let (seq, epoch) = match place {
        Place::In { seq, epoch } | Place::After { seq, epoch } => (seq, epoch),
        Place::Outside => (0, 0),
    };
    let holds = matches!(place, Place::In { .. }) && stage.when == SendWhen::AtFinish;
    let (id, taken_for, fate) = match decision {
        Decision::New | Decision::InPlaceOf(_) => {
            let retired = match decision {
                Decision::InPlaceOf(retired) => Some(retired),
                Decision::New | Decision::Known(..) => None,
            };
            let at = (seq, epoch, retired);
            let id = record(tx, conversation, at, holds, stage).await?;
            let fate = if holds { Fate::Held } else { Fate::Waiting };
            (id, None, fate)
        }
        Decision::Known(id, likeness) => {
            let key = stage.key.as_deref().map(indexed);
            tx.queue(SEE, parameters![id.0, epoch, Key(stage.content.0), key]);
            let fates = fates(tx, &[id]).await?;
            let fate = fates.into_iter().next().unwrap_or(Fate::Gone);
            (id, Some(likeness), fate)
        }
    };
    Ok(Some(Staged {
        id,
        conversation,
        turn: (seq > 0).then_some(TurnId { conversation, seq }),
        taken_for,
        is_late,
        fate,
    }))
}

/// The conversation of whom it goes to: a person who is known by the other way to dial them is
/// no stranger.
async fn whom(tx: &mut Tx, stage: &Stage) -> Result<ConversationId, Fault> {
    let (number, to, twin) = (&stage.number, &stage.to, stage.twin());
    let asked = std::iter::once(to).chain(&twin).map(|of| (number, of));
    let known = identity::queue_look_up(tx, asked);
    let known = tx.flush().await?.take(known);
    if let Some(twin) = &twin
        && identity::find(number, to, &known).is_none()
        && let Some(conversation) = identity::find(number, twin, &known)
    {
        return Ok(conversation);
    }
    let resolved = identity::resolve(tx, &[(number, to)], &known).await?;
    let conversation = resolved.first().map(|resolved| resolved.conversation);
    conversation.ok_or_else(|| Fault::Again("nobody was resolved".to_owned()))
}

async fn look(
    tx: &mut Tx,
    conversation: ConversationId,
    stage: &Stage,
) -> Result<(Scene, Vec<OnRecord>, Vec<Elsewhere>), Fault> {
    let key = stage.key.as_deref().map(indexed);
    tx.queue(LOCK.sql(), parameters![vec![conversation.0]]);
    let scene = tx.queue(CONVERSATION, parameters![conversation.0]);
    let repeat_max = i64::try_from(REPEAT_MAX.as_millis()).unwrap_or(i64::MAX);
    tx.queue(DROP_OLD, parameters![conversation.0]);
    let unsure = DeadKind::Unsure as i16;
    let recorded = tx.queue(RECORDED, parameters![conversation.0, unsure]);
    let elsewhere = tx.queue(
        ELSEWHERE,
        parameters![conversation.0, key, Key(stage.content.0), repeat_max],
    );
    let mut answers = tx.flush().await?;
    let scene = answers.take(scene);
    let Some(row) = scene.first() else {
        return Err(Fault::Again("a conversation is gone meanwhile".to_owned()));
    };
    let ended = match (row.get(3), row.get(4), row.get::<_, Option<i64>>(5)) {
        (Some(seq), Some(epoch), Some(ago)) => Some((seq, epoch, since(ago))),
        _ => None,
    };
    let scene = Scene {
        epoch: row.get(0),
        done_seq: row.get(1),
        is_open: row.get(2),
        ended,
    };
    let recorded = answers.take(recorded);
    let elsewhere = answers.take(elsewhere);
    let read_elsewhere = |row: &Row| Elsewhere {
        id: BotSendId(row.get(0)),
        has_key: row.get(1),
    };
    Ok((
        scene,
        recorded.iter().map(read_recorded).collect(),
        elsewhere.iter().map(read_elsewhere).collect(),
    ))
}

fn since(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn read_recorded(row: &Row) -> OnRecord {
    let recorded = BotSendRow {
        id: row.get(1),
        content: row.get::<_, Key>(2).0,
        also: row.get::<_, Option<Key>>(3).map(|also| also.0),
        is_void: row.get(9),
        born: row.get(4),
        seen: row.get(5),
        told: u8::try_from(row.get::<_, i16>(6)).unwrap_or(0),
    };
    OnRecord {
        turn_seq: row.get(0),
        recorded: recorded.read(),
        has_left: row.get(7),
        ago: since(row.get(8)),
    }
}

/// `None`: the turn has asked for as many as it may.
fn decide_at(
    place: Place,
    on_record: &[OnRecord],
    elsewhere: &[Elsewhere],
    stage: &Stage,
) -> Option<Decision> {
    let is_open = matches!(place, Place::In { .. });
    let second_try = elsewhere.iter().find(|one| one.has_key || !is_open);
    if let Some(same) = second_try {
        return Some(Decision::Known(same.id, Likeness::Joined));
    }
    let of = |seq| {
        let of_turn = on_record.iter().filter(move |one| one.turn_seq == seq);
        of_turn.map(|one| one.recorded).collect::<Vec<_>>()
    };
    let (seq, epoch, is_finished) = match place {
        Place::In { seq, epoch } => (seq, epoch, false),
        Place::After { seq, epoch } => (seq, epoch, true),
        Place::Outside => return Some(Decision::New),
    };
    let recorded = of(seq);
    let asked = Asked {
        content: stage.content,
        epoch,
        is_finished,
    };
    decision(&recorded, &asked)
}

/// Whether the last turn has just ended without a send, so that this one may be its answer.
fn is_late(scene: &Scene, on_record: &[OnRecord]) -> bool {
    let Some((seq, ended)) = scene.may_be_late_for() else {
        return false;
    };
    let in_time = |one: &OnRecord| one.turn_seq == seq && one.has_left && one.ago >= ended;
    !on_record.iter().any(in_time)
}

const SEE: &str = "
    UPDATE bot_send
       SET seen = greatest(seen, $2), heard_at = now_ms(), told = 0,
           also = CASE WHEN content <> $3 THEN $3 ELSE also END,
           also_key = CASE WHEN key IS DISTINCT FROM $4 THEN coalesce($4, also_key)
                           ELSE also_key END
     WHERE id = $1";
const KNOW_NUMBER: &str = "INSERT INTO number (id) VALUES ($1) ON CONFLICT (id) DO NOTHING";
const RECORD_HELD: &str = "
    INSERT INTO bot_send (conversation, turn_seq, position, content, born, seen, heard_at, key,
                          recipient, callback, body)
    SELECT $1, $2, coalesce($9::int, (SELECT max(position) + 1 FROM bot_send
                                       WHERE conversation = $1 AND turn_seq = $2), 0),
           $3, $4, $4, now_ms(), $5, $6, $7, $8
    RETURNING id";
const RECORD: &str = "
    WITH added AS (
        INSERT INTO outgoing (conversation, number, turn_seq, position, body, created_at,
                              changed_at)
        SELECT $1, $10, $2, coalesce((SELECT max(position) + 1 FROM outgoing
                                       WHERE conversation = $1 AND turn_seq = $2), 0),
               $8, now_ms(), now_ms()
        RETURNING id),
    boxed AS (
        INSERT INTO outbox (conversation, outgoing, number) SELECT $1, id, $10 FROM added)
    INSERT INTO bot_send (conversation, turn_seq, position, content, born, seen, heard_at, key,
                          recipient, callback, outgoing)
    SELECT $1, $2, coalesce($9::int, (SELECT max(position) + 1 FROM bot_send
                                       WHERE conversation = $1 AND turn_seq = $2), 0),
           $3, $4, $4, now_ms(), $5, $6, $7, id
      FROM added
    RETURNING id";

async fn record(
    tx: &mut Tx,
    conversation: ConversationId,
    (seq, epoch, retired): (i64, i64, Option<BotSendId>),
    holds: bool,
    stage: &Stage,
) -> Result<BotSendId, Fault> {
    let position = match retired {
        Some(retired) => Some(retire(tx, retired).await?),
        None => None,
    };
    let mut parameters = parameters![
        conversation.0,
        seq,
        Key(stage.content.0),
        epoch,
        stage.key.as_deref().map(indexed),
        storable(&stage.recipient.encode()),
        stage.callback.as_deref().map(storable),
        storable(&stage.body),
        position,
    ];
    let recorded = if holds {
        tx.queue(RECORD_HELD, parameters)
    } else {
        let number = indexed(stage.number.as_str());
        tx.queue(KNOW_NUMBER, parameters![number.clone()]);
        parameters.extend(parameters![number]);
        let recorded = tx.queue(RECORD, parameters);
        queue_heads(tx, &BTreeMap::from([(conversation, tx.now())]));
        recorded
    };
    let recorded = tx.commit().await?.take(recorded);
    let id = recorded.first().map(|row| BotSendId(row.get(0)));
    id.ok_or(Fault::Lost)
}

const RETIRE: &str = "
    WITH free AS (SELECT id, conversation, turn_seq, position FROM bot_send WHERE id = $1)
    UPDATE bot_send b
       SET seen = $2,
           position = (SELECT max(position) + 1 FROM bot_send
                        WHERE conversation = free.conversation AND turn_seq = free.turn_seq)
      FROM free WHERE b.id = free.id AND b.conversation = free.conversation
    RETURNING free.position::bigint";

/// Takes its place from a send that has surely not gone out; answers which that was.
async fn retire(tx: &mut Tx, id: BotSendId) -> Result<i64, Fault> {
    let retired = tx.queue(RETIRE, parameters![id.0, RETIRED]);
    let retired = tx.flush().await?.take(retired);
    let position = retired.first().map(|row| row.get(0));
    position.ok_or_else(|| Fault::Again("a bot's send is gone meanwhile".to_owned()))
}

// What became of it ----------------------------------------------------------------------------

const FATES: &str = "
    SELECT b.id, b.body IS NOT NULL, o.state, o.wamid, o.error, b.answer_status, b.answer,
           (SELECT d.kind FROM dead_letter d WHERE d.outgoing = o.id AND d.closed_at IS NULL LIMIT 1)
      FROM bot_send b LEFT JOIN outgoing o ON o.id = b.outgoing AND o.conversation = b.conversation
     WHERE b.id = ANY($1)";

/// How each of these stands, in their order.
pub(super) async fn fates(tx: &mut Tx, ids: &[BotSendId]) -> Result<Vec<Fate>, Fault> {
    let asked: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let rows = tx.queue(FATES, parameters![asked]);
    let rows = tx.commit().await?.take(rows);
    let mut known = BTreeMap::new();
    for row in &rows {
        known.insert(BotSendId(row.get(0)), read_fate(row)?);
    }
    let fate = |id| known.get(id).cloned().unwrap_or(Fate::Gone);
    Ok(ids.iter().map(fate).collect())
}

fn read_fate(row: &Row) -> Result<Fate, Fault> {
    if row.get(1) {
        return Ok(Fate::Held);
    }
    let Some(state) = row.get::<_, Option<i16>>(2) else {
        return Ok(Fate::Gone);
    };
    let answer = match (row.get::<_, Option<i32>>(5), row.get(6)) {
        (Some(status), Some(body)) => Some(GraphAnswer {
            status: u16::try_from(status).unwrap_or(0),
            body,
        }),
        _ => None,
    };
    let is_unsure = row.get::<_, Option<i16>>(7) == Some(DeadKind::Unsure as i16);
    let wamid = row.get::<_, Option<String>>(3).map(Wamid::new);
    let reason = row.get::<_, Option<String>>(4).unwrap_or_default();
    Ok(Fate::of(
        read_state(state)?,
        wamid,
        answer,
        is_unsure,
        reason,
    ))
}

const ANSWERED: &str = "
    UPDATE bot_send b SET answer_status = n.status, answer = n.answer
      FROM unnest($1::int8[], $2::int4[], $3::text[]) AS n(outgoing, status, answer)
     WHERE b.outgoing = n.outgoing";

/// Keeps what Meta has answered to sends of bots.
pub(super) fn queue_answers(tx: &mut Tx, items: &[Settle]) {
    let answers = items
        .iter()
        .filter_map(|settle| Some((settle.id.0, settle.answer.as_ref()?)));
    let (ids, answers): (Vec<i64>, Vec<&GraphAnswer>) = answers.unzip();
    if ids.is_empty() {
        return;
    }
    let statuses: Vec<i32> = answers
        .iter()
        .map(|answer| i32::from(answer.status))
        .collect();
    let bodies: Vec<String> = answers
        .iter()
        .map(|answer| storable(&answer.body))
        .collect();
    tx.queue(ANSWERED, parameters![ids, statuses, bodies]);
}

const TOLD: &str = "UPDATE bot_send SET told = $2 WHERE id = $1";

pub(super) async fn told(tx: &mut Tx, id: BotSendId, told: Told) -> Result<(), Fault> {
    tx.carries(Method::Told);
    tx.queue(TOLD, parameters![id.0, told as i16]);
    // A status of it may wait for that.
    tx.woke_relays = true;
    tx.commit().await.map(drop)
}

// What was held by an attempt that is over is no answer, nor is what another stands in for.
const HEARD: &str = "
    SELECT n.place, now_ms() - max(b.heard_at)
      FROM unnest($1::int8[], $2::int8[], $3::int8[])
           WITH ORDINALITY AS n(conversation, seq, epoch, place)
      JOIN bot_send b ON b.conversation = n.conversation AND b.turn_seq = n.seq
                     AND b.seen >= n.epoch AND b.seen < $4
                     AND (b.outgoing IS NOT NULL OR b.born = n.epoch)
     GROUP BY n.place";

pub(super) async fn heard(tx: &mut Tx, runs: &[TurnRun]) -> Result<Vec<Heard>, Fault> {
    let parameters = parameters![
        runs.iter()
            .map(|run| run.turn.conversation.0)
            .collect::<Vec<_>>(),
        runs.iter().map(|run| run.turn.seq).collect::<Vec<_>>(),
        runs.iter().map(|run| run.epoch).collect::<Vec<_>>(),
        RETIRED,
    ];
    let heard = tx.queue(HEARD, parameters);
    let heard = tx.commit().await?.take(heard);
    let read = |row: &Row| {
        let place = usize::try_from(row.get::<_, i64>(0)).ok()?;
        let run = *runs.get(place.checked_sub(1)?)?;
        let ago = since(row.get(1));
        Some(Heard { run, ago })
    };
    Ok(heard.iter().filter_map(read).collect())
}

/// See [`identity::link_dialled`].
pub(super) async fn link_dialled(
    tx: &mut Tx,
    number: &NumberId,
    dialled: &str,
    wa_id: &str,
) -> Result<(), Fault> {
    tx.carries(Method::LinkDialled);
    identity::link_dialled(tx, number, dialled, wa_id).await
}
