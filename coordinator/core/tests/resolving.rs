//! From proposals to plans: what must hold for every fleet, and what is refused.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::fixtures::{CREATED, node, site};
use protocol::plan::Selector::{self, Count, Label, Percent, Rest, Site};
use protocol::plan::{Members, WaveDraft};
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::Answer;
use tidegate_coordinator_core::presets::Preset;

fn waves(selectors: &[Selector]) -> Vec<WaveDraft> {
    selectors
        .iter()
        .map(|s| draft("w", s.clone(), gate(900_000, 1, 0)))
        .collect()
}

fn label(value: &str) -> Selector {
    Label {
        key: "ring".into(),
        value: value.into(),
    }
}

#[test]
fn refusals_name_the_wave_and_what_is_empty() {
    let cases: Vec<(Vec<Selector>, &str)> = vec![
        (
            vec![Count(0)],
            "wave 1 (\"w\") asks for no nodes; ask for one or more",
        ),
        (
            vec![Percent(0)],
            "wave 1 (\"w\") asks for 0 percent; 1 to 100 can be had",
        ),
        (
            vec![Percent(101)],
            "wave 1 (\"w\") asks for 101 percent; 1 to 100 can be had",
        ),
        (
            vec![Rest, Count(1)],
            "wave 2 (\"w\") stands behind the rest wave, which has everyone",
        ),
        (
            vec![Site(site("s9"))],
            "there is no site s9; `tidegate sites` lists them",
        ),
        (
            vec![label("none")],
            "wave 1 (\"w\") has nobody: no node that is left carries ring=none",
        ),
        (
            vec![Count(9), Count(1)],
            "wave 2 (\"w\") has nobody left to take",
        ),
        (
            vec![Count(9), Site(site("s1"))],
            "wave 2 (\"w\") has nobody: site s1 has no node that is left",
        ),
    ];
    for (selectors, expected) in cases {
        let mut bench = Bench::with_nodes(9);
        let release = bench.publish("1", 1);
        let proposal = bench.proposal("r", release.digest(), waves(&selectors));
        let Answer::Refused(why) = bench.propose(proposal) else {
            panic!("{selectors:?} resolved")
        };
        assert_eq!(
            why.to_string(),
            format!("the proposal cannot be resolved: {expected}")
        );
    }
}

#[test]
fn a_fleet_without_nodes_and_a_plan_without_time_are_refused() {
    let mut bench = Bench::new();
    let release = bench.publish("1", 1);
    let mut proposal = bench.proposal("r", release.digest(), waves(&[Rest]));
    let empty = bench.propose(proposal.clone());
    assert!(
        format!("{empty:?}").contains("no enrolled node is concerned"),
        "{empty:?}"
    );
    proposal.not_after = CREATED;
    let late = bench.propose(proposal);
    assert!(
        format!("{late:?}").contains("not_after has passed"),
        "{late:?}"
    );
}

#[test]
fn a_rest_wave_is_added_with_the_last_gate() {
    let mut bench = Bench::with_nodes(9);
    let release = bench.publish("1", 1);
    let proposal = bench.proposal("r", release.digest(), waves(&[Count(2), Percent(50)]));
    let plan = bench.plan(proposal);
    assert_eq!(plan.waves.len(), 3);
    assert_eq!(plan.waves[2].members, Members::Rest);
    assert_eq!(plan.waves[2].gate, plan.waves[1].gate);
    let proposal = bench.proposal("r2", release.digest(), waves(&[Percent(100)]));
    assert_eq!(
        bench.plan(proposal).waves.len(),
        1,
        "all of a hundred is the rest"
    );
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        (1u32..20).prop_map(Count),
        (1u32..=100).prop_map(Percent),
        (1u8..=3).prop_map(|n| Site(site(&format!("s{n}")))),
        Just(label("test")),
        Just(Rest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is proposed: if it resolves, every node is in exactly one wave, counts are as asked
    /// and spread over the sites, and percentages cut the fleet of the moment.
    #[test]
    fn plans_are_whole_spread_and_in_bounds(
        count in 1u64..60,
        selectors in proptest::collection::vec(selector(), 1..5),
        id in "[a-z]{1,8}",
    ) {
        let mut bench = Bench::with_nodes(count);
        let release = bench.publish("1", 1);
        let proposal = bench.proposal(&id, release.digest(), waves(&selectors));
        let Answer::Plan(plan) = bench.propose(proposal) else { return Ok(()) };
        let mut seen = BTreeSet::new();
        let mut before = 0;
        for (number, wave) in plan.waves.iter().enumerate() {
            let members = bench.wave(&plan, number as u32, count);
            for n in &members {
                prop_assert!(seen.insert(*n), "node {n} is in two waves");
            }
            match selectors.get(number) {
                Some(Count(asked)) => {
                    let left = count as usize - before;
                    prop_assert_eq!(members.len(), left.min(*asked as usize));
                    let Members::Nodes(named) = &wave.members else { panic!("no list") };
                    prop_assert!(named.windows(2).all(|w| w[0] < w[1]));
                    prop_assert!(members.iter().all(|n| named.contains(&node(*n))));
                    // where a site has nodes left, it has at most one fewer than any other
                    let mut per_site: BTreeMap<u64, usize> = (0..3).map(|s| (s, 0)).collect();
                    members.iter().for_each(|n| *per_site.entry(n % 3).or_default() += 1);
                    let most = *per_site.values().max().unwrap_or(&0);
                    for (site, taken) in per_site {
                        let free = (0..count).any(|n| n % 3 == site && !seen.contains(&n));
                        prop_assert!(!free || taken + 1 >= most, "site {site}: {taken} of {most}");
                    }
                }
                Some(Percent(p)) => {
                    let below = (count as usize * *p as usize).div_ceil(100);
                    prop_assert!(members.len() <= below);
                    prop_assert!(before + members.len() >= below);
                }
                _ => {}
            }
            before += members.len();
        }
        prop_assert_eq!(seen.len() as u64, count);
    }
}

/// Over many rollouts nobody is always first, and a percentage takes from the whole fleet.
#[test]
fn the_first_are_others_each_time() {
    let mut bench = Bench::with_nodes(60);
    bench.audit = false;
    let release = bench.publish("1", 1);
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    for round in 0..60 {
        let id = format!("r{round}");
        let proposal = bench.proposal(&id, release.digest(), waves(&[Percent(10)]));
        let plan = bench.plan(proposal);
        let first = bench.wave(&plan, 0, 60);
        assert_eq!(first.len(), 6);
        first
            .iter()
            .for_each(|n| *times.entry(*n).or_default() += 1);
        bench.done(tidegate_coordinator_core::Command::Halt(
            plan.rollout.clone(),
            "next".into(),
        ));
    }
    assert!(times.len() > 55, "{} of 60 were first once", times.len());
    assert!(times.values().all(|t| *t <= 18), "{times:?}");
}

/// Every preset resolves for every size of fleet, and lets out ever larger parts: the curve of starts
/// begins with a handful and does not bunch before the last wave.
#[test]
fn presets_resolve_for_every_fleet_and_begin_small() {
    for (name, preset) in Preset::ALL {
        for count in [1, 2, 3, 5, 6, 12, 40, 200] {
            let mut bench = Bench::new();
            bench.audit = false;
            (0..count).for_each(|n| bench.enrol(n));
            let release = bench.publish("1", 1);
            let proposal = bench.proposal("r", release.digest(), preset.waves(CREATED));
            let plan = bench.plan(proposal);
            let sizes: Vec<usize> = (0..plan.waves.len() as u32)
                .map(|wave| bench.wave(&plan, wave, count).len())
                .collect();
            assert_eq!(sizes.iter().sum::<usize>() as u64, count, "{name}");
            assert!(
                sizes[0] <= 5 && sizes[0] > 0,
                "{name} of {count}: {sizes:?}"
            );
            if count == 200 {
                assert!(sizes.windows(2).all(|w| w[0] <= w[1]), "{name}: {sizes:?}");
            }
        }
    }
}
