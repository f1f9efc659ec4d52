//! The ledger's Merkle tree: a short proof that an entry stands in the ledger that a signed head names.
//!
//! The tree and its proofs are those of RFC 9162, section 2.1 (Certificate Transparency), with BLAKE3 in
//! place of SHA-256; a leaf is the hash of an [`crate::audit::AuditEntry`].

use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::ids::{FleetId, Hash};
use crate::limits::AUDIT_PROOF_MAX_BYTES;
use crate::time::Time;
use crate::trust::{Statement, Trust, TrustError, Verified, header};
use crate::versioned::Versioned;

fn leaf(entry: &Hash) -> Hash {
    Hash::of(&[&[0][..], entry.as_bytes()].concat())
}

fn inner(left: &Hash, right: &Hash) -> Hash {
    Hash::of(&[&[1][..], left.as_bytes(), right.as_bytes()].concat())
}

/// The tree's root as entries come, from at most 64 hashes: those of the full subtrees so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peaks {
    entries: u64,
    /// Of falling size, one for each bit of `entries`.
    hashes: Vec<Hash>,
}

impl Peaks {
    /// Adds the entry of this hash.
    pub fn push(&mut self, entry: &Hash) {
        let mut hash = leaf(entry);
        // Every full pair becomes one.
        for _ in 0..self.entries.trailing_ones() {
            if let Some(left) = self.hashes.pop() {
                hash = inner(&left, &hash);
            }
        }
        self.hashes.push(hash);
        self.entries += 1;
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The root; the hash of nothing if there is no entry.
    pub fn root(&self) -> Hash {
        let mut peaks = self.hashes.iter().rev();
        let Some(smallest) = peaks.next() else {
            return Hash::of(b"");
        };
        peaks.fold(*smallest, |right, left| inner(left, &right))
    }
}

/// The root over some entries.
fn root_of(entries: &[Hash]) -> Hash {
    let mut peaks = Peaks::default();
    entries.iter().for_each(|entry| peaks.push(entry));
    peaks.root()
}

/// The path from entry `index` to the root over all `entries` (RFC 9162, 2.1.3.1); empty if there is no
/// such entry.
pub fn path(entries: &[Hash], index: usize) -> Vec<Hash> {
    if entries.len() < 2 || index >= entries.len() {
        return Vec::new();
    }
    let half = entries.len().next_power_of_two() / 2;
    let (left, right) = entries.split_at(half);
    let (mut below, sibling) = if index < half {
        (path(left, index), root_of(right))
    } else {
        (path(right, index - half), root_of(left))
    };
    below.push(sibling);
    below
}

/// The root that follows from an entry and its path (RFC 9162, 2.1.3.2); `None` if the path does not fit
/// the tree.
pub fn root_from(entry: &Hash, index: u64, entries: u64, path: &[Hash]) -> Option<Hash> {
    if index >= entries {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, entries - 1, leaf(entry));
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = inner(sibling, &hash);
            // Levels on which the last node stands alone have no sibling.
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = inner(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// What the coordinator signs of its ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LedgerHead {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet.
    pub fleet: FleetId,
    /// Entries.
    pub entries: u64,
    /// Root of the tree over them.
    pub root: Hash,
    /// Hash of the last one.
    pub head: Hash,
    /// Wall time at which it was signed.
    pub signed: Time,
}

impl Statement for LedgerHead {
    header!("application/vnd.tidegate.ledger-head+json", Coordinator);
}

/// That an entry stands in the ledger: verified with the public root alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditProof {
    /// The entry's number.
    pub seq: u64,
    /// Its hash.
    pub entry: Hash,
    /// See [`path`].
    pub path: Vec<Hash>,
    /// A [`LedgerHead`], as signed.
    pub head: Envelope,
}

impl Versioned for AuditProof {
    const MAGIC: [u8; 4] = *b"TGAP";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = AUDIT_PROOF_MAX_BYTES;
}

/// Why a proof proves nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProofError {
    /// Its head.
    #[error(transparent)]
    Head(#[from] TrustError),
    /// Its path.
    #[error("the path of entry {0} does not lead to the signed root")]
    Path(u64),
}

impl AuditProof {
    /// Checks the head's signature and the path to it. Gives the head.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, trust: &Trust) -> Result<Verified<LedgerHead>, ProofError> {
        let head = trust.verify::<LedgerHead>(&self.head)?;
        match root_from(&self.entry, self.seq, head.entries, &self.path) {
            Some(root) if root == head.root => Ok(head),
            _ => Err(ProofError::Path(self.seq)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(n: u64) -> Vec<Hash> {
        (0..n).map(|i| Hash::of(&i.to_le_bytes())).collect()
    }

    /// The definition, word for word: split at the largest power of two below.
    fn obvious(entries: &[Hash]) -> Hash {
        match entries {
            [] => Hash::of(b""),
            [one] => leaf(one),
            more => {
                let (left, right) = more.split_at(more.len().next_power_of_two() / 2);
                inner(&obvious(left), &obvious(right))
            }
        }
    }

    #[test]
    fn the_running_root_is_the_defined_one_and_every_path_leads_to_it() {
        let mut peaks = Peaks::default();
        for n in 0..70 {
            let all = entries(n);
            assert_eq!(peaks.entries(), n);
            assert_eq!(peaks.root(), obvious(&all), "{n} entries");
            for (index, entry) in all.iter().enumerate() {
                let path = path(&all, index);
                let at = index as u64;
                assert_eq!(root_from(entry, at, n, &path), Some(peaks.root()));
                for wrong in [at + 1, at.wrapping_sub(1)] {
                    assert_ne!(root_from(entry, wrong, n, &path), Some(peaks.root()));
                }
                assert_ne!(root_from(&Hash::of(b"x"), at, n, &path), Some(peaks.root()));
                let longer = [&path[..], &[Hash::of(b"x")]].concat();
                assert_ne!(root_from(entry, at, n, &longer), Some(peaks.root()));
                if let Some((_, shorter)) = path.split_last() {
                    assert_ne!(root_from(entry, at, n, shorter), Some(peaks.root()));
                }
            }
            peaks.push(&Hash::of(&n.to_le_bytes()));
        }
    }
}
