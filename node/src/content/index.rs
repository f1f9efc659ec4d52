//! Reading an index blob: bounded, decoded, checked, and about the right pack.

use std::io;

use protocol::BlobRef;
use protocol::carrier::FrameTableError;
use protocol::index::{CheckedIndex, Index, IndexError};
use protocol::limits::INDEX_MAX_BYTES;
use protocol::versioned::{DecodeError, Versioned};

use crate::store::blobs::{Blob, StoreError};

/// Why content that lies on this disk, verified against its name, is of no use after all. Unless it
/// is [`ReadError::Io`], [`ReadError::Store`] or [`ReadError::Missing`], the culprit is who signed the release.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not every byte that is needed is here.
    #[error("blob {0} is not complete where it is read")]
    Missing(BlobRef),
    /// Longer than its kind may be.
    #[error("blob {blob} is longer than its limit of {max} bytes")]
    TooLong {
        /// The blob.
        blob: BlobRef,
        /// The limit.
        max: u64,
    },
    /// Not of its format.
    #[error("blob {blob}: {source}")]
    Format {
        /// The blob.
        blob: BlobRef,
        /// What is wrong.
        source: DecodeError,
    },
    /// The index breaks a rule.
    #[error("index {blob}: {source}")]
    Index {
        /// The blob.
        blob: BlobRef,
        /// Which rule.
        source: IndexError,
    },
    /// The index describes another pack.
    #[error("index {blob} is about pack {found}, the release names {expected}")]
    WrongPack {
        /// The index.
        blob: BlobRef,
        /// Its pack.
        found: BlobRef,
        /// The signed one.
        expected: BlobRef,
    },
    /// The carrier's frame table breaks a rule.
    #[error("carrier {blob}: {source}")]
    Table {
        /// The carrier.
        blob: BlobRef,
        /// Which rule.
        source: FrameTableError,
    },
    /// A frame that does not unfold to exactly its plain bytes.
    #[error("carrier {blob}: frame {frame} is refused: {why}")]
    Frame {
        /// The carrier.
        blob: BlobRef,
        /// The frame.
        frame: u32,
        /// What is wrong.
        why: String,
    },
    /// The pack did not take a piece.
    #[error("pack {blob}: {source}")]
    Store {
        /// The pack.
        blob: BlobRef,
        /// Why.
        source: StoreError,
    },
    /// The disk failed.
    #[error("blob {blob} cannot be read: {source}")]
    Io {
        /// The blob.
        blob: BlobRef,
        /// Why.
        source: io::Error,
    },
}

impl ReadError {
    /// Whether this machine is at fault: bytes are not here, or the disk failed. Else the content is.
    pub fn is_local(&self) -> bool {
        match self {
            ReadError::Missing(_) | ReadError::Io { .. } => true,
            ReadError::Store { source, .. } => !matches!(
                source,
                StoreError::WrongBytes { .. } | StoreError::WrongName { .. }
            ),
            ReadError::TooLong { .. }
            | ReadError::Format { .. }
            | ReadError::Index { .. }
            | ReadError::WrongPack { .. }
            | ReadError::Table { .. }
            | ReadError::Frame { .. } => false,
        }
    }
}

/// Reads and checks the index in `blob`, which must describe `pack`.
///
/// # Errors
/// When the blob is incomplete or over the limit, is no index, breaks a rule, or is about another pack.
pub fn read_index(blob: &Blob, pack: BlobRef) -> Result<CheckedIndex, ReadError> {
    let name = blob.name();
    if name.length > INDEX_MAX_BYTES {
        return Err(ReadError::TooLong {
            blob: name,
            max: INDEX_MAX_BYTES,
        });
    }
    if !blob.is_complete() {
        return Err(ReadError::Missing(name));
    }
    let mut bytes = vec![0; name.length as usize];
    blob.read_at(0, &mut bytes)
        .map_err(|source| ReadError::Io { blob: name, source })?;
    let index =
        Index::from_bytes(&bytes).map_err(|source| ReadError::Format { blob: name, source })?;
    drop(bytes);
    if index.pack != pack {
        return Err(ReadError::WrongPack {
            blob: name,
            found: index.pack,
            expected: pack,
        });
    }
    index
        .check()
        .map_err(|source| ReadError::Index { blob: name, source })
}
