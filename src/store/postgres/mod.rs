//! The ledger in PostgreSQL, which any number of processes on any number of machines share.
//!
//! Only the database's clock counts. Deliveries, ends of turns and settlements are written in
//! batches: one transaction for whatever waits. Nothing depends on the state of a connection, so
//! that a pooler may hand out another one for each transaction.

mod address;
mod answers;
mod append;
mod bot_sends;
mod connection;
mod ending;
mod fault;
mod gate;
mod identity;
mod lane;
mod lock;
mod node;
mod outbox;
mod parameter;
mod pool;
mod prune;
mod read;
mod receipts;
mod relays;
mod schema;
mod sending;
mod settings;
mod settling;
mod shared;
#[cfg(test)]
pub(in crate::store) mod tests;
mod threads;
mod turn;
mod tx;
mod wake;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::address::{Address, AddressError, ConnectError, Connector, Messages};
use self::answers::AnswerLog;
use self::append::Appending;
use self::connection::Connection;
use self::ending::{Ending, Endings};
use self::fault::Fault;
use self::lane::Lane;
use self::pool::Pool;
pub use self::settings::PostgresSettings;
use self::settling::Settling;
use self::shared::Shared;
use self::tx::{Durability, Session, Tx};
use self::wake::Wake;
use super::{
    Answered, Appended, Arrivals, Backlog, ClaimRequest, Claimed, Commits, DeadLetter, Delivery,
    Fate, Finish, Heard, Keep, KeepSends, OrphanRecord, OutgoingRecord, PruneRequest, Pruned,
    Reaped, RelayEnd, RelayRequest, Relaying, Release, Renewal, SendRequest, Sends, Settle, Stage,
    Staged, Store, StoreError, ThreadClaim, ThreadRecord, TurnRun, Whose, Written,
};
use crate::clock::Clock;
use crate::guard::{self, Guard};
use crate::model::bot_send::Told;
use crate::model::thread::{Access, Completion};
use crate::model::{
    BotSendId, ConversationId, EventKey, Lease, NodeId, NumberId, OutgoingId, OutgoingState,
    StoreId, ThreadId,
};

/// A [`Store`] in PostgreSQL.
pub struct PostgresStore {
    shared: Arc<Shared>,
    lanes: RwLock<Option<Arc<Lanes>>>,
    answers: Arc<AnswerLog>,
}

struct Lanes {
    deliveries: Lane<Appending>,
    endings: Lane<Endings>,
    settlements: Lane<Settling>,
}

/// How the name of a schema begins that is made to be thrown away: by a bench, by a rehearsal.
pub const THROWAWAY_PREFIXES: [&str; 2] = ["hapax_bench_", "hapax_rehearsal_"];

/// Ends of turns and settlements that may wait; who has one more waits for room.
const STAGE_QUEUE: usize = 1024;
/// Beyond the server's own limit for one statement: for the others, and for the way.
const GRACE: Duration = Duration::from_secs(2);
/// How long answers wait for a delivery that takes them along.
const ANSWERS_WAIT: Duration = Duration::from_millis(50);

impl PostgresStore {
    /// Connects, migrates the schema, and starts the writers.
    ///
    /// # Errors
    /// The database can't be reached or refuses something; its schema is newer than this Hapax;
    /// several hosts without a synchronous standby.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn open(settings: &PostgresSettings, clock: Clock) -> Result<Self, StoreError> {
        let connector = connector(settings, &clock)?;
        let connection = connect(&connector).await?;
        schema::migrate(&connection.client, &settings.schema, &clock).await?;
        check_failover(&connection, settings).await?;
        let session = Session {
            clock: clock.clone(),
            settings: settings.session(),
            prepares: !settings.pooled,
            has_timeline: schema::timeline(&connection.client).await.is_some(),
            store: schema::store_id(&connection.client, &settings.schema).await?,
        };
        if !session.has_timeline {
            tracing::warn!("the database does not tell its timeline: a failover is not noticed");
        }
        drop(connection);
        let wait_max = settings.connect_timeout + GRACE;
        let shared = Arc::new(Shared {
            connector: Arc::clone(&connector),
            pool: Pool::new(&connector, settings.connections, wait_max, &clock),
            leases: Pool::new(&connector, 1, wait_max, &clock),
            session: Arc::new(session),
            wake: Arc::new(Wake::new()),
            clock,
            transaction_max: settings.statement_timeout + GRACE,
            commits: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            fatal: watch::Sender::new(None),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        Ok(Self::start(shared, connector, settings))
    }

    fn start(shared: Arc<Shared>, connector: Arc<Connector>, settings: &PostgresSettings) -> Self {
        let answers = Arc::new(AnswerLog::default());
        let appending = Appending {
            answers: Arc::clone(&answers),
        };
        // So few connections write deliveries: batches grow instead, and others get their turn.
        let writers = (settings.connections / 4).max(1);
        let lanes = Lanes {
            deliveries: Lane::open(&shared, appending, settings.queue_max, writers),
            endings: Lane::open(&shared, Endings, STAGE_QUEUE, 1),
            settlements: Lane::open(&shared, Settling, STAGE_QUEUE, 1),
        };
        shared
            .tasks
            .spawn(record_answers(Arc::clone(&shared), Arc::clone(&answers)));
        if !settings.pooled {
            let channel = format!("hapax_{}", settings.schema);
            shared.tasks.spawn(wake::run(
                Arc::clone(&shared.wake),
                connector,
                channel,
                shared.clock.clone(),
                shared.stop.clone(),
            ));
        }
        Self {
            shared,
            lanes: RwLock::new(Some(Arc::new(lanes))),
            answers,
        }
    }

    /// Migrates the schema and disconnects again; answers its version.
    ///
    /// # Errors
    /// As for [`PostgresStore::open`].
    pub async fn migrate(settings: &PostgresSettings, clock: &Clock) -> Result<u32, StoreError> {
        let connection = connect(&*connector(settings, clock)?).await?;
        schema::migrate(&connection.client, &settings.schema, clock).await?;
        Ok(schema::VERSION)
    }

    /// Destroys a whole ledger: drops its schema with everything in it, if it is there. For
    /// measurements and tests alone; no store may be open on it.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for every schema whose name does not begin with
    /// [`THROWAWAY_PREFIXES`]; the database can't be reached, or refuses. Nothing is dropped then.
    pub async fn destroy_throwaway(
        settings: &PostgresSettings,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        let begins = |prefix: &&str| settings.schema.starts_with(*prefix);
        if !THROWAWAY_PREFIXES.iter().any(begins) {
            let reason = format!("{} is not a schema to throw away", settings.schema);
            return Err(StoreError::Refused(reason));
        }
        let connection = connect(&*connector(settings, clock)?).await?;
        schema::drop_whole(&connection.client, &settings.schema, &settings.session()).await
    }

    fn lanes(&self) -> Result<Arc<Lanes>, StoreError> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        let closed = || StoreError::Unavailable("the store is closed".to_owned());
        lanes.as_ref().map(Arc::clone).ok_or_else(closed)
    }
}

fn connector(settings: &PostgresSettings, clock: &Clock) -> Result<Arc<Connector>, StoreError> {
    let address = settings
        .address
        .clone()
        .with_connect_timeout(settings.connect_timeout);
    let connector = address.connector(clock.clone());
    connector
        .map(Arc::new)
        .map_err(|error| StoreError::Open(error.to_string()))
}

async fn connect(connector: &Connector) -> Result<Connection, StoreError> {
    let opened = Connection::open(connector, None).await;
    opened.map_err(|error| StoreError::Open(error.to_string()))
}

/// With several hosts another one may take over; what it never got is then lost.
async fn check_failover(
    connection: &Connection,
    settings: &PostgresSettings,
) -> Result<(), StoreError> {
    if settings.address.hosts() < 2 || settings.allows_async_failover {
        return Ok(());
    }
    if schema::has_synchronous_standby(&connection.client).await? {
        return Ok(());
    }
    Err(StoreError::Open(
        "several hosts, but commits wait for no standby (synchronous_standby_names is empty): a \
         failover could lose messages that were acknowledged. Set synchronous_standby_names on \
         the server, or store.async_failover = \"allow\" here"
            .to_owned(),
    ))
}

/// Records answers that no delivery takes along.
async fn record_answers(shared: Arc<Shared>, answers: Arc<AnswerLog>) {
    loop {
        let wait = async {
            answers.arrived.notified().await;
            shared.clock.sleep(ANSWERS_WAIT).await;
        };
        let stopping = shared.stop.run_until_cancelled(wait).await.is_none();
        let waiting = answers.take();
        if !waiting.is_empty() {
            // May be lost: they are only for diagnosis.
            let record = async move |tx: &mut Tx| {
                append::queue_answers(tx, &waiting);
                Ok(())
            };
            let _ = shared.transact(Durability::Relaxed, record).await;
        }
        if stopping {
            return;
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn id(&self) -> StoreId {
        self.shared.session.store
    }

    fn turns_changed(&self) -> watch::Receiver<u64> {
        self.shared.wake.turns.subscribe()
    }

    fn sends_changed(&self) -> watch::Receiver<u64> {
        self.shared.wake.sends.subscribe()
    }

    fn sends_settled(&self) -> watch::Receiver<u64> {
        self.shared.wake.settled.subscribe()
    }

    fn threads_changed(&self) -> watch::Receiver<u64> {
        self.shared.wake.threads.subscribe()
    }

    fn relays_changed(&self) -> watch::Receiver<u64> {
        self.shared.wake.relays.subscribe()
    }

    fn fatal(&self) -> watch::Receiver<Option<Arc<str>>> {
        // A database comes back, and this process needs nothing but it.
        self.shared.fatal.subscribe()
    }

    async fn join(&self, ttl: Duration) -> Result<NodeId, StoreError> {
        let join = async move |tx: &mut Tx| node::join(tx, ttl).await;
        self.shared.lease(Durability::Synced, join).await
    }

    async fn renew(&self, node: NodeId, ttl: Duration) -> Result<Renewal, StoreError> {
        let renew = async move |tx: &mut Tx| node::renew(tx, node, ttl).await;
        let (renewal, others) = self.shared.lease(Durability::Relaxed, renew).await?;
        self.shared.wake.others.store(others, Ordering::Relaxed);
        Ok(renewal)
    }

    async fn leave(&self, node: NodeId) -> Result<(), StoreError> {
        let leave = async move |tx: &mut Tx| node::leave(tx, node).await;
        self.shared.lease(Durability::Synced, leave).await
    }

    async fn reap(&self) -> Result<Vec<Reaped>, StoreError> {
        self.shared
            .synced(async |tx: &mut Tx| node::reap(tx).await)
            .await
    }

    async fn append(&self, mut delivery: Arc<Delivery>) -> Result<Appended, StoreError> {
        if !guard::holds(Guard::UniqueKey) {
            delivery = Arc::new(delivery.with_fresh_keys());
        }
        self.lanes()?.deliveries.try_write(delivery).await
    }

    fn answered(&self, answered: Answered) {
        self.answers.add(answered);
    }

    async fn claim(&self, claim: ClaimRequest) -> Result<Claimed, StoreError> {
        let body = async move |tx: &mut Tx| turn::claim(tx, &claim).await;
        let claimed = self.shared.as_node(claim.node, body).await?;
        if !claimed.turns.is_empty() {
            self.shared.count(1);
        }
        Ok(claimed)
    }

    async fn free_unknown(&self, node: NodeId, keep: Keep) -> Result<Vec<Lease>, StoreError> {
        let held = async move |tx: &mut Tx| read::held(tx, node).await;
        let held = self.shared.relaxed(held).await?;
        let mut freed = Vec::new();
        for (token, lease) in held {
            if keep(token, lease) {
                continue;
            }
            let back = Release {
                wait: Duration::ZERO,
                counts: false,
                unavailable: false,
                error: None,
            };
            // Under its epoch: freed by now, or finished, it is fenced.
            let free = (lease, Ending::Free(back));
            if self.lanes()?.endings.write(free).await? == Written::Done {
                freed.push(lease);
            }
        }
        Ok(freed)
    }

    async fn finish(&self, lease: Lease, finish: Finish) -> Result<Written, StoreError> {
        self.lanes()?
            .endings
            .write((lease, Ending::Finish(finish)))
            .await
    }

    async fn release(&self, lease: Lease, release: Release) -> Result<Written, StoreError> {
        self.lanes()?
            .endings
            .write((lease, Ending::Release(release)))
            .await
    }

    async fn send(&self, send: SendRequest) -> Result<Sends, StoreError> {
        let node = send.node;
        let body = async move |tx: &mut Tx| sending::send(tx, &send).await;
        let sends = self.shared.as_node(node, body).await?;
        if !sends.outgoings.is_empty() {
            self.shared.count(1);
        }
        Ok(sends)
    }

    async fn doubt_unknown(
        &self,
        node: NodeId,
        keep: KeepSends,
    ) -> Result<Vec<OutgoingId>, StoreError> {
        let sending = async move |tx: &mut Tx| settling::sending(tx, node).await;
        let mut denied = self.shared.relaxed(sending).await?;
        denied.retain(|of| !keep(of.id, of.attempt));
        if denied.is_empty() {
            return Ok(Vec::new());
        }
        let doubt = async move |tx: &mut Tx| settling::doubt(tx, &denied).await;
        self.shared.synced(doubt).await
    }

    async fn settle(&self, settle: Settle) -> Result<OutgoingState, StoreError> {
        let id = settle.id;
        let settled = self.lanes()?.settlements.write(settle).await?;
        settled.ok_or_else(|| StoreError::Refused(format!("there is no {id}")))
    }

    async fn expire_unsure(
        &self,
        healthy: Duration,
        unsure_wait: Duration,
    ) -> Result<Vec<OutgoingId>, StoreError> {
        let wait_ms = i64::try_from(unsure_wait.as_millis()).unwrap_or(i64::MAX / 4);
        let healthy_ms = i64::try_from(healthy.as_millis()).unwrap_or(i64::MAX);
        if healthy_ms > 0 {
            let count = async move |tx: &mut Tx| settling::count_healthy(tx, healthy_ms).await;
            self.shared.relaxed(count).await?;
        }
        let expire = async move |tx: &mut Tx| settling::expire(tx, wait_ms).await;
        self.shared.synced(expire).await
    }

    async fn stage(&self, stage: Stage) -> Result<Option<Staged>, StoreError> {
        let body = async move |tx: &mut Tx| bot_sends::stage(tx, &stage).await;
        self.shared.synced(body).await
    }

    async fn fates(&self, ids: Vec<BotSendId>) -> Result<Vec<Fate>, StoreError> {
        let body = async move |tx: &mut Tx| bot_sends::fates(tx, &ids).await;
        self.shared.relaxed(body).await
    }

    async fn told(&self, id: BotSendId, told: Told) -> Result<(), StoreError> {
        let body = async move |tx: &mut Tx| bot_sends::told(tx, id, told).await;
        self.shared.relaxed(body).await
    }

    async fn heard(&self, runs: Vec<TurnRun>) -> Result<Vec<Heard>, StoreError> {
        let body = async move |tx: &mut Tx| bot_sends::heard(tx, &runs).await;
        self.shared.relaxed(body).await
    }

    async fn link_dialled(
        &self,
        number: NumberId,
        dialled: String,
        wa_id: String,
    ) -> Result<(), StoreError> {
        let body =
            async move |tx: &mut Tx| bot_sends::link_dialled(tx, &number, &dialled, &wa_id).await;
        self.shared.synced(body).await
    }

    async fn relay(&self, relay: RelayRequest) -> Result<Vec<Relaying>, StoreError> {
        let node = relay.node;
        let body = async move |tx: &mut Tx| relays::take(tx, &relay).await;
        self.shared.as_node(node, body).await
    }

    async fn relayed(&self, node: NodeId, key: EventKey, end: RelayEnd) -> Result<(), StoreError> {
        let body = async move |tx: &mut Tx| relays::end(tx, node, key, end).await;
        self.shared.relaxed(body).await
    }

    async fn claim_thread(
        &self,
        claim: ThreadClaim,
    ) -> Result<Option<(ConversationId, Access)>, StoreError> {
        let body = async move |tx: &mut Tx| threads::claim(tx, &claim).await;
        self.shared.synced(body).await
    }

    async fn complete_thread(
        &self,
        whose: Whose,
        version: i64,
        thread: ThreadId,
    ) -> Result<Option<(ConversationId, Completion)>, StoreError> {
        let body = async move |tx: &mut Tx| threads::complete(tx, &whose, version, &thread).await;
        self.shared.synced(body).await
    }

    async fn forget_thread(
        &self,
        whose: Whose,
    ) -> Result<Option<(ConversationId, i64)>, StoreError> {
        let body = async move |tx: &mut Tx| threads::forget(tx, &whose).await;
        self.shared.synced(body).await
    }

    async fn prune(&self, prune: PruneRequest) -> Result<Option<Pruned>, StoreError> {
        let body = async move |tx: &mut Tx| prune::prune(tx, &prune).await;
        match self.shared.transact(Durability::Relaxed, body).await {
            Err(Fault::DeadNode) => Err(StoreError::DeadNode(prune.node)),
            done => done.map_err(StoreError::from),
        }
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.shared
            .relaxed(async |tx: &mut Tx| read::backlog(tx).await)
            .await
    }

    async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        self.shared
            .relaxed(async move |tx: &mut Tx| read::dead_letters(tx, limit).await)
            .await
    }

    async fn outgoings(
        &self,
        after: Option<OutgoingId>,
        limit: u32,
    ) -> Result<Vec<OutgoingRecord>, StoreError> {
        self.shared
            .relaxed(async move |tx: &mut Tx| read::outgoings(tx, after, limit).await)
            .await
    }

    async fn arrivals(&self, key: EventKey) -> Result<Option<Arrivals>, StoreError> {
        self.shared
            .relaxed(async move |tx: &mut Tx| read::arrivals(tx, key).await)
            .await
    }

    async fn thread(&self, whose: Whose) -> Result<Option<ThreadRecord>, StoreError> {
        self.shared
            .relaxed(async move |tx: &mut Tx| threads::thread(tx, &whose).await)
            .await
    }

    async fn orphans(&self, limit: u32) -> Result<Vec<OrphanRecord>, StoreError> {
        self.shared
            .relaxed(async move |tx: &mut Tx| threads::orphans(tx, limit).await)
            .await
    }

    fn commits(&self) -> Commits {
        Commits {
            commits: self.shared.commits.load(Ordering::Relaxed),
            writes: self.shared.writes.load(Ordering::Relaxed),
        }
    }

    async fn close(&self) {
        // Whoever still writes holds the lanes; they end with the last one.
        let lanes = self
            .lanes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(lanes);
        self.shared.stop.cancel();
        self.shared.tasks.close();
        let written = self.shared.tasks.wait();
        if self
            .shared
            .clock
            .timeout(self.shared.transaction_max, written)
            .await
            .is_err()
        {
            tracing::warn!("the database did not take everything before the end");
        }
        self.shared.pool.close();
        self.shared.leases.close();
    }
}
