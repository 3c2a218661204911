//! The one thread that writes: it takes whatever is queued, writes it in one transaction, and
//! hands it on to be synced. The next batch forms and is written meanwhile, so no timer delays
//! anything.
//!
//! An operation that fails alone harms nobody: the batch is undone and each operation is tried
//! in a transaction of its own. A failure of the disk ends the store for good, because nobody
//! knows then what it holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use rusqlite::{Connection, params_from_iter};

use super::super::{Answered, StoreError};
use super::fault::{classify, describe, is_fatal, lost_transaction};
use super::known::KnownAliases;
use super::queue::{Batch, Job, Shared, answer_all};
use super::sync::{Committed, Written};
use super::tx::Tx;
use crate::clock::Clock;
use crate::crash_point::Method;
use crate::model::StoreId;

/// How long the write lock stays free after a commit when other processes use the file; longer
/// than their [`BUSY_STEP`], so that writers take turns.
const HANDOVER: Duration = Duration::from_millis(1);
/// How often a waiting writer looks whether the write lock is free.
pub(super) const BUSY_STEP: Duration = Duration::from_micros(300);
/// How many looks make a writer give up: six seconds and more.
pub(super) const BUSY_STEPS: i32 = 20_000;

/// The writing thread's own things.
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) commits: SyncSender<Committed>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) boot: String,
    pub(super) store: StoreId,
    pub(super) known: KnownAliases,
}

/// How a batch failed.
enum BatchError {
    /// The first operation that failed; the others may succeed without it.
    Operation(rusqlite::Error),
    /// The transaction itself; all failed.
    Transaction(rusqlite::Error),
}

impl Writer {
    /// Writes until the store is closed or fails. A panic in an operation is such a failure.
    pub(super) fn run_to_the_end(self) {
        let body = std::panic::AssertUnwindSafe(|| self.run());
        if std::panic::catch_unwind(body).is_err() {
            let reason = "a panic in the writer; the log line before this one tells where";
            self.shared.fail(reason);
            self.shared.refuse_rest();
        }
    }

    fn run(&self) {
        while let Some(batch) = self.shared.next_batch() {
            self.shared.gate.pass();
            self.write(batch);
            if self.shared.has_failed() {
                return self.shared.refuse_rest();
            }
            if self.shared.others.load(Ordering::Relaxed) {
                #[expect(clippy::disallowed_methods, reason = "a thread that hands over a lock")]
                std::thread::sleep(HANDOVER);
            }
        }
    }

    fn write(&self, mut batch: Batch) {
        let count = batch.jobs.len();
        match self.transact(&mut batch.jobs, &batch.answers) {
            Ok(written) => self.pass_on(Committed {
                jobs: batch.jobs,
                written,
            }),
            Err(BatchError::Operation(error)) if count > 1 && !is_fatal(&error) => {
                self.write_singly(batch);
            }
            Err(BatchError::Operation(error) | BatchError::Transaction(error)) => {
                answer_all(batch.jobs, &Err(self.give_up(&error)));
            }
        }
    }

    /// Isolates the operation that fails: each gets a transaction of its own.
    fn write_singly(&self, batch: Batch) {
        for job in batch.jobs {
            if self.shared.has_failed() {
                answer_all(vec![job], &Err(self.shared.failure()));
            } else {
                self.write(Batch {
                    jobs: vec![job],
                    answers: Vec::new(),
                });
            }
        }
    }

    fn transact(
        &self,
        jobs: &mut [Box<dyn Job>],
        answers: &[Answered],
    ) -> Result<Written, BatchError> {
        self.conn
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(BatchError::Transaction)?;
        self.known.check(&self.conn);
        let tx = Tx::new(&self.conn, &self.clock, &self.boot, self.store, &self.known);
        let written = jobs
            .iter_mut()
            .try_for_each(|job| job.run(&tx))
            .and_then(|()| record_answers(&tx, answers));
        if let Err(error) = written {
            self.undo();
            return Err(BatchError::Operation(error));
        }
        // A failed statement may have ended the transaction without a word (SQLITE_FULL and
        // friends do); what followed would have been committed piece by piece.
        if self.conn.is_autocommit() {
            return Err(BatchError::Transaction(lost_transaction()));
        }
        let carried = tx.carried.get();
        carried.before_commit();
        WAL_PAGES.set(None);
        if let Err(error) = self.conn.execute_batch("COMMIT") {
            self.undo();
            return Err(BatchError::Transaction(error));
        }
        let wal_pages = WAL_PAGES.get();
        if let Some(pages) = wal_pages {
            self.shared.wal_pages.store(pages, Ordering::Relaxed);
        }
        Ok(Written {
            anything: wal_pages.is_some(),
            woke_turns: tx.woke_turns.get(),
            woke_sends: tx.woke_sends.get(),
            woke_settled: tx.woke_settled.get(),
            woke_threads: tx.woke_threads.get(),
            woke_relays: tx.woke_relays.get(),
            carried,
        })
    }

    /// Nobody is answered before the sync.
    fn pass_on(&self, committed: Committed) {
        if let Err(unsent) = self.commits.send(committed) {
            self.shared.fail("the syncing thread has ended");
            answer_all(unsent.0.jobs, &Err(self.shared.failure()));
        }
    }

    fn undo(&self) {
        self.known.forget();
        if !self.conn.is_autocommit() {
            // If even this fails, the connection is unusable and the next BEGIN says so.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }

    fn give_up(&self, error: &rusqlite::Error) -> StoreError {
        if !is_fatal(error) {
            return classify(error);
        }
        self.shared.fail(describe(error));
        self.shared.failure()
    }
}

/// Answers recorded by one statement.
const ANSWERS_AT_ONCE: usize = 16;
const RECORD_ANSWERS: &str = "
    INSERT OR IGNORE INTO delivery (id, at, events, status, latency_us)
    VALUES (?,?,?,?,?),(?,?,?,?,?),(?,?,?,?,?),(?,?,?,?,?),(?,?,?,?,?),(?,?,?,?,?),(?,?,?,?,?),
           (?,?,?,?,?),(?,?,?,?,?),(?,?,?,?,?),(?,?,?,?,?),(?,?,?,?,?),(?,?,?,?,?),(?,?,?,?,?),
           (?,?,?,?,?),(?,?,?,?,?)";
const RECORD_ANSWER: &str = "
    INSERT OR IGNORE INTO delivery (id, at, events, status, latency_us) VALUES (?,?,?,?,?)";

fn record_answers(tx: &Tx<'_>, answers: &[Answered]) -> rusqlite::Result<()> {
    if !answers.is_empty() {
        tx.carries(Method::Answered);
    }
    let (chunks, rest) = answers.as_chunks::<ANSWERS_AT_ONCE>();
    for chunk in chunks {
        tx.execute(
            RECORD_ANSWERS,
            params_from_iter(chunk.iter().flat_map(columns)),
        )?;
    }
    for answered in rest {
        tx.execute(RECORD_ANSWER, columns(answered))?;
    }
    Ok(())
}

fn columns(answered: &Answered) -> [i64; 5] {
    let latency = answered.answer.latency.as_micros();
    [
        answered.delivery.0,
        answered.at.0,
        answered.events as i64,
        i64::from(answered.answer.status),
        i64::try_from(latency).unwrap_or(i64::MAX),
    ]
}

thread_local! {
    /// The WAL's length after the commit that has just written something. SQLite's hook takes a
    /// plain function, and one writer runs per thread.
    static WAL_PAGES: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

/// Makes commits of this connection tell the WAL's length, and whether they wrote at all.
pub(super) fn watch_wal(conn: &Connection) {
    conn.wal_hook(Some(|_, pages| {
        WAL_PAGES.set(Some(u32::try_from(pages).unwrap_or(0)));
        Ok(())
    }));
}
