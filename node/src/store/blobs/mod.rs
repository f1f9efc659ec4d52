//! Blobs on disk: a data file and an outboard file per blob, and a claim once both are durable.
//!
//! `blobs/<root>.data` holds the bytes at their places, `<root>.obao` the inner hashes of the bao
//! tree in pre-order (groups of 16 KiB, no length in front), so that a static web server with both
//! can seed as well. Bytes and inner hashes are written only after they were verified from the
//! blob's root down. `blobs.redb` names the blobs that are complete and durable; nothing else on
//! disk is believed: a blob without a claim is walked from its root when it is opened, and exactly
//! what verifies counts as held. So no crash, torn write or tampering can make a group count that
//! is wrong, and after a kill only what was in flight is fetched again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::pieces::{Geometry, PieceSet};
use protocol::{BlobRef, Hash};

/// All blobs of one store directory. Clones share it.
#[derive(Clone, Debug)]
pub struct Blobs {
    inner: Arc<()>,
}

/// One open blob, complete or not.
#[derive(Debug)]
pub struct Blob {
    name: BlobRef,
}

/// Why the store could not do it. The culprit is this machine's disk unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left.
    #[error("{path}: no space is left on the disk: free some and try again")]
    Full {
        /// Which file was written.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database of claims cannot be used.
    #[error("{path}: {reason}")]
    Claims {
        /// The database.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// Bytes are not those that their name or chaining value promises. The culprit is their giver.
    #[error("{what} is not what its hash promises")]
    WrongBytes {
        /// What was given.
        what: String,
    },
    /// The name itself is wrong: two lengths for one root, or longer than any blob may be.
    #[error("{name} cannot be a blob: {reason}")]
    WrongName {
        /// The name.
        name: BlobRef,
        /// Why.
        reason: &'static str,
    },
}

impl Blobs {
    /// Opens (or makes) the store in `dir`.
    ///
    /// # Errors
    /// When the directory or its database of claims cannot be used.
    pub fn open(dir: &Path) -> Result<Blobs, StoreError> {
        let _ = dir;
        unimplemented!()
    }

    /// Creates the blob's files, or resumes with what verifies of those that are there.
    ///
    /// # Errors
    /// When the files cannot be made, or the root is held under another length.
    pub fn open_blob(&self, blob: BlobRef) -> Result<Arc<Blob>, StoreError> {
        let _ = blob;
        unimplemented!()
    }

    /// The blob, if it is open or claimed as complete.
    pub fn get(&self, root: &Hash) -> Option<Arc<Blob>> {
        let _ = root;
        unimplemented!()
    }

    /// Every blob that is claimed as complete.
    pub fn complete(&self) -> Vec<BlobRef> {
        unimplemented!()
    }

    /// Drops the blob's claim and files. Who still has it open can read on until it is closed.
    ///
    /// # Errors
    /// When the claim or the files cannot be removed.
    pub fn drop_blob(&self, root: &Hash) -> Result<(), StoreError> {
        let _ = root;
        unimplemented!()
    }

    /// Copies a file into the store: hashed on the way, durable and claimed on return.
    ///
    /// # Errors
    /// When the file cannot be read to its end or the store not written.
    pub fn import_file(&self, path: &Path) -> Result<BlobRef, StoreError> {
        let _ = path;
        unimplemented!()
    }

    /// As [`Blobs::import_file`], but refuses a file that is not `blob`.
    ///
    /// # Errors
    /// [`StoreError::WrongBytes`] when the file is another one; else as for `import_file`.
    pub fn import_expected(&self, path: &Path, blob: BlobRef) -> Result<(), StoreError> {
        let _ = (path, blob);
        unimplemented!()
    }
}

impl Blob {
    /// Its name.
    pub fn name(&self) -> BlobRef {
        self.name
    }

    /// How it is cut.
    pub fn geometry(&self) -> Geometry {
        Geometry::of(self.name.length)
    }

    /// The pieces of which every group is verified and written.
    pub fn pieces(&self) -> PieceSet {
        unimplemented!()
    }

    /// Whether every group is verified and written.
    pub fn is_complete(&self) -> bool {
        unimplemented!()
    }

    /// Groups `[start, end)` of a piece that are not held, rising, not touching.
    pub fn missing_groups(&self, piece: u32) -> Vec<(u64, u64)> {
        let _ = piece;
        unimplemented!()
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// When a byte of it is not held or lies beyond the end, or the disk fails.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let _ = (offset, buf);
        unimplemented!()
    }

    /// Takes a plain piece (not bao-encoded). `cvs` are the chaining values of all pieces, in order
    /// (for a blob of one piece: its root). Afterwards the piece can be served like any other.
    /// The blob becomes durable and claimed with its last piece.
    ///
    /// # Errors
    /// [`StoreError::WrongBytes`] when `bytes` are not that piece, or `cvs` do not make up the root.
    pub fn import_piece(&self, piece: u32, bytes: &[u8], cvs: &[Hash]) -> Result<(), StoreError> {
        let _ = (piece, bytes, cvs);
        unimplemented!()
    }
}

/// The chaining value of a piece of a blob of this geometry; for a blob of one piece, its root.
/// Used to write an index; [`Blob::import_piece`] checks against it.
pub fn chaining_value(geometry: Geometry, piece: u32, bytes: &[u8]) -> Hash {
    let _ = (geometry, piece, bytes);
    unimplemented!()
}
