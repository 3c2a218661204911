//! Ledgers to measure on: one an engine, made for one run and gone after it, whatever happens.
//!
//! The settings are those of the process; only the place is the bench's own.

use std::path::Path;

use tempfile::TempDir;

use crate::app::store;
use crate::cli::throwaway::{self, Purpose};
use crate::clock::Clock;
use crate::config::{self, Sources, StoreConfig, StoreUrl};
use crate::model::Secret;
use crate::store::SharedStore;

/// What keeps a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    /// Its name in tables and JSON.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// One ledger, perhaps not made yet.
pub(super) struct Ledger {
    pub(super) engine: Engine,
    pub(super) config: StoreConfig,
}

/// The ledgers of one run, SQLite first.
pub(super) struct Ledgers {
    pub(super) all: Vec<Ledger>,
    /// Goes with everything in it when dropped.
    _folder: TempDir,
}

/// More may wait than the load generator can have under way: nothing is to be refused.
const QUEUE_MIN: usize = 65_536;

impl Ledgers {
    /// A file in a folder of its own inside `folder`; and where a `url` is given, a schema of its
    /// own there. Nothing is made yet.
    pub(super) fn plan(folder: Option<&Path>, url: Option<&Secret>) -> Result<Self, String> {
        let made = match folder {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        };
        let made = made.map_err(|error| format!("no temporary folder: {error}"))?;
        let file = made.path().join("bench.db");
        let mut sqlite = settings("sqlite:bench.db")?;
        sqlite.url = StoreUrl::Sqlite(file);
        let mut all = vec![Ledger {
            engine: Engine::Sqlite,
            config: sqlite,
        }];
        if let Some(url) = url {
            let mut config = settings(url.expose())?;
            if !matches!(config.url, StoreUrl::Postgres(_)) {
                return Err("--store: expected postgres://…; SQLite is always measured".to_owned());
            }
            config.postgres.schema = throwaway::schema(Purpose::Bench)?;
            all.push(Ledger {
                engine: Engine::Postgres,
                config,
            });
        }
        Ok(Self { all, _folder: made })
    }

    /// Takes away whatever was made. The ledgers must be closed.
    pub(super) async fn destroy(self, clock: &Clock) -> Result<(), String> {
        for ledger in &self.all {
            let destroyed = store::destroy_throwaway(&ledger.config, clock).await;
            destroyed.map_err(|error| {
                let schema = &ledger.config.postgres.schema;
                format!("the schema {schema} is still there, drop it by hand: {error}")
            })?;
        }
        Ok(())
    }
}

impl Ledger {
    pub(super) async fn open(&self, clock: &Clock) -> Result<SharedStore, String> {
        let opened = store::open(&self.config, clock.clone()).await;
        opened.map_err(|error| format!("{}: {error}", self.engine.as_str()))
    }
}

fn settings(url: &str) -> Result<StoreConfig, String> {
    let mut sources = Sources::from_process(None, None);
    let place = ("HAPAX_STORE".to_owned(), url.to_owned());
    sources.env.push(place);
    let mut config = config::load_store(sources).map_err(|faults| faults.to_string())?;
    config.queue_max = config.queue_max.max(QUEUE_MIN);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_to_measure_on_is_never_one_that_is_used() {
        let url = Secret::new("postgres://someone@127.0.0.1/hapax");
        let ledgers = Ledgers::plan(None, Some(&url)).expect("planned");
        let schemas: Vec<&str> = ledgers
            .all
            .iter()
            .filter(|ledger| ledger.engine == Engine::Postgres)
            .map(|ledger| ledger.config.postgres.schema.as_str())
            .collect();
        assert_eq!(schemas.len(), 1);
        assert!(schemas[0].starts_with("hapax_bench_"), "{schemas:?}");
        let again = Ledgers::plan(None, Some(&url)).expect("planned");
        assert_ne!(again.all[1].config.postgres.schema, schemas[0]);
    }

    #[test]
    fn what_is_no_postgresql_is_refused() {
        let file = Secret::new("sqlite:hapax.db");
        assert!(Ledgers::plan(None, Some(&file)).is_err());
    }
}
