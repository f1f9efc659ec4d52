//! The way back: why an installation turns round, and how it ends when it did.

use protocol::status::State;

use super::retry::pause_of_the_way_back;
use super::{Awaits, GAVE_WAY, Install, ROLLOUT_ENDED, failure, recalled};
use crate::contract::{Boundary, Failure, Step, StepOutcome};
use crate::relations::{Never, never};
use crate::task::{Rooms, Task};

impl Install {
    /// Whether the installation stands still, or is over and may be taken back.
    pub(super) fn may_turn_round(&self) -> bool {
        match self.awaits {
            Awaits::Content
            | Awaits::NextAttempt(_)
            | Awaits::Leave
            | Awaits::RestartLeave(_)
            | Awaits::Reboot(_)
            | Awaits::Heard(_)
            | Awaits::NextCheck(..) => true,
            Awaits::Receipt | Awaits::Nothing => self.journal.failure.is_none(),
            _ => false,
        }
    }

    /// Why the installation must turn round, if it must.
    pub(super) fn stopped(&self, task: &Task, rooms: &Rooms<'_>) -> Option<Failure> {
        let release = task.release.digest();
        let committed = matches!(self.awaits, Awaits::Receipt | Awaits::Nothing);
        if let Some(recall) = rooms.orders.recalled(&task.plan) {
            let replaced = rooms.installed.release(&task.release.product) != Some(release);
            // While a successor is being installed, its end decides whether this one is replaced.
            return (!committed || !replaced && !rooms.rival).then(|| recalled(&recall.reason));
        }
        if self.journal.switched_at.is_some() {
            return None;
        }
        if !task.alive(rooms.orders) {
            return Some(failure(ROLLOUT_ENDED));
        }
        never(task, rooms).map(|never| match never {
            Never::Refused(why) => failure(&why),
            Never::Superseded(_) => failure(GAVE_WAY),
        })
    }

    pub(super) fn go_back(
        mut self,
        failure: Failure,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        if matches!(self.awaits, Awaits::Receipt | Awaits::Nothing) {
            let record = rooms.installed.record(&task.release.product);
            self.journal.before = record.and_then(|r| r.previous);
        }
        self.journal.failure = Some(failure.clone());
        let install = self.journalled(Boundary::RollingBack, rooms);
        let attempt = install.journal.attempt;
        let recalled = rooms.orders.recalled(&task.plan).is_some();
        if !recalled && failure.reason != ROLLOUT_ENDED && failure.reason != GAVE_WAY {
            task.say_with(
                State::Failed,
                &failure.line(),
                attempt,
                Some(&failure),
                rooms,
            );
        }
        install.way_back(1, task, rooms)
    }

    pub(super) fn way_back(self, tries: u32, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        if let Some(lost) = self.lost_way_back(rooms) {
            return self.stay(&lost, task, rooms);
        }
        if let Some(failure) = self
            .journal
            .failure
            .clone()
            .filter(|_| self.shows_way_back(task, rooms))
        {
            let attempt = self.journal.attempt;
            task.say_with(
                State::RollingBack,
                &failure.line(),
                attempt,
                Some(&failure),
                rooms,
            );
        }
        let step = match self.journal.switched_at {
            Some(_) => Step::RollBack,
            None => Step::Discard,
        };
        let ticket = self.step(step, task, rooms);
        self.with(Awaits::WayBack(ticket, tries))
    }

    /// Without its manifest, which a new release key may have made void, nothing says how to bring
    /// the release before back; to drop the one in use for nothing would leave no software at all.
    pub(super) fn lost_way_back(&self, rooms: &Rooms<'_>) -> Option<Failure> {
        let before = self.journal.before?;
        let lost = self.journal.switched_at.is_some() && rooms.library.release(&before).is_none();
        lost.then(|| {
            failure(&format!(
                "no way back: the manifest of the release before ({before}) is not trusted any more; \
                 roll out a newer release"
            ))
        })
    }

    /// The way back failed for good: what is in use stays.
    pub(super) fn stay(self, failure: &Failure, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let attempt = self.journal.attempt;
        let (state, why) = (State::RollbackFailed, failure.line());
        task.say_with(state, &why, attempt, Some(failure), rooms);
        self.with(Awaits::Nothing)
    }

    /// Before the switch there is only a slot to drop, and the failure says it all.
    pub(super) fn shows_way_back(&self, task: &Task, rooms: &Rooms<'_>) -> bool {
        self.journal.switched_at.is_some() || rooms.orders.recalled(&task.plan).is_some()
    }

    pub(super) fn came_back(
        self,
        tries: u32,
        outcome: StepOutcome,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        if let StepOutcome::Failed(failure) = outcome {
            if let Some(pause) = pause_of_the_way_back(failure.class, tries) {
                let again = rooms.now.boot + pause;
                return self.with(Awaits::NextWayBack(again, tries + 1));
            }
            return self.stay(&failure, task, rooms);
        }
        let (product, release) = (&task.release.product, task.release.digest());
        let before = self.journal.before;
        if rooms
            .installed
            .take_back(product, release, before, rooms.out)
        {
            let manifest = before.and_then(|digest| rooms.library.release(&digest));
            let counter = manifest.map_or(0, |m| m.release_counter);
            rooms.counters.set_release(product, counter);
            rooms.counters.flush(rooms.out);
        }
        self.journalled(Boundary::RolledBack, rooms)
            .outcome(task, rooms)
    }

    /// Reports how it ended and awaits the receipt.
    pub(super) fn outcome(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let attempt = self.journal.attempt;
        match &self.journal.failure {
            None => task.say(State::Succeeded, "installed", attempt, rooms),
            Some(failure) => {
                let state = if self.shows_way_back(task, rooms) {
                    State::RolledBack
                } else if failure.reason == ROLLOUT_ENDED {
                    State::Cancelled
                } else if failure.reason == GAVE_WAY {
                    State::Superseded
                } else {
                    State::Failed
                };
                task.say_with(state, &failure.line(), attempt, Some(failure), rooms);
            }
        }
        // An agent that was taken back may be the one that runs.
        if self.journal.failure.is_some() && task.is_agent(rooms) {
            self.step(Step::Restart, task, rooms);
        }
        self.with(Awaits::Receipt)
    }
}
