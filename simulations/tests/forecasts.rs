//! The simulator checks the coordinator's forecasts against full runs of the same rollouts.

use simulations::rehearsal::Pair;
use simulations::{Report, Scenario, World};

const THREE_SITES: &str = include_str!("../scenarios/three-sites.toml");

/// A scenario's run with the forecasts that were made on its way.
fn rehearsed(text: &str, seed: u64, nodes: u32) -> Report {
    let mut scenario = Scenario::parse(text).expect("a scenario");
    scenario.seed = seed;
    scenario.spread(nodes);
    let mut world = World::new(scenario).expect("it can be played");
    world.rehearse();
    world.run(1);
    let report = Report::of(&world);
    assert_eq!(report.violations, [""; 0], "seed {seed}");
    report
}

#[test]
fn a_forecast_comes_near_the_full_run() {
    // links so slow that the bytes count, beside what is said between nodes
    let slow = THREE_SITES
        .replace("wan_mbit = 40", "wan_mbit = 8")
        .replace("wan_mbit = 20", "wan_mbit = 4")
        .replace("wan_mbit = 10", "wan_mbit = 2");
    for (seed, nodes) in [(1, 12), (2, 12), (3, 18)] {
        let report = rehearsed(&slow, seed, nodes);
        let forecast = report.forecasts.first().expect("one was asked for");
        let off = |pair: Pair| pair.error.expect("both came to an end");
        assert!(
            off(forecast.finishes).abs() <= 0.15,
            "seed {seed}: {forecast:?}"
        );
        // a forecast's links are busy all the time, so bytes come later than it says, if at all
        let bytes = off(forecast.last_site_has_bytes);
        assert!((-0.25..=0.05).contains(&bytes), "seed {seed}: {forecast:?}");
    }
}

#[test]
fn a_run_without_forecasts_says_nothing_of_them() {
    let mut scenario = Scenario::parse(THREE_SITES).expect("a scenario");
    scenario.duration_s = 8;
    let report = simulations::play(scenario, 1).expect("it can be played");
    assert!(report.forecasts.is_empty());
    let text = serde_json::to_string(&report).expect("written");
    assert!(!text.contains("\"forecasts\""));
}
