//! Reading files and cutting them into chunks, a batch at a time.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use fastcdc::v2020::FastCDC;
use protocol::Hash;
use protocol::index::{Chunk, Entry, EntryKind};
use protocol::limits::{CHUNK_AVG_BYTES, CHUNK_MAX_BYTES, CHUNK_MIN_BYTES};
use rayon::prelude::*;

use super::build::BuildError;
use super::chunks::ChunkTable;
use super::packer::{Packed, Packer};
use super::walk::permissions;

/// Bytes that are cut and hashed together, of as many files as they hold.
const BATCH_BYTES: usize = 4 << 20;

/// Feeds the packer with the distinct chunks of files, in file order.
pub(super) struct Cutter {
    packer: Packer,
    table: ChunkTable,
    buffer: Vec<u8>,
    filled: usize,
    cut: usize,
    cuts: Vec<Cut>,
}

/// A chunk in the buffer that is not hashed yet.
struct Cut {
    entry: usize,
    start: usize,
    length: usize,
}

impl Cutter {
    pub fn new(packer: Packer) -> Cutter {
        let buffer = vec![0; BATCH_BYTES];
        Cutter {
            packer,
            table: ChunkTable::new(),
            buffer,
            filled: 0,
            cut: 0,
            cuts: Vec::new(),
        }
    }

    /// Reads the file of entry `number`, whose path is below `base`, and gives its length.
    pub fn add(
        &mut self,
        base: &Path,
        entries: &mut [Entry],
        number: usize,
    ) -> Result<u64, BuildError> {
        let path = base.join(&entries[number].path);
        let fail = |e| BuildError::io(&path, e);
        let changed = || BuildError::refused(&path, "it changed while it was read; build again");
        // Without following a link or waiting for a pipe's writer, if the name was swapped meanwhile.
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path)
            .map_err(fail)?;
        let before = file.metadata().map_err(fail)?;
        if !before.is_file() {
            return Err(changed());
        }
        let length = self.read(&mut file, &path, entries, number)?;
        let after = file.metadata().map_err(fail)?;
        if length != before.len() || stamp(&before) != stamp(&after) {
            return Err(changed());
        }
        if let EntryKind::File {
            mode,
            length: place,
            ..
        } = &mut entries[number].kind
        {
            *mode = permissions(&before);
            *place = length;
        }
        Ok(length)
    }

    /// The distinct chunks, and the pack.
    pub fn finish(mut self, entries: &mut [Entry]) -> Result<(Vec<Chunk>, Packed), BuildError> {
        self.flush(entries)?;
        Ok((self.table.into_chunks(), self.packer.finish()?))
    }

    fn read(
        &mut self,
        file: &mut File,
        path: &Path,
        entries: &mut [Entry],
        number: usize,
    ) -> Result<u64, BuildError> {
        let mut length = 0;
        loop {
            if self.filled == self.buffer.len() {
                self.flush(entries)?;
            }
            let read = match file.read(&mut self.buffer[self.filled..]) {
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(BuildError::io(path, e)),
            };
            self.filled += read;
            length += read as u64;
            self.cut(number, read == 0);
            if read == 0 {
                return Ok(length);
            }
        }
    }

    /// Cuts what is certain: a cut depends on the bytes up to the largest chunk behind it, so the same
    /// file is cut alike however its reads fell.
    fn cut(&mut self, entry: usize, end_of_file: bool) {
        let (min, avg, max) = (
            CHUNK_MIN_BYTES as usize,
            CHUNK_AVG_BYTES as usize,
            CHUNK_MAX_BYTES as usize,
        );
        let ahead = &self.buffer[self.cut..self.filled];
        let cdc = FastCDC::new(ahead, min, avg, max);
        let mut at = 0;
        while at < ahead.len() && (end_of_file || ahead.len() - at >= max) {
            let (_, end) = cdc.cut(at, ahead.len() - at);
            self.cuts.push(Cut {
                entry,
                start: self.cut + at,
                length: end - at,
            });
            at = end;
        }
        self.cut += at;
    }

    /// Hashes the cuts, packs the new ones, and moves what is not cut yet to the front.
    fn flush(&mut self, entries: &mut [Entry]) -> Result<(), BuildError> {
        let buffer = &self.buffer;
        let bytes = |cut: &Cut| &buffer[cut.start..cut.start + cut.length];
        let hashes: Vec<Hash> = self
            .cuts
            .par_iter()
            .map(|cut| Hash::of(bytes(cut)))
            .collect();
        for (cut, hash) in self.cuts.iter().zip(hashes) {
            let (chunk, new) = self.table.intern(Chunk {
                hash,
                length: cut.length as u32,
            });
            if new {
                self.packer.append(bytes(cut))?;
            }
            if let EntryKind::File { chunks, .. } = &mut entries[cut.entry].kind {
                chunks.push(chunk);
            }
        }
        self.cuts.clear();
        self.buffer.copy_within(self.cut..self.filled, 0);
        self.filled -= self.cut;
        self.cut = 0;
        Ok(())
    }
}

/// What changes with a file's content.
fn stamp(metadata: &Metadata) -> [i64; 6] {
    [
        metadata.ino() as i64,
        metadata.size() as i64,
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ]
}
