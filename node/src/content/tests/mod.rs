//! The whole way of a release: tree, blobs, tree.

mod description;
mod hostile;
mod round_trip;
mod tree_rows;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::index::CheckedIndex;

use super::build::{BuildError, BuildOptions, Built, build};
use super::{frames, read_index, reuse, tree};
use crate::store::blobs::{Blob, Blobs};

/// A directory for a test, with a tree in it and a store beside the tree.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    pub blobs: Blobs,
}

/// A release's content as a node has it.
#[derive(Clone)]
pub(crate) struct Held {
    pub index: Arc<CheckedIndex>,
    pub pack: Arc<Blob>,
}

impl Bench {
    pub fn new() -> Bench {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let blobs = Blobs::open(&dir.path().join("store")).expect("a store");
        fs::create_dir(dir.path().join("tree")).expect("a tree");
        Bench { dir, blobs }
    }

    /// A path in the bench's directory.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path in the tree.
    pub fn tree(&self, name: &str) -> PathBuf {
        self.at("tree").join(name)
    }

    /// Writes a file of the tree, with its parents.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.tree(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("parents");
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        path
    }

    pub fn build(&self) -> Result<Built, BuildError> {
        build(&self.at("tree"), &self.at("out"), BuildOptions { level: 1 })
    }

    /// Takes the build in `out` into the store the way a node does: index, then the carrier's frames, or
    /// the pack if there is no carrier.
    pub fn fetch(&self) -> Held {
        let out = self.at("out");
        let built = Built::load(&out).expect("a build");
        let came = [built.index, built.travels()];
        for (blob, file) in built.blobs(&out).iter().filter(|(b, _)| came.contains(b)) {
            self.blobs
                .import_expected(file, *blob)
                .expect("the build names its files right");
        }
        let get = |name: protocol::BlobRef| self.blobs.get(&name.root).expect("it was imported");
        let index = Arc::new(read_index(&get(built.index), built.pack).expect("a sound index"));
        let pack = self.blobs.open_blob(built.pack).expect("a pack to fill");
        reuse::reuse(&index, &pack, &[]).expect("no donors are no error");
        if let Some(carrier) = built.carrier.map(get) {
            let table = frames::read_table(&carrier, built.pack).expect("a sound table");
            for frame in 0..table.coded.len() as u32 {
                frames::decode(&carrier, &index, &pack, frame).expect("a sound frame");
            }
        }
        assert!(pack.is_complete());
        Held { index, pack }
    }

    /// Builds, fetches, unpacks into `into` and gives what then stands there.
    pub fn round_trip(&self) -> BTreeMap<String, Standing> {
        self.build().expect("a tree that can be released");
        let held = self.fetch();
        tree::unpack(&held.index, &held.pack, &self.at("into")).expect("unpacked");
        assert!(tree::matches(&held.index, &self.at("into")).expect("readable"));
        standing(&self.at("into"))
    }

    pub fn refusal(&self) -> String {
        let error = self
            .build()
            .expect_err("a tree that cannot be released")
            .to_string();
        assert!(
            !self.at("out").exists(),
            "nothing is left of a refused build"
        );
        assert_eq!(error.lines().count(), 1, "{error:?} is one line");
        error
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for name in ["tree", "into", "install"] {
            let _ = tree::remove(&self.at(name));
        }
    }
}

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(String),
}

/// Everything below a directory.
pub(crate) fn standing(dir: &Path) -> BTreeMap<String, Standing> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let mode = metadata.mode() & 0o7777;
            let what = if metadata.is_dir() {
                open.push(path.clone());
                Standing::Directory(mode)
            } else if metadata.is_symlink() {
                Standing::Link(
                    fs::read_link(&path)
                        .expect("a link")
                        .to_str()
                        .expect("UTF-8")
                        .into(),
                )
            } else {
                Standing::File(mode, fs::read(&path).expect("a file"))
            };
            let name = path
                .strip_prefix(dir)
                .expect("below")
                .to_str()
                .expect("UTF-8");
            found.insert(name.to_owned(), what);
        }
    }
    found
}

/// Noise that compresses to half: there is a carrier of it.
pub(crate) fn hex_noise(seed: u64, length: usize) -> Vec<u8> {
    let mut text = data_encoding::HEXLOWER.encode(&noise(seed, length.div_ceil(2)));
    text.truncate(length);
    text.into_bytes()
}

/// Bytes that look random and are the same each time.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}
