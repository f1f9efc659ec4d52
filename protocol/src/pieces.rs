//! How a blob is cut for scheduling (pieces) and verification (groups).
//!
//! A piece is an aligned run of groups: a power of two between 256 KiB and 4 MiB, about 1/256 of the
//! blob. Both numbers follow from the blob's length alone, so every node cuts alike.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::limits::{GROUP_BYTES, PIECE_MAX_BYTES, PIECE_MIN_BYTES, PIECES_AIM};

/// The cut of a blob of a given length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Geometry {
    length: u64,
    piece_log2: u8,
}

impl Geometry {
    /// The cut of a blob of `length` bytes.
    pub fn of(length: u64) -> Geometry {
        Geometry::aimed(length, PIECES_AIM, PIECE_MAX_BYTES)
    }

    /// The cut of a blob of `length` bytes into about `aim` pieces of at most `piece_max` bytes (powers
    /// of two). Nodes that cut differently do not understand each other: for a pretend fleet whose
    /// pieces are coarser than real ones.
    pub fn aimed(length: u64, aim: u64, piece_max: u64) -> Geometry {
        let even = length.div_ceil(aim.max(1)).max(1).next_power_of_two();
        let piece = even.clamp(PIECE_MIN_BYTES, piece_max.max(PIECE_MIN_BYTES));
        Geometry {
            length,
            piece_log2: piece.trailing_zeros() as u8,
        }
    }

    /// The blob's length in bytes.
    pub fn length(self) -> u64 {
        self.length
    }

    /// Bytes in every piece but the last.
    pub fn piece_bytes(self) -> u64 {
        1 << self.piece_log2
    }

    /// log2 of [`Self::piece_bytes`].
    pub fn piece_log2(self) -> u8 {
        self.piece_log2
    }

    /// Number of pieces. An empty blob has one empty piece, so that holding it can be said.
    pub fn pieces(self) -> u32 {
        u32::try_from(self.length.div_ceil(self.piece_bytes()).max(1)).unwrap_or(u32::MAX)
    }

    /// Number of groups. An empty blob has one.
    pub fn groups(self) -> u64 {
        self.length.div_ceil(GROUP_BYTES).max(1)
    }

    /// Groups in every piece but the last.
    pub fn groups_per_piece(self) -> u64 {
        self.piece_bytes() / GROUP_BYTES
    }

    /// Bytes `[start, end)` of a piece.
    pub fn piece_range(self, piece: u32) -> core::ops::Range<u64> {
        let start = (u64::from(piece) * self.piece_bytes()).min(self.length);
        start..(start + self.piece_bytes()).min(self.length)
    }

    /// Groups `[start, end)` of a piece.
    pub fn piece_groups(self, piece: u32) -> core::ops::Range<u64> {
        let start = u64::from(piece) * self.groups_per_piece();
        start..(start + self.groups_per_piece()).min(self.groups())
    }

    /// Pieces `[first, end)` that touch the bytes `[start, end)`; empty for an empty range.
    pub fn pieces_of_bytes(self, bytes: core::ops::Range<u64>) -> core::ops::Range<u32> {
        let end = bytes.end.min(self.length);
        if bytes.start >= end {
            return 0..0;
        }
        let first = bytes.start >> self.piece_log2;
        let last = (end - 1) >> self.piece_log2;
        u32::try_from(first).unwrap_or(u32::MAX)..u32::try_from(last + 1).unwrap_or(u32::MAX)
    }
}

/// The bits, 64 to a word. A coarse cut needs no memory of its own.
type Words = SmallVec<[u64; 2]>;

/// A set of pieces (or groups) of one blob, as a bitmap.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PieceSet {
    len: u32,
    #[serde(serialize_with = "as_list", deserialize_with = "from_list")]
    words: Words,
}

fn as_list<S: Serializer>(words: &Words, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(words)
}

// By way of a `Vec`, which takes no more room at once than bytes came, whatever length they claim.
fn from_list<'de, D: Deserializer<'de>>(from: D) -> Result<Words, D::Error> {
    Vec::<u64>::deserialize(from).map(|words| Words::from_slice(&words))
}

impl PieceSet {
    /// No piece of `len`.
    pub fn empty(len: u32) -> PieceSet {
        PieceSet {
            len,
            words: Words::from_elem(0, len.div_ceil(64) as usize),
        }
    }

    /// All of `len` pieces.
    pub fn full(len: u32) -> PieceSet {
        let mut set = PieceSet {
            len,
            words: Words::from_elem(u64::MAX, len.div_ceil(64) as usize),
        };
        if let (Some(last), rest @ 1..) = (set.words.last_mut(), len % 64) {
            *last = (1 << rest) - 1;
        }
        set
    }

    /// Number of pieces that could be in the set.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no piece is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|w| *w == 0)
    }

    /// Whether every piece is in the set.
    pub fn is_full(&self) -> bool {
        let (whole, rest) = ((self.len / 64) as usize, self.len % 64);
        self.words.iter().take(whole).all(|word| *word == u64::MAX)
            && (rest == 0
                || self
                    .words
                    .get(whole)
                    .is_some_and(|word| *word == (1 << rest) - 1))
    }

    /// Number of pieces in the set.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|w| w.count_ones()).sum()
    }

    /// Whether `piece` is in the set; false beyond its length.
    pub fn contains(&self, piece: u32) -> bool {
        piece < self.len && self.words[(piece / 64) as usize] >> (piece % 64) & 1 == 1
    }

    /// Adds `piece`; true if it was not there. Beyond the length nothing happens.
    pub fn insert(&mut self, piece: u32) -> bool {
        if piece >= self.len || self.contains(piece) {
            return false;
        }
        self.words[(piece / 64) as usize] |= 1 << (piece % 64);
        true
    }

    /// Removes `piece`; true if it was there.
    pub fn remove(&mut self, piece: u32) -> bool {
        if !self.contains(piece) {
            return false;
        }
        self.words[(piece / 64) as usize] &= !(1 << (piece % 64));
        true
    }

    /// Adds every piece of `other` that fits.
    pub fn union(&mut self, other: &PieceSet) {
        if self.words.len() == other.words.len() && self.len >= other.len {
            let pairs = self.words.iter_mut().zip(&other.words);
            pairs.for_each(|(word, other)| *word |= other);
            return;
        }
        for piece in other.iter() {
            self.insert(piece);
        }
    }

    /// Removes every piece of `other`.
    pub fn subtract(&mut self, other: &PieceSet) {
        let pairs = self.words.iter_mut().zip(&other.words);
        pairs.for_each(|(word, other)| *word &= !other);
    }

    /// Keeps what is in `other` too.
    pub fn intersect(&mut self, other: &PieceSet) {
        let others = other.words.iter().chain(core::iter::repeat(&0));
        let pairs = self.words.iter_mut().zip(others);
        pairs.for_each(|(word, other)| *word &= other);
    }

    /// The pieces in the set, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            let mut rest = word;
            core::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                Some(i as u32 * 64 + bit)
            })
        })
    }

    /// Whether every piece of `other` is here too.
    pub fn covers(&self, other: &PieceSet) -> bool {
        let mine = self.words.iter().chain(core::iter::repeat(&0));
        other
            .words
            .iter()
            .zip(mine)
            .all(|(other, word)| other & !word == 0)
    }

    /// Whether the bitmap is as long as it says and holds nothing beyond; ask it of foreign sets.
    pub fn well_formed(&self) -> bool {
        self.words.len() == self.len.div_ceil(64) as usize
            && (self.len.is_multiple_of(64)
                || self.words.last().is_none_or(|w| w >> (self.len % 64) == 0))
    }
}
