//! What can be written about single nodes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::At;

/// `tidegate nodes …`
#[derive(Subcommand, Debug)]
pub enum NodesAct {
    /// Note that somebody installed a release on a node by hand; it is counted apart
    RecordInstall(RecordInstall),
    /// Let a machine in that waits (`tidegate nodes --waiting`); it becomes a node when it asks again
    Admit(Admit),
    /// Write a statement that revokes many nodes, to be signed by operators; nothing changes yet
    RevokeMany(RevokeMany),
    /// Sign such a statement where an operator's key lies; writes a signature file
    SignRevocation(SignRevocation),
    /// Bring a statement and its signatures to the coordinator, which revokes the nodes
    PublishRevocation(PublishRevocation),
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

/// `tidegate nodes admit`
#[derive(Args, Debug)]
pub struct Admit {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// The node's id, the start of it, or its hostname
    pub node: String,
}

/// `tidegate nodes revoke-many`
#[derive(Args, Debug)]
pub struct RevokeMany {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// The nodes' ids, one a line; without it the statement vouches for the list as it is
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Why, for those who sign and those who read the ledger
    #[arg(long)]
    pub reason: String,
    /// Where the statement goes
    #[arg(long)]
    pub out: PathBuf,
}

/// `tidegate nodes sign-revocation`
#[derive(Args, Debug)]
pub struct SignRevocation {
    /// The statement
    pub request: PathBuf,
    /// The operator's key file
    #[arg(long)]
    pub key: PathBuf,
    /// root.json of the fleet
    #[arg(long, env = "TIDEGATE_ROOT")]
    pub root: PathBuf,
    /// The signature file [default: REQUEST.KEY.sig]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// `tidegate nodes publish-revocation`
#[derive(Args, Debug)]
pub struct PublishRevocation {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// The statement
    pub request: PathBuf,
    /// Signature files
    #[arg(required = true)]
    pub signatures: Vec<PathBuf>,
}
