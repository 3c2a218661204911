//! A deadlock that the server ends is told, and reaches nobody who writes.

use std::io::{self, Write};
use std::sync::Mutex;

use super::super::super::conformance::fixture::{message, phone};
use super::own::{LIMIT, until_one_waits, with};
use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn hold(&self, text: &str) -> bool {
        let bytes = self.0.lock().expect("no panic while writing");
        String::from_utf8_lossy(&bytes).contains(text)
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while writing").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_deadlock_that_the_server_ends_is_told_and_tried_again() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _logged = tracing::subscriber::set_default(subscriber.finish());
    let schema = Schema::new();
    let f = with(&schema).await;
    let people = |wamid: &str| {
        let of = |who: &str| message(phone(who), &format!("{who} {wamid}"));
        vec![of("1"), of("2")]
    };
    f.append(people("first")).await;
    // Two, because what others do is frozen for a transaction once it has looked.
    let (client, watch) = (schema.client().await, schema.client().await);
    let lock = async |from_the_end: &str| {
        let lock = format!("SELECT id FROM conversation ORDER BY id {from_the_end} LIMIT 1");
        client.query(&format!("{lock} FOR UPDATE"), &[]).await
    };
    // Who looks first whether there is a deadlock, ends it with itself: here usually the store.
    let told = async {
        for round in 0.. {
            client.batch_execute("BEGIN").await.expect("begun");
            lock("DESC").await.expect("the later one is locked");
            let delivery = f.delivery(people(&round.to_string()));
            let store = f.store();
            let append = tokio::spawn(async move { store.append(Arc::new(delivery)).await });
            until_one_waits(&watch, &schema).await;
            let is_spared = lock("ASC").await.is_ok();
            let end = client.batch_execute("ROLLBACK").await;
            end.expect("the locks are given back");
            let appended = append.await.expect("no panic");
            assert_eq!(appended.expect("appended").events.len(), 2);
            if is_spared {
                return;
            }
        }
    };
    let told = Clock::system().timeout(LIMIT, told).await;
    told.expect("the store is the one that is undone");
    assert!(lines.hold("the server undid a transaction to end a deadlock"));
    assert!(lines.hold("SQLSTATE 40P01"));
}
