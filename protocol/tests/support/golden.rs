//! Committed bytes of the formats that a package keeps to itself, under its `tests/golden/FORMAT/`:
//! this program still reads them, and still writes them the same.
//!
//! A change here is a change of a format: raise its version and keep reading the old one. For a new
//! format, add a sample and run its test once with `TIDEGATE_BLESS=1`, which writes files that are
//! missing and never touches one that is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Checks all samples of a format, each a file name and the bytes as they are written now. `again`
/// reads bytes and writes them again; it must not break on bytes that were tampered with.
pub fn check(
    format: &str,
    samples: &[(String, Vec<u8>)],
    again: impl Fn(&[u8]) -> Result<Vec<u8>, String>,
) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format);
    let bless = std::env::var_os("TIDEGATE_BLESS").is_some();
    for (file, bytes) in samples {
        let path = directory.join(file);
        if bless && !path.exists() {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        let golden = fs::read(&path)
            .unwrap_or_else(|e| panic!("{format}/{file}: {e}; see the head of this file"));
        assert!(
            *bytes == golden,
            "{format}/{file}: what is written has changed"
        );
        let read = again(&golden).unwrap_or_else(|e| panic!("{format}/{file}: {e}"));
        assert!(
            read == golden,
            "{format}/{file}: it reads as something else than it was"
        );
        for at in (0..golden.len()).step_by(1 + golden.len() / 200) {
            assert!(
                again(&golden[..at]).is_err(),
                "{format}/{file} cut at {at} is still read"
            );
            let mut other = golden.clone();
            other[at] ^= 0x81;
            let _ = again(&other);
        }
    }
    let known: BTreeSet<_> = samples.iter().map(|(file, _)| file.clone()).collect();
    for entry in fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            known.contains(&name),
            "{format}/{name}: an old format must still be read"
        );
    }
}

/// Makes a function that insists on a sample for every variant of an enum. The compiler insists that
/// the list is whole.
macro_rules! variants {
    ($function:ident of $type:ident: $($variant:ident),+ $(,)?) => {
        fn $function<'a>(values: impl IntoIterator<Item = &'a $type>) {
            let name = |value: &$type| match value {
                $($type::$variant { .. } => stringify!($variant),)+
            };
            let found: std::collections::BTreeSet<_> = values.into_iter().map(name).collect();
            for variant in [$(stringify!($variant)),+] {
                assert!(found.contains(variant), "{variant} has no sample");
            }
        }
    };
}
pub(crate) use variants;
