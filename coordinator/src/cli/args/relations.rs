//! What `release build` is told about other releases.

use clap::Args;
use protocol::relations::{Relations, Requirement};

/// What a release says of others.
#[derive(Args, Debug, Clone, Default)]
pub struct RelationArgs {
    /// It needs another product, such as 'runtime>=2.1,<3', installed before it; give it once for each
    #[arg(long, value_name = "PRODUCT[BOUNDS]")]
    pub depends_on: Vec<Requirement>,
    /// It must not stand beside such a release
    #[arg(long, value_name = "PRODUCT[BOUNDS]")]
    pub conflicts: Vec<Requirement>,
    /// Where it is to be installed, such releases need not be any more
    #[arg(long, value_name = "PRODUCT[BOUNDS]")]
    pub supersedes: Vec<Requirement>,
    /// A stepping stone, and why: who runs an older release installs this one before any newer one
    #[arg(long, value_name = "REASON")]
    pub barrier: Option<String>,
    /// Others rest upon it: once its wave has opened, nothing but an emergency starts before it
    #[arg(long)]
    pub infrastructure: bool,
}

impl RelationArgs {
    /// As the manifest has it.
    pub fn relations(&self) -> Relations {
        Relations {
            depends_on: self.depends_on.clone(),
            conflicts: self.conflicts.clone(),
            supersedes: self.supersedes.clone(),
            barrier: self.barrier.clone(),
            infrastructure: self.infrastructure,
        }
    }
}
