//! The agent's own update, with a crash between any two actions.

use protocol::status::State;
use protocol::{Hash, Span};

use super::{World, failure};
use crate::contract::{Boundary, Step, StepOutcome};

/// Which agent runs, and what its keeper makes of it, where the product is the agent.
pub(crate) struct Keeper {
    running: Option<Hash>,
    /// What has proved itself.
    kept: Option<Hash>,
    /// Whether a new agent dies before it does anything.
    stillborn: bool,
    refused: Option<Hash>,
    /// Actions until the next crash, once the process that restarts is up again.
    pub(crate) goes_on: Option<usize>,
}

impl Keeper {
    pub(crate) fn of(release: Hash) -> Keeper {
        Keeper {
            running: Some(release),
            kept: Some(release),
            stillborn: false,
            refused: None,
            goes_on: None,
        }
    }

    /// What a step does to the agent; none if that is all the same to its keeper.
    pub(crate) fn step(
        &mut self,
        release: Hash,
        before: Option<Hash>,
        step: &Step,
    ) -> Option<StepOutcome> {
        match step {
            Step::Restart | Step::Detect if self.refused == Some(release) => {
                let failure = failure("the new agent did not come up", false);
                return Some(StepOutcome::Failed(failure));
            }
            Step::Keep => self.kept = Some(release),
            Step::RollBack => (self.kept, self.refused) = (before, None),
            _ => {}
        }
        None
    }
}

impl World {
    /// Whether the process ends, so that the version in use is started.
    pub(crate) fn restarts(&mut self, release: Hash) -> bool {
        let keeper = &mut self.keeper;
        if keeper.running == self.installed || keeper.refused == Some(release) {
            return false;
        }
        self.steps.push(Step::Restart);
        keeper.goes_on = self.actions_left.take().map(|n| n.saturating_sub(1));
        // This action is the last.
        self.actions_left = Some(1);
        true
    }

    /// What the keeper does before it starts an agent.
    pub(crate) fn keep_agent(&mut self) {
        let keeper = &mut self.keeper;
        if keeper.stillborn && keeper.kept != self.installed {
            (keeper.refused, self.installed) = (self.installed, keeper.kept);
        }
        keeper.running = self.installed;
    }
}

/// What becomes of the new agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Story {
    ComesUp,
    /// Its keeper puts the old one back.
    Stillborn,
    Sick,
    /// The coordinator never hears it.
    Mute,
}

const STORIES: [Story; 4] = [Story::ComesUp, Story::Stillborn, Story::Sick, Story::Mute];

/// Lets the story run with a crash after so many actions; how many there were.
fn tell(story: Story, crash: Option<usize>) -> usize {
    let mut world = World::new();
    world.config.agent = Some(world.new.product.clone());
    world.crash();
    world.open();
    world.keeper.stillborn = story == Story::Stillborn;
    world.healthy = story != Story::Sick;
    world.actions_left = crash;
    if story == Story::Mute {
        world.run(|w| w.keeper.running == Some(w.new.digest()));
        world.reachable = false;
        let mute = world.now.wall;
        world.run(|w| w.now.wall > mute + Span::from_secs(1_500));
        world.reachable = true;
    }
    world.run(|w| w.actions_left.is_none() && w.journal() == Some(Boundary::Reported));
    let (old, new) = (Some(world.old.digest()), Some(world.new.digest()));
    let (release, state) = match story {
        Story::ComesUp => (new, State::Succeeded),
        _ => (old, State::RolledBack),
    };
    assert_eq!(
        world.reported(),
        Some(state),
        "{story:?}: {:?}",
        world.states
    );
    assert_eq!(world.installed, release, "{story:?}: in use");
    assert_eq!(world.keeper.running, release, "{story:?}: runs");
    assert_eq!(
        world.keeper.kept, release,
        "{story:?}: what a crash leaves running"
    );
    assert_eq!(world.installed_record(), release, "{story:?}: on record");
    assert_eq!(world.commits, usize::from(story == Story::ComesUp));
    world.actions_done
}

#[test]
fn a_new_agent_is_kept_once_it_was_heard_and_else_the_old_one_is_back() {
    for story in STORIES {
        tell(story, None);
    }
}

#[test]
fn a_crash_after_any_action_changes_nothing_about_which_agent_runs() {
    for story in STORIES {
        let actions = tell(story, None).min(120);
        for after in 0..actions {
            tell(story, Some(after));
        }
    }
}

#[test]
fn nothing_else_restarts_the_agent() {
    let mut world = World::new();
    world.open();
    world.run(|w| w.journal() == Some(Boundary::Reported));
    assert!(!world.steps.contains(&Step::Restart) && !world.steps.contains(&Step::Keep));
}
