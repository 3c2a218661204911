//! NODE: one row per running process. Its lease frees everything it holds when it ends.

use std::time::Duration;

use tokio_postgres::Row;

use super::super::evidence::Silence;
use super::super::{Reaped, Renewal};
use super::fault::Fault;
use super::outbox::{Book, LOCK, STANDINGS};
use super::parameter::parameters;
use super::relays;
use super::settling::{Marked, SENDING, merge_silence};
use super::tx::Tx;
use crate::crash_point::Method;
use crate::model::NodeId;

/// Whether a node has a row; and it keeps it until the transaction is over. Work is given only
/// to those that have: what a node without one held would never be freed. Renewals pass this
/// lock, only the end of the node waits for it.
pub(super) const IS_MEMBER: &str = "SELECT 1 FROM node WHERE id = $1 FOR KEY SHARE";

/// Whether a node has a row now.
pub(super) const IS_NODE: &str = "SELECT 1 FROM node WHERE id = $1";

const JOIN: &str = "
    INSERT INTO node (lease_until, pid, joined_at) VALUES (now_ms() + $1, $2, now_ms())
    RETURNING id";

pub(super) async fn join(tx: &mut Tx, ttl: Duration) -> Result<NodeId, Fault> {
    tx.carries(Method::Join);
    // After a failover ids jump first, or a lost one were given again.
    tx.flush().await?;
    let joined = tx.queue(
        JOIN,
        parameters![millis(ttl), i64::from(std::process::id())],
    );
    let joined = tx.commit().await?.take(joined);
    joined
        .first()
        .map(|row| NodeId(row.get(0)))
        .ok_or_else(|| Fault::Unavailable("the node was not entered".to_owned()))
}

const RENEW: &str = "
    UPDATE node SET lease_until = now_ms() + $2 WHERE id = $1
    RETURNING (SELECT count(*) FROM node)";

/// Also answers whether there are other nodes.
pub(super) async fn renew(
    tx: &mut Tx,
    node: NodeId,
    ttl: Duration,
) -> Result<(Renewal, bool), Fault> {
    tx.carries(Method::Renew);
    let renewed = tx.queue(RENEW, parameters![node.0, millis(ttl)]);
    let renewed = tx.commit().await?.take(renewed);
    Ok(match renewed.first() {
        Some(row) => (Renewal::Alive, row.get::<_, i64>(0) > 1),
        None => (Renewal::Dead, true),
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

const END: &str = "DELETE FROM node WHERE id = $1 RETURNING id";
// One whose row is locked is just being given something, or is ended by somebody else: the next
// look finds it.
const END_LAPSED: &str = "
    WITH lapsed AS MATERIALIZED (
        SELECT id FROM node WHERE lease_until <= now_ms() ORDER BY id FOR UPDATE SKIP LOCKED)
    DELETE FROM node n USING lapsed WHERE n.id = lapsed.id RETURNING n.id";
const HELD: &str = "SELECT conversation, node FROM pending WHERE node = ANY($1)";
// The attempt stays counted: a message that kills its process must not be tried for ever.
const FREE: &str = "
    UPDATE conversation SET owner = NULL, claim = NULL
     WHERE id = ANY($1) AND owner = ANY($2)";
const MAKE_DUE: &str = "
    UPDATE pending p SET due_at = greatest(now_ms(), c.not_before, c.quiet_until), node = NULL
      FROM conversation c
     WHERE p.conversation = ANY($1) AND p.node = ANY($2) AND c.id = p.conversation";

/// Ends every node whose lease is over.
pub(super) async fn reap(tx: &mut Tx) -> Result<Vec<Reaped>, Fault> {
    let ended = tx.queue(END_LAPSED, Vec::new());
    let ended = tx.flush().await?.take(ended);
    if !ended.is_empty() {
        tx.carries(Method::Reap);
    }
    free(tx, ended.iter().map(|row| row.get(0)).collect()).await
}

/// Ends one node, which says so itself.
pub(super) async fn leave(tx: &mut Tx, node: NodeId) -> Result<(), Fault> {
    tx.carries(Method::Leave);
    let ended = tx.queue(END, parameters![node.0]);
    let ended = tx.flush().await?.take(ended);
    free(tx, ended.iter().map(|row| row.get(0)).collect())
        .await
        .map(drop)
}

/// Frees what these nodes held. Their rows are gone, so that nothing is added to it.
async fn free(tx: &mut Tx, nodes: Vec<i64>) -> Result<Vec<Reaped>, Fault> {
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let held = tx.queue(HELD, parameters![nodes.clone()]);
    let sending = tx.queue(SENDING, parameters![nodes.clone()]);
    let mut answers = tx.flush().await?;
    let (held, sending) = (answers.take(held), answers.take(sending));
    let held_ids: Vec<i64> = held.iter().map(|row| row.get(0)).collect();
    let sending: Vec<Marked> = sending.iter().map(Marked::read).collect();
    let mut to_lock: Vec<i64> = sending.iter().map(|of| of.conversation.0).collect();
    to_lock.extend(&held_ids);
    let outgoings: Vec<i64> = sending.iter().map(|of| of.id.0).collect();
    tx.queue(LOCK.sql(), parameters![to_lock]);
    let standings = tx.queue(STANDINGS, parameters![outgoings]);
    let standings = tx.flush().await?.take(standings);
    tx.queue(FREE, parameters![held_ids.clone(), nodes.clone()]);
    tx.queue(MAKE_DUE, parameters![held_ids.clone(), nodes.clone()]);
    relays::queue_free(tx, nodes.clone());
    let mut book = Book::default();
    book.read(&standings)?;
    merge_silence(&mut book, tx.now(), &sending, Silence::NodeEnded);
    book.write(tx);
    tx.woke_turns |= !held_ids.is_empty();
    let reaped = nodes.iter().map(|node| {
        let holds = |row: &&Row| row.get::<_, i64>(1) == *node;
        let sends = |of: &&Marked| of.node.0 == *node;
        Reaped {
            node: NodeId(*node),
            conversations: held.iter().filter(holds).count() as u64,
            unsure: sending.iter().filter(sends).count() as u64,
        }
    });
    Ok(reaped.collect())
}
