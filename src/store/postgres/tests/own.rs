//! What this engine alone has to keep: real locks, real failures, real plans.

use super::super::super::conformance::fixture::{self, Fixture, TTL, message, phone};
use super::super::super::{ClaimToken, Policy, SendResult, TurnEnd, Verdict};
use super::*;
use crate::model::{DeliveryId, Event};

/// A real clock: what is waited for here are other connections.
const LIMIT: Duration = Duration::from_secs(60);

async fn with(schema: &Schema) -> Fixture {
    let open = |clock: Clock| async {
        let store = schema.open(clock).await;
        (Arc::new(store) as SharedStore, ())
    };
    fixture::with(open).await
}

async fn until_one_waits(client: &tokio_postgres::Client, schema: &Schema) {
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
    let long = "x".repeat(20_000);
    let odd = message(phone("49\u{0}15"), "nul \u{0} here");
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

#[tokio::test]
async fn hot_rows_are_updated_on_their_page() {
    let schema = Schema::new();
    let f = with(&schema).await;
    for round in 0..30 {
        for person in 0..4_u32 {
            let wamid = format!("{person} {round}");
            f.append(vec![message(phone(&person.to_string()), &wamid)])
                .await;
        }
        for turn in f.claim().await {
            f.reply(&turn, &["hello"]).await;
        }
        for sending in f.send().await {
            f.accepted(&sending, &format!("w{}", sending.id)).await;
        }
        f.store.renew(f.node, TTL).await.expect("renewed");
    }
    f.store.close().await;
    let client = schema.client().await;
    let updates = "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
                        WHERE schemaname = $1 AND n_tup_upd > 20";
    // Connections report what they did a moment after.
    let counted = async {
        loop {
            let rows = client.query(updates, &[&schema.name]).await.expect("asked");
            let found = |name: &str| rows.iter().any(|row| row.get::<_, &str>(0) == name);
            if ["conversation", "outgoing"].into_iter().all(found) {
                return rows;
            }
            Clock::system().sleep(Duration::from_millis(50)).await;
        }
    };
    let rows = Clock::system()
        .timeout(LIMIT, counted)
        .await
        .expect("they are counted");
    for row in rows {
        let (name, all, hot): (&str, i64, i64) = (row.get(0), row.get(1), row.get(2));
        if !matches!(name, "pending" | "outbox") {
            assert!(
                hot * 10 >= all * 9,
                "{name}: {hot} of {all} stayed on their page"
            );
        }
    }
}

/// Where nothing is due, a look takes no transaction id, so that its end waits for no disk.
#[tokio::test]
async fn a_look_that_finds_nothing_writes_nothing() {
    let schema = Schema::new();
    let f = with(&schema).await;
    f.append(vec![message(phone("1"), "a")]).await;
    let turn = f.claim_one().await;
    f.reply(&turn, &["one"]).await;
    let sending = f.send_one().await;
    f.accepted(&sending, "w").await;
    let client = schema.client().await;
    let settings = schema.settings().session();
    let begin = format!("BEGIN; {settings}; SELECT set_config('hapax.now', '9999999', true)");
    client.batch_execute(&begin).await.expect("begun");
    let node = f.node.0;
    let take = [turn::TAKE, sending::LOCK_DUE];
    let taken = client
        .query(take[0], &[&node, &1_i64, &64_i64, &1_i64])
        .await;
    assert!(taken.expect("asked").is_empty());
    let (numbers, budgets) = (Vec::<String>::new(), Vec::<i64>::new());
    let due = client
        .query(take[1], &[&node, &64_i64, &numbers, &budgets])
        .await;
    assert!(due.expect("asked").is_empty());
    let assigned = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
    let assigned: bool = client.query_one(assigned, &[]).await.expect("asked").get(0);
    assert!(!assigned);
}

/// With statistics that favour it, the planner would sort everything that is pending.
#[tokio::test]
async fn a_claim_and_a_send_read_what_they_take_and_no_more() {
    let schema = Schema::new();
    let store = schema.open(Clock::system()).await;
    store.join(LIMIT).await.expect("joined");
    let client = schema.client().await;
    let fill = "
            INSERT INTO conversation (id, number, contact, recipient, next_seq)
            SELECT i, 'n', i, 'r', 2 FROM generate_series(1, 20000) i;
            INSERT INTO pending (conversation, due_at) SELECT i, i FROM generate_series(1, 5000) i;
            INSERT INTO number (id) VALUES ('n');
            INSERT INTO outbox (conversation, outgoing, number, due_at)
            SELECT i, i, 'n', i FROM generate_series(1, 5000) i;
            ANALYZE;";
    client.batch_execute(fill).await.expect("filled");
    let settings = schema.settings().session();
    let begin = format!("BEGIN; {settings}; SELECT set_config('hapax.now', '9999999', true)");
    client.batch_execute(&begin).await.expect("begun");
    let numbers = "ARRAY['n']::text[], ARRAY[64]::int8[]";
    for (sql, values) in [
        (turn::TAKE, "1, 1, 64, 1".to_owned()),
        (sending::LOCK_DUE, format!("1, 64, {numbers}")),
    ] {
        let types = if sql == turn::TAKE {
            "int8, int8"
        } else {
            "text[], int8[]"
        };
        let prepare = format!("PREPARE s (int8, int8, {types}) AS {sql}");
        client.batch_execute(&prepare).await.expect("prepared");
        let explain = format!("EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) EXECUTE s ({values})");
        let plan = client.query(&explain, &[]).await.expect("explained");
        client
            .batch_execute("DEALLOCATE s")
            .await
            .expect("forgotten");
        for line in plan.iter().map(|row| row.get::<_, String>(0)) {
            let rows = line
                .split("rows=")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            let rows: u64 = rows.map_or(0, |rows| rows.parse().expect("a number"));
            assert!(rows <= 64, "{line}");
        }
    }
}

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
}

#[tokio::test]
async fn only_what_was_made_to_be_thrown_away_is_destroyed() {
    let used = Schema::new();
    let throwaway = Schema {
        url: used.url.clone(),
        name: format!("{THROWAWAY_PREFIX}{}", used.name),
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
