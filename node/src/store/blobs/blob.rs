//! One open blob: which groups are held, reading them, and how it becomes durable.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use protocol::limits::GROUP_BYTES;
use protocol::pieces::{Geometry, PieceSet};
use protocol::{BlobRef, Hash};

use super::StoreError;
use super::claims::Claims;
use super::files::StoreFile;
use super::tree::{self, Node, PAIR_BYTES, Pair};
use crate::disk::Disk;

/// One open blob, complete or not.
#[derive(Debug)]
pub struct Blob {
    name: BlobRef,
    geometry: Geometry,
    data: StoreFile,
    outboard: StoreFile,
    held: GroupBits,
    /// Chaining values of the pieces that were found to make up the root.
    pieces: OnceLock<Vec<Hash>>,
    seal: Mutex<Seal>,
    disk: Disk,
    claims: Arc<Claims>,
}

/// Whether the blob is claimed as complete and durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seal {
    Open,
    Claimed,
    /// Its files are gone; it must not be claimed any more.
    Dropped,
}

impl Blob {
    /// Opens or makes its files. What is `claimed` counts as held as a whole; else what verifies does.
    pub(super) fn open(
        disk: &Disk,
        name: BlobRef,
        (data, outboard): (PathBuf, PathBuf),
        claims: Arc<Claims>,
        claimed: bool,
    ) -> Result<Blob, StoreError> {
        let geometry = Geometry::of(name.length);
        let blob = Blob {
            name,
            geometry,
            data: StoreFile::open(disk, data, name.length)?,
            outboard: StoreFile::open(disk, outboard, tree::outboard_bytes(geometry))?,
            held: GroupBits::none(geometry.groups()),
            pieces: OnceLock::new(),
            seal: Mutex::new(if claimed { Seal::Claimed } else { Seal::Open }),
            disk: disk.clone(),
            claims,
        };
        if claimed {
            blob.held.insert(0..geometry.groups());
        } else {
            blob.recover(Node::root(geometry), name.root);
            blob.seal_if_complete()?;
        }
        Ok(blob)
    }

    /// Its name.
    pub fn name(&self) -> BlobRef {
        self.name
    }

    /// How it is cut.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The pieces of which every group is verified and written.
    pub fn pieces(&self) -> PieceSet {
        let count = self.geometry.pieces();
        if self.is_complete() {
            return PieceSet::full(count);
        }
        let mut pieces = PieceSet::empty(count);
        for piece in 0..count {
            if self.held.contains_all(self.geometry.piece_groups(piece)) {
                pieces.insert(piece);
            }
        }
        pieces
    }

    /// The pieces of which some groups are verified and written, but not all.
    pub fn begun_pieces(&self) -> Vec<u32> {
        if self.is_complete() {
            return Vec::new();
        }
        let begun = |piece: &u32| {
            let mut groups = self.geometry.piece_groups(*piece);
            groups.any(|group| self.held.contains(group)) && !self.missing_groups(*piece).is_empty()
        };
        (0..self.geometry.pieces()).filter(begun).collect()
    }

    /// Whether every group is verified and written.
    pub fn is_complete(&self) -> bool {
        self.held.count() == self.geometry.groups()
    }

    /// Groups `[start, end)` of a piece that are not held, rising, not touching.
    pub fn missing_groups(&self, piece: u32) -> Vec<(u64, u64)> {
        let mut missing: Vec<(u64, u64)> = Vec::new();
        for group in self.geometry.piece_groups(piece) {
            if self.held.contains(group) {
                continue;
            }
            match missing.last_mut() {
                Some((_, end)) if *end == group => *end += 1,
                _ => missing.push((group, group + 1)),
            }
        }
        missing
    }

    /// Whether all groups `[start, end)` exist and are held.
    pub fn holds(&self, groups: Range<u64>) -> bool {
        groups.end <= self.geometry.groups() && self.held.contains_all(groups)
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// When a byte of it is not held or lies beyond the end, or the disk fails.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let end = offset
            .checked_add(buf.len() as u64)
            .filter(|end| *end <= self.name.length);
        let Some(end) = end else {
            let what = format!("{} has no bytes {offset}+{}", self.name, buf.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        };
        if !self
            .held
            .contains_all(offset / GROUP_BYTES..end.div_ceil(GROUP_BYTES))
        {
            let what = format!("bytes {offset}..{end} of {} are not held", self.name);
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        self.data.read_at(buf, offset)
    }

    /// Takes a plain piece (not bao-encoded). `cvs` are the chaining values of all pieces, in order
    /// (for a blob of one piece: its root). Afterwards the piece can be served like any other.
    /// The blob becomes durable and claimed with its last piece.
    ///
    /// # Errors
    /// [`StoreError::WrongBytes`] when `bytes` are not that piece, or `cvs` do not make up the root.
    pub fn import_piece(&self, piece: u32, bytes: &[u8], cvs: &[Hash]) -> Result<(), StoreError> {
        let wrong = |what: String| Err(StoreError::WrongBytes { what });
        if piece >= self.geometry.pieces() {
            return wrong(format!(
                "piece {piece} of {}, which has {}",
                self.name,
                self.geometry.pieces()
            ));
        }
        let range = self.geometry.piece_range(piece);
        if bytes.len() as u64 != range.end - range.start {
            return wrong(format!(
                "piece {piece} of {} with {} bytes",
                self.name,
                bytes.len()
            ));
        }
        let node = Node::piece(self.geometry, piece);
        let mut pairs = vec![0; (node.groups as usize - 1) * PAIR_BYTES];
        let cv = tree::hash_subtree(node, bytes, &mut pairs);
        if self.trusted(cvs)?[piece as usize] != cv {
            return wrong(format!("piece {piece} of {}", self.name));
        }
        self.data.write_at(bytes, range.start)?;
        self.outboard
            .write_at(&pairs, node.slot * PAIR_BYTES as u64)?;
        self.held.insert(self.geometry.piece_groups(piece));
        self.seal_if_complete()
    }

    /// The pieces' chaining values once they are known to make up the root, with the pairs above
    /// the pieces written.
    fn trusted(&self, cvs: &[Hash]) -> Result<&[Hash], StoreError> {
        if let Some(known) = self.pieces.get() {
            return Ok(known);
        }
        let wrong = || StoreError::WrongBytes {
            what: format!("the list of chaining values of {}", self.name),
        };
        if cvs.len() != self.geometry.pieces() as usize {
            return Err(wrong());
        }
        let (root, pairs) = tree::hash_above(self.geometry, cvs);
        if root != self.name.root {
            return Err(wrong());
        }
        for (slot, pair) in &pairs {
            self.outboard.write_at(pair, slot * PAIR_BYTES as u64)?;
        }
        Ok(self.pieces.get_or_init(|| cvs.to_vec()))
    }

    /// Writes verified groups: `groups` is one run of bytes from group `first` on.
    pub(super) fn write_groups(
        &self,
        first: u64,
        groups: &mut [IoSlice<'_>],
    ) -> Result<(), StoreError> {
        self.data.write_gathered(groups, first * GROUP_BYTES)
    }

    /// Writes verified pairs that lie side by side from `slot` on.
    pub(super) fn write_pairs(&self, slot: u64, pairs: &[u8]) -> Result<(), StoreError> {
        self.outboard.write_at(pairs, slot * PAIR_BYTES as u64)
    }

    /// Says that groups are verified and written, with every pair above them.
    /// How many of them are new.
    pub(super) fn mark_held(&self, groups: Range<u64>) -> u64 {
        self.held.insert(groups)
    }

    pub(super) fn data(&self) -> &StoreFile {
        &self.data
    }

    pub(super) fn outboard(&self) -> &StoreFile {
        &self.outboard
    }

    /// Makes a blob whose groups are all held durable, and claims it.
    pub(crate) fn seal_if_complete(&self) -> Result<(), StoreError> {
        if !self.is_complete() {
            return Ok(());
        }
        let mut seal = self.seal.lock().expect("no panic under this lock");
        if *seal == Seal::Open {
            self.data.sync()?;
            self.outboard.sync()?;
            if let Some(dir) = self.data.path().parent() {
                self.disk
                    .sync_dir(dir)
                    .map_err(|e| StoreError::file(dir, e))?;
            }
            self.claims.insert(self.name)?;
            *seal = Seal::Claimed;
        }
        Ok(())
    }

    /// Takes back the claim and removes the files' names.
    pub(super) fn discard(&self) -> Result<(), StoreError> {
        let mut seal = self.seal.lock().expect("no panic under this lock");
        if *seal == Seal::Claimed {
            self.claims.remove(&self.name.root)?;
        }
        if *seal != Seal::Dropped {
            *seal = Seal::Dropped;
            self.data.remove();
            self.outboard.remove();
        }
        Ok(())
    }

    /// Walks what is on disk from a node whose value is known; exactly what verifies is held.
    fn recover(&self, node: Node, expected: Hash) {
        if node.is_group() {
            let range = node.bytes(self.geometry);
            let mut bytes = vec![0; (range.end - range.start) as usize];
            let read = self.data.read_at(&mut bytes, range.start);
            if read.is_ok() && tree::hash_group(node, &bytes) == expected {
                self.held.insert(node.start..node.start + 1);
            }
            return;
        }
        let mut pair: Pair = [0; PAIR_BYTES];
        let read = self
            .outboard
            .read_at(&mut pair, node.slot * PAIR_BYTES as u64);
        if read.is_err() || tree::hash_pair(node, &pair) != expected {
            return;
        }
        let (left, right) = node.children();
        let (on_left, on_right) = tree::split(&pair);
        if node.groups > self.geometry.groups_per_piece() {
            rayon::join(
                || self.recover(left, on_left),
                || self.recover(right, on_right),
            );
        } else {
            self.recover(left, on_left);
            self.recover(right, on_right);
        }
    }
}

/// A set of groups that only grows, shared between threads.
#[derive(Debug)]
struct GroupBits {
    words: Box<[AtomicU64]>,
    count: AtomicU64,
}

impl GroupBits {
    fn none(groups: u64) -> GroupBits {
        let words = (0..groups.div_ceil(64))
            .map(|_| AtomicU64::new(0))
            .collect();
        GroupBits {
            words,
            count: AtomicU64::new(0),
        }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    fn contains(&self, group: u64) -> bool {
        self.contains_all(group..group + 1)
    }

    fn contains_all(&self, groups: Range<u64>) -> bool {
        self.masks(groups)
            .all(|(word, mask)| word.load(Ordering::Acquire) & mask == mask)
    }

    /// How many of them are new.
    fn insert(&self, groups: Range<u64>) -> u64 {
        let mut all_new = 0;
        for (word, mask) in self.masks(groups) {
            let before = word.fetch_or(mask, Ordering::AcqRel);
            let new = u64::from((mask & !before).count_ones());
            self.count.fetch_add(new, Ordering::AcqRel);
            all_new += new;
        }
        all_new
    }

    fn masks(&self, groups: Range<u64>) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let words = if groups.is_empty() {
            0..0
        } else {
            groups.start / 64..groups.end.div_ceil(64)
        };
        words.map(move |word| {
            let low = groups.start.saturating_sub(word * 64);
            let high = (groups.end - word * 64).min(64);
            let mask = (u64::MAX << low) & (u64::MAX >> (64 - high));
            (&self.words[word as usize], mask)
        })
    }
}
