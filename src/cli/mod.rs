//! The command line: one file per subcommand.

mod bench;
mod config;
mod dev;
mod figures;
mod interrupt;
mod migrate;
mod rehearse;
mod run;
mod serve;
mod throwaway;
mod try_bot;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::model::Secret;
use crate::{crash_point, guard};

/// The exactly-once front door for WhatsApp bots.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stand between WhatsApp and the bot until SIGTERM or Ctrl-C.
    Serve(serve::Serve),
    /// Start a bot so that its calls to graph.facebook.com come to the gateway.
    Run(run::Run),
    /// Try everything without an account: the gateway and a pretend WhatsApp in one process.
    Dev(dev::Dev),
    /// Start your own bot alone and behind Hapax, under a pretend WhatsApp; no account, no edit.
    Try(try_bot::TryBot),
    /// Prove the promises: real nodes under a pretend WhatsApp, while things break by seed.
    Rehearse(rehearse::Rehearse),
    /// Show the settings in force and where each came from.
    Config(config::Show),
    /// Bring the store to this version's schema.
    Migrate(migrate::Migrate),
    /// Measure on this machine.
    #[command(subcommand)]
    Bench(bench::Bench),
}

impl Cli {
    /// Runs the subcommand; answers the exit status.
    pub async fn run(self) -> ExitCode {
        // Dropped when the process ends, and not before.
        let _armed = match crash_point::arm() {
            Ok(armed) => armed,
            Err(error) => return fault(&error.to_string()),
        };
        if let Err(error) = guard::switched_off() {
            return fault(&error.to_string());
        }
        match self.command {
            Command::Serve(serve) => serve.run().await,
            Command::Run(run) => run.run().await,
            Command::Dev(dev) => dev.run().await,
            Command::Try(try_bot) => try_bot.run().await,
            Command::Rehearse(rehearse) => rehearse.run().await,
            Command::Config(show) => show.run(),
            Command::Migrate(migrate) => migrate.run().await,
            Command::Bench(bench) => bench.run().await,
        }
    }
}

/// An address on the command line; a password in it must not be printed.
#[expect(clippy::unnecessary_wraps, reason = "what clap asks of a parser")]
fn address(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// Wrong settings or arguments.
const EXIT_SETTINGS: u8 = 2;

#[expect(
    clippy::print_stderr,
    reason = "faults are for the person who typed the command"
)]
fn fault(text: &str) -> ExitCode {
    eprintln!("hapax: {text}");
    ExitCode::from(EXIT_SETTINGS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
