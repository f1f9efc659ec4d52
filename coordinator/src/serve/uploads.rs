//! Blobs on their way to the origin: operators upload, the origin verifies.
//!
//! An upload lands beside the origin's `incoming` directory and is renamed into it once it is whole
//! and durable. The origin takes it from there or renames it to `.refused`. No byte is looked at here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use futures::StreamExt as _;
use protocol::BlobRef;
use protocol::limits::BLOB_MAX_BYTES;
use protocol::manifest::ReleaseManifest;
use tokio::io::AsyncWriteExt as _;

use super::House;
use super::store::StoreError;
use crate::api::messages::BlobPresence;

/// The origin is given so long to take a release in, and more for each byte.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(60);
/// The slowest disk that an origin may have, bytes a second.
const IMPORT_BYTES_PER_S: u64 = 10 << 20;
/// How often its directory is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Why a blob did not arrive. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Its name says another length.
    #[error("blob {blob} came with {got} bytes")]
    Length {
        /// The blob.
        blob: BlobRef,
        /// What came.
        got: u64,
    },
    /// No blob is so long.
    #[error("blob {0} is over the limit of {BLOB_MAX_BYTES} bytes")]
    TooLong(BlobRef),
    /// The sender broke off.
    #[error("the upload of blob {0} broke off: {1}")]
    Broken(BlobRef, String),
    /// No room.
    #[error("the coordinator's disk is full at {0}; free space there and upload again")]
    DiskFull(PathBuf),
    /// The disk.
    #[error("{path} cannot be written: {why}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Not there.
    #[error("blob {0} was not uploaded; upload it before the release is published")]
    Absent(BlobRef),
    /// The origin looked at it.
    #[error(
        "blob {0} was refused by the origin: its bytes are not what its name says; upload it again"
    )]
    Refused(BlobRef),
    /// The origin does not look at it.
    #[error("the origin did not take blob {0} in; is it running (see `origin/origin.log`)?")]
    Waiting(BlobRef),
    /// Our own database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn incoming(house: &House, blob: BlobRef) -> PathBuf {
    house
        .dir
        .incoming_dir()
        .join(format!("{}.{}", blob.root, blob.length))
}

fn refused(house: &House, blob: BlobRef) -> PathBuf {
    house
        .dir
        .incoming_dir()
        .join(format!("{}.{}.refused", blob.root, blob.length))
}

/// Takes a blob from the body of a request.
///
/// # Errors
/// When it is not whole or the disk fails; nothing of it stays then.
pub async fn receive(house: &Arc<House>, blob: BlobRef, body: Body) -> Result<(), UploadError> {
    if blob.length > BLOB_MAX_BYTES {
        return Err(UploadError::TooLong(blob));
    }
    let dir = house.dir.uploads_dir();
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            UploadError::DiskFull(dir.clone())
        }
        _ => UploadError::Disk {
            path: dir.clone(),
            why: e.to_string(),
        },
    };
    tokio::fs::create_dir_all(&dir).await.map_err(failed)?;
    let temp = tempfile::NamedTempFile::new_in(&dir).map_err(failed)?;
    let mut file = tokio::fs::File::from_std(temp.reopen().map_err(failed)?);
    let (mut stream, mut got) = (body.into_data_stream(), 0);
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.map_err(|e| UploadError::Broken(blob, e.to_string()))?;
        got += bytes.len() as u64;
        if got > blob.length {
            return Err(UploadError::Length { blob, got });
        }
        file.write_all(&bytes).await.map_err(failed)?;
    }
    if got < blob.length {
        return Err(UploadError::Length { blob, got });
    }
    file.flush().await.map_err(failed)?;
    file.sync_all().await.map_err(failed)?;
    let (to, old, store, now) = (
        incoming(house, blob),
        refused(house, blob),
        house.store.clone(),
        house.clock.now().wall,
    );
    let moved = tokio::task::spawn_blocking(move || {
        let _ = std::fs::remove_file(old);
        // Noted first: a whole upload that is not noted would have to be sent again, one that is noted
        // and missing is found out when the origin is asked for it.
        store
            .set_uploaded(blob, true, now)
            .map(|()| temp.persist(to).map(drop).map_err(|e| e.error))
    });
    match moved.await {
        Ok(noted) => noted?.map_err(failed),
        Err(e) => Err(UploadError::Broken(blob, e.to_string())),
    }
}

/// Where a blob is.
///
/// # Errors
/// When the disk fails.
pub fn presence(house: &House, blob: BlobRef) -> Result<BlobPresence, StoreError> {
    // Asked before the directory: the origin may take it in between the two.
    let uploaded = house.store.was_uploaded(blob)?;
    Ok(if incoming(house, blob).exists() {
        BlobPresence::Incoming
    } else if refused(house, blob).exists() {
        BlobPresence::Refused
    } else if uploaded {
        BlobPresence::Held
    } else {
        BlobPresence::Absent
    })
}

/// Waits until the origin holds every blob that nodes will ask it for.
///
/// # Errors
/// When one was never uploaded, was refused, or the origin does not look.
pub async fn settled(house: &Arc<House>, manifest: &ReleaseManifest) -> Result<(), UploadError> {
    for artifact in &manifest.artifacts {
        for blob in [artifact.index]
            .into_iter()
            .chain(artifact.carriers.iter().map(|c| c.blob))
        {
            taken_in(house, blob).await?;
        }
        // Nodes make the pack out of a carrier, where there is one; an origin that was given the pack
        // serves it as well.
        let must = artifact.full_carrier().is_none();
        if must || presence(house, artifact.pack)? != BlobPresence::Absent {
            taken_in(house, artifact.pack).await?;
        }
    }
    Ok(())
}

async fn taken_in(house: &Arc<House>, blob: BlobRef) -> Result<(), UploadError> {
    let patience = IMPORT_TIMEOUT + Duration::from_secs(blob.length / IMPORT_BYTES_PER_S);
    let since = Instant::now();
    loop {
        match presence(house, blob)? {
            BlobPresence::Held => return Ok(()),
            BlobPresence::Absent => return Err(UploadError::Absent(blob)),
            BlobPresence::Refused => {
                house
                    .store
                    .set_uploaded(blob, false, house.clock.now().wall)?;
                return Err(UploadError::Refused(blob));
            }
            BlobPresence::Incoming if since.elapsed() > patience => {
                return Err(UploadError::Waiting(blob));
            }
            BlobPresence::Incoming => tokio::time::sleep(LOOK).await,
        }
    }
}
