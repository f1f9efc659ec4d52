//! Building a release's content: a directory or a file becomes index, pack and, if it compresses, `full`
//! carrier.
//!
//! One thread reads and cuts; the chunks of a batch are hashed on all cores; distinct ones fill frames
//! of 8 MiB, which a few threads write to the pack, hash and compress (`packer`). The hand-over
//! is a rendezvous, so the frames under way are counted, and memory does not grow with the payload but
//! for the index itself: about 55 bytes a distinct chunk (0.9 MiB a GiB) and its entries.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use protocol::carrier::{Coding, FrameTable};
use protocol::index::{EntryKind, Index};
use protocol::limits::{FRAME_PLAIN_MAX_BYTES, INDEX_MAX_BYTES};
use protocol::manifest::{Carrier, CarrierKind};
use protocol::versioned::Versioned;
use protocol::{BlobRef, Hash};
use serde::{Deserialize, Serialize};

use super::cutter::Cutter;
use super::packer::{Packed, Packer};
use super::walk::{Walk, walk};

/// Choices of a build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BuildOptions {
    /// zstd level of the carrier, 1 (quick) to 19 (small).
    pub level: i32,
}

impl Default for BuildOptions {
    fn default() -> BuildOptions {
        BuildOptions { level: 10 }
    }
}

/// What a build made. The blobs lie in its directory as [`Built::INDEX`], [`Built::PACK`] and
/// [`Built::CARRIER`], this description as [`Built::DESCRIPTION`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Built {
    /// Format version, 1.
    pub version: u32,
    /// The index blob.
    pub index: BlobRef,
    /// The pack blob.
    pub pack: BlobRef,
    /// The `full` carrier blob, where it is worth its while: what does not compress travels as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<BlobRef>,
    /// Bytes that the installed tree needs on disk, each file rounded up to 4 KiB.
    pub disk_bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of all files, before equal chunks are stored once.
    pub plain_bytes: u64,
}

impl Built {
    /// File name of the index blob.
    pub const INDEX: &'static str = "index";
    /// File name of the pack blob.
    pub const PACK: &'static str = "pack";
    /// File name of the `full` carrier blob.
    pub const CARRIER: &'static str = "carrier.full";
    /// File name of the description itself, JSON.
    pub const DESCRIPTION: &'static str = "build.json";
    /// The version that is written and read.
    pub const VERSION: u32 = 1;

    /// Reads the description of the build in `out`.
    ///
    /// # Errors
    /// When `out` holds no build, or one of another version.
    pub fn load(out: &Path) -> Result<Built, BuildError> {
        let path = out.join(Self::DESCRIPTION);
        let text = std::fs::read(&path).map_err(|e| BuildError::io(&path, e))?;
        let refuse = |why| BuildError::Output {
            path: shown(&path),
            why,
        };
        let built: Built = serde_json::from_slice(&text)
            .map_err(|_| refuse("it describes no build; run `tidegate release build`"))?;
        if built.version != Self::VERSION {
            return Err(refuse(
                "it is of another version of tidegate; build the release again",
            ));
        }
        Ok(built)
    }

    /// The blobs and their files in `out`: index, pack, and carrier if there is one.
    pub fn blobs(&self, out: &Path) -> Vec<(BlobRef, PathBuf)> {
        let mut blobs = vec![
            (self.index, out.join(Self::INDEX)),
            (self.pack, out.join(Self::PACK)),
        ];
        blobs.extend(self.carrier.map(|blob| (blob, out.join(Self::CARRIER))));
        blobs
    }

    /// The carriers as a manifest names them.
    pub fn carriers(&self) -> Vec<Carrier> {
        let full = |blob| Carrier {
            kind: CarrierKind::Full,
            blob,
        };
        self.carrier.map(full).into_iter().collect()
    }

    /// What crosses a WAN beside the index: the carrier, or the pack itself.
    pub fn travels(&self) -> BlobRef {
        self.carrier.unwrap_or(self.pack)
    }
}

/// Why a release cannot be built. The culprit is the operator's tree or machine.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A name or file that a release cannot hold.
    #[error("{path} cannot be released: {why}")]
    Refused {
        /// The path, escaped if need be.
        path: String,
        /// Why, and what to do.
        why: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The path, escaped if need be.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The output directory is something else.
    #[error("{path} is refused as output: {why}")]
    Output {
        /// The path.
        path: String,
        /// Why, and what to do.
        why: &'static str,
    },
}

impl BuildError {
    pub(super) fn io(path: &Path, source: io::Error) -> BuildError {
        BuildError::Io {
            path: shown(path),
            source,
        }
    }
    pub(super) fn refused(path: &Path, why: impl Into<String>) -> BuildError {
        BuildError::Refused {
            path: shown(path),
            why: why.into(),
        }
    }
}

/// A path as one line of text, quoted and escaped if it is not plain.
pub(crate) fn shown(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("{path:?}"),
    }
}

/// Cuts `path` (a directory, or one file) and writes its blobs into the directory `out`, which appears
/// complete or not at all; an earlier build there is replaced. The same tree gives the same bytes.
///
/// # Errors
/// One line that names the path: it does not exist, cannot be read, cannot be released, changed while
/// it was read, or `out` cannot be written or holds something else.
pub fn build(path: &Path, out: &Path, options: BuildOptions) -> Result<Built, BuildError> {
    let walk = walk(path)?;
    let output = Output::prepare(out, &walk.base, path)?;
    let built = write_blobs(walk, output.path(), options)?;
    output.finish()?;
    Ok(built)
}

fn write_blobs(walk: Walk, dir: &Path, options: BuildOptions) -> Result<Built, BuildError> {
    let Walk { base, mut entries } = walk;
    let packer = Packer::start(&dir.join(Built::PACK), &dir.join(SPOOL), options.level)?;
    let mut cutter = Cutter::new(packer);
    let mut disk_bytes = 0;
    let mut plain_bytes = 0;
    for number in 0..entries.len() {
        if matches!(entries[number].kind, EntryKind::File { .. }) {
            let length = cutter.add(&base, &mut entries, number)?;
            plain_bytes += length;
            disk_bytes += length.next_multiple_of(4096);
        } else {
            disk_bytes += 4096;
        }
    }
    let (chunks, packed) = cutter.finish(&mut entries)?;
    let pack = packed.blob;
    let carrier = match is_worth_it(&packed) {
        true => Some(write_carrier(dir, &packed)?),
        false => None,
    };
    let spool = dir.join(SPOOL);
    std::fs::remove_file(&spool).map_err(|e| BuildError::io(&spool, e))?;
    let count = entries.len() as u64;
    let index = write_index(
        dir,
        Index {
            pack,
            chunks,
            entries,
            piece_cvs: packed.piece_cvs,
        },
    )?;
    let built = Built {
        version: Built::VERSION,
        index,
        pack,
        carrier,
        disk_bytes,
        entries: count,
        plain_bytes,
    };
    let description = dir.join(Built::DESCRIPTION);
    let text = serde_json::to_vec_pretty(&built).expect("a description is plain JSON");
    File::create_new(&description)
        .and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        })
        .map_err(|e| BuildError::io(&description, e))?;
    Ok(built)
}

/// Where the frames wait until all are known.
const SPOOL: &str = "frames";
/// A carrier saves at least this part of the pack. One that saves less costs every node more than it
/// spares the WAN: it is written, read and decoded beside the pack.
const CARRIER_SAVES_MIN: u64 = 100;

/// Whether a carrier of these frames saves enough.
fn is_worth_it(packed: &Packed) -> bool {
    let coded: u64 = packed.frames.iter().map(|f| u64::from(f.length)).sum();
    let plain = packed.blob.length;
    plain > 0 && coded <= plain - plain / CARRIER_SAVES_MIN
}

/// Puts the frames, which were spooled as they became ready, into order behind their table.
fn write_carrier(dir: &Path, packed: &Packed) -> Result<BlobRef, BuildError> {
    use std::os::unix::fs::FileExt;
    let path = dir.join(Built::CARRIER);
    let table = FrameTable {
        coding: Coding::Zstd,
        frame_plain: FRAME_PLAIN_MAX_BYTES,
        plain: packed.blob.length,
        coded: packed.frames.iter().map(|frame| frame.length).collect(),
    };
    let write = || -> io::Result<BlobRef> {
        let mut out = HashingWriter::new(File::create_new(&path)?);
        out.write_all(&table.head())?;
        let mut buffer = Vec::new();
        for frame in &packed.frames {
            buffer.resize(frame.length as usize, 0);
            packed.spool.read_exact_at(&mut buffer, frame.offset)?;
            out.write_all(&buffer)?;
        }
        out.finish()
    };
    write().map_err(|e| BuildError::io(&path, e))
}

/// Encodes the index straight into its file: it may be as large as all the build's other memory.
fn write_index(dir: &Path, index: Index) -> Result<BlobRef, BuildError> {
    let path = dir.join(Built::INDEX);
    let write = || -> io::Result<BlobRef> {
        let file = HashingWriter::new(File::create_new(&path)?);
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&Index::MAGIC)?;
        out.write_all(&[Index::VERSION])?;
        let mut out = postcard::to_io(&index, out).map_err(io::Error::other)?;
        out.flush()?;
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .finish()
    };
    let blob = write().map_err(|e| BuildError::io(&path, e))?;
    if blob.length > INDEX_MAX_BYTES {
        let why = "its index would be too long; split the release into several products";
        return Err(BuildError::refused(&path, why));
    }
    Ok(blob)
}

/// Names what passes through it.
struct HashingWriter {
    file: File,
    hasher: blake3::Hasher,
}

impl HashingWriter {
    fn new(file: File) -> HashingWriter {
        HashingWriter {
            file,
            hasher: blake3::Hasher::new(),
        }
    }
    fn finish(self) -> io::Result<BlobRef> {
        self.file.sync_all()?;
        let root = Hash(*self.hasher.finalize().as_bytes());
        Ok(BlobRef {
            root,
            length: self.hasher.count(),
        })
    }
}

impl Write for HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A directory beside the output, which takes its place when all is written.
struct Output {
    temporary: tempfile::TempDir,
    parent: PathBuf,
    out: PathBuf,
}

impl Output {
    fn prepare(out: &Path, base: &Path, path: &Path) -> Result<Output, BuildError> {
        let refuse = |why| BuildError::Output {
            path: shown(out),
            why,
        };
        let out = std::path::absolute(out).map_err(|e| BuildError::io(out, e))?;
        let name = out
            .file_name()
            .ok_or_else(|| refuse("it has no name"))?
            .to_owned();
        let parent = out.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).map_err(|e| BuildError::io(parent, e))?;
        let parent = std::fs::canonicalize(parent).map_err(|e| BuildError::io(parent, e))?;
        let out = parent.join(name);
        if path.is_dir() && out.starts_with(base) {
            return Err(refuse(
                "it lies in the tree that is released; choose one outside",
            ));
        }
        match std::fs::read_dir(&out) {
            Ok(mut names) => {
                if names.next().is_some() && Built::load(&out).is_err() {
                    return Err(refuse("it holds something else; choose a new or empty one"));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(BuildError::io(&out, e)),
        }
        let temporary = tempfile::Builder::new()
            .prefix(".tidegate-build-")
            .tempdir_in(&parent)
            .map_err(|e| BuildError::io(&parent, e))?;
        Ok(Output {
            temporary,
            parent,
            out,
        })
    }

    fn path(&self) -> &Path {
        self.temporary.path()
    }

    fn finish(self) -> Result<(), BuildError> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let Output {
            temporary,
            parent,
            out,
        } = self;
        let fail = |e: io::Error| BuildError::io(&out, e);
        sync_dir(temporary.path()).map_err(fail)?;
        // An earlier build changes places with the new one and goes with the temporary directory.
        let (flags, keep) = match out.exists() {
            true => (RenameFlags::EXCHANGE, false),
            false => (RenameFlags::NOREPLACE, true),
        };
        renameat_with(CWD, temporary.path(), CWD, &out, flags).map_err(|e| fail(e.into()))?;
        if keep {
            let _ = temporary.keep();
        }
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&out, open).map_err(fail)?;
        sync_dir(&parent).map_err(fail)
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
