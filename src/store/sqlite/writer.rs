//! The one thread that writes: it takes whatever is queued, writes it in one transaction, and
//! answers everybody after the commit. The batch forms by itself while the last one is being
//! synced, so no timer delays anything.
//!
//! An operation that fails alone harms nobody: the batch is undone and each operation is tried
//! in a transaction of its own. A failure of the disk ends the store for good, because after a
//! failed sync nobody knows what the disk holds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{oneshot, watch};

use super::super::{Answered, StoreError};
use super::tx::Tx;
use crate::clock::Clock;
use crate::model::StoreId;

/// Operations in one transaction at most: bounds how long one commit can take.
const BATCH_MAX: usize = 1024;
/// Answers that wait to be recorded, at most; more are dropped, they are only for diagnosis.
const ANSWERS_MAX: usize = 65_536;
/// How long answers wait for a transaction that takes them along.
const ANSWERS_WAIT: Duration = Duration::from_millis(50);
/// How long the write lock stays free after a commit when other processes use the file; longer
/// than their [`BUSY_STEP`], so that writers take turns.
const HANDOVER: Duration = Duration::from_millis(1);
/// How often a waiting writer looks whether the write lock is free.
pub(super) const BUSY_STEP: Duration = Duration::from_micros(300);
/// How many looks make a writer give up: six seconds and more.
pub(super) const BUSY_STEPS: i32 = 20_000;

/// One operation, to be run inside a transaction, perhaps twice.
trait Job: Send {
    fn run(&mut self, tx: &Tx<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

struct Operation<F, R> {
    body: F,
    value: Option<R>,
    answer: oneshot::Sender<Result<R, StoreError>>,
}

impl<F, R> Job for Operation<F, R>
where
    F: FnMut(&Tx<'_>) -> rusqlite::Result<R> + Send,
    R: Send,
{
    fn run(&mut self, tx: &Tx<'_>) -> rusqlite::Result<()> {
        self.value = Some((self.body)(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        let answer = match (result, self.value) {
            (Ok(()), Some(value)) => Ok(value),
            (Ok(()), None) => Err(StoreError::Lost),
            (Err(error), _) => Err(error),
        };
        // Nobody waits any more: the transaction stands all the same.
        let _ = self.answer.send(answer);
    }
}

/// Which operations go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Leases: they go before everything, or a busy node would lose its own.
    Lease,
    /// Ends of turns and sends: waiting does not make them fewer.
    Stage,
    /// Deliveries: refused when too many wait.
    Ingress,
}

#[derive(Default)]
struct Queue {
    lease: VecDeque<Box<dyn Job>>,
    rest: VecDeque<Box<dyn Job>>,
    answers: Vec<Answered>,
    closed: bool,
}

/// What the writer shares with those who queue, and with the checkpointer.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    queue_max: usize,
    pub(super) turns: watch::Sender<u64>,
    pub(super) sends: watch::Sender<u64>,
    pub(super) fatal: watch::Sender<Option<Arc<str>>>,
    pub(super) commits: AtomicU64,
    pub(super) writes: AtomicU64,
    /// Pages in the WAL after the last commit of this process.
    pub(super) wal_pages: AtomicU32,
    /// Closed while the checkpointer resets the WAL.
    pub(super) gate: Gate,
    /// Whether other processes use the file.
    pub(super) others: AtomicBool,
}

impl Shared {
    pub(super) fn new(queue_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            queue_max,
            turns: watch::Sender::new(0),
            sends: watch::Sender::new(0),
            fatal: watch::Sender::new(None),
            commits: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            wal_pages: AtomicU32::new(0),
            gate: Gate::default(),
            others: AtomicBool::new(false),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A poisoned queue is still a queue: jobs are pushed and popped whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues `body` and waits for its commit.
    pub(super) async fn write<R: Send + 'static>(
        &self,
        urgency: Urgency,
        body: impl FnMut(&Tx<'_>) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(
            urgency,
            Box::new(Operation {
                body,
                value: None,
                answer,
            }),
        )?;
        answered
            .await
            .unwrap_or_else(|_| match &*self.fatal.borrow() {
                Some(reason) => Err(StoreError::Fatal(Arc::clone(reason))),
                None => Err(StoreError::Lost),
            })
    }

    fn enqueue(&self, urgency: Urgency, job: Box<dyn Job>) -> Result<(), StoreError> {
        let mut queue = self.queue();
        if let Some(reason) = &*self.fatal.borrow() {
            return Err(StoreError::Fatal(Arc::clone(reason)));
        }
        if queue.closed {
            return Err(StoreError::Unavailable("the store is closed".into()));
        }
        match urgency {
            Urgency::Lease => queue.lease.push_back(job),
            Urgency::Stage => queue.rest.push_back(job),
            Urgency::Ingress if queue.rest.len() >= self.queue_max => {
                return Err(StoreError::Behind {
                    waiting: queue.rest.len(),
                });
            }
            Urgency::Ingress => queue.rest.push_back(job),
        }
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    pub(super) fn answered(&self, answered: Answered) {
        let mut queue = self.queue();
        if queue.answers.len() < ANSWERS_MAX && !queue.closed {
            queue.answers.push(answered);
            if queue.answers.len() == 1 && queue.rest.is_empty() {
                self.arrived.notify_one();
            }
        }
    }

    /// Takes no more operations; the thread ends when it has written those it has.
    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.arrived.notify_all();
        self.gate.open();
    }

    /// Whether the store has failed for good.
    pub(super) fn has_failed(&self) -> bool {
        self.fatal.borrow().is_some()
    }

    fn next_batch(&self) -> Option<Batch> {
        let mut queue = self.queue();
        while queue.lease.is_empty() && queue.rest.is_empty() {
            if queue.closed {
                return (!queue.answers.is_empty()).then(|| queue.take());
            }
            if queue.answers.is_empty() {
                queue = self
                    .arrived
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            } else {
                let (guard, timeout) = self
                    .arrived
                    .wait_timeout(queue, ANSWERS_WAIT)
                    .unwrap_or_else(PoisonError::into_inner);
                queue = guard;
                if timeout.timed_out() {
                    return Some(queue.take());
                }
            }
        }
        Some(queue.take())
    }
}

struct Batch {
    jobs: Vec<Box<dyn Job>>,
    answers: Vec<Answered>,
}

impl Queue {
    fn take(&mut self) -> Batch {
        let mut jobs: Vec<Box<dyn Job>> = self.lease.drain(..).collect();
        let room = BATCH_MAX.saturating_sub(jobs.len()).min(self.rest.len());
        jobs.extend(self.rest.drain(..room));
        Batch {
            jobs,
            answers: std::mem::take(&mut self.answers),
        }
    }
}

/// A gate that the writer passes before each transaction.
#[derive(Default)]
pub(super) struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    pub(super) fn open(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        while *closed {
            closed = self
                .opened
                .wait(closed)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The writing thread's own things.
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) boot: String,
    pub(super) store: StoreId,
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
            self.shared.fatal.send_replace(Some(reason.into()));
            self.refuse_rest();
        }
    }

    fn run(&self) {
        while let Some(batch) = self.shared.next_batch() {
            self.shared.gate.pass();
            self.write(batch);
            if self.shared.has_failed() {
                return self.refuse_rest();
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
            Ok(()) => answer_all(batch.jobs, &Ok(())),
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
                answer_all(vec![job], &Err(self.failure()));
            } else {
                self.write(Batch {
                    jobs: vec![job],
                    answers: Vec::new(),
                });
            }
        }
    }

    fn transact(&self, jobs: &mut [Box<dyn Job>], answers: &[Answered]) -> Result<(), BatchError> {
        self.conn
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(BatchError::Transaction)?;
        let tx = Tx {
            conn: &self.conn,
            now: self.clock.now(),
            boottime: self.clock.boottime(),
            boot: &self.boot,
            store: self.store,
            woke_turns: false.into(),
            woke_sends: false.into(),
        };
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
        WAL_PAGES.set(None);
        if let Err(error) = self.conn.execute_batch("COMMIT") {
            self.undo();
            return Err(BatchError::Transaction(error));
        }
        self.announce(&tx, jobs.len());
        Ok(())
    }

    fn announce(&self, tx: &Tx<'_>, writes: usize) {
        if let Some(pages) = WAL_PAGES.get() {
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            self.shared
                .writes
                .fetch_add(writes as u64, Ordering::Relaxed);
            self.shared.wal_pages.store(pages, Ordering::Relaxed);
        }
        if tx.woke_turns.get() {
            self.shared.turns.send_modify(|count| *count += 1);
        }
        if tx.woke_sends.get() {
            self.shared.sends.send_modify(|count| *count += 1);
        }
    }

    fn undo(&self) {
        if !self.conn.is_autocommit() {
            // If even this fails, the connection is unusable and the next BEGIN says so.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }

    fn give_up(&self, error: &rusqlite::Error) -> StoreError {
        if !is_fatal(error) {
            return classify(error);
        }
        let reason: Arc<str> = describe(error).into();
        self.shared.fatal.send_replace(Some(Arc::clone(&reason)));
        StoreError::Fatal(reason)
    }

    fn failure(&self) -> StoreError {
        match &*self.shared.fatal.borrow() {
            Some(reason) => StoreError::Fatal(Arc::clone(reason)),
            None => StoreError::Lost,
        }
    }

    /// Answers everything that is still queued, so that nobody waits for a dead writer.
    fn refuse_rest(&self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        let jobs: Vec<_> = queue.lease.drain(..).collect();
        let rest: Vec<_> = queue.rest.drain(..).collect();
        drop(queue);
        answer_all(jobs.into_iter().chain(rest).collect(), &Err(self.failure()));
    }
}

fn answer_all(jobs: Vec<Box<dyn Job>>, result: &Result<(), StoreError>) {
    for job in jobs {
        job.answer(result.clone());
    }
}

const RECORD_ANSWER: &str = "
    INSERT OR IGNORE INTO delivery (id, at, events, status, latency_us) VALUES (?1, ?2, ?3, ?4, ?5)";

fn record_answers(tx: &Tx<'_>, answers: &[Answered]) -> rusqlite::Result<()> {
    for answered in answers {
        tx.execute(
            RECORD_ANSWER,
            (
                answered.delivery.0,
                answered.at.0,
                answered.events as i64,
                answered.answer.status,
                i64::try_from(answered.answer.latency.as_micros()).unwrap_or(i64::MAX),
            ),
        )?;
    }
    Ok(())
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

fn lost_transaction() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK),
        Some("the transaction was rolled back by SQLite".into()),
    )
}

/// Whether the disk, not the request, is at fault: then nobody knows what it holds.
fn is_fatal(error: &rusqlite::Error) -> bool {
    let Some(code) = error.sqlite_error_code() else {
        return false;
    };
    matches!(
        code,
        ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::OperationAborted
    )
}

fn describe(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(failure) => format!("{failure} (SQLite code {})", failure.extended_code),
        None => "an error of the SQLite binding".to_owned(),
    }
}

/// What an error of a single transaction means to its caller. Never carries a stored value.
pub(super) fn classify(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Unavailable("another process holds the file's write lock".into())
        }
        Some(_) if is_fatal(error) => StoreError::Fatal(describe(error).into()),
        _ => StoreError::Refused(describe(error)),
    }
}

/// What an error while opening means: a full or broken disk is no fault of the settings.
pub(super) fn classify_open(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => {
            StoreError::Fatal(describe(error).into())
        }
        _ => StoreError::Open(describe(error)),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn opened(code: i32) -> StoreError {
        classify_open(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn a_full_disk_is_told_from_a_wrong_path() {
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_FSYNC] {
            assert!(matches!(opened(code), StoreError::Fatal(_)), "{code}");
        }
        for code in [ffi::SQLITE_CANTOPEN, ffi::SQLITE_NOTADB] {
            assert!(matches!(opened(code), StoreError::Open(_)), "{code}");
        }
    }
}
