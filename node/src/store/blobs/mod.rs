//! Blobs on disk: a data file and an outboard file per blob, and a claim once both are durable.
//!
//! `blobs/<root>.data` holds the bytes at their places, `<root>.obao` the inner hashes of the bao
//! tree in pre-order (groups of 16 KiB, no length in front), so that a static web server with both
//! can seed as well. Bytes and inner hashes are written only after they were verified from the
//! blob's root down. `blobs.redb` names the blobs that are complete and durable; nothing else on
//! disk is believed: a blob without a claim is walked from its root when it is opened, and exactly
//! what verifies counts as held. So no crash, torn write or tampering can make a group count that
//! is wrong, and after a kill only what was in flight is fetched again. (A bitmap on disk would
//! save that walk, about three gigabytes a second, and would have to be distrusted all the same.)

mod bao;
mod blob;
mod claims;
mod files;
mod import;
mod tree;

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use protocol::limits::BLOB_MAX_BYTES;
use protocol::pieces::Geometry;
use protocol::{BlobRef, Hash};

use crate::disk::Disk;

pub(crate) use bao::{Decoder, Encoder, Fault, Ruler};
pub use blob::Blob;
use claims::Claims;

/// All blobs of one store directory. Clones share it.
#[derive(Clone, Debug)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    disk: Disk,
    dir: PathBuf,
    claims: Arc<Claims>,
    open: Mutex<HashMap<Hash, Slot>>,
}

/// Tells whether anything of a store is still in use; holds nothing itself.
#[derive(Clone, Debug)]
pub struct Lifeline(std::sync::Weak<()>);

impl Lifeline {
    /// Whether the store and all its blobs are closed, so that the directory can be opened again.
    pub fn ended(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// A blob that is open, or is being opened by whoever holds the lock.
type Slot = Arc<Mutex<Option<Arc<Blob>>>>;

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

impl StoreError {
    fn file(path: &Path, source: io::Error) -> StoreError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path },
            _ => StoreError::File { path, source },
        }
    }

    fn claims(path: &Path, reason: &dyn Display) -> StoreError {
        StoreError::Claims {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

impl Blobs {
    /// Opens (or makes) the store in `dir`.
    ///
    /// # Errors
    /// When the directory or its database of claims cannot be used.
    pub fn open(dir: &Path) -> Result<Blobs, StoreError> {
        Blobs::open_on(Disk::default(), dir)
    }

    /// The same on any disk.
    pub(crate) fn open_on(disk: Disk, dir: &Path) -> Result<Blobs, StoreError> {
        let blobs = dir.join("blobs");
        disk.make_dirs(&blobs)
            .map_err(|e| StoreError::file(&blobs, e))?;
        import::sweep(&disk, &blobs)?;
        let claims = Arc::new(Claims::open(&disk, &dir.join("blobs.redb"))?);
        disk.sync_dir(dir).map_err(|e| StoreError::file(dir, e))?;
        Ok(Blobs {
            inner: Arc::new(Inner {
                disk,
                dir: blobs,
                claims,
                open: Mutex::default(),
            }),
        })
    }

    /// Tells later whether this store is closed.
    pub fn lifeline(&self) -> Lifeline {
        Lifeline(Arc::downgrade(&self.inner.claims.open))
    }

    /// Creates the blob's files, or resumes with what verifies of those that are there.
    ///
    /// # Errors
    /// When the files cannot be made, or the root is held under another length.
    pub fn open_blob(&self, blob: BlobRef) -> Result<Arc<Blob>, StoreError> {
        check_name(blob)?;
        let slot = self.slot(blob.root);
        let mut open = slot.lock().expect("no panic under this lock");
        if let Some(open) = &*open {
            return if open.name() == blob {
                Ok(open.clone())
            } else {
                Err(other_length(blob))
            };
        }
        let opened = self.open_files(blob)?;
        *open = Some(opened.clone());
        Ok(opened)
    }

    /// The blob, if it is open or claimed as complete. One that is just being opened is not there yet.
    pub fn get(&self, root: &Hash) -> Option<Arc<Blob>> {
        let slot = self
            .inner
            .open
            .lock()
            .expect("no panic under this lock")
            .get(root)
            .cloned();
        if let Some(slot) = slot {
            return slot.try_lock().ok()?.clone();
        }
        let length = self
            .inner
            .claims
            .get(root)
            .inspect_err(|e| tracing::warn!("{e}"))
            .ok()??;
        let name = BlobRef {
            root: *root,
            length,
        };
        self.open_blob(name)
            .inspect_err(|e| tracing::warn!("{e}"))
            .ok()
    }

    /// Every blob that is claimed as complete; none if the claims cannot be read.
    pub fn complete(&self) -> Vec<BlobRef> {
        self.inner
            .claims
            .all()
            .inspect_err(|e| tracing::warn!("{e}"))
            .unwrap_or_default()
    }

    /// Drops the blob's claim and files. Who still has it open can read on until it is closed.
    ///
    /// # Errors
    /// When the claim or the files cannot be removed.
    pub fn drop_blob(&self, root: &Hash) -> Result<(), StoreError> {
        let slot = self.slot(*root);
        let mut open = slot.lock().expect("no panic under this lock");
        match open.take() {
            Some(blob) => blob.discard()?,
            None => {
                self.inner.claims.remove(root)?;
                let (data, outboard) = self.paths(root);
                for path in [data, outboard] {
                    match self.inner.disk.remove(&path) {
                        Err(e) if e.kind() != io::ErrorKind::NotFound => {
                            return Err(StoreError::file(&path, e));
                        }
                        _ => {}
                    }
                }
            }
        }
        self.inner
            .open
            .lock()
            .expect("no panic under this lock")
            .remove(root);
        Ok(())
    }

    /// The caller holds the root's slot.
    fn open_files(&self, blob: BlobRef) -> Result<Arc<Blob>, StoreError> {
        let paths = self.paths(&blob.root);
        let claimed = match self.inner.claims.get(&blob.root)? {
            Some(length) if length != blob.length => return Err(other_length(blob)),
            claimed => claimed.is_some(),
        };
        let intact = claimed && {
            let outboard = tree::outboard_bytes(Geometry::of(blob.length));
            let is = |path: &Path, length| std::fs::metadata(path).is_ok_and(|m| m.len() == length);
            is(&paths.0, blob.length) && is(&paths.1, outboard)
        };
        if claimed && !intact {
            tracing::warn!(blob = %blob.root.short(), "a claimed blob's files are gone or cut: fetching what is missing");
            self.inner.claims.remove(&blob.root)?;
        }
        let claims = self.inner.claims.clone();
        let open = Blob::open(&self.inner.disk, blob, paths, claims, intact)?;
        Ok(Arc::new(open))
    }

    fn slot(&self, root: Hash) -> Slot {
        self.inner
            .open
            .lock()
            .expect("no panic under this lock")
            .entry(root)
            .or_default()
            .clone()
    }

    fn paths(&self, root: &Hash) -> (PathBuf, PathBuf) {
        (
            self.inner.dir.join(format!("{root}.data")),
            self.inner.dir.join(format!("{root}.obao")),
        )
    }
}

/// The chaining value of a piece of a blob of this geometry; for a blob of one piece, its root.
/// Used to write an index; [`Blob::import_piece`] checks against it. `bytes` are exactly the piece.
pub fn chaining_value(geometry: Geometry, piece: u32, bytes: &[u8]) -> Hash {
    let node = tree::Node::piece(geometry, piece);
    let mut pairs = vec![0; (node.groups as usize - 1) * tree::PAIR_BYTES];
    tree::hash_subtree(node, bytes, &mut pairs)
}

fn check_name(name: BlobRef) -> Result<(), StoreError> {
    if name.length > BLOB_MAX_BYTES {
        return Err(StoreError::WrongName {
            name,
            reason: "it is longer than any blob may be",
        });
    }
    if name.length == 0 && name.root != Hash::of(b"") {
        return Err(StoreError::WrongName {
            name,
            reason: "the root is not that of an empty blob",
        });
    }
    Ok(())
}

fn other_length(name: BlobRef) -> StoreError {
    StoreError::WrongName {
        name,
        reason: "the same root is held under another length",
    }
}

#[cfg(test)]
mod tests;
