//! The settings: defaults, below a file, below an env-file, below the environment.
//!
//! Everything that is wrong is reported at once, each with its mend. Knows of the program only what
//! an address of the ledger is; the other parts know no file and no variable.

mod build;
mod fault;
mod gather;
mod keys;
mod reader;
mod relations;
mod render;
mod settings;
mod sources;
mod value;

use std::collections::BTreeMap;

pub use fault::{Fault, Faults};
pub use render::render;
pub use settings::{
    AskConfig, AsyncFailover, BotConfig, Config, DoorConfig, EgressConfig, EgressWhen,
    ForwardConfig, ForwardDone, ForwardNoReply, ForwardRetryId, HandlerConfig, LogConfig,
    LogFormat, LogIdentifiers, NodeConfig, Pooler, PostgresConfig, PublicConfig, RetentionConfig,
    SendConfig, StoreConfig, StoreUrl, ThreadConfig, TurnConfig, TurnPolicy, WhatsappConfig,
    WorkerConfig,
};
pub use sources::{DEFAULT_FILE, Origin, Sources};

use reader::Reader;

/// A file with every key, its default and its meaning: what `hapax config --default` prints.
pub const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Where the ledger is unless somebody says otherwise.
const DEFAULT_STORE: &str = "sqlite:hapax.db";

/// Settings that are all right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where each came from.
    pub origins: Origins,
    /// What an operator should know: files that were read, other names that were taken, unknown
    /// ones that were not. To be logged at the start; without any secret.
    pub notes: Vec<String>,
}

/// Where each setting came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<&'static str, Origin>);

impl Origins {
    /// Where the setting `key` (for example `store.url`) came from.
    pub fn of(&self, key: &str) -> &Origin {
        self.0.get(key).unwrap_or(&Origin::Default)
    }
}

/// Reads and checks all settings.
///
/// A setting's own name counts before its aliases; of one name, the environment counts before
/// the env-file, and both before the file. An empty value counts as none.
///
/// # Errors
/// Everything that is wrong, in one list.
pub fn load(sources: Sources) -> Result<Loaded, Faults> {
    let mut reader = Reader::new(gather::gather(&sources));
    let config = build::config(&mut reader);
    relations::check(&mut reader, &config);
    let (origins, notes) = reader.finish()?;
    Ok(Loaded {
        config,
        origins: Origins(origins),
        notes,
    })
}

/// Reads only what concerns the ledger: enough to migrate it.
///
/// # Errors
/// What is wrong with those settings, or with the places that settings come from.
pub fn load_store(sources: Sources) -> Result<StoreConfig, Faults> {
    let mut reader = Reader::new(gather::gather(&sources));
    let store = build::store(&mut reader);
    relations::postgres(&mut reader, &store.postgres);
    reader.finish()?;
    Ok(store)
}

/// Reads only what concerns the bot's listener: enough to find it.
///
/// # Errors
/// What is wrong with those settings, or with the places that settings come from.
pub fn load_bot(sources: Sources) -> Result<BotConfig, Faults> {
    let mut reader = Reader::new(gather::gather(&sources));
    let bot = build::bot(&mut reader);
    reader.finish()?;
    Ok(bot)
}

#[cfg(test)]
mod tests;
