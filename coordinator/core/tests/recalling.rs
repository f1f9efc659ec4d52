//! A recall is over when every target is back, and not before: until then the order stands for
//! whoever was away.

mod support;

use protocol::Seq;
use protocol::orders::OrderBody;
use protocol::plan::Selector::Rest;
use protocol::status::State;
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::{Command, RolloutState as S};

/// Whether a node that asks for all orders hears of the recall.
fn is_told(bench: &Bench) -> bool {
    let orders = bench.conductor.orders_after(Seq::default());
    bench.in_bulletin("r")
        && orders
            .iter()
            .any(|order| matches!(order.body, OrderBody::Recall { .. }))
}

#[test]
fn a_recall_stands_until_the_silent_and_the_stuck_are_back() {
    let mut bench = Bench::with_nodes(6);
    let plan = bench.start("r", vec![draft("all", Rest, gate(0, 6, 0))]);
    bench.report(&plan, &[0, 1, 2, 3], State::Succeeded);
    bench.report(&plan, &[4], State::AlreadyInstalled);
    bench.report(&plan, &[5], State::Installing);
    bench.wait(121);
    assert_eq!(bench.view("r").counts.failed, 1, "one is silent");
    let recall = bench.recall(&plan);
    bench.done(Command::Recall(recall));
    bench.report(&plan, &[0, 1, 2], State::RolledBack);
    bench.report(&plan, &[3], State::RollbackFailed);
    for round in 0..3 {
        assert_eq!(bench.state("r"), S::Recalling, "round {round}");
        assert!(is_told(&bench), "round {round}");
        bench.wait(300);
        bench.restart();
    }
    bench.report(&plan, &[3], State::RolledBack);
    assert_eq!(bench.state("r"), S::Recalling, "the silent one is missing");
    bench.report(&plan, &[5], State::RolledBack);
    assert_eq!(bench.state("r"), S::Recalled);
    bench.wait(61);
    assert!(!is_told(&bench), "nobody needs it any more");
}

#[test]
fn a_late_sign_of_the_release_keeps_an_ended_recall_alive() {
    let mut bench = Bench::with_nodes(3);
    let plan = bench.start("r", vec![draft("all", Rest, gate(0, 3, 0))]);
    let recall = bench.recall(&plan);
    bench.done(Command::Recall(recall));
    bench.report(&plan, &[0, 1, 2], State::RolledBack);
    assert_eq!(bench.state("r"), S::Recalled);
    bench.report(&plan, &[2], State::RollbackFailed);
    bench.wait(300);
    assert!(is_told(&bench));
    bench.report(&plan, &[2], State::RolledBack);
    bench.wait(61);
    assert!(!is_told(&bench));
}

#[test]
fn a_recall_that_nobody_needed_ends() {
    let mut bench = Bench::with_nodes(3);
    let plan = bench.start("r", vec![draft("all", Rest, gate(0, 3, 0))]);
    let recall = bench.recall(&plan);
    bench.done(Command::Recall(recall));
    bench.report(&plan, &[0, 1], State::Cancelled);
    assert_eq!(bench.state("r"), S::Recalling, "one has not answered");
    bench.report(&plan, &[2], State::Cancelled);
    assert_eq!(
        (bench.state("r"), bench.view("r").targets),
        (S::Recalled, 0)
    );
    bench.wait(61);
    assert!(!is_told(&bench));
    assert_eq!(bench.state("r"), S::Recalled);
}
