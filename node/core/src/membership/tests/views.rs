//! Views that differ find together again.

use proptest::prelude::*;

use super::World;

#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Start(u64),
    Kill(u64),
    Tear(u64),
    Heal,
    Pass(u64),
}

fn disturbance(nodes: u64) -> impl Strategy<Value = Disturbance> {
    prop_oneof![
        3 => (1..=nodes).prop_map(Disturbance::Start),
        3 => (1..=nodes).prop_map(Disturbance::Kill),
        1 => (2..=nodes).prop_map(Disturbance::Tear),
        2 => Just(Disturbance::Heal),
        4 => (1u64..30_000).prop_map(Disturbance::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Whatever was lost, torn and killed: once the site holds together everybody sees everybody and
    /// nobody else, though gossip goes on losing messages.
    #[test]
    fn views_converge_after_losses(
        seed in any::<u64>(),
        loss in 0u64..250,
        disturbances in proptest::collection::vec(disturbance(12), 1..24),
    ) {
        let mut world = World::new(seed);
        world.loss = loss;
        (1..=8).for_each(|n| world.start(n));
        for disturbance in disturbances {
            match disturbance {
                Disturbance::Start(n) => world.start(n),
                Disturbance::Kill(n) => world.kill(n),
                Disturbance::Tear(split) => world.tear(split),
                Disturbance::Heal => world.tear(0),
                Disturbance::Pass(millis) => world.run(millis),
            }
        }
        world.tear(0);
        world.start(1);
        prop_assert!(world.converge(1_800), "{:?}", world.mistaken());
    }
}

#[test]
fn a_large_site_starts_and_everybody_sees_everybody() {
    let mut world = World::new(1);
    for n in 1..=40 {
        world.start(n);
        world.run(20);
    }
    assert!(world.converge(60), "{} mistaken", world.mistaken().len());
    world.run(5_000);
    for node in world.nodes.values() {
        // One or two may just be coming or going.
        let links = node.links.len();
        assert!(links <= protocol::limits::LINKS_MAX, "{links}");
    }
    let delegates = world.nodes[&1].membership.delegates().to_vec();
    for node in world.nodes.values() {
        assert_eq!(node.membership.delegates(), delegates);
    }
}

#[test]
fn a_quiet_site_says_next_to_nothing() {
    let mut world = World::new(2);
    (1..=16).for_each(|n| world.start(n));
    assert!(world.converge(60));
    world.run(60_000);
    world.said.clear();
    world.run(300_000);
    let said: u64 = world.said.values().sum();
    // Everyone at most twice, and the beats of one delegate; a presence a second was 4,800.
    assert!(said < 16 * 2 + 50, "{said} messages in five minutes");
    assert!(world.mistaken().is_empty());
}

#[test]
fn a_member_that_dies_is_missed_within_seconds_and_dials_stop() {
    let mut world = World::new(3);
    (1..=12).for_each(|n| world.start(n));
    assert!(world.converge(60));
    world.run(5_000);
    world.kill(5);
    assert!(world.converge(12), "{:?}", world.mistaken());
    assert!(world.nodes.values().all(|node| !node.wanted.contains(&5)));
    world.start(5);
    assert!(world.converge(12), "{:?}", world.mistaken());
}

/// Everyone counted the other half as gone; nobody dialled it any more.
#[test]
fn a_site_that_fell_apart_finds_together_again() {
    let mut world = World::new(4);
    world.loss = 200;
    (1..=16).for_each(|n| world.start(n));
    assert!(world.converge(120));
    world.tear(9);
    world.run(30_000);
    let halves: Vec<usize> = world
        .everyone()
        .iter()
        .map(|n| world.view(*n).len())
        .collect();
    assert_eq!(halves, [8; 16], "each half sees itself");
    world.run(120_000);
    world.tear(0);
    assert!(world.converge(400), "{:?}", world.mistaken());
}
