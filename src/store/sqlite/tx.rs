//! What one method of the store sees while it runs inside the writer's transaction.

use std::cell::Cell;
use std::time::Duration;

use rusqlite::{Connection, Params, Row};

use super::known::KnownAliases;
use crate::clock::Clock;
use crate::crash_point::{Carried, Method};
use crate::model::{StoreId, Timestamp};

const LAST_MESSAGE: &str = "
    SELECT max(coalesce((SELECT max(id) FROM message), 0), forgotten_message) FROM ledger";

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
    pub(super) woke_settled: Cell<bool>,
    pub(super) woke_threads: Cell<bool>,
    pub(super) woke_relays: Cell<bool>,
    pub(super) carried: Cell<Carried>,
    pub(super) known: &'c KnownAliases,
    next_message: Cell<Option<i64>>,
}

impl<'c> Tx<'c> {
    pub(super) fn new(
        conn: &'c Connection,
        clock: &Clock,
        boot: &'c str,
        store: StoreId,
        known: &'c KnownAliases,
    ) -> Self {
        Self {
            conn,
            now: clock.now(),
            boottime: clock.boottime(),
            boot,
            store,
            known,
            woke_turns: Cell::new(false),
            woke_sends: Cell::new(false),
            woke_settled: Cell::new(false),
            woke_threads: Cell::new(false),
            woke_relays: Cell::new(false),
            carried: Cell::default(),
            next_message: Cell::new(None),
        }
    }

    /// The id that the next message of this transaction gets.
    pub(super) fn next_message(&self) -> rusqlite::Result<i64> {
        if let Some(id) = self.next_message.get() {
            return Ok(id);
        }
        let last: Option<i64> = self.row(LAST_MESSAGE, [], |row| row.get(0))?;
        let id = last.unwrap_or(0) + 1;
        self.next_message.set(Some(id));
        Ok(id)
    }

    /// Uses it up.
    pub(super) fn take_message(&self) -> rusqlite::Result<i64> {
        let id = self.next_message()?;
        self.next_message.set(Some(id + 1));
        Ok(id)
    }

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

    /// This method has written something.
    pub(super) fn carries(&self, method: Method) {
        let mut carried = self.carried.get();
        carried.add(method);
        self.carried.set(carried);
    }

    /// A conversation may have become claimable.
    pub(super) fn wake_turns(&self) {
        self.woke_turns.set(true);
    }

    /// An outgoing may have become due.
    pub(super) fn wake_sends(&self) {
        self.woke_sends.set(true);
    }

    /// What became of a send may be known.
    pub(super) fn wake_settled(&self) {
        self.woke_settled.set(true);
    }

    /// Those who wait for a thread may get it, or the right to make it.
    pub(super) fn wake_threads(&self) {
        self.woke_threads.set(true);
    }

    /// There may be something to relay.
    pub(super) fn wake_relays(&self) {
        self.woke_relays.set(true);
    }
}
