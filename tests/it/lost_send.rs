//! A send of which the process has lost sight holds back its conversation no longer than one of
//! which Meta has lost the answer: the next reply comes, from the same process, once a receipt
//! or the wait has settled it. A store that loses answers stands in for a connection that is cut.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hapax::async_trait;
use hapax::handler::Echo;
use hapax::model::bot_send::Told;
use hapax::model::thread::{Access, Completion};
use hapax::model::{
    Backoff, BotSendId, ConversationId, EventKey, Lease, NodeId, NumberId, OutgoingId,
    OutgoingState, Secret, StoreId, ThreadId,
};
use hapax::sender::{SendPolicy, Sender, SenderParts, SenderSettings};
use hapax::simulator::Gate;
use hapax::simulator::payload::{Element, Side, StatusOf, single, wamid};
use hapax::simulator::person::Person;
use hapax::simulator::script::Behaviour;
use hapax::simulator::seed::Draw;
use hapax::store::sqlite::{SqliteSettings, SqliteStore};
use hapax::store::{
    Answered, Appended, Arrivals, Backlog, ClaimRequest, Claimed, Commits, DeadLetter, Delivery,
    Fate, Finish, Heard, Keep, KeepSends, Membership, OrphanRecord, OutgoingRecord, Policy,
    PruneRequest, Pruned, Reaped, RelayEnd, RelayRequest, Relaying, Release, Renewal, SendRequest,
    Sends, Settle, SharedStore, Stage, Staged, Store, StoreError, ThreadClaim, ThreadRecord,
    Timing, TurnRun, Whose, Written,
};
use hapax::telemetry::Metrics;
use hapax::whatsapp::{Graph, GraphSettings, decode};
use hapax::worker::{RetryPolicy, Worker, WorkerParts, WorkerSettings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::talk::{LOOK, received};
use crate::world::{LIMIT, NUMBER, TOKEN, World};

/// A store that loses what it is told to lose, and is a real one otherwise.
struct Faulty {
    store: SqliteStore,
    /// The answer of the next send that has marked something is lost.
    loses_send: AtomicBool,
    /// The next settlement is refused, which is never tried again.
    refuses_settle: AtomicBool,
    lost: Mutex<Vec<OutgoingId>>,
    /// How often it was asked what is to be doubted.
    looks: AtomicU32,
}

#[async_trait]
impl Store for Faulty {
    async fn send(&self, send: SendRequest) -> Result<Sends, StoreError> {
        let sends = self.store.send(send).await?;
        let marked = sends.outgoings.iter().map(|sending| sending.id);
        if sends.outgoings.is_empty() || !self.loses_send.swap(false, Ordering::SeqCst) {
            return Ok(sends);
        }
        self.lost.lock().expect("whole").extend(marked);
        Err(StoreError::Lost)
    }

    async fn settle(&self, settle: Settle) -> Result<OutgoingState, StoreError> {
        if self.refuses_settle.swap(false, Ordering::SeqCst) {
            self.lost.lock().expect("whole").push(settle.id);
            return Err(StoreError::Refused("as the test wants it".to_owned()));
        }
        self.store.settle(settle).await
    }

    fn id(&self) -> StoreId {
        self.store.id()
    }

    fn turns_changed(&self) -> watch::Receiver<u64> {
        self.store.turns_changed()
    }

    fn sends_changed(&self) -> watch::Receiver<u64> {
        self.store.sends_changed()
    }

    fn relays_changed(&self) -> watch::Receiver<u64> {
        self.store.relays_changed()
    }

    async fn relay(&self, relay: RelayRequest) -> Result<Vec<Relaying>, StoreError> {
        self.store.relay(relay).await
    }

    async fn relayed(&self, node: NodeId, key: EventKey, end: RelayEnd) -> Result<(), StoreError> {
        self.store.relayed(node, key, end).await
    }

    fn threads_changed(&self) -> watch::Receiver<u64> {
        self.store.threads_changed()
    }

    fn fatal(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.store.fatal()
    }

    async fn join(&self, ttl: Duration) -> Result<NodeId, StoreError> {
        self.store.join(ttl).await
    }

    async fn renew(&self, node: NodeId, ttl: Duration) -> Result<Renewal, StoreError> {
        self.store.renew(node, ttl).await
    }

    async fn leave(&self, node: NodeId) -> Result<(), StoreError> {
        self.store.leave(node).await
    }

    async fn reap(&self) -> Result<Vec<Reaped>, StoreError> {
        self.store.reap().await
    }

    async fn append(&self, delivery: Arc<Delivery>) -> Result<Appended, StoreError> {
        self.store.append(delivery).await
    }

    fn answered(&self, answered: Answered) {
        self.store.answered(answered);
    }

    async fn claim(&self, claim: ClaimRequest) -> Result<Claimed, StoreError> {
        self.store.claim(claim).await
    }

    async fn free_unknown(&self, node: NodeId, keep: Keep) -> Result<Vec<Lease>, StoreError> {
        self.store.free_unknown(node, keep).await
    }

    async fn finish(&self, lease: Lease, finish: Finish) -> Result<Written, StoreError> {
        self.store.finish(lease, finish).await
    }

    async fn release(&self, lease: Lease, release: Release) -> Result<Written, StoreError> {
        self.store.release(lease, release).await
    }

    async fn doubt_unknown(
        &self,
        node: NodeId,
        keep: KeepSends,
    ) -> Result<Vec<OutgoingId>, StoreError> {
        let doubted = self.store.doubt_unknown(node, keep).await;
        self.looks.fetch_add(1, Ordering::SeqCst);
        doubted
    }

    async fn expire_unsure(
        &self,
        healthy: Duration,
        unsure_wait: Duration,
    ) -> Result<Vec<OutgoingId>, StoreError> {
        self.store.expire_unsure(healthy, unsure_wait).await
    }

    fn sends_settled(&self) -> watch::Receiver<u64> {
        self.store.sends_settled()
    }

    async fn stage(&self, stage: Stage) -> Result<Option<Staged>, StoreError> {
        self.store.stage(stage).await
    }

    async fn fates(&self, ids: Vec<BotSendId>) -> Result<Vec<Fate>, StoreError> {
        self.store.fates(ids).await
    }

    async fn told(&self, id: BotSendId, told: Told) -> Result<(), StoreError> {
        self.store.told(id, told).await
    }

    async fn heard(&self, runs: Vec<TurnRun>) -> Result<Vec<Heard>, StoreError> {
        self.store.heard(runs).await
    }

    async fn link_dialled(
        &self,
        number: NumberId,
        dialled: String,
        wa_id: String,
    ) -> Result<(), StoreError> {
        self.store.link_dialled(number, dialled, wa_id).await
    }

    async fn claim_thread(
        &self,
        claim: ThreadClaim,
    ) -> Result<Option<(ConversationId, Access)>, StoreError> {
        self.store.claim_thread(claim).await
    }

    async fn complete_thread(
        &self,
        whose: Whose,
        version: i64,
        thread: ThreadId,
    ) -> Result<Option<(ConversationId, Completion)>, StoreError> {
        self.store.complete_thread(whose, version, thread).await
    }

    async fn forget_thread(
        &self,
        whose: Whose,
    ) -> Result<Option<(ConversationId, i64)>, StoreError> {
        self.store.forget_thread(whose).await
    }

    async fn thread(&self, whose: Whose) -> Result<Option<ThreadRecord>, StoreError> {
        self.store.thread(whose).await
    }

    async fn orphans(&self, limit: u32) -> Result<Vec<OrphanRecord>, StoreError> {
        self.store.orphans(limit).await
    }

    async fn prune(&self, prune: PruneRequest) -> Result<Option<Pruned>, StoreError> {
        self.store.prune(prune).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.store.backlog().await
    }

    async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        self.store.dead_letters(limit).await
    }

    async fn outgoings(
        &self,
        after: Option<OutgoingId>,
        limit: u32,
    ) -> Result<Vec<OutgoingRecord>, StoreError> {
        self.store.outgoings(after, limit).await
    }

    async fn arrivals(&self, key: EventKey) -> Result<Option<Arrivals>, StoreError> {
        self.store.arrivals(key).await
    }

    fn commits(&self) -> Commits {
        self.store.commits()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

/// Worker and sender of one process, on a faulty store; they end with the test.
struct Process {
    world: World,
    store: Arc<Faulty>,
    membership: Arc<Membership>,
    stop: CancellationToken,
    draw: Mutex<Draw>,
}

const SOON: Duration = Duration::from_millis(50);
const NEVER: Duration = Duration::from_secs(3600);

impl Process {
    async fn start(unsure_wait: Duration) -> Self {
        let world = World::new();
        let settings = SqliteSettings {
            path: world.store(),
            queue_max: 64,
            wal_max: 1 << 20,
        };
        let store = SqliteStore::open(&settings, world.clock.clone()).expect("a new file opens");
        let store = Arc::new(Faulty {
            store,
            loses_send: AtomicBool::new(false),
            refuses_settle: AtomicBool::new(false),
            lost: Mutex::default(),
            looks: AtomicU32::new(0),
        });
        let timing = Timing {
            lease_ttl: NEVER,
            renew_every: NEVER,
        };
        let shared: SharedStore = Arc::<Faulty>::clone(&store);
        let joined = Membership::join(shared, world.clock.clone(), timing).await;
        let process = Self {
            world,
            store,
            membership: joined.expect("joined"),
            stop: CancellationToken::new(),
            draw: Mutex::new(Draw::new(1)),
        };
        process.start_worker();
        process.start_sender(unsure_wait);
        process
    }

    fn graph(&self) -> Graph {
        let settings = GraphSettings {
            base_url: self.world.graph.url(),
            access_token: Secret::new(TOKEN),
            ..GraphSettings::default()
        };
        Graph::new(&settings, self.world.clock.clone()).expect("a client")
    }

    fn start_worker(&self) {
        let parts = WorkerParts {
            store: Arc::<Faulty>::clone(&self.store),
            membership: Arc::clone(&self.membership),
            handler: Arc::new(Echo),
            graph: self.graph(),
            clock: self.world.clock.clone(),
            metrics: Metrics::new(),
        };
        let backoff = Backoff {
            first: SOON,
            factor: 1,
            max: SOON,
        };
        let settings = WorkerSettings {
            concurrency: 2,
            policy: Policy::Queue,
            deadline: LIMIT,
            retry: RetryPolicy {
                attempts_max: 4,
                backoff,
                unavailable_max: NEVER,
                unavailable_wait_max: SOON,
            },
            reply: None,
            mark_read: false,
            tend_every: SOON,
        };
        let worker = Worker::new(parts, settings);
        tokio::spawn(worker.run(self.stop.clone(), self.stop.clone()));
    }

    fn start_sender(&self, unsure_wait: Duration) {
        let parts = SenderParts {
            store: Arc::<Faulty>::clone(&self.store),
            membership: Arc::clone(&self.membership),
            graph: self.graph(),
            clock: self.world.clock.clone(),
            metrics: Metrics::new(),
            receiving: Arc::new(AtomicBool::new(true)),
        };
        let settings = SenderSettings {
            concurrency: 2,
            per_second: 1000,
            policy: SendPolicy {
                retry_max: NEVER,
                backoff_first: SOON,
                pause: SOON,
            },
            unsure_wait,
            tend_every: SOON,
        };
        let sender = Sender::new(parts, settings);
        tokio::spawn(Arc::clone(&sender).run(self.stop.clone()));
        tokio::spawn(sender.tend(self.stop.clone()));
    }

    async fn append(&self, element: &Element) {
        let delivery = Delivery {
            id: self.membership.next_delivery(),
            at: self.world.clock.now(),
            events: decode(&single(element)),
            failed_before: Vec::new(),
        };
        let appended = self.store.append(Arc::new(delivery)).await;
        appended.expect("it is appended");
    }

    /// The person says something, which is the reply as well.
    async fn say(&self, text: &str) {
        let id = wamid(&ann(), Side::Person, &mut self.draw.lock().expect("whole"));
        let at = self.world.clock.now();
        self.append(&Element::text(NUMBER, &ann(), &id, at, text))
            .await;
    }

    async fn until(&self, why: &str, wanted: impl AsyncFn() -> bool) {
        let reached = async {
            while !wanted().await {
                self.world.clock.sleep(LOOK).await;
            }
        };
        let reached = self.world.clock.timeout(LIMIT, reached).await;
        assert!(reached.is_ok(), "never: {why}");
    }

    async fn until_unsure(&self) {
        let unsure = async || self.store.backlog().await.expect("read").outgoing_unsure == 1;
        self.until("it is unsure", unsure).await;
    }

    async fn until_settled(&self) {
        let settled = async || {
            let backlog = self.store.backlog().await.expect("read");
            (backlog.messages_pending, backlog.outgoing_open) == (0, 0)
        };
        self.until("nothing is open", settled).await;
    }

    fn lost(&self) -> Vec<OutgoingId> {
        self.store.lost.lock().expect("whole").clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn ann() -> Person {
    Person::by_phone("15550001")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_whose_answer_was_lost_is_made_again_and_the_next_reply_follows() {
    let process = Process::start(NEVER).await;
    process.store.loses_send.store(true, Ordering::SeqCst);
    process.say("one").await;
    let is_lost = async || !process.lost().is_empty();
    process.until("the answer is lost", is_lost).await;
    process.say("two").await;
    process.until_settled().await;
    assert_eq!(received(&process.world, &ann()), ["one", "two"]);
    assert_eq!(process.world.graph.sent().len(), 2, "nothing is sent twice");
    assert_eq!(process.store.dead_letters(10).await, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_settlement_that_was_given_up_the_next_reply_comes_with_the_receipt() {
    let process = Process::start(NEVER).await;
    process.store.refuses_settle.store(true, Ordering::SeqCst);
    process.say("one").await;
    process.until_unsure().await;
    process.say("two").await;
    let answered = async || {
        process
            .store
            .backlog()
            .await
            .expect("read")
            .messages_pending
            == 0
    };
    process.until("the turn is over", answered).await;
    assert_eq!(received(&process.world, &ann()), ["one"], "two waits");

    let sent = process.world.graph.sent().remove(0);
    let id = sent.wamid.expect("it was accepted");
    let of = StatusOf {
        wamid: &id,
        person: &ann(),
        status: "sent",
        code: None,
        tag: sent.tag.as_deref(),
        participant: None,
    };
    let receipt = Element::status(NUMBER, &of, process.world.clock.now());
    process.append(&receipt).await;
    process.until_settled().await;
    assert_eq!(received(&process.world, &ann()), ["one", "two"]);
    assert_eq!(process.world.graph.sent().len(), 2, "nothing is sent twice");
    assert_eq!(process.store.dead_letters(10).await, Ok(vec![]));
    assert_eq!(process.lost().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_long_is_not_doubted() {
    let process = Process::start(NEVER).await;
    let gate = Gate::closed();
    process.world.graph.next(Behaviour::Hold(gate.clone()));
    process.say("one").await;
    let called = process
        .world
        .graph
        .wait_until(|sent| sent.len() == 1, LIMIT);
    called.await.expect("Meta is called");
    let looks = || process.store.looks.load(Ordering::SeqCst);
    let before = looks();
    let looked = async || looks() >= before + 3;
    process.until("it is looked at", looked).await;
    let backlog = process.store.backlog().await.expect("read");
    assert_eq!((backlog.outgoing_open, backlog.outgoing_unsure), (1, 0));
    gate.release();
    process.until_settled().await;
    assert_eq!(received(&process.world, &ann()), ["one"]);
}
