//! Taking a whole file into the store: hashed while it is copied, durable and claimed on return.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::limits::{BLOB_MAX_BYTES, PIECE_MAX_BYTES};
use protocol::pieces::Geometry;
use protocol::{BlobRef, Hash};
use rayon::prelude::*;

use super::files::StoreFile;
use super::tree::{self, Node, PAIR_BYTES};
use super::{Blobs, StoreError};
use crate::disk::Disk;

/// Files under these names were being imported when the process ended.
const PREFIX: &str = "import-";
/// Bytes that are read, hashed and written at a time: whole pieces of any size.
const BATCH_BYTES: u64 = 2 * PIECE_MAX_BYTES;

/// Removes what unfinished imports left.
pub(super) fn sweep(disk: &Disk, dir: &Path) -> Result<(), StoreError> {
    for entry in std::fs::read_dir(dir).map_err(|e| StoreError::file(dir, e))? {
        let entry = entry.map_err(|e| StoreError::file(dir, e))?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            disk.remove(&entry.path())
                .map_err(|e| StoreError::file(&entry.path(), e))?;
        }
    }
    Ok(())
}

impl Blobs {
    /// Copies a file into the store: hashed on the way, durable and claimed on return.
    ///
    /// # Errors
    /// When the file cannot be read to its end or the store not written.
    pub fn import_file(&self, path: &Path) -> Result<BlobRef, StoreError> {
        let draft = Draft::take(self, path)?;
        draft.settle(self)
    }

    /// As [`Blobs::import_file`], but refuses a file that is not `blob`.
    ///
    /// # Errors
    /// [`StoreError::WrongBytes`] when the file is another one; else as for `import_file`.
    pub fn import_expected(&self, path: &Path, blob: BlobRef) -> Result<(), StoreError> {
        let wrong = || StoreError::WrongBytes {
            what: format!("{} (expected {blob})", path.display()),
        };
        let length = std::fs::metadata(path)
            .map_err(|e| StoreError::file(path, e))?
            .len();
        if length != blob.length {
            return Err(wrong());
        }
        let draft = Draft::take(self, path)?;
        if draft.name != blob {
            return Err(wrong());
        }
        draft.settle(self).map(|_| ())
    }
}

/// A hashed copy under temporary names; removed when dropped before it was settled.
struct Draft {
    name: BlobRef,
    cvs: Vec<Hash>,
    data: StoreFile,
    outboard: StoreFile,
    settled: bool,
}

impl Draft {
    fn take(blobs: &Blobs, path: &Path) -> Result<Draft, StoreError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let read_error = |e| StoreError::file(path, e);
        let mut source = File::open(path).map_err(read_error)?;
        let length = source.metadata().map_err(read_error)?.len();
        if length > BLOB_MAX_BYTES {
            return Err(read_error(std::io::Error::other(
                "it is longer than any blob may be",
            )));
        }
        let geometry = Geometry::of(length);
        let stem = format!(
            "{PREFIX}{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let file = |end: &str, bytes| {
            let path = blobs.inner.dir.join(format!("{stem}.{end}"));
            StoreFile::open(&blobs.inner.disk, path, bytes)
        };
        let data = file("data", length)?;
        let outboard = file("obao", tree::outboard_bytes(geometry)).inspect_err(|_| data.remove());
        let mut draft = Draft {
            name: BlobRef {
                root: Hash([0; 32]),
                length,
            },
            cvs: Vec::with_capacity(geometry.pieces() as usize),
            data,
            outboard: outboard?,
            settled: false,
        };

        let mut buffer = vec![0; length.min(BATCH_BYTES) as usize];
        let mut offset = 0;
        while draft.cvs.len() < geometry.pieces() as usize {
            let batch = &mut buffer[..(length - offset).min(BATCH_BYTES) as usize];
            source
                .read_exact(batch)
                .map_err(|_| read_error(std::io::Error::other("it changed while it was read")))?;
            draft.take_pieces(geometry, offset, batch)?;
            offset += batch.len() as u64;
        }
        if source.read(&mut [0]).map_err(read_error)? != 0 {
            return Err(read_error(std::io::Error::other(
                "it changed while it was read",
            )));
        }
        let (root, pairs) = tree::hash_above(geometry, &draft.cvs);
        for (slot, pair) in &pairs {
            draft.outboard.write_at(pair, slot * PAIR_BYTES as u64)?;
        }
        draft.name.root = root;
        Ok(draft)
    }

    /// Hashes and writes the pieces that begin at `offset`.
    fn take_pieces(
        &mut self,
        geometry: Geometry,
        offset: u64,
        batch: &[u8],
    ) -> Result<(), StoreError> {
        let first = self.cvs.len() as u32;
        let pieces: Vec<&[u8]> = match batch {
            [] => vec![batch],
            _ => batch.chunks(geometry.piece_bytes() as usize).collect(),
        };
        let hashed: Result<Vec<Hash>, StoreError> = pieces
            .into_par_iter()
            .enumerate()
            .map(|(i, bytes)| {
                let node = Node::piece(geometry, first + i as u32);
                let mut pairs = vec![0; (node.groups as usize - 1) * PAIR_BYTES];
                let cv = tree::hash_subtree(node, bytes, &mut pairs);
                self.data
                    .write_at(bytes, offset + i as u64 * geometry.piece_bytes())?;
                self.outboard
                    .write_at(&pairs, node.slot * PAIR_BYTES as u64)?;
                Ok(cv)
            })
            .collect();
        self.cvs.extend(hashed?);
        Ok(())
    }

    /// Gives the draft its name, or its bytes to the blob that is already open under it.
    fn settle(mut self, blobs: &Blobs) -> Result<BlobRef, StoreError> {
        let slot = blobs.slot(self.name.root);
        let mut open = slot.lock().expect("no panic under this lock");
        if open.is_none() && blobs.inner.claims.get(&self.name.root)?.is_some() {
            *open = Some(blobs.open_files(self.name)?);
        }
        if let Some(open) = &*open {
            self.give_to(open)?;
            return Ok(self.name);
        }
        self.data.sync()?;
        self.outboard.sync()?;
        let (data, outboard) = blobs.paths(&self.name.root);
        self.data.rename(data)?;
        self.outboard.rename(outboard)?;
        let dir = &blobs.inner.dir;
        let synced = blobs.inner.disk.sync_dir(dir);
        synced.map_err(|e| StoreError::file(dir, e))?;
        blobs.inner.claims.insert(self.name)?;
        self.settled = true;
        *open = Some(blobs.open_files(self.name)?);
        Ok(self.name)
    }

    fn give_to(&self, blob: &super::Blob) -> Result<(), StoreError> {
        let geometry = blob.geometry();
        let mut buffer = vec![0; geometry.piece_bytes() as usize];
        for piece in 0..geometry.pieces() {
            let range = geometry.piece_range(piece);
            if !blob.holds(geometry.piece_groups(piece)) {
                let bytes = &mut buffer[..(range.end - range.start) as usize];
                self.data
                    .read_at(bytes, range.start)
                    .map_err(|e| StoreError::file(self.data.path(), e))?;
                blob.import_piece(piece, bytes, &self.cvs)?;
            }
        }
        blob.seal_if_complete()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.settled {
            self.data.remove();
            self.outboard.remove();
        }
    }
}
