//! The installers: what a step of the journal does to the machine.
//!
//! Every step may be asked for again after a crash: it looks at what is on disk and does what is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use node_core::contract::{Step, StepOutcome};
use protocol::index::CheckedIndex;
use protocol::manifest::ReleaseManifest;
use protocol::{Hash, Verified};

use crate::store::blobs::Blob;

/// Takes the steps of installations below one directory: `<product>/{versions/<version>, current}`.
#[derive(Clone, Debug)]
pub struct Installer {
    root: PathBuf,
}

/// The release's content, complete and verified on this disk.
#[derive(Clone)]
pub struct Content {
    /// The index.
    pub index: Arc<CheckedIndex>,
    /// The pack.
    pub pack: Arc<Blob>,
}

impl Installer {
    /// Installs below `root`, which is made when it is first needed.
    pub fn new(root: impl Into<PathBuf>) -> Installer {
        Installer { root: root.into() }
    }

    /// The directory of all products.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes one step. `content` is needed for [`Step::WriteSlot`] only. Dropping the future kills a
    /// program that the step runs.
    pub async fn step(
        &self,
        install_id: Hash,
        release: &Verified<ReleaseManifest>,
        before: Option<&Verified<ReleaseManifest>>,
        content: Option<Content>,
        step: Step,
    ) -> StepOutcome {
        let _ = (install_id, release, before, content, step);
        unimplemented!()
    }
}
