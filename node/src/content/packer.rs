//! From chunks to pack and coded frames, on several threads.
//!
//! A full frame goes to the next free thread, which writes it to its place in the pack, computes the
//! chaining values of its 256 KiB units and compresses it. Coded frames are spooled in the order in which
//! they become ready; [`super::build`] puts them into order. There are as many frame buffers as threads
//! and one more, and one coding buffer a thread, so memory is fixed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use protocol::limits::{FRAME_CODED_MAX_BYTES, FRAME_PLAIN_MAX_BYTES, PIECE_MIN_BYTES};
use protocol::pieces::Geometry;
use protocol::{BlobRef, Hash};
use zstd::zstd_safe::CParameter;

use super::build::BuildError;

/// Memory that all encoders together may take.
const ENCODERS_MAX_BYTES: usize = 128 << 20;
/// log2 of the encoders' window: a whole frame.
const WINDOW_LOG2: u32 = FRAME_PLAIN_MAX_BYTES.trailing_zeros();

/// Takes the pack's bytes in order.
pub(super) struct Packer {
    to_coders: Option<SyncSender<Frame>>,
    buffers: Receiver<Vec<u8>>,
    coders: Vec<JoinHandle<Result<(), BuildError>>>,
    shared: Arc<Shared>,
    filling: Vec<u8>,
    offset: u64,
}

/// The pack and its coded frames.
pub(super) struct Packed {
    /// The pack's name.
    pub blob: BlobRef,
    /// Chaining value of each of its pieces.
    pub piece_cvs: Vec<Hash>,
    /// The coded frames, by number.
    pub frames: Vec<Coded>,
    /// Where they lie.
    pub spool: File,
}

/// A coded frame's place in the spool.
#[derive(Clone, Copy)]
pub(super) struct Coded {
    pub offset: u64,
    pub length: u32,
}

struct Frame {
    offset: u64,
    plain: Vec<u8>,
}

struct Shared {
    pack: File,
    pack_path: PathBuf,
    spool: File,
    spool_path: PathBuf,
    spooled: AtomicU64,
    done: Mutex<Vec<Done>>,
}

struct Done {
    offset: u64,
    coded: Coded,
    units: Vec<ChainingValue>,
    /// Of the first frame: its hash as a whole, which is the root if it stays the only unit.
    alone: Option<Hash>,
}

impl Packer {
    /// Makes the files `pack` and `spool`.
    pub fn start(pack: &Path, spool: &Path, level: i32) -> Result<Packer, BuildError> {
        let create = |path: &Path| {
            let mut options = File::options();
            options.read(true).write(true).create_new(true);
            options.open(path).map_err(|e| BuildError::io(path, e))
        };
        let shared = Arc::new(Shared {
            pack: create(pack)?,
            pack_path: pack.to_owned(),
            spool: create(spool)?,
            spool_path: spool.to_owned(),
            spooled: AtomicU64::new(0),
            done: Mutex::default(),
        });
        let (to_coders, frames) = sync_channel::<Frame>(0);
        let (give_back, buffers) = channel();
        let frames = Arc::new(Mutex::new(frames));
        let threads = coders(level);
        for _ in 0..threads {
            let _ = give_back.send(Vec::new());
        }
        let coders = (0..threads)
            .map(|_| {
                let (shared, frames, give_back) =
                    (shared.clone(), frames.clone(), give_back.clone());
                std::thread::spawn(move || {
                    let mut coder = Coder::new(&shared, level)?;
                    loop {
                        let next = frames.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(mut frame) = next else { return Ok(()) };
                        coder.code(&frame)?;
                        frame.plain.clear();
                        let _ = give_back.send(frame.plain);
                    }
                })
            })
            .collect();
        let filling = Vec::with_capacity(FRAME_PLAIN_MAX_BYTES as usize);
        Ok(Packer {
            to_coders: Some(to_coders),
            buffers,
            coders,
            shared,
            filling,
            offset: 0,
        })
    }

    /// Appends a chunk.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), BuildError> {
        while !bytes.is_empty() {
            let room = FRAME_PLAIN_MAX_BYTES as usize - self.filling.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.filling.extend_from_slice(now);
            bytes = later;
            if self.filling.len() as u64 == FRAME_PLAIN_MAX_BYTES {
                self.hand_over()?;
            }
        }
        Ok(())
    }

    /// Waits for all frames.
    pub fn finish(mut self) -> Result<Packed, BuildError> {
        if !self.filling.is_empty() {
            self.hand_over()?;
        }
        self.join()?;
        let shared = &self.shared;
        shared
            .pack
            .sync_all()
            .map_err(|e| BuildError::io(&shared.pack_path, e))?;
        let mut done =
            std::mem::take(&mut *shared.done.lock().unwrap_or_else(PoisonError::into_inner));
        done.sort_unstable_by_key(|frame| frame.offset);
        let alone = done
            .first()
            .and_then(|frame| frame.alone)
            .unwrap_or(Hash::of(b""));
        let units: Vec<ChainingValue> = done
            .iter()
            .flat_map(|frame| frame.units.iter().copied())
            .collect();
        let length = self.offset;
        let spool = shared
            .spool
            .try_clone()
            .map_err(|e| BuildError::io(&shared.spool_path, e))?;
        let frames = done.iter().map(|frame| frame.coded).collect();
        let (root, piece_cvs) = tree(length, &units, alone);
        Ok(Packed {
            blob: BlobRef { root, length },
            piece_cvs,
            frames,
            spool,
        })
    }

    fn hand_over(&mut self) -> Result<(), BuildError> {
        // Only a coder that failed goes away early; its error says more than a closed channel.
        let Ok(mut next) = self.buffers.recv() else {
            return self.join();
        };
        next.reserve_exact(FRAME_PLAIN_MAX_BYTES as usize);
        let plain = std::mem::replace(&mut self.filling, next);
        let frame = Frame {
            offset: self.offset,
            plain,
        };
        self.offset += frame.plain.len() as u64;
        match self.to_coders.as_ref().map(|coders| coders.send(frame)) {
            Some(Ok(())) => Ok(()),
            _ => self.join(),
        }
    }

    fn join(&mut self) -> Result<(), BuildError> {
        self.to_coders = None;
        let mut outcome = Ok(());
        for coder in self.coders.drain(..) {
            let ended = coder.join().unwrap_or_else(|_| {
                let broken = std::io::Error::other("an encoder thread broke");
                Err(BuildError::io(&self.shared.spool_path, broken))
            });
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// How many encoders run: what the machine has, as far as their memory stays in bounds.
fn coders(level: i32) -> usize {
    // Measured: match tables of zstd at each level with a window of 8 MiB.
    let each = match level {
        ..=4 => 16 << 20,
        5..=8 => 40 << 20,
        9..=12 => 62 << 20,
        _ => 90 << 20,
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    cores.min(6).min(ENCODERS_MAX_BYTES / each).max(1)
}

struct Coder<'a> {
    shared: &'a Shared,
    encoder: zstd::bulk::Compressor<'static>,
    coded: Vec<u8>,
}

impl<'a> Coder<'a> {
    fn new(shared: &'a Shared, level: i32) -> Result<Coder<'a>, BuildError> {
        let make = || {
            let mut encoder = zstd::bulk::Compressor::new(level)?;
            encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG2))?;
            Ok(encoder)
        };
        let encoder = make().map_err(|e| BuildError::io(&shared.spool_path, e))?;
        Ok(Coder {
            shared,
            encoder,
            coded: Vec::with_capacity(FRAME_CODED_MAX_BYTES as usize),
        })
    }

    fn code(&mut self, frame: &Frame) -> Result<(), BuildError> {
        let Shared {
            pack,
            pack_path,
            spool,
            spool_path,
            spooled,
            done,
        } = self.shared;
        pack.write_all_at(&frame.plain, frame.offset)
            .map_err(|e| BuildError::io(pack_path, e))?;
        let units = units(frame.offset, &frame.plain);
        let alone = (frame.offset == 0 && units.len() == 1).then(|| Hash::of(&frame.plain));

        self.coded.clear();
        let spool_error = |e| BuildError::io(spool_path, e);
        let length = self
            .encoder
            .compress_to_buffer(&frame.plain, &mut self.coded)
            .map_err(spool_error)?;
        let offset = spooled.fetch_add(length as u64, Ordering::Relaxed);
        spool
            .write_all_at(&self.coded[..length], offset)
            .map_err(spool_error)?;
        let coded = Coded {
            offset,
            length: length as u32,
        };
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        done.push(Done {
            offset: frame.offset,
            coded,
            units,
            alone,
        });
        Ok(())
    }
}

/// Chaining values of the 256 KiB units of a frame. The size of a piece follows from the length of the
/// pack, which is not known yet, but it is a power of two of them.
fn units(offset: u64, plain: &[u8]) -> Vec<ChainingValue> {
    let unit = PIECE_MIN_BYTES as usize;
    plain
        .chunks(unit)
        .zip((offset..).step_by(unit))
        .map(|(bytes, at)| {
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(at);
            hasher.update(bytes);
            hasher.finalize_non_root()
        })
        .collect()
}

/// Root of the pack, and chaining value of each piece, from its units.
fn tree(length: u64, units: &[ChainingValue], alone: Hash) -> (Hash, Vec<Hash>) {
    let (left, right) = match units.len() {
        0 | 1 => return (alone, vec![alone]),
        n => units.split_at(left_units(n)),
    };
    let root = merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
    let root = Hash(*root.as_bytes());
    let geometry = Geometry::of(length);
    let per_piece = (geometry.piece_bytes() / PIECE_MIN_BYTES) as usize;
    let pieces: Vec<Hash> = units
        .chunks(per_piece)
        .map(|piece| Hash(subtree(piece)))
        .collect();
    if pieces.len() == 1 {
        (root, vec![root])
    } else {
        (root, pieces)
    }
}

fn subtree(units: &[ChainingValue]) -> ChainingValue {
    match units {
        [unit] => *unit,
        _ => {
            let (left, right) = units.split_at(left_units(units.len()));
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// BLAKE3's rule: the left subtree is the largest full one that leaves something to the right.
fn left_units(units: usize) -> usize {
    units.next_power_of_two() / 2
}
