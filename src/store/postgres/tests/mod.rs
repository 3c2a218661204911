//! The contract of every store, kept by this one; and what only this one has to keep.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::NoTls;

use super::super::SharedStore;
use super::super::conformance::conformance;
use super::*;

/// A schema of its own in the database of the tests; gone when dropped.
pub(in crate::store) struct Schema {
    url: String,
    name: String,
}

impl Schema {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "where the tests' database is")]
        let url = std::env::var("TEST_DATABASE_URL");
        let url = url.expect("TEST_DATABASE_URL: run ./test, which provides a database");
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("randomness");
        Self {
            url,
            name: format!("t_{}", hex::encode(bytes)),
        }
    }

    fn settings(&self) -> PostgresSettings {
        PostgresSettings {
            address: Address::parse(&self.url).expect("TEST_DATABASE_URL is an address"),
            schema: self.name.clone(),
            connections: 4,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(20),
            pooled: false,
            allows_async_failover: false,
            queue_max: 4096,
        }
    }

    async fn open(&self, clock: Clock) -> PostgresStore {
        let store = PostgresStore::open(&self.settings(), clock).await;
        store.expect("the store opens")
    }

    /// A connection of the test's own, in this schema.
    async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls)
            .await
            .expect("the database answers");
        tokio::spawn(connection);
        let path = format!("SET search_path = \"{}\"", self.name);
        client.batch_execute(&path).await.expect("the path is set");
        client
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let (url, drop) = (
            self.url.clone(),
            format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.name),
        );
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async move {
                let (client, connection) = tokio_postgres::connect(&url, NoTls)
                    .await
                    .map_err(std::io::Error::other)?;
                tokio::spawn(connection);
                client
                    .batch_execute(&drop)
                    .await
                    .map_err(std::io::Error::other)
            })
        });
        let dropped = dropping.join();
        if !std::thread::panicking() {
            dropped.expect("no panic").expect("the schema is dropped");
        }
    }
}

pub(in crate::store) async fn open(clock: Clock) -> (SharedStore, Schema) {
    let schema = Schema::new();
    let store = schema.open(clock).await;
    (Arc::new(store), schema)
}

conformance!(crate::store::postgres::tests::open);

/// The same contract with nothing prepared, as behind a pooler.
mod pooled {
    use super::*;

    async fn open(clock: Clock) -> (SharedStore, Schema) {
        let schema = Schema::new();
        let settings = PostgresSettings {
            pooled: true,
            ..schema.settings()
        };
        let store = PostgresStore::open(&settings, clock).await;
        (Arc::new(store.expect("the store opens")), schema)
    }

    conformance!(crate::store::postgres::tests::pooled::open);
}

mod cost;
mod deadlock;
mod own;
