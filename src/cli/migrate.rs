//! `hapax migrate`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::fault;
use crate::app::store;
use crate::clock::Clock;
use crate::config::{self, Sources};

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
    pub(super) async fn run(self) -> ExitCode {
        let config = match config::load_store(Sources::from_process(self.config, self.env_file)) {
            Ok(config) => config,
            Err(faults) => return fault(&faults.to_string()),
        };
        match store::migrate(&config, &Clock::system()).await {
            Ok(version) => {
                println!("{} has schema {version}", store::place(&config));
                ExitCode::SUCCESS
            }
            Err(error) => fault(&format!("store.url (HAPAX_STORE): {error}")),
        }
    }
}
