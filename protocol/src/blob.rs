//! A blob: immutable bytes named by their BLAKE3 root and length.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Hash;

/// Names a blob. Both parts come from a signed statement, never from a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct BlobRef {
    /// The BLAKE3 hash of all its bytes, which is also the root of its bao tree.
    pub root: Hash,
    /// Its length in bytes.
    pub length: u64,
}

impl BlobRef {
    /// Names `bytes`.
    pub fn of(bytes: &[u8]) -> BlobRef {
        BlobRef {
            root: Hash::of(bytes),
            length: bytes.len() as u64,
        }
    }
}

impl fmt::Display for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.root, self.length)
    }
}
