//! What the parts of a store share, and how a transaction is run: within a time, again when it
//! collided with another, and telling afterwards whom it has woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::StoreError;
use super::address::Connector;
use super::fault::Fault;
use super::pool::Pool;
use super::tx::{Durability, Session, Tx};
use super::wake::Wake;
use crate::clock::Clock;
use crate::model::NodeId;

/// What the parts of a store share.
pub(super) struct Shared {
    pub(super) pool: Pool,
    pub(super) connector: Arc<Connector>,
    /// Apart, so that a lease never waits for a connection.
    pub(super) leases: Pool,
    pub(super) session: Arc<Session>,
    pub(super) wake: Arc<Wake>,
    pub(super) clock: Clock,
    pub(super) transaction_max: Duration,
    pub(super) commits: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) fatal: watch::Sender<Option<Arc<str>>>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// How long telling the server to stop may take.
const CANCEL_MAX: Duration = Duration::from_secs(5);
/// How often a transaction is tried that collided with others.
const TRIES: u32 = 8;
impl Shared {
    /// Runs `body` in a transaction and commits it; again when it collided with another one.
    pub(super) async fn transact<R>(
        &self,
        durability: Durability,
        body: impl AsyncFn(&mut Tx) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        self.transact_on(&self.pool, durability, body).await
    }

    async fn transact_on<R>(
        &self,
        pool: &Pool,
        durability: Durability,
        body: impl AsyncFn(&mut Tx) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let mut tries = 1;
        loop {
            match self.attempt(pool, durability, &body).await {
                Err(Fault::Again(_) | Fault::Deadlock(_)) if tries < TRIES => tries += 1,
                known => return known,
            }
        }
    }

    async fn attempt<R>(
        &self,
        pool: &Pool,
        durability: Durability,
        body: &impl AsyncFn(&mut Tx) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let mut tx = Tx::new(pool.lend().await?, Arc::clone(&self.session), durability);
        let whole = async {
            let value = body(&mut tx).await?;
            if !tx.is_over() {
                tx.commit().await?;
            }
            Ok(value)
        };
        let done = match self.clock.timeout(self.transaction_max, whole).await {
            Ok(done) => done,
            Err(_) => Err(self.give_up(&tx)),
        };
        if let Err(Fault::Deadlock(reason)) = &done {
            tracing::warn!(reason, "the server undid a transaction to end a deadlock");
        }
        match &done {
            Ok(_) => self.wake.tell(tx.woken()),
            Err(fault) if fault.leaves_connection() => tx.undo().await,
            Err(_) => {}
        }
        done
    }

    /// The server is told to stop: without a word it would go on waiting for a synchronous standby
    /// that is away, with its locks, though nobody waits for it any more.
    fn give_up(&self, tx: &Tx) -> Fault {
        if let Some(token) = tx.cancel_token() {
            let (tls, clock) = (self.connector.tls(), self.clock.clone());
            self.tasks.spawn(async move {
                // If it can't be told, the server's own time-outs have to do.
                let _ = clock.timeout(CANCEL_MAX, token.cancel_query(tls)).await;
            });
        }
        if tx.may_be_committed() {
            return Fault::Lost;
        }
        let limit = self.transaction_max;
        Fault::Unavailable(format!("no answer of the database within {limit:?}"))
    }

    /// A transaction that carried so many operations is on disk.
    pub(super) fn count(&self, operations: usize) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(operations as u64, Ordering::Relaxed);
    }

    pub(super) async fn synced<R>(
        &self,
        body: impl AsyncFn(&mut Tx) -> Result<R, Fault>,
    ) -> Result<R, StoreError> {
        let done = self.transact(Durability::Synced, body).await;
        done.map_err(StoreError::from)
    }

    pub(super) async fn relaxed<R>(
        &self,
        body: impl AsyncFn(&mut Tx) -> Result<R, Fault>,
    ) -> Result<R, StoreError> {
        self.transact(Durability::Relaxed, body)
            .await
            .map_err(StoreError::from)
    }

    /// For a node that may have been declared dead.
    pub(super) async fn as_node<R>(
        &self,
        node: NodeId,
        body: impl AsyncFn(&mut Tx) -> Result<R, Fault>,
    ) -> Result<R, StoreError> {
        match self.transact(Durability::Synced, body).await {
            Err(Fault::DeadNode) => Err(StoreError::DeadNode(node)),
            done => done.map_err(StoreError::from),
        }
    }

    pub(super) async fn lease<R>(
        &self,
        durability: Durability,
        body: impl AsyncFn(&mut Tx) -> Result<R, Fault>,
    ) -> Result<R, StoreError> {
        let done = self.transact_on(&self.leases, durability, body).await;
        done.map_err(StoreError::from)
    }
}
