//! What one method of the store sees while it runs inside the writer's transaction.

use std::cell::Cell;
use std::time::Duration;

use rusqlite::{Connection, Params, Row};

use crate::model::{StoreId, Timestamp};

/// The open transaction, its one time, and what it has made ready for others.
pub(super) struct Tx<'c> {
    pub(super) conn: &'c Connection,
    /// The time of day; one for the whole transaction.
    pub(super) now: Timestamp,
    /// Time since boot, for leases.
    pub(super) boottime: Duration,
    /// The kernel's boot id.
    pub(super) boot: &'c str,
    pub(super) store: StoreId,
    pub(super) woke_turns: Cell<bool>,
    pub(super) woke_sends: Cell<bool>,
}

impl Tx<'_> {
    /// Runs a statement that is prepared once; answers how many rows it changed.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.conn.prepare_cached(sql)?.execute(params)
    }

    /// The row of a statement that is prepared once, or `None`.
    pub(super) fn row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        match rows.next()? {
            Some(row) => {
                let value = read(row)?;
                // Stepping to the end lets a RETURNING statement finish its work.
                while rows.next()?.is_some() {}
                Ok(Some(value))
            }
            None => Ok(None),
        }
    }

    /// All rows of a statement that is prepared once.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.conn
            .prepare_cached(sql)?
            .query_map(params, read)?
            .collect()
    }

    /// A conversation may have become claimable.
    pub(super) fn wake_turns(&self) {
        self.woke_turns.set(true);
    }

    /// An outgoing may have become due.
    pub(super) fn wake_sends(&self) {
        self.woke_sends.set(true);
    }
}
