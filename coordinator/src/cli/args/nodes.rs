//! What can be written about single nodes.

use clap::{Args, Subcommand};

use super::At;

/// `tidegate nodes …`
#[derive(Subcommand, Debug)]
pub enum NodesAct {
    /// Note that somebody installed a release on a node by hand; it is counted apart
    RecordInstall(RecordInstall),
}

/// `tidegate nodes record-install`
#[derive(Args, Debug)]
pub struct RecordInstall {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// The node's id, the start of it, or its hostname
    pub node: String,
    /// PRODUCT@VERSION
    pub release: String,
    /// Who did it
    #[arg(long)]
    pub who: String,
    /// Why
    #[arg(long)]
    pub why: String,
}
