//! The sequential test across waves: who may start before it has spoken, what it stops, what it holds.

mod support;

use protocol::fixtures::{self, rollout, site};
use protocol::orders::OrderBody;
use protocol::plan::Selector::{Count, Rest};
use protocol::plan::{Cohort, RolloutPlan, SequentialTest, WaveDraft};
use protocol::status::State;
use protocol::{NodeId, Verified};
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::{
    Answer, Command, CommandError, LedgerEvent, RolloutState as S,
};

const NODES: u64 = 40;

/// Two failures stop it, 14 good outcomes speak for it.
fn test(cohorts: &[(&str, &str)]) -> SequentialTest {
    let cohort = |(key, value): &(&str, &str)| Cohort {
        key: (*key).into(),
        value: (*value).into(),
    };
    SequentialTest {
        expected_ppm: 10_000,
        unacceptable_ppm: 300_000,
        false_halt_ppm: 10_000,
        missed_ppm: 10_000,
        in_flight_max: 8,
        cohorts: cohorts.iter().map(cohort).collect(),
    }
}

fn start(bench: &mut Bench, waves: Vec<WaveDraft>, test: SequentialTest) -> Verified<RolloutPlan> {
    let release = bench.publish("1", 1);
    let mut proposal = bench.proposal("r", release.digest(), waves);
    proposal.test = Some(test);
    let plan = bench.plan(proposal);
    let plan = bench.approve(&plan);
    bench.done(Command::Start(rollout("r")));
    plan
}

/// One wave of all whose own gate lets everything pass.
fn all() -> Vec<WaveDraft> {
    vec![draft("rest", Rest, gate(0, 1, 0))]
}

fn bench() -> Bench {
    let mut bench = Bench::with_nodes(NODES);
    bench.audit = false;
    bench
}

/// Nodes that may start by the newest lease, by number.
fn leave(bench: &Bench, plan: &RolloutPlan) -> Vec<u64> {
    let lease = bench.issued.iter().rev().find_map(|o| match &o.body {
        OrderBody::GoLease {
            wave, below, held, ..
        } => Some((*wave, *below, held.clone())),
        _ => None,
    });
    let Some((wave, below, held)) = lease else {
        return Vec::new();
    };
    let may = |n: &u64| {
        let node = fixtures::node(*n);
        let mine = plan.wave_of(&node, Some(&site(&Bench::site_of(*n))));
        let at = protocol::positions::position(&plan.salt, &plan.release, &node);
        let in_time = mine.is_some_and(|m| m < wave || m == wave && below.is_none_or(|b| at < b));
        let ring = if n.is_multiple_of(4) { "test" } else { "main" };
        let cohorts = plan.test.iter().flat_map(|t| &t.cohorts);
        let stopped = cohorts
            .enumerate()
            .any(|(c, cohort)| held.contains(&(c as u32)) && cohort.value == ring);
        in_time && !stopped
    };
    (0..NODES).filter(may).collect()
}

fn events(bench: &Bench, is: impl Fn(&LedgerEvent) -> bool) -> usize {
    bench.ledger.iter().filter(|e| is(e)).count()
}

#[test]
fn until_the_first_verdict_only_a_few_are_at_it_at_a_time() {
    let mut bench = bench();
    let plan = start(&mut bench, all(), test(&[]));
    bench.wait(1);
    let first = leave(&bench, &plan);
    assert_eq!(first.len(), 8);
    bench.report(&plan, &first, State::Installing);
    assert_eq!(leave(&bench, &plan), first, "all places are taken");
    bench.report(&plan, &first[..1], State::Succeeded);
    assert_eq!(
        leave(&bench, &plan).len(),
        8,
        "room is given by the quarter"
    );
    bench.report(&plan, &first[1..2], State::Succeeded);
    assert_eq!(leave(&bench, &plan).len(), 10);
    // 14 good outcomes: the first verdict, and twice as many may be at it
    let mut done = 2;
    while done < 14 {
        let next = leave(&bench, &plan);
        let more: Vec<u64> = next
            .into_iter()
            .filter(|n| !first[..2].contains(n))
            .collect();
        bench.report(&plan, &more, State::Succeeded);
        done = bench.view("r").counts.applied;
    }
    assert!(
        events(&bench, |e| matches!(
            e,
            LedgerEvent::Cleared { cohort: None, .. }
        )) == 1
    );
    let waiting = leave(&bench, &plan).len() as u32 - bench.view("r").counts.applied;
    assert_eq!(waiting, 16);
    bench.check();
}

#[test]
fn who_has_leave_and_does_not_come_makes_room_for_others() {
    let mut bench = bench();
    let plan = start(&mut bench, all(), test(&[]));
    bench.wait(119);
    assert_eq!(leave(&bench, &plan).len(), 8);
    bench.wait(2);
    assert_eq!(leave(&bench, &plan).len(), 16);
    bench.check();
}

#[test]
fn a_regression_stops_the_rollout_whatever_the_wave_asks_for() {
    let mut bench = bench();
    let plan = start(&mut bench, all(), test(&[]));
    bench.wait(1);
    let first = leave(&bench, &plan);
    bench.report(&plan, &first[..1], State::Succeeded);
    bench.report(&plan, &first[1..2], State::Failed);
    assert_eq!(bench.state("r"), S::Running, "one failure proves nothing");
    bench.report(&plan, &first[2..3], State::RolledBack);
    assert_eq!(bench.state("r"), S::Held);
    let why = bench.view("r").why;
    assert!(
        why.contains("2 of 3 outcomes are failures, where 1.0 % are expected"),
        "{why}"
    );
    // an operator has looked: the test begins anew
    bench.done(Command::Resume(rollout("r")));
    bench.report(&plan, &first[3..4], State::Failed);
    assert_eq!(bench.state("r"), S::Running);
    bench.check();
}

#[test]
fn silence_after_a_start_counts_against_the_release() {
    let mut bench = bench();
    let plan = start(&mut bench, all(), test(&[]));
    bench.wait(1);
    let first = leave(&bench, &plan);
    bench.report(&plan, &first, State::Installing);
    bench.wait(119);
    assert_eq!(bench.state("r"), S::Running);
    bench.wait(2);
    assert_eq!(bench.state("r"), S::Held);
    assert_eq!(bench.view("r").counts.failed, 8, "and nobody else began");
    bench.check();
}

/// Nodes whose number is a multiple of four carry `ring=test`.
#[test]
fn a_cohort_that_fails_alone_is_held_and_the_rest_goes_on() {
    let mut bench = bench();
    let plan = start(&mut bench, all(), test(&[("ring", "test")]));
    bench.wait(1);
    let is_bad = |n: &u64| n.is_multiple_of(4);
    let held = |b: &Bench| events(b, |e| matches!(e, LedgerEvent::CohortHeld { .. }));
    let mut seen: Vec<u64> = Vec::new();
    while held(&bench) == 0 {
        let next = leave(&bench, &plan).into_iter().find(|n| !seen.contains(n));
        let next = next.expect("someone has leave until the cohort is held");
        seen.push(next);
        let state = if is_bad(&next) {
            State::Failed
        } else {
            State::Succeeded
        };
        bench.report(&plan, &[next], state);
        assert_eq!(bench.state("r"), S::Running);
        bench.wait(1);
    }
    assert!(seen.iter().filter(|n| is_bad(n)).count() <= 3, "{seen:?}");
    let view = bench.view("r");
    assert_eq!(view.counts.total(), NODES as u32, "the four counts stand");
    for _ in 0..NODES {
        let next = leave(&bench, &plan);
        let next: Vec<u64> = next.into_iter().filter(|n| !seen.contains(n)).collect();
        assert!(!next.iter().any(is_bad), "nobody of the cohort has leave");
        bench.report(&plan, &next, State::Succeeded);
        seen.extend(next);
        bench.wait(1);
    }
    assert_eq!(bench.state("r"), S::Finished);
    assert_eq!(bench.view("r").counts.applied, 30);
    bench.check();
}

#[test]
fn problems_that_people_report_count_after_a_green_install() {
    let mut bench = bench();
    let plan = start(&mut bench, all(), test(&[]));
    bench.wait(1);
    let first = leave(&bench, &plan);
    bench.report(&plan, &first[..3], State::Succeeded);
    let problem = |n: u64| Command::ReportProblem {
        rollout: rollout("r"),
        node: fixtures::node(n),
        what: "no sound any more".into(),
    };
    bench.done(problem(first[0]));
    bench.done(problem(first[0]));
    assert_eq!(bench.state("r"), S::Running, "one vote a node");
    bench.done(problem(first[1]));
    assert_eq!(bench.state("r"), S::Held);
    assert_eq!(
        bench.view("r").counts.applied,
        3,
        "by their own word they have it"
    );
    let stranger: NodeId = fixtures::node(999);
    let refused = bench.refused(Command::ReportProblem {
        rollout: rollout("r"),
        node: stranger,
        what: String::new(),
    });
    assert!(matches!(refused, CommandError::NoTarget { .. }));
    bench.check();
}

/// The only canary had been bricked by an earlier release: it never answered, and the rollout stood for
/// ever. Now a day is waited for what may still come, and then those that came decide; a wave of which
/// nobody ever came still proves nothing.
#[test]
fn a_canary_that_never_comes_is_not_waited_for_if_another_did() {
    for (came, opens) in [(1, true), (0, false)] {
        let mut bench = Bench::with_nodes(6);
        bench.audit = false;
        let waves = vec![
            draft("canary", Count(2), gate(1_000_000, 2, 0)),
            draft("rest", Rest, gate(0, 1, 0)),
        ];
        let plan = bench.start("r", waves);
        let canaries = bench.wave(&plan, 0, 6);
        bench.report(&plan, &canaries[..came], State::Succeeded);
        // a full disk: it waits, and says so
        let waits = State::Waiting(protocol::status::WaitingFor::Disk);
        bench.report(&plan, &canaries[1..], waits);
        bench.wait(24 * 3600);
        assert!(bench.view("r").waves[1].opened_at.is_none());
        bench.wait(2 * 3600);
        assert_eq!(bench.view("r").waves[1].opened_at.is_some(), opens);
        bench.check();
    }
}

#[test]
fn a_restart_forgets_no_verdict_and_no_leave() {
    let mut bench = bench();
    let plan = start(&mut bench, all(), test(&[("ring", "test")]));
    bench.wait(1);
    let first = leave(&bench, &plan);
    bench.report(&plan, &first[..4], State::Succeeded);
    let before = leave(&bench, &plan);
    bench.restart();
    assert_eq!(leave(&bench, &plan), before);
    bench.report(&plan, &first[4..6], State::Failed);
    bench.wait(1);
    assert_ne!(bench.state("r"), S::Finished);
    bench.check();
}

#[test]
fn a_test_that_makes_no_sense_is_refused() {
    let mut bench = bench();
    let release = bench.publish("1", 1);
    let mut proposal = bench.proposal("r", release.digest(), all());
    let wrong = SequentialTest {
        unacceptable_ppm: 5_000,
        ..test(&[])
    };
    proposal.test = Some(wrong);
    let answer = bench.propose(proposal);
    assert!(
        matches!(answer, Answer::Refused(CommandError::Unresolvable(_))),
        "{answer:?}"
    );
}
