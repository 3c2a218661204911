//! `hapax bench`: what this machine can do, as ratios measured in one run.

mod ingest;
mod load;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// Deliveries a second, stored against merely verified and decoded.
    Ingest(ingest::Ingest),
}

impl Bench {
    pub(super) async fn run(self) -> ExitCode {
        match self {
            Self::Ingest(ingest) => ingest.run().await,
        }
    }
}
