//! Indexes and carriers that somebody tampered with before they were signed, or that a disk garbled.

use super::*;
use protocol::BlobRef;
use protocol::carrier::{Coding, FrameTable};
use protocol::index::{Entry, EntryKind, Index};
use protocol::limits::FRAME_PLAIN_MAX_BYTES;
use protocol::versioned::Versioned;

impl Bench {
    /// Takes bytes into the store under their own name, as if a release had named them.
    fn import(&self, bytes: &[u8]) -> Arc<Blob> {
        let path = self.at("upload");
        fs::write(&path, bytes).unwrap();
        let name = self.blobs.import_file(&path).unwrap();
        self.blobs.get(&name.root).unwrap()
    }

    fn forget(&self, blob: Arc<Blob>) {
        self.blobs.drop_blob(&blob.name().root).unwrap();
    }
}

/// `bytes` with some of them changed, cut or repeated; the same for the same seed.
fn mutated(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let random = noise(seed, 64);
    let number =
        |i: usize| u64::from_le_bytes(random[i * 8..i * 8 + 8].try_into().unwrap()) as usize;
    for step in 0..1 + number(0) % 3 {
        let at = number(step + 1) % out.len().max(1);
        match number(step + 4) % 6 {
            0 => out.truncate(at),
            1 => out.insert(at.min(out.len()), random[60]),
            2 if at < out.len() => out[at] = random[61],
            3 if at < out.len() => out[at] = 0xff,
            4 => out.extend_from_slice(&random[..8]),
            _ if at < out.len() => out[at] ^= 1 << (random[62] % 8),
            _ => {}
        }
    }
    out
}

fn small_release(bench: &Bench) -> (Built, Held) {
    bench.file("dir/a", noise(1, 90_000), 0o644);
    bench.file("dir/b", hex_noise(2, 200_000), 0o755);
    std::os::unix::fs::symlink("a", bench.tree("dir/link")).unwrap();
    (bench.build().unwrap(), bench.fetch())
}

#[test]
fn mutated_indexes_are_refused_or_stay_inside() {
    let bench = Bench::new();
    let (built, held) = small_release(&bench);
    let sound = held.index.to_bytes();
    let root = bench.at("guarded");
    let mut refused = 0;
    for seed in 0..1_000 {
        let blob = bench.import(&mutated(&sound, seed));
        match read_index(&blob, built.pack) {
            Err(_) => refused += 1,
            // What passes may have other names, modes or hashes, and must not harm.
            Ok(index) => {
                let _ = tree::unpack(&index, &held.pack, &root.join("into"));
                tree::remove(&root.join("into")).unwrap();
                assert!(
                    fs::read_dir(&root).unwrap().next().is_none(),
                    "seed {seed} left the tree"
                );
            }
        }
        bench.forget(blob);
    }
    assert!(refused > 200, "only {refused} were refused");
}

#[test]
fn mutated_carriers_never_fill_a_pack_with_wrong_bytes() {
    let bench = Bench::new();
    let (built, held) = small_release(&bench);
    let sound = fs::read(bench.at("out/carrier.full")).unwrap();
    bench.blobs.drop_blob(&built.pack.root).unwrap();
    let (mut filled, mut refused) = (0, 0);
    for seed in 0..1_000 {
        let carrier = bench.import(&mutated(&sound, seed));
        let pack = bench.blobs.open_blob(built.pack).unwrap();
        let table = frames::read_table(&carrier, built.pack);
        let frames = table.map_or(0, |table| table.coded.len() as u32);
        let all =
            (0..frames).all(|frame| frames::decode(&carrier, &held.index, &pack, frame).is_ok());
        if frames > 0 && all && pack.is_complete() {
            filled += 1
        } else {
            refused += 1
        }
        assert!(frames::decode(&carrier, &held.index, &pack, frames).is_err());
        for piece in pack.pieces().iter() {
            let range = pack.geometry().piece_range(piece);
            let mut bytes = vec![0; (range.end - range.start) as usize];
            let mut right = bytes.clone();
            pack.read_at(range.start, &mut bytes).unwrap();
            held.pack.read_at(range.start, &mut right).unwrap();
            assert!(bytes == right, "seed {seed}");
        }
        bench.forget(pack);
        bench.forget(carrier);
    }
    // A few changes fall where they mean nothing, such as a trailing byte that is cut again.
    assert!(
        refused > 900 && filled < 100,
        "{refused} refused, {filled} filled"
    );
}

fn carrier(table: &FrameTable, frames: &[Vec<u8>]) -> Vec<u8> {
    [table.head(), frames.concat()].concat()
}

#[test]
fn bombs_and_short_frames_are_refused() {
    let bench = Bench::new();
    let (built, held) = small_release(&bench);
    bench.blobs.drop_blob(&built.pack.root).unwrap();
    let pack = bench.blobs.open_blob(built.pack).unwrap();
    let check = |coding, frame: Vec<u8>, why: &str| {
        let table = FrameTable {
            coding,
            frame_plain: FRAME_PLAIN_MAX_BYTES,
            plain: built.pack.length,
            coded: vec![frame.len() as u32],
        };
        let blob = bench.import(&carrier(&table, &[frame]));
        let error = frames::decode(&blob, &held.index, &pack, 0)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error} says {why}");
        assert!(pack.pieces().is_empty());
    };
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    check(
        Coding::Zstd,
        zstd(&vec![0; 64 << 20]),
        "Destination buffer is too small",
    );
    check(Coding::Zstd, zstd(&[1, 2, 3]), "fewer bytes");
    check(Coding::Zstd, vec![7; 100], "frame 0 is refused");
    check(Coding::ZstdDelta, zstd(&[1]), "older release");
    check(
        Coding::Zstd,
        zstd(&noise(77, built.pack.length as usize)),
        "not what its hash promises",
    );
}

#[test]
fn tables_that_lie_are_refused() {
    let bench = Bench::new();
    bench.file("f", hex_noise(3, 20 << 20), 0o644);
    let built = bench.build().unwrap();
    let held = bench.fetch();
    let sound = fs::read(bench.at("out/carrier.full")).unwrap();
    let table = frames::read_table(&bench.import(&sound), held.pack.name()).unwrap();
    let check = |bytes: &[u8], why: &str| {
        let error = frames::read_table(&bench.import(bytes), built.pack)
            .unwrap_err()
            .to_string();
        assert!(error.contains(why), "{error} says {why}");
    };
    let body = &sound[table.head_bytes() as usize..];
    let with = |change: fn(&mut FrameTable)| {
        let mut table = table.clone();
        change(&mut table);
        [&table.head(), body].concat()
    };
    check(&with(|t| t.plain += 1), "another pack length");
    check(&with(|t| t.frame_plain = 1 << 40), "multiple of 4 MiB");
    check(&with(|t| t.frame_plain = 1 << 20), "multiple of 4 MiB");
    check(&with(|t| t.coded.push(1)), "wrong number of frames");
    check(&with(|t| t.coded[0] = u32::MAX), "too long");
    check(&with(|t| t.coded[1] -= 1), "do not fill");
    check(&[0xff; 64], "longer than its limit");
    check(&[1, 0], "not complete where it is read");
    check(&[], "not complete where it is read");
}

#[test]
fn an_index_of_another_pack_is_refused() {
    let bench = Bench::new();
    let (built, held) = small_release(&bench);
    let other = BlobRef {
        length: built.pack.length + 1,
        ..built.pack
    };
    let error = read_index(&bench.import(&held.index.to_bytes()), other)
        .unwrap_err()
        .to_string();
    assert!(error.contains("the release names"), "{error}");
}

#[test]
fn an_index_whose_chunks_are_others_installs_nothing() {
    let bench = Bench::new();
    let (_, held) = small_release(&bench);
    let mut index: Index = (**held.index).clone();
    index.chunks[0].hash = protocol::Hash::of(b"another chunk");
    let index = index.check().unwrap();
    let error = tree::unpack(&index, &held.pack, &bench.at("into")).unwrap_err();
    assert!(!error.is_machine());
    assert!(error.to_string().contains("dir/a"), "{error}");
}

#[test]
fn links_that_lead_out_by_way_of_others_are_not_unpacked() {
    let bench = Bench::new();
    let (_, held) = small_release(&bench);
    let mut index: Index = (**held.index).clone();
    let link = |path: &str, target: &str| Entry {
        path: path.into(),
        kind: EntryKind::Link {
            target: target.into(),
        },
    };
    let directory = |path: &str| Entry {
        path: path.into(),
        kind: EntryKind::Directory { mode: 0o755 },
    };
    index.entries = vec![
        directory("a"),
        directory("a/b"),
        link("a/b/top", "../.."),
        link("a/b/x", "top/../etc"),
    ];
    let index = index.check().expect("each link for itself stays inside");
    let error = tree::unpack(&index, &held.pack, &bench.at("into")).unwrap_err();
    assert!(error.to_string().contains("a/b/x"), "{error}");
    assert!(!bench.at("into").exists());
}
