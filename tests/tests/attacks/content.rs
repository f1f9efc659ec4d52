//! Rows about the bytes of a release: what an index may ask for.

use std::path::{Component, Path};

use protocol::index::{Entry, EntryKind, Index, check_link, check_path};
use protocol::versioned::Versioned as _;

use crate::decoders::golden;
use crate::mutations::{CASES, Mutations};

fn index() -> Index {
    let (_, bytes) = golden("Index").remove(0);
    Index::from_bytes(&bytes).expect("golden bytes are an index")
}

/// Where a path leads, by its text: `None` if above the start.
fn depth(path: &Path) -> Option<usize> {
    path.components()
        .try_fold(0usize, |depth, part| match part {
            Component::Normal(_) => Some(depth + 1),
            Component::CurDir => Some(depth),
            Component::ParentDir => depth.checked_sub(1),
            Component::RootDir | Component::Prefix(_) => None,
        })
}

fn stays_inside(entry: &Entry) -> bool {
    let path = Path::new(&entry.path);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    let link = match &entry.kind {
        EntryKind::Link { target } => {
            let from = path.parent().unwrap_or(Path::new(""));
            !target.starts_with('/') && depth(&from.join(target)).is_some()
        }
        _ => true,
    };
    plain && link
}

#[test]
fn attack_29_archive_tricks() {
    let good = index();
    good.clone().check().expect("golden bytes are sound");
    let mut mutations = Mutations::new(29);
    let parts = [
        "..",
        ".",
        "",
        "a",
        "/",
        "b",
        "a\0b",
        "\u{202e}txt",
        "CON",
        "c/../..",
        "\\",
    ];
    let mut name = |most: usize| {
        let picked = (0..1 + mutations.below(most)).map(|_| parts[mutations.below(parts.len())]);
        picked.collect::<Vec<_>>().join("/")
    };
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..20 * CASES {
        let (path, target) = (name(4), name(6));
        let mut evil = good.clone();
        evil.entries = vec![Entry {
            path: path.clone(),
            kind: EntryKind::Link {
                target: target.clone(),
            },
        }];
        match evil.check() {
            Err(_) => refused += 1,
            Ok(checked) => {
                taken += 1;
                assert!(
                    checked.entries.iter().all(stays_inside),
                    "{path:?} -> {target:?}"
                );
            }
        }
    }
    assert!(
        taken > 100 && refused > CASES,
        "{taken} taken, {refused} refused"
    );
    // Bytes damaged by chance give nothing that leaves the tree either.
    let bytes = good.to_bytes();
    for _ in 0..2 * CASES {
        let Ok(index) = Index::from_bytes(&mutations.of(&bytes)) else {
            continue;
        };
        let Ok(checked) = index.check() else { continue };
        assert!(checked.entries.iter().all(stays_inside));
        let held: u64 = checked.chunks.iter().map(|c| u64::from(c.length)).sum();
        assert_eq!(held, checked.pack.length, "no bomb: chunks tile the pack");
    }
    // A name below a link, so that a swap of the link would move it, has no parent directory.
    let mut through = good.clone();
    let entry = |path: &str, kind| Entry {
        path: path.into(),
        kind,
    };
    through.entries = vec![
        entry("a", EntryKind::Link { target: "b".into() }),
        entry(
            "a/x",
            EntryKind::File {
                mode: 0o644,
                length: 0,
                chunks: Vec::new(),
            },
        ),
    ];
    assert!(through.check().is_err());
    assert!(check_path(&"a/".repeat(10_000)).is_err());
    assert!(check_link("a/b", "../../c").is_err());
}
