//! One test for each row of the README's table on what a tree release stores, refuses or drops.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use protocol::index::EntryKind;

#[test]
fn tree_row_modes_are_kept() {
    let bench = Bench::new();
    for mode in [0o400, 0o600, 0o640, 0o644, 0o755, 0o777, 0o444] {
        bench.file(&format!("f{mode:o}"), "x", mode);
    }
    fs::create_dir(bench.tree("locked")).unwrap();
    bench.file("locked/inside", "y", 0o600);
    fs::set_permissions(bench.tree("locked"), fs::Permissions::from_mode(0o550)).unwrap();
    let before = standing(&bench.at("tree"));
    assert_eq!(bench.round_trip(), before);
    assert_eq!(before["locked"], Standing::Directory(0o550));
}

#[test]
fn tree_row_setuid_setgid_sticky_are_dropped() {
    let bench = Bench::new();
    bench.file("su", "x", 0o4755);
    bench.file("sg", "x", 0o2755);
    fs::create_dir(bench.tree("tmp")).unwrap();
    fs::set_permissions(bench.tree("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let after = bench.round_trip();
    assert_eq!(after["su"], Standing::File(0o755, b"x".into()));
    assert_eq!(after["sg"], Standing::File(0o755, b"x".into()));
    assert_eq!(after["tmp"], Standing::Directory(0o777));
}

#[test]
fn tree_row_empty_files_and_directories_are_kept() {
    let bench = Bench::new();
    bench.file("empty", "", 0o644);
    fs::create_dir_all(bench.tree("a/b/c")).unwrap();
    let before = standing(&bench.at("tree"));
    assert_eq!(bench.round_trip(), before);
    assert_eq!(before.len(), 4);
}

#[test]
fn tree_row_an_empty_tree_is_a_release() {
    let bench = Bench::new();
    assert!(bench.round_trip().is_empty());
}

#[test]
fn tree_row_a_single_file_is_a_release() {
    let bench = Bench::new();
    let path = bench.file("tool", noise(1, 100_000), 0o755);
    let built = build(&path, &bench.at("out"), BuildOptions::default()).unwrap();
    assert_eq!((built.entries, built.plain_bytes), (1, 100_000));
    let held = bench.fetch();
    tree::unpack(&held.index, &held.pack, &bench.at("into")).unwrap();
    assert_eq!(
        standing(&bench.at("into"))["tool"],
        Standing::File(0o755, noise(1, 100_000))
    );
}

#[test]
fn tree_row_links_stay_links() {
    let bench = Bench::new();
    bench.file("lib/v1.so", "code", 0o644);
    symlink("v1.so", bench.tree("lib/v.so")).unwrap();
    symlink("lib", bench.tree("lib64")).unwrap();
    symlink("../lib/v1.so", bench.tree("lib/up")).unwrap();
    symlink("missing", bench.tree("dangling")).unwrap();
    let before = standing(&bench.at("tree"));
    assert_eq!(bench.round_trip(), before);
    assert_eq!(before["lib64"], Standing::Link("lib".into()));
}

#[test]
fn tree_row_links_out_of_the_tree_are_refused() {
    let check = |path: &str, target: &str| {
        let bench = Bench::new();
        bench.file("a/b/file", "x", 0o644);
        symlink("../..", bench.tree("a/b/top")).unwrap();
        symlink(target, bench.tree(path)).unwrap();
        let error = bench.refusal();
        assert!(error.contains(path), "{error} names {path}");
    };
    check("abs", "/etc/passwd");
    check("up", "..");
    check("a/b/upup", "../../../etc");
    check("a/b/by-another", "top/../etc");
}

#[test]
fn tree_row_names_that_are_not_utf8_are_refused() {
    let bench = Bench::new();
    fs::write(bench.tree("").join(OsStr::from_bytes(b"bad\xffname")), "x").unwrap();
    let error = bench.refusal();
    assert!(
        error.contains(r"bad\xFFname") && error.contains("UTF-8"),
        "{error}"
    );
}

#[test]
fn tree_row_targets_that_are_not_utf8_are_refused() {
    let bench = Bench::new();
    symlink(OsStr::from_bytes(b"bad\xff"), bench.tree("link")).unwrap();
    assert!(bench.refusal().contains("link"));
}

#[test]
fn tree_row_names_of_all_kinds_are_kept() {
    let bench = Bench::new();
    for name in [
        "with space",
        "line\nbreak",
        "ümläut",
        "-dash",
        "a'b\"c",
        "%41",
        "\\",
        "...",
        "~",
    ] {
        bench.file(name, name, 0o644);
    }
    let before = standing(&bench.at("tree"));
    assert_eq!(bench.round_trip(), before);
}

#[test]
fn tree_row_pipes_sockets_and_devices_are_refused() {
    let bench = Bench::new();
    let pipe = bench.tree("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let error = bench.refusal();
    assert!(
        error.contains("tree/pipe") && error.contains("named pipe"),
        "{error}"
    );
    fs::remove_file(pipe).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.tree("sock")).unwrap();
    let error = bench.refusal();
    assert!(
        error.contains("tree/sock") && error.contains("socket"),
        "{error}"
    );
    let error = build(
        "/dev/null".as_ref(),
        &bench.at("out"),
        BuildOptions::default(),
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("/dev/null") && error.contains("device"),
        "{error}"
    );
}

#[test]
fn tree_row_hard_links_become_files_and_their_bytes_are_stored_once() {
    let bench = Bench::new();
    let first = bench.file("first", noise(2, 500_000), 0o644);
    fs::hard_link(&first, bench.tree("second")).unwrap();
    let after = bench.round_trip();
    assert_eq!(after["first"], after["second"]);
    let inode = |name: &str| fs::metadata(bench.at("into").join(name)).unwrap().ino();
    assert_ne!(inode("first"), inode("second"));
    let built = Built::load(&bench.at("out")).unwrap();
    assert_eq!((built.plain_bytes, built.pack.length), (1_000_000, 500_000));
}

#[test]
fn tree_row_sparse_files_are_stored_as_their_bytes() {
    let bench = Bench::new();
    let path = bench.file("sparse", "start", 0o644);
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(20 << 20)
        .unwrap();
    let after = bench.round_trip();
    let Standing::File(_, bytes) = &after["sparse"] else {
        panic!("a file")
    };
    assert_eq!(bytes.len(), 20 << 20);
    assert!(bytes.starts_with(b"start") && bytes[5..].iter().all(|b| *b == 0));
    assert!(
        Built::load(&bench.at("out")).unwrap().pack.length < 1 << 20,
        "zeros are one chunk"
    );
}

#[test]
fn tree_row_owner_and_times_are_dropped() {
    let bench = Bench::new();
    let path = bench.file("old", "x", 0o644);
    let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000);
    fs::File::open(&path).unwrap().set_modified(past).unwrap();
    bench.round_trip();
    let metadata = fs::metadata(bench.at("into/old")).unwrap();
    assert_ne!(metadata.modified().unwrap(), past);
    assert_eq!(
        metadata.uid(),
        rustix::process::geteuid().as_raw(),
        "files belong to who installs"
    );
    assert_eq!(
        fs::metadata(bench.at("into/old")).unwrap().gid(),
        rustix::process::getegid().as_raw()
    );
}

#[test]
fn tree_row_extended_attributes_are_dropped() {
    let bench = Bench::new();
    let path = bench.file("tagged", "x", 0o644);
    let set = rustix::fs::setxattr(&path, "user.note", b"1", rustix::fs::XattrFlags::empty());
    if set.is_err() {
        return; // This file system keeps none, so there are none to drop.
    }
    bench.round_trip();
    let mut buffer = [0u8; 16];
    let found = rustix::fs::getxattr(bench.at("into/tagged"), "user.note", &mut buffer);
    assert_eq!(found.unwrap_err(), rustix::io::Errno::NODATA);
}

#[test]
fn tree_row_names_that_differ_only_in_case_are_kept() {
    let bench = Bench::new();
    for name in ["readme", "README", "ReadMe", "dir/x", "Dir/x"] {
        bench.file(name, name, 0o644);
    }
    let before = standing(&bench.at("tree"));
    assert_eq!(bench.round_trip(), before);
}

#[test]
fn tree_row_files_that_change_while_they_are_read_are_refused() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let bench = Bench::new();
    let path = bench.file("growing.log", noise(3, 1 << 20), 0o644);
    let stop = AtomicBool::new(false);
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::File::options().append(true).open(&path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut file, b"one more line\n").unwrap();
            }
        });
        // The writer never rests, but one build might fall between two of its lines.
        let error = (0..1000).find_map(|_| bench.build().err());
        stop.store(true, Ordering::Relaxed);
        error
    });
    let error = error.expect("a change is noticed").to_string();
    assert!(
        error.contains("growing.log") && error.contains("changed"),
        "{error}"
    );
}

#[test]
fn tree_row_paths_are_listed_parents_first_in_byte_order() {
    let bench = Bench::new();
    for name in ["a/b", "a-b", "a.b", "a0", "A/z", "é/x"] {
        bench.file(name, "", 0o644);
    }
    bench.build().unwrap();
    let held = bench.fetch();
    let paths: Vec<&str> = held.index.entries.iter().map(|e| e.path.as_str()).collect();
    assert_eq!(
        paths,
        ["A", "A/z", "a", "a-b", "a.b", "a/b", "a0", "é", "é/x"]
    );
    assert!(matches!(
        held.index.entries[2].kind,
        EntryKind::Directory { .. }
    ));
}
