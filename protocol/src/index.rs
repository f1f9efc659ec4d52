//! The index: what a release consists of, and where in the pack its bytes lie.
//!
//! It is a blob of its own, named in the signed manifest. A decoded index is not yet a sound one:
//! [`Index::check`] holds every rule that the installer relies on (paths that stay inside, parents
//! before children, chunks that lie in the pack), and only [`CheckedIndex`] is handed on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::blob::BlobRef;
use crate::ids::Hash;
use crate::limits::{
    CHUNK_MAX_BYTES, INDEX_ENTRIES_MAX, INDEX_MAX_BYTES, PATH_DEPTH_MAX, PATH_MAX_BYTES,
};
use crate::pieces::Geometry;
use crate::versioned::Versioned;

/// The release's files and the chunks of its pack.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Index {
    /// The blob that holds every distinct chunk once, in file order.
    pub pack: BlobRef,
    /// Distinct chunks in pack order; they tile the pack without gap.
    pub chunks: Vec<Chunk>,
    /// Files, directories and links, sorted by path, parents first.
    #[serde(deserialize_with = "few_entries")]
    pub entries: Vec<Entry>,
    /// BLAKE3 subtree chaining value of each piece of the pack (its root hash if the pack is a
    /// single piece), so that a piece verifies alone.
    pub piece_cvs: Vec<Hash>,
}

/// A run of the pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Chunk {
    /// BLAKE3 of the chunk's bytes.
    pub hash: Hash,
    /// Its length in bytes; its place is the sum of the lengths before it.
    pub length: u32,
}

/// One name in the tree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Relative, `/` between components, UTF-8, no `.`, `..` or empty component.
    pub path: String,
    /// What stands there.
    pub kind: EntryKind,
}

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum EntryKind {
    /// A directory with its permission bits (of 0o777).
    Directory {
        /// Permission bits.
        mode: u16,
    },
    /// A regular file.
    File {
        /// Permission bits (of 0o777).
        mode: u16,
        /// Length in bytes: the sum of its chunks'.
        length: u64,
        /// Its chunks, as places in [`Index::chunks`].
        chunks: Vec<u32>,
    },
    /// A symbolic link that stays inside the tree.
    Link {
        /// As readlink gives it.
        target: String,
    },
}

/// Stops at the limit while it decodes: an entry of four bytes takes twenty times that in memory.
fn few_entries<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Entry>, D::Error> {
    struct Entries;
    impl<'de> serde::de::Visitor<'de> for Entries {
        type Value = Vec<Entry>;
        fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            write!(f, "at most {INDEX_ENTRIES_MAX} entries")
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut seq: A,
        ) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = seq.next_element()? {
                if entries.len() == INDEX_ENTRIES_MAX {
                    return Err(serde::de::Error::invalid_length(
                        INDEX_ENTRIES_MAX + 1,
                        &self,
                    ));
                }
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    from.deserialize_seq(Entries)
}

impl Versioned for Index {
    const MAGIC: [u8; 4] = *b"TGIX";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = INDEX_MAX_BYTES as usize;
}

/// Why an index is refused. The culprit is who signed the release.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IndexError {
    /// More entries than a release may have.
    #[error("index has {0} entries, more than {INDEX_ENTRIES_MAX}")]
    TooManyEntries(usize),
    /// A path that could leave the tree or cannot be made.
    #[error("path {path:?} is refused: {why}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Chunks that do not tile the pack, or a file that does not add up.
    #[error("chunks do not add up: {0}")]
    Chunks(String),
    /// Wrong number of chaining values.
    #[error("index has {found} chaining values for {expected} pieces")]
    PieceValues {
        /// Values in the index.
        found: usize,
        /// Pieces of the pack.
        expected: u32,
    },
}

/// An index that passed [`Index::check`], with the place of each chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedIndex {
    index: Index,
    offsets: Vec<u64>,
}

impl core::ops::Deref for CheckedIndex {
    type Target = Index;
    fn deref(&self) -> &Index {
        &self.index
    }
}

impl CheckedIndex {
    /// The bytes of the pack that chunk number `chunk` occupies.
    pub fn chunk_range(&self, chunk: u32) -> core::ops::Range<u64> {
        let start = self.offsets[chunk as usize];
        start..start + u64::from(self.index.chunks[chunk as usize].length)
    }

    /// How the pack is cut.
    pub fn geometry(&self) -> Geometry {
        Geometry::of(self.index.pack.length)
    }
}

/// Whether a relative path is safe to make below an install directory.
///
/// # Errors
/// A word on what is wrong.
pub fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("it is empty");
    }
    if path.len() > PATH_MAX_BYTES {
        return Err("it is too long");
    }
    if path.contains('\0') {
        return Err("it holds a zero byte");
    }
    let mut depth = 0;
    for part in path.split('/') {
        depth += 1;
        match part {
            "" => return Err("it is absolute or has an empty component"),
            "." | ".." => return Err("it has a '.' or '..' component"),
            _ if part.len() > 255 => return Err("a component is over 255 bytes"),
            _ => {}
        }
    }
    if depth > PATH_DEPTH_MAX {
        return Err("it is too deep");
    }
    Ok(())
}

/// Whether the link at `path` with `target` stays inside the tree, judged by its text alone.
///
/// # Errors
/// A word on what is wrong.
pub fn check_link(path: &str, target: &str) -> Result<(), &'static str> {
    if target.is_empty() || target.len() > PATH_MAX_BYTES || target.contains('\0') {
        return Err("its target is empty, too long or holds a zero byte");
    }
    if target.starts_with('/') {
        return Err("its target is absolute");
    }
    let mut depth = path.split('/').count() - 1;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return Err("its target leaves the tree"),
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    Ok(())
}

impl Index {
    /// Checks every rule of an index.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn check(self) -> Result<CheckedIndex, IndexError> {
        if self.entries.len() > INDEX_ENTRIES_MAX {
            return Err(IndexError::TooManyEntries(self.entries.len()));
        }
        let mut offsets = Vec::with_capacity(self.chunks.len());
        let mut end = 0u64;
        for chunk in &self.chunks {
            if chunk.length == 0 || chunk.length > CHUNK_MAX_BYTES {
                return Err(IndexError::Chunks(format!(
                    "chunk {} has {} bytes",
                    chunk.hash, chunk.length
                )));
            }
            offsets.push(end);
            end += u64::from(chunk.length);
        }
        if end != self.pack.length {
            return Err(IndexError::Chunks(format!(
                "chunks hold {end} bytes, the pack {}",
                self.pack.length
            )));
        }
        let pieces = Geometry::of(self.pack.length).pieces();
        if self.piece_cvs.len() != pieces as usize {
            return Err(IndexError::PieceValues {
                found: self.piece_cvs.len(),
                expected: pieces,
            });
        }
        self.check_entries()?;
        Ok(CheckedIndex {
            index: self,
            offsets,
        })
    }

    fn check_entries(&self) -> Result<(), IndexError> {
        let mut seen: BTreeMap<&str, bool> = BTreeMap::new();
        let mut last: Option<&str> = None;
        for Entry { path, kind } in &self.entries {
            let refuse = |why| IndexError::Path {
                path: path.clone(),
                why,
            };
            check_path(path).map_err(refuse)?;
            if last.is_some_and(|last| last >= path.as_str()) {
                return Err(refuse("it is out of order or stands twice"));
            }
            last = Some(path);
            if let Some((parent, _)) = path.rsplit_once('/')
                && seen.get(parent) != Some(&true)
            {
                return Err(refuse("its parent is no directory of this index"));
            }
            seen.insert(path, matches!(kind, EntryKind::Directory { .. }));
            match kind {
                EntryKind::Directory { mode } | EntryKind::File { mode, .. } if *mode > 0o777 => {
                    return Err(refuse("its mode has bits beyond 0777"));
                }
                EntryKind::Link { target } => check_link(path, target).map_err(refuse)?,
                EntryKind::File { length, chunks, .. } => {
                    let mut sum = 0u64;
                    for chunk in chunks {
                        let chunk = self
                            .chunks
                            .get(*chunk as usize)
                            .ok_or_else(|| refuse("it names a chunk that is not there"))?;
                        sum += u64::from(chunk.length);
                    }
                    if sum != *length {
                        return Err(refuse("its chunks do not add up to its length"));
                    }
                }
                EntryKind::Directory { .. } => {}
            }
        }
        Ok(())
    }
}
