//! An emergency pushes aside what is less urgent, which goes on by itself.

mod support;

use protocol::Verified;
use protocol::fixtures::rollout;
use protocol::orders::OrderBody;
use protocol::plan::Selector::{Count, Rest};
use protocol::plan::{Priority, RolloutPlan};
use protocol::status::State;
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::{Command, RolloutState};

/// Starts a rollout of this priority; its first wave are two nodes.
fn begin(bench: &mut Bench, id: &str, counter: u64, priority: Priority) -> Verified<RolloutPlan> {
    let release = bench.publish(id, counter);
    let waves = [Count(2), Rest].map(|s| draft("w", s, gate(500_000, 1, 0)));
    let mut proposal = bench.proposal(id, release.digest(), waves.to_vec());
    proposal.priority = priority;
    let plan = bench.plan(proposal);
    let plan = bench.approve(&plan);
    bench.done(Command::Start(rollout(id)));
    plan
}

fn everyone(bench: &mut Bench, plan: &Verified<RolloutPlan>, state: State) {
    bench.report(plan, &(0..9).collect::<Vec<_>>(), state);
}

/// The last word about a rollout that is more than a lease.
fn last_word(bench: &Bench, id: &str) -> &'static str {
    let about = bench
        .issued
        .iter()
        .filter(|o| o.body.rollout() == Some(&rollout(id)));
    let word = about.rev().find_map(|order| match &order.body {
        OrderBody::Halt { .. } => Some("halt"),
        OrderBody::Resume { .. } => Some("resume"),
        OrderBody::Recall { .. } => Some("recall"),
        OrderBody::GoLease { .. } | OrderBody::Bulletin(_) => None,
    });
    word.unwrap_or("none")
}

fn leases(bench: &Bench, id: &str) -> usize {
    let is_one = |body: &OrderBody| matches!(body, OrderBody::GoLease { .. });
    let about = bench
        .issued
        .iter()
        .filter(|o| o.body.rollout() == Some(&rollout(id)));
    about.filter(|o| is_one(&o.body)).count()
}

#[test]
fn what_is_less_urgent_waits_until_the_emergency_is_through_and_goes_on_by_itself() {
    let mut bench = Bench::with_nodes(9);
    let low = begin(&mut bench, "low", 1, Priority::High);
    let before = leases(&bench, "low");
    assert!(before > 0);
    let fix = begin(&mut bench, "fix", 2, Priority::Emergency);
    assert_eq!(bench.state("low"), RolloutState::Preempted);
    assert_eq!(bench.view("low").why, "the emergency fix goes first");
    assert_eq!(last_word(&bench, "low"), "halt");
    bench.wait(300);
    assert_eq!(leases(&bench, "low"), before, "nobody gets leave");
    assert!(bench.in_bulletin("low"));
    bench.restart();
    assert_eq!(
        bench.state("low"),
        RolloutState::Preempted,
        "also after a restart"
    );
    everyone(&mut bench, &fix, State::Succeeded);
    bench.wait(1);
    assert_eq!(bench.state("fix"), RolloutState::Finished);
    assert_eq!(bench.state("low"), RolloutState::Running);
    assert_eq!(last_word(&bench, "low"), "resume");
    assert!(leases(&bench, "low") > before);
    everyone(&mut bench, &low, State::Succeeded);
    bench.wait(1);
    assert_eq!(bench.state("low"), RolloutState::Finished);
}

#[test]
fn an_emergency_that_stops_lets_the_others_go_on_and_goes_first_again_when_it_does() {
    let mut bench = Bench::with_nodes(9);
    begin(&mut bench, "low", 1, Priority::Low);
    let fix = begin(&mut bench, "fix", 2, Priority::Emergency);
    let first = bench.wave(&fix, 0, 9);
    bench.report(&fix, &first, State::RolledBack);
    assert_eq!(bench.state("fix"), RolloutState::Held);
    assert_eq!(bench.state("low"), RolloutState::Running);
    bench.done(Command::Resume(rollout("fix")));
    assert_eq!(bench.state("low"), RolloutState::Preempted);
    bench.done(Command::Halt(rollout("fix"), "no use".into()));
    assert_eq!(bench.state("low"), RolloutState::Running);
}

#[test]
fn an_operators_pause_outlives_the_emergency_and_a_resume_does_not_overtake_it() {
    let mut bench = Bench::with_nodes(9);
    begin(&mut bench, "low", 1, Priority::Medium);
    begin(&mut bench, "also", 2, Priority::Medium);
    begin(&mut bench, "fix", 3, Priority::Emergency);
    bench.done(Command::Pause(rollout("low"), "wait".into()));
    assert_eq!(bench.state("low"), RolloutState::Paused);
    bench.done(Command::Resume(rollout("low")));
    assert_eq!(bench.state("low"), RolloutState::Preempted);
    assert_eq!(last_word(&bench, "low"), "halt", "no moment without a halt");
    bench.done(Command::Pause(rollout("low"), "wait".into()));
    bench.done(Command::Halt(rollout("fix"), "done with it".into()));
    assert_eq!(bench.state("low"), RolloutState::Paused);
    assert_eq!(bench.state("also"), RolloutState::Running);
}

#[test]
fn what_had_begun_is_judged_while_it_waits() {
    let mut bench = Bench::with_nodes(9);
    let low = begin(&mut bench, "low", 1, Priority::Medium);
    let first = bench.wave(&low, 0, 9);
    bench.report(&low, &first, State::Installing);
    begin(&mut bench, "fix", 2, Priority::Emergency);
    bench.report(&low, &first, State::RolledBack);
    assert_eq!(bench.state("low"), RolloutState::Held);
    bench.done(Command::Halt(rollout("fix"), "done with it".into()));
    assert_eq!(
        bench.state("low"),
        RolloutState::Held,
        "an automatic halt is not lifted by that"
    );
}

#[test]
fn stragglers_of_what_is_through_wait_as_well() {
    let mut bench = Bench::with_nodes(9);
    let low = begin(&mut bench, "low", 1, Priority::Medium);
    for wave in 0..2 {
        let one = bench.wave(&low, wave, 9)[..1].to_vec();
        bench.report(&low, &one, State::Succeeded);
        bench.wait(1);
    }
    assert_eq!(bench.state("low"), RolloutState::Finished);
    begin(&mut bench, "fix", 2, Priority::Emergency);
    let before = leases(&bench, "low");
    bench.wait(600);
    assert_eq!(leases(&bench, "low"), before);
    bench.done(Command::Halt(rollout("fix"), "done with it".into()));
    bench.wait(1);
    assert!(leases(&bench, "low") > before);
}

#[test]
fn emergencies_do_not_wait_for_each_other() {
    let mut bench = Bench::with_nodes(9);
    begin(&mut bench, "one", 1, Priority::Emergency);
    begin(&mut bench, "two", 2, Priority::Emergency);
    assert_eq!(bench.state("one"), RolloutState::Running);
    assert_eq!(bench.state("two"), RolloutState::Running);
}
