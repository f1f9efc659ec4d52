//! What runs around the change: hooks, and the restart of the machine.
//!
//! A hook runs at most once in an attempt: its boundary is journalled before it, and the next one after it.
//! Who comes up between the two does not know what became of the hook, so that attempt is over (class
//! `interrupted`), and the hook runs again under the number of the next. A machine has restarted when its
//! boot has another name than the one in which the restart was asked for; a process that merely started
//! anew goes on waiting for it. After the restart the detect rule says what is true.

use protocol::manifest::Restart;
use protocol::status::State;
use protocol::{Span, Time};

use super::{Awaits, Install, Watch, of_class};
use crate::contract::{Action, Boundary, Failure, FailureClass, Step, StepOutcome, Ticket};
use crate::precedence::Wait;
use crate::task::{Rooms, Task};

/// So long a machine has to go down and come up again.
const RESTARTED_WITHIN: Span = Span::from_secs(900);
/// A restart that waits for times or a slot is looked at again this often.
const LOOK_AGAIN: Span = Span::from_secs(60);

impl Install {
    /// Whether the pre hook is still to run before the switch.
    pub(super) fn lacks_pre_hook(&self, task: &Task) -> bool {
        self.journal.at == Boundary::SlotWritten && task.release.hooks.pre.is_some()
    }

    /// Nothing has changed yet but for the slot.
    pub(super) fn pre_hook(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let step = Step::PreHook(self.journal.attempt);
        let (install, ticket) = self.hook(Boundary::PreHook, step, task, rooms);
        install.with(Awaits::PreHook(ticket))
    }

    /// The boundary is journalled before the hook.
    fn hook(
        self,
        at: Boundary,
        step: Step,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> (Install, Ticket) {
        let install = self.journalled(at, rooms);
        let why = match at {
            Boundary::PreHook => "the pre hook runs",
            _ => "the post hook runs",
        };
        task.say(State::Installing, why, install.journal.attempt, rooms);
        let ticket = install.step(step, task, rooms);
        (install, ticket)
    }

    pub(super) fn pre_hooked(
        self,
        outcome: StepOutcome,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        match outcome {
            // Whether it may switch is asked once more: the hook may have taken long.
            StepOutcome::Done => self
                .journalled(Boundary::PreHooked, rooms)
                .with(Awaits::Leave)
                .advance(task, rooms),
            other => {
                let failure = failed(other, FailureClass::PreHook, "the pre hook could not run");
                self.retry(failure, Boundary::SlotWritten, task, rooms)
            }
        }
    }

    /// A crash came while a hook ran.
    pub(super) fn interrupted(self, from: Boundary, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let what = match from {
            Boundary::SlotWritten => "the pre hook",
            _ => "the post hook",
        };
        let reason = format!("{what} was interrupted when the agent ended");
        let failure = of_class(FailureClass::Interrupted, reason);
        self.retry(failure, from, task, rooms)
    }

    /// What was switched to is in place; its post hook comes first.
    pub(super) fn after_switch(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        if task.release.hooks.post.is_none() {
            return self.take_up(task, rooms);
        }
        let step = Step::PostHook(self.journal.attempt);
        let (install, ticket) = self.hook(Boundary::PostHook, step, task, rooms);
        install.with(Awaits::PostHook(ticket))
    }

    pub(super) fn post_hooked(
        self,
        outcome: StepOutcome,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        match outcome {
            StepOutcome::Done => self
                .journalled(Boundary::PostHooked, rooms)
                .take_up(task, rooms),
            StepOutcome::Failed(failure) if failure.class == FailureClass::Interrupted => {
                self.retry(failure, Boundary::Switched, task, rooms)
            }
            other => {
                let failure = failed(other, FailureClass::PostHook, "the post hook could not run");
                self.go_back(failure, task, rooms)
            }
        }
    }

    /// A release that needs a restart gets it when times and slots let it; others are watched at once.
    pub(super) fn restart_machine(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        if task.release.restart == Restart::None {
            return self.watch(task, rooms);
        }
        let attempt = self.journal.attempt;
        if let Err(Wait { why, until, .. }) = task.may_restart(rooms) {
            let why = format!("the machine must restart: {why}");
            task.say(State::PendingRestart, &why, attempt, rooms);
            let again = rooms.now.boot + LOOK_AGAIN;
            let wake = until.map_or(again, |until| until.min(again));
            return self.with(Awaits::RestartLeave(wake.max(Time(rooms.now.boot.0 + 1))));
        }
        let mut install = self;
        install.journal.more.armed = Some(rooms.config.boot_id);
        let install = install.journalled(Boundary::RestartArmed, rooms);
        task.say(State::Restarting, "the machine restarts", attempt, rooms);
        if task.plan.constraints.user.is_some() {
            let line = format!("{} is in place; this machine restarts now", task.name());
            let rollout = task.rollout().clone();
            rooms.out.push(Action::GiveNotice { rollout, line });
        }
        let ticket = install.step(Step::Restart, task, rooms);
        install.with(Awaits::Restart(ticket))
    }

    /// The restart was asked for, or could not be.
    pub(super) fn restart_asked(
        self,
        outcome: StepOutcome,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        match outcome {
            StepOutcome::Done => self.awaits_boot(rooms),
            other => {
                let failure = failed(
                    other,
                    FailureClass::Restart,
                    "the restart could not be asked for",
                );
                self.retry(failure, Boundary::PostHooked, task, rooms)
            }
        }
    }

    fn awaits_boot(self, rooms: &Rooms<'_>) -> Install {
        self.with(Awaits::Reboot(rooms.now.boot + RESTARTED_WITHIN))
    }

    /// The machine did not go down in its time.
    pub(super) fn not_restarted(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let minutes = RESTARTED_WITHIN.0 / 60_000;
        let reason = format!("the machine did not restart within {minutes} minutes");
        let failure = of_class(FailureClass::Restart, reason);
        self.retry(failure, Boundary::PostHooked, task, rooms)
    }

    /// This process came up where a restart was asked for.
    pub(super) fn resume_restart(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        match self.journal.more.armed {
            // Nobody asked for the machine: an agent's own restart, or a journal of an older program.
            None => self.take_up(task, rooms),
            Some(boot) if boot == rooms.config.boot_id => self.awaits_boot(rooms),
            Some(_) => {
                let why = "the machine has restarted; what is installed is looked at";
                task.say(State::Restarting, why, self.journal.attempt, rooms);
                let ticket = self.step(Step::Detect, task, rooms);
                self.with(Awaits::AfterRestart(ticket))
            }
        }
    }

    /// What the detect rule says after the restart is true.
    pub(super) fn found_after_restart(
        self,
        outcome: StepOutcome,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        match outcome {
            StepOutcome::Done => match &task.release.health_check {
                None => self.prove(task, rooms),
                Some(_) => {
                    let why = "the machine has restarted; its health is watched";
                    task.say(State::Verifying, why, self.journal.attempt, rooms);
                    self.check(Watch::default(), task, rooms)
                }
            },
            other => {
                let what = "the release is not there after the restart";
                let failure = failed(other, FailureClass::Installer, what);
                self.go_back(failure, task, rooms)
            }
        }
    }
}

/// The failure behind an outcome that is not `Done`.
fn failed(outcome: StepOutcome, class: FailureClass, absent: &str) -> Failure {
    match outcome {
        StepOutcome::Failed(failure) => failure,
        StepOutcome::Done | StepOutcome::Absent => of_class(class, absent.to_owned()),
    }
}
