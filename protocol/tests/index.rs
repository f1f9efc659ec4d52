//! Every rule of an index: sound ones pass, and one broken rule is enough to be refused.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate_protocol::index::{Chunk, Entry, EntryKind, Index, check_link, check_path};
use tidegate_protocol::limits::{CHUNK_MAX_BYTES, INDEX_ENTRIES_MAX};
use tidegate_protocol::pieces::Geometry;
use tidegate_protocol::versioned::Versioned;
use tidegate_protocol::{BlobRef, Hash};

/// Sound indexes: some chunks, and a tree whose files are made of them.
fn indexes() -> impl Strategy<Value = Index> {
    let lengths = prop::collection::vec(1..=CHUNK_MAX_BYTES, 0..20);
    let paths = prop::collection::vec("[a-cé.-]{1,2}x(/[a-c]{1,2}y){0,4}", 0..30);
    let picks = prop::collection::vec(
        (0..512u16, 0..4u8, prop::collection::vec(any::<u32>(), 0..6)),
        30,
    );
    (lengths, paths, picks).prop_map(|(lengths, paths, picks)| {
        let chunks: Vec<Chunk> = (0u32..)
            .zip(&lengths)
            .map(|(i, l)| Chunk {
                hash: Hash::of(&i.to_le_bytes()),
                length: *l,
            })
            .collect();
        let pack = BlobRef {
            root: Hash::of(b"pack"),
            length: lengths.iter().map(|l| u64::from(*l)).sum(),
        };
        let mut kinds = BTreeMap::new();
        for (path, (mode, what, picked)) in paths.iter().zip(picks) {
            for (end, _) in path.match_indices('/') {
                kinds.insert(path[..end].to_owned(), EntryKind::Directory { mode });
            }
            let kind = match what {
                0 => EntryKind::Directory { mode },
                1 => EntryKind::Link { target: "x".into() },
                _ => {
                    let picked = picked
                        .iter()
                        .filter_map(|p| p.checked_rem(chunks.len() as u32))
                        .collect::<Vec<_>>();
                    let length = picked
                        .iter()
                        .map(|c| u64::from(chunks[*c as usize].length))
                        .sum();
                    EntryKind::File {
                        mode,
                        length,
                        chunks: picked,
                    }
                }
            };
            kinds.entry(path.clone()).or_insert(kind);
        }
        // Whatever has something below it is a directory.
        let parents: Vec<String> = kinds
            .keys()
            .filter_map(|path| Some(path.rsplit_once('/')?.0.to_owned()))
            .collect();
        for parent in parents {
            kinds.insert(parent, EntryKind::Directory { mode: 0o755 });
        }
        let entries = kinds
            .into_iter()
            .map(|(path, kind)| Entry { path, kind })
            .collect();
        let pieces = Geometry::of(pack.length).pieces();
        let piece_cvs = (0..pieces)
            .map(|piece| Hash::of(&piece.to_le_bytes()))
            .collect();
        Index {
            pack,
            chunks,
            entries,
            piece_cvs,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sound_index_passes_and_comes_back(index in indexes()) {
        let bytes = index.to_bytes();
        prop_assert_eq!(&Index::from_bytes(&bytes).unwrap(), &index);
        let checked = index.clone().check().map_err(|e| TestCaseError::fail(e.to_string()))?;
        let mut end = 0;
        for number in 0..index.chunks.len() as u32 {
            let range = checked.chunk_range(number);
            prop_assert_eq!(range.start, end);
            end = range.end;
        }
        prop_assert_eq!(end, index.pack.length);
        prop_assert_eq!(checked.geometry(), Geometry::of(index.pack.length));
    }

    #[test]
    fn one_broken_rule_is_enough(index in indexes(), at in any::<prop::sample::Index>()) {
        let breaks = |what: &str, change: &dyn Fn(&mut Index)| {
            let mut broken = index.clone();
            change(&mut broken);
            prop_assert!(broken.check().is_err(), "passes although {}", what);
            Ok(())
        };
        let push = |path: &str, kind: EntryKind| {
            let entry = Entry { path: path.into(), kind };
            move |index: &mut Index| index.entries.push(entry.clone())
        };
        let chunk = |length| move |index: &mut Index| index.chunks.push(Chunk { hash: Hash::of(b"more"), length });
        let link = |target: &str| EntryKind::Link { target: target.into() };
        breaks("the pack is longer", &|i| i.pack.length += 1)?;
        breaks("a chaining value is too many", &|i| i.piece_cvs.push(Hash::of(b"more")))?;
        breaks("a chaining value is missing", &|i| _ = i.piece_cvs.pop())?;
        breaks("a chunk is empty", &chunk(0))?;
        breaks("a chunk lies behind the pack", &chunk(1))?;
        breaks("a mode has more bits", &push("z", EntryKind::Directory { mode: 0o1000 }))?;
        breaks("a path has no parent", &push("z/orphan", link("a")))?;
        breaks("a link leaves", &push("z", link("..")))?;
        let beyond = index.chunks.len() as u32;
        breaks("a chunk is not there", &push("z", EntryKind::File { mode: 0, length: 0, chunks: vec![beyond] }))?;
        if !index.entries.is_empty() {
            let at = at.index(index.entries.len());
            breaks("a path stands twice", &|i| i.entries.insert(at, i.entries[at].clone()))?;
            breaks("a path leaves", &|i| i.entries[at].path = "../out".into())?;
            breaks("a path is absolute", &|i| i.entries[at].path.insert(0, '/'))?;
            breaks("a path holds a zero", &|i| i.entries[at].path.push('\0'))?;
            if at + 1 < index.entries.len() {
                breaks("paths are out of order", &|i| i.entries.swap(at, at + 1))?;
            }
            let path = format!("{}/", index.entries[at].path);
            if index.entries.iter().any(|entry| entry.path.starts_with(&path)) {
                breaks("a parent is missing", &|i| _ = i.entries.remove(at))?;
                breaks("a parent is a link", &|i| i.entries[at].kind = link("a"))?;
            }
            if let EntryKind::File { length, chunks, mode } = &index.entries[at].kind {
                let longer = EntryKind::File { length: length + 1, chunks: chunks.clone(), mode: *mode };
                breaks("a file does not add up", &|i| i.entries[at].kind = longer.clone())?;
            }
        }
    }

    /// The model walks: it keeps the directories it is in, and a step above the root is an escape.
    #[test]
    fn a_link_is_judged_as_a_walk(path in "[ab](/[ab]){0,3}", target in "(/|[ab.]{0,2})(/(\\.\\.|[ab.]{0,2})){0,6}") {
        let mut walk: Vec<&str> = path.split('/').collect();
        walk.pop();
        let mut inside = !target.is_empty() && !target.starts_with('/');
        for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." { inside &= walk.pop().is_some() } else { walk.push(part) }
        }
        prop_assert_eq!(check_link(&path, &target).is_ok(), inside);
    }

    #[test]
    fn a_path_that_passes_stays_below_what_it_is_joined_to(path in "[a./\\\\\u{0}é]{0,12}") {
        if check_path(&path).is_ok() {
            let joined = std::path::Path::new("/srv/dir").join(&path);
            prop_assert!(joined.starts_with("/srv/dir") && joined != std::path::Path::new("/srv/dir"));
            prop_assert!(joined.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
            prop_assert_eq!(joined.strip_prefix("/srv/dir").unwrap().to_str(), Some(path.as_str()));
        }
    }
}

/// The count stands in front: so many entries of four bytes are refused while they are read.
#[test]
fn an_index_of_too_many_entries_is_refused_while_it_is_read() {
    let entry = Entry {
        path: String::new(),
        kind: EntryKind::Link {
            target: String::new(),
        },
    };
    let index = |count| Index {
        pack: BlobRef::of(b""),
        chunks: Vec::new(),
        entries: vec![entry.clone(); count],
        piece_cvs: Vec::new(),
    };
    assert!(Index::from_bytes(&index(INDEX_ENTRIES_MAX).to_bytes()).is_ok());
    assert!(Index::from_bytes(&index(INDEX_ENTRIES_MAX + 1).to_bytes()).is_err());
}

#[test]
fn paths_have_their_limits() {
    let check =
        |path: &str, fine: bool| assert_eq!(check_path(path).is_ok(), fine, "{} bytes", path.len());
    check(&"a".repeat(255), true);
    check(&"a".repeat(256), false);
    check(&vec!["a"; 128].join("/"), true);
    check(&vec!["a"; 129].join("/"), false);
    check(&vec!["a".repeat(200); 20].join("/"), true);
    check(&vec!["a".repeat(200); 21].join("/"), false);
    assert!(check_link("a", &"x".repeat(4096)).is_ok());
    assert!(check_link("a", &"x".repeat(4097)).is_err());
}
