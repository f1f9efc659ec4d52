//! The disk itself: one match from change to system call.

use std::fs::{File, Permissions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{Change, Io, Place};

/// The operating system's files.
#[derive(Debug)]
pub(crate) struct System;

impl Io for System {
    fn change(&self, change: Change<'_>) -> io::Result<()> {
        match change {
            Change::Write {
                file,
                bytes,
                offset,
            } => write_all(file, bytes, offset),
            Change::SetLength { file, length } => file.set_len(length),
            Change::Reserve { file, length } => Ok(rustix::fs::fallocate(
                file,
                FallocateFlags::empty(),
                0,
                length,
            )?),
            Change::SetMode { of, mode } => Ok(rustix::fs::fchmod(of, Mode::from(mode))?),
            Change::Sync(of) => Ok(rustix::fs::fsync(of)?),
            Change::SyncData(file) => file.sync_data(),
            Change::SyncAll(of) => Ok(rustix::fs::syncfs(of)?),
            Change::MakeDirectory { place, mode } => {
                Ok(rustix::fs::mkdirat(place.at, place.name, Mode::from(mode))?)
            }
            Change::MakeLink { place, target } => {
                Ok(rustix::fs::symlinkat(target, place.at, place.name)?)
            }
            Change::Rename { from, to } => std::fs::rename(from, to),
            Change::Exchange { one, other } => Ok(rustix::fs::renameat_with(
                CWD,
                one,
                CWD,
                other,
                RenameFlags::EXCHANGE,
            )?),
            Change::Remove(path) => std::fs::remove_file(path),
            Change::RemoveTree(path) => {
                unlock(path)?;
                std::fs::remove_dir_all(path)
            }
        }
    }

    fn make_file(&self, place: Place<'_>, mode: u32) -> io::Result<File> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(place.at, place.name, flags, Mode::from(mode))?;
        Ok(File::from(made))
    }
}

/// Few runs of bytes go in one call; only what a short write left over needs another.
fn write_all(file: &File, bytes: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    let mut done = 0;
    let total: usize = bytes.iter().map(|b| b.len()).sum();
    while done < total {
        let rest;
        let left: &[IoSlice<'_>] = if done == 0 {
            bytes
        } else {
            rest = left_over(bytes, done);
            &rest
        };
        match rustix::io::pwritev(file, left, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                done += n;
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn left_over<'a>(bytes: &'a [IoSlice<'a>], mut done: usize) -> Vec<IoSlice<'a>> {
    let mut left = Vec::with_capacity(bytes.len());
    for run in bytes {
        let skipped = done.min(run.len());
        done -= skipped;
        if skipped < run.len() {
            left.push(IoSlice::new(&run[skipped..]));
        }
    }
    left
}

/// Makes every directory below `path` ours to change again.
fn unlock(path: &Path) -> io::Result<()> {
    let mut open: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        let metadata = std::fs::symlink_metadata(&directory)?;
        if metadata.mode() & 0o700 != 0o700 {
            std::fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        }
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_write_goes_on_where_it_stopped() {
        let bytes = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
        for done in 0..=5 {
            let left: Vec<u8> = left_over(&bytes, done)
                .iter()
                .flat_map(|run| run.to_vec())
                .collect();
            assert_eq!(left, b"abcde"[done..]);
        }
    }
}
