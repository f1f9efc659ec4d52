//! The one door to the disk of everything that must survive a crash: blobs, records, installations.
//!
//! What changes the disk is a [`Change`], and [`Io`] carries it out; nothing of `store`, `install` or
//! `content::tree` writes, flushes, renames or removes by another way. In production it is [`System`],
//! one match from change to system call. The crash tests put an `Io` around it that dies at a change
//! of their choice, and forgets what was not flushed. Reading goes past it: it leaves nothing behind.

mod database;
mod system;

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::CWD;

pub(crate) use database::DatabaseFile;
pub(crate) use system::System;

/// A name below an open directory; a name from the root on needs none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub at: BorrowedFd<'a>,
    pub name: &'a Path,
}

impl<'a, P: AsRef<Path> + ?Sized> From<&'a P> for Place<'a> {
    fn from(path: &'a P) -> Place<'a> {
        Place {
            at: CWD,
            name: path.as_ref(),
        }
    }
}

impl<'a> Place<'a> {
    pub(crate) fn below(at: &'a impl AsFd, name: &'a str) -> Place<'a> {
        Place {
            at: at.as_fd(),
            name: name.as_ref(),
        }
    }
}

/// One change of the disk. What it made is durable only after the `Sync` of the file, or for a name of
/// the directory that holds it.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    /// Write these one behind the other.
    Write {
        file: &'a File,
        bytes: &'a [IoSlice<'a>],
        offset: u64,
    },
    /// Cut or lengthen; what is new reads as zeros.
    SetLength {
        file: &'a File,
        length: u64,
    },
    /// Take the room for so many bytes.
    Reserve {
        file: &'a File,
        length: u64,
    },
    SetMode {
        of: BorrowedFd<'a>,
        mode: u32,
    },
    /// Make a file's bytes, or a directory's names, durable.
    Sync(BorrowedFd<'a>),
    /// The same for bytes and length alone, without times.
    SyncData(&'a File),
    /// Make everything durable that is on the file system of this directory.
    SyncAll(BorrowedFd<'a>),
    MakeDirectory {
        place: Place<'a>,
        mode: u32,
    },
    MakeLink {
        place: Place<'a>,
        target: &'a Path,
    },
    /// What stood at `to` is replaced.
    Rename {
        from: &'a Path,
        to: &'a Path,
    },
    /// Both names change places in one step.
    Exchange {
        one: &'a Path,
        other: &'a Path,
    },
    /// Remove a file or a link.
    Remove(&'a Path),
    /// Remove a directory with all that is in it, also what modes lock, never through a link.
    RemoveTree(&'a Path),
}

/// Carries out changes of the disk.
pub(crate) trait Io: Debug + Send + Sync {
    /// Carries out one change; none of it, some of it or all of it happened if it fails.
    fn change(&self, change: Change<'_>) -> io::Result<()>;

    /// Makes a new, empty file of this mode for writing, never through a link; an error if the name is
    /// taken.
    fn make_file(&self, place: Place<'_>, mode: u32) -> io::Result<File>;
}

/// A handle to an [`Io`]. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<dyn Io>);

impl Default for Disk {
    fn default() -> Disk {
        Disk(Arc::new(System))
    }
}

impl Disk {
    #[cfg(test)]
    pub(crate) fn over(io: Arc<dyn Io>) -> Disk {
        Disk(io)
    }

    pub(crate) fn change(&self, change: Change<'_>) -> io::Result<()> {
        self.0.change(change)
    }

    pub(crate) fn make_file(&self, place: Place<'_>, mode: u32) -> io::Result<File> {
        self.0.make_file(place, mode)
    }

    /// Opens a file for reading and writing, which is made if it is not there.
    pub(crate) fn open_or_make(&self, path: &Path) -> io::Result<File> {
        let open = || File::options().read(true).write(true).open(path);
        match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                match self.make_file(path.into(), 0o666) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                    _ => {}
                }
                open()
            }
            opened => opened,
        }
    }

    pub(crate) fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write {
            file,
            bytes: &[IoSlice::new(bytes)],
            offset,
        })
    }

    pub(crate) fn set_length(&self, file: &File, length: u64) -> io::Result<()> {
        self.change(Change::SetLength { file, length })
    }

    pub(crate) fn sync(&self, file: &impl AsFd) -> io::Result<()> {
        self.change(Change::Sync(file.as_fd()))
    }

    /// The names in a directory are on the disk when it returns.
    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync(&File::open(path)?)
    }

    /// Makes a directory and those above it, whose names are on the disk when it returns: what is in
    /// them would be lost with them. Nothing happens if it is there already.
    pub(crate) fn make_dirs(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        self.make_dirs(parent)?;
        match self.make_dir(path, 0o777) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            made => made?,
        }
        self.sync_dir(parent)
    }

    pub(crate) fn make_dir<'a>(&self, place: impl Into<Place<'a>>, mode: u32) -> io::Result<()> {
        let place = place.into();
        self.change(Change::MakeDirectory { place, mode })
    }

    pub(crate) fn make_link<'a>(
        &self,
        place: impl Into<Place<'a>>,
        target: &Path,
    ) -> io::Result<()> {
        let place = place.into();
        self.change(Change::MakeLink { place, target })
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Change::Rename { from, to })
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Change::Remove(path))
    }

    /// Removes whatever stands at `path`, also directories that their modes lock, never through a link.
    /// Nothing there is no error.
    pub(crate) fn clear(&self, path: &Path) -> io::Result<()> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.change(Change::RemoveTree(path)),
            Ok(_) => self.remove(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }
}
