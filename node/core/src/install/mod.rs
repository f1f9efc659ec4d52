//! One installation, from its claim to the coordinator's receipt.
//!
//! Every boundary is journalled before the step behind it is taken, and every step is idempotent, so
//! after a crash the journal alone says how to go on: [`Install::resume`]. A state is named for what
//! it awaits.

mod agent;
mod around;
mod back;
mod forward;
mod retry;

use protocol::status::State;
use protocol::{Span, Time};

use crate::contract::{
    Action, Boundary, Failure, FailureClass, JournalMore, JournalRecord, Record, Step, StepOutcome,
    Ticket,
};
use crate::task::{Rooms, Task};

/// Who waits for long after it has begun says so again this often: its silence would count.
const SAY_AGAIN: Span = Span::from_secs(600);
/// What a node says that could install if it were not at something else.
pub(crate) const OTHER_UNDER_WAY: &str = "another installation is under way on this node";
/// Reason of an installation whose rollout ended before its switch.
const ROLLOUT_ENDED: &str = "the rollout ended before the switch";
/// Reason of an installation that a newer release of its product overtook before its switch.
const GAVE_WAY: &str = "a newer release came first";

/// An installation: its journal, and what it awaits.
pub(crate) struct Install {
    journal: JournalRecord,
    awaits: Awaits,
    /// Boot time at which it was last said that it still waits.
    said_at: Time,
}

enum Awaits {
    /// Every byte.
    Content,
    /// The new version's slot to be written.
    Slot(Ticket),
    /// The time of the next attempt, from where the journal stands.
    NextAttempt(Time),
    /// The pre hook.
    PreHook(Ticket),
    /// Leave to switch.
    Leave,
    /// The switch.
    Switch(Ticket),
    /// After a crash: whether the switch had happened.
    Detection(Ticket),
    /// The post hook.
    PostHook(Ticket),
    /// Leave to restart the machine; it is asked again then.
    RestartLeave(Time),
    /// The new agent to run, or the machine to be asked to restart.
    Restart(Ticket),
    /// Another boot of the machine, until then.
    Reboot(Time),
    /// Whether the release is there after the restart.
    AfterRestart(Ticket),
    /// A receipt for what the new agent said, until then.
    Heard(Time),
    /// The new agent to be kept.
    Kept(Ticket),
    /// A health check.
    Health(Ticket, Watch),
    /// The time of the next health check.
    NextCheck(Time, Watch),
    /// Old versions to be dropped.
    CleanUp(Ticket),
    /// The way back, and which try it is.
    WayBack(Ticket, u32),
    /// The time of the next try of the way back.
    NextWayBack(Time, u32),
    /// The coordinator's receipt for the outcome.
    Receipt,
    /// Nothing more.
    Nothing,
}

/// The watch over a release after its switch.
#[derive(Clone, Copy, Default)]
struct Watch {
    healthy_since: Option<Time>,
    failures: u32,
}

impl Install {
    /// Claims the installation; the caller has leave to start.
    pub(crate) fn begin(task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let journal = JournalRecord {
            rollout: task.rollout().clone(),
            release: task.release.digest(),
            install_id: task.install_id,
            attempt: 1,
            at: Boundary::Claimed,
            before: rooms.installed.release(&task.release.product),
            switched_at: None,
            failure: None,
            more: JournalMore::default(),
        };
        rooms.out.remember(Record::Journal(journal.clone()));
        let install = Install {
            journal,
            awaits: Awaits::Content,
            said_at: rooms.now.boot,
        };
        task.say(State::Installing, "the installation has begun", 1, rooms);
        install.advance(task, rooms)
    }

    /// Takes back what an earlier installation left, of which no journal tells any more.
    pub(crate) fn take_back(task: &Task, reason: &str, rooms: &mut Rooms<'_>) -> Install {
        let journal = JournalRecord {
            rollout: task.rollout().clone(),
            release: task.release.digest(),
            install_id: task.install_id,
            attempt: 1,
            at: Boundary::Reported,
            before: None,
            switched_at: Some(rooms.now.wall),
            failure: None,
            more: JournalMore::default(),
        };
        let install = Install {
            journal,
            awaits: Awaits::Nothing,
            said_at: rooms.now.boot,
        };
        install.go_back(recalled(reason), task, rooms)
    }

    /// Goes on where the journal stands.
    pub(crate) fn resume(journal: JournalRecord, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let at = journal.at;
        let install = Install {
            journal,
            awaits: Awaits::Nothing,
            said_at: rooms.now.boot,
        };
        match at {
            Boundary::Claimed => install.with(Awaits::Content),
            Boundary::SlotIntent => install.write_slot(task, rooms),
            Boundary::StagedVerified
            | Boundary::SlotWritten
            | Boundary::PreHooked
            | Boundary::Switched
            | Boundary::PostHooked => install.next_attempt(task, rooms),
            Boundary::PreHook => install.interrupted(Boundary::SlotWritten, task, rooms),
            Boundary::PostHook => install.interrupted(Boundary::Switched, task, rooms),
            Boundary::SwitchIntent => {
                let ticket = install.step(Step::Detect, task, rooms);
                install.with(Awaits::Detection(ticket))
            }
            Boundary::RestartArmed => install.resume_restart(task, rooms),
            Boundary::Healthy if task.is_agent(rooms) => install.take_up(task, rooms),
            Boundary::Healthy => install.watch(task, rooms),
            Boundary::Committed => install.clean_up(task, rooms),
            Boundary::RollingBack => install.way_back(1, task, rooms),
            Boundary::RolledBack => install.outcome(task, rooms),
            Boundary::Reported => install,
        }
    }

    /// Whether another installation must wait for this one. One that has no leave to switch, or pauses
    /// before it has changed anything, may stand for long and holds up nobody.
    pub(crate) fn is_busy(&self) -> bool {
        match self.awaits {
            Awaits::Leave | Awaits::Receipt | Awaits::Nothing => false,
            _ => !self.pauses(),
        }
    }

    /// Whether it has changed nothing and waits for its next attempt.
    pub(crate) fn pauses(&self) -> bool {
        matches!(self.awaits, Awaits::NextAttempt(_)) && !self.journal.at.is_switched()
    }

    /// Whether its slot is written and it has no leave to switch.
    pub(crate) fn awaits_leave(&self) -> bool {
        matches!(self.awaits, Awaits::Leave)
    }

    /// Gives way to a newer release of its product that has leave.
    pub(crate) fn give_way(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        self.go_back(failure(GAVE_WAY), task, rooms)
    }

    /// Whether the coordinator knows the outcome, or nothing more can be done about it.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.awaits, Awaits::Nothing)
    }

    /// The release to which a failure goes back.
    pub(crate) fn before(&self) -> Option<protocol::Hash> {
        self.journal.before
    }

    /// When time alone moves it on.
    pub(crate) fn wake(&self) -> Option<Time> {
        match self.awaits {
            Awaits::NextAttempt(t) | Awaits::RestartLeave(t) => {
                Some(t.min(self.said_at + SAY_AGAIN))
            }
            Awaits::NextCheck(t, _)
            | Awaits::NextWayBack(t, _)
            | Awaits::Reboot(t)
            | Awaits::Heard(t) => Some(t),
            _ => None,
        }
    }

    /// Moves on if what is awaited has come; turns round if the release was recalled.
    pub(crate) fn advance(mut self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        if self.may_turn_round()
            && let Some(why) = self.stopped(task, rooms)
        {
            return self.go_back(why, task, rooms);
        }
        let now = rooms.now.boot;
        let waits = matches!(
            self.awaits,
            Awaits::NextAttempt(_) | Awaits::RestartLeave(_)
        );
        if waits && self.said_at + SAY_AGAIN <= now {
            self.said_at = now;
            let (counters, out) = (&mut *rooms.counters, &mut *rooms.out);
            let (id, now) = (task.rollout(), rooms.now);
            rooms.reports.say_again(id, now, counters, out);
        }
        match self.awaits {
            Awaits::Content if task.staged => self.write_slot(task, rooms),
            Awaits::NextAttempt(at) if at <= now => self.due(task, rooms),
            Awaits::RestartLeave(_) => self.take_up(task, rooms),
            Awaits::Reboot(until) if until <= now => self.not_restarted(task, rooms),
            Awaits::Leave => self.switch_with_leave(task, rooms),
            Awaits::Heard(until) => self.heard(until, task, rooms),
            Awaits::NextCheck(at, watch) if at <= now => self.check(watch, task, rooms),
            Awaits::NextWayBack(at, tries) if at <= now => self.way_back(tries, task, rooms),
            Awaits::Receipt if rooms.reports.acknowledged(task.rollout()) => self
                .journalled(Boundary::Reported, rooms)
                .with(Awaits::Nothing),
            _ => self,
        }
    }

    /// Takes the answer to a step.
    pub(crate) fn step_ended(
        self,
        ticket: Ticket,
        outcome: StepOutcome,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        let awaited = match self.awaits {
            Awaits::Slot(t) | Awaits::Switch(t) | Awaits::Detection(t) | Awaits::Health(t, _) => {
                (t == ticket).then_some(true)
            }
            Awaits::Restart(t) | Awaits::Kept(t) | Awaits::PreHook(t) | Awaits::PostHook(t) => {
                (t == ticket).then_some(true)
            }
            Awaits::AfterRestart(t) => (t == ticket).then_some(true),
            Awaits::CleanUp(t) | Awaits::WayBack(t, _) => (t == ticket).then_some(false),
            _ => None,
        };
        let Some(may_turn_round) = awaited else {
            return self;
        };
        if may_turn_round
            && !matches!(self.awaits, Awaits::Switch(_))
            && let Some(why) = self.stopped(task, rooms)
        {
            return self.go_back(why, task, rooms);
        }
        match (&self.awaits, outcome) {
            (Awaits::Slot(_), StepOutcome::Done | StepOutcome::Absent) => self
                .journalled(Boundary::SlotWritten, rooms)
                .with(Awaits::Leave)
                .advance(task, rooms),
            (Awaits::Slot(_), StepOutcome::Failed(failure)) => {
                self.retry(failure, Boundary::StagedVerified, task, rooms)
            }
            (Awaits::PreHook(_), outcome) => self.pre_hooked(outcome, task, rooms),
            (Awaits::PostHook(_), outcome) => self.post_hooked(outcome, task, rooms),
            (Awaits::AfterRestart(_), outcome) => self.found_after_restart(outcome, task, rooms),
            (Awaits::Switch(_) | Awaits::Detection(_), StepOutcome::Done) => {
                self.switched(task, rooms)
            }
            (Awaits::Switch(_), StepOutcome::Absent) => {
                let failure = failure("the switch did not install the release");
                self.go_back(failure, task, rooms)
            }
            (Awaits::Detection(_), StepOutcome::Absent) => {
                self.not_switched(task, rooms).advance(task, rooms)
            }
            (Awaits::Switch(_), StepOutcome::Failed(failure))
                if failure.class == FailureClass::InstallerBusy =>
            {
                let from = before_switch(task);
                self.retry(failure, from, task, rooms)
            }
            (Awaits::Switch(_) | Awaits::Detection(_), StepOutcome::Failed(failure)) => {
                self.go_back(failure, task, rooms)
            }
            (Awaits::Restart(_), outcome) if task.is_agent(rooms) => {
                self.restarted(outcome, task, rooms)
            }
            (Awaits::Restart(_), outcome) => self.restart_asked(outcome, task, rooms),
            (Awaits::Kept(_), outcome) => self.kept(outcome, task, rooms),
            (Awaits::Health(_, watch), outcome) => {
                let watch = *watch;
                self.checked(watch, outcome, task, rooms)
            }
            (Awaits::CleanUp(_), outcome) => {
                if let StepOutcome::Failed(failure) = outcome {
                    rooms
                        .out
                        .note("clean_up", format!("{}: {}", task.name(), failure.reason));
                }
                self.outcome(task, rooms)
            }
            (Awaits::WayBack(_, tries), outcome) => {
                let tries = *tries;
                self.came_back(tries, outcome, task, rooms)
            }
            _ => self,
        }
    }

    fn with(self, awaits: Awaits) -> Install {
        Install { awaits, ..self }
    }

    fn journalled(mut self, at: Boundary, rooms: &mut Rooms<'_>) -> Install {
        self.journal.at = at;
        rooms.out.remember(Record::Journal(self.journal.clone()));
        self
    }

    fn step(&self, step: Step, task: &Task, rooms: &mut Rooms<'_>) -> Ticket {
        let ticket = rooms.out.ticket();
        let before = self
            .journal
            .before
            .and_then(|digest| rooms.library.release(&digest));
        rooms.out.push(Action::Step {
            ticket,
            install_id: self.journal.install_id,
            release: Box::new(task.release.clone()),
            before: before.cloned().map(Box::new),
            warrant: Some(Box::new(task.warrant(rooms.orders))),
            step,
        });
        ticket
    }
}

/// Where an installation stands that has its slot and has not switched.
fn before_switch(task: &Task) -> Boundary {
    match task.release.hooks.pre {
        Some(_) => Boundary::PreHooked,
        None => Boundary::SlotWritten,
    }
}

fn recalled(reason: &str) -> Failure {
    failure(&format!("recalled: {reason}"))
}

fn failure(reason: &str) -> Failure {
    of_class(FailureClass::Release, reason.to_owned())
}

/// A failure that no program's output tells of.
fn of_class(class: FailureClass, reason: String) -> Failure {
    Failure {
        reason,
        exit_code: None,
        output_tail: String::new(),
        class,
    }
}
