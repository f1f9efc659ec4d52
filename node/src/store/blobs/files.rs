//! A file of the store: reads and writes at a place, with errors that name it.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::StoreError;

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
    file: File,
    path: PathBuf,
}

impl StoreFile {
    /// Opens (or makes) a file of exactly `length` bytes; what is new reads as zeros, and its room is
    /// taken if the file system can.
    pub(crate) fn open(path: PathBuf, length: u64) -> Result<StoreFile, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = file.map_err(|e| StoreError::file(&path, e))?;
        let found = file
            .metadata()
            .map_err(|e| StoreError::file(&path, e))?
            .len();
        if found != length {
            resize(&file, found, length).map_err(|e| {
                if found == 0 {
                    let _ = std::fs::remove_file(&path);
                }
                StoreError::file(&path, e)
            })?;
        }
        Ok(StoreFile { file, path })
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
        self.file
            .write_all_at(bytes, offset)
            .map_err(|e| StoreError::file(&self.path, e))
    }

    /// Writes several buffers as one run of bytes.
    pub(crate) fn write_gathered(
        &self,
        mut bufs: &mut [IoSlice<'_>],
        mut offset: u64,
    ) -> Result<(), StoreError> {
        while bufs.iter().any(|buf| !buf.is_empty()) {
            match rustix::io::pwritev(&self.file, bufs, offset) {
                Ok(0) => {
                    return Err(StoreError::file(
                        &self.path,
                        io::ErrorKind::WriteZero.into(),
                    ));
                }
                Ok(n) => {
                    offset += n as u64;
                    IoSlice::advance_slices(&mut bufs, n);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(StoreError::file(&self.path, e.into())),
            }
        }
        Ok(())
    }

    /// Bytes and length are on the disk when it returns.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file
            .sync_all()
            .map_err(|e| StoreError::file(&self.path, e))
    }

    /// Moves the file to another name in the same file system.
    pub(crate) fn rename(&mut self, to: PathBuf) -> Result<(), StoreError> {
        std::fs::rename(&self.path, &to).map_err(|e| StoreError::file(&to, e))?;
        self.path = to;
        Ok(())
    }

    /// Removes the file's name; an error is not worth more than a log line.
    pub(crate) fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a temporary file stays behind");
        }
    }
}

/// Brings a file to `length` bytes. What is new reads as zeros, but its room is taken: a full disk shows
/// at once and not in the middle, pieces that come in any order lie side by side, and writing them is
/// cheaper. File systems that cannot do it give room as they go.
fn resize(file: &File, found: u64, length: u64) -> io::Result<()> {
    if found < length {
        // Asked first, so that no attempt that must fail takes the last room from others meanwhile.
        let disk = fstatvfs(file)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < length - found {
            return Err(Errno::NOSPC.into());
        }
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(e) => {
                // What it took before it found no more is given back.
                let _ = file.set_len(found);
                return Err(e.into());
            }
        }
    }
    file.set_len(length)
}

/// The names inside a directory are on the disk when it returns.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| StoreError::file(dir, e))
}
