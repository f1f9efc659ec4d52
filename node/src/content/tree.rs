//! Writing the files of a release, checking ones that are there, and removing them.
//!
//! Everything is made below one directory that this process made itself, by handles: a name is opened
//! relative to its parent's handle and never through a link. Links are made last, so that while files are
//! written none of the release's own links exists. The bytes that are written are the ones that were
//! hashed a moment before.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use protocol::Hash;
use protocol::index::{CheckedIndex, Entry, EntryKind};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::build::shown;
use super::links::escaping_link;
use crate::disk::{Change, Disk, Place};
use crate::store::blobs::Blob;

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The operating system refused: the machine is at fault, not the release.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A chunk is not what the index names.
    #[error("{path}: its bytes in the pack are not the ones that the index names")]
    Wrong {
        /// The file.
        path: String,
    },
    /// A link that leads out of the tree.
    #[error("{path}: {why}")]
    Link {
        /// The link.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl UnpackError {
    /// Whether the machine and not the release is at fault, so that another attempt may succeed.
    pub fn is_machine(&self) -> bool {
        matches!(self, UnpackError::Io { .. })
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> UnpackError + use<> {
    let path = shown(path);
    move |source| UnpackError::Io {
        path: path.clone(),
        source,
    }
}

/// Writes the tree of `index`, with bytes from `pack`, as the new directory `into`, durably. What an
/// earlier, broken attempt left at `into` is removed first.
///
/// # Errors
/// When the disk refuses, or the pack and the index do not belong together.
pub fn unpack(index: &CheckedIndex, pack: &Blob, into: &Path) -> Result<(), UnpackError> {
    unpack_on(&Disk::default(), index, pack, into)
}

/// The same on any disk.
pub(crate) fn unpack_on(
    disk: &Disk,
    index: &CheckedIndex,
    pack: &Blob,
    into: &Path,
) -> Result<(), UnpackError> {
    if let Some((path, why)) = escaping_link(&index.entries) {
        return Err(UnpackError::Link {
            path: path.to_owned(),
            why,
        });
    }
    disk.clear(into).map_err(io_error(into))?;
    let parent = into.parent().unwrap_or(Path::new("/"));
    disk.make_dirs(parent).map_err(io_error(parent))?;
    disk.make_dir(into, 0o777).map_err(io_error(into))?;
    let tree = Tree::open(into).map_err(io_error(into))?;
    let mut parents = Parents::default();
    let mut buffer = Vec::new();
    for entry in &index.entries {
        let fail = io_error(&into.join(&entry.path));
        match &entry.kind {
            EntryKind::Directory { .. } => tree
                .make_directory(disk, &mut parents, &entry.path)
                .map_err(fail)?,
            EntryKind::File { mode, chunks, .. } => {
                let file = tree
                    .make_file(disk, &mut parents, &entry.path)
                    .map_err(&fail)?;
                let mut offset = 0;
                for chunk in chunks {
                    read_chunk(index, pack, *chunk, &mut buffer, entry)?;
                    disk.write_at(&file, &buffer, offset).map_err(&fail)?;
                    offset += buffer.len() as u64;
                }
                set_mode(disk, &file, *mode).map_err(&fail)?;
            }
            EntryKind::Link { .. } => {}
        }
    }
    for entry in &index.entries {
        if let EntryKind::Link { target } = &entry.kind {
            let fail = io_error(&into.join(&entry.path));
            tree.make_link(disk, &mut parents, &entry.path, target)
                .map_err(fail)?;
        }
    }
    // Children first: a directory may be made unwritable or unsearchable by its mode.
    for entry in index.entries.iter().rev() {
        if let EntryKind::Directory { mode } = &entry.kind {
            let fail = io_error(&into.join(&entry.path));
            tree.directory(&entry.path)
                .and_then(|directory| set_mode(disk, &directory, *mode))
                .map_err(fail)?;
        }
    }
    set_mode(disk, &tree.root, 0o755).map_err(io_error(into))?;
    // One flush of the file system instead of one for each of thousands of files.
    let all = Change::SyncAll(tree.root.as_fd());
    disk.change(all).map_err(io_error(into))?;
    disk.sync_dir(parent).map_err(io_error(parent))
}

fn set_mode(disk: &Disk, of: &impl AsFd, mode: u16) -> io::Result<()> {
    disk.change(Change::SetMode {
        of: of.as_fd(),
        mode: mode.into(),
    })
}

fn read_chunk(
    index: &CheckedIndex,
    pack: &Blob,
    chunk: u32,
    buffer: &mut Vec<u8>,
    entry: &Entry,
) -> Result<(), UnpackError> {
    let range = index.chunk_range(chunk);
    buffer.resize((range.end - range.start) as usize, 0);
    let name = || format!("pack {} for {}", pack.name(), entry.path);
    pack.read_at(range.start, buffer)
        .map_err(|source| UnpackError::Io {
            path: name(),
            source,
        })?;
    if Hash::of(buffer) != index.chunks[chunk as usize].hash {
        return Err(UnpackError::Wrong {
            path: entry.path.clone(),
        });
    }
    Ok(())
}

/// A directory that this process made, by its handle.
struct Tree {
    root: OwnedFd,
}

/// The directory that was worked in last: entries come sorted, so it is mostly the next one too.
#[derive(Default)]
struct Parents {
    path: String,
    handle: Option<OwnedFd>,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::RDONLY);

impl Tree {
    fn open(path: &Path) -> io::Result<Tree> {
        Ok(Tree {
            root: rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?,
        })
    }

    /// Opens a directory below the root, one component after the other.
    fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        let mut at = self.root.try_clone()?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = rustix::fs::openat(&at, part, DIRECTORY, Mode::empty())?;
        }
        Ok(at)
    }

    fn parent<'a>(
        &self,
        parents: &'a mut Parents,
        path: &'a str,
    ) -> io::Result<(&'a OwnedFd, &'a str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let handle = match parents.handle.take() {
            Some(handle) if parents.path == parent => handle,
            _ => self.directory(parent)?,
        };
        parent.clone_into(&mut parents.path);
        Ok((parents.handle.insert(handle), name))
    }

    fn make_directory(&self, disk: &Disk, parents: &mut Parents, path: &str) -> io::Result<()> {
        let (parent, name) = self.parent(parents, path)?;
        disk.make_dir(Place::below(parent, name), 0o700)
    }

    fn make_file(&self, disk: &Disk, parents: &mut Parents, path: &str) -> io::Result<File> {
        let (parent, name) = self.parent(parents, path)?;
        disk.make_file(Place::below(parent, name), 0o600)
    }

    fn make_link(
        &self,
        disk: &Disk,
        parents: &mut Parents,
        path: &str,
        target: &str,
    ) -> io::Result<()> {
        let (parent, name) = self.parent(parents, path)?;
        disk.make_link(Place::below(parent, name), Path::new(target))
    }
}

/// Whether every entry of `index` stands below `at` with its mode and bytes. Other names are not looked
/// for: a program may write beside its files.
///
/// # Errors
/// When the disk fails for another reason than that a name is missing.
pub fn matches(index: &CheckedIndex, at: &Path) -> Result<bool, UnpackError> {
    let root = match Tree::open(at) {
        Ok(root) => root,
        Err(e) if is_absence(&e) => return Ok(false),
        Err(e) => return Err(io_error(at)(e)),
    };
    let mut parents = Parents::default();
    for entry in &index.entries {
        match entry_matches(index, &root, &mut parents, entry) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(e) if is_absence(&e) => return Ok(false),
            Err(e) => return Err(io_error(&at.join(&entry.path))(e)),
        }
    }
    Ok(true)
}

fn is_absence(e: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    // ELOOP: a link stands where a directory or file should.
    let is_link = e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    is_link || matches!(e.kind(), NotFound | NotADirectory | PermissionDenied)
}

fn entry_matches(
    index: &CheckedIndex,
    tree: &Tree,
    parents: &mut Parents,
    entry: &Entry,
) -> io::Result<bool> {
    let (parent, name) = tree.parent(parents, &entry.path)?;
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let has_mode = |mode: u16| stat.st_mode & 0o7777 == u32::from(mode);
    match &entry.kind {
        EntryKind::Directory { mode } => Ok(kind == FileType::Directory && has_mode(*mode)),
        EntryKind::Link { target } => Ok(kind == FileType::Symlink
            && rustix::fs::readlinkat(parent, name, Vec::new())?.as_bytes() == target.as_bytes()),
        EntryKind::File {
            mode,
            length,
            chunks,
        } => {
            if kind != FileType::RegularFile || !has_mode(*mode) || stat.st_size as u64 != *length {
                return Ok(false);
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?);
            let mut buffer = Vec::new();
            for chunk in chunks {
                let chunk = &index.chunks[*chunk as usize];
                buffer.resize(chunk.length as usize, 0);
                match file.read_exact(&mut buffer) {
                    Ok(()) if Hash::of(&buffer) == chunk.hash => {}
                    Ok(()) => return Ok(false),
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                    Err(e) => return Err(e),
                }
            }
            Ok(true)
        }
    }
}

/// Removes whatever stands at `path`, also directories that their modes lock, never through a link.
///
/// # Errors
/// When something cannot be removed. Nothing there is no error.
pub fn remove(path: &Path) -> io::Result<()> {
    Disk::default().clear(path)
}
