//! The scenarios, played with the real brains: what must come of them, whatever the seed.

use coordinator_core::contract::RolloutState;
use simulations::{Report, Scenario, play};

const THREE_SITES: &str = include_str!("../scenarios/three-sites.toml");
const BAD_RELEASE: &str = include_str!("../scenarios/bad-release.toml");
const RECALL: &str = include_str!("../scenarios/recall.toml");
const ROUGH: &str = include_str!("../scenarios/rough.toml");
const THIN: &str = include_str!("../scenarios/thin.toml");
const GLOBAL_ROUGH: &str = include_str!("../scenarios/global-rough.toml");

fn played(text: &str, seed: u64, nodes: Option<u32>) -> Report {
    played_on(1, text, seed, nodes)
}

fn played_on(threads: usize, text: &str, seed: u64, nodes: Option<u32>) -> Report {
    let mut scenario = Scenario::parse(text).expect("a scenario");
    scenario.seed = seed;
    nodes.into_iter().for_each(|n| scenario.spread(n));
    let report = play(scenario, threads).expect("it can be played");
    assert_eq!(
        report.violations,
        [""; 0],
        "seed {seed}: {}",
        report.to_text()
    );
    report
}

fn all_succeeded(report: &Report) {
    let rollout = &report.rollouts[0];
    assert_eq!(
        rollout.state,
        RolloutState::Finished,
        "{}",
        report.to_text()
    );
    assert_eq!(rollout.counts.applied, report.nodes, "{}", report.to_text());
    let opened: Vec<f64> = rollout.waves.iter().filter_map(|w| w.opened_s).collect();
    assert_eq!(opened.len(), rollout.waves.len());
    assert!(
        opened.windows(2).all(|w| w[0] < w[1]),
        "waves open one after the other: {opened:?}"
    );
}

#[test]
fn a_good_release_reaches_everyone_over_one_copy_for_each_site() {
    for seed in 1..=3 {
        let report = played(THREE_SITES, seed, None);
        all_succeeded(&report);
        assert!(
            report.wan_copies.mean <= 1.05,
            "seed {seed}: {:?}",
            report.wan_copies
        );
    }
}

#[test]
fn more_nodes_cost_no_more_copies() {
    let report = played(THREE_SITES, 7, Some(24));
    all_succeeded(&report);
    assert!(report.wan_copies.mean <= 1.05, "{:?}", report.wan_copies);
}

#[test]
fn a_bad_release_is_held_in_its_first_wave_and_rolled_back() {
    for seed in 1..=3 {
        let report = played(BAD_RELEASE, seed, None);
        all_succeeded(&report);
        let bad = &report.rollouts[1];
        assert_eq!(
            bad.state,
            RolloutState::Held,
            "seed {seed}: {}",
            report.to_text()
        );
        assert!(
            (1..=3).contains(&bad.attempted),
            "seed {seed}: {}",
            report.to_text()
        );
        assert_eq!(
            bad.rolled_back,
            bad.attempted,
            "seed {seed}: {}",
            report.to_text()
        );
        assert_eq!(bad.counts.applied, 0);
        assert_eq!(
            report.installed,
            [("app@1.0".to_owned(), report.nodes)].into()
        );
        assert!(
            bad.waves[1..]
                .iter()
                .all(|w| w.opened_s.is_none() && w.started == 0)
        );
    }
}

#[test]
fn a_recalled_release_is_taken_back_everywhere() {
    for seed in 1..=2 {
        let report = played(RECALL, seed, None);
        all_succeeded(&report);
        let back = &report.rollouts[1];
        assert_eq!(
            back.state,
            RolloutState::Recalled,
            "seed {seed}: {}",
            report.to_text()
        );
        assert_eq!(
            back.rolled_back,
            report.nodes,
            "seed {seed}: {}",
            report.to_text()
        );
        assert_eq!(
            report.installed,
            [("app@1.0".to_owned(), report.nodes)].into()
        );
    }
}

#[test]
fn crashes_and_losses_delay_and_harm_nothing() {
    for seed in 1..=5 {
        let report = played(ROUGH, seed, None);
        all_succeeded(&report);
        // Nodes that restarted while the coordinator was down took themselves for alone, and fetched
        // everything a second time.
        let copies = &report.wan_copies;
        assert!(copies.worst <= 1.5, "seed {seed}: {copies:?}");
    }
}

/// The story: with every fifth control message lost, some nodes asked in vain who is here, took themselves
/// for alone, and brought a whole copy over their site's WAN: up to 2.07 copies in one site.
#[test]
fn losses_cost_few_copies() {
    for seed in [1, 3] {
        let report = played(GLOBAL_ROUGH, seed, Some(100));
        let copies = &report.wan_copies;
        let few = copies.mean <= 1.02 && copies.worst <= 1.05;
        assert!(few, "seed {seed}: {copies:?}");
    }
}

#[test]
fn a_thin_line_that_is_cut_carries_nothing_twice() {
    for seed in 1..=4 {
        let report = played(THIN, seed, None);
        all_succeeded(&report);
        let copies = &report.wan_copies;
        assert!(copies.worst <= 1.01, "seed {seed}: {copies:?}");
    }
}

#[test]
fn one_seed_gives_the_same_bytes_and_another_gives_others() {
    let json = |seed| serde_json::to_string(&played(ROUGH, seed, None)).expect("a report is data");
    let first = json(3);
    assert_eq!(first, json(3));
    assert_ne!(first, json(4));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let json = |threads| {
        let report = played_on(threads, ROUGH, 5, None);
        serde_json::to_string(&report).expect("a report is data")
    };
    let alone = json(1);
    assert_eq!(alone, json(2));
    assert_eq!(alone, json(4));
}

#[test]
fn a_scenario_that_cannot_be_is_refused() {
    let cases = [
        ("", "read the scenario"),
        (
            &THREE_SITES.replace("wan_mbit = 40", "wan_mbit = 0"),
            "site s1 has a link without rate",
        ),
        (
            &THREE_SITES.replace("pack_mib = 24", "pack_mib = 0"),
            "a release has no bytes",
        ),
        (
            &THREE_SITES.replace("idle_s", "idle_x"),
            "read the scenario",
        ),
    ];
    for (text, expected) in cases {
        let error = Scenario::parse(text).expect_err("it is refused");
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{error}");
    }
}
