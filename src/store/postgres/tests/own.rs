//! What this engine alone has to keep: real locks, real failures, real plans.

use super::super::super::conformance::fixture::{
    self, Fixture, TTL, message, message_to, phone, receipt,
};
use super::super::super::{ClaimToken, Named, Policy, SendResult, TurnEnd, Verdict};
use super::*;
use crate::model::{DeliveryId, Event, EventBody, EventKey, NumberId};

/// A real clock: what is waited for here are other connections.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn with(schema: &Schema) -> Fixture {
    let open = |clock: Clock| async {
        let store = schema.open(clock).await;
        (Arc::new(store) as SharedStore, ())
    };
    fixture::with(open).await
}

pub(super) async fn until_one_waits(client: &tokio_postgres::Client, schema: &Schema) {
    let waits = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                      WHERE NOT l.granted AND a.query LIKE '%FOR UPDATE%'
                        AND l.locktype = 'transactionid' AND EXISTS (
                            SELECT 1 FROM pg_locks r JOIN pg_class c ON c.oid = r.relation
                              JOIN pg_namespace n ON n.oid = c.relnamespace
                             WHERE r.pid = l.pid AND n.nspname = $1)";
    let waiting = async {
        while client
            .query_one(waits, &[&schema.name])
            .await
            .expect("asked")
            .get::<_, i64>(0)
            == 0
        {
            Clock::system().sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = Clock::system().timeout(LIMIT, waiting).await;
    waited.expect("somebody waits for the lock");
}

#[tokio::test]
async fn ten_that_migrate_at_once_make_one_schema() {
    let schema = Schema::new();
    let mut migrations = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let settings = schema.settings();
        migrations.spawn(async move { PostgresStore::migrate(&settings, &Clock::system()).await });
    }
    for migrated in migrations.join_all().await {
        assert_eq!(migrated, Ok(schema::VERSION));
    }
    let client = schema.client().await;
    let versions = client
        .query("SELECT version FROM schema_version", &[])
        .await;
    assert_eq!(versions.expect("read").len(), schema::VERSION as usize);
}

#[tokio::test]
async fn a_schema_of_an_older_version_gets_what_came_later_and_keeps_its_rows() {
    let schema = Schema::new();
    let f = with(&schema).await;
    f.append(vec![message(phone("1"), "a")]).await;
    f.store.close().await;
    let older = "
        DROP TABLE thread, thread_past, thread_orphan, bot_send, relay;
        DROP SEQUENCE bot_send_id;
        DELETE FROM schema_version WHERE version > 1";
    let client = schema.client().await;
    client.batch_execute(older).await.expect("as it was then");
    let f = with(&schema).await;
    let claim = ThreadClaim {
        whose: Whose {
            number: fixture::number(),
            named: Named::Person(phone("1")),
        },
        key: None,
        lasts: TTL,
    };
    let claimed = f.store.claim_thread(claim).await;
    let (conversation, _) = claimed.expect("answered").expect("given");
    let turn = f.claim_one().await;
    assert_eq!(turn.lease.conversation, conversation);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let schema = Schema::new();
    drop(schema.open(Clock::system()).await);
    let newer = format!(
        "INSERT INTO schema_version VALUES ({})",
        schema::VERSION + 1
    );
    schema
        .client()
        .await
        .batch_execute(&newer)
        .await
        .expect("written");
    let opened = PostgresStore::open(&schema.settings(), Clock::system()).await;
    let error = opened.err().expect("an older binary refuses");
    let expected = StoreError::Newer {
        found: schema::VERSION + 1,
        known: schema::VERSION,
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("use a newer hapax"));
}

/// The lower place commits last: nobody gets the higher one before, or both at once.
#[tokio::test]
async fn order_and_exclusivity_stand_when_the_lower_number_commits_last() {
    let schema = Schema::new();
    let f = with(&schema).await;
    let first = f.append_one(message(phone("1"), "a")).await;
    let conversation = first.place.expect("placed").0;
    let turn = f.claim_one().await;
    f.end(&turn, TurnEnd::Silence).await;
    // An append that has taken place 2 and does not commit yet.
    let slow = schema.client().await;
    let take = format!(
        "BEGIN; SELECT id FROM conversation WHERE id = {0} FOR UPDATE;
             UPDATE conversation SET next_seq = 3 WHERE id = {0};
             INSERT INTO message (conversation, seq, event, wamid, kind, received_at, envelope)
             VALUES ({0}, 2, gen_random_uuid(), 'slow', 'text', 1, 'envelope of slow');
             INSERT INTO pending (conversation, due_at) VALUES ({0}, 0)",
        conversation.0
    );
    slow.batch_execute(&take)
        .await
        .expect("the slow append writes");
    let quick = tokio::spawn({
        let (store, delivery) = (f.store(), f.delivery(vec![message(phone("1"), "quick")]));
        async move { store.append(Arc::new(delivery)).await }
    });
    let watcher = schema.client().await;
    until_one_waits(&watcher, &schema).await;
    assert!(f.claim().await.is_empty(), "nothing is committed yet");
    assert!(!quick.is_finished(), "the quick one waits for the slow one");
    slow.batch_execute("COMMIT")
        .await
        .expect("the slow append commits");
    let quick = quick.await.expect("no panic").expect("appended");
    assert_eq!(quick.events[0].place, Some((conversation, 3)));
    let turn = f.claim_one().await;
    assert_eq!(
        (turn.id.seq, turn.messages[0].envelope.as_str()),
        (2, "envelope of slow")
    );
    assert!(f.claim().await.is_empty(), "one holder at a time");
    f.end(&turn, TurnEnd::Silence).await;
    let turn = f.claim_one().await;
    assert_eq!(
        (turn.id.seq, turn.messages[0].envelope.as_str()),
        (3, "envelope of quick")
    );
}

/// Claims beside appends that lock the same rows: whatever a claim freezes, it hands over.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_beside_an_append_hands_over_every_committed_message() {
    let schema = Schema::new();
    let f = with(&schema).await;
    let appending = async {
        for n in 0..400 {
            let who = (n % 3).to_string();
            f.append_one(message(phone(&who), &n.to_string())).await;
        }
    };
    let claiming = async {
        let mut next = std::collections::BTreeMap::new();
        let mut handled = 0;
        while handled < 400 {
            let turns = f.claim().await;
            for turn in &turns {
                let seq = next.entry(turn.lease.conversation).or_insert(1);
                assert_eq!(turn.id.seq, *seq);
                let seqs: Vec<i64> = turn.messages.iter().map(|message| message.seq).collect();
                assert_eq!(seqs, [*seq], "all of the turn's messages, and no other");
                *seq += 1;
                handled += 1;
                f.end(turn, TurnEnd::Silence).await;
            }
            if turns.is_empty() {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::join!(appending, claiming);
    assert!(f.claim().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_appenders_on_the_same_conversations_lock_nobody_out() {
    let schema = Schema::new();
    let settings = PostgresSettings {
        connections: 16,
        ..schema.settings()
    };
    let mut stores = Vec::new();
    // Four connections of each write deliveries: sixteen transactions at once, whatever the
    // machine; each of the sixty-four appenders has a delivery in one of them.
    for _ in 0..4 {
        let store = PostgresStore::open(&settings, Clock::system()).await;
        stores.push(Arc::new(store.expect("it opens")));
    }
    let node = stores[0].join(TTL).await.expect("joined");
    let mut appenders = tokio::task::JoinSet::new();
    for appender in 0..64_u32 {
        let store = Arc::clone(&stores[appender as usize % stores.len()]);
        appenders.spawn(async move {
            for round in 0..10_u32 {
                let events = (0..300).map(|n| {
                    // Each in another order, half of them the same events as others bring.
                    let who = (n * (appender + 7) + round) % 300;
                    let wamid = format!("{who} {}", (appender / 2) * 10 + round);
                    message(phone(&who.to_string()), &wamid)
                });
                let delivery = Delivery {
                    id: DeliveryId::new(node, i64::from(appender * 100 + round)),
                    at: Clock::system().now(),
                    events: events.take(60).collect::<Vec<Event>>(),
                    failed_before: Vec::new(),
                };
                store.append(Arc::new(delivery)).await?;
            }
            Ok::<(), StoreError>(())
        });
    }
    for appended in appenders.join_all().await {
        assert_eq!(appended, Ok(()), "no deadlock reaches a caller");
    }
    let client = schema.client().await;
    let broken = "SELECT count(*) FROM conversation c WHERE c.next_seq - 1 <>
                          (SELECT count(*) FROM message m WHERE m.conversation = c.id)";
    let broken: i64 = client.query_one(broken, &[]).await.expect("asked").get(0);
    assert_eq!(broken, 0, "no gap and nothing twice");
}

#[tokio::test]
async fn what_the_server_refuses_harms_no_neighbour() {
    let schema = Schema::new();
    let f = with(&schema).await;
    let client = schema.client().await;
    let refuse = "ALTER TABLE message ADD CHECK (envelope NOT LIKE '%poison%')";
    client.batch_execute(refuse).await.expect("altered");
    // Held back, so that all of them get into one batch.
    client
        .batch_execute("BEGIN; LOCK TABLE event")
        .await
        .expect("locked");
    let mut appends = Vec::new();
    for n in 0..21 {
        let wamid = if n == 10 {
            "poison".to_owned()
        } else {
            n.to_string()
        };
        let delivery = f.delivery(vec![message(phone(&n.to_string()), &wamid)]);
        let store = f.store();
        appends.push(tokio::spawn(async move {
            store.append(Arc::new(delivery)).await
        }));
    }
    tokio::task::yield_now().await;
    client.batch_execute("COMMIT").await.expect("unlocked");
    for (n, append) in appends.into_iter().enumerate() {
        let appended = append.await.expect("no panic");
        match n {
            10 => assert!(
                matches!(appended, Err(StoreError::Refused(_))),
                "{appended:?}"
            ),
            _ => assert_eq!(
                appended.expect("appended").events[0].verdict,
                Verdict::Accepted
            ),
        }
    }
    assert_eq!(f.claim().await.len(), 20);
}

#[tokio::test]
async fn what_no_text_column_can_hold_is_stored_all_the_same() {
    let schema = Schema::new();
    let f = with(&schema).await;
    // What repeats itself would be compressed, and fit an index.
    let digits = (0..700_u32).map(|n| EventKey::derive(&[&n.to_le_bytes()]).to_string());
    let long: String = digits.collect();
    let odd = message(phone("49\u{0}15"), "nul \u{0} here");
    let far = NumberId::new(long.as_str());
    let of_far = f.append_one(message_to(&far, phone("1"), "far")).await;
    assert_eq!(of_far.verdict, Verdict::Accepted);
    let appended = f
        .append(vec![odd.clone(), message(phone(&long), &long)])
        .await;
    assert!(
        appended
            .events
            .iter()
            .all(|event| event.verdict == Verdict::Accepted)
    );
    assert!(matches!(
        f.append_one(odd).await.verdict,
        Verdict::Duplicate { .. }
    ));
    let again = f.append_one(message(phone(&long), "another")).await;
    assert_eq!(
        again.place.map(|place| place.0),
        appended.events[1].place.map(|p| p.0)
    );
}

/// What an earlier timeline has given out and lost is not given out again.
#[tokio::test]
async fn a_failover_raises_every_epoch_and_skips_ids() {
    let schema = Schema::new();
    let f = with(&schema).await;
    let before = f
        .append_one(message(phone("1"), "a"))
        .await
        .place
        .expect("placed")
        .0;
    let held = f.claim_one().await;
    let client = schema.client().await;
    client
        .batch_execute("UPDATE ledger SET timeline = timeline - 1")
        .await
        .expect("written");
    let after = f
        .append_one(message(phone("2"), "b"))
        .await
        .place
        .expect("placed")
        .0;
    assert!(after.0 > before.0 + 1_000_000, "{before} {after}");
    let turn = f.claim_one().await;
    assert!(turn.lease.epoch > 1 << 40, "{:?}", turn.lease);
    assert_eq!(
        f.reply(&held, &["hello"]).await,
        Written::Done,
        "what was kept is good"
    );
    let heir = f.store.join(TTL).await.expect("joined");
    assert!(heir.0 > f.node.0 + 1000);
}

#[tokio::test]
async fn a_send_that_is_made_anew_between_the_look_and_the_lock_is_not_doubted() {
    let schema = Schema::new();
    let f = with(&schema).await;
    let store = schema.open(f.clock.clone()).await;
    f.answered_turn("1", "a", &["one"]).await;
    let first = f.send_one().await;
    let node = f.node;
    let look = async move |tx: &mut Tx| settling::sending(tx, node).await;
    let seen = store.shared.relaxed(look).await.expect("read");
    assert_eq!(seen.len(), 1);
    let retry = SendResult::Retry {
        after: Duration::ZERO,
        reason: "too fast".into(),
    };
    f.settle(&first, retry).await;
    assert_eq!(f.send_one().await.attempt, 2);
    let doubt = async move |tx: &mut Tx| settling::doubt(tx, &seen).await;
    assert_eq!(store.shared.synced(doubt).await, Ok(vec![]));
    assert_eq!(f.store.backlog().await.expect("read").outgoing_unsure, 0);
}

/// Where nothing is due, a look takes no transaction id, so that its end waits for no disk.
/// Whoever waits less long than a silent server takes gets to the next one all the same.
/// As after a failover to a machine whose clock is behind.
#[tokio::test]
async fn a_database_clock_that_goes_back_does_not_stop_the_healthy_one() {
    let schema = Schema::new();
    let f = with(&schema).await;
    let client = schema.client().await;
    f.answered_turn("1", "a", &["one"]).await;
    let first = f.send_one().await;
    let reason = "timed out".to_owned();
    f.settle(&first, SendResult::Unsure { reason }).await;
    let (second, wait) = (Duration::from_secs(1), Duration::from_secs(3));
    let look = async || f.store.expire_unsure(second, wait).await.expect("answered");
    let set_back = async |by: i64| {
        let ahead = "UPDATE ledger SET healthy_at = healthy_at + $1";
        client.execute(ahead, &[&by]).await.expect("moved");
    };
    set_back(3_600_000).await;
    assert!(look().await.is_empty(), "the clock is followed");
    f.wait(1);
    assert!(look().await.is_empty(), "one second counts");
    // By so little as a transaction may have waited: what is counted is not counted again.
    set_back(1000).await;
    f.wait(1);
    assert!(look().await.is_empty());
    f.wait(1);
    assert!(look().await.is_empty(), "two seconds count");
    f.wait(1);
    assert_eq!(look().await, [first.id]);
}

#[tokio::test]
async fn a_silent_first_host_does_not_hide_the_second() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = silent.local_addr().expect("known").port();
    let schema = Schema::new();
    let before = schema.url.replacen('@', &format!("@127.0.0.1:{port},"), 1);
    let address = Address::parse(&before).expect("two hosts");
    let clock = Clock::system();
    let connector = address
        .with_connect_timeout(LIMIT * 10)
        .connector(clock.clone());
    let connector = connector.expect("no certificates");
    let brief = Duration::from_millis(300);
    let cut = clock.timeout(brief, connector.connect()).await;
    assert!(cut.is_err(), "the first one is silent");
    for _ in 0..2 {
        let connected = clock.timeout(LIMIT, connector.connect()).await;
        connected.expect("in time").expect("the second one answers");
    }
}

/// The first thing after a failover is a node that joins.
#[tokio::test]
async fn a_node_that_joins_after_a_failover_gets_no_id_of_before() {
    let schema = Schema::new();
    let f = with(&schema).await;
    let client = schema.client().await;
    let older = "UPDATE ledger SET timeline = timeline - 1";
    client.batch_execute(older).await.expect("written");
    let heir = f.store.join(TTL).await.expect("joined");
    assert!(heir.0 > f.node.0 + 1000, "{heir} after {}", f.node);
}

#[tokio::test]
async fn a_receipt_that_comes_twice_in_one_batch_keeps_what_the_second_brings() {
    let schema = Schema::new();
    let f = with(&schema).await;
    let with_raw = |raw: &str| {
        let mut event = receipt("w", "delivered", None);
        if let EventBody::Status(receipt) = &mut event.body {
            receipt.raw = raw.to_owned();
        }
        event
    };
    let second = r#"{"id":"w","pricing":{"billable":true}}"#;
    f.append(vec![with_raw(r#"{"id":"w"}"#), with_raw(second)])
        .await;
    let client = schema.client().await;
    let kept = client.query_one("SELECT raw FROM receipt", &[]).await;
    let kept: String = kept.expect("one").get(0);
    assert!(kept.contains("billable"), "{kept}");
}

/// With statistics that favour it, the planner would sort everything that is pending.
#[tokio::test]
async fn another_process_is_woken() {
    let schema = Schema::new();
    let (one, two) = (
        schema.open(Clock::system()).await,
        schema.open(Clock::system()).await,
    );
    let node = one.join(LIMIT).await.expect("joined");
    let other = two.join(LIMIT).await.expect("joined");
    // Both know then that they are not alone.
    one.renew(node, LIMIT).await.expect("renewed");
    two.renew(other, LIMIT).await.expect("renewed");
    let client = schema.client().await;
    let listens = "SELECT count(*) FROM pg_stat_activity WHERE query = $1";
    let listen = format!("LISTEN \"hapax_{}\"", schema.name);
    let listening = async {
        while client
            .query_one(listens, &[&listen])
            .await
            .expect("asked")
            .get::<_, i64>(0)
            < 2
        {
            Clock::system().sleep(Duration::from_millis(10)).await;
        }
    };
    Clock::system()
        .timeout(LIMIT, listening)
        .await
        .expect("both listen");
    let mut changed = two.turns_changed();
    changed.mark_unchanged();
    let delivery = Delivery {
        id: DeliveryId::new(node, 1),
        at: Clock::system().now(),
        events: vec![message(phone("1"), "a")],
        failed_before: Vec::new(),
    };
    one.append(Arc::new(delivery)).await.expect("appended");
    let woken = Clock::system().timeout(LIMIT, changed.changed()).await;
    woken
        .expect("the other process is told")
        .expect("the store lives");
    let claim = ClaimRequest {
        node: other,
        token: ClaimToken(1),
        limit: 1,
        policy: Policy::Queue,
    };
    assert_eq!(two.claim(claim).await.expect("claimed").turns.len(), 1);

    let mut changed = two.threads_changed();
    changed.mark_unchanged();
    let whose = Whose {
        number: fixture::number(),
        named: Named::Person(phone("1")),
    };
    let claim = ThreadClaim {
        whose: whose.clone(),
        key: None,
        lasts: LIMIT,
    };
    one.claim_thread(claim).await.expect("the right is given");
    let completed = one.complete_thread(whose, 1, ThreadId::stored("thr_a"));
    completed.await.expect("it is stored");
    let woken = Clock::system().timeout(LIMIT, changed.changed()).await;
    woken
        .expect("the other process is told of a thread, too")
        .expect("the store lives");
}

#[tokio::test]
async fn only_what_was_made_to_be_thrown_away_is_destroyed() {
    let used = Schema::new();
    let throwaway = Schema {
        url: used.url.clone(),
        name: format!("{}{}", THROWAWAY_PREFIXES[1], used.name),
    };
    let clock = Clock::system();
    for (schema, goes) in [(&used, false), (&throwaway, true), (&throwaway, true)] {
        schema.open(clock.clone()).await.close().await;
        let destroyed = PostgresStore::destroy_throwaway(&schema.settings(), &clock).await;
        assert_eq!(destroyed.is_ok(), goes, "{destroyed:?}");
        let there = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
        let there = schema.client().await.query(there, &[&schema.name]).await;
        assert_eq!(there.expect("it is asked").is_empty(), goes);
    }
}
