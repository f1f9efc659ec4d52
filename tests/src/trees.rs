//! Trees to release, made from a seed, and the comparison with what was installed.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// What stands at a path: everything that a release keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Thing {
    /// A directory with its permission bits.
    Directory(u32),
    /// A file with its permission bits and bytes.
    File(u32, Vec<u8>),
    /// A link with its target.
    Link(String),
}

/// Makes a tree of about `bytes` bytes: nested directories, an empty file, an empty directory, an
/// executable, links, and files of many sizes.
///
/// # Panics
/// When the disk fails.
pub fn make(path: &Path, seed: u64, bytes: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    std::fs::create_dir_all(path.join("lib/deep/er")).expect("made");
    std::fs::create_dir_all(path.join("empty-directory")).expect("made");
    std::fs::write(path.join("empty-file"), b"").expect("written");
    std::fs::write(path.join("run.sh"), "#!/bin/sh\nexit 0\n").expect("written");
    std::fs::set_permissions(path.join("run.sh"), PermissionsExt::from_mode(0o755)).expect("set");
    std::fs::write(path.join("lib/secret"), "only for me\n").expect("written");
    std::fs::set_permissions(path.join("lib/secret"), PermissionsExt::from_mode(0o600))
        .expect("set");
    symlink("../run.sh", path.join("lib/run")).expect("linked");
    symlink("lib/deep", path.join("deep")).expect("linked");
    let mut left = bytes;
    let mut number = 0;
    while left > 0 {
        let size = (u64::from(random.next_u32()) % (bytes / 4 + 1)).clamp(1, left);
        let mut content = vec![0; size as usize];
        random.fill_bytes(&mut content);
        // Half of the files compress, as real ones do.
        if number % 2 == 0 {
            content.iter_mut().for_each(|b| *b = b'a' + (*b & 15));
        }
        std::fs::write(path.join(format!("lib/deep/er/file-{number}")), content).expect("written");
        left -= size;
        number += 1;
    }
}

/// Everything below `path`.
///
/// # Panics
/// When it cannot be read.
pub fn read(path: &Path) -> BTreeMap<String, Thing> {
    let mut things = BTreeMap::new();
    walk(path, "", &mut things);
    things
}

fn walk(path: &Path, below: &str, things: &mut BTreeMap<String, Thing>) {
    for entry in std::fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
        let entry = entry.expect("an entry");
        let name = format!("{below}{}", entry.file_name().to_str().expect("UTF-8"));
        let meta = entry.path().symlink_metadata().expect("there");
        let mode = meta.permissions().mode() & 0o777;
        let thing = if meta.is_symlink() {
            Thing::Link(
                std::fs::read_link(entry.path())
                    .expect("a link")
                    .to_str()
                    .expect("UTF-8")
                    .into(),
            )
        } else if meta.is_dir() {
            walk(&entry.path(), &format!("{name}/"), things);
            Thing::Directory(mode)
        } else {
            Thing::File(mode, std::fs::read(entry.path()).expect("readable"))
        };
        things.insert(name, thing);
    }
}

/// Compares two trees, every byte, mode and link.
///
/// # Panics
/// Names the first difference.
pub fn assert_same(expected: &Path, installed: &Path) {
    let (expected_things, found) = (read(expected), read(installed));
    let names: Vec<_> = expected_things.keys().collect();
    assert_eq!(
        names,
        found.keys().collect::<Vec<_>>(),
        "the names in {}",
        installed.display()
    );
    for (name, thing) in &expected_things {
        assert!(
            *thing == found[name],
            "{name} differs in {}",
            installed.display()
        );
    }
}
