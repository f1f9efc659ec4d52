//! Views of the site that differ.

use super::world::{World, release};

const MIB: u64 = 1 << 20;

/// Who misses a fetcher ranks another one in its place. Claims see to it that a piece is brought once
/// all the same.
#[test]
fn views_that_differ_cost_few_bytes() {
    for seed in 80..83 {
        let mut world = World::new(50, seed);
        world.lan_rate = 125_000_000.0;
        world.blur_views(5);
        let release = release(seed, 48 * MIB, 16 * MIB);
        world.start_all();
        world.want_all(&release);
        world.run_until_staged(&release, 60);
        let copies = world.copies(release.artifact.full_carrier().expect("a carrier"));
        assert!(copies <= 1.02, "seed {seed}: {copies}");
        let index = world.copies(&release.artifact.index);
        assert!(index <= 1.02, "seed {seed}: {index} of the index");
    }
}
