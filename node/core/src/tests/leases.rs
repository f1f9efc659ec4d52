//! No switch without a live lease, an open wave, and nobody who said halt.

use protocol::fixtures::{CREATED, EXPIRES, node};
use protocol::orders::OrderBody;
use protocol::status::{State, WaitingFor};
use protocol::{Span, Time};

use super::World;
use crate::contract::{Boundary, Step};

/// The slot is written, but its answer is held; nothing else is renewed.
fn at_the_switch() -> World {
    let mut world = World::new();
    world.held = Some(Step::WriteSlot);
    world.open();
    world.run(|w| !w.held_answers.is_empty());
    world.held = None;
    world
}

fn let_go(world: &mut World) {
    let answers = std::mem::take(&mut world.held_answers);
    world.answers.extend(answers);
    assert!(world.work());
}

fn waits_for(world: &mut World, on: WaitingFor) {
    assert!(!world.steps.contains(&Step::Switch), "{:?}", world.steps);
    assert_eq!(world.journal(), Some(Boundary::SlotWritten));
    let standing = &world.brain.snapshot(world.now).standings[0];
    assert_eq!(standing.state, State::Waiting(on), "{}", standing.why);
    assert!(!standing.why.is_empty());
}

#[test]
fn a_lease_that_ended_before_the_switch_stops_it_and_a_newer_one_lets_it_go_on() {
    let mut world = at_the_switch();
    world.reachable = false;
    world.sleep(Span::from_secs(60));
    let_go(&mut world);
    waits_for(&mut world, WaitingFor::Lease);
    let replayed = world.order(1, world.fleet.lease(&world.plan, 0));
    world.tell(replayed);
    assert!(world.work());
    waits_for(&mut world, WaitingFor::Lease);
    world.reachable = true;
    world.renew();
    world.run(|w| w.reported() == Some(State::Succeeded));
}

#[test]
fn a_lease_does_not_outlive_its_boot() {
    let mut world = at_the_switch();
    world.reachable = false;
    world.reboot();
    world.sleep(Span::from_secs(5));
    world.brain.handle_timeout(world.now);
    assert!(world.work());
    let_go(&mut world);
    waits_for(&mut world, WaitingFor::Lease);
    world.reachable = true;
    world.renew();
    world.run(|w| w.reported() == Some(State::Succeeded));
}

#[test]
fn a_crash_of_the_process_leaves_the_lease_alive() {
    let mut world = at_the_switch();
    world.reachable = false;
    world.crash();
    world.run(|w| w.commits == 1);
}

#[test]
fn the_last_day_of_a_plan_or_a_bulletin_stops_the_switch() {
    let mut world = at_the_switch();
    world.reachable = false;
    world.now.wall = EXPIRES;
    let_go(&mut world);
    waits_for(&mut world, WaitingFor::Expired);
}

#[test]
fn a_halt_between_slot_and_switch_holds_until_the_resume() {
    let mut world = at_the_switch();
    let rollout = world.plan.rollout.clone();
    world.give(OrderBody::Halt {
        rollout: rollout.clone(),
        reason: "smoke".into(),
    });
    world.run_for(Span::from_secs(5));
    let_go(&mut world);
    waits_for(&mut world, WaitingFor::Halt);
    world.run_for(Span::from_secs(100));
    waits_for(&mut world, WaitingFor::Halt);
    world.give(OrderBody::Resume { rollout });
    world.run(|w| w.reported() == Some(State::Succeeded));
}

#[test]
fn the_floor_of_a_wave_holds_against_any_order() {
    let floor = Time(CREATED.0 + 300_000);
    let later = move |plan: &mut protocol::plan::RolloutPlan| {
        plan.waves.iter_mut().for_each(|w| w.not_before = floor);
    };
    let mut world = World::with(|_| {}, later);
    world.open();
    world.run(|w| w.reported() == Some(State::Waiting(WaitingFor::Wave)));
    world.run(|w| w.reported() == Some(State::Succeeded));
    assert!(world.now.wall >= floor);
}

#[test]
fn an_order_that_the_bulletin_names_must_have_come() {
    let mut world = World::new();
    world.give(world.fleet.lease(&world.plan, 0));
    world.bulletin(7, |_| {});
    world.run(|w| w.reported() == Some(State::Waiting(WaitingFor::Lease)));
    assert_eq!(world.steps, []);
}

#[test]
fn an_expired_bulletin_starts_nothing_and_removes_nothing() {
    let mut world = World::new();
    let lease = world.give(world.fleet.lease(&world.plan, 0));
    world.bulletin(lease.seq.n, |b| b.expires = CREATED);
    world.run(|w| w.reported() == Some(State::Waiting(WaitingFor::Expired)));
    assert_eq!(world.installed, Some(world.old.digest()));
}

#[test]
fn an_older_release_is_refused_and_one_that_is_there_is_not_installed_again() {
    let mut world = World::with(|release| release.release_counter = 0, |_| {});
    world.open();
    world.run(|w| w.reported() == Some(State::Superseded));
    assert_eq!(world.notes, ["software_rollback"]);
    let mut world = World::with(|release| release.artifacts[0].os = "plan9".into(), |_| {});
    world.open();
    world.run(|w| w.reported() == Some(State::NotApplicable));
    assert_eq!(world.steps, []);
}

#[test]
fn a_recall_without_approval_moves_nobody() {
    let mut world = World::new();
    world.open();
    world.run(|w| w.journal() == Some(Boundary::Reported));
    let (body, _) = world.fleet.recall(&world.plan);
    let forged = world.order(50, body);
    world.tell(forged);
    world.run_for(Span::from_secs(10));
    assert_eq!(world.reported(), Some(State::Succeeded));
    assert_eq!(world.notes, ["threshold"]);
}

#[test]
fn a_clock_set_back_or_a_suspended_machine_renews_nothing() {
    let mut world = at_the_switch();
    world.reachable = false;
    // Suspended: the boot clock went on.
    world.now.boot.0 += 3_600_000;
    world.now.wall = CREATED;
    let_go(&mut world);
    waits_for(&mut world, WaitingFor::Lease);
}

#[test]
fn a_halted_installation_gives_way_to_the_release_that_mends_it() {
    let mut world = at_the_switch();
    let halted = world.plan.rollout.clone();
    let reason = "smoke".to_owned();
    let rollout = halted.clone();
    let halt = world.give(OrderBody::Halt { rollout, reason });
    world.run_for(Span::from_secs(5));
    let_go(&mut world);
    waits_for(&mut world, WaitingFor::Halt);
    world.renewing = false;
    let (bad, bad_plan) = (world.new.digest(), world.plan.clone());
    world.new = world.fleet.verified(&world.fleet.release("app", "3", 3));
    world.plan = world
        .fleet
        .verified(&world.fleet.plan("fix", &world.new, vec![node(1)]));
    world.checker.learn(&world.plan);
    world.publish();
    let lease = world.give(world.fleet.lease(&world.plan, 0));
    let named = [(&bad_plan, halt.seq.n), (&world.plan, lease.seq.n)];
    let bulletin = OrderBody::Bulletin(world.fleet.bulletin(None, &named));
    world.give(bulletin);
    world.run(|w| w.reported() == Some(State::Succeeded));
    assert_eq!(world.statuses[&halted].state, State::Superseded);
    assert_eq!(world.installed, Some(world.new.digest()));
    assert_ne!(world.installed, Some(bad));
    assert_eq!(world.commits, 1);
}
