//! Group commit: whoever has something to write queues it, and a writer takes whatever waits,
//! writes it in one transaction, and answers all after the commit. The next batch forms
//! meanwhile, so no timer delays anything.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::super::StoreError;
use super::fault::Fault;
use super::shared::Shared;
use super::tx::{Durability, Tx};

/// What is written in batches.
#[async_trait]
pub(super) trait Batch: Send + Sync + 'static {
    /// One operation.
    type Item: Send + Sync + 'static;
    /// What its caller is told.
    type Answer: Send + 'static;

    /// How much of a batch an item is, so that a batch is bounded.
    fn weight(item: &Self::Item) -> usize;

    /// Writes all items; the commit follows. Answers one per item, in order.
    async fn write(&self, tx: &mut Tx, items: &[Self::Item]) -> Result<Vec<Self::Answer>, Fault>;
}

/// The weight of one transaction at most: bounds how long its locks are held.
const WEIGHT_MAX: usize = 512;

/// An item and its caller.
struct Waiting<B: Batch> {
    item: B::Item,
    answer: oneshot::Sender<Result<B::Answer, StoreError>>,
}

/// The entrance of a lane.
pub(super) struct Lane<B: Batch> {
    queue: mpsc::Sender<Waiting<B>>,
    length: usize,
}

impl<B: Batch> Lane<B> {
    /// A lane with a queue of `length` and so many writers.
    pub(super) fn open(shared: &Arc<Shared>, batch: B, length: usize, writers: usize) -> Self {
        let (queue, items) = mpsc::channel(length);
        let items = Arc::new(Mutex::new(Queue {
            items,
            carried: None,
        }));
        let batch = Arc::new(batch);
        for _ in 0..writers {
            let writer = Writer {
                shared: Arc::clone(shared),
                batch: Arc::clone(&batch),
                items: Arc::clone(&items),
            };
            shared.tasks.spawn(writer.run());
        }
        Self { queue, length }
    }

    /// Queues an item and waits for its commit; refused when the queue is full.
    pub(super) async fn try_write(&self, item: B::Item) -> Result<B::Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        match self.queue.try_send(Waiting { item, answer }) {
            Ok(()) => answered.await.unwrap_or(Err(StoreError::Lost)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(StoreError::Behind {
                waiting: self.length,
            }),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(closed()),
        }
    }

    /// Waits for room in the queue, then for the commit.
    pub(super) async fn write(&self, item: B::Item) -> Result<B::Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        let queued = self.queue.send(Waiting { item, answer }).await;
        queued.map_err(|_| closed())?;
        answered.await.unwrap_or(Err(StoreError::Lost))
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

struct Queue<B: Batch> {
    items: mpsc::Receiver<Waiting<B>>,
    /// Was too heavy for the batch before.
    carried: Option<Waiting<B>>,
}

impl<B: Batch> Queue<B> {
    /// Waits for an item and takes what else waits; empty when the lane is closed.
    async fn next(&mut self) -> Vec<Waiting<B>> {
        let first = match self.carried.take() {
            Some(carried) => Some(carried),
            None => self.items.recv().await,
        };
        let Some(first) = first else {
            return Vec::new();
        };
        let mut weight = B::weight(&first.item);
        let mut batch = vec![first];
        while let Ok(next) = self.items.try_recv() {
            weight += B::weight(&next.item);
            if weight > WEIGHT_MAX {
                self.carried = Some(next);
                break;
            }
            batch.push(next);
        }
        batch
    }
}

struct Writer<B: Batch> {
    shared: Arc<Shared>,
    batch: Arc<B>,
    items: Arc<Mutex<Queue<B>>>,
}

impl<B: Batch> Writer<B> {
    /// Writes until the lane is closed and empty.
    async fn run(self) {
        loop {
            let waiting = self.items.lock().await.next().await;
            if waiting.is_empty() {
                return;
            }
            let (items, answers): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .map(|waiting| (waiting.item, waiting.answer))
                .unzip();
            self.write(Arc::new(items), answers).await;
        }
    }

    /// One transaction for all; if the server refuses something in it, one for each, so that
    /// what it refuses harms nobody else.
    async fn write(
        &self,
        items: Arc<Vec<B::Item>>,
        answers: Vec<oneshot::Sender<Result<B::Answer, StoreError>>>,
    ) {
        match self.transact(&items, 0..items.len()).await {
            Err(Fault::Refused(_)) if items.len() > 1 => {
                for (at, answer) in answers.into_iter().enumerate() {
                    let alone = self.transact(&items, at..at + 1).await;
                    // Nobody waits any more: the transaction stands all the same.
                    let _ = answer.send(alone.map_err(StoreError::from).and_then(only));
                }
            }
            Err(fault) => {
                let error = StoreError::from(fault);
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
            Ok(told) => {
                for (answer, told) in answers.into_iter().zip(told) {
                    let _ = answer.send(Ok(told));
                }
            }
        }
    }

    async fn transact(
        &self,
        items: &Arc<Vec<B::Item>>,
        which: Range<usize>,
    ) -> Result<Vec<B::Answer>, Fault> {
        let (batch, items, count) = (Arc::clone(&self.batch), Arc::clone(items), which.len());
        let body = async move |tx: &mut Tx| {
            let items = items.get(which.clone()).unwrap_or_default();
            batch.write(tx, items).await
        };
        let written = self.shared.transact(Durability::Synced, body).await?;
        self.shared.count(count);
        Ok(written)
    }
}

fn only<A>(mut answers: Vec<A>) -> Result<A, StoreError> {
    answers.pop().ok_or(StoreError::Lost)
}
