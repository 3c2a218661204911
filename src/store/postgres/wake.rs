//! Wake-ups between processes: `LISTEN` and a `NOTIFY` that waits a moment for more, both on a
//! connection of their own. Never inside a transaction that writes: a `NOTIFY` holds a lock of
//! the whole database until its commit. Only hints: who waits looks again by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use super::address::Connector;
use super::connection::{Connection, Listener};
use crate::clock::Clock;

/// What may have become possible, for this process and for others.
pub(super) struct Wake {
    pub(super) turns: watch::Sender<u64>,
    pub(super) sends: watch::Sender<u64>,
    pub(super) settled: watch::Sender<u64>,
    pub(super) threads: watch::Sender<u64>,
    pub(super) relays: watch::Sender<u64>,
    /// Whether other nodes are there to be told.
    pub(super) others: AtomicBool,
    tells_turns: AtomicBool,
    tells_sends: AtomicBool,
    tells_settled: AtomicBool,
    tells_threads: AtomicBool,
    tells_relays: AtomicBool,
    something: Notify,
    /// Our own notices come back to us, too.
    backend: AtomicI32,
}

/// How long a notice waits for more of its kind.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// The wait before a lost connection is made anew.
const RECONNECT: Duration = Duration::from_secs(1);
const TURNS: &str = "turns";
const SENDS: &str = "sends";
const SETTLED: &str = "settled";
const THREADS: &str = "threads";
const RELAYS: &str = "relays";

/// What a transaction has made possible.
#[derive(Debug, Clone, Copy)]
pub(super) struct Woken {
    pub(super) turns: bool,
    pub(super) sends: bool,
    pub(super) settled: bool,
    pub(super) threads: bool,
    pub(super) relays: bool,
}

impl Wake {
    pub(super) fn new() -> Self {
        Self {
            turns: watch::Sender::new(0),
            sends: watch::Sender::new(0),
            settled: watch::Sender::new(0),
            threads: watch::Sender::new(0),
            relays: watch::Sender::new(0),
            others: AtomicBool::new(false),
            tells_turns: AtomicBool::new(false),
            tells_sends: AtomicBool::new(false),
            tells_settled: AtomicBool::new(false),
            tells_threads: AtomicBool::new(false),
            tells_relays: AtomicBool::new(false),
            something: Notify::new(),
            backend: AtomicI32::new(0),
        }
    }

    /// A transaction of this process has made something possible.
    pub(super) fn tell(&self, woken: Woken) {
        let channels = [
            (woken.turns, &self.turns, &self.tells_turns),
            (woken.sends, &self.sends, &self.tells_sends),
            (woken.settled, &self.settled, &self.tells_settled),
            (woken.threads, &self.threads, &self.tells_threads),
            (woken.relays, &self.relays, &self.tells_relays),
        ];
        let has_others = self.others.load(Ordering::Relaxed);
        for (_, changed, tells) in channels.into_iter().filter(|(woke, _, _)| *woke) {
            bump(changed);
            if has_others {
                tells.store(true, Ordering::Relaxed);
                self.something.notify_one();
            }
        }
    }

    fn hear(&self, backend: i32, word: &str) {
        if backend == self.backend.load(Ordering::Relaxed) {
            return;
        }
        match word {
            TURNS => bump(&self.turns),
            SENDS => bump(&self.sends),
            SETTLED => bump(&self.settled),
            THREADS => bump(&self.threads),
            RELAYS => bump(&self.relays),
            _ => {}
        }
    }
}

fn bump(changed: &watch::Sender<u64>) {
    changed.send_modify(|count| *count += 1);
}

/// Listens and tells until `stop`.
pub(super) async fn run(
    wake: Arc<Wake>,
    connector: Arc<Connector>,
    channel: String,
    clock: Clock,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        if let Some(connection) = listen(&wake, &connector, &channel).await {
            // Whatever was told while nobody listened.
            bump(&wake.turns);
            bump(&wake.sends);
            bump(&wake.settled);
            bump(&wake.threads);
            bump(&wake.relays);
            let telling = tell_others(&wake, &connection, &channel, &clock);
            if stop.run_until_cancelled(telling).await.is_none() {
                return;
            }
        }
        stop.run_until_cancelled(clock.sleep(RECONNECT)).await;
    }
}

async fn listen(wake: &Arc<Wake>, connector: &Connector, channel: &str) -> Option<Connection> {
    let heard = Arc::clone(wake);
    let listener: Listener =
        Box::new(move |notice| heard.hear(notice.process_id(), notice.payload()));
    let connection = Connection::open(connector, Some(listener)).await.ok()?;
    let client = &connection.client;
    let pid = client
        .query_typed("SELECT pg_backend_pid()", &[])
        .await
        .ok()?;
    wake.backend.store(pid.first()?.get(0), Ordering::Relaxed);
    client
        .batch_execute(&format!("LISTEN \"{channel}\""))
        .await
        .ok()?;
    Some(connection)
}

/// Returns when the connection is lost.
async fn tell_others(wake: &Wake, connection: &Connection, channel: &str, clock: &Clock) {
    loop {
        tokio::select! {
            () = wake.something.notified() => {}
            () = connection.ended() => return,
        }
        clock.sleep(DEBOUNCE).await;
        let words = [
            (&wake.tells_turns, TURNS),
            (&wake.tells_sends, SENDS),
            (&wake.tells_settled, SETTLED),
            (&wake.tells_threads, THREADS),
            (&wake.tells_relays, RELAYS),
        ];
        for (tells, word) in words {
            if !tells.swap(false, Ordering::Relaxed) {
                continue;
            }
            let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
                [(&channel, Type::TEXT), (&word, Type::TEXT)];
            let told = connection
                .client
                .query_typed("SELECT pg_notify($1, $2)", &parameters);
            if told.await.is_err() {
                return;
            }
        }
    }
}
