//! Walking the tree that is to be released: what may stand in it, in which order it is listed.
//!
//! | in the tree | what becomes of it |
//! |---|---|
//! | files, directories | kept with their permission bits (0777), empty ones too |
//! | symbolic links | kept as links; one that leaves the tree is refused |
//! | setuid, setgid, sticky | dropped: a release gives nobody more rights |
//! | owner, group, times, extended attributes | dropped |
//! | hard links | separate files (equal chunks are stored once anyway) |
//! | sparse files | stored as their bytes (runs of zeros are one chunk) |
//! | names that differ only in case | kept |
//! | names that are not UTF-8 | refused |
//! | sockets, pipes, devices | refused |

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use protocol::index::{Entry, EntryKind, check_link, check_path};
use protocol::limits::INDEX_ENTRIES_MAX;

use super::build::BuildError;
use super::links::escaping_link;

/// What was found: entries sorted by path, with files still empty, and where their paths start.
pub(super) struct Walk {
    /// The directory that the entries' paths are below.
    pub base: PathBuf,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// Lists `path`: all that is below a directory, or the one file.
pub(super) fn walk(path: &Path) -> Result<Walk, BuildError> {
    let path = &std::fs::canonicalize(path).map_err(|e| BuildError::io(path, e))?;
    let metadata = std::fs::metadata(path).map_err(|e| BuildError::io(path, e))?;
    let mut entries = Vec::new();
    let base = if metadata.is_dir() {
        let mut open = vec![path.clone()];
        while let Some(directory) = open.pop() {
            list(path, &directory, &mut entries, &mut open)?;
        }
        path.clone()
    } else {
        let base = path.parent().unwrap_or(Path::new("/")).to_owned();
        entries.push(entry(&base, path)?);
        base
    };
    // By the bytes of the whole path: a parent is a prefix of its children, so it comes first.
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    if let Some((link, why)) = escaping_link(&entries) {
        return Err(BuildError::refused(&base.join(link), why));
    }
    Ok(Walk { base, entries })
}

fn list(
    base: &Path,
    directory: &Path,
    entries: &mut Vec<Entry>,
    open: &mut Vec<PathBuf>,
) -> Result<(), BuildError> {
    for found in std::fs::read_dir(directory).map_err(|e| BuildError::io(directory, e))? {
        let path = found.map_err(|e| BuildError::io(directory, e))?.path();
        if entries.len() == INDEX_ENTRIES_MAX {
            return Err(BuildError::refused(
                base,
                format!("it has more than {INDEX_ENTRIES_MAX} entries; split the release"),
            ));
        }
        let entry = entry(base, &path)?;
        if matches!(entry.kind, EntryKind::Directory { .. }) {
            open.push(path);
        }
        entries.push(entry);
    }
    Ok(())
}

fn entry(base: &Path, path: &Path) -> Result<Entry, BuildError> {
    let refuse = |why: &str| BuildError::refused(path, why);
    let relative = path.strip_prefix(base).unwrap_or(path);
    let name = relative
        .to_str()
        .ok_or_else(|| refuse("its name is not UTF-8; rename it"))?;
    check_path(name).map_err(refuse)?;
    let metadata = std::fs::symlink_metadata(path).map_err(|e| BuildError::io(path, e))?;
    let kind = metadata.file_type();
    let kind = if kind.is_dir() {
        EntryKind::Directory {
            mode: permissions(&metadata),
        }
    } else if kind.is_file() {
        EntryKind::File {
            mode: permissions(&metadata),
            length: 0,
            chunks: Vec::new(),
        }
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).map_err(|e| BuildError::io(path, e))?;
        let target = target
            .to_str()
            .ok_or_else(|| refuse("its target is not UTF-8; make the link anew"))?;
        check_link(name, target).map_err(|why| {
            BuildError::refused(path, format!("it is a link to {target:?} and {why}"))
        })?;
        EntryKind::Link {
            target: target.to_owned(),
        }
    } else if kind.is_fifo() {
        return Err(refuse("it is a named pipe; remove it from the tree"));
    } else if kind.is_socket() {
        return Err(refuse("it is a socket; remove it from the tree"));
    } else {
        return Err(refuse("it is a device; remove it from the tree"));
    };
    Ok(Entry {
        path: name.to_owned(),
        kind,
    })
}

/// The permission bits that a release keeps.
pub(super) fn permissions(metadata: &std::fs::Metadata) -> u16 {
    (metadata.mode() & 0o777) as u16
}
