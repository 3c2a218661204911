//! SETTLE: what became of sends, in batches; those of which nobody will say it, which are unsure
//! from then on; and those whose wait for a receipt is over.

use async_trait::async_trait;
use tokio_postgres::Row;

use super::super::evidence::{self, Facts, Silence};
use super::super::{SendResult, Settle};
use super::bot_sends;
use super::fault::Fault;
use super::lane::Batch;
use super::outbox::{Book, LOCK, LOCK_OF, STANDINGS, read_adopted, read_attempt};
use super::parameter::{indexed, parameters, storable};
use super::tx::Tx;
use crate::crash_point::Method;
use crate::model::{
    Attempt, ConversationId, Evidence, NodeId, OutgoingId, OutgoingState, Timestamp,
};

/// The lane of settlements.
pub(super) struct Settling;

#[async_trait]
impl Batch for Settling {
    type Item = Settle;
    /// `None` when there is no such outgoing.
    type Answer = Option<OutgoingState>;

    fn weight(_: &Settle) -> usize {
        1
    }

    async fn write(&self, tx: &mut Tx, items: &[Settle]) -> Result<Vec<Self::Answer>, Fault> {
        tx.carries(Method::Settle);
        let ids: Vec<i64> = items.iter().map(|settle| settle.id.0).collect();
        tx.queue(LOCK_OF.sql(), parameters![ids.clone()]);
        let standings = tx.queue(STANDINGS, parameters![ids]);
        let adopted = queue_accepted(tx, items);
        let mut answers = tx.flush().await?;
        let mut book = Book::default();
        book.read(&answers.take(standings))?;
        for settle in items {
            if let SendResult::PauseNumber { wait, reason } = &settle.result
                && let Some(number) = book.number(settle.id)
            {
                let until = tx.now().after(*wait);
                let parameters = parameters![number.to_owned(), until.0, storable(reason)];
                tx.queue(PAUSE_NUMBER, parameters);
            }
            let (evidence, facts) = evidence::of_result(settle.attempt, &settle.result);
            book.merge(tx.now(), settle.id, evidence, facts);
        }
        if let Some(adopted) = adopted {
            read_adopted(&mut book, tx.now(), &answers.take(adopted));
        }
        let told = items.iter().map(|settle| book.state(settle.id)).collect();
        book.write(tx);
        bot_sends::queue_answers(tx, items);
        Ok(told)
    }
}

const PAUSE_NUMBER: &str = "
    INSERT INTO number (id, paused_until, reason) VALUES ($1, $2, $3)
    ON CONFLICT (id) DO UPDATE
       SET paused_until = greatest(number.paused_until, excluded.paused_until),
           reason = excluded.reason";
// The ids are named twice: without figures about the table, a join alone is believed to match many
// rows, and reads all of them.
const LEARN_ACCEPTED: &str = "
    INSERT INTO wamid (number, wamid, outgoing, conversation, at)
    SELECT DISTINCT ON (o.number, n.wamid) o.number, n.wamid, o.id, o.conversation, now_ms()
      FROM unnest($1::int8[], $2::text[]) AS n(id, wamid) JOIN outgoing o ON o.id = n.id
     WHERE o.id = ANY($1)
     ORDER BY o.number, n.wamid, o.id
    ON CONFLICT (number, wamid)
    DO UPDATE SET outgoing = coalesce(wamid.outgoing, excluded.outgoing),
                  conversation = coalesce(wamid.conversation, excluded.conversation)";
const ADOPT_ACCEPTED: &str = "
    UPDATE receipt r SET outgoing = o.id
      FROM unnest($1::int8[], $2::text[]) AS n(id, wamid) JOIN outgoing o ON o.id = n.id
     WHERE o.id = ANY($1) AND r.number = o.number AND r.wamid = n.wamid AND r.outgoing IS NULL
    RETURNING r.outgoing, r.wamid, r.status, r.attempt, r.code, r.retryable,
              r.participant <> ''";

/// Those that Meta has accepted are known by their wamids from now on.
fn queue_accepted(tx: &mut Tx, items: &[Settle]) -> Option<super::tx::Slot> {
    let accepted = items.iter().filter_map(|settle| match &settle.result {
        SendResult::Accepted(wamid) => Some((settle.id.0, indexed(wamid.as_str()))),
        _ => None,
    });
    let (ids, wamids): (Vec<i64>, Vec<String>) = accepted.unzip();
    if ids.is_empty() {
        return None;
    }
    tx.queue(LEARN_ACCEPTED, parameters![ids.clone(), wamids.clone()]);
    Some(tx.queue(ADOPT_ACCEPTED, parameters![ids, wamids]))
}

// Unsure -------------------------------------------------------------------------------------

/// What these nodes are sending, for [`Marked::read`].
pub(super) const SENDING: &str = "
    SELECT b.conversation, b.outgoing, b.node, o.attempt
      FROM outbox b JOIN outgoing o ON o.id = b.outgoing AND o.conversation = b.conversation
     WHERE b.node = ANY($1) AND b.state = 1";

/// A send as a look without a lock has shown it; by now it may be settled, or sent anew.
pub(super) struct Marked {
    pub(super) conversation: ConversationId,
    pub(super) id: OutgoingId,
    pub(super) attempt: Attempt,
    pub(super) node: NodeId,
}

impl Marked {
    /// From a row of [`SENDING`].
    pub(super) fn read(row: &Row) -> Self {
        Self {
            conversation: ConversationId(row.get(0)),
            id: OutgoingId(row.get(1)),
            node: NodeId(row.get(2)),
            attempt: read_attempt(row.get(3)),
        }
    }
}

/// Merges that nobody will say what became of these sends. Settled or sent anew since the look,
/// they stay as they are; answers the others.
pub(super) fn merge_silence(
    book: &mut Book,
    now: Timestamp,
    sends: &[Marked],
    silence: Silence,
) -> Vec<OutgoingId> {
    let mut unsure = Vec::new();
    for send in sends {
        let before = book.state(send.id);
        let (evidence, facts) = evidence::of_silence(send.attempt, silence);
        book.merge(now, send.id, evidence, facts);
        unsure.extend((book.state(send.id) != before).then_some(send.id));
    }
    unsure
}

/// What the ledger says a node is sending.
pub(super) async fn sending(tx: &mut Tx, node: NodeId) -> Result<Vec<Marked>, Fault> {
    let sending = tx.queue(SENDING, parameters![vec![node.0]]);
    let sending = tx.commit().await?.take(sending);
    Ok(sending.iter().map(Marked::read).collect())
}

/// Makes unsure what its living node denies to be sending.
pub(super) async fn doubt(tx: &mut Tx, denied: &[Marked]) -> Result<Vec<OutgoingId>, Fault> {
    tx.carries(Method::DoubtUnknown);
    let conversations: Vec<i64> = denied.iter().map(|of| of.conversation.0).collect();
    let ids: Vec<i64> = denied.iter().map(|of| of.id.0).collect();
    tx.queue(LOCK.sql(), parameters![conversations]);
    let standings = tx.queue(STANDINGS, parameters![ids]);
    let standings = tx.flush().await?.take(standings);
    let mut book = Book::default();
    book.read(&standings)?;
    let unsure = merge_silence(&mut book, tx.now(), denied, Silence::NodeDenies);
    book.write(tx);
    Ok(unsure)
}

// A transaction that has waited for the row may be older than the last count, which stands then.
// If it seems much older, the clock has gone back instead, as it may with a failover: it is
// followed.
const COUNT_HEALTHY: &str = "
    UPDATE ledger
       SET healthy_ms = healthy_ms + greatest(0, least(now_ms() - healthy_at, $1)),
           healthy_at = CASE WHEN healthy_at - now_ms() > $2 THEN now_ms()
                             ELSE greatest(healthy_at, now_ms()) END";
const OVERDUE: &str = "
    SELECT conversation, outgoing FROM outbox
     WHERE state = 2 AND unsure_at_ms <= (SELECT healthy_ms FROM ledger) - $1
     ORDER BY unsure_at_ms LIMIT 200";
const STILL_UNSURE: &str = "SELECT id, attempt FROM outgoing WHERE id = ANY($1) AND state = 2";
/// No transaction waits for so long for the row. A clock that is set back by less makes the count
/// wait until it is there again.
const SET_BACK_MIN_MS: i64 = 10_000;

/// Counts healthy time in a transaction of its own: the row is everybody's.
pub(super) async fn count_healthy(tx: &mut Tx, healthy_ms: i64) -> Result<(), Fault> {
    tx.queue(COUNT_HEALTHY, parameters![healthy_ms, SET_BACK_MIN_MS]);
    tx.commit().await.map(drop)
}

/// Ends the wait of those that have waited for `unsure_wait_ms` of healthy time.
pub(super) async fn expire(tx: &mut Tx, unsure_wait_ms: i64) -> Result<Vec<OutgoingId>, Fault> {
    let overdue = tx.queue(OVERDUE, parameters![unsure_wait_ms]);
    let overdue = tx.flush().await?.take(overdue);
    if overdue.is_empty() {
        return Ok(Vec::new());
    }
    tx.carries(Method::ExpireUnsure);
    let conversations: Vec<i64> = overdue.iter().map(|row| row.get(0)).collect();
    let ids: Vec<i64> = overdue.iter().map(|row| row.get(1)).collect();
    tx.queue(LOCK.sql(), parameters![conversations]);
    let standings = tx.queue(STANDINGS, parameters![ids.clone()]);
    let unsure = tx.queue(STILL_UNSURE, parameters![ids]);
    let mut answers = tx.flush().await?;
    let mut book = Book::default();
    book.read(&answers.take(standings))?;
    let mut ended = Vec::new();
    for row in answers.take(unsure) {
        let (id, attempt): (OutgoingId, Attempt) =
            (OutgoingId(row.get(0)), read_attempt(row.get(1)));
        let reason = Facts::because("nobody learnt whether it was sent: no receipt came");
        book.merge(tx.now(), id, Evidence::WaitOver(attempt), reason);
        ended.push(id);
    }
    book.write(tx);
    Ok(ended)
}
