//! Writing the files of a release, and checking ones that are there.

use std::io;
use std::path::Path;

use protocol::index::CheckedIndex;

use crate::store::blobs::Blob;

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The operating system refused: the machine is at fault, not the release.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A chunk is not what the index names.
    #[error("{path}: its bytes in the pack are not the ones that the index names")]
    Wrong {
        /// The file.
        path: String,
    },
}

/// Writes the tree of `index`, with bytes from `pack`, as the new directory `into`, durably. What an
/// earlier, broken attempt left at `into` is removed first.
///
/// # Errors
/// When the disk refuses, or the pack and the index do not belong together.
pub fn unpack(index: &CheckedIndex, pack: &Blob, into: &Path) -> Result<(), UnpackError> {
    let _ = (index, pack, into);
    unimplemented!()
}
