//! Places in a rollout: evenly spread, the same for everyone, and different from release to release.

use proptest::prelude::*;
use tidegate_protocol::fixtures::Fleet;
use tidegate_protocol::plan::{Members, RolloutPlan};
use tidegate_protocol::positions::{bound_of_percent, position, rank};
use tidegate_protocol::{Hash, NodeId};

fn node(number: u64) -> NodeId {
    NodeId(Hash::of(&number.to_le_bytes()).0)
}

fn hash(number: u64) -> Hash {
    Hash::of(&[b'h', number as u8, (number >> 8) as u8])
}

/// Written down once: a node of an older version must find itself in the same wave.
#[test]
fn positions_and_ranks_are_the_same_for_ever() {
    let place = position(&hash(1), &hash(2), &node(3));
    assert_eq!(place, POSITION, "position");
    let ranks = ["delegate", "fetcher", "owner"].map(|purpose| rank(purpose, b"about", &node(3)));
    assert_eq!(ranks, RANKS);
}

const POSITION: u64 = 12_002_022_744_872_666_208;
const RANKS: [u64; 3] = [
    15_943_800_655_206_235_495,
    9_404_433_688_790_466_422,
    1_635_565_992_043_496_041,
];

#[test]
fn nodes_spread_evenly() {
    let (nodes, buckets) = (100_000u64, 100usize);
    let mut counts = vec![0u32; buckets];
    for number in 0..nodes {
        let at = position(&hash(1), &hash(2), &node(number));
        counts[((u128::from(at) * buckets as u128) >> 64) as usize] += 1;
    }
    // Chi-squared over 99 degrees of freedom: beyond 160 lies one in ten thousand. The input is fixed.
    let expected = nodes as f64 / buckets as f64;
    let chi: f64 = counts
        .iter()
        .map(|c| (f64::from(*c) - expected).powi(2) / expected)
        .sum();
    assert!(chi < 160.0, "chi squared is {chi}");
}

#[test]
fn the_first_of_one_release_are_not_the_first_of_the_next() {
    let first = |salt, release| -> Vec<u64> {
        let bound = bound_of_percent(10).unwrap();
        (0..10_000)
            .filter(|n| position(&hash(salt), &hash(release), &node(*n)) < bound)
            .collect()
    };
    let one = first(1, 1);
    assert!(
        (850..1150).contains(&one.len()),
        "{} of 10,000 are in the first tenth",
        one.len()
    );
    for other in [first(1, 2), first(2, 1)] {
        let both = one.iter().filter(|n| other.contains(n)).count();
        assert!(
            (50..160).contains(&both),
            "{both} are first both times, about 100 by chance"
        );
    }
}

#[test]
fn a_rank_of_one_purpose_says_nothing_about_another() {
    let winner = |purpose, about: u64| {
        (0..8)
            .min_by_key(|n| rank(purpose, &about.to_le_bytes(), &node(*n)))
            .unwrap()
    };
    let same = (0..4_000)
        .filter(|about| winner("owner", *about) == winner("fetcher", *about))
        .count();
    assert!(
        (400..600).contains(&same),
        "{same} of 4000 agree, 500 by chance"
    );
    for candidate in 0..8 {
        let wins = (0..4_000)
            .filter(|about| winner("owner", *about) == candidate)
            .count();
        assert!(
            (400..600).contains(&wins),
            "{wins} of 4000 pieces are owned by node {candidate}"
        );
    }
}

fn plan(waves: Vec<Members>) -> RolloutPlan {
    let fleet = Fleet::new(1);
    let release = fleet.verified(&fleet.release("app", "1.0", 1));
    let mut plan = fleet.plan("r1", &release, Vec::new());
    let wave = plan.waves[0].clone();
    let with = |members| tidegate_protocol::plan::Wave {
        members,
        ..wave.clone()
    };
    plan.waves = waves.into_iter().map(with).collect();
    plan
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_percentage_takes_that_share(percent in 0..120u32) {
        let nodes = 3_000u64;
        let taken = match bound_of_percent(percent) {
            None => nodes,
            Some(bound) => (0..nodes).filter(|n| position(&hash(3), &hash(4), &node(*n)) < bound).count() as u64,
        };
        let expected = f64::from(percent.min(100)) / 100.0 * nodes as f64;
        prop_assert!((taken as f64 - expected).abs() <= 120.0, "{} for {} per cent", taken, percent);
        prop_assert_eq!(bound_of_percent(percent).is_none(), percent >= 100);
        prop_assert!(percent >= 99 || bound_of_percent(percent) < bound_of_percent(percent + 1));
    }

    /// Everyone stands in exactly one wave; who comes later moves nobody.
    #[test]
    fn waves_partition_the_fleet(percents in prop::collection::btree_set(1..100u32, 1..6), named in prop::collection::vec(0..200u64, 0..10)) {
        let mut waves = vec![Members::Nodes(named.iter().map(|n| node(*n)).collect())];
        waves.extend(percents.iter().map(|p| Members::PositionBelow(bound_of_percent(*p).unwrap())));
        waves.push(Members::Rest);
        let plan = plan(waves);
        for number in 0..200 {
            let wave = plan.wave_of(&node(number), None).expect("the rest takes everyone");
            prop_assert_eq!(wave, plan.wave_of(&node(number), None).unwrap());
            let at = position(&plan.salt, &plan.release, &node(number));
            let below = |p: &u32| at < bound_of_percent(*p).unwrap();
            let expected = match named.contains(&number) {
                true => 0,
                false => 1 + percents.iter().position(below).unwrap_or(percents.len()) as u32,
            };
            prop_assert_eq!(wave, expected);
        }
    }

    #[test]
    fn an_excluded_node_is_in_no_wave(number in 0..50u64) {
        let mut plan = plan(vec![Members::Nodes(vec![node(number)]), Members::Rest]);
        prop_assert_eq!(plan.wave_of(&node(number), None), Some(0));
        plan.targets.exclusions = vec![node(number)];
        prop_assert_eq!(plan.wave_of(&node(number), None), None);
        plan.targets.sites = vec!["s1".parse().unwrap()];
        let there = "s1".parse().unwrap();
        prop_assert_eq!(plan.wave_of(&node(number + 1), Some(&there)), Some(1));
        prop_assert_eq!(plan.wave_of(&node(number + 1), Some(&"s2".parse().unwrap())), None);
        prop_assert_eq!(plan.wave_of(&node(number + 1), None), None);
    }
}
