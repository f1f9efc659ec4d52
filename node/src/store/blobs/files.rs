//! A file of the store: reads and writes at a place, with errors that name it.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::fstatvfs;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::StoreError;
use crate::disk::{Change, Disk};

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    WaitForDisk,
    /// Only what the system has in memory.
    OnlyMemory,
}

/// An open file and its path.
#[derive(Debug)]
pub(crate) struct StoreFile {
    disk: Disk,
    file: File,
    path: PathBuf,
}

impl StoreFile {
    /// Opens (or makes) a file of exactly `length` bytes; what is new reads as zeros, and its room is
    /// taken if the file system can.
    pub(crate) fn open(disk: &Disk, path: PathBuf, length: u64) -> Result<StoreFile, StoreError> {
        let file = disk.open_or_make(&path);
        let file = file.map_err(|e| StoreError::file(&path, e))?;
        let found = file
            .metadata()
            .map_err(|e| StoreError::file(&path, e))?
            .len();
        if found != length {
            resize(disk, &file, found, length).map_err(|e| {
                if found == 0 {
                    let _ = disk.remove(&path);
                }
                StoreError::file(&path, e)
            })?;
        }
        let disk = disk.clone();
        Ok(StoreFile { disk, file, path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buf` from `offset`; an error if the file ends before.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Fills several buffers from one run of bytes, in one call to the system if it plays along;
    /// `WouldBlock` where it would have to wait and may not.
    pub(crate) fn read_scattered(
        &self,
        mut bufs: &mut [IoSliceMut<'_>],
        mut offset: u64,
        patience: Patience,
    ) -> io::Result<()> {
        let how = match patience {
            Patience::WaitForDisk => ReadWriteFlags::empty(),
            Patience::OnlyMemory => ReadWriteFlags::NOWAIT,
        };
        while bufs.iter().any(|buf| !buf.is_empty()) {
            match preadv2(&self.file, bufs, offset, how) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    offset += n as u64;
                    IoSliceMut::advance_slices(&mut bufs, n);
                }
                Err(Errno::INTR) => {}
                // File systems that cannot tell.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) if patience == Patience::OnlyMemory => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        self.disk
            .write_at(&self.file, bytes, offset)
            .map_err(|e| StoreError::file(&self.path, e))
    }

    /// Writes several buffers as one run of bytes.
    pub(crate) fn write_gathered(
        &self,
        bytes: &[IoSlice<'_>],
        offset: u64,
    ) -> Result<(), StoreError> {
        let file = &self.file;
        let write = Change::Write {
            file,
            bytes,
            offset,
        };
        self.disk
            .change(write)
            .map_err(|e| StoreError::file(&self.path, e))
    }

    /// Bytes and length are on the disk when it returns.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.disk
            .sync(&self.file)
            .map_err(|e| StoreError::file(&self.path, e))
    }

    /// Moves the file to another name in the same file system.
    pub(crate) fn rename(&mut self, to: PathBuf) -> Result<(), StoreError> {
        self.disk
            .rename(&self.path, &to)
            .map_err(|e| StoreError::file(&to, e))?;
        self.path = to;
        Ok(())
    }

    /// Removes the file's name; an error is not worth more than a log line.
    pub(crate) fn remove(&self) {
        if let Err(error) = self.disk.remove(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a temporary file stays behind");
        }
    }
}

/// Brings a file to `length` bytes. What is new reads as zeros, but its room is taken: a full disk shows
/// at once and not in the middle, pieces that come in any order lie side by side, and writing them is
/// cheaper. File systems that cannot do it give room as they go.
fn resize(disk: &Disk, file: &File, found: u64, length: u64) -> io::Result<()> {
    if found < length {
        // Asked first, so that no attempt that must fail takes the last room from others meanwhile.
        let room = fstatvfs(file)?;
        if room.f_bavail.saturating_mul(room.f_frsize) < length - found {
            return Err(Errno::NOSPC.into());
        }
        let cannot = [Errno::OPNOTSUPP, Errno::NOSYS].map(|e| Some(e.raw_os_error()));
        match disk.change(Change::Reserve { file, length }) {
            Ok(()) => {}
            Err(e) if cannot.contains(&e.raw_os_error()) => {}
            Err(e) => {
                // What it took before it found no more is given back.
                let _ = disk.set_length(file, found);
                return Err(e);
            }
        }
    }
    disk.set_length(file, length)
}
