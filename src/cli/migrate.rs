//! `hapax migrate`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::fault;
use crate::clock::Clock;
use crate::config::{self, Sources, StoreUrl};
use crate::store::sqlite::SqliteStore;

#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// A TOML file; without it ./hapax.toml is read if it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file of NAME=value lines, for example the bot's own .env.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

impl Migrate {
    #[expect(clippy::print_stdout, reason = "for the person who typed the command")]
    pub(super) fn run(self) -> ExitCode {
        let url = match config::load_store_url(Sources::from_process(self.config, self.env_file)) {
            Ok(url) => url,
            Err(faults) => return fault(&faults.to_string()),
        };
        let StoreUrl::Sqlite(path) = url else {
            return fault("store.url (HAPAX_STORE): PostgreSQL is not in this version");
        };
        match SqliteStore::migrate(&path, &Clock::system()) {
            Ok(version) => {
                println!("{} has schema {version}", path.display());
                ExitCode::SUCCESS
            }
            Err(error) => fault(&format!("store.url (HAPAX_STORE): {error}")),
        }
    }
}
