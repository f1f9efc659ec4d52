//! Names of things: hashes, keys, nodes, sites, rollouts, sequence numbers.
//!
//! In JSON a hash or key is text (hex; a node's id is base32, because it must fit a DNS label), in
//! binary formats it is its 32 bytes.

use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that does not name what it should.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not a {what}")]
pub struct ParseIdError {
    /// What was expected.
    pub what: &'static str,
    /// The text as given, cut at 80 characters.
    pub text: String,
}

fn bad(what: &'static str, text: &str) -> ParseIdError {
    ParseIdError {
        what,
        text: text.chars().take(80).collect(),
    }
}

/// What follows the first eight bytes, as numbers in the order of the bytes.
#[inline]
fn tail(bytes: &[u8; 32]) -> [u64; 3] {
    let word = |n: usize| bytes[8 * n..].first_chunk::<8>().copied();
    [1, 2, 3].map(|n| u64::from_be_bytes(word(n).unwrap_or_default()))
}

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident, $what:literal, $to:expr, $from:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; 32]);

        impl PartialOrd for $name {
            #[inline]
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        // Byte by byte, as arrays are ordered, eight at a time. Keys of ordered maps are compared all the
        // time: the first eight bytes nearly always decide, and else the keys are nearly always equal.
        impl Ord for $name {
            #[inline]
            fn cmp(&self, other: &Self) -> Ordering {
                let heads = self.head().cmp(&other.head());
                heads.then_with(|| tail(&self.0).cmp(&tail(&other.0)))
            }
        }
        impl $name {
            /// The first eight bytes as a number, big-endian: in the order of the whole.
            #[inline]
            pub fn head(&self) -> u64 {
                let head = self.0.first_chunk::<8>().copied();
                u64::from_be_bytes(head.unwrap_or_default())
            }
            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// The first characters of the text form, for people.
            pub fn short(&self) -> String {
                self.to_string().chars().take(10).collect()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let to: fn(&[u8]) -> String = $to;
                f.write_str(&to(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let from: fn(&str) -> Option<Vec<u8>> = $from;
                if text.len() > 128 {
                    return Err(bad($what, text));
                }
                from(text)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map($name)
                    .ok_or_else(|| bad($what, text))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() {
                    s.collect_str(self)
                } else {
                    self.0.serialize(s)
                }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                    text.parse().map_err(D::Error::custom)
                } else {
                    <[u8; 32]>::deserialize(d).map($name)
                }
            }
        }
    };
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}
fn unhex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER.decode(text.as_bytes()).ok()
}
fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}
fn unbase32(text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    BASE32_NOPAD
        .decode(text.to_ascii_uppercase().as_bytes())
        .ok()
}

bytes32!(
    /// A BLAKE3 hash: of a blob, a chunk, or a statement's payload.
    Hash, "hash (64 hex digits)", hex, unhex
);
bytes32!(
    /// An ed25519 public key, which is also its own key id.
    PublicKey, "public key (64 hex digits)", hex, unhex
);
bytes32!(
    /// A node: its ed25519 public key.
    NodeId, "node id (52 base32 characters)", base32, unbase32
);
bytes32!(
    /// A fleet: the digest of the payload of its first root metadata.
    FleetId, "fleet id (64 hex digits)", hex, unhex
);

impl Hash {
    /// The BLAKE3 hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(*blake3::hash(bytes).as_bytes())
    }
}

impl From<PublicKey> for NodeId {
    fn from(key: PublicKey) -> NodeId {
        NodeId(key.0)
    }
}

impl From<NodeId> for PublicKey {
    fn from(node: NodeId) -> PublicKey {
        PublicKey(node.0)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let fine = !text.is_empty()
                    && text.len() <= 63
                    && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
                    && !text.starts_with(['.', '-']);
                if fine { Ok($name(text.to_owned())) } else { Err(bad($what, text)) }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

name!(
    /// A site: up to 63 of `a-z 0-9 - _ .`, not starting with `.` or `-`.
    SiteId, "site name (1 to 63 of a-z, 0-9, '-', '_', '.')"
);
name!(
    /// A rollout, unique in its fleet; same alphabet as a site.
    RolloutId, "rollout id (1 to 63 of a-z, 0-9, '-', '_', '.')"
);

/// A counter that only rises: first by epoch, then by number. A restored coordinator or a cloned
/// node opens a new epoch.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Seq {
    /// Rises when the counter's owner lost its memory.
    pub epoch: u32,
    /// Rises with every use.
    pub n: u64,
}

impl Seq {
    /// The next number of the same epoch.
    pub const fn next(self) -> Seq {
        Seq {
            epoch: self.epoch,
            n: self.n + 1,
        }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_are_ordered_as_their_bytes(a: [u8; 32], b: [u8; 32], shared in 0..=32usize) {
            let mut b = b;
            b[..shared].copy_from_slice(&a[..shared]);
            prop_assert_eq!(NodeId(a).cmp(&NodeId(b)), a.cmp(&b));
            prop_assert_eq!(Hash(b).cmp(&Hash(a)), b.cmp(&a));
        }
    }
}
