//! What can be written about reports.

use std::path::PathBuf;

use clap::Subcommand;
use protocol::RolloutId;

use super::At;

/// `tidegate report …`
#[derive(Subcommand, Debug)]
pub enum Report {
    /// What came of a rollout: counts, curves, cohorts, failures, traffic, and whether it was in time
    Review {
        /// Where.
        #[command(flatten)]
        at: At,
        /// The rollout
        rollout: RolloutId,
        /// Write the page here instead of printing it
        #[arg(long, conflicts_with = "json")]
        out: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}
