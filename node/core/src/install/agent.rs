//! The agent's own release: the new version takes up the journal that the old one left, and is kept once
//! it was heard.

use protocol::Span;
use protocol::status::State;

use super::{Awaits, Install, failure};
use crate::contract::{Boundary, Step, StepOutcome};
use crate::task::{Rooms, Task};

/// So long a new agent has until the coordinator has a receipt for what it reports.
const HEARD_WITHIN: Span = Span::from_secs(600);

impl Install {
    /// What was switched to is in use: a product is watched, an agent must run first.
    pub(super) fn take_up(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        if !task.is_agent(rooms) {
            return self.restart_machine(task, rooms);
        }
        let install = self.journalled(Boundary::RestartArmed, rooms);
        let attempt = install.journal.attempt;
        task.say(
            State::Restarting,
            "the new agent is started",
            attempt,
            rooms,
        );
        let ticket = install.step(Step::Restart, task, rooms);
        install.with(Awaits::Restart(ticket))
    }

    /// This process is the new agent, or the one before was put back.
    pub(super) fn restarted(
        self,
        outcome: StepOutcome,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        match outcome {
            StepOutcome::Failed(failure) => self.go_back(failure, task, rooms),
            StepOutcome::Absent => self.go_back(failure("the new agent does not run"), task, rooms),
            StepOutcome::Done => {
                let why = "the new agent runs and waits for a receipt";
                task.say(State::Verifying, why, self.journal.attempt, rooms);
                // What the old one said before it ended proves nothing about the new one.
                let (now, counters, out) = (rooms.now, &mut *rooms.counters, &mut *rooms.out);
                rooms.reports.say_again(task.rollout(), now, counters, out);
                let until = rooms.now.boot + HEARD_WITHIN;
                self.with(Awaits::Heard(until))
            }
        }
    }

    /// A new agent that nobody hears would be out of reach for good.
    pub(super) fn heard(
        self,
        until: protocol::Time,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        if rooms.reports.acknowledged(task.rollout()) {
            return self.watch(task, rooms);
        }
        if until > rooms.now.boot {
            return self;
        }
        let why = "the new agent could not report within ten minutes";
        self.go_back(failure(why), task, rooms)
    }

    /// What runs and is healthy is committed; an agent is kept first, or its keeper might put back what
    /// the records call installed.
    pub(super) fn prove(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        if !task.is_agent(rooms) {
            return self.commit(task, rooms);
        }
        let ticket = self.step(Step::Keep, task, rooms);
        self.with(Awaits::Kept(ticket))
    }

    /// Nothing puts the one before back by itself any more.
    pub(super) fn kept(self, outcome: StepOutcome, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        match outcome {
            StepOutcome::Failed(failure) => self.go_back(failure, task, rooms),
            StepOutcome::Done | StepOutcome::Absent => self.commit(task, rooms),
        }
    }
}
