//! `hapax serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::app::Gateway;

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// A TOML file; without it ./hapax.toml is read if it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file of NAME=value lines, for example the bot's own .env.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

impl Serve {
    pub(super) async fn run(self) -> ExitCode {
        Gateway::configured()
            .config_file(self.config)
            .env_file(self.env_file)
            .run()
            .await
    }
}
