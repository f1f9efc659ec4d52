//! Content on its way from the other side's store into the installer's own: opened by names that the signed
//! manifest gives, never through a link, and hashed while it is copied. Only the copy is installed, so that
//! what happens to the original afterwards does not matter.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::BlobRef;
use protocol::manifest::ReleaseManifest;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::content::read_index;
use crate::install::{Content, blobs_of};
use crate::store::blobs::{Blob, Blobs};

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Copies a release's index and pack out of the node directory `from`.
pub(super) fn take(
    from: &Path,
    blobs: &Blobs,
    release: &ReleaseManifest,
) -> Result<Content, String> {
    let (index, pack) = blobs_of(release)?;
    let read = read_index(&*copy(from, blobs, index)?, pack).map_err(|e| e.to_string())?;
    Ok(Content {
        index: Arc::new(read),
        pack: copy(from, blobs, pack)?,
    })
}

/// Drops the copies.
pub(super) fn drop_copies(blobs: &Blobs, release: &ReleaseManifest) {
    let Ok((index, pack)) = blobs_of(release) else {
        return;
    };
    for blob in [index, pack] {
        if let Err(e) = blobs.drop_blob(&blob.root) {
            tracing::warn!(event = "storage", "the copy of blob {blob} stays: {e}");
        }
    }
}

fn copy(from: &Path, blobs: &Blobs, blob: BlobRef) -> Result<Arc<Blob>, String> {
    let path = from.join(format!("store/blobs/{}.data", blob.root));
    let file = open(from, blob).map_err(|e| format!("{}: {e}", path.display()))?;
    // By its handle: it is this file, whatever stands under the name by now.
    let held = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    blobs
        .import_expected(&held, blob)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    let kept = blobs.get(&blob.root).filter(|kept| kept.is_complete());
    kept.ok_or_else(|| format!("the copy of blob {blob} is gone"))
}

fn open(from: &Path, blob: BlobRef) -> io::Result<File> {
    let mut at = openat(CWD, from, DIRECTORY, Mode::empty())?;
    for part in ["store", "blobs"] {
        at = openat(&at, part, DIRECTORY, Mode::empty())?;
    }
    // Not to wait for whoever writes into a pipe.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(
        &at,
        format!("{}.data", blob.root),
        flags,
        Mode::empty(),
    )?);
    let found = file.metadata()?;
    if !found.is_file() || found.len() != blob.length {
        return Err(io::Error::other(format!("it is not the file of {blob}")));
    }
    Ok(file)
}
