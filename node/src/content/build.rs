//! Building a release's content: a directory or a file becomes index, pack and `full` carrier.

use std::path::{Path, PathBuf};

use protocol::BlobRef;
use serde::{Deserialize, Serialize};

/// Choices of a build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BuildOptions {
    /// zstd level of the carrier, 1 (quick) to 19 (small).
    pub level: i32,
}

impl Default for BuildOptions {
    fn default() -> BuildOptions {
        BuildOptions { level: 10 }
    }
}

/// What a build made. The blobs lie in its directory as [`Built::INDEX`], [`Built::PACK`] and
/// [`Built::CARRIER`], this description as [`Built::DESCRIPTION`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Built {
    /// Format version, 1.
    pub version: u32,
    /// The index blob.
    pub index: BlobRef,
    /// The pack blob.
    pub pack: BlobRef,
    /// The `full` carrier blob.
    pub carrier: BlobRef,
    /// Bytes that the installed tree needs on disk, each file rounded up to 4 KiB.
    pub disk_bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of all files, before equal chunks are stored once.
    pub plain_bytes: u64,
}

impl Built {
    /// File name of the index blob.
    pub const INDEX: &'static str = "index";
    /// File name of the pack blob.
    pub const PACK: &'static str = "pack";
    /// File name of the `full` carrier blob.
    pub const CARRIER: &'static str = "carrier.full";
    /// File name of the description itself, JSON.
    pub const DESCRIPTION: &'static str = "build.json";

    /// Reads the description of the build in `out`.
    ///
    /// # Errors
    /// When `out` holds no build, or one of another version.
    pub fn load(out: &Path) -> Result<Built, BuildError> {
        let _ = out;
        unimplemented!()
    }

    /// The three blobs and their files in `out`.
    pub fn blobs(&self, out: &Path) -> [(BlobRef, PathBuf); 3] {
        [
            (self.index, out.join(Self::INDEX)),
            (self.pack, out.join(Self::PACK)),
            (self.carrier, out.join(Self::CARRIER)),
        ]
    }
}

/// Why a release cannot be built. The culprit is the operator's tree or machine.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A name or file that a release cannot hold.
    #[error("{path} cannot be released: {why}")]
    Refused {
        /// The path, escaped.
        path: String,
        /// Why, and what to do.
        why: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The output directory is something else.
    #[error("{path} is refused as output: {why}")]
    Output {
        /// The path.
        path: String,
        /// Why, and what to do.
        why: &'static str,
    },
}

/// Cuts `path` (a directory, or one file) and writes its blobs into the directory `out`, which appears
/// complete or not at all. The same tree gives the same bytes.
///
/// # Errors
/// One line that names the path: it does not exist, cannot be read, cannot be released, changed while
/// it was read, or `out` cannot be written.
pub fn build(path: &Path, out: &Path, options: BuildOptions) -> Result<Built, BuildError> {
    let _ = (path, out, options);
    unimplemented!()
}
