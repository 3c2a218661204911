//! Where a run keeps its ledger: a file in a folder of its own, or a schema of its own in a
//! database that was named. Both are gone afterwards.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use crate::app::store;
use crate::cli::throwaway::{self, Purpose};
use crate::clock::Clock;
use crate::config::{self, Sources, StoreConfig, StoreUrl};
use crate::model::Secret;

/// On what engine.
#[derive(Debug, Clone)]
pub(super) enum Ground {
    Sqlite,
    Postgres(Secret),
}

impl Ground {
    /// Reads what was typed.
    pub(super) fn parse(store: Option<&Secret>) -> Result<Self, String> {
        match store.map(Secret::expose) {
            None | Some("sqlite") => Ok(Self::Sqlite),
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                Ok(Self::Postgres(Secret::new(url)))
            }
            Some(_) => Err(
                "--store: expected sqlite, or postgres://…; a run makes its own file or schema"
                    .to_owned(),
            ),
        }
    }

    /// Its name in tables and JSON.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    pub(super) const fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// The address behind which the database is, if a wire can be put before it: one host, in
    /// clear text.
    pub(super) async fn far_end(&self) -> Option<SocketAddr> {
        let Self::Postgres(url) = self else {
            return None;
        };
        let url = reqwest::Url::parse(url.expose()).ok()?;
        let mut parameters = url.query_pairs();
        let hides = |name: &str, value: &str| {
            name == "host" || name.starts_with("ssl") && (name, value) != ("sslmode", "disable")
        };
        if parameters.any(|(name, value)| hides(&name, &value)) {
            return None;
        }
        let (host, port) = (url.host_str()?, url.port().unwrap_or(5432));
        tokio::net::lookup_host((host, port)).await.ok()?.next()
    }
}

/// The ledger of one run.
pub(super) struct Place {
    /// Everything of the run that is on disk.
    pub(super) folder: TempDir,
    store: StoreConfig,
    url: Secret,
}

impl Place {
    pub(super) fn make(ground: &Ground) -> Result<Self, String> {
        let folder =
            tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let url = match ground {
            Ground::Sqlite => format!("sqlite:{}", folder.path().join("hapax.db").display()),
            Ground::Postgres(url) => url.expose().to_owned(),
        };
        let mut sources = Sources::from_process(None, None);
        sources.env.retain(|(name, _)| !name.starts_with("HAPAX_"));
        sources.env.push(("HAPAX_STORE".to_owned(), url.clone()));
        let mut store = config::load_store(sources).map_err(|faults| faults.to_string())?;
        store.postgres.schema = throwaway::schema(Purpose::Rehearsal)?;
        Ok(Self {
            folder,
            store,
            url: Secret::new(url),
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The settings with which a node finds the ledger, through a wire if there is one.
    pub(super) fn settings(&self, wire: Option<SocketAddr>) -> Vec<(String, String)> {
        let mut url = self.url.expose().to_owned();
        if let (Some(wire), Ok(mut through)) = (wire, reqwest::Url::parse(&url)) {
            let host = through.set_host(Some(&wire.ip().to_string()));
            if host.is_ok() && through.set_port(Some(wire.port())).is_ok() {
                url = through.into();
            }
        }
        let owned = |name: &str, value: String| (name.to_owned(), value);
        let mut settings = vec![owned("HAPAX_STORE", url)];
        if matches!(self.store.url, StoreUrl::Postgres(_)) {
            let schema = self.store.postgres.schema.clone();
            settings.push(owned("HAPAX_STORE_SCHEMA", schema));
        }
        settings
    }

    /// Takes the ledger away. No node may have it open.
    pub(super) async fn destroy(&self, clock: &Clock) -> Result<(), String> {
        let destroyed = store::destroy_throwaway(&self.store, clock).await;
        destroyed.map_err(|error| {
            let schema = &self.store.postgres.schema;
            format!("the schema {schema} is still there, drop it by hand: {error}")
        })
    }
}
