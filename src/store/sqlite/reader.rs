//! The thread that reads: questions that need no write lock, on a connection of its own, and
//! the look at whether another process has written.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::StoreError;
use super::fault::classify;
use super::queue::Shared;

/// How often another process's commits are looked for.
const TICK: Duration = Duration::from_millis(25);
/// Questions that may wait.
pub(super) const QUEUE_MAX: usize = 256;

/// A question with its answer's way back.
pub(super) type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The reading thread's own things.
pub(super) struct Reader {
    pub(super) conn: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) questions: Receiver<Question>,
}

impl Reader {
    /// Answers until the other end is dropped.
    pub(super) fn run(self) {
        let mut version = data_version(&self.conn);
        loop {
            match self.questions.recv_timeout(TICK) {
                Ok(question) => question(&self.conn),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.shared.others.load(Ordering::Relaxed) {
                let seen = data_version(&self.conn);
                if seen != version {
                    version = seen;
                    self.shared.turns.send_modify(|count| *count += 1);
                    self.shared.sends.send_modify(|count| *count += 1);
                    self.shared.threads.send_modify(|count| *count += 1);
                    self.shared.relays.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

/// Changes whenever another connection has committed; costs no look at the file.
fn data_version(conn: &Connection) -> i64 {
    conn.query_row("PRAGMA data_version", [], |row| row.get(0))
        .unwrap_or(0)
}

/// Asks the reading thread.
pub(super) async fn ask<R: Send + 'static>(
    questions: &SyncSender<Question>,
    read: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
) -> Result<R, StoreError> {
    let (answer, answered) = oneshot::channel();
    let question: Question = Box::new(move |conn| {
        // Nobody waits any more: nothing to do.
        let _ = answer.send(read(conn).map_err(|error| classify(&error)));
    });
    questions
        .try_send(question)
        .map_err(|_| StoreError::Unavailable("too many questions are waiting".into()))?;
    answered.await.unwrap_or(Err(StoreError::Lost))
}
