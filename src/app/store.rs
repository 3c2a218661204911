//! Opens the ledger that the settings name.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{AsyncFailover, Pooler, StoreConfig, StoreUrl};
use crate::model::Secret;
use crate::store::postgres::{Address, PostgresSettings, PostgresStore};
use crate::store::sqlite::{SqliteSettings, SqliteStore};
use crate::store::{SharedStore, StoreError};

/// Opens the ledger, and brings its schema to this version.
///
/// # Errors
/// It can't be reached or opened, or a newer Hapax has been there.
pub async fn open(config: &StoreConfig, clock: Clock) -> Result<SharedStore, StoreError> {
    match &config.url {
        StoreUrl::Sqlite(path) => {
            let settings = SqliteSettings {
                path: path.clone(),
                queue_max: config.queue_max,
                wal_max: config.wal_max,
            };
            // Blocks a thread of its own while the file is made ready.
            let opening = tokio::task::spawn_blocking(move || SqliteStore::open(&settings, clock));
            let opened = opening.await;
            let store =
                opened.map_err(|_| StoreError::Open("opening it panicked".to_owned()))??;
            Ok(Arc::new(store))
        }
        StoreUrl::Postgres(url) => {
            let settings = postgres(config, url)?;
            Ok(Arc::new(PostgresStore::open(&settings, clock).await?))
        }
    }
}

/// Brings the ledger's schema to this version, and nothing else; answers the version.
///
/// # Errors
/// As for [`open`].
pub async fn migrate(config: &StoreConfig, clock: &Clock) -> Result<u32, StoreError> {
    match &config.url {
        StoreUrl::Sqlite(path) => SqliteStore::migrate(path, clock),
        StoreUrl::Postgres(url) => PostgresStore::migrate(&postgres(config, url)?, clock).await,
    }
}

/// Destroys a ledger in a schema that was made to be thrown away; a file goes with its folder.
///
/// # Errors
/// As for [`PostgresStore::destroy_throwaway`], which refuses every other schema.
pub async fn destroy_throwaway(config: &StoreConfig, clock: &Clock) -> Result<(), StoreError> {
    match &config.url {
        StoreUrl::Sqlite(_) => Ok(()),
        StoreUrl::Postgres(url) => {
            PostgresStore::destroy_throwaway(&postgres(config, url)?, clock).await
        }
    }
}

/// Where the ledger is, without what is secret in it.
pub fn place(config: &StoreConfig) -> String {
    match &config.url {
        StoreUrl::Sqlite(path) => {
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("sqlite:{}", whole.display())
        }
        StoreUrl::Postgres(url) => match Address::parse(url.expose()) {
            Ok(address) => format!("{} schema {}", address.place(), config.postgres.schema),
            Err(_) => "postgres".to_owned(),
        },
    }
}

fn postgres(config: &StoreConfig, url: &Secret) -> Result<PostgresSettings, StoreError> {
    let address = Address::parse(url.expose());
    let postgres = &config.postgres;
    Ok(PostgresSettings {
        address: address.map_err(|error| StoreError::Open(error.to_string()))?,
        schema: postgres.schema.clone(),
        connections: postgres.connections,
        connect_timeout: postgres.connect_timeout,
        statement_timeout: postgres.statement_timeout,
        lock_timeout: postgres.lock_timeout,
        pooled: postgres.pooler == Pooler::Transaction,
        allows_async_failover: postgres.async_failover == AsyncFailover::Allow,
        queue_max: config.queue_max,
    })
}
