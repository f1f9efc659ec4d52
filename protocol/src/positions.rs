//! Where a node stands in a rollout, and in every ranking that nodes make without talking.
//!
//! Ranks are rendezvous hashes (Thaler & Ravishankar 1996, "highest random weight"): everyone hashes
//! the question with each candidate and sorts. A position mixes salt, release and node, so the same
//! machines are not always first.

use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt};

use crate::ids::{Hash, NodeId};

/// `H(salt, release, node)` as a number in `0..2^64`: the node's place in the rollout.
pub fn position(salt: &Hash, release: &Hash, node: &NodeId) -> u64 {
    keyed(
        "tidegate 2026 wave position v1",
        &[&salt.0, &release.0, &node.0],
    )
}

/// The weight of `node` for the question `about` of the kind `purpose`; lowest comes first.
pub fn rank(purpose: &'static str, about: &[u8], node: &NodeId) -> u64 {
    // Ranks are drawn often; hashing the context anew each time would double their price.
    static KEYS: LazyLock<[ContextKey; 4]> = LazyLock::new(|| {
        [
            "tidegate 2026 delegate rank v1",
            "tidegate 2026 fetcher rank v1",
            "tidegate 2026 piece owner rank v1",
            "tidegate 2026 other rank v1",
        ]
        .map(blake3::hazmat::hash_derive_key_context)
    });
    let key = match purpose {
        "delegate" => &KEYS[0],
        "fetcher" => &KEYS[1],
        "owner" => &KEYS[2],
        _ => &KEYS[3],
    };
    number(blake3::Hasher::new_from_context_key(key), &[about, &node.0])
}

fn keyed(context: &'static str, parts: &[&[u8]]) -> u64 {
    number(blake3::Hasher::new_derive_key(context), parts)
}

fn number(mut hasher: blake3::Hasher, parts: &[&[u8]]) -> u64 {
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize();
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight of 32 bytes"))
}

/// The position below which `percent` of all nodes lie, expected; `None` for 100 and more: no bound.
pub fn bound_of_percent(percent: u32) -> Option<u64> {
    (percent < 100).then(|| ((u128::from(percent) << 64) / 100) as u64)
}
