//! Random trees there and back, reuse between versions, and where builds are written.

use proptest::prelude::*;

use super::*;
use protocol::limits::{CHUNK_MAX_BYTES, FRAME_PLAIN_MAX_BYTES};

#[derive(Clone, Debug)]
enum Node {
    Directory(Vec<(String, Node)>, u32),
    File { seed: u64, length: usize, mode: u32 },
    Link(String),
}

fn trees() -> impl Strategy<Value = Node> {
    let name = "[a-cA-C.é-]{1,4}".prop_filter("a name", |n| n != "." && n != "..");
    let modes = prop_oneof![Just(0o644), Just(0o755), Just(0o400), Just(0o777)];
    let sizes = prop_oneof![0..100usize, 0..300_000usize, Just(CHUNK_MAX_BYTES as usize)];
    let leaf = prop_oneof![
        5 => (0..6u64, sizes, modes).prop_map(|(seed, length, mode)| Node::File { seed, length, mode }),
        1 => "[a-c]{1,3}".prop_map(Node::Link),
    ];
    leaf.prop_recursive(3, 24, 6, move |inner| {
        let modes = prop_oneof![Just(0o755), Just(0o700), Just(0o555)];
        (prop::collection::vec((name.clone(), inner), 0..6), modes)
            .prop_map(|(list, mode)| Node::Directory(list, mode))
    })
}

fn write(node: &Node, path: &Path) {
    match node {
        Node::Directory(list, mode) => {
            fs::create_dir_all(path).unwrap();
            for (name, child) in list {
                if path.join(name).symlink_metadata().is_err() {
                    write(child, &path.join(name));
                }
            }
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        Node::File { seed, length, mode } => {
            fs::write(path, noise(*seed, *length)).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        Node::Link(target) => std::os::unix::fs::symlink(target, path).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back_as_it_was(list in prop::collection::vec(trees(), 0..6)) {
        let bench = Bench::new();
        for (number, node) in list.iter().enumerate() {
            write(node, &bench.tree(&format!("n{number}")));
        }
        let before = standing(&bench.at("tree"));
        prop_assert_eq!(bench.round_trip(), before);
    }
}

#[test]
fn many_frames_come_back_and_the_same_tree_gives_the_same_bytes() {
    let bench = Bench::new();
    let long = FRAME_PLAIN_MAX_BYTES as usize * 2 + 12_345;
    bench.file("long", hex_noise(4, long), 0o644);
    for i in 0..300 {
        bench.file(
            &format!("many/{}/{i}", i % 7),
            noise(i, i as usize * 31),
            0o644,
        );
    }
    let before = standing(&bench.at("tree"));
    assert_eq!(bench.round_trip(), before);
    let bytes = |out: &str| {
        ["index", "pack", "carrier.full", "build.json"]
            .map(|n| fs::read(bench.at(out).join(n)).unwrap())
    };
    let first = bytes("out");
    build(
        &bench.at("tree"),
        &bench.at("again"),
        BuildOptions { level: 1 },
    )
    .unwrap();
    assert!(bytes("again") == first);
    let built = Built::load(&bench.at("out")).unwrap();
    assert_eq!(
        built.pack.root,
        protocol::Hash::of(&first[1]),
        "the root that was merged is the hash of the file"
    );
    assert!(built.pack.length > 2 * FRAME_PLAIN_MAX_BYTES);
}

#[test]
fn what_does_not_compress_has_no_carrier_and_travels_as_it_is() {
    let bench = Bench::new();
    bench.file("f", noise(8, 300_000), 0o644);
    let before = standing(&bench.at("tree"));
    assert_eq!(bench.round_trip(), before);
    let built = Built::load(&bench.at("out")).unwrap();
    assert_eq!((built.carrier, built.travels()), (None, built.pack));
    assert!(built.carriers().is_empty());
    assert!(!bench.at("out").join(Built::CARRIER).exists());
    // A part that does makes one worth its while.
    bench.file("g", vec![b'x'; 10_000], 0o644);
    let built = bench.build().unwrap();
    let carrier = built.carrier.expect("it saves three percent");
    assert!(carrier.length < built.pack.length);
    assert_eq!(built.travels(), carrier);
}

#[test]
fn packs_of_every_shape_have_their_root_and_chaining_values() {
    let unit = protocol::limits::PIECE_MIN_BYTES as usize;
    for length in [
        0,
        1,
        1024,
        unit - 1,
        unit,
        unit + 1,
        2 * unit,
        3 * unit,
        5 * unit + 7,
        33 << 20,
    ] {
        let bench = Bench::new();
        bench.file("f", noise(9, length), 0o644);
        let after = bench.round_trip();
        assert!(
            after["f"] == Standing::File(0o644, noise(9, length)),
            "{length} bytes"
        );
    }
}

#[test]
fn a_small_edit_leaves_most_to_reuse() {
    let bench = Bench::new();
    let mut bytes = noise(5, 6 << 20);
    bench.file("data", &bytes, 0o644);
    bench.build().unwrap();
    let old = bench.fetch();
    bytes.splice(
        3_000_000..3_000_000,
        *b"an insertion shifts all that follows",
    );
    bench.file("data", &bytes, 0o644);
    let built = bench.build().unwrap();
    bench
        .blobs
        .import_expected(&bench.at("out/index"), built.index)
        .unwrap();
    let index = read_index(&bench.blobs.get(&built.index.root).unwrap(), built.pack).unwrap();
    let pack = bench.blobs.open_blob(built.pack).unwrap();
    let donors = [((*old.index).clone(), old.pack.clone())];
    let copied = reuse::reuse(&index, &pack, &donors).unwrap();
    assert!(copied > 5 << 20, "{copied} bytes were reused");
    assert!(!pack.is_complete());
    let have = u64::from(pack.pieces().count()) * pack.geometry().piece_bytes();
    assert!(have >= copied && have - copied < pack.geometry().piece_bytes());
    assert_eq!(
        reuse::reuse(&index, &pack, &donors).unwrap(),
        0,
        "what is there is not copied again"
    );
    bench.fetch();
    tree::unpack(&index, &pack, &bench.at("into")).unwrap();
    assert!(standing(&bench.at("into"))["data"] == Standing::File(0o644, bytes));
}

#[test]
fn a_donor_that_was_damaged_gives_nothing_wrong() {
    let bench = Bench::new();
    bench.file("a", noise(6, 1 << 20), 0o644);
    bench.build().unwrap();
    let old = bench.fetch();
    let data = fs::read_dir(bench.at("store/blobs"))
        .unwrap()
        .map(|e| e.unwrap().path());
    let name = old.pack.name().root.to_string();
    let path = data
        .into_iter()
        .find(|p| p.to_str().unwrap().contains(&name) && p.extension().unwrap() == "data")
        .unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes.iter_mut().step_by(10_000).for_each(|b| *b ^= 1);
    fs::write(&path, bytes).unwrap();
    bench.file("b", noise(7, 1 << 20), 0o644);
    let built = bench.build().unwrap();
    bench
        .blobs
        .import_expected(&bench.at("out/index"), built.index)
        .unwrap();
    let index = read_index(&bench.blobs.get(&built.index.root).unwrap(), built.pack).unwrap();
    let pack = bench.blobs.open_blob(built.pack).unwrap();
    assert_eq!(
        reuse::reuse(&index, &pack, &[((*old.index).clone(), old.pack.clone())]).unwrap(),
        0
    );
}

#[test]
fn the_output_appears_whole_or_not_at_all() {
    let bench = Bench::new();
    bench.file("a", "1", 0o644);
    bench.build().unwrap();
    let first = Built::load(&bench.at("out")).unwrap();
    bench.file("a", "2", 0o644);
    assert_ne!(
        bench.build().unwrap(),
        first,
        "an earlier build is replaced"
    );
    assert_eq!(
        standing(&bench.at("out")).len(),
        3,
        "index, pack and description"
    );

    fs::create_dir(bench.at("foreign")).unwrap();
    fs::write(bench.at("foreign/thesis.txt"), "precious").unwrap();
    let error = build(
        &bench.at("tree"),
        &bench.at("foreign"),
        BuildOptions::default(),
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("foreign") && error.contains("something else"),
        "{error}"
    );
    assert_eq!(
        fs::read(bench.at("foreign/thesis.txt")).unwrap(),
        b"precious"
    );

    let error = build(
        &bench.at("tree"),
        &bench.tree("out"),
        BuildOptions::default(),
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("lies in the tree"), "{error}");
    let error = build(
        &bench.at("nowhere"),
        &bench.at("x"),
        BuildOptions::default(),
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("nowhere") && error.contains("No such file"),
        "{error}"
    );
    let left: Vec<_> = fs::read_dir(bench.at(""))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        !left.iter().any(|n| n.to_str().unwrap().contains("build")),
        "{left:?}"
    );
}
