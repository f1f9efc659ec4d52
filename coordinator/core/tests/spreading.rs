//! The starts of a wave are spread evenly over the time that the plan gives them.

mod support;

use proptest::prelude::*;
use protocol::fixtures::node;
use protocol::plan::Selector::Rest;
use protocol::positions::position;
use protocol::status::State;
use protocol::{Hash, Now, Span};
use support::{Bench, draft, gate};
use tidegate_coordinator_core::engine::{RolloutEngine, Step};
use tidegate_coordinator_core::presets::Preset;

/// An engine that rolls out to `nodes` nodes, spread over `minutes`, with room for all of them.
fn engine(nodes: u64, minutes: u64) -> (RolloutEngine, Now) {
    let mut bench = Bench::new();
    bench.audit = false;
    (0..nodes).for_each(|n| bench.enrol(n));
    let release = bench.publish("1", 1);
    let mut proposal = bench.proposal(
        "r",
        release.digest(),
        vec![draft("all", Rest, gate(500_000, 1, 1))],
    );
    proposal.constraints.spread = Span::from_secs(minutes * 60);
    let mut test = Preset::Normal.test();
    test.in_flight_max = u32::MAX;
    proposal.test = Some(test);
    let conductor = &bench.conductor;
    let engine = conductor.engine(&proposal, Hash::of(b"salt"));
    (engine.expect("a sound proposal"), bench.now)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// At every minute as many have leave as the plan says, give or take one in a hundred, rounded up to whole
    /// nodes.
    #[test]
    fn leave_is_given_along_the_line(nodes in 1u64..400, minutes in 4u64..240) {
        let (mut engine, start) = engine(nodes, minutes);
        let plan = engine.plan().clone();
        let at = |n: u64| position(&plan.salt, &plan.release, &node(n));
        let mut below = Some(0);
        let mut opened = None;
        let mut leases = 0u64;
        let (mut gone, end) = (0, (minutes + 1) * 60_000);
        while gone <= end {
            let now = Now { boot: start.boot + Span(gone), wall: start.wall + Span(gone) };
            while let Some(step) = engine.step(now) {
                if let Step::Lease { below: bound, .. } = step {
                    (below, leases) = (bound, leases + 1);
                    opened.get_or_insert(now.wall);
                }
            }
            let due = engine.wakes_at(now);
            prop_assert!(due.is_none_or(|due| due > now.boot), "it does not spin");
            let (minute, sharp) = (gone / 60_000, gone % 60_000 == 0);
            let wakes = due.map_or(u64::MAX, |due| due.since(start.boot).0);
            gone = wakes.min((minute + 1) * 60_000);
            if !sharp {
                continue;
            }
            let since = now.wall.since(opened.unwrap_or(now.wall)).0 as f64;
            let line = (since / (minutes * 60_000) as f64).min(1.0) * nodes as f64;
            let have = (0..nodes).filter(|n| below.is_none_or(|below| at(*n) < below)).count() as f64;
            let most = (nodes as f64 / 100.0).ceil();
            prop_assert!((have - line).abs() <= most, "minute {minute}: {have} of {line}");
        }
        prop_assert_eq!(below, None, "in the end all have leave");
        prop_assert!(leases <= minutes * 60 / 20 + 210, "{} leases", leases);
    }
}

/// Who has leave and starts makes no room beside the line, and the wave's gate waits for its last.
#[test]
fn quick_nodes_do_not_pull_others_forward() {
    let (mut engine, start) = engine(100, 100);
    let nodes: Vec<_> = (0..100).map(node).collect();
    let plan = engine.plan().clone();
    let mut below = Some(0);
    for second in 0..3000 {
        let span = Span::from_secs(second);
        let now = Now {
            boot: start.boot + span,
            wall: start.wall + span,
        };
        while let Some(step) = engine.step(now) {
            assert_ne!(step, Step::Finished, "half of the wave has no leave yet");
            if let Step::Lease { below: bound, .. } = step {
                below = bound;
            }
        }
        for id in &nodes {
            if below.is_some_and(|below| position(&plan.salt, &plan.release, id) < below) {
                engine.heard(now, id, State::Succeeded);
            }
        }
    }
    let applied = engine.counts().applied;
    assert!((49..=52).contains(&applied), "{applied}");
}
