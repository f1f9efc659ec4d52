use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use protocol::limits::GROUP_BYTES;
use tempfile::TempDir;

use super::*;

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A store with one complete blob of these bytes.
fn seeded(bytes: &[u8]) -> (TempDir, Blobs, Arc<Blob>) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let file = dir.path().join("source");
    std::fs::write(&file, bytes).unwrap();
    let name = blobs.import_file(&file).unwrap();
    assert_eq!(name, BlobRef::of(bytes));
    let blob = blobs.get(&name.root).unwrap();
    (dir, blobs, blob)
}

fn encode(blob: &Arc<Blob>, ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut encoder = Encoder::new(blob.clone(), ranges);
    let mut out = Vec::new();
    let mut buffer = vec![0; 70_000];
    loop {
        let filled = encoder.fill(&mut buffer).unwrap();
        if filled == 0 {
            return out;
        }
        out.extend_from_slice(&buffer[..filled]);
    }
}

#[test]
fn what_lies_in_memory_or_else_on_the_disk_is_one_encoding() {
    let (_dir, _blobs, blob) = seeded(&noise(3_000_000, 7));
    let ranges = [(0, 40), (50, 51), (90, 184)];
    let expected = encode(&blob, &ranges);
    let file = std::fs::File::open(blob.data().path()).unwrap();
    for forget in [false, true] {
        if forget {
            // Whether the system obeys is its own affair; either way nothing is lost or sent twice.
            let part = std::num::NonZeroU64::new(1_000_000);
            rustix::fs::fadvise(&file, 400_000, part, rustix::fs::Advice::DontNeed).unwrap();
        }
        let mut encoder = Encoder::new(blob.clone(), &ranges);
        let (mut out, mut buffer) = (Vec::new(), vec![0; 70_000]);
        loop {
            let filled = match encoder.fill_from_memory(&mut buffer).unwrap() {
                Some(filled) => filled,
                None => encoder.fill(&mut buffer).unwrap(),
            };
            if filled == 0 {
                break;
            }
            out.extend_from_slice(&buffer[..filled]);
        }
        assert!(out == expected, "forget: {forget}");
        assert_eq!(
            encoder.take_payload(),
            (40 + 1) * GROUP_BYTES + 3_000_000 - 90 * GROUP_BYTES
        );
    }
}

/// Room used to be taken piece by piece, so that a disk ran full in the middle of a release.
#[test]
fn a_blob_without_room_on_the_disk_is_refused_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let disk = rustix::fs::statvfs(dir.path()).unwrap();
    let room = disk.f_bavail * disk.f_frsize;
    let name = |length| BlobRef {
        root: Hash::of(b"large"),
        length,
    };
    let more = name(room + (64 << 30));
    if more.length <= protocol::limits::BLOB_MAX_BYTES {
        let refused = blobs.open_blob(more);
        let Err(StoreError::Full { path }) = refused else {
            panic!("{refused:?}")
        };
        assert!(!path.exists(), "nothing is kept of it");
    }
    assert!(blobs.open_blob(name(1 << 20)).is_ok());
}

fn contents(blob: &Blob) -> Vec<u8> {
    let mut bytes = vec![0; blob.name().length as usize];
    blob.read_at(0, &mut bytes).unwrap();
    bytes
}

fn runs(groups: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &group in groups {
        match runs.last_mut() {
            Some((_, end)) if *end == group => *end += 1,
            _ => runs.push((group, group + 1)),
        }
    }
    runs
}

fn held(blob: &Blob) -> BTreeSet<u64> {
    let all: BTreeSet<u64> = (0..blob.geometry().groups()).collect();
    let missing: BTreeSet<u64> = (0..blob.geometry().pieces())
        .flat_map(|piece| blob.missing_groups(piece))
        .flat_map(|(start, end)| start..end)
        .collect();
    let held = &all - &missing;
    let begun = |piece: &u32| {
        let groups = blob.geometry().piece_groups(*piece);
        let here = groups.clone().filter(|group| held.contains(group)).count() as u64;
        0 < here && here < groups.end - groups.start
    };
    let begun: Vec<u32> = (0..blob.geometry().pieces()).filter(begun).collect();
    assert_eq!(blob.begun_pieces(), begun);
    held
}

#[test]
fn blobs_of_any_length_are_imported_and_read_back_after_reopening() {
    for length in [0, 1, 16_384, 16_385, 262_144, 262_145, 9_000_000] {
        let bytes = noise(length, 1);
        let (dir, blobs, blob) = seeded(&bytes);
        assert!(blob.is_complete() && blob.pieces().is_full());
        assert_eq!(contents(&blob), bytes);
        drop((blob, blobs));
        let blobs = Blobs::open(dir.path()).unwrap();
        assert_eq!(blobs.complete(), [BlobRef::of(&bytes)]);
        assert_eq!(contents(&blobs.get(&Hash::of(&bytes)).unwrap()), bytes);
        blobs.drop_blob(&Hash::of(&bytes)).unwrap();
        assert!(blobs.get(&Hash::of(&bytes)).is_none());
        assert_eq!(
            std::fs::read_dir(dir.path().join("blobs")).unwrap().count(),
            0
        );
    }
}

#[test]
fn a_file_that_is_not_what_was_expected_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let file = dir.path().join("source");
    std::fs::write(&file, noise(100_000, 1)).unwrap();
    for other in [
        BlobRef::of(&noise(100_000, 2)),
        BlobRef::of(&noise(99_999, 1)),
    ] {
        let refused = blobs.import_expected(&file, other);
        assert!(
            matches!(refused, Err(StoreError::WrongBytes { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(
        std::fs::read_dir(dir.path().join("blobs")).unwrap().count(),
        0
    );
    blobs
        .import_expected(&file, BlobRef::of(&noise(100_000, 1)))
        .unwrap();
    blobs
        .import_expected(&file, BlobRef::of(&noise(100_000, 1)))
        .unwrap();
}

#[test]
fn an_import_completes_a_blob_that_is_half_fetched() {
    let bytes = noise(2_000_000, 3);
    let (seed_dir, _seed, full) = seeded(&bytes);
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let half = blobs.open_blob(full.name()).unwrap();
    Decoder::new(half.clone(), &[(3, 50)])
        .feed(&encode(&full, &[(3, 50)]))
        .unwrap();
    blobs.import_file(&seed_dir.path().join("source")).unwrap();
    assert!(half.is_complete());
    assert_eq!(contents(&half), bytes);
    assert_eq!(blobs.complete(), [full.name()]);
}

#[test]
fn a_full_disk_is_told_apart() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
        let error = StoreError::file(Path::new("/x"), kind.into());
        assert!(matches!(error, StoreError::Full { .. }));
        assert_eq!(
            error.to_string(),
            "/x: no space is left on the disk: free some and try again"
        );
    }
}

#[test]
fn names_that_cannot_be_are_refused() {
    let (_dir, blobs, blob) = seeded(&noise(50_000, 1));
    let root = blob.name().root;
    for (root, length) in [
        (root, 50_001),
        (root, 0),
        (root, u64::MAX),
        (Hash([7; 32]), 0),
    ] {
        let refused = blobs.open_blob(BlobRef { root, length });
        assert!(
            matches!(refused, Err(StoreError::WrongName { .. })),
            "{length}: {refused:?}"
        );
    }
}

#[test]
fn bytes_that_are_not_held_are_not_read() {
    let bytes = noise(100_000, 1);
    let (_seed_dir, _seed, full) = seeded(&bytes);
    let dir = tempfile::tempdir().unwrap();
    let blob = Blobs::open(dir.path())
        .unwrap()
        .open_blob(full.name())
        .unwrap();
    Decoder::new(blob.clone(), &[(1, 3)])
        .feed(&encode(&full, &[(1, 3)]))
        .unwrap();
    let mut buffer = [0; 10];
    blob.read_at(GROUP_BYTES * 2 - 5, &mut buffer).unwrap();
    assert_eq!(buffer, bytes[GROUP_BYTES as usize * 2 - 5..][..10]);
    for offset in [0, GROUP_BYTES - 1, GROUP_BYTES * 3 - 9, 99_995, u64::MAX] {
        assert!(blob.read_at(offset, &mut buffer).is_err(), "{offset}");
    }
}

#[test]
fn a_claimed_blob_with_a_cut_file_is_not_held() {
    let bytes = noise(500_000, 1);
    let (dir, blobs, blob) = seeded(&bytes);
    let name = blob.name();
    drop((blob, blobs));
    let path = dir.path().join("blobs").join(format!("{}.data", name.root));
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(300_000)
        .unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let blob = blobs.get(&name.root).unwrap();
    assert!(!blob.is_complete());
    assert!(blobs.complete().is_empty());
    assert_eq!(held(&blob), (0..300_000 / GROUP_BYTES).collect());
}

#[test]
fn pieces_in_any_order_make_the_same_blob_as_the_whole_file() {
    for length in [5, 16_385, 262_144, 262_145, 2_000_000] {
        let bytes = noise(length, 4);
        let (seed_dir, _seed, full) = seeded(&bytes);
        let geometry = full.geometry();
        let piece = |i| {
            &bytes[geometry.piece_range(i).start as usize..geometry.piece_range(i).end as usize]
        };
        let cvs: Vec<Hash> = (0..geometry.pieces())
            .map(|i| chaining_value(geometry, i, piece(i)))
            .collect();

        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let blob = blobs.open_blob(full.name()).unwrap();
        for i in (0..geometry.pieces()).rev() {
            let mut wrong = piece(i).to_vec();
            wrong[0] ^= 1;
            assert!(blob.import_piece(i, &wrong, &cvs).is_err());
            assert!(blob.import_piece(i, &piece(i)[1..], &cvs).is_err());
            assert!(!blob.pieces().contains(i));
            blob.import_piece(i, piece(i), &cvs).unwrap();
            assert!(blob.pieces().contains(i));
            let groups = geometry.piece_groups(i);
            let range = [(groups.start, groups.end)];
            assert_eq!(encode(&blob, &range), encode(&full, &range));
        }
        assert!(blob.import_piece(geometry.pieces(), &[], &cvs).is_err());
        assert_eq!(blobs.complete(), [full.name()]);
        for end in ["data", "obao"] {
            let file = |dir: &TempDir| {
                std::fs::read(dir.path().join(format!("blobs/{}.{end}", full.name().root))).unwrap()
            };
            assert!(file(&dir) == file(&seed_dir), "{end} of {length} bytes");
        }
    }
}

#[test]
fn chaining_values_that_do_not_make_up_the_root_are_refused() {
    let bytes = noise(600_000, 4);
    let geometry = Geometry::of(600_000);
    let cvs: Vec<Hash> = (0..3)
        .map(|i| {
            let range = geometry.piece_range(i);
            chaining_value(
                geometry,
                i,
                &bytes[range.start as usize..range.end as usize],
            )
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let blob = Blobs::open(dir.path())
        .unwrap()
        .open_blob(BlobRef::of(&bytes))
        .unwrap();
    let swapped = [cvs[1], cvs[0], cvs[2]];
    for wrong in [&swapped[..], &cvs[..2], &[]] {
        let refused = blob.import_piece(0, &bytes[..1 << 18], wrong);
        assert!(
            matches!(refused, Err(StoreError::WrongBytes { .. })),
            "{refused:?}"
        );
    }
    blob.import_piece(0, &bytes[..1 << 18], &cvs).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_groups_travel_and_no_others(
        length in 1usize..1_500_000,
        picks in proptest::collection::btree_set(0u64..92, 1..40),
        cuts in proptest::collection::vec(1usize..40_000, 1..20),
    ) {
        let bytes = noise(length, 5);
        let (_seed_dir, _seed, full) = seeded(&bytes);
        let picks: BTreeSet<u64> = picks.into_iter().map(|g| g % full.geometry().groups()).collect();
        let ranges = runs(&picks);
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let blob = blobs.open_blob(full.name()).unwrap();

        let encoding = encode(&full, &ranges);
        let mut decoder = Decoder::new(blob.clone(), &ranges);
        let (mut rest, mut payload) = (&encoding[..], 0);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            payload += decoder.feed(now).unwrap();
            rest = later;
        }
        prop_assert!(decoder.is_done());
        prop_assert!(decoder.feed(&[0]).is_err());
        prop_assert_eq!(held(&blob), picks.clone());
        let expected: u64 = picks.iter().map(|g| ((g + 1) * GROUP_BYTES).min(length as u64) - g * GROUP_BYTES).sum();
        prop_assert_eq!(payload, expected);
        prop_assert_eq!(encode(&blob, &ranges), encoding);

        // A crash: nothing was flushed, nothing was closed. What was written is found again.
        drop((decoder, blob, blobs));
        let blobs = Blobs::open(dir.path()).unwrap();
        prop_assert_eq!(held(&blobs.open_blob(full.name()).unwrap()), picks);
    }

    #[test]
    fn after_a_crash_no_group_with_wrong_bytes_counts(
        damage in proptest::collection::vec((any::<bool>(), 0u64..1_000_000, 1u8..), 1..12),
    ) {
        let bytes = noise(1_000_000, 6);
        let (_seed_dir, _seed, full) = seeded(&bytes);
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path()).unwrap();
        let blob = blobs.open_blob(full.name()).unwrap();
        let ranges = [(0, 20), (25, 60)];
        Decoder::new(blob.clone(), &ranges).feed(&encode(&full, &ranges)).unwrap();
        drop((blob, blobs));

        for (in_data, at, flip) in damage {
            let path = dir.path().join("blobs").join(format!("{}.{}", full.name().root, if in_data { "data" } else { "obao" }));
            let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
            let at = at % file.metadata().unwrap().len();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ flip], at).unwrap();
        }
        let blobs = Blobs::open(dir.path()).unwrap();
        let blob = blobs.open_blob(full.name()).unwrap();
        for group in held(&blob) {
            prop_assert!((0..20).contains(&group) || (25..60).contains(&group));
            let start = (group * GROUP_BYTES) as usize;
            let end = (start + GROUP_BYTES as usize).min(bytes.len());
            let mut found = vec![0; end - start];
            blob.read_at(start as u64, &mut found).unwrap();
            prop_assert!(found == bytes[start..end]);
        }
        // And what is missing can be fetched, until the blob is whole.
        let missing: Vec<_> = (0..blob.geometry().pieces()).flat_map(|p| blob.missing_groups(p)).collect();
        Decoder::new(blob.clone(), &missing).feed(&encode(&full, &missing)).unwrap();
        prop_assert!(contents(&blob) == bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_mutated_encoding_writes_nothing_wrong(at in 0usize..200_000, flip in 1u8.., kind in 0u8..4) {
        let bytes = noise(180_000, 7);
        thread_local!(static SEED: (TempDir, Blobs, Arc<Blob>) = seeded(&noise(180_000, 7)));
        let full = SEED.with(|(_, _, full)| full.clone());
        let ranges = [(0, 4), (6, 11)];
        let mut encoding = encode(&full, &ranges);
        let at = at % encoding.len();
        match kind {
            0 => encoding[at] ^= flip,
            1 => encoding.truncate(at),
            2 => drop(encoding.remove(at)),
            _ => encoding.insert(at, flip),
        }
        let dir = tempfile::tempdir().unwrap();
        let blob = Arc::new(Blob::open(
            &crate::disk::Disk::default(),
            full.name(),
            (dir.path().join("data"), dir.path().join("obao")),
            SEED.with(|(_, blobs, _)| blobs.inner.claims.clone()),
            false,
        ).unwrap());
        let mut decoder = Decoder::new(blob.clone(), &ranges);
        let fed = decoder.feed(&encoding);
        prop_assert!(fed.is_err() || !decoder.is_done() || encoding == encode(&full, &ranges));
        for group in held(&blob) {
            let start = (group * GROUP_BYTES) as usize;
            let end = (start + GROUP_BYTES as usize).min(bytes.len());
            let mut found = vec![0; end - start];
            blob.read_at(start as u64, &mut found).unwrap();
            prop_assert!(found == bytes[start..end]);
        }
    }
}
