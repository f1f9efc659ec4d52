//! Sites that give to one another: what the origin gives, what the sites give, and that nobody is stuck
//! when a giver goes.

use coordinator_core::contract::RolloutState;
use node_core::contract::FetchReason;
use simulations::scenario::{Cut, CutSpec};
use simulations::{Report, Scenario, play};

/// The scenario of the folder with twelve sites and a smaller release.
fn scenario() -> Scenario {
    let text = include_str!("../scenarios/relay.toml");
    let mut scenario = Scenario::parse(text).expect("a scenario");
    scenario.spread(60);
    for release in &mut scenario.releases {
        (release.pack_mib, release.carrier_mib) = (96, 96);
    }
    scenario
}

fn played(scenario: Scenario, threads: usize) -> Report {
    let report = play(scenario, threads).expect("it can be played");
    let text = report.to_text();
    assert_eq!(report.violations, [""; 0], "{text}");
    let rollout = &report.rollouts[0];
    assert_eq!(rollout.state, RolloutState::Finished, "{text}");
    assert_eq!(rollout.counts.applied, report.nodes, "{text}");
    report
}

fn from_siblings(report: &Report) -> u64 {
    let bytes = report.wan_bytes_by_reason.get(&FetchReason::Sibling);
    bytes.copied().unwrap_or(0)
}

#[test]
fn the_origin_hands_each_piece_out_once_and_the_sites_spread_it() {
    let report = played(scenario(), 1);
    let text = report.to_text();
    let copies = report.origin_copies.expect("it gave");
    assert!((0.99..=1.05).contains(&copies), "{text}");
    assert!(report.wan_copies.worst <= 1.02, "{text}");
    let all: u64 = report.wan_bytes_by_reason.values().sum();
    assert!(from_siblings(&report) > all / 12 * 10, "{text}");
    // each node against the least time that the links of origin and sites together allow
    let ratio = report.makespan_ratio.expect("all have it");
    assert!(ratio.p99 <= 1.6, "{text}");
}

#[test]
fn without_relay_no_byte_goes_between_sites() {
    let mut scenario = scenario();
    scenario
        .site_groups
        .iter_mut()
        .for_each(|g| g.relay = false);
    let report = played(scenario, 1);
    assert_eq!(from_siblings(&report), 0);
    assert!(report.origin_copies.expect("it gave") >= 11.9);
}

#[test]
fn givers_that_die_or_are_cut_off_keep_nobody_waiting() {
    let mut scenario = scenario();
    scenario.faults.until_s = 60;
    scenario.faults.crashes = 30;
    scenario.faults.cuts.push(CutSpec {
        what: Cut::Wan,
        site: Some("branch-3".into()),
        percent: None,
        from_s: 12,
        to_s: 50,
    });
    let report = played(scenario, 1);
    let copies = report.origin_copies.expect("it gave");
    assert!(copies <= 2.0, "{}", report.to_text());
}

#[test]
fn what_comes_of_it_does_not_depend_on_threads() {
    let json = |threads| {
        let report = played(scenario(), threads);
        serde_json::to_string(&report).expect("a report is data")
    };
    let one = json(1);
    for threads in [2, 4] {
        assert!(json(threads) == one, "{threads} threads");
    }
}
