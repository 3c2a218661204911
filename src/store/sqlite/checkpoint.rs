//! Moves the WAL's pages into the file, off the commit path.
//!
//! A passive checkpoint beside a writer that never pauses can't start the WAL anew, which would
//! then grow without end. So, when it is long: passive ones until little is left, then the
//! writer waits for that little.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;

use super::fault::{describe, is_fatal};
use super::queue::Shared;

/// How often the WAL's length is looked at.
const TICK: Duration = Duration::from_millis(20);
/// So few pages are moved while the writer waits: a few milliseconds.
const REST_PAGES: i64 = 256;
/// Passive rounds before the writer has to wait all the same.
const PASSIVE_ROUNDS: u32 = 5;

/// The checkpointing thread's own things.
pub(super) struct Checkpointer {
    /// Its busy handler must give up soon: the writer waits meanwhile, leases included.
    pub(super) conn: Connection,
    pub(super) shared: Arc<Shared>,
    /// From this many pages on the WAL is moved into the file.
    pub(super) pages_max: u32,
    pub(super) stop: Receiver<()>,
}

impl Checkpointer {
    /// Checkpoints until the other end of `stop` is dropped.
    pub(super) fn run(self) {
        while matches!(self.stop.recv_timeout(TICK), Err(RecvTimeoutError::Timeout)) {
            let pages = self.shared.wal_pages.load(Ordering::Relaxed);
            if pages < self.pages_max || self.shared.has_failed() {
                continue;
            }
            let is_short =
                |checkpoint: &Checkpoint| checkpoint.pages - checkpoint.moved <= REST_PAGES;
            for _ in 0..PASSIVE_ROUNDS {
                if self.attempt("PASSIVE").is_none_or(|done| is_short(&done)) {
                    break;
                }
            }
            self.shared.gate.close();
            if !self.shared.has_failed()
                && self.attempt("RESTART").is_some_and(|done| done.is_whole())
            {
                self.shared.wal_pages.store(0, Ordering::Relaxed);
            }
            self.shared.gate.open();
        }
    }
}

impl Checkpointer {
    /// After a failed sync of the file a second one would succeed without having written what
    /// the first could not: the store ends, and the next start moves the whole log again.
    fn attempt(&self, mode: &str) -> Option<Checkpoint> {
        match checkpoint(&self.conn, mode) {
            Ok(done) => Some(done),
            Err(error) => {
                if is_fatal(&error) {
                    self.shared.fail(describe(&error));
                }
                None
            }
        }
    }
}

/// What one checkpoint came to.
pub(super) struct Checkpoint {
    was_busy: bool,
    pages: i64,
    moved: i64,
}

impl Checkpoint {
    /// Whether nothing is left in the WAL.
    pub(super) const fn is_whole(&self) -> bool {
        !self.was_busy && self.pages == self.moved
    }
}

/// Runs one checkpoint.
pub(super) fn checkpoint(conn: &Connection, mode: &str) -> rusqlite::Result<Checkpoint> {
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok(Checkpoint {
            was_busy: row.get(0)?,
            pages: row.get(1)?,
            moved: row.get(2)?,
        })
    })
}

/// Moves the whole WAL into the file, unless somebody uses it.
pub(super) fn truncate(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_handler(Some(wait_briefly))?;
    let done = checkpoint(conn, "TRUNCATE");
    conn.busy_handler(Some(super::wait_for_lock))?;
    done.map(drop)
}

/// A tenth of a second and more.
const BRIEF_STEPS: i32 = 300;

/// Gives up soon: a checkpoint holds the write lock while it waits for readers.
pub(super) fn wait_briefly(looks: i32) -> bool {
    looks < BRIEF_STEPS && super::wait_for_lock(looks)
}
