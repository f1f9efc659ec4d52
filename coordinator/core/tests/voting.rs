//! Who has a say at a gate: nobody opens the next wave with nodes that are not his own.

mod support;

use protocol::feed::Roster;
use protocol::fixtures::{self, rollout, site};
use protocol::plan::Selector::{Count, Rest, Site};
use protocol::status::State;
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::{Command, Event, RolloutState as S, Ticket, Uplink};

/// Sites one after the other: nodes 0 and 3 first, then the rest.
fn site_first() -> Vec<protocol::plan::WaveDraft> {
    vec![
        draft("first", Site(site("s1")), gate(1_000_000, 2, 0)),
        draft("rest", Rest, gate(0, 1, 0)),
    ]
}

fn targets(bench: &Bench) -> Vec<u32> {
    bench.view("r").waves.iter().map(|w| w.targets).collect()
}

fn is_open(bench: &Bench, wave: usize) -> bool {
    bench.view("r").waves[wave].opened_at.is_some()
}

#[test]
fn a_delegate_cannot_empty_a_wave_of_its_voters() {
    let mut bench = Bench::with_nodes(6);
    bench.start("r", site_first());
    assert_eq!(targets(&bench), [2, 4]);
    let me = bench.presence(1, "s2");
    let mut joined = vec![fixtures::node(0), fixtures::node(3)];
    joined.sort_unstable();
    let roster = Roster {
        digest: Roster::digest(&joined),
        joined,
        left: Vec::new(),
        whole: true,
    };
    bench.handle(Event::Uplink(Uplink {
        ticket: Ticket(1 << 40),
        from: me.contact.node,
        me: Some(me),
        roster: Some(roster),
        statuses: Vec::new(),
        stages: None,
    }));
    bench.wait(600);
    assert_eq!(
        targets(&bench),
        [2, 4],
        "they stay where they said they are"
    );
    assert!(!is_open(&bench, 1));
    assert_eq!(bench.state("r"), S::Running);
}

#[test]
fn a_wave_of_late_joiners_waits() {
    let mut bench = Bench::with_nodes(6);
    let plan = bench.start("r", site_first());
    bench.enrol(6);
    for n in [0, 3] {
        let me = bench.presence(n, "s2");
        bench.handle(Event::Located(me));
        let open = is_open(&bench, 1);
        assert!(!open, "after node {n} moved away");
    }
    assert_eq!(targets(&bench), [1, 6]);
    bench.report(&plan, &[6], State::Succeeded);
    bench.wait(60);
    assert!(!is_open(&bench, 1), "who joined late has no vote");
    assert_eq!(bench.view("r").waves[0].state, "running");
}

#[test]
fn late_joiners_in_the_last_wave_hold_no_rollout_open() {
    let mut bench = Bench::with_nodes(2);
    let waves = vec![
        draft("first", Site(site("s1")), gate(0, 1, 0)),
        draft("second", Site(site("s2")), gate(0, 1, 0)),
        draft("rest", Rest, gate(0, 1, 0)),
    ];
    let plan = bench.start("r", waves);
    bench.enrol(2);
    assert_eq!(targets(&bench), [1, 1, 1], "the third joined late");
    for node in [0, 1] {
        bench.report(&plan, &[node], State::Succeeded);
        bench.wait(5);
    }
    assert_eq!(bench.state("r"), S::Finished);
    assert_eq!(bench.view("r").counts.not_received, 1);
}

#[test]
fn forgiven_failures_and_empty_waves_let_the_rest_go_on() {
    let mut bench = Bench::with_nodes(6);
    let plan = bench.start("r", site_first());
    bench.report(&plan, &[0, 3], State::Failed);
    assert_eq!(bench.state("r"), S::Held);
    bench.done(Command::Resume(rollout("r")));
    bench.wait(1);
    assert!(is_open(&bench, 1), "an operator looked at the failures");

    let mut bench = Bench::with_nodes(6);
    let plan = bench.start("r", site_first());
    bench.report(&plan, &[0, 3], State::NotApplicable);
    bench.wait(1);
    assert!(is_open(&bench, 1), "nobody is in the first wave any more");
}

/// A laptop that was off at the proposal had no site, so the canary named it; it really was in the site
/// of the wave before, and never came. The canary waited for its outcome, and no gate ever judged.
#[test]
fn a_node_that_nobody_has_seen_yet_holds_no_gate_open() {
    let mut bench = Bench::with_nodes(2);
    bench.enrol_at(2, None);
    let waves = vec![
        draft("first", Site(site("s1")), gate(1_000_000, 2, 0)),
        draft("canary", Count(2), gate(1_000_000, 2, 0)),
        draft("rest", Rest, gate(0, 1, 0)),
    ];
    let plan = bench.start("r", waves);
    bench.report(&plan, &[0], State::Succeeded);
    bench.wait(1);
    assert_eq!(targets(&bench), [1, 2, 0]);
    bench.report(&plan, &[1], State::Succeeded);
    bench.wait(1);
    assert!(is_open(&bench, 2), "only one of the two was ever seen");
    // once it speaks it has its say like any other
    bench.report(&plan, &[2], State::Failed);
    assert_eq!(bench.state("r"), S::Held);
}
