//! Giving and taking groups as a bao encoding, without any I/O but the blob's own files.
//!
//! [`Encoder`] fills buffers with the encoding of ranges of groups; [`Decoder`] is fed those bytes,
//! cut anywhere, verifies from the blob's root down, and writes only what verified. Both work in
//! batches: groups that follow each other go to and from the disk in one call.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use protocol::Hash;
use protocol::limits::GROUP_BYTES;

use super::files::Patience;
use super::tree::{self, Item, PAIR_BYTES, Pair, Walk};
use super::{Blob, StoreError};

/// Pairs that the encoder reads ahead at once.
const PAIRS_AHEAD: u64 = 256;

/// The encodings of several ranges, one after the other.
#[derive(Clone)]
struct Walks {
    blob: Arc<Blob>,
    ranges: VecDeque<Range<u64>>,
    walk: Walk,
    /// Whether the next item is the first of its range.
    begins: bool,
}

impl Walks {
    fn new(blob: Arc<Blob>, ranges: &[(u64, u64)]) -> Walks {
        let ranges = ranges.iter().map(|(start, end)| *start..*end).collect();
        let walk = Walk::over(blob.geometry(), 0..0);
        Walks {
            blob,
            ranges,
            walk,
            begins: false,
        }
    }

    /// The next item, without taking it.
    fn peek(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.walk.peek() {
                return Some(item);
            }
            self.walk = Walk::over(self.blob.geometry(), self.ranges.pop_front()?);
            self.begins = true;
        }
    }

    fn take(&mut self) {
        self.walk.next();
        self.begins = false;
    }

    /// Room for the encodings of all ranges, between a group and `most`.
    fn buffer_bytes(&self, most: usize) -> usize {
        let groups: u64 = self
            .ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        let pairs = 64 * self.ranges.len() as u64 + 2 * groups;
        let bytes = groups
            .saturating_mul(GROUP_BYTES)
            .saturating_add(pairs * PAIR_BYTES as u64);
        usize::try_from(bytes)
            .unwrap_or(most)
            .clamp(GROUP_BYTES as usize, most)
    }
}

/// Reads groups and pairs of a blob as one encoding. What it reads is not verified again: a damaged
/// disk is caught by whoever receives it.
pub(crate) struct Encoder {
    walks: Walks,
    ahead: Vec<u8>,
    ahead_slot: u64,
    payload: u64,
}

impl Encoder {
    /// The encoding of `ranges`, which lie inside the blob and are held.
    pub(crate) fn new(blob: Arc<Blob>, ranges: &[(u64, u64)]) -> Encoder {
        Encoder {
            walks: Walks::new(blob, ranges),
            ahead: Vec::new(),
            ahead_slot: 0,
            payload: 0,
        }
    }

    /// Room that a buffer should have: enough for what is left, between a group and `most`.
    pub(crate) fn buffer_bytes(&self, most: usize) -> usize {
        self.walks.buffer_bytes(most)
    }

    /// Payload bytes since the last call.
    pub(crate) fn take_payload(&mut self) -> u64 {
        std::mem::take(&mut self.payload)
    }

    /// Fills `buffer` with whole items and returns how many bytes they take; 0 at the end.
    /// `buffer` has room for at least a group.
    ///
    /// # Errors
    /// When the blob's files cannot be read.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill_with(buffer, Patience::WaitForDisk)
    }

    /// As [`Encoder::fill`] if all that is needed lies in the system's memory; else it takes nothing
    /// and returns `None`. Never waits for a disk.
    ///
    /// # Errors
    /// As for [`Encoder::fill`].
    pub(crate) fn fill_from_memory(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let before = (self.walks.clone(), self.payload);
        match self.fill_with(buffer, Patience::OnlyMemory) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                (self.walks, self.payload) = before;
                Ok(None)
            }
            filled => filled.map(Some),
        }
    }

    fn fill_with(&mut self, buffer: &mut [u8], patience: Patience) -> io::Result<usize> {
        debug_assert!(buffer.len() as u64 >= GROUP_BYTES);
        let mut filled = 0;
        let mut run: Vec<Range<usize>> = Vec::new();
        let mut run_start = 0;
        let mut run_end = 0;
        while let Some(item) = self.walks.peek() {
            let bytes = item.bytes();
            if filled + bytes > buffer.len() {
                break;
            }
            self.walks.take();
            match item {
                Item::Pair { node, .. } => {
                    buffer[filled..filled + bytes].copy_from_slice(self.pair(node.slot, patience)?)
                }
                Item::Group { node, .. } => {
                    if node.start != run_end || run.is_empty() {
                        self.read_run(buffer, &run, run_start, patience)?;
                        run.clear();
                        run_start = node.start;
                    }
                    run.push(filled..filled + bytes);
                    run_end = node.start + 1;
                    self.payload += bytes as u64;
                }
            }
            filled += bytes;
        }
        self.read_run(buffer, &run, run_start, patience)?;
        Ok(filled)
    }

    /// Reads groups that follow each other on disk into their places in the buffer.
    fn read_run(
        &self,
        buffer: &mut [u8],
        places: &[Range<usize>],
        first: u64,
        patience: Patience,
    ) -> io::Result<()> {
        let mut rest = buffer;
        let mut at = 0;
        let mut slices = Vec::with_capacity(places.len());
        for place in places {
            let (slice, after) = rest[place.start - at..].split_at_mut(place.len());
            slices.push(IoSliceMut::new(slice));
            rest = after;
            at = place.end;
        }
        self.walks
            .blob
            .data()
            .read_scattered(&mut slices, first * GROUP_BYTES, patience)
    }

    /// A pair by its slot. The walk goes through slots in rising order, so reading ahead pays.
    fn pair(&mut self, slot: u64, patience: Patience) -> io::Result<&[u8]> {
        let held = self.ahead.len() as u64 / PAIR_BYTES as u64;
        if !(self.ahead_slot..self.ahead_slot + held).contains(&slot) {
            let all = self.walks.blob.geometry().groups() - 1;
            let want = PAIRS_AHEAD.min(all - slot);
            let mut ahead = std::mem::take(&mut self.ahead);
            ahead.resize(want as usize * PAIR_BYTES, 0);
            self.walks.blob.outboard().read_scattered(
                &mut [IoSliceMut::new(&mut ahead)],
                slot * PAIR_BYTES as u64,
                patience,
            )?;
            (self.ahead, self.ahead_slot) = (ahead, slot);
        }
        let at = (slot - self.ahead_slot) as usize * PAIR_BYTES;
        Ok(&self.ahead[at..at + PAIR_BYTES])
    }
}

/// Why decoding stopped. What verified before is written.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Bytes do not verify. The culprit is the sender.
    Poisoned,
    /// More bytes came than the ranges have.
    TooLong,
    /// This machine's disk.
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(error)
    }
}

/// Verifies an encoding and writes what it holds.
pub(crate) struct Decoder {
    walks: Walks,
    /// Values that the items still to come must have, the next one last.
    expected: Vec<Hash>,
    /// The beginning of an item that was cut.
    cut: Vec<u8>,
    failed: bool,
    verified: u64,
    payload: u64,
    again: u64,
}

/// Where the groups of an encoding end.
#[derive(Clone)]
pub(crate) struct Ruler(Walks);

impl Ruler {
    /// Bytes to the end of the next group, what proves it included; none behind the last.
    pub(crate) fn next_group(&mut self) -> Option<usize> {
        let mut bytes = 0;
        while let Some(item) = self.0.peek() {
            self.0.take();
            bytes += item.bytes();
            if matches!(item, Item::Group { .. }) && bytes > 0 {
                return Some(bytes);
            }
        }
        None
    }
}

impl Decoder {
    /// For the encoding of `ranges`, which lie inside the blob.
    pub(crate) fn new(blob: Arc<Blob>, ranges: &[(u64, u64)]) -> Decoder {
        Decoder {
            walks: Walks::new(blob, ranges),
            expected: Vec::new(),
            cut: Vec::new(),
            failed: false,
            verified: 0,
            payload: 0,
            again: 0,
        }
    }

    /// Measures the encoding from its beginning; to be asked for before anything is fed.
    pub(crate) fn ruler(&self) -> Ruler {
        Ruler(self.walks.clone())
    }

    /// Bytes of the encoding that verified so far, also before a fault.
    pub(crate) fn verified_bytes(&self) -> u64 {
        self.verified
    }

    /// Payload bytes that verified and were written so far, also before a fault.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload
    }

    /// Payload bytes of whole groups that verified and were here already.
    pub(crate) fn again_bytes(&self) -> u64 {
        self.again
    }

    /// Room that a buffer should have: enough for what is to come, between a group and `most`.
    pub(crate) fn buffer_bytes(&self, most: usize) -> usize {
        self.walks.buffer_bytes(most)
    }

    /// Whether every group asked for is verified and written.
    pub(crate) fn is_done(&mut self) -> bool {
        !self.failed && self.walks.peek().is_none()
    }

    /// Takes the next bytes of the encoding, cut anywhere. Returns the payload bytes that were
    /// verified and written by this call.
    ///
    /// # Errors
    /// See [`Fault`]; afterwards nothing more is taken.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<u64, Fault> {
        if self.failed {
            return Err(Fault::Poisoned);
        }
        let result = self
            .feed_cut(&mut bytes)
            .and_then(|first| Ok(first + self.feed_whole(bytes)?));
        self.failed = result.is_err();
        result
    }

    /// Completes the item that the last call left cut.
    fn feed_cut(&mut self, bytes: &mut &[u8]) -> Result<u64, Fault> {
        if self.cut.is_empty() {
            return Ok(0);
        }
        let need = self.walks.peek().map_or(0, Item::bytes);
        let more = (need - self.cut.len()).min(bytes.len());
        self.cut.extend_from_slice(&bytes[..more]);
        *bytes = &bytes[more..];
        if self.cut.len() < need {
            return Ok(0);
        }
        let item = std::mem::take(&mut self.cut);
        let payload = self.feed_whole(&item);
        self.cut = item;
        self.cut.clear();
        payload
    }

    /// Takes whole items, and keeps what is left of the last.
    fn feed_whole(&mut self, mut bytes: &[u8]) -> Result<u64, Fault> {
        let blob = self.walks.blob.clone();
        let mut batch = Batch {
            blob: &blob,
            groups: Vec::new(),
            first: 0,
            pairs: Vec::new(),
            slot: 0,
            payload: 0,
            again: 0,
        };
        let mut verdict = Ok(());
        while !bytes.is_empty() {
            let Some(item) = self.walks.peek() else {
                verdict = Err(Fault::TooLong);
                break;
            };
            if bytes.len() < item.bytes() {
                self.cut.extend_from_slice(bytes);
                break;
            }
            if self.walks.begins {
                self.expected = vec![blob.name().root];
            }
            let (one, rest) = bytes.split_at(item.bytes());
            if !self.verify(item, one) {
                verdict = Err(Fault::Poisoned);
                break;
            }
            batch.add(item, one)?;
            self.walks.take();
            self.verified += one.len() as u64;
            bytes = rest;
        }
        batch.write()?;
        self.payload += batch.payload;
        self.again += batch.again;
        verdict.map(|()| batch.payload)
    }

    fn verify(&mut self, item: Item, bytes: &[u8]) -> bool {
        let Some(expected) = self.expected.pop() else {
            return false;
        };
        match item {
            Item::Group { node, .. } => tree::hash_group(node, bytes) == expected,
            Item::Pair { node, left, right } => {
                let Ok(pair) = <&Pair>::try_from(bytes) else {
                    return false;
                };
                let (on_left, on_right) = tree::split(pair);
                self.expected.extend(right.then_some(on_right));
                self.expected.extend(left.then_some(on_left));
                tree::hash_pair(node, pair) == expected
            }
        }
    }
}

/// Verified items on their way to the disk: one run of groups, one run of pairs.
struct Batch<'a> {
    blob: &'a Blob,
    groups: Vec<IoSlice<'a>>,
    first: u64,
    pairs: Vec<u8>,
    slot: u64,
    payload: u64,
    again: u64,
}

impl<'a> Batch<'a> {
    fn add(&mut self, item: Item, bytes: &'a [u8]) -> Result<(), StoreError> {
        match item {
            Item::Pair { node, .. } => {
                if node.slot != self.slot + (self.pairs.len() / PAIR_BYTES) as u64 {
                    self.write_pairs()?;
                }
                if self.pairs.is_empty() {
                    self.slot = node.slot;
                }
                self.pairs.extend_from_slice(bytes);
            }
            Item::Group { node, .. } => {
                if node.start != self.first + self.groups.len() as u64 {
                    self.write()?;
                }
                if self.groups.is_empty() {
                    self.first = node.start;
                }
                self.groups.push(IoSlice::new(bytes));
                self.payload += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Pairs first, then groups; only then do the groups count.
    fn write(&mut self) -> Result<(), StoreError> {
        self.write_pairs()?;
        if !self.groups.is_empty() {
            let groups = self.first..self.first + self.groups.len() as u64;
            self.blob.write_groups(self.first, &mut self.groups)?;
            let all = groups.end - groups.start;
            self.again += (all - self.blob.mark_held(groups)) * GROUP_BYTES;
            self.groups.clear();
        }
        Ok(())
    }

    fn write_pairs(&mut self) -> Result<(), StoreError> {
        if !self.pairs.is_empty() {
            self.blob.write_pairs(self.slot, &self.pairs)?;
            self.pairs.clear();
        }
        Ok(())
    }
}
