//! What waits to be written, and what the threads of a store share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::super::{Answered, StoreError};
use super::tx::Tx;

/// Operations in one transaction at most: bounds how long one commit can take.
const BATCH_MAX: usize = 1024;
/// Answers that wait to be recorded, at most; more are dropped, they are only for diagnosis.
const ANSWERS_MAX: usize = 65_536;
/// How long answers wait for a transaction that takes them along.
const ANSWERS_WAIT: Duration = Duration::from_millis(50);

/// One operation, to be run inside a transaction, perhaps twice.
pub(super) trait Job: Send {
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
    pub(super) settled: watch::Sender<u64>,
    pub(super) threads: watch::Sender<u64>,
    pub(super) relays: watch::Sender<u64>,
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
            settled: watch::Sender::new(0),
            threads: watch::Sender::new(0),
            relays: watch::Sender::new(0),
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
        answered.await.unwrap_or_else(|_| Err(self.failure()))
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

    /// The store has failed for good; the first reason stands.
    pub(super) fn fail(&self, reason: impl Into<Arc<str>>) {
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            fatal.get_or_insert_with(|| reason.into());
            first
        });
    }

    /// What whoever waits is told when the store has failed.
    pub(super) fn failure(&self) -> StoreError {
        match &*self.fatal.borrow() {
            Some(reason) => StoreError::Fatal(Arc::clone(reason)),
            None => StoreError::Lost,
        }
    }

    /// Answers everything that is still queued, so that nobody waits for a dead writer.
    pub(super) fn refuse_rest(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        let jobs: Vec<_> = queue.lease.drain(..).collect();
        let rest: Vec<_> = queue.rest.drain(..).collect();
        drop(queue);
        answer_all(jobs.into_iter().chain(rest).collect(), &Err(self.failure()));
    }

    pub(super) fn next_batch(&self) -> Option<Batch> {
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

/// What goes into one transaction.
pub(super) struct Batch {
    pub(super) jobs: Vec<Box<dyn Job>>,
    pub(super) answers: Vec<Answered>,
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

    pub(super) fn pass(&self) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        while *closed {
            closed = self
                .opened
                .wait(closed)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Tells everybody who queued these.
pub(super) fn answer_all(jobs: Vec<Box<dyn Job>>, result: &Result<(), StoreError>) {
    for job in jobs {
        job.answer(result.clone());
    }
}
