//! The memory of `release build`: below 256 MiB, and not growing with the payload but for its index.
//!
//! The build runs in a child (this same test binary), whose peak is `VmHWM` of `/proc/self/status`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use node::content::build::{BuildOptions, build};

const TREE: &str = "TIDEGATE_TEST_BUILD_TREE";
const LEVEL: &str = "TIDEGATE_TEST_BUILD_LEVEL";

/// Peak memory in KiB of a build of `mib` MiB of noise and text, half and half, in two files.
fn peak_kib(mib: usize, level: i32) -> u64 {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).expect("a tree");
    write(&tree.join("noise"), mib / 2, |block, bytes| {
        blake3::Hasher::new()
            .update(&block.to_le_bytes())
            .finalize_xof()
            .fill(bytes);
    });
    write(&tree.join("text"), mib - mib / 2, |block, bytes| {
        for (line, row) in bytes.chunks_mut(32).enumerate() {
            let text = format!("{:>24} {line:>6}\n", block * 7919);
            row.copy_from_slice(&text.as_bytes()[..row.len()]);
        }
    });
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child_that_builds", "--ignored", "--nocapture"])
        .env(TREE, &tree)
        .env(LEVEL, level.to_string())
        .output()
        .expect("the child runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .find(|line| line.contains("VmHWM:"))
        .unwrap_or_else(|| panic!("the child built: {text}"));
    let kib = line.split_whitespace().rev().nth(1).expect("VmHWM: n kB");
    kib.parse().expect("a number")
}

fn write(path: &Path, mib: usize, fill: impl Fn(u64, &mut [u8])) {
    let mut file = File::create(path).expect("a file");
    let mut bytes = vec![0; 1 << 20];
    for block in 0..mib as u64 {
        fill(block, &mut bytes);
        file.write_all(&bytes).expect("written");
    }
}

#[test]
fn a_build_stays_below_256_mib_and_does_not_grow_with_its_payload() {
    let small = peak_kib(48, 1);
    let large = peak_kib(288, 1);
    println!("peak: {small} KiB for 48 MiB, {large} KiB for 288 MiB");
    assert!(large < 256 << 10, "{large} KiB");
    // 240 MiB more are about 4,000 chunks, at 55 bytes each; the rest is the allocator's leeway.
    assert!(
        large < small + (16 << 10),
        "{small} KiB grew to {large} KiB"
    );
}

#[test]
fn the_strongest_level_stays_below_256_mib_too() {
    let peak = peak_kib(24, 19);
    println!("peak: {peak} KiB at level 19");
    assert!(peak < 256 << 10, "{peak} KiB");
}

/// Not a test of its own: the tests above run it.
#[test]
#[ignore = "a child of other tests"]
fn child_that_builds() {
    let (Some(tree), Ok(level)) = (std::env::var_os(TREE), std::env::var(LEVEL)) else {
        return;
    };
    let tree = Path::new(&tree);
    let level = level.parse().expect("a level");
    build(tree, &tree.with_file_name("out"), BuildOptions { level }).expect("built");
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("it is there");
    println!("\n{peak}");
}
