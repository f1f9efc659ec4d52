//! A halt of everything outlives restarts, and who lifts what.

mod support;

use protocol::fixtures::rollout;
use protocol::lift::Lift;
use protocol::plan::Selector::{Count, Rest};
use protocol::plan::{Cohort, SequentialTest};
use protocol::status::State;
use protocol::{RolloutId, Time, Verified};
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::{Command, CommandError, RolloutState as S};

fn lift(bench: &Bench, of: Option<RolloutId>, halted: Time) -> Verified<Lift> {
    bench.fleet.verified(&Lift {
        spec_version: 1,
        fleet: bench.fleet.id(),
        rollout: of,
        halted,
        reason: "a false alarm".into(),
        created: bench.now.wall,
    })
}

/// Leases that were given since the `from`th order.
fn leases(bench: &Bench, from: usize) -> usize {
    let kinds = bench.kinds(from);
    kinds.iter().filter(|kind| kind.contains("lease")).count()
}

#[test]
fn everything_is_halted_until_it_is_lifted_also_what_is_started_later() {
    let mut bench = Bench::with_nodes(9);
    let through = bench.start("through", vec![draft("all", Rest, gate(0, 1, 0))]);
    bench.report(&through, &[0], State::Succeeded);
    bench.wait(1);
    assert_eq!(bench.state("through"), S::Finished, "and eight stragglers");
    bench.start("runs", vec![draft("first", Count(2), gate(0, 1, 0))]);
    bench.done(Command::HaltAll("an intruder".into()));
    let from = bench.issued.len();
    assert_eq!(bench.state("runs"), S::Preempted);
    assert_eq!(bench.view("runs").why, "everything is halted: an intruder");
    bench.start("later", vec![draft("all", Rest, gate(0, 1, 0))]);
    for round in 0..3 {
        bench.wait(600);
        bench.restart();
        assert_eq!(bench.state("later"), S::Preempted, "round {round}");
        assert_eq!(bench.state("runs"), S::Preempted, "round {round}");
    }
    assert_eq!(
        leases(&bench, from),
        0,
        "nobody gets leave, stragglers neither"
    );

    let halted = bench.conductor.halted(None).unwrap();
    let early = lift(&bench, None, Time(halted.0 - 1));
    assert_eq!(bench.refused(Command::Lift(early)), CommandError::OtherHalt);
    let lifted = lift(&bench, None, halted);
    bench.done(Command::Lift(lifted.clone()));
    assert_eq!(
        (bench.state("runs"), bench.state("later")),
        (S::Running, S::Running)
    );
    assert!(leases(&bench, from) >= 3, "the stragglers go on too");
    bench.restart();
    assert_eq!(bench.state("runs"), S::Running);
    assert_eq!(
        bench.refused(Command::Lift(lifted)),
        CommandError::NothingHalted
    );
}

#[test]
fn an_operators_halt_is_lifted_by_a_statement_about_that_very_halt() {
    let mut bench = Bench::with_nodes(6);
    bench.start("r", vec![draft("all", Rest, gate(0, 6, 0))]);
    let id = rollout("r");
    bench.done(Command::Halt(id.clone(), "wait".into()));
    let first = bench.conductor.halted(Some(&id)).unwrap();
    let refused = bench.refused(Command::Resume(id.clone()));
    assert!(
        matches!(refused, CommandError::WrongState { .. }),
        "one operator does not do"
    );
    let lifted = lift(&bench, Some(id.clone()), first);
    bench.done(Command::Lift(lifted.clone()));
    assert_eq!(bench.state("r"), S::Running);
    bench.wait(5);
    bench.done(Command::Halt(id.clone(), "again".into()));
    assert_eq!(
        bench.refused(Command::Lift(lifted)),
        CommandError::OtherHalt
    );
    // also long after it left the bulletin
    bench.wait(3600);
    assert!(!bench.in_bulletin("r"));
    let second = bench.conductor.halted(Some(&id)).unwrap();
    let lifted = lift(&bench, Some(id), second);
    bench.done(Command::Lift(lifted));
    assert!(bench.in_bulletin("r"));
    assert_eq!(bench.state("r"), S::Running);
}

#[test]
fn what_was_held_and_then_halted_goes_on_once_it_is_lifted() {
    let mut bench = Bench::with_nodes(6);
    let waves = [Count(2), Rest].map(|s| draft("w", s, gate(900_000, 1, 0)));
    let plan = bench.start("r", waves.to_vec());
    let first = bench.wave(&plan, 0, 6);
    bench.report(&plan, &first, State::RolledBack);
    assert_eq!(bench.state("r"), S::Held);
    let id = rollout("r");
    bench.done(Command::Halt(id.clone(), "enough".into()));
    let halted = bench.conductor.halted(Some(&id)).unwrap();
    let lifted = lift(&bench, Some(id), halted);
    bench.done(Command::Lift(lifted));
    assert_eq!(bench.state("r"), S::Running, "what was known is forgiven");
    bench.report(&plan, &first, State::Succeeded);
    bench.wait(1);
    assert!(bench.view("r").waves[1].opened_at.is_some());
}

#[test]
fn what_never_started_is_not_lifted() {
    let mut bench = Bench::with_nodes(3);
    let release = bench.publish("1", 1);
    let waves = vec![draft("all", Rest, gate(0, 1, 0))];
    let proposal = bench.proposal("r", release.digest(), waves);
    bench.plan(proposal);
    bench.done(Command::Halt(rollout("r"), "no".into()));
    assert!(bench.conductor.halted(Some(&rollout("r"))).is_err());
}

/// Nodes whose number is divisible by four are of the cohort, and all of them fail.
fn cohort_held() -> (Bench, Verified<protocol::plan::RolloutPlan>, Cohort) {
    let mut bench = Bench::with_nodes(60);
    let cohort = Cohort {
        key: "ring".into(),
        value: "test".into(),
    };
    let release = bench.publish("1", 1);
    let waves = vec![draft("all", Rest, gate(0, 60, 0))];
    let mut proposal = bench.proposal("r", release.digest(), waves);
    proposal.test = Some(SequentialTest {
        expected_ppm: 10_000,
        unacceptable_ppm: 30_000,
        false_halt_ppm: 100,
        missed_ppm: 1000,
        in_flight_max: 60,
        cohorts: vec![cohort.clone()],
    });
    let plan = bench.plan(proposal);
    let plan = bench.approve(&plan);
    bench.done(Command::Start(rollout("r")));
    let (bad, good): (Vec<u64>, Vec<u64>) = (0..60).partition(|n| n % 4 == 0);
    bench.report(&plan, &good, State::Succeeded);
    // the last of them has not begun yet
    for n in &bad[1..] {
        bench.report(&plan, &[*n], State::RolledBack);
    }
    assert!(bench.notes.iter().any(|(event, _)| *event == "cohort_held"));
    (bench, plan, cohort)
}

#[test]
fn one_operator_lets_a_held_cohort_go_on() {
    let (mut bench, plan, cohort) = cohort_held();
    assert_eq!(bench.state("r"), S::Finished, "the others went on");
    let other = Cohort {
        value: "main".into(),
        ..cohort.clone()
    };
    let refused = bench.refused(Command::ReleaseCohort(rollout("r"), other));
    assert_eq!(refused, CommandError::CohortNotHeld("ring=main".into()));
    let before = bench.notes.len();
    bench.done(Command::ReleaseCohort(rollout("r"), cohort.clone()));
    bench.wait(120);
    bench.restart();
    let held_again = bench.notes[before..]
        .iter()
        .any(|(event, _)| *event == "cohort_held");
    assert!(!held_again, "what failed before is forgiven");
    let lease = bench
        .issued
        .iter()
        .rev()
        .find_map(|order| match &order.body {
            protocol::orders::OrderBody::GoLease { held, .. } => Some(held.clone()),
            _ => None,
        });
    assert_eq!(lease, Some(Vec::new()), "its nodes have leave");
    let refused = bench.refused(Command::ReleaseCohort(rollout("r"), cohort));
    assert!(matches!(refused, CommandError::CohortNotHeld(_)));
    // mended by hand, they come in as successes
    let bad: Vec<u64> = (0..60).filter(|n| n % 4 == 0).collect();
    bench.report(&plan, &bad, State::Succeeded);
    bench.wait(1);
    assert_eq!(bench.view("r").counts.applied, 60);
}
