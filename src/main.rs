//! The `hapax` binary: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    hapax::cli::Cli::parse().run().await
}
