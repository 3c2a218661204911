//! The ledger in one SQLite file, which several processes of one machine may share.
//!
//! One thread writes, one reads, one checkpoints; each has its own connection. Leases are timed
//! by `CLOCK_BOOTTIME`, which all processes of a machine share and nobody can set.

mod append;
mod bot_sends;
mod checkpoint;
mod fault;
mod identity;
mod known;
mod node;
mod outbox;
mod prune;
mod queue;
mod read;
mod reader;
mod relays;
mod schema;
mod sending;
mod sync;
mod threads;
mod turn;
mod tx;
mod writer;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::watch;

use self::fault::classify_open;
use self::queue::{Shared, Urgency};
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

/// Bytes of a page; SQLite's default, written down because limits are counted in it.
const PAGE_BYTES: u64 = 4096;
/// Prepared statements kept per connection: more than there are.
const STATEMENTS_MAX: usize = 128;

/// How a file is opened.
#[derive(Debug, Clone)]
pub struct SqliteSettings {
    /// The file; made if it is not there. Not on a network file system.
    pub path: PathBuf,
    /// Transactions that may wait before [`Store::append`] answers [`StoreError::Behind`].
    pub queue_max: usize,
    /// From this length in bytes on, the WAL is moved into the file.
    pub wal_max: u64,
}

/// A [`Store`] in one SQLite file.
pub struct SqliteStore {
    id: StoreId,
    shared: Arc<Shared>,
    clock: Clock,
    questions: SyncSender<reader::Question>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop_checkpoints: Mutex<Option<SyncSender<()>>>,
    path: PathBuf,
}

impl SqliteStore {
    /// Opens the file, migrates it, and moves into it whatever an earlier process left in the
    /// WAL: after a failed sync its last frames may exist in the kernel's cache alone.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn open(settings: &SqliteSettings, clock: Clock) -> Result<Self, StoreError> {
        let path = &settings.path;
        let mut conn = connect(path)?;
        schema::migrate(&mut conn, clock.now())?;
        // Busy: another process is using the file, and has done this itself.
        checkpoint::truncate(&conn).map_err(|error| classify_open(&error))?;
        let id = schema::store_id(&conn).map_err(|error| classify_open(&error))?;
        let shared = Arc::new(Shared::new(settings.queue_max));
        let boot = boot_id()?;
        let wal = open_wal(&conn)?;
        let (commits, committed) = std::sync::mpsc::sync_channel(sync::AHEAD_MAX);
        let (synced, answers) = tokio::sync::mpsc::channel(sync::SYNCED_MAX);
        tokio::spawn(sync::answer(answers));
        let syncer = sync::Syncer {
            wal,
            shared: Arc::clone(&shared),
            commits: committed,
            synced,
        };
        let writer = writer::Writer {
            conn,
            commits,
            shared: Arc::clone(&shared),
            clock: clock.clone(),
            boot,
            store: id,
            known: known::KnownAliases::default(),
        };
        let (questions, asked) = std::sync::mpsc::sync_channel(reader::QUEUE_MAX);
        let reader_conn = connect(path)?;
        read_only(&reader_conn)?;
        let reader = reader::Reader {
            conn: reader_conn,
            shared: Arc::clone(&shared),
            questions: asked,
        };
        let (stop_checkpoints, stop) = std::sync::mpsc::sync_channel(1);
        let checkpoint_conn = connect(path)?;
        checkpoint_conn
            .busy_handler(Some(checkpoint::wait_briefly))
            .map_err(|error| classify_open(&error))?;
        let checkpointer = checkpoint::Checkpointer {
            conn: checkpoint_conn,
            shared: Arc::clone(&shared),
            pages_max: u32::try_from(settings.wal_max / PAGE_BYTES).unwrap_or(u32::MAX),
            stop,
        };
        let threads = vec![
            spawn("hapax-writer", move || writer.run_to_the_end())?,
            spawn("hapax-sync", move || syncer.run())?,
            spawn("hapax-reader", move || reader.run())?,
            spawn("hapax-checkpoint", move || checkpointer.run())?,
        ];
        Ok(Self {
            id,
            shared,
            clock,
            questions,
            threads: Mutex::new(threads),
            stop_checkpoints: Mutex::new(Some(stop_checkpoints)),
            path: settings.path.clone(),
        })
    }

    /// Migrates the file and closes it again; answers its schema version.
    pub fn migrate(path: &Path, clock: &Clock) -> Result<u32, StoreError> {
        let mut conn = connect(path)?;
        schema::migrate(&mut conn, clock.now())?;
        Ok(schema::VERSION)
    }

    async fn write<R: Send + 'static>(
        &self,
        urgency: Urgency,
        body: impl FnMut(&tx::Tx<'_>) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.shared.write(urgency, body).await
    }

    async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        reader::ask(&self.questions, read).await
    }
}

/// A new file is its owner's alone; SQLite gives its log the same mode.
fn make_private(path: &Path) {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    // An error: it is there already, or SQLite says better why it can't be.
    let _ = options.open(path);
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    make_private(path);
    let open = || -> rusqlite::Result<Connection> {
        let conn = Connection::open(path)?;
        conn.busy_handler(Some(wait_for_lock))?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        // Commits are synced by a thread of ours; SQLite syncs around checkpoints by itself.
        conn.pragma_update(None, "synchronous", "NORMAL")?;
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        // 16 MB of pages in memory; each commit that splits a page walks the whole table of them.
        conn.pragma_update(None, "cache_size", -16_384)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        writer::watch_wal(&conn);
        Ok(conn)
    };
    open().map_err(|error| match classify_open(&error) {
        StoreError::Open(reason) => StoreError::Open(format!("{} ({})", reason, path.display())),
        other => other,
    })
}

/// The log beside the file, where SQLite has it: beside the target, if the path is a link.
fn open_wal(conn: &Connection) -> Result<File, StoreError> {
    let name = format!("{}-wal", conn.path().unwrap_or_default());
    File::open(&name).map_err(|error| StoreError::Open(format!("{name}: {error}")))
}

fn read_only(conn: &Connection) -> Result<(), StoreError> {
    conn.pragma_update(None, "query_only", true)
        .map_err(|error| classify_open(&error))
}

/// Waits for another process's transaction. SQLite's own handler sleeps up to a tenth of a
/// second, in which a busy neighbour would get the lock again and again.
fn wait_for_lock(looks: i32) -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "SQLite calls this on a plain thread"
    )]
    std::thread::sleep(writer::BUSY_STEP);
    looks < writer::BUSY_STEPS
}

/// Differs after each boot; with another one, every lease is over.
fn boot_id() -> Result<String, StoreError> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .map_err(|error| StoreError::Open(format!("the kernel's boot id can't be read: {error}")))
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| StoreError::Open(format!("no thread for the store: {error}")))
}

#[async_trait]
impl Store for SqliteStore {
    fn id(&self) -> StoreId {
        self.id
    }

    fn turns_changed(&self) -> watch::Receiver<u64> {
        self.shared.turns.subscribe()
    }

    fn sends_changed(&self) -> watch::Receiver<u64> {
        self.shared.sends.subscribe()
    }

    fn sends_settled(&self) -> watch::Receiver<u64> {
        self.shared.settled.subscribe()
    }

    fn threads_changed(&self) -> watch::Receiver<u64> {
        self.shared.threads.subscribe()
    }

    fn relays_changed(&self) -> watch::Receiver<u64> {
        self.shared.relays.subscribe()
    }

    fn fatal(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.shared.fatal.subscribe()
    }

    async fn join(&self, ttl: Duration) -> Result<NodeId, StoreError> {
        self.write(Urgency::Lease, move |tx| node::join(tx, ttl))
            .await
    }

    async fn renew(&self, node: NodeId, ttl: Duration) -> Result<Renewal, StoreError> {
        let (renewal, nodes) = self
            .write(Urgency::Lease, move |tx| node::renew(tx, node, ttl))
            .await?;
        self.shared.others.store(nodes > 1, Ordering::Relaxed);
        Ok(renewal)
    }

    async fn leave(&self, node: NodeId) -> Result<(), StoreError> {
        self.write(Urgency::Lease, move |tx| node::leave(tx, node))
            .await
    }

    async fn reap(&self) -> Result<Vec<Reaped>, StoreError> {
        self.write(Urgency::Lease, node::reap).await
    }

    async fn append(&self, mut delivery: Arc<Delivery>) -> Result<Appended, StoreError> {
        if !guard::holds(Guard::UniqueKey) {
            delivery = Arc::new(delivery.with_fresh_keys());
        }
        self.write(Urgency::Ingress, move |tx| append::append(tx, &delivery))
            .await
    }

    fn answered(&self, answered: Answered) {
        self.shared.answered(answered);
    }

    async fn claim(&self, claim: ClaimRequest) -> Result<Claimed, StoreError> {
        self.write(Urgency::Stage, move |tx| turn::claim(tx, &claim))
            .await?
            .ok_or(StoreError::DeadNode(claim.node))
    }

    async fn free_unknown(&self, node: NodeId, keep: Keep) -> Result<Vec<Lease>, StoreError> {
        self.write(Urgency::Stage, move |tx| {
            turn::free_unknown(tx, node, &keep)
        })
        .await
    }

    async fn finish(&self, lease: Lease, finish: Finish) -> Result<Written, StoreError> {
        self.write(Urgency::Stage, move |tx| turn::finish(tx, lease, &finish))
            .await
    }

    async fn release(&self, lease: Lease, release: Release) -> Result<Written, StoreError> {
        self.write(Urgency::Stage, move |tx| turn::release(tx, lease, &release))
            .await
    }

    async fn send(&self, send: SendRequest) -> Result<Sends, StoreError> {
        let node = send.node;
        self.write(Urgency::Stage, move |tx| sending::send(tx, &send))
            .await?
            .ok_or(StoreError::DeadNode(node))
    }

    async fn doubt_unknown(
        &self,
        node: NodeId,
        keep: KeepSends,
    ) -> Result<Vec<OutgoingId>, StoreError> {
        self.write(Urgency::Stage, move |tx| {
            outbox::doubt_unknown(tx, node, &keep)
        })
        .await
    }

    async fn settle(&self, settle: Settle) -> Result<OutgoingState, StoreError> {
        let id = settle.id;
        self.write(Urgency::Stage, move |tx| outbox::settle(tx, &settle))
            .await?
            .ok_or_else(|| StoreError::Refused(format!("there is no {id}")))
    }

    async fn expire_unsure(
        &self,
        healthy: Duration,
        unsure_wait: Duration,
    ) -> Result<Vec<OutgoingId>, StoreError> {
        let wait_ms = i64::try_from(unsure_wait.as_millis()).unwrap_or(i64::MAX);
        let healthy_ms = i64::try_from(healthy.as_millis()).unwrap_or(i64::MAX);
        self.write(Urgency::Stage, move |tx| {
            outbox::expire_unsure(tx, healthy_ms, wait_ms)
        })
        .await
    }

    async fn stage(&self, stage: Stage) -> Result<Option<Staged>, StoreError> {
        self.write(Urgency::Stage, move |tx| bot_sends::stage(tx, &stage))
            .await
    }

    async fn fates(&self, ids: Vec<BotSendId>) -> Result<Vec<Fate>, StoreError> {
        self.read(move |conn| ids.iter().map(|id| bot_sends::fate(conn, *id)).collect())
            .await
    }

    async fn told(&self, id: BotSendId, told: Told) -> Result<(), StoreError> {
        self.write(Urgency::Stage, move |tx| bot_sends::told(tx, id, told))
            .await
    }

    async fn heard(&self, runs: Vec<TurnRun>) -> Result<Vec<Heard>, StoreError> {
        let now = self.clock.now();
        self.read(move |conn| bot_sends::heard(conn, &runs, now))
            .await
    }

    async fn link_dialled(
        &self,
        number: NumberId,
        dialled: String,
        wa_id: String,
    ) -> Result<(), StoreError> {
        self.write(Urgency::Stage, move |tx| {
            bot_sends::link_dialled(tx, &number, &dialled, &wa_id)
        })
        .await
    }

    async fn relay(&self, relay: RelayRequest) -> Result<Vec<Relaying>, StoreError> {
        let node = relay.node;
        self.write(Urgency::Stage, move |tx| relays::take(tx, &relay))
            .await?
            .ok_or(StoreError::DeadNode(node))
    }

    async fn relayed(&self, node: NodeId, key: EventKey, end: RelayEnd) -> Result<(), StoreError> {
        self.write(Urgency::Stage, move |tx| relays::end(tx, node, key, end))
            .await
    }

    async fn claim_thread(
        &self,
        claim: ThreadClaim,
    ) -> Result<Option<(ConversationId, Access)>, StoreError> {
        self.write(Urgency::Stage, move |tx| threads::claim(tx, &claim))
            .await
    }

    async fn complete_thread(
        &self,
        whose: Whose,
        version: i64,
        thread: ThreadId,
    ) -> Result<Option<(ConversationId, Completion)>, StoreError> {
        self.write(Urgency::Stage, move |tx| {
            threads::complete(tx, &whose, version, &thread)
        })
        .await
    }

    async fn forget_thread(
        &self,
        whose: Whose,
    ) -> Result<Option<(ConversationId, i64)>, StoreError> {
        self.write(Urgency::Stage, move |tx| threads::forget(tx, &whose))
            .await
    }

    async fn prune(&self, prune: PruneRequest) -> Result<Option<Pruned>, StoreError> {
        self.write(Urgency::Stage, move |tx| prune::prune(tx, &prune))
            .await?
            .ok_or(StoreError::DeadNode(prune.node))
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let now = self.clock.now();
        self.read(move |conn| read::backlog(conn, now)).await
    }

    async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        self.read(move |conn| read::dead_letters(conn, limit)).await
    }

    async fn outgoings(
        &self,
        after: Option<OutgoingId>,
        limit: u32,
    ) -> Result<Vec<OutgoingRecord>, StoreError> {
        self.read(move |conn| read::outgoings(conn, after, limit))
            .await
    }

    async fn arrivals(&self, key: EventKey) -> Result<Option<Arrivals>, StoreError> {
        self.read(move |conn| read::arrivals(conn, key)).await
    }

    async fn thread(&self, whose: Whose) -> Result<Option<ThreadRecord>, StoreError> {
        // Asked of the writer, who knows whom an alias names; it writes nothing.
        self.write(Urgency::Stage, move |tx| threads::thread(tx, &whose))
            .await
    }

    async fn orphans(&self, limit: u32) -> Result<Vec<OrphanRecord>, StoreError> {
        let now = self.clock.now();
        self.read(move |conn| read::orphans(conn, now, limit)).await
    }

    fn commits(&self) -> Commits {
        Commits {
            commits: self.shared.commits.load(Ordering::Relaxed),
            writes: self.shared.writes.load(Ordering::Relaxed),
        }
    }

    async fn close(&self) {
        self.shared.close();
        self.stop_checkpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // The reader ends when the last handle to the store is dropped.
        for thread in threads
            .into_iter()
            .filter(|thread| thread.thread().name() != Some("hapax-reader"))
        {
            // A thread that panicked has said so; nothing is left to do here.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        if !self.shared.has_failed() {
            // Leaves a file without a WAL; if it fails, the next start does it.
            let path = self.path.clone();
            let _ = tokio::task::spawn_blocking(move || {
                connect(&path).map(|conn| checkpoint::truncate(&conn))
            })
            .await;
        }
    }
}

#[cfg(test)]
pub(in crate::store) mod tests {
    use super::super::SharedStore;
    use super::super::conformance::conformance;
    use super::*;

    pub(in crate::store) async fn open(clock: Clock) -> (SharedStore, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = SqliteSettings {
            path: folder.path().join("hapax.db"),
            queue_max: 4096,
            wal_max: 1 << 20,
        };
        let store = SqliteStore::open(&settings, clock).expect("a new file opens");
        (Arc::new(store), folder)
    }

    /// What one process remembers of aliases is out of date when another has moved them.
    #[tokio::test]
    async fn an_alias_that_another_process_moved_is_looked_up_again() {
        use super::super::conformance::fixture::{self, both, message, phone};
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = SqliteSettings {
            path: folder.path().join("hapax.db"),
            queue_max: 4096,
            wal_max: 1 << 20,
        };
        let open = |clock: Clock| {
            let store = SqliteStore::open(&settings, clock).expect("the file opens");
            async move { (Arc::new(store) as SharedStore, ()) }
        };
        let (one, two) = (fixture::with(open).await, fixture::with(open).await);
        let place = |appended: super::super::AppendedEvent| appended.place.expect("placed").0;
        let old = place(one.append_one(message(both("4915", "US.1"), "a")).await);
        let new = place(two.append_one(message(both("4915", "US.2"), "b")).await);
        assert_ne!(old, new, "the number was given to somebody else");
        let again = place(one.append_one(message(phone("4915"), "c")).await);
        assert_eq!(again, new, "the first process has not kept the old owner");
    }

    #[tokio::test]
    async fn a_time_of_day_that_is_set_moves_the_healthy_clock_by_no_more_than_is_said() {
        use super::super::conformance::fixture;
        use super::super::{SendResult, SharedStore};
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = SqliteSettings {
            path: folder.path().join("hapax.db"),
            queue_max: 4096,
            wal_max: 1 << 20,
        };
        let open = |clock: Clock| {
            let store = SqliteStore::open(&settings, clock).expect("the file opens");
            async move { (Arc::new(store) as SharedStore, ()) }
        };
        let f = fixture::with(open).await;
        f.answered_turn("1", "a", &["one"]).await;
        let first = f.send_one().await;
        let reason = "timed out".to_owned();
        f.settle(&first, SendResult::Unsure { reason }).await;
        let (second, wait) = (Duration::from_secs(1), Duration::from_secs(3));
        let look = async || f.store.expire_unsure(second, wait).await.expect("answered");
        let beside = connect(&settings.path).expect("the file opens");
        for set in [3_600_000, -3_600_000] {
            let set = format!("UPDATE ledger SET healthy_at = healthy_at + {set}");
            beside.execute_batch(&set).expect("moved");
            assert!(look().await.is_empty(), "no more than one second counts");
        }
        f.wait(1);
        assert!(look().await.is_empty(), "two seconds count");
        f.wait(1);
        assert_eq!(look().await, [first.id]);
    }

    conformance!(crate::store::sqlite::tests::open);
}
