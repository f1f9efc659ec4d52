//! The origin's door: files that the coordinator laid into `DIR/incoming`, named
//! `<root>.<length>`, are checked, imported and deleted; a wrong one is renamed to `.refused`.
//!
//! The writer gives a file its name when it is whole. Names of another form are left alone.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::BlobRef;

use crate::store::blobs::{Blobs, StoreError};

/// The directory is looked at this often.
const LOOK: Duration = Duration::from_millis(200);
/// After the disk refused, it is left alone for this long.
const DISK_RETRY: Duration = Duration::from_secs(5);

/// Where files come in.
pub fn directory(dir: &Path) -> PathBuf {
    dir.join("incoming")
}

/// Watches `DIR/incoming` for ever.
pub async fn watch(dir: PathBuf, blobs: Blobs) {
    let incoming = directory(&dir);
    loop {
        let (from, into) = (incoming.clone(), blobs.clone());
        let looked = tokio::task::spawn_blocking(move || import_all(&from, &into)).await;
        match looked {
            Ok(Err(e)) => {
                tracing::warn!(event = "storage", "{}: {e}", incoming.display());
                tokio::time::sleep(DISK_RETRY).await;
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Imports what is there. A file that the disk has no room for stays and holds up no other.
fn import_all(incoming: &Path, blobs: &Blobs) -> io::Result<()> {
    let mut full = Ok(());
    for entry in std::fs::read_dir(incoming)? {
        let path = entry?.path();
        let Some(blob) = blob_of(&path) else { continue };
        match blobs.import_expected(&path, blob) {
            Ok(()) => {
                std::fs::remove_file(&path)?;
                tracing::info!(event = "imported", "{blob}");
            }
            Err(e @ (StoreError::WrongBytes { .. } | StoreError::WrongName { .. })) => {
                let mut aside = path.clone().into_os_string();
                aside.push(".refused");
                std::fs::rename(&path, aside)?;
                tracing::warn!(event = "poisoned", "{}: {e}", path.display());
            }
            Err(e) => full = Err(io::Error::other(e)),
        }
    }
    full
}

fn blob_of(path: &Path) -> Option<BlobRef> {
    let (root, length) = path.file_name()?.to_str()?.split_once('.')?;
    Some(BlobRef {
        root: root.parse().ok()?,
        length: length.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use protocol::Hash;
    use protocol::limits::BLOB_MAX_BYTES;

    use super::*;

    /// A large upload used to keep all behind it out for as long as the disk was full, and to leave a
    /// file at every attempt.
    #[test]
    fn an_upload_that_the_disk_has_no_room_for_waits_and_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let incoming = directory(dir.path());
        std::fs::create_dir(&incoming).unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let disk = rustix::fs::statvfs(dir.path()).unwrap();
        let length = (disk.f_bavail * disk.f_frsize) + (64 << 30);
        if length > BLOB_MAX_BYTES {
            // No blob is that large: this disk cannot be too full for one.
            return;
        }
        let large = incoming.join(format!("{}.{length}", Hash::of(b"large")));
        let file = std::fs::File::create(&large).unwrap();
        file.set_len(length).unwrap();
        let small = BlobRef::of(b"small");
        for n in 0..3 {
            let path = incoming.join(format!("{}.{}", small.root, small.length));
            std::fs::write(&path, b"small").unwrap();
            let error = import_all(&incoming, &blobs).unwrap_err().to_string();
            assert!(error.contains("no space"), "{error}");
            assert!(large.exists() && !path.exists(), "attempt {n}");
            assert_eq!(blobs.complete(), [small]);
        }
        let left = std::fs::read_dir(dir.path().join("blobs")).unwrap().count();
        assert_eq!(left, 2, "the small blob's files and nothing else");
        std::fs::remove_file(&large).unwrap();
        assert!(import_all(&incoming, &blobs).is_ok());
    }
}
