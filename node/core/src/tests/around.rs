//! Hooks, restarts of the machine and attempts, with a crash between any two actions.

use std::collections::VecDeque;

use proptest::prelude::*;
use protocol::constraints::{Constraints, UserRules};
use protocol::fixtures::CREATED;
use protocol::hours::Hours;
use protocol::manifest::{Hook, Hooks, ReleaseManifest, Restart};
use protocol::status::State;
use protocol::zones::Clock;
use protocol::{Hash, Span};

use super::{World, failure};
use crate::contract::{Boundary, Failure, FailureClass, Record, Step, StepOutcome};

/// What hooks and restarts do on the machine.
#[derive(Default)]
pub(crate) struct Around {
    /// Hooks that began, in order.
    hooks: Vec<Step>,
    /// Outcomes of the next hooks; done when there are none.
    hook_outcomes: VecDeque<StepOutcome>,
    /// How often the machine was asked to restart.
    asked: usize,
    /// How often that comes to nothing.
    refusals: usize,
    /// It goes down, and comes up with what was there before.
    loses_the_release: bool,
    boots: usize,
    going_down: bool,
    /// Steps of the switch that find another installer at work.
    pub(crate) busy: usize,
}

impl World {
    pub(crate) fn run_hook(&mut self, step: &Step, attempt: u32) -> StepOutcome {
        let held = self.disk.values().find_map(|record| match record {
            Record::Journal(journal) => Some(journal.attempt),
            _ => None,
        });
        assert_eq!(held, Some(attempt), "the attempt is journalled");
        let (new, post) = (Some(self.new.digest()), matches!(step, Step::PostHook(_)));
        assert_eq!(self.installed == new, post, "{step:?} at its place");
        assert!(!self.around.hooks.contains(step), "{step:?} ran before");
        self.around.hooks.push(step.clone());
        let outcome = self.around.hook_outcomes.pop_front();
        outcome.unwrap_or(StepOutcome::Done)
    }

    /// Whether the machine goes down; its process ends with it.
    pub(crate) fn machine_restarts(&mut self) -> bool {
        if self.around.refusals > 0 {
            return false;
        }
        self.around.asked += 1;
        self.steps.push(Step::Restart);
        self.around.going_down = true;
        self.keeper.goes_on = self.actions_left.take().map(|n| n.saturating_sub(1));
        self.actions_left = Some(1);
        true
    }

    pub(crate) fn restart_fails(&mut self) -> StepOutcome {
        self.around.asked += 1;
        self.around.refusals -= 1;
        StepOutcome::Failed(Failure {
            class: FailureClass::Restart,
            ..failure("no restart today", false)
        })
    }

    /// The machine comes up again, if it went down.
    pub(crate) fn boot(&mut self) {
        if std::mem::take(&mut self.around.going_down) {
            self.around.boots += 1;
            self.config.boot_id = Hash::of(&self.around.boots.to_le_bytes());
            if self.around.loses_the_release {
                self.installed = Some(self.old.digest());
            }
        }
    }

    fn failed_hook(&mut self, class: FailureClass) {
        let failure = failure("exit code 3", false);
        let failure = Failure { class, ..failure };
        self.around
            .hook_outcomes
            .push_back(StepOutcome::Failed(failure));
    }

    fn why(&self) -> String {
        self.brain.snapshot(self.now).standings[0].why.clone()
    }
}

fn hooked(release: &mut ReleaseManifest) {
    let hook = |name: &str| {
        Some(Hook {
            argv: vec![name.into()],
            timeout: Span::from_secs(60),
        })
    };
    release.hooks = Hooks {
        pre: hook("./pre"),
        post: hook("./post"),
    };
    release.restart = Restart::Required;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Story {
    Success,
    PreHookFails,
    PostHookFails,
    Sick,
    NoRestart,
    Lost,
    Busy,
}

const STORIES: [Story; 7] = [
    Story::Success,
    Story::PreHookFails,
    Story::PostHookFails,
    Story::Sick,
    Story::NoRestart,
    Story::Lost,
    Story::Busy,
];

/// Lets the story run with a crash after each of these numbers of actions, and checks its end. An
/// installation whose hooks were interrupted too often goes back.
fn tell(story: Story, crashes: &[usize]) -> (World, usize) {
    let mut world = World::with(hooked, |_| {});
    world.open();
    match story {
        Story::PreHookFails => (0..9).for_each(|_| world.failed_hook(FailureClass::PreHook)),
        Story::PostHookFails => {
            world.around.hook_outcomes.push_back(StepOutcome::Done);
            // However often the pre hook is interrupted, the post hook fails.
            (0..9).for_each(|_| world.failed_hook(FailureClass::PostHook));
        }
        Story::Sick => world.healthy = false,
        Story::NoRestart => world.around.refusals = usize::MAX / 2,
        Story::Lost => world.around.loses_the_release = true,
        Story::Busy => world.around.busy = 3,
        Story::Success => {}
    }
    let mut crashes = crashes.iter();
    world.actions_left = crashes.next().copied();
    for _ in 0..2 + crashes.len() {
        world.run(|w| {
            let reported = w.journal() == Some(Boundary::Reported) && w.reported().is_some();
            w.actions_left.is_none() && reported
        });
        if let Some(next) = crashes.next() {
            world.actions_left = Some(*next);
            world.run_for(Span::from_secs(30));
            world.actions_left = None;
        }
    }
    let old = Some(world.old.digest());
    let applied = world.installed == Some(world.new.digest());
    assert_eq!(world.installed_record(), world.installed, "{story:?}");
    let end = world.reported().expect("an end");
    match story {
        Story::Success | Story::Busy => {
            // Every hook that a crash cost an attempt may have been the last of its three.
            assert!(applied || crashes_cost_hooks(&world), "{story:?}");
        }
        _ => assert_eq!(world.installed, old, "{story:?}"),
    }
    let ends = match (applied, story) {
        (true, _) => vec![State::Succeeded],
        (false, Story::PreHookFails) => vec![State::Failed],
        (false, _) => vec![State::RolledBack, State::Failed],
    };
    assert!(
        ends.contains(&end),
        "{story:?}: {end:?}, {:?}",
        world.states
    );
    assert_eq!(world.commits, usize::from(applied), "{story:?}");
    if story == Story::PreHookFails {
        assert!(!world.steps.contains(&Step::Switch), "nothing changed");
        assert!(!world.steps.contains(&Step::RollBack), "nothing is undone");
    }
    if applied {
        assert_eq!(world.around.boots, 1, "{story:?}: one restart");
    }
    let done = world.actions_done;
    (world, done)
}

fn crashes_cost_hooks(world: &World) -> bool {
    world.around.hooks.len() > 2
}

#[test]
fn without_a_crash_each_story_ends_as_its_class_says() {
    let (success, _) = tell(Story::Success, &[]);
    assert_eq!(
        success.around.hooks,
        [Step::PreHook(1), Step::PostHook(1)],
        "each once"
    );
    let order = [
        Step::WriteSlot,
        Step::PreHook(1),
        Step::Switch,
        Step::PostHook(1),
        Step::Restart,
        Step::Detect,
        Step::CheckHealth,
    ];
    assert_eq!(success.steps[..order.len()], order);
    let saw = |world: &World, state| world.states.contains(&state);
    assert!(saw(&success, State::Succeeded));

    let (no, _) = tell(Story::PreHookFails, &[]);
    let attempts = [Step::PreHook(1), Step::PreHook(2), Step::PreHook(3)];
    assert_eq!(no.around.hooks, attempts);
    let status = &no.statuses[&no.plan.rollout];
    assert_eq!(status.reason, "pre_hook: exit code 3");
    assert_eq!((status.attempt, status.exit_code), (3, Some(3)));

    let (post, _) = tell(Story::PostHookFails, &[]);
    assert_eq!(post.around.asked, 0, "no restart for what failed");
    let status = &post.statuses[&post.plan.rollout];
    assert_eq!(status.reason, "post_hook: exit code 3");

    let (refused, _) = tell(Story::NoRestart, &[]);
    assert_eq!(refused.around.asked, 3);
    let status = &refused.statuses[&refused.plan.rollout];
    assert_eq!(status.reason, "restart: no restart today");

    let (lost, _) = tell(Story::Lost, &[]);
    assert!(!lost.steps.contains(&Step::CheckHealth), "the rule says no");

    let (busy, _) = tell(Story::Busy, &[]);
    let switches = busy.steps.iter().filter(|s| **s == Step::Switch).count();
    assert_eq!(switches, 4);
    let hooks = [Step::PreHook(1), Step::PostHook(4)];
    assert_eq!(busy.around.hooks, hooks, "the pre hook ran and stays so");
}

#[test]
fn a_crash_after_any_action_runs_no_hook_twice_in_an_attempt() {
    for story in STORIES {
        let actions = tell(story, &[]).1.min(150);
        for after in 0..actions {
            tell(story, &[after]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nor_do_many_crashes(
        story in prop::sample::select(&STORIES[..]),
        crashes in proptest::collection::vec(0usize..70, 1..6),
    ) {
        tell(story, &crashes);
    }
}

#[test]
fn the_line_of_a_node_says_which_class_failed_and_when_it_tries_again() {
    let mut world = World::with(hooked, |_| {});
    world.failed_hook(FailureClass::PreHook);
    world.open();
    world.run(|w| w.why().contains("attempt 2"));
    let at = Clock::utc().tells(world.now.wall + Span::from_secs(60));
    let expected = format!("attempt 2 comes in 60 s, at {at}, after pre_hook: exit code 3");
    assert_eq!(world.why(), expected);
    let began = world.now.wall;
    // Neither a crash nor another boot hurries it.
    world.crash();
    world.reboot();
    world.run(|w| w.reported() == Some(State::Succeeded));
    assert!(world.now.wall >= began + Span::from_secs(60));
    assert_eq!(world.around.hooks[1], Step::PreHook(2));
}

#[test]
fn a_restart_waits_for_its_window_and_tells_the_user() {
    let minute = Clock::utc().shows(CREATED).0 / 60_000;
    let window = Hours::new(127, minute.rem_euclid(1440) as u16, 10).unwrap();
    let constraints = Constraints {
        windows: vec![window],
        user: Some(UserRules {
            optional: false,
            notice: Span::ZERO,
            max_deferrals: 0,
            grace: Span::ZERO,
        }),
        ..Constraints::default()
    };
    let mut world = World::with(hooked, |plan| plan.constraints = constraints);
    world.held = Some(Step::PostHook(1));
    world.open();
    world.run(|w| !w.held_answers.is_empty());
    // The hook ends when the window has closed.
    let answers = std::mem::take(&mut world.held_answers);
    world.sleep(Span::from_secs(1200));
    world.held = None;
    world.answers.extend(answers);
    world.run(|w| w.reported() == Some(State::PendingRestart) || w.why().contains("must restart"));
    assert!(world.why().contains("; the next opens "), "{}", world.why());
    let asleep = world.now.wall;
    world.crash();
    world.run_for(Span::from_secs(3600));
    assert_eq!(world.around.asked, 0);
    world.run(|w| w.reported() == Some(State::Succeeded));
    assert!(world.now.wall > asleep + Span::from_secs(80_000));
    assert_eq!((world.around.asked, world.around.boots), (1, 1));
    let told = world.shown.last().expect("a notice");
    assert!(told.contains("this machine restarts now"), "{told}");
}

/// The process starts anew in the same boot: the machine has not restarted, whatever the journal hopes.
#[test]
fn a_process_that_starts_anew_is_no_restart() {
    let mut world = World::with(hooked, |_| {});
    world.held = Some(Step::Restart);
    world.around.refusals = 1;
    world.open();
    world.run(|w| w.around.asked == 1);
    world.held = None;
    world.crash();
    world.run_for(Span::from_secs(600));
    assert_eq!(world.journal(), Some(Boundary::RestartArmed));
    assert!(
        !world.steps.contains(&Step::CheckHealth),
        "{:?}",
        world.steps
    );
    world.run(|w| w.reported() == Some(State::Succeeded));
    assert_eq!((world.around.asked, world.around.boots), (2, 1));
}

/// One that waits for its next attempt has changed nothing: a newer release of its product goes first.
#[test]
fn a_pause_before_the_switch_holds_up_no_other_and_is_said_again() {
    let mut world = World::new();
    let full = || {
        let failure = failure("no space left on device", true);
        let class = FailureClass::DiskFull;
        StepOutcome::Failed(Failure { class, ..failure })
    };
    world.slot_outcomes = VecDeque::from(vec![full(), full(), full(), full(), full()]);
    world.open();
    world.run(|w| w.why().contains("attempt 5"));
    let rollout = world.plan.rollout.clone();
    let said = world.statuses[&rollout].seq;
    let slots = world.steps.len();
    world.run_for(Span::from_secs(470));
    assert_eq!(world.steps.len(), slots, "the pause is kept");
    world.run(|w| w.why().contains("attempt 6"));
    let before = world.statuses[&rollout].seq;
    assert!(before > said);
    world.run_for(Span::from_secs(800));
    assert!(
        world.statuses[&rollout].seq > before,
        "its silence would count"
    );
    assert_eq!(world.reported(), Some(State::Installing));
    world.run(|w| w.reported() == Some(State::Succeeded));
    assert_eq!(world.statuses[&rollout].attempt, 6);
}
