//! Nodes: one row per running process. Its lease frees everything it holds when it ends.

use std::time::Duration;

use rusqlite::params;

use super::super::evidence::Silence;
use super::super::{Reaped, Renewal};
use super::tx::Tx;
use super::{outbox, relays};
use crate::crash_point::Method;
use crate::model::NodeId;

const JOIN: &str = "
    INSERT INTO node (boot, lease_until_ms, pid, joined_at) VALUES (?1, ?2, ?3, ?4)";

pub(super) fn join(tx: &Tx<'_>, ttl: Duration) -> rusqlite::Result<NodeId> {
    tx.carries(Method::Join);
    tx.execute(
        JOIN,
        params![tx.boot, lease_until(tx, ttl), std::process::id(), tx.now.0],
    )?;
    Ok(NodeId(tx.conn.last_insert_rowid()))
}

const RENEW: &str = "UPDATE node SET lease_until_ms = ?2 WHERE id = ?1 AND boot = ?3";
const COUNT: &str = "SELECT COUNT(*) FROM node";

/// Also answers how many nodes use the file.
pub(super) fn renew(tx: &Tx<'_>, node: NodeId, ttl: Duration) -> rusqlite::Result<(Renewal, i64)> {
    tx.carries(Method::Renew);
    let renewed = tx.execute(RENEW, params![node.0, lease_until(tx, ttl), tx.boot])?;
    let nodes = tx.row(COUNT, [], |row| row.get(0))?.unwrap_or(0);
    Ok((
        if renewed == 1 {
            Renewal::Alive
        } else {
            Renewal::Dead
        },
        nodes,
    ))
}

fn lease_until(tx: &Tx<'_>, ttl: Duration) -> i64 {
    i64::try_from((tx.boottime + ttl).as_millis()).unwrap_or(i64::MAX)
}

const IS_MEMBER: &str = "SELECT 1 FROM node WHERE id = ?1";

/// Whether the node has a row. Work is given only to those that have: what a node without one
/// held would never be freed.
pub(super) fn is_member(tx: &Tx<'_>, node: NodeId) -> rusqlite::Result<bool> {
    Ok(tx.row(IS_MEMBER, [node.0], |_| Ok(()))?.is_some())
}

const LAPSED: &str = "SELECT id FROM node WHERE boot <> ?1 OR lease_until_ms <= ?2";

pub(super) fn reap(tx: &Tx<'_>) -> rusqlite::Result<Vec<Reaped>> {
    let boottime = i64::try_from(tx.boottime.as_millis()).unwrap_or(i64::MAX);
    let lapsed = tx.rows(LAPSED, params![tx.boot, boottime], |row| {
        row.get(0).map(NodeId)
    })?;
    if !lapsed.is_empty() {
        tx.carries(Method::Reap);
    }
    lapsed.into_iter().map(|node| remove(tx, node)).collect()
}

/// Takes out a node that says so itself.
pub(super) fn leave(tx: &Tx<'_>, node: NodeId) -> rusqlite::Result<()> {
    tx.carries(Method::Leave);
    remove(tx, node).map(drop)
}

const REMOVE: &str = "DELETE FROM node WHERE id = ?1";
// The attempt stays counted: a message that kills its process must not be tried for ever.
const FREE_CONVERSATIONS: &str = "
    UPDATE conversation
       SET owner = NULL, claim = NULL, ready_at = max(?2, not_before, quiet_until)
     WHERE owner = ?1";

/// Takes a node out and frees what it held.
fn remove(tx: &Tx<'_>, node: NodeId) -> rusqlite::Result<Reaped> {
    tx.execute(REMOVE, [node.0])?;
    let conversations = tx.execute(FREE_CONVERSATIONS, params![node.0, tx.now.0])?;
    let unsure = outbox::doubt(tx, node, Silence::NodeEnded, |_, _| true)?;
    relays::free(tx, node)?;
    if conversations > 0 {
        tx.wake_turns();
    }
    Ok(Reaped {
        node,
        conversations: conversations as u64,
        unsure: unsure.len() as u64,
    })
}
