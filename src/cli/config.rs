//! `hapax config`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::fault;
use crate::config::{self, Sources};

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Print the example file with every key, its default and its unit instead.
    #[arg(long)]
    default: bool,
    /// A TOML file; without it ./hapax.toml is read if it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file of NAME=value lines, for example the bot's own .env.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

impl Show {
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    pub(super) fn run(self) -> ExitCode {
        if self.default {
            print!("{}", config::EXAMPLE);
            return ExitCode::SUCCESS;
        }
        match config::load(Sources::from_process(self.config, self.env_file)) {
            Ok(loaded) => {
                for note in &loaded.notes {
                    println!("# {note}");
                }
                print!("{}", config::render(&loaded.config, &loaded.origins));
                ExitCode::SUCCESS
            }
            Err(faults) => fault(&faults.to_string()),
        }
    }
}
