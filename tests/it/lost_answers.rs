//! A commit of PostgreSQL whose answer does not come back, at each step of a message's way: the
//! step is done once, whoever does it again. Every test makes the moment itself, with a commit
//! that waits for a lock of the test's.

use std::net::SocketAddr;

use bytes::Bytes;
use hapax::clock::Clock;
use hapax::simulator::person::Person;
use hapax::simulator::wire::Wire;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::load::{number, on_database, until_number};
use crate::provided::connect;
use crate::scene::{person, text};
use crate::talk::{LOOK, received};
use crate::world::{LIMIT, Node, World};

/// A node whose database is behind a wire that can be cut.
struct Scene {
    world: World,
    cluster: Cluster,
    wire: Wire,
    admin: Client,
    node: Node,
    ann: Person,
}

/// A step of a message's way: the change by which its transaction is known, and a question that
/// is answered by 1 once that is done.
struct Step {
    change: &'static str,
    when: &'static str,
    done: &'static str,
}

impl Scene {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(settings: &[(&str, &str)]) -> Self {
        let cluster = Cluster::start(&[]).await;
        let target: SocketAddr = ([127, 0, 0, 1], cluster.port()).into();
        let wire = Wire::start(target, Clock::system()).await.expect("a port");
        let url = format!("postgres://hapax@127.0.0.1:{}/hapax", wire.port());
        let world = World::new();
        let mut all = on_database(&url);
        // Here commits hang on purpose.
        all.push(("HAPAX_STORE_STATEMENT_TIMEOUT", "60s"));
        all.push(("HAPAX_STORE_LOCK_TIMEOUT", "60s"));
        all.push(("HAPAX_STORE_WAIT_MAX", "60s"));
        all.push(("HAPAX_NODE_LEASE_TTL", "60s"));
        all.extend(settings);
        let node = world.node(&all).await;
        let admin = connect(&cluster.admin_url()).await.expect("a connection");
        Self {
            world,
            cluster,
            wire,
            admin,
            node,
            ann: person(1),
        }
    }

    async fn synchronous(&self, names: &str) {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        self.cluster.execute(&set).await;
        self.cluster.execute("SELECT pg_reload_conf()").await;
        let set =
            format!("SELECT (current_setting('synchronous_standby_names') = '{names}')::int::int8");
        until_number(&self.world, &self.admin, &set, 1).await;
    }

    async fn one_waits(&self, question: &str) {
        let waits = async {
            while number(&self.admin, question).await == 0 {
                self.world.clock.sleep(LOOK).await;
            }
        };
        let waits = self.world.clock.timeout(LIMIT, waits).await;
        waits.expect("a commit waits");
    }

    /// From now on a commit with this step in it waits.
    async fn commits_wait(&self, step: &Step) {
        let Step { change, when, .. } = step;
        let trap = format!(
            "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER waits AFTER {change} DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION public.wait()"
        );
        self.cluster.execute(&trap).await;
        number(&self.admin, "SELECT 1::int8 FROM pg_advisory_lock(1)").await;
    }

    /// Lets the commit that waits be done, and its answer be lost.
    async fn lose_the_answer(&self, step: &Step) {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'";
        self.one_waits(waits).await;
        self.wire.hold();
        number(&self.admin, "SELECT pg_advisory_unlock(1)::int::int8").await;
        until_number(&self.world, &self.admin, step.done, 1).await;
        self.wire.cut();
        self.wire.pass();
    }

    fn body(&self, said: &str) -> Bytes {
        text(&self.world, &self.ann, said)
    }

    /// Posts once, while something else happens.
    fn post(&self, body: &Bytes) -> JoinHandle<Option<u16>> {
        let (meta, body) = (self.world.meta(&self.node), body.clone());
        tokio::spawn(async move { meta.post(body).await })
    }

    /// Everything was handled once, and this is what Ann got.
    async fn ends_with(mut self, replies: &[&str]) {
        self.world.settle(&self.node).await;
        assert_eq!(received(&self.world, &self.ann), replies);
        let turns = "SELECT count(*) FROM hapax.turn WHERE outcome = 1";
        assert_eq!(number(&self.admin, turns).await, 1);
        assert_eq!(self.node.figures().await.dead_letters(), 0);
        assert_eq!(self.node.stop().await.code(), Some(0));
    }
}

const MESSAGES: &str = "SELECT count(*) FROM hapax.message";

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_whose_commit_was_not_heard_of_is_answered_503_and_is_a_duplicate_then() {
    let scene = Scene::start().await;
    let step = Step {
        change: "INSERT ON hapax.message",
        when: "true",
        done: MESSAGES,
    };
    scene.commits_wait(&step).await;
    let body = scene.body("hello");
    let post = scene.post(&body);
    scene.lose_the_answer(&step).await;
    assert_eq!(post.await.expect("no panic"), Some(503));
    assert_eq!(scene.post(&body).await.expect("no panic"), Some(200));
    assert_eq!(scene.node.figures().await.duplicates(), 1);
    scene.ends_with(&["hello"]).await;
}

/// The wait for a synchronous standby is cancelled: the commit stands here, but perhaps nowhere
/// else.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_no_standby_has_is_not_answered_200() {
    let scene = Scene::start().await;
    let body = scene.body("hello");
    scene.synchronous("nobody").await;
    let post = scene.post(&body);
    let (waits, cancel) = (waiting("a.pid"), waiting("pg_cancel_backend(a.pid)"));
    scene.one_waits(&waits).await;
    assert_eq!(number(&scene.admin, &cancel).await, 1);
    assert_eq!(post.await.expect("no panic"), Some(503));
    assert_eq!(
        number(&scene.admin, MESSAGES).await,
        1,
        "it stands all the same"
    );
    scene.synchronous("").await;
    assert_eq!(scene.post(&body).await.expect("no panic"), Some(200));
    assert_eq!(scene.node.figures().await.duplicates(), 1);
    scene.ends_with(&["hello"]).await;
}

/// Nobody cancels the wait; but who waits for the answer does not do so for ever, and then the
/// server is told to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_no_standby_takes_leaves_nothing_behind_on_the_server() {
    let briefly = [
        ("HAPAX_STORE_STATEMENT_TIMEOUT", "1s"),
        ("HAPAX_STORE_LOCK_TIMEOUT", "1s"),
    ];
    let scene = Scene::start_with(&briefly).await;
    scene.synchronous("nobody").await;
    let body = scene.body("hello");
    let post = scene.post(&body);
    scene.one_waits(&waiting("a.pid")).await;
    assert_eq!(post.await.expect("no panic"), Some(503));
    until_number(&scene.world, &scene.admin, &waiting("a.pid"), 0).await;
    scene.synchronous("").await;
    assert_eq!(scene.post(&body).await.expect("no panic"), Some(200));
    scene.ends_with(&["hello"]).await;
}

/// Of those who wait for a standby after they have written a message.
fn waiting(what: &str) -> String {
    format!(
        "SELECT count({what}) FROM pg_stat_activity a
          WHERE a.wait_event = 'SyncRep' AND EXISTS (
                SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.mode = 'RowExclusiveLock'
                   AND l.relation = 'hapax.message'::regclass)"
    )
}

/// A step behind the 200, whose answer is lost.
async fn a_step_that_was_not_heard_of(step: Step) {
    let scene = Scene::start().await;
    scene.commits_wait(&step).await;
    let taken = scene.post(&scene.body("hello")).await;
    assert_eq!(taken.expect("no panic"), Some(200));
    scene.lose_the_answer(&step).await;
    scene.ends_with(&["hello"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_commit_was_not_heard_of_is_given_back() {
    a_step_that_was_not_heard_of(Step {
        change: "UPDATE ON hapax.conversation",
        when: "NEW.owner IS NOT NULL",
        done: "SELECT count(*) FROM hapax.conversation WHERE owner IS NOT NULL",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_of_a_turn_whose_commit_was_not_heard_of_is_written_once() {
    a_step_that_was_not_heard_of(Step {
        change: "INSERT ON hapax.turn",
        when: "true",
        done: "SELECT count(*) FROM hapax.turn",
    })
    .await;
}

/// Nobody was called under that mark, and the node knows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_whose_commit_was_not_heard_of_holds_up_no_reply() {
    a_step_that_was_not_heard_of(Step {
        change: "UPDATE ON hapax.outbox",
        when: "NEW.state = 1",
        done: "SELECT count(*) FROM hapax.outbox WHERE state = 1",
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_whose_commit_was_not_heard_of_is_written_once() {
    a_step_that_was_not_heard_of(Step {
        change: "UPDATE ON hapax.outgoing",
        when: "NEW.wamid IS NOT NULL",
        done: "SELECT count(*) FROM hapax.outgoing WHERE wamid IS NOT NULL",
    })
    .await;
}
