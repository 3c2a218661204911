//! Moves the WAL's pages into the file, off the commit path.
//!
//! A passive checkpoint beside a writer that never pauses can't start the WAL anew, which would
//! then grow without end. So, when it is long: first a passive one that does the bulk, then the
//! writer waits for the short rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;

use super::queue::Shared;

/// How often the WAL's length is looked at.
const TICK: Duration = Duration::from_millis(20);

/// The checkpointing thread's own things.
pub(super) struct Checkpointer {
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
            // Errors here are the writer's to meet and report: it writes to the same disk.
            let _ = checkpoint(&self.conn, "PASSIVE");
            self.shared.gate.close();
            if let Ok(true) = checkpoint(&self.conn, "RESTART") {
                self.shared.wal_pages.store(0, Ordering::Relaxed);
            }
            self.shared.gate.open();
        }
    }
}

/// Runs one checkpoint; `true` when it moved everything.
pub(super) fn checkpoint(conn: &Connection, mode: &str) -> rusqlite::Result<bool> {
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        let busy: i64 = row.get(0)?;
        let pages: i64 = row.get(1)?;
        let moved: i64 = row.get(2)?;
        Ok(busy == 0 && pages == moved)
    })
}
