//! A site whose WAN carries more or less from one moment to the next, and one without peers.

use protocol::Span;

use super::world::{World, release};
use crate::contract::FetchReason;

const MIB: u64 = 1 << 20;

impl World {
    /// The hour changes what the WAN may carry; everybody knows it from the topology.
    fn switch(&mut self, cap: u64) {
        self.cap = Some(cap);
        self.wan_rate = cap as f64;
        self.tell_all(|swarm, now| {
            swarm.set_site(now, Some(("berlin".parse().unwrap(), Some(cap))));
        });
    }

    fn be_alone(&mut self, alone: bool) {
        self.tell_all(|swarm, now| {
            swarm.set_alone(now, alone);
        });
        self.views_change(Span(20));
    }
}

#[test]
fn what_is_under_way_is_asked_for_again_at_the_new_rate() {
    for (seed, before, after) in [
        (0, 2_000_000, 100_000),
        (1, 50_000, 2_000_000),
        (2, 8_000, 250_000),
    ] {
        let mut world = World::new(6, seed);
        let release = release(seed, 24 * MIB, 4 * MIB);
        let carrier = *release.artifact.full_carrier().unwrap();
        (world.cap, world.wan_rate) = (Some(before), before as f64);
        world.start_all();
        world.want_all(&release);
        world.run(1_500);
        assert!(
            world.wan_rates().contains(&before),
            "seed {seed}: {:?}",
            world.wan_rates()
        );
        world.switch(after);
        world.run(500);
        let rates = world.wan_rates();
        assert!(
            !rates.is_empty() && rates.iter().all(|rate| *rate == after),
            "seed {seed}: {rates:?}"
        );
        world.run_until_staged(&release, 120);
        assert_eq!(world.copies(&carrier), 1.0, "seed {seed}");
    }
}

#[test]
fn nothing_crosses_in_hours_that_are_shut() {
    for seed in 10..13 {
        let mut world = World::new(6, seed);
        let release = release(seed, 24 * MIB, 8 * MIB);
        let carrier = *release.artifact.full_carrier().unwrap();
        world.start_all();
        world.want_all(&release);
        world.run(2_000);
        world.switch(0);
        world.run(500);
        assert!(world.wan_rates().is_empty(), "seed {seed}");
        let before = world.wan_bytes.clone();
        world.run(120_000);
        assert_eq!(world.wan_bytes, before, "seed {seed}");
        assert!(
            world.copies(&carrier) < 1.0,
            "seed {seed}: there is more to come"
        );
        world.switch(2_000_000);
        world.run_until_staged(&release, 60);
        assert_eq!(world.copies(&carrier), 1.0, "seed {seed}");
    }
}

#[test]
fn without_peers_everybody_takes_its_own_copy() {
    let mut world = World::new(5, 20);
    let release = release(20, 8 * MIB, 2 * MIB);
    let carrier = *release.artifact.full_carrier().unwrap();
    world.start_all();
    world.be_alone(true);
    world.run(100);
    world.want_all(&release);
    world.run_until_staged(&release, 60);
    assert_eq!(world.copies(&carrier), 5.0);
    assert!(world.lan_bytes.is_empty(), "{:?}", world.lan_bytes);
    assert_eq!(world.gossiped, 0);
    let whys = world.nodes.iter().flat_map(|node| &node.fetches);
    assert!(whys.clone().count() > 0);
    assert!(whys.clone().all(|(_, _, why)| *why == FetchReason::Policy));
}

#[test]
fn a_site_that_gets_its_peers_back_goes_on_together() {
    let mut world = World::new(5, 30);
    let release = release(30, 24 * MIB, 8 * MIB);
    let carrier = *release.artifact.full_carrier().unwrap();
    world.start_all();
    world.be_alone(true);
    world.run(100);
    world.want_all(&release);
    world.run(3_000);
    let before = world.copies(&carrier);
    world.be_alone(false);
    world.run_until_staged(&release, 60);
    let rest = world.copies(&carrier) - before;
    assert!(rest <= 1.0, "{rest} copies after {before}");
    assert!(world.lan_bytes[&carrier] > 0);
}
