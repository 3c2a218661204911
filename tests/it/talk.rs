//! How a test says something to a node, and what it can ask afterwards: one person's replies,
//! the lines of one event, the rows of the ledger, raw answers on a socket.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use hapax::clock::Clock;
use hapax::model::EventKey;
use hapax::simulator::Receipts;
use hapax::simulator::courier::Courier;
use hapax::simulator::meta::{Meta, Plan};
use hapax::simulator::payload::{Element, Side, sign, single, wamid};
use hapax::simulator::person::Person;
use hapax::simulator::record::Sent;
use hapax::simulator::seed::Draw;
use hapax::whatsapp::decode;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::provided::{apart, connect};
use crate::schema::Schema;
use crate::world::{APP_SECRET, Figures, LIMIT, NUMBER, Node, World};

/// Between two looks of a bounded wait.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// People who write to one node. What they say is known by its text and its id.
pub(crate) struct Talk {
    pub(crate) meta: Meta,
    clock: Clock,
    draw: Mutex<Draw>,
}

impl Talk {
    /// With a node; `seed` makes the ids differ from those of another talk.
    pub(crate) fn with(world: &World, node: &Node, seed: u64) -> Self {
        Self {
            meta: world.meta(node),
            clock: world.clock.clone(),
            draw: Mutex::new(Draw::new(seed)),
        }
    }

    /// A delivery with one text, and the id of its message.
    pub(crate) fn text(&self, person: &Person, text: &str) -> (String, Bytes) {
        let id = wamid(person, Side::Person, &mut self.draw.lock().expect("whole"));
        let at = self.clock.now();
        let body = single(&Element::text(NUMBER, person, &id, at, text));
        (id, body)
    }

    /// Delivers a text once and waits for the 200.
    pub(crate) async fn say(&self, person: &Person, text: &str) -> EventKey {
        let (_, body) = self.text(person, text);
        self.deliver(&body).await
    }

    /// Delivers a body once and waits for the 200; answers the key of its first event.
    pub(crate) async fn deliver(&self, body: &Bytes) -> EventKey {
        let delivered = self.meta.deliver(body.clone(), &Plan::once()).await;
        assert_eq!(delivered.undelivered, 0, "it is answered 200");
        key_of(body)
    }
}

/// The key under which a delivery's first event is known.
pub(crate) fn key_of(body: &[u8]) -> EventKey {
    decode(body).first().expect("it holds an event").key
}

/// Lets the pretend Graph report statuses, as told one by one, to `node`.
pub(crate) fn reporting(world: &World, node: &Node) -> Courier {
    let courier = Courier::start(world.meta(node), Draw::new(1), world.clock.clone());
    world.graph.report_to(courier.clone(), Receipts::None);
    courier
}

/// What reached `person`, in order.
pub(crate) fn received(world: &World, person: &Person) -> Vec<String> {
    let accepted = world.graph.accepted();
    let to_person = |sent: &&Sent| person.aliases().any(|alias| alias == sent.recipient);
    let texts = accepted.iter().filter(to_person);
    texts.map(|sent| sent.text().to_owned()).collect()
}

/// The wamid under which Graph took the only message with this text.
pub(crate) fn wamid_of(world: &World, text: &str) -> String {
    let mut accepted = world.graph.accepted();
    accepted.retain(|sent| sent.text() == text);
    assert_eq!(accepted.len(), 1, "accepted exactly once");
    accepted.remove(0).wamid.expect("it was accepted")
}

/// Waits until the figures of `node` are as `wanted`.
pub(crate) async fn figures_until(
    world: &World,
    node: &Node,
    wanted: impl Fn(&Figures) -> bool,
) -> Figures {
    let reached = async {
        loop {
            let figures = node.figures().await;
            if wanted(&figures) {
                return figures;
            }
            world.clock.sleep(LOOK).await;
        }
    };
    match world.clock.timeout(LIMIT, reached).await {
        Ok(figures) => figures,
        Err(_) => panic!("never so:\n{}", node.figures().await.0),
    }
}

/// A field of a log line, as text; empty if it is not there.
pub(crate) fn field<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_default()
}

/// Whether a line is about this event.
pub(crate) fn is_of(line: &Value, key: EventKey) -> bool {
    field(line, "event.key") == key.to_string()
}

/// One number out of the ledger, read beside the running nodes.
pub(crate) fn stored(world: &World, sql: &str) -> i64 {
    match world.schema() {
        Some(schema) => in_schema(schema, sql),
        None => in_file(world, sql),
    }
}

fn in_file(world: &World, sql: &str) -> i64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(world.store(), flags).expect("the file opens");
    conn.busy_timeout(LIMIT).expect("a limit");
    conn.query_row(sql, [], |row| row.get(0))
        .expect("the question has an answer")
}

fn in_schema(schema: &Schema, sql: &str) -> i64 {
    apart(async {
        let client = connect(&schema.url()).await.expect("a connection");
        let sql = format!("SELECT ({sql})::int8");
        let asked = client.query_one(&sql, &[]);
        let row = Clock::system().timeout(LIMIT, asked).await;
        row.expect("in time")
            .expect("the question has an answer")
            .get(0)
    })
}

/// What came back on a socket.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The whole head, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("no answer of HTTP/1.1: {text:?}")),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }
}

/// Writes bytes as they are and reads the answer until the other side closes. The head must ask
/// for that with `Connection: close`, unless the request stays unfinished.
pub(crate) async fn raw(clock: &Clock, to: SocketAddr, parts: &[&[u8]]) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await.expect("it listens");
        for part in parts {
            stream.write_all(part).await.expect("it reads on");
        }
        let mut answer = Vec::new();
        // A reset after the answer takes nothing from it.
        let _ = stream.read_to_end(&mut answer).await;
        Answer::read(&answer)
    };
    clock.timeout(LIMIT, exchange).await.expect("an answer")
}

/// The head of a POST to the webhook; a signature of `None` is left out.
pub(crate) fn post_head(length: usize, signature: Option<&str>) -> String {
    let signature = signature.map(|value| format!("X-Hub-Signature-256: {value}\r\n"));
    format!(
        "POST /webhook HTTP/1.1\r\nHost: hapax\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n{}\r\n",
        signature.unwrap_or_default()
    )
}

/// Posts a body, rightly signed, and shows the whole answer.
pub(crate) async fn post_raw(clock: &Clock, to: SocketAddr, body: &[u8]) -> Answer {
    let head = post_head(body.len(), Some(&sign(APP_SECRET, body)));
    raw(clock, to, &[head.as_bytes(), body]).await
}
