//! One installation, from its claim to the coordinator's receipt.
//!
//! Every boundary is journalled before the step behind it is taken, and every step is idempotent, so
//! after a crash the journal alone says how to go on: [`Install::resume`]. A state is named for what
//! it awaits.

use protocol::limits::INSTALL_ATTEMPTS_MAX;
use protocol::status::{State, WaitingFor};
use protocol::{Span, Time};

use crate::contract::{
    Action, Boundary, Failure, JournalRecord, Record, Step, StepOutcome, Ticket,
};
use crate::task::{Rooms, Task};

/// Pause before a step that failed for want of space or the like is tried again; it doubles.
const RETRY_MIN: Span = Span::from_secs(5);
/// Pause between two health checks.
const CHECK_EVERY: Span = Span::from_secs(1);
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
}

enum Awaits {
    /// Every byte.
    Content,
    /// The new version's slot to be written.
    Slot(Ticket),
    /// The time of the next attempt to write it.
    NextAttempt(Time),
    /// Leave to switch.
    Leave,
    /// The switch.
    Switch(Ticket),
    /// After a crash: whether the switch had happened.
    Detection(Ticket),
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
        };
        rooms.out.remember(Record::Journal(journal.clone()));
        let install = Install {
            journal,
            awaits: Awaits::Content,
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
        };
        let install = Install {
            journal,
            awaits: Awaits::Nothing,
        };
        install.go_back(recalled(reason), task, rooms)
    }

    /// Goes on where the journal stands.
    pub(crate) fn resume(journal: JournalRecord, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let at = journal.at;
        let install = Install {
            journal,
            awaits: Awaits::Nothing,
        };
        match at {
            Boundary::Claimed => install.with(Awaits::Content),
            Boundary::StagedVerified | Boundary::PreHook => install.write_slot(task, rooms),
            Boundary::SlotWritten => install.with(Awaits::Leave),
            Boundary::SwitchIntent => {
                let ticket = install.step(Step::Detect, task, rooms);
                install.with(Awaits::Detection(ticket))
            }
            Boundary::Switched | Boundary::RestartArmed | Boundary::Healthy => {
                install.watch(task, rooms)
            }
            Boundary::Committed => install.clean_up(task, rooms),
            Boundary::RollingBack => install.way_back(1, task, rooms),
            Boundary::RolledBack => install.outcome(task, rooms),
            Boundary::Reported => install,
        }
    }

    /// Whether another installation must wait for this one. One that has no leave to switch may
    /// stand for long, halted for instance, and holds up nobody.
    pub(crate) fn is_busy(&self) -> bool {
        !matches!(
            self.awaits,
            Awaits::Leave | Awaits::Receipt | Awaits::Nothing
        )
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
            Awaits::NextAttempt(t) | Awaits::NextCheck(t, _) | Awaits::NextWayBack(t, _) => Some(t),
            _ => None,
        }
    }

    /// Moves on if what is awaited has come; turns round if the release was recalled.
    pub(crate) fn advance(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        if self.may_turn_round()
            && let Some(why) = self.stopped(task, rooms)
        {
            return self.go_back(why, task, rooms);
        }
        let now = rooms.now.boot;
        match self.awaits {
            Awaits::Content if task.staged => self.write_slot(task, rooms),
            Awaits::NextAttempt(at) if at <= now => self.write_slot(task, rooms),
            Awaits::Leave => self.switch_with_leave(task, rooms),
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
                self.slot_failed(failure, task, rooms)
            }
            (Awaits::Switch(_) | Awaits::Detection(_), StepOutcome::Done) => {
                self.switched(task, rooms)
            }
            (Awaits::Switch(_), StepOutcome::Absent) => {
                let failure = failure("the switch did not install the release");
                self.go_back(failure, task, rooms)
            }
            (Awaits::Detection(_), StepOutcome::Absent) => {
                self.not_switched(rooms).advance(task, rooms)
            }
            (Awaits::Switch(_) | Awaits::Detection(_), StepOutcome::Failed(failure)) => {
                self.go_back(failure, task, rooms)
            }
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
            step,
        });
        ticket
    }

    // ---- forward -----------------------------------------------------------------------------

    fn write_slot(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let install = match self.journal.at {
            Boundary::Claimed => self.journalled(Boundary::StagedVerified, rooms),
            _ => self,
        };
        let install = install.journalled(Boundary::PreHook, rooms);
        let ticket = install.step(Step::WriteSlot, task, rooms);
        install.with(Awaits::Slot(ticket))
    }

    fn slot_failed(mut self, failure: Failure, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        if !failure.retryable || self.journal.attempt >= INSTALL_ATTEMPTS_MAX {
            return self.go_back(failure, task, rooms);
        }
        let pause = RETRY_MIN.0 << self.journal.attempt.min(16);
        self.journal.attempt += 1;
        let attempt = self.journal.attempt;
        let why = format!(
            "attempt {attempt} of {INSTALL_ATTEMPTS_MAX} is next, after: {}",
            failure.reason
        );
        let install = self.journalled(Boundary::StagedVerified, rooms);
        task.say_with(State::Installing, &why, attempt, Some(&failure), rooms);
        install.with(Awaits::NextAttempt(Time(rooms.now.boot.0 + pause)))
    }

    /// The last look before the switch: no lease, no switch.
    fn switch_with_leave(mut self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
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
        task.say(State::Installing, "the switch is due", attempt, rooms);
        self.journal.switched_at = Some(rooms.now.wall);
        // The slot may have stood for long: another release may have been taken back meanwhile.
        self.journal.before = rooms.installed.release(&task.release.product);
        let install = self.journalled(Boundary::SwitchIntent, rooms);
        let ticket = install.step(Step::Switch, task, rooms);
        install.with(Awaits::Switch(ticket))
    }

    fn not_switched(mut self, rooms: &mut Rooms<'_>) -> Install {
        self.journal.switched_at = None;
        self.journalled(Boundary::SlotWritten, rooms)
            .with(Awaits::Leave)
    }

    fn switched(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let install = self.journalled(Boundary::Switched, rooms);
        if let Some(why) = install.stopped(task, rooms) {
            return install.go_back(why, task, rooms);
        }
        install.watch(task, rooms)
    }

    fn watch(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        match &task.release.health_check {
            None => self.commit(task, rooms),
            Some(_) => {
                let why = "switched; its health is watched";
                task.say(State::Verifying, why, self.journal.attempt, rooms);
                self.check(Watch::default(), task, rooms)
            }
        }
    }

    fn check(self, watch: Watch, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let ticket = self.step(Step::CheckHealth, task, rooms);
        self.with(Awaits::Health(ticket, watch))
    }

    fn checked(
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
                    return self.commit(task, rooms);
                }
                return self.with(Awaits::NextCheck(next.min(end), watch));
            }
            StepOutcome::Absent => failure("the health check could not be run"),
            StepOutcome::Failed(failure) => failure,
        };
        watch.healthy_since = None;
        watch.failures += 1;
        if watch.failures > attempts {
            return self.go_back(failure, task, rooms);
        }
        self.with(Awaits::NextCheck(next, watch))
    }

    fn commit(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
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

    fn clean_up(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let ticket = self.step(Step::CleanUp, task, rooms);
        self.with(Awaits::CleanUp(ticket))
    }

    // ---- back --------------------------------------------------------------------------------

    /// Whether the installation stands still, or is over and may be taken back.
    fn may_turn_round(&self) -> bool {
        match self.awaits {
            Awaits::Content | Awaits::NextAttempt(_) | Awaits::Leave | Awaits::NextCheck(..) => {
                true
            }
            Awaits::Receipt | Awaits::Nothing => self.journal.failure.is_none(),
            _ => false,
        }
    }

    /// Why the installation must turn round, if it must.
    fn stopped(&self, task: &Task, rooms: &Rooms<'_>) -> Option<Failure> {
        let release = task.release.digest();
        let committed = matches!(self.awaits, Awaits::Receipt | Awaits::Nothing);
        if let Some(recall) = rooms.orders.recalled(&task.plan) {
            let replaced = rooms.installed.release(&task.release.product) != Some(release);
            // While a successor is being installed, its end decides whether this one is replaced.
            return (!committed || !replaced && !rooms.rival).then(|| recalled(&recall.reason));
        }
        let begun = self.journal.switched_at.is_some();
        (!begun && !task.alive(rooms.orders)).then(|| failure(ROLLOUT_ENDED))
    }

    fn go_back(mut self, failure: Failure, task: &Task, rooms: &mut Rooms<'_>) -> Install {
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
                &failure.reason,
                attempt,
                Some(&failure),
                rooms,
            );
        }
        install.way_back(1, task, rooms)
    }

    fn way_back(self, tries: u32, task: &Task, rooms: &mut Rooms<'_>) -> Install {
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
                &failure.reason,
                attempt,
                Some(&failure),
                rooms,
            );
        }
        let ticket = self.step(Step::RollBack, task, rooms);
        self.with(Awaits::WayBack(ticket, tries))
    }

    /// Without its manifest, which a new release key may have made void, nothing says how to bring
    /// the release before back; to drop the one in use for nothing would leave no software at all.
    fn lost_way_back(&self, rooms: &Rooms<'_>) -> Option<Failure> {
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
    fn stay(self, failure: &Failure, task: &Task, rooms: &mut Rooms<'_>) -> Install {
        let attempt = self.journal.attempt;
        let (state, why) = (State::RollbackFailed, &failure.reason);
        task.say_with(state, why, attempt, Some(failure), rooms);
        self.with(Awaits::Nothing)
    }

    /// Before the switch there is only a slot to drop, and the failure says it all.
    fn shows_way_back(&self, task: &Task, rooms: &Rooms<'_>) -> bool {
        self.journal.switched_at.is_some() || rooms.orders.recalled(&task.plan).is_some()
    }

    fn came_back(
        self,
        tries: u32,
        outcome: StepOutcome,
        task: &Task,
        rooms: &mut Rooms<'_>,
    ) -> Install {
        if let StepOutcome::Failed(failure) = outcome {
            if tries < INSTALL_ATTEMPTS_MAX {
                let pause = RETRY_MIN.0 << tries.min(16);
                return self.with(Awaits::NextWayBack(
                    Time(rooms.now.boot.0 + pause),
                    tries + 1,
                ));
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
    fn outcome(self, task: &Task, rooms: &mut Rooms<'_>) -> Install {
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
                task.say_with(state, &failure.reason, attempt, Some(failure), rooms);
            }
        }
        self.with(Awaits::Receipt)
    }
}

fn recalled(reason: &str) -> Failure {
    failure(&format!("recalled: {reason}"))
}

fn failure(reason: &str) -> Failure {
    Failure {
        reason: reason.to_owned(),
        exit_code: None,
        output_tail: String::new(),
        retryable: false,
    }
}
