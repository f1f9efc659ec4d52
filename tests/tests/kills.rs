//! Nodes and the coordinator are killed with SIGKILL at random moments of ten rollouts, one after the
//! other; each ends with every node right and the counts exact.

use std::time::Duration;

use coordinator_core::contract::RolloutState;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use tidegate_tests::{World, WorldOptions, trees};

const NODES: usize = 4;

#[test]
fn ten_rollouts_survive_kills_at_random_moments() {
    // 8 Mbit/s, so that a transfer of 2 MiB takes about as long as the kills are spread over.
    let mut world = World::raise(&WorldOptions {
        sites: 2,
        nodes_per_site: 2,
        wan: "8mbit",
    });
    for seed in 0..10 {
        survive(&mut world, seed);
    }
}

fn survive(world: &mut World, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let version = format!("{}.0", seed + 1);
    let tree = world.path(&version);
    trees::make(&tree, 100 + seed, 2 << 20);
    world.publish(
        &tree,
        &version,
        &["--health-check", "./run.sh", "--health-soak", "300ms"],
    );
    let id = world.roll_out(&version, &["count:1", "rest"]);
    let mut coordinator_runs = true;
    for _ in 0..6 {
        // The moment is the workload here: anywhere in transfer, staging, install and report.
        std::thread::sleep(Duration::from_millis(u64::from(random.next_u32() % 900)));
        match random.next_u32() as usize % (NODES + 1) {
            NODES if coordinator_runs => {
                world.kill_coordinator();
                coordinator_runs = false;
            }
            NODES => {
                world.start_coordinator();
                coordinator_runs = true;
            }
            node => {
                world.kill_node(node);
                world.start_node(node);
            }
        }
    }
    if !coordinator_runs {
        world.start_coordinator();
    }
    world.wait_for(&format!("seed {seed}: every node is right"), |w| {
        w.rollout(&id).is_some_and(|v| {
            v.state == RolloutState::Finished
                && v.counts.applied as usize == NODES
                && v.targets as usize == NODES
        })
    });
    for node in 0..NODES {
        assert_eq!(
            world.installed_version(node).as_deref(),
            Some(version.as_str()),
            "seed {seed}, node {node}"
        );
        trees::assert_same(&tree, &world.current(node).join("."));
    }
}
