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

fn import_all(incoming: &Path, blobs: &Blobs) -> io::Result<()> {
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
            Err(e) => return Err(io::Error::other(e)),
        }
    }
    Ok(())
}

fn blob_of(path: &Path) -> Option<BlobRef> {
    let (root, length) = path.file_name()?.to_str()?.split_once('.')?;
    Some(BlobRef {
        root: root.parse().ok()?,
        length: length.parse().ok()?,
    })
}
