//! One conversation with ten thousand pending messages beside a thousand with one each: the
//! thousand are served as fast as without it. Asked of the stores themselves.

use std::sync::Arc;
use std::time::Duration;

use hapax::clock::Clock;
use hapax::model::{
    Aliases, ConversationId, DeliveryId, Event, EventBody, EventKey, InboundMessage, NodeId,
    NumberId,
};
use hapax::store::postgres::{Address, PostgresSettings, PostgresStore};
use hapax::store::sqlite::{SqliteSettings, SqliteStore};
use hapax::store::{
    ClaimRequest, ClaimToken, ClaimedTurn, Delivery, Finish, Policy, SharedStore, TurnEnd,
};
use tokio::task::JoinSet;

use crate::schema::Schema;

const MANY: usize = 10_000;
const OTHERS: usize = 1_000;
/// Turns that are claimed and ended together.
const TOGETHER: u32 = 32;
/// What the thousand must keep of their rate.
const RATIO_MIN: f64 = 0.9;
/// Rounds with and without the crowd, in turn: at least, and at most.
const ROUNDS: usize = 5;
const ROUNDS_MAX: usize = 40;

/// A store in which rounds are run.
struct Field {
    store: SharedStore,
    node: NodeId,
    clock: Clock,
    crowd: Option<ConversationId>,
    deliveries: i64,
}

/// How the thousand of one round were served.
#[derive(Debug, Clone, Copy)]
struct Served {
    /// Turns that were run until the last of them had ended.
    turns: usize,
    took: Duration,
}

impl Field {
    async fn new(store: SharedStore, is_crowded: bool) -> Self {
        let ttl = Duration::from_secs(3600);
        let node = store.join(ttl).await.expect("a node joins");
        let mut field = Self {
            store,
            node,
            clock: Clock::system(),
            crowd: None,
            deliveries: 0,
        };
        if is_crowded {
            field
                .write(MANY, |index| ("crowd".to_owned(), format!("crowd {index}")))
                .await;
            let mut claimed = field.claim().await;
            assert_eq!(claimed.len(), 1, "a turn of the crowd");
            let turn = claimed.remove(0);
            field.crowd = Some(turn.lease.conversation);
            field.end(vec![turn]).await;
        }
        field
    }

    /// So many messages, in deliveries of a hundred.
    async fn write(&mut self, count: usize, of: impl Fn(usize) -> (String, String)) {
        let events: Vec<Event> = (0..count).map(|index| message(&of(index))).collect();
        for events in events.chunks(100) {
            let delivery = Delivery {
                id: DeliveryId::new(self.node, self.deliveries),
                at: self.clock.now(),
                events: events.to_vec(),
                failed_before: Vec::new(),
            };
            self.deliveries += 1;
            let appended = self.store.append(Arc::new(delivery)).await;
            appended.expect("it is appended");
        }
    }

    async fn claim(&self) -> Vec<ClaimedTurn> {
        let request = ClaimRequest {
            node: self.node,
            token: ClaimToken(1),
            limit: TOGETHER,
            policy: Policy::Queue,
        };
        self.store.claim(request).await.expect("a claim").turns
    }

    async fn end(&self, turns: Vec<ClaimedTurn>) {
        let mut ends = JoinSet::new();
        for turn in turns {
            let (store, started_at) = (Arc::clone(&self.store), self.clock.now());
            let finish = Finish {
                seq_last: turn.id.seq,
                end: TurnEnd::Silence,
                started_at,
            };
            ends.spawn(async move { store.finish(turn.lease, finish).await });
        }
        for ended in ends.join_all().await {
            ended.expect("the turn ends");
        }
    }

    /// The thousand write one message each, and are served.
    async fn round(&mut self, round: usize) -> Served {
        self.write(OTHERS, |index| {
            (index.to_string(), format!("{round} of {index}"))
        })
        .await;
        let began = self.clock.boottime();
        let (mut turns, mut left) = (0, OTHERS);
        while left > 0 {
            let claimed = self.claim().await;
            assert!(!claimed.is_empty(), "{left} are still due");
            let is_other = |turn: &&ClaimedTurn| Some(turn.lease.conversation) != self.crowd;
            turns += claimed.len();
            left -= claimed.iter().filter(is_other).count();
            self.end(claimed).await;
        }
        let took = self.clock.boottime().saturating_sub(began);
        Served { turns, took }
    }
}

fn message((sender, text): &(String, String)) -> Event {
    let key = EventKey::derive(&[b"message", text.as_bytes()]);
    let sender = Aliases {
        phone: Some(sender.as_str().into()),
        ..Aliases::default()
    };
    Event {
        key,
        number: Some(NumberId::from("100")),
        relay: None,
        body: EventBody::Message(InboundMessage {
            wamid: text.as_str().into(),
            kind: "text".into(),
            sender,
            sent_at: None,
            envelope: text.clone(),
        }),
    }
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

/// The rate of the thousand beside the crowd is at least so much of their rate without it; by the
/// medians of rounds in turn, more of them where another process has disturbed the first.
async fn is_fair(crowded: SharedStore, free: SharedStore) {
    let mut beside = Field::new(Arc::clone(&crowded), true).await;
    let mut alone = Field::new(Arc::clone(&free), false).await;
    let (mut times_beside, mut times_alone) = (Vec::new(), Vec::new());
    let mut ratio = 0.0;
    for round in 0..ROUNDS_MAX {
        let served = alone.round(round).await;
        assert_eq!(served.turns, OTHERS);
        times_alone.push(served.took);
        let served = beside.round(round).await;
        let share = OTHERS as f64 / served.turns as f64;
        assert!(share >= RATIO_MIN, "the crowd takes turns: {served:?}");
        times_beside.push(served.took);
        ratio = median(&mut times_alone) / median(&mut times_beside);
        if round + 1 >= ROUNDS && ratio >= RATIO_MIN {
            break;
        }
    }
    let times = (times_alone, times_beside);
    assert!(ratio >= RATIO_MIN, "{ratio}; alone and beside: {times:?}");
    crowded.close().await;
    free.close().await;
}

async fn postgres(schema: &Schema) -> SharedStore {
    let settings = PostgresSettings {
        address: Address::parse(&schema.url()).expect("an address"),
        schema: schema.name().to_owned(),
        connections: 4,
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(30),
        lock_timeout: Duration::from_secs(20),
        pooled: false,
        allows_async_failover: false,
        queue_max: 64,
    };
    let store = PostgresStore::open(&settings, Clock::system()).await;
    Arc::new(store.expect("the store opens"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowded_conversation_does_not_slow_the_others_in_postgresql() {
    let schemas = (Schema::new(), Schema::new());
    is_fair(postgres(&schemas.0).await, postgres(&schemas.1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowded_conversation_does_not_slow_the_others_in_sqlite() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = |name: &str| -> SharedStore {
        let settings = SqliteSettings {
            path: folder.path().join(name),
            queue_max: 64,
            wal_max: 64 << 20,
        };
        Arc::new(SqliteStore::open(&settings, Clock::system()).expect("the store opens"))
    };
    is_fair(open("crowded.db"), open("free.db")).await;
}
