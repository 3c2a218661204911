//! What statements may cost: pages, transaction ids, rows read; and who goes first.

use super::super::super::conformance::fixture::{TTL, message, message_to, number, phone};
use super::own::{LIMIT, with};
use super::*;
use crate::model::NumberId;

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

#[tokio::test]
async fn what_is_due_first_goes_first_whatever_its_number() {
    let schema = Schema::new();
    let f = with(&schema).await;
    f.answered_turn("1", "a", &["one"]).await;
    f.accepted(&f.send_one().await, "w").await;
    let other = NumberId::from("200");
    for (number, sender) in [(&other, "2"), (&number(), "3"), (&number(), "4")] {
        f.wait(1);
        f.append(vec![message_to(number, phone(sender), sender)])
            .await;
        f.reply(&f.claim_one().await, &["hello"]).await;
    }
    let request = SendRequest {
        node: f.node,
        limit: 1,
        budget: Vec::new(),
    };
    let sends = f.store.send(request).await.expect("answered");
    assert_eq!(sends.outgoings[0].number, other);
}

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
            ANALYZE conversation, pending, number, outbox;";
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
