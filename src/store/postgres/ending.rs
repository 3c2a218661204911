//! FINISH and RELEASE, in batches: ends of turns, each under its epoch or not at all.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::super::{DeadKind, Finish, Release, TurnEnd, Written};
use super::fault::Fault;
use super::lane::Batch;
use super::lock::{Lock, lock};
use super::outbox::queue_heads;
use super::parameter::{parameters, storable};
use super::tx::Tx;
use crate::crash_point::Method;
use crate::guard::{self, Guard};
use crate::model::{ConversationId, Lease, Timestamp};

/// How a lease ends.
pub(super) enum Ending {
    Finish(Finish),
    Release(Release),
    /// A release of what nobody knows to hold.
    Free(Release),
}

impl Ending {
    const fn method(&self) -> Method {
        match self {
            Self::Finish(_) => Method::Finish,
            Self::Release(_) => Method::Release,
            Self::Free(_) => Method::FreeUnknown,
        }
    }
}

/// The lane of ends.
pub(super) struct Endings;

#[async_trait]
impl Batch for Endings {
    type Item = (Lease, Ending);
    type Answer = Written;

    fn weight((_, ending): &(Lease, Ending)) -> usize {
        match ending {
            Ending::Finish(Finish {
                end: TurnEnd::Reply(bodies),
                ..
            }) => 1 + bodies.len(),
            Ending::Finish(_) | Ending::Release(_) | Ending::Free(_) => 1,
        }
    }

    async fn write(&self, tx: &mut Tx, items: &[(Lease, Ending)]) -> Result<Vec<Written>, Fault> {
        let ids: Vec<i64> = items
            .iter()
            .map(|(lease, _)| lease.conversation.0)
            .collect();
        let standings = tx.queue(STANDINGS.sql(), parameters![ids.clone()]);
        // Read after the lock that the first one takes.
        let bot_sends = tx.queue(BOT_SENDS, parameters![ids]);
        let mut answers = tx.flush().await?;
        let mut ends = Ends::read(&answers.take(standings), &answers.take(bot_sends));
        let written = items
            .iter()
            .map(|(lease, ending)| {
                tx.carries(ending.method());
                match ending {
                    Ending::Finish(finish) => ends.finish(tx, *lease, finish),
                    Ending::Release(release) | Ending::Free(release) => {
                        ends.release(tx, *lease, release)
                    }
                }
            })
            .collect();
        ends.write(tx);
        Ok(written)
    }
}

const STANDINGS: Lock = lock!(
    "
    SELECT id, epoch, owner, next_seq, done_seq, turn_last, attempt, number, quiet_until,
           unavailable_since
      FROM conversation WHERE id = ANY($1)"
);

// What bots have asked to send in the turns that are open.
const BOT_SENDS: &str = "
    SELECT b.conversation, b.id, b.born, b.body,
           (SELECT max(o.position) FROM outgoing o
             WHERE o.conversation = c.id AND o.turn_seq = c.done_seq + 1)
      FROM conversation c
      JOIN bot_send b ON b.conversation = c.id AND b.turn_seq = c.done_seq + 1
     WHERE c.id = ANY($1) ORDER BY b.conversation, b.position";

/// Something that a bot has asked to send in a turn.
struct BotSend {
    id: i64,
    born: i64,
    /// Set exactly while it waits for the end of the turn.
    body: Option<String>,
    /// The last place that the turn's outgoings have taken.
    last: Option<i32>,
}

/// What becomes of a turn's bot sends at its end.
struct Sorted {
    /// Whether any has left already.
    has_left: bool,
    /// The first place in the turn that no outgoing has.
    first: i32,
    /// Those that leave now: body and id.
    held: Vec<(String, Option<i64>)>,
    /// Those that never will.
    dropped: Vec<i64>,
}

impl Sorted {
    /// What the attempt of the epoch `leaves` holds leaves now; nothing, if that is `None`.
    fn of(bot_sends: Vec<BotSend>, leaves: Option<i64>) -> Self {
        let last = bot_sends.first().and_then(|one| one.last);
        let mut sorted = Self {
            has_left: false,
            first: last.map_or(0, |last| last + 1),
            held: Vec::new(),
            dropped: Vec::new(),
        };
        for one in bot_sends {
            match one.body {
                None => sorted.has_left = true,
                Some(body) if leaves == Some(one.born) => sorted.held.push((body, Some(one.id))),
                Some(_) => sorted.dropped.push(one.id),
            }
        }
        sorted
    }
}

/// A conversation as far as the end of its turn concerns it, and what is to be written of it.
struct Standing {
    epoch: i64,
    owner: Option<i64>,
    next_seq: i64,
    done_seq: i64,
    turn_last: Option<i64>,
    attempt: i64,
    number: String,
    quiet_until: i64,
    unavailable_since: Option<i64>,
    not_before: i64,
    /// `None` leaves what is there.
    last_error: Option<String>,
    forgets_error: bool,
    dirty: bool,
    bot_sends: Vec<BotSend>,
}

/// How one turn ended.
struct Ended {
    lease: Lease,
    seq: i64,
    seq_last: i64,
    outcome: i16,
    attempts: i64,
    started_at: i64,
}

/// A message for the outbox.
struct Reply {
    conversation: ConversationId,
    number: String,
    turn_seq: i64,
    position: i32,
    body: String,
    /// What a bot has asked for, if it is not the outcome's own.
    bot_send: Option<i64>,
}

#[derive(Default)]
struct Ends {
    standings: BTreeMap<ConversationId, Standing>,
    turns: Vec<Ended>,
    replies: Vec<Reply>,
    dead: Vec<(usize, String)>,
    /// What bots have asked for and will not get.
    dropped: Vec<i64>,
}

impl Ends {
    fn read(standings: &[Row], bot_sends: &[Row]) -> Self {
        let standings = standings.iter().map(|row| {
            let standing = Standing {
                epoch: row.get(1),
                owner: row.get(2),
                next_seq: row.get(3),
                done_seq: row.get(4),
                turn_last: row.get(5),
                attempt: row.get(6),
                number: row.get(7),
                quiet_until: row.get(8),
                unavailable_since: row.get(9),
                not_before: 0,
                last_error: None,
                forgets_error: false,
                dirty: false,
                bot_sends: Vec::new(),
            };
            (ConversationId(row.get(0)), standing)
        });
        let mut standings: BTreeMap<ConversationId, Standing> = standings.collect();
        for row in bot_sends {
            if let Some(standing) = standings.get_mut(&ConversationId(row.get(0))) {
                standing.bot_sends.push(BotSend {
                    id: row.get(1),
                    born: row.get(2),
                    body: row.get(3),
                    last: row.get(4),
                });
            }
        }
        Self {
            standings,
            ..Self::default()
        }
    }

    fn finish(&mut self, tx: &Tx, lease: Lease, finish: &Finish) -> Written {
        let Some(standing) = self.standings.get_mut(&lease.conversation) else {
            return Written::Fenced;
        };
        let is_old = standing.epoch != lease.epoch;
        if is_old && guard::holds(Guard::EpochCheck) {
            return Written::Fenced;
        }
        // The answer of an earlier try of this very write was lost.
        if !is_old && standing.done_seq >= finish.seq_last {
            return Written::Done;
        }
        if !is_old && standing.turn_last != Some(finish.seq_last) {
            return Written::Fenced;
        }
        let seq = standing.done_seq + 1;
        let is_well = !matches!(finish.end, TurnEnd::Dead(_));
        let bot_sends = std::mem::take(&mut standing.bot_sends);
        let sorted = Sorted::of(bot_sends, is_well.then_some(standing.epoch));
        self.dropped.extend(sorted.dropped);
        let has_sent = sorted.has_left || !sorted.held.is_empty();
        let outcome = match &finish.end {
            TurnEnd::Reply(_) => 1,
            TurnEnd::Silence if has_sent => 1,
            TurnEnd::Silence => 2,
            TurnEnd::Dead(_) => 3,
        };
        if let TurnEnd::Dead(reason) = &finish.end {
            self.dead.push((self.turns.len(), storable(reason)));
        }
        let bodies = match &finish.end {
            TurnEnd::Reply(bodies) => bodies.as_slice(),
            TurnEnd::Silence | TurnEnd::Dead(_) => &[],
        };
        let bodies = bodies.iter().map(|body| (storable(body), None));
        self.replies.extend(
            sorted
                .held
                .into_iter()
                .chain(bodies)
                .zip(sorted.first..)
                .map(|((body, bot_send), position)| Reply {
                    conversation: lease.conversation,
                    number: standing.number.clone(),
                    turn_seq: seq,
                    position,
                    body,
                    bot_send,
                }),
        );
        self.turns.push(Ended {
            lease,
            seq,
            seq_last: finish.seq_last,
            outcome,
            attempts: standing.attempt,
            started_at: tx.translate(finish.started_at).0,
        });
        standing.done_seq = standing.done_seq.max(finish.seq_last);
        standing.owner = None;
        standing.attempt = 0;
        standing.turn_last = None;
        standing.unavailable_since = None;
        standing.forgets_error = true;
        standing.dirty = true;
        Written::Done
    }

    fn release(&mut self, tx: &Tx, lease: Lease, release: &Release) -> Written {
        let Some(standing) = self.standings.get_mut(&lease.conversation) else {
            return Written::Fenced;
        };
        let is_holder = standing.epoch == lease.epoch && standing.owner == Some(lease.node.0);
        if !is_holder && guard::holds(Guard::EpochCheck) {
            return Written::Fenced;
        }
        standing.owner = None;
        standing.not_before = tx.now().after(release.wait).0;
        standing.attempt -= i64::from(!release.counts);
        standing.unavailable_since = match release.unavailable {
            true => standing.unavailable_since.or(Some(tx.now().0)),
            false => None,
        };
        if let Some(error) = &release.error {
            standing.last_error = Some(storable(error));
            standing.forgets_error = false;
        }
        standing.dirty = true;
        Written::Done
    }

    fn write(&self, tx: &mut Tx) {
        self.queue_conversations(tx);
        if self.turns.is_empty() {
            return;
        }
        self.queue_turns(tx);
        self.queue_replies(tx);
        self.queue_bot_sends(tx);
        self.queue_dead(tx);
    }

    fn queue_conversations(&self, tx: &mut Tx) {
        let dirty: Vec<(i64, &Standing)> = self
            .standings
            .iter()
            .filter(|(_, standing)| standing.dirty)
            .map(|(id, standing)| (id.0, standing))
            .collect();
        if dirty.is_empty() {
            return;
        }
        let parameters = parameters![
            dirty.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            dirty.iter().map(|(_, s)| s.done_seq).collect::<Vec<_>>(),
            dirty.iter().map(|(_, s)| s.attempt).collect::<Vec<_>>(),
            dirty.iter().map(|(_, s)| s.turn_last).collect::<Vec<_>>(),
            dirty.iter().map(|(_, s)| s.not_before).collect::<Vec<_>>(),
            dirty
                .iter()
                .map(|(_, s)| s.unavailable_since)
                .collect::<Vec<_>>(),
            dirty
                .iter()
                .map(|(_, s)| s.last_error.clone())
                .collect::<Vec<_>>(),
            dirty
                .iter()
                .map(|(_, s)| s.forgets_error)
                .collect::<Vec<_>>(),
        ];
        tx.queue(END, parameters);
        // Of a turn that was given back, the frozen end is left.
        let comes_back = |s: &Standing| guard::holds(Guard::ReReady) || s.turn_last.is_some();
        let (due, idle): (Vec<_>, Vec<_>) = dirty
            .into_iter()
            .partition(|(_, s)| s.next_seq - 1 > s.done_seq && comes_back(s));
        if !idle.is_empty() {
            let idle: Vec<i64> = idle.into_iter().map(|(id, _)| id).collect();
            tx.queue(MAKE_IDLE, parameters![idle]);
        }
        if !due.is_empty() {
            let now = tx.now().0;
            let at = due
                .iter()
                .map(|(_, s)| now.max(s.not_before).max(s.quiet_until));
            let at: Vec<i64> = at.collect();
            let due: Vec<i64> = due.into_iter().map(|(id, _)| id).collect();
            tx.queue(MAKE_DUE, parameters![due, at]);
            tx.woke_turns = true;
        }
    }

    fn queue_turns(&self, tx: &mut Tx) {
        let turns = &self.turns;
        let parameters = parameters![
            turns
                .iter()
                .map(|turn| turn.lease.conversation.0)
                .collect::<Vec<_>>(),
            turns.iter().map(|turn| turn.seq).collect::<Vec<_>>(),
            turns.iter().map(|turn| turn.seq_last).collect::<Vec<_>>(),
            turns.iter().map(|turn| turn.outcome).collect::<Vec<_>>(),
            turns.iter().map(|turn| turn.attempts).collect::<Vec<_>>(),
            turns
                .iter()
                .map(|turn| turn.lease.epoch)
                .collect::<Vec<_>>(),
            turns
                .iter()
                .map(|turn| turn.lease.node.0)
                .collect::<Vec<_>>(),
            turns.iter().map(|turn| turn.started_at).collect::<Vec<_>>(),
        ];
        tx.queue(RECORD_TURNS, parameters);
    }

    fn queue_replies(&self, tx: &mut Tx) {
        let replies = &self.replies;
        if replies.is_empty() {
            return;
        }
        let numbers: Vec<String> = replies.iter().map(|reply| reply.number.clone()).collect();
        tx.queue(KNOW_NUMBERS, parameters![numbers.clone()]);
        let parameters = parameters![
            replies
                .iter()
                .map(|reply| reply.conversation.0)
                .collect::<Vec<_>>(),
            numbers,
            replies
                .iter()
                .map(|reply| reply.turn_seq)
                .collect::<Vec<_>>(),
            replies
                .iter()
                .map(|reply| reply.position)
                .collect::<Vec<_>>(),
            replies
                .iter()
                .map(|reply| reply.body.clone())
                .collect::<Vec<_>>(),
        ];
        tx.queue(ENQUEUE, parameters);
        let now: Timestamp = tx.now();
        let heads = replies
            .iter()
            .map(|reply| (reply.conversation, now))
            .collect();
        queue_heads(tx, &heads);
    }

    fn queue_bot_sends(&self, tx: &mut Tx) {
        let let_go = |reply: &Reply| {
            Some((
                reply.bot_send?,
                reply.conversation.0,
                reply.turn_seq,
                reply.position,
            ))
        };
        let let_go: Vec<_> = self.replies.iter().filter_map(let_go).collect();
        if !let_go.is_empty() {
            let parameters = parameters![
                let_go.iter().map(|(id, ..)| *id).collect::<Vec<_>>(),
                let_go.iter().map(|(_, of, ..)| *of).collect::<Vec<_>>(),
                let_go.iter().map(|(_, _, seq, _)| *seq).collect::<Vec<_>>(),
                let_go
                    .iter()
                    .map(|(.., position)| *position)
                    .collect::<Vec<_>>(),
            ];
            tx.queue(LET_GO, parameters);
        }
        if !self.dropped.is_empty() {
            tx.queue(DROP_HELD, parameters![self.dropped.clone()]);
        }
    }

    fn queue_dead(&self, tx: &mut Tx) {
        let dead: Vec<(&Ended, &String)> = self
            .dead
            .iter()
            .map(|(turn, reason)| (&self.turns[*turn], reason))
            .collect();
        if dead.is_empty() {
            return;
        }
        let parameters = parameters![
            DeadKind::Turn as i16,
            dead.iter()
                .map(|(turn, _)| turn.lease.conversation.0)
                .collect::<Vec<_>>(),
            dead.iter().map(|(turn, _)| turn.seq).collect::<Vec<_>>(),
            dead.iter()
                .map(|(turn, _)| turn.seq_last)
                .collect::<Vec<_>>(),
            dead.iter()
                .map(|(_, reason)| (*reason).clone())
                .collect::<Vec<_>>(),
            dead.iter()
                .map(|(turn, _)| turn.attempts)
                .collect::<Vec<_>>(),
        ];
        tx.queue(BURY, parameters);
    }
}

// No column of these has an index.
const END: &str = "
    UPDATE conversation c
       SET owner = NULL, claim = NULL, done_seq = n.done_seq, attempt = n.attempt,
           turn_last = n.turn_last, not_before = n.not_before,
           unavailable_since = n.unavailable_since,
           last_error = CASE WHEN n.forgets THEN NULL ELSE coalesce(n.error, c.last_error) END
      FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[],
                  $7::text[], $8::bool[])
           AS n(id, done_seq, attempt, turn_last, not_before, unavailable_since, error, forgets)
     WHERE c.id = n.id";
const MAKE_IDLE: &str = "DELETE FROM pending WHERE conversation = ANY($1)";
const MAKE_DUE: &str = "
    INSERT INTO pending (conversation, due_at)
    SELECT conversation, due_at
      FROM unnest($1::int8[], $2::int8[]) AS n(conversation, due_at) ORDER BY conversation
    ON CONFLICT (conversation) DO UPDATE SET due_at = excluded.due_at, node = NULL";
const RECORD_TURNS: &str = "
    INSERT INTO turn (conversation, seq, seq_last, outcome, attempts, epoch, node, started_at,
                      finished_at)
    SELECT n.*, now_ms()
      FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int2[], $5::int8[], $6::int8[],
                  $7::int8[], $8::int8[]) AS n";
const KNOW_NUMBERS: &str = "
    INSERT INTO number (id) SELECT DISTINCT id FROM unnest($1::text[]) AS n(id) ORDER BY id
    ON CONFLICT (id) DO NOTHING";
// Ids rise in the order of the arrays: they are the order in which a conversation is answered.
const ENQUEUE: &str = "
    WITH enqueued AS (
        INSERT INTO outgoing (conversation, number, turn_seq, position, body, created_at,
                              changed_at)
        SELECT conversation, number, turn_seq, position, body, now_ms(), now_ms()
          FROM unnest($1::int8[], $2::text[], $3::int8[], $4::int4[], $5::text[])
               WITH ORDINALITY AS n(conversation, number, turn_seq, position, body, place)
         ORDER BY place
        RETURNING conversation, id, number)
    INSERT INTO outbox (conversation, outgoing, number)
    SELECT conversation, id, number FROM enqueued";
const LET_GO: &str = "
    UPDATE bot_send b SET body = NULL, outgoing = o.id
      FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int4[])
           AS n(id, conversation, turn_seq, position)
      JOIN outgoing o ON o.conversation = n.conversation AND o.turn_seq = n.turn_seq
                     AND o.position = n.position
     WHERE b.id = n.id";
const DROP_HELD: &str = "DELETE FROM bot_send WHERE id = ANY($1)";
const BURY: &str = "
    INSERT INTO dead_letter (kind, conversation, seq, seq_last, reason, attempts, at)
    SELECT $1, n.*, now_ms()
      FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::text[], $6::int8[]) AS n";
