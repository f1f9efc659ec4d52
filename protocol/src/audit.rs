//! The coordinator's ledger as it stands on disk: hash-chained entries.
//!
//! An entry's hash covers the one before, so cutting, editing or reordering shows at the first bad
//! entry. Everything that the coordinator knows is rebuilt from here.

use serde::{Deserialize, Serialize};

use crate::ids::Hash;
use crate::time::Time;
use crate::versioned::Versioned;

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Counted from 0, without gap.
    pub seq: u64,
    /// Hash of the entry before; zeroes for the first.
    pub prev: Hash,
    /// When it was written, wall time.
    pub time: Time,
    /// Who did it: an operator's key, `coordinator`, or a node.
    pub actor: String,
    /// What was done, in a word or two: `order`, `approve`, `enroll`, …
    pub action: String,
    /// What it was done to: a rollout, a node, a release.
    pub object: String,
    /// The event itself, as JSON, in the coordinator's own terms.
    pub body: Vec<u8>,
}

impl Versioned for AuditEntry {
    const MAGIC: [u8; 4] = *b"TGAU";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = 8 << 20;
}

impl AuditEntry {
    /// The hash that the next entry carries.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_bytes())
    }
}
