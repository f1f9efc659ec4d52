//! A recall takes the release back wherever the rollout stands, and takes back nothing else.

use protocol::Span;
use protocol::fixtures::{node, rollout};
use protocol::orders::OrderBody;
use protocol::status::State;

use super::World;
use crate::contract::{Boundary, Step};

/// The rollout went well, its outcome is known, and the bulletin names it no more.
fn retired() -> World {
    let mut world = World::new();
    world.open();
    world.run(|w| w.reported() == Some(State::Succeeded));
    world.renewing = false;
    world.bulletin(0, |b| b.rollouts.clear());
    world.run(|w| w.journal().is_none());
    world.run_for(Span::from_secs(30));
    world
}

/// The coordinator takes the release back, and names the rollout again so that nodes take part.
fn recall(world: &mut World) {
    world.recall();
    let last = world.orders.len() as u64;
    world.bulletin(last, |_| {});
}

#[test]
fn a_recall_after_the_retirement_takes_the_release_back() {
    for restarted in [false, true] {
        let mut world = retired();
        if restarted {
            world.crash();
            world.run_for(Span::from_secs(5));
        }
        recall(&mut world);
        world.run(|w| w.reported() == Some(State::RolledBack));
        assert_eq!(world.installed, Some(world.old.digest()));
        assert_eq!(world.installed_record(), Some(world.old.digest()));
        world.run_for(Span::from_secs(30));
        assert_eq!(world.reported(), Some(State::RolledBack));
    }
}

/// `app@2` is installed and recalled while its successor `app@3` is watched after its switch.
fn recalled_under_its_successor() -> World {
    let mut world = World::new();
    world.open();
    world.run(|w| w.reported() == Some(State::Succeeded));
    let first = world.plan.clone();
    world.renewing = false;
    let mut successor = world.fleet.release("app", "3", 3);
    successor.health_check = Some(world.fleet.health_check(Span::from_secs(3), 2));
    world.new = world.fleet.verified(&successor);
    world.plan = world
        .fleet
        .verified(&world.fleet.plan("next", &world.new, vec![node(1)]));
    world.checker.learn(&world.plan);
    world.publish();
    let lease = world.give(world.fleet.lease(&world.plan, 0)).seq.n;
    let named = [(&first, 1), (&world.plan, lease)];
    let bulletin = world.fleet.bulletin(None, &named);
    world.give(OrderBody::Bulletin(bulletin));
    world.held = Some(Step::CheckHealth);
    world.run(|w| !w.held_answers.is_empty());
    assert_eq!(world.installed, Some(world.new.digest()));
    let (body, recall) = world.fleet.recall(&first);
    let n = world.orders.len() as u64 + 1;
    let order = world.fleet.order(n, body);
    world.orders.insert(n, (order, Some(recall)));
    world.run_for(Span::from_secs(10));
    assert!(!world.steps.contains(&Step::RollBack), "the end decides");
    assert_eq!(world.installed, Some(world.new.digest()));
    world.held = None;
    world
}

#[test]
fn a_recalled_release_that_its_successor_replaces_is_left_alone() {
    let mut world = recalled_under_its_successor();
    let answers = std::mem::take(&mut world.held_answers);
    world.answers.extend(answers);
    world.run(|w| w.journal() == Some(Boundary::Reported));
    world.run_for(Span::from_secs(30));
    assert_eq!(world.reported(), Some(State::Succeeded));
    assert_eq!(world.installed, Some(world.new.digest()));
    assert_eq!(world.installed_record(), Some(world.new.digest()));
}

#[test]
fn a_recalled_release_whose_successor_is_sick_is_taken_back_after_it() {
    let mut world = recalled_under_its_successor();
    world.held_answers.clear();
    world.healthy = false;
    world.crash();
    let first = rollout("r");
    world.run(|w| w.statuses[&first].state == State::RolledBack);
    assert_eq!(world.reported(), Some(State::RolledBack));
    assert_eq!(world.installed, Some(world.old.digest()));
    assert_eq!(world.installed_record(), Some(world.old.digest()));
}

/// Whoever holds the online key can drop the rollout from the bulletin and name it again.
#[test]
fn a_recall_outlives_its_rollout_and_the_plan_cannot_be_named_again() {
    let mut world = World::new();
    world.open();
    world.run(|w| w.reported() == Some(State::Succeeded));
    world.renewing = false;
    recall(&mut world);
    world.run(|w| w.journal() == Some(Boundary::Reported) && w.installed == Some(w.old.digest()));
    world.bulletin(0, |b| b.rollouts.clear());
    world.run(|w| w.journal().is_none());
    world.orders.retain(|_, (_, recall)| recall.is_none());
    let commits = world.commits;
    for restarted in [false, true] {
        if restarted {
            world.crash();
        }
        world.open();
        world.run(|w| w.reported() == Some(State::Cancelled));
        world.run_for(Span::from_secs(30));
        assert_eq!(world.commits, commits);
        assert_eq!(world.installed, Some(world.old.digest()));
    }
}
