//! `hapax bench`: what this machine can do, as ratios measured in one run.

mod ingest;
mod ledger;
mod load;
mod shots;
mod statistics;
mod turns;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// Deliveries a second, stored against merely verified and decoded.
    Ingest(ingest::Ingest),
    /// Messages a second from end to end: delivered, handled, answered, and the answer settled.
    Turns(turns::Turns),
}

impl Bench {
    pub(super) async fn run(self) -> ExitCode {
        match self {
            Self::Ingest(ingest) => ingest.run().await,
            Self::Turns(turns) => turns.run().await,
        }
    }
}
