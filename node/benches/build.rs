//! `release build` against plain BLAKE3 hashing of the same files, in one run.
//!
//! `cargo bench -p tidegate-node --bench build`. The files are the executables and libraries of this build's
//! own `target` directory, copied until there are 256 MiB: real code, which compresses and repeats as releases
//! do. `hash` reads and hashes them one by one on one thread, as `b3sum --num-threads 1 --no-mmap` does.
//! `TIDEGATE_BENCH_MIB` sets another amount.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use node::content::build::{BuildOptions, Built, build};

fn release_build(criterion: &mut Criterion) {
    let mib: u64 = std::env::var("TIDEGATE_BENCH_MIB")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(256);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("tree");
    let bytes = gather(&tree, mib << 20);
    let out = dir.path().join("out");
    let levels = [1, BuildOptions::default().level];

    // The ratio is taken pair by pair, so that what else the machine does hits both alike.
    for level in levels {
        let mut ratios: Vec<f64> = Vec::new();
        let mut rates: Vec<f64> = Vec::new();
        for _ in 0..3 {
            let hashing = timed(|| hash(&tree));
            let building = timed(|| _ = build_at(&tree, &out, level));
            ratios.push(hashing.as_secs_f64() / building.as_secs_f64());
            rates.push(bytes as f64 / 1e6 / building.as_secs_f64());
        }
        ratios.sort_by(f64::total_cmp);
        rates.sort_by(f64::total_cmp);
        let built = Built::load(&out).expect("a build");
        println!(
            "release build, level {level}: {:.3} of hashing alone, {:.0} MB/s; {bytes} bytes became a pack of {}, {} of which travel",
            ratios[1],
            rates[1],
            built.pack.length,
            built.travels().length
        );
    }

    let mut group = criterion.benchmark_group("release");
    group
        .throughput(Throughput::Bytes(bytes))
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1));
    group.bench_function("hash", |b| b.iter(|| hash(&tree)));
    for level in levels {
        group.bench_function(format!("build level {level}"), |b| {
            b.iter(|| build_at(&tree, &out, level))
        });
    }
    group.finish();
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn build_at(tree: &Path, out: &Path, level: i32) -> Built {
    build(tree, out, BuildOptions { level }).expect("the tree can be released")
}

fn hash(tree: &Path) {
    for entry in fs::read_dir(tree).expect("the tree") {
        let file = File::open(entry.expect("an entry").path()).expect("a file");
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file).expect("it can be read");
        std::hint::black_box(hasher.finalize());
    }
}

/// Copies files of this build into `tree` until there are `aim` bytes, and gives their sum.
fn gather(tree: &Path, aim: u64) -> u64 {
    fs::create_dir(tree).expect("a tree");
    let here = std::env::current_exe().expect("this benchmark");
    let mut sources: Vec<PathBuf> = fs::read_dir(here.parent().expect("its directory"))
        .expect("its neighbours")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    sources.sort();
    let mut bytes = 0;
    for (number, source) in sources.iter().enumerate() {
        if bytes >= aim {
            break;
        }
        bytes += fs::copy(source, tree.join(number.to_string())).expect("copied");
    }
    bytes
}

criterion_group!(benches, release_build);
criterion_main!(benches);
