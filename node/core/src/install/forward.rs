//! The way forward: slot, switch, health, commit.

use protocol::status::{State, WaitingFor};
use protocol::{Span, Time};

use super::{Awaits, Install, OTHER_UNDER_WAY, Watch, before_switch, failure};
use crate::contract::{Boundary, Failure, FailureClass, Step, StepOutcome};
use crate::task::{Rooms, Task};

/// Pause between two health checks.
const CHECK_EVERY: Span = Span::from_secs(1);

impl Install {
    pub(super) fn write_slot(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let install = match self.journal.at {
            Boundary::Claimed => self.journalled(Boundary::StagedVerified, rooms),
            _ => self,
        };
        let install = install.journalled(Boundary::SlotIntent, rooms);
        let ticket = install.step(Step::WriteSlot, task, rooms);
        install.with(Awaits::Slot(ticket))
    }

    /// The last look before the switch: no lease, no switch.
    pub(super) fn switch_with_leave(mut self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let attempt = self.journal.attempt;
        task.give_notice(rooms);
        if let Err(wait) = task.permission(rooms) {
            task.say(wait.on, &wait.why, attempt, rooms);
            return self.with(Awaits::Leave);
        }
        if rooms.busy {
            task.say(
                State::Waiting(WaitingFor::Lock),
                OTHER_UNDER_WAY,
                attempt,
                rooms,
            );
            return self.with(Awaits::Leave);
        }
        if self.lacks_pre_hook(task) {
            return self.pre_hook(task, rooms);
        }
        task.say(State::Installing, "the switch is due", attempt, rooms);
        self.journal.switched_at = Some(rooms.now.wall);
        // The slot may have stood for long: another release may have been taken back meanwhile.
        self.journal.before = rooms.installed.release(&task.release.product);
        let install = self.journalled(Boundary::SwitchIntent, rooms);
        let ticket = install.step(Step::Switch, task, rooms);
        install.with(Awaits::Switch(ticket))
    }

    pub(super) fn not_switched(mut self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        self.journal.switched_at = None;
        self.journalled(before_switch(task), rooms)
            .with(Awaits::Leave)
    }

    pub(super) fn switched(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let install = self.journalled(Boundary::Switched, rooms);
        if let Some(why) = install.stopped(task, rooms) {
            return install.go_back(why, task, rooms);
        }
        install.after_switch(task, rooms)
    }

    pub(super) fn watch(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        match &task.release.health_check {
            None => self.prove(task, rooms),
            Some(_) => {
                let why = "switched; its health is watched";
                task.say(State::Verifying, why, self.journal.attempt, rooms);
                self.check(Watch::default(), task, rooms)
            }
        }
    }

    pub(super) fn check(self, watch: Watch, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let ticket = self.step(Step::CheckHealth, task, rooms);
        self.with(Awaits::Health(ticket, watch))
    }

    pub(super) fn checked(
        self,
        mut watch: Watch,
        outcome: StepOutcome,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        let now = rooms.now.boot;
        let health = task.release.health_check.as_ref();
        let (soak, attempts) = health.map_or((Span::ZERO, 0), |h| (h.soak, h.attempts));
        let next = Time(now.0 + CHECK_EVERY.0);
        let failure = match outcome {
            StepOutcome::Done => {
                let since = *watch.healthy_since.get_or_insert(now);
                let end = Time(since.0.saturating_add(soak.0));
                if now >= end {
                    return self.prove(task, rooms);
                }
                return self.with(Awaits::NextCheck(next.min(end), watch));
            }
            StepOutcome::Absent => Failure {
                class: FailureClass::Health,
                ..failure("the health check could not be run")
            },
            StepOutcome::Failed(failure) => failure,
        };
        watch.healthy_since = None;
        watch.failures += 1;
        if watch.failures > attempts {
            return self.go_back(failure, task, rooms);
        }
        self.with(Awaits::NextCheck(next, watch))
    }

    pub(super) fn commit(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let install = self.journalled(Boundary::Healthy, rooms);
        let release = &task.release;
        let before = install.journal.before;
        rooms
            .installed
            .commit(&release.product, release.digest(), before, rooms.out);
        rooms
            .counters
            .set_release(&release.product, release.release_counter);
        rooms.counters.flush(rooms.out);
        install
            .journalled(Boundary::Committed, rooms)
            .clean_up(task, rooms)
    }

    pub(super) fn clean_up(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let ticket = self.step(Step::CleanUp, task, rooms);
        self.with(Awaits::CleanUp(ticket))
    }
}
