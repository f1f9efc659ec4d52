//! The bao tree of a blob over groups of 16 KiB: its shape, its order on disk and wire, its hashes.
//!
//! A node spans a run of groups. Its left child spans the largest power of two of them that leaves
//! something for the right one (BLAKE3, section 2.1). Hash pairs lie in pre-order, so a node's pair
//! comes right before those of its left child, and a piece's inner pairs lie side by side.
//! The layout and the encoding are bao-tree's with `BlockSize` 4; the tests hold us to that.

use std::ops::Range;

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use protocol::Hash;
use protocol::limits::GROUP_BYTES;
use protocol::pieces::Geometry;

/// Bytes of a hash pair.
pub(crate) const PAIR_BYTES: usize = 64;

/// A hash pair: the chaining values of a node's children.
pub(crate) type Pair = [u8; PAIR_BYTES];

/// From this many groups on, hashing a subtree is worth a second thread.
const PARALLEL_GROUPS: u64 = 32;

/// A node of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    /// Its first group.
    pub(crate) start: u64,
    /// How many groups it spans.
    pub(crate) groups: u64,
    /// Where its hash pair lies, counted in pairs; of no meaning for a single group.
    pub(crate) slot: u64,
    /// Whether it is the blob's root, which is hashed differently.
    pub(crate) is_root: bool,
}

impl Node {
    /// The root.
    pub(crate) fn root(geometry: Geometry) -> Node {
        Node {
            start: 0,
            groups: geometry.groups(),
            slot: 0,
            is_root: true,
        }
    }

    /// The node that spans exactly a piece.
    pub(crate) fn piece(geometry: Geometry, piece: u32) -> Node {
        let groups = geometry.piece_groups(piece);
        let mut node = Node::root(geometry);
        while node.start != groups.start || node.groups != groups.end - groups.start {
            let (left, right) = node.children();
            node = if groups.start < right.start {
                left
            } else {
                right
            };
        }
        node
    }

    /// Its children; ask only a node of several groups.
    pub(crate) fn children(self) -> (Node, Node) {
        debug_assert!(self.groups > 1);
        let half = self.groups.div_ceil(2).next_power_of_two();
        (
            Node {
                start: self.start,
                groups: half,
                slot: self.slot + 1,
                is_root: false,
            },
            Node {
                start: self.start + half,
                groups: self.groups - half,
                slot: self.slot + half,
                is_root: false,
            },
        )
    }

    /// Whether it is a single group.
    pub(crate) fn is_group(self) -> bool {
        self.groups == 1
    }

    /// Its bytes `[start, end)` in the blob.
    pub(crate) fn bytes(self, geometry: Geometry) -> Range<u64> {
        let start = self.start * GROUP_BYTES;
        start..(start + self.groups * GROUP_BYTES).min(geometry.length())
    }

    fn touches(self, groups: &Range<u64>) -> bool {
        self.start < groups.end && groups.start < self.start + self.groups
    }
}

/// Bytes of the outboard file: a pair for every node of several groups.
pub(crate) fn outboard_bytes(geometry: Geometry) -> u64 {
    (geometry.groups() - 1) * PAIR_BYTES as u64
}

/// The bao encoding of a run of groups, item by item: a pair for each inner node on the way, the
/// bytes of each group.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    geometry: Geometry,
    groups: Range<u64>,
    stack: Vec<Node>,
}

/// One item of an encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    /// A hash pair, and which children the walk will visit.
    Pair { node: Node, left: bool, right: bool },
    /// A group of so many bytes.
    Group { node: Node, bytes: usize },
}

impl Item {
    /// Its bytes in the encoding.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Item::Pair { .. } => PAIR_BYTES,
            Item::Group { bytes, .. } => bytes,
        }
    }
}

impl Walk {
    /// Over the groups `[start, end)`, which lie inside the blob.
    pub(crate) fn over(geometry: Geometry, groups: Range<u64>) -> Walk {
        let stack = if groups.is_empty() {
            Vec::new()
        } else {
            vec![Node::root(geometry)]
        };
        Walk {
            geometry,
            groups,
            stack,
        }
    }

    /// The next item, without taking it.
    pub(crate) fn peek(&self) -> Option<Item> {
        let node = *self.stack.last()?;
        if node.is_group() {
            let range = node.bytes(self.geometry);
            return Some(Item::Group {
                node,
                bytes: (range.end - range.start) as usize,
            });
        }
        let (left, right) = node.children();
        Some(Item::Pair {
            node,
            left: left.touches(&self.groups),
            right: right.touches(&self.groups),
        })
    }
}

impl Iterator for Walk {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let item = self.peek()?;
        self.stack.pop();
        if let Item::Pair { node, left, right } = item {
            let (l, r) = node.children();
            self.stack.extend(right.then_some(r));
            self.stack.extend(left.then_some(l));
        }
        Some(item)
    }
}

/// The chaining value (for the root: the hash) of a node from its children's.
pub(crate) fn hash_pair(node: Node, pair: &Pair) -> Hash {
    let (left, right) = split(pair);
    if node.is_root {
        Hash(*merge_subtrees_root(&left.0, &right.0, Mode::Hash).as_bytes())
    } else {
        Hash(merge_subtrees_non_root(&left.0, &right.0, Mode::Hash))
    }
}

/// The chaining value (for the root: the hash) of a single group.
pub(crate) fn hash_group(node: Node, bytes: &[u8]) -> Hash {
    if node.is_root {
        return Hash::of(bytes);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(node.start * GROUP_BYTES);
    hasher.update(bytes);
    Hash(hasher.finalize_non_root())
}

/// Hashes all bytes of a node and lays its inner pairs into `pairs` in pre-order
/// (`(groups - 1) * 64` bytes); on several threads if it is large.
pub(crate) fn hash_subtree(node: Node, bytes: &[u8], pairs: &mut [u8]) -> Hash {
    if node.is_group() {
        return hash_group(node, bytes);
    }
    let (left, right) = node.children();
    let (own, rest) = pairs.split_at_mut(PAIR_BYTES);
    let (left_pairs, right_pairs) = rest.split_at_mut((left.groups as usize - 1) * PAIR_BYTES);
    let (left_bytes, right_bytes) = bytes.split_at((left.groups * GROUP_BYTES) as usize);
    let mut on_left = || hash_subtree(left, left_bytes, left_pairs);
    let mut on_right = || hash_subtree(right, right_bytes, right_pairs);
    let (l, r) = if node.groups >= PARALLEL_GROUPS {
        rayon::join(on_left, on_right)
    } else {
        (on_left(), on_right())
    };
    let pair = join(l, r);
    own.copy_from_slice(&pair);
    hash_pair(node, &pair)
}

/// The tree above the pieces: the root that `cvs` (one per piece) make up, and every pair on the way
/// with its slot.
pub(crate) fn hash_above(geometry: Geometry, cvs: &[Hash]) -> (Hash, Vec<(u64, Pair)>) {
    fn descend(node: Node, per_piece: u64, cvs: &[Hash], out: &mut Vec<(u64, Pair)>) -> Hash {
        if node.groups <= per_piece {
            return cvs[(node.start / per_piece) as usize];
        }
        let (left, right) = node.children();
        let l = descend(left, per_piece, cvs, out);
        let pair = join(l, descend(right, per_piece, cvs, out));
        out.push((node.slot, pair));
        hash_pair(node, &pair)
    }
    let mut pairs = Vec::with_capacity(cvs.len());
    let root = descend(
        Node::root(geometry),
        geometry.groups_per_piece(),
        cvs,
        &mut pairs,
    );
    (root, pairs)
}

/// The two chaining values of a pair.
pub(crate) fn split(pair: &Pair) -> (Hash, Hash) {
    let mut halves = (Hash([0; 32]), Hash([0; 32]));
    halves.0.0.copy_from_slice(&pair[..32]);
    halves.1.0.copy_from_slice(&pair[32..]);
    halves
}

fn join(left: Hash, right: Hash) -> Pair {
    let mut pair = [0; PAIR_BYTES];
    pair[..32].copy_from_slice(&left.0);
    pair[32..].copy_from_slice(&right.0);
    pair
}

#[cfg(test)]
mod tests {
    use bao_tree::io::outboard::PreOrderMemOutboard;
    use bao_tree::io::sync::encode_ranges;
    use bao_tree::{BlockSize, ChunkNum, ChunkRanges};
    use proptest::prelude::*;

    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn check(length: usize, from: u64, to: u64) {
        let bytes = noise(length);
        let geometry = Geometry::of(length as u64);
        let model = PreOrderMemOutboard::create(&bytes, BlockSize::from_chunk_log(4));
        let mut pairs = vec![0; outboard_bytes(geometry) as usize];
        let root = hash_subtree(Node::root(geometry), &bytes, &mut pairs);
        assert_eq!(root.0, *model.root.as_bytes());
        assert_eq!(pairs, model.data);

        let (from, to) = (from.min(geometry.groups() - 1), to.min(geometry.groups()));
        let to = to.max(from + 1);
        let mut ours = Vec::new();
        for item in Walk::over(geometry, from..to) {
            match item {
                Item::Pair { node, .. } => {
                    let at = node.slot as usize * PAIR_BYTES;
                    ours.extend_from_slice(&pairs[at..at + PAIR_BYTES]);
                }
                Item::Group { node, .. } => {
                    let range = node.bytes(geometry);
                    ours.extend_from_slice(&bytes[range.start as usize..range.end as usize]);
                }
            }
        }
        let ranges = if to == geometry.groups() {
            ChunkRanges::from(ChunkNum(from * 16)..)
        } else {
            ChunkRanges::from(ChunkNum(from * 16)..ChunkNum(to * 16))
        };
        let mut theirs = Vec::new();
        encode_ranges(&bytes[..], &model, &ranges, &mut theirs).unwrap();
        assert!(
            ours == theirs,
            "the encoding of {from}..{to} of {length} bytes differs"
        );
    }

    #[test]
    fn shape_hashes_and_encoding_are_those_of_bao_tree() {
        for length in [
            1,
            1023,
            1024,
            16_383,
            16_384,
            16_385,
            32_768,
            32_769,
            49_152,
            300_000,
            1 << 20,
        ] {
            check(length, 0, u64::MAX);
            check(length, 1, 2);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_run_of_any_blob_is_encoded_as_bao_tree_does(length in 1usize..1_500_000, from in 0u64..90, n in 1u64..90) {
            check(length, from, from + n);
        }

        #[test]
        fn pieces_make_up_the_root(length in 1usize..3_000_000) {
            let bytes = noise(length);
            let geometry = Geometry::of(length as u64);
            let cvs: Vec<Hash> = (0..geometry.pieces())
                .map(|piece| {
                    let range = geometry.piece_range(piece);
                    crate::store::blobs::chaining_value(geometry, piece, &bytes[range.start as usize..range.end as usize])
                })
                .collect();
            let (root, pairs) = hash_above(geometry, &cvs);
            prop_assert_eq!(root, Hash::of(&bytes));
            prop_assert_eq!(pairs.len() + 1, cvs.len());
        }
    }
}
