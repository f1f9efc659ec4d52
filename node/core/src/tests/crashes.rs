//! A crash between any two actions, at every boundary, ends where no crash would have ended.

use std::collections::VecDeque;

use proptest::prelude::*;
use protocol::status::State;
use protocol::{Hash, Span};

use super::{World, failure};
use crate::contract::{Boundary, Record, RecordKey, Step, StepOutcome};

/// What the story is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Story {
    Success,
    Sick,
    Recall,
    FullDisk,
}

/// Lets the story run with a crash after each of these numbers of actions, and checks its end.
fn tell(story: Story, crashes: &[usize]) -> usize {
    let mut world = World::new();
    world.open();
    match story {
        Story::Sick => world.healthy = false,
        Story::FullDisk => {
            let full = StepOutcome::Failed(failure("no space left on device", true));
            world.slot_outcomes = VecDeque::from(vec![full; 20]);
        }
        Story::Success | Story::Recall => {}
    }
    let mut crashes = crashes.iter();
    world.actions_left = crashes.next().copied();
    let mut recalled = false;
    let end = match story {
        Story::Success => State::Succeeded,
        Story::Sick | Story::Recall => State::RolledBack,
        Story::FullDisk => State::Failed,
    };
    // The coordinator recalls once it knows of the success; crashes go on after that.
    for _ in 0..2 + crashes.len() {
        world.run(|w| {
            let reported = w.journal() == Some(Boundary::Reported) && w.reported().is_some();
            let first_act = story == Story::Recall && !recalled;
            w.actions_left.is_none() && reported
                || first_act && w.reported() == Some(State::Succeeded)
        });
        if story == Story::Recall && !recalled {
            recalled = true;
            world.recall();
            world.run_for(Span::from_secs(30));
        }
        if let Some(next) = crashes.next() {
            world.actions_left = Some(*next);
            world.run_for(Span::from_secs(30));
            world.actions_left = None;
        }
    }
    let (old, new) = (Some(world.old.digest()), Some(world.new.digest()));
    let expected: Option<Hash> = if story == Story::Success { new } else { old };
    assert_eq!(world.installed, expected, "{story:?}: on the machine");
    assert_eq!(world.installed_record(), expected, "{story:?}: on record");
    assert_eq!(world.reported(), Some(end), "{story:?}: {:?}", world.states);
    assert_eq!(world.journal(), Some(Boundary::Reported), "{story:?}");
    let commits = usize::from(matches!(story, Story::Success | Story::Recall));
    assert_eq!(world.commits, commits, "{story:?}: committed once");
    if story == Story::FullDisk {
        assert!(!world.steps.contains(&Step::Switch));
    }
    world.actions_done
}

#[test]
fn without_a_crash_each_story_ends_well() {
    for story in [Story::Success, Story::Sick, Story::Recall, Story::FullDisk] {
        tell(story, &[]);
    }
}

#[test]
fn a_crash_after_any_action_changes_nothing_about_the_end() {
    for story in [Story::Success, Story::Sick, Story::Recall, Story::FullDisk] {
        let actions = tell(story, &[]).min(150);
        for after in 0..actions {
            tell(story, &[after]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nor_do_many_crashes(
        story in prop_oneof![Just(Story::Success), Just(Story::Sick), Just(Story::Recall), Just(Story::FullDisk)],
        crashes in proptest::collection::vec(0usize..60, 1..6),
    ) {
        tell(story, &crashes);
    }
}

#[test]
fn the_boundaries_come_in_order_and_the_states_too() {
    let mut world = World::new();
    world.open();
    world.run(|w| w.journal() == Some(Boundary::Reported));
    let steps = [Step::WriteSlot, Step::Switch];
    assert_eq!(world.steps[..2], steps);
    assert!(
        world.steps[2..]
            .iter()
            .filter(|s| **s == Step::CheckHealth)
            .count()
            >= 4,
        "soaked"
    );
    assert_eq!(world.steps.last(), Some(&Step::CleanUp));
    assert_eq!(world.states.first(), Some(&State::Received));
    assert_eq!(world.states.last(), Some(&State::Succeeded));
    let mut sick = World::new();
    sick.healthy = false;
    sick.open();
    sick.run(|w| w.journal() == Some(Boundary::Reported));
    assert_eq!(sick.states.last(), Some(&State::RolledBack));
    let status = &sick.statuses[&sick.plan.rollout];
    assert_eq!(
        (status.exit_code, status.output_tail.as_str()),
        (Some(3), "oh")
    );
    let checks = sick
        .steps
        .iter()
        .filter(|s| **s == Step::CheckHealth)
        .count();
    assert_eq!(checks, 3, "two failures are tried again");
}

#[test]
fn a_full_disk_is_tried_again_and_then_installs() {
    let mut world = World::new();
    let full = || StepOutcome::Failed(failure("no space left on device", true));
    world.slot_outcomes = VecDeque::from(vec![full(), full()]);
    world.open();
    world.run(|w| w.journal() == Some(Boundary::Reported));
    assert_eq!(world.reported(), Some(State::Succeeded));
    assert_eq!(world.statuses[&world.plan.rollout].attempt, 3);
}

#[test]
fn a_slot_that_cannot_be_written_is_a_failure_without_a_switch() {
    let mut world = World::new();
    world.slot_outcomes = VecDeque::from(vec![StepOutcome::Failed(failure("corrupt", false))]);
    world.open();
    world.run(|w| w.journal() == Some(Boundary::Reported));
    assert_eq!(world.reported(), Some(State::Failed));
    assert_eq!(world.steps, [Step::WriteSlot, Step::Discard]);
    assert_eq!(world.installed, Some(world.old.digest()));
}

/// A new release key made the manifest of the release before void while its successor was watched.
#[test]
fn without_a_manifest_to_go_back_to_what_is_in_use_stays() {
    let mut world = World::new();
    world.held = Some(Step::CheckHealth);
    world.open();
    world.run(|w| !w.held_answers.is_empty());
    let counters = world.disk[&RecordKey::Counters].clone();
    world.disk.remove(&RecordKey::Release(world.old.digest()));
    world.held = None;
    world.healthy = false;
    world.crash();
    world.run(|w| w.reported() == Some(State::RollbackFailed));
    world.run_for(Span::from_secs(30));
    assert_eq!(world.reported(), Some(State::RollbackFailed));
    assert!(
        world.statuses[&world.plan.rollout]
            .reason
            .contains("no way back")
    );
    assert!(!world.steps.contains(&Step::RollBack), "{:?}", world.steps);
    assert_eq!(world.installed, Some(world.new.digest()));
    let releases = |record: &Record| match record {
        Record::Counters(counters) => counters.releases.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        releases(&world.disk[&RecordKey::Counters]),
        releases(&counters)
    );
}

#[test]
fn a_recall_before_the_turn_cancels_and_in_the_middle_goes_back() {
    let mut world = World::new();
    world.renewing = false;
    world.bulletin(0, |_| {});
    world.run(|w| w.reported() == Some(State::Waiting(protocol::status::WaitingFor::Wave)));
    world.recall();
    world.run(|w| w.reported() == Some(State::Cancelled));
    world.open();
    world.run_for(Span::from_secs(60));
    assert_eq!(world.steps, []);

    let mut world = World::new();
    world.held = Some(Step::CheckHealth);
    world.open();
    world.run(|w| !w.held_answers.is_empty());
    world.recall();
    world.run_for(Span::from_secs(10));
    world.held = None;
    let answers = std::mem::take(&mut world.held_answers);
    world.answers.extend(answers);
    world.run(|w| w.journal() == Some(Boundary::Reported));
    assert_eq!(world.reported(), Some(State::RolledBack));
    assert_eq!(
        (world.installed, world.commits),
        (Some(world.old.digest()), 0)
    );
}

#[test]
fn a_rollout_that_vanishes_is_forgotten_once_its_outcome_is_known() {
    let mut world = World::new();
    world.open();
    world.run(|w| w.journal() == Some(Boundary::Reported));
    world.renewing = false;
    world.bulletin(0, |b| b.rollouts.clear());
    world.run(|w| w.journal().is_none());
    world.run_for(Span::from_secs(30));
    let kept: Vec<_> = world.disk.keys().collect();
    assert_eq!(
        kept.len(),
        5,
        "bulletin, counters, what is installed, its release and the one before: {kept:?}"
    );
    assert_eq!(world.installed_record(), Some(world.new.digest()));
    world.crash();
    world.run_for(Span::from_secs(30));
    assert_eq!(world.disk.len(), 5);
}

#[test]
fn what_the_swarm_finds_on_disk_is_staged_and_let_go_after_a_recall() {
    let mut world = World::new();
    world.blobs_here = true;
    world.open();
    world.run(|w| w.reported() == Some(State::Succeeded));
    world.crash();
    world.recall();
    world.run(|w| w.reported() == Some(State::RolledBack));
    world.run_for(Span::from_secs(30));
    assert!(!world.dropped.is_empty(), "a recalled release is not kept");
}
