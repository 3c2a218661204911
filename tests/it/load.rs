//! People who write without a pause while something happens to the nodes' database, and the
//! judgement afterwards: everything that was answered 200 is there once, answered once, in order.

use std::collections::HashSet;
use std::time::Duration;

use hapax::clock::Clock;
use hapax::model::{OutgoingId, Tag};
use hapax::simulator::meta::Meta;
use hapax::simulator::payload::{Element, Side, single, wamid};
use hapax::simulator::person::Person;
use hapax::simulator::record::Sent;
use hapax::simulator::seed::Draw;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::provided::connect;
use crate::scene::person;
use crate::talk::{LOOK, raw, received, reporting};
use crate::world::{LIMIT, NUMBER, Node, World};

/// Meta's wait before a delivery comes again, scaled down.
const AGAIN: Duration = Duration::from_millis(100);

/// Settings of a node on this database. What can't be done in a second is given up, and a lease
/// outlives a statement that hangs; a send without a receipt is a dead letter soon.
pub(crate) fn on_database(url: &str) -> Vec<(&str, &str)> {
    vec![
        ("HAPAX_STORE", url),
        ("HAPAX_STORE_CONNECT_TIMEOUT", "1s"),
        ("HAPAX_STORE_STATEMENT_TIMEOUT", "1s"),
        ("HAPAX_STORE_LOCK_TIMEOUT", "500ms"),
        ("HAPAX_STORE_WAIT_MAX", "1s"),
        ("HAPAX_NODE_LEASE_TTL", "3s"),
        ("HAPAX_NODE_RENEW_EVERY", "500ms"),
        ("HAPAX_SEND_UNSURE_WAIT", "3s"),
        ("HAPAX_LOG", "warn"),
    ]
}

/// What one node has answered so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answers {
    /// 200.
    pub(crate) taken: usize,
    /// 503.
    pub(crate) refused: usize,
    /// Nothing within Meta's patience.
    pub(crate) none: usize,
}

/// What one person wrote, in order.
pub(crate) struct Written {
    pub(crate) person: Person,
    pub(crate) texts: Vec<String>,
}

/// People who write. Each writes the next message when the one before was answered 200; what is
/// not comes again, at the next node.
pub(crate) struct Load {
    stop: CancellationToken,
    writers: JoinSet<Written>,
    answers: watch::Sender<Vec<Answers>>,
    clock: Clock,
}

impl Load {
    /// So many people begin to write to these nodes.
    pub(crate) fn start(world: &World, nodes: &[&Node], people: usize) -> Self {
        let stop = CancellationToken::new();
        let answers = watch::Sender::new(vec![Answers::default(); nodes.len()]);
        let mut writers = JoinSet::new();
        for index in 0..people {
            let writer = Writer {
                person: person(index),
                metas: nodes.iter().map(|node| world.meta(node)).collect(),
                next: index,
                draw: Draw::new(index as u64),
                clock: world.clock.clone(),
                answers: answers.clone(),
            };
            writers.spawn(writer.run(stop.clone()));
        }
        Self {
            stop,
            writers,
            answers,
            clock: world.clock.clone(),
        }
    }

    /// What the nodes have answered so far.
    pub(crate) fn answers(&self) -> Vec<Answers> {
        self.answers.borrow().clone()
    }

    /// Waits until the nodes' answers are as wanted.
    pub(crate) async fn until(&self, why: &str, wanted: impl Fn(&[Answers]) -> bool) {
        let mut answers = self.answers.subscribe();
        let reached = answers.wait_for(|answers| wanted(answers));
        let reached = self.clock.timeout(LIMIT, reached).await;
        if reached.is_err() {
            panic!("{why}: never; {:?}", self.answers());
        }
    }

    /// Waits until all nodes together have taken so many more.
    pub(crate) async fn takes(&self, more: usize) {
        let taken = |answers: &[Answers]| answers.iter().map(|node| node.taken).sum::<usize>();
        let before = taken(&self.answers());
        let enough = |answers: &[Answers]| taken(answers) >= before + more;
        self.until("more is taken", enough).await;
    }

    /// Waits until every node has refused so many more.
    pub(crate) async fn refuses(&self, more: usize) {
        let before = self.answers();
        let enough = |answers: &[Answers]| {
            let pairs = answers.iter().zip(&before);
            pairs
                .into_iter()
                .all(|(now, before)| now.refused >= before.refused + more)
        };
        self.until("each node refuses", enough).await;
    }

    /// Lets everybody finish: what was written is answered 200, if it takes several attempts.
    pub(crate) async fn end(self) -> Vec<Written> {
        self.stop.cancel();
        let written = self.clock.timeout(LIMIT, self.writers.join_all()).await;
        written.expect("everything is taken in the end")
    }
}

struct Writer {
    person: Person,
    metas: Vec<Meta>,
    next: usize,
    draw: Draw,
    clock: Clock,
    answers: watch::Sender<Vec<Answers>>,
}

impl Writer {
    async fn run(mut self, stop: CancellationToken) -> Written {
        let mut texts = Vec::new();
        while !stop.is_cancelled() {
            let text = format!(
                "{} {}",
                self.person.phone.as_deref().unwrap_or("?"),
                texts.len()
            );
            let id = wamid(&self.person, Side::Person, &mut self.draw);
            let element = Element::text(NUMBER, &self.person, &id, self.clock.now(), &text);
            let body = single(&element);
            while !self.post(body.clone()).await {
                self.clock.sleep(AGAIN).await;
            }
            texts.push(text);
        }
        Written {
            person: self.person,
            texts,
        }
    }

    async fn post(&mut self, body: bytes::Bytes) -> bool {
        let at = self.next % self.metas.len();
        self.next += 1;
        let status = self.metas[at].post(body).await;
        self.answers.send_modify(|answers| match status {
            Some(200) => answers[at].taken += 1,
            Some(503) => answers[at].refused += 1,
            None => answers[at].none += 1,
            Some(other) => panic!("answered {other}"),
        });
        status == Some(200)
    }
}

/// Waits until `/readyz` of a node answers so.
pub(crate) async fn until_ready(world: &World, node: &Node, status: u16) {
    let ready = async {
        while ready(world, node).await != status {
            world.clock.sleep(LOOK).await;
        }
    };
    let ready = world.clock.timeout(LIMIT, ready).await;
    ready.unwrap_or_else(|_| panic!("/readyz never answers {status}:\n{}", node.log_text()));
}

/// What `/readyz` of a node answers.
pub(crate) async fn ready(world: &World, node: &Node) -> u16 {
    let ask = b"GET /readyz HTTP/1.1\r\nHost: hapax\r\nConnection: close\r\n\r\n";
    raw(&world.clock, node.public, &[ask]).await.status
}

/// One number out of the database.
pub(crate) async fn number(client: &Client, sql: &str) -> i64 {
    let row = client.query_one(sql, &[]).await;
    row.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        .get(0)
}

/// Waits until a question has the answer `wanted`.
pub(crate) async fn until_number(world: &World, client: &Client, sql: &str, wanted: i64) {
    let reached = async {
        while number(client, sql).await != wanted {
            world.clock.sleep(LOOK).await;
        }
    };
    let reached = world.clock.timeout(LIMIT, reached).await;
    assert!(reached.is_ok(), "never {wanted}: {sql}");
}

/// Waits until nothing is open, and tells the nodes meanwhile what came to Meta of the sends
/// whose answer was lost, as Meta does. Then everything that was written has been handled once:
/// its replies came once and in order. Answers how many never came, each a dead letter.
pub(crate) async fn judge(world: &World, node: &Node, url: &str, written: &[Written]) -> usize {
    let client = connect(url).await.expect("a connection");
    let _courier = reporting(world, node);
    let receipts = async {
        let mut told = HashSet::new();
        loop {
            tell_unsure(world, &client, &mut told).await;
            world.clock.sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = world.settle(node) => {}
        () = receipts => {}
    }
    let count: usize = written.iter().map(|written| written.texts.len()).sum();
    let count = i64::try_from(count).expect("few");
    let one_each = [
        "SELECT count(*) FROM hapax.message",
        "SELECT count(*) FROM hapax.turn WHERE outcome = 1",
        "SELECT count(*) FROM hapax.outgoing",
    ];
    for sql in one_each {
        assert_eq!(number(&client, sql).await, count, "{sql}");
    }
    let missing: usize = written.iter().map(|written| missing(world, written)).sum();
    let unsure = "SELECT count(*) FROM hapax.dead_letter WHERE closed_at IS NULL AND kind = 3";
    let all = "SELECT count(*) FROM hapax.dead_letter WHERE closed_at IS NULL";
    let letters = number(&client, all).await;
    assert_eq!(
        number(&client, unsure).await,
        letters,
        "only sends are in doubt"
    );
    assert_eq!(
        letters,
        i64::try_from(missing).expect("few"),
        "nothing is missing in silence"
    );
    missing
}

async fn tell_unsure(world: &World, client: &Client, told: &mut HashSet<i64>) {
    let sql = "SELECT outgoing FROM hapax.outbox WHERE state = 2";
    let rows = client.query(sql, &[]).await.expect("rows");
    let unsure: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    if unsure.is_subset(told) {
        return;
    }
    for sent in world.graph.accepted() {
        let Some(OutgoingId(id)) = outgoing(&sent) else {
            continue;
        };
        if unsure.contains(&id) && told.insert(id) {
            let wamid = sent.wamid.expect("it was accepted");
            assert!(world.graph.report(&wamid, "sent", None).await);
        }
    }
    // What never came to Meta has no receipt.
    told.extend(unsure);
}

fn outgoing(sent: &Sent) -> Option<OutgoingId> {
    Some(Tag::parse(sent.tag.as_ref()?)?.outgoing)
}

/// How many texts of one person have no reply. The others have one each, in order.
fn missing(world: &World, written: &Written) -> usize {
    let received = received(world, &written.person);
    let mut texts = written.texts.iter();
    for reply in &received {
        assert!(
            texts.any(|text| text == reply),
            "twice, or out of order: {reply}, in {received:?}"
        );
    }
    written.texts.len() - received.len()
}
