//! One rollout on this node: from its plan to the coordinator's receipt.

use protocol::plan::Priority;
use protocol::status::State;
use protocol::wire::Class;
use protocol::{Hash, Now, Time};

use crate::contract::{Failure, FailureClass, JournalRecord, Standing, StepOutcome, Ticket};
use crate::install::{Install, OTHER_UNDER_WAY};
use crate::lease::LeaseState;
use crate::lease::Leases;
use crate::orders::Orders;
use crate::precedence::boot_of;
use crate::relations::{Never, never};
use crate::report::ended;
use crate::swarm::Want;
use crate::task::{Rooms, Task};

/// A rollout that concerns this node.
pub(crate) struct Rollout {
    /// What it asks.
    pub(crate) task: Task,
    stage: Stage,
    /// How urgently the swarm was asked for the release.
    wanted: Option<Class>,
    /// What keeps the swarm from staging it.
    trouble: Option<Failure>,
    /// Whether it was said that its content is on its way.
    flowing: bool,
    wake: Option<Time>,
}

#[expect(clippy::large_enum_variant, reason = "there are few rollouts")]
enum Stage {
    /// Content is on its way, or is here and the node's turn is not.
    Waiting,
    /// An installation, under way or over.
    Installing(Install),
    /// It came to an end without an installation.
    Ended,
}

impl Rollout {
    /// A rollout that just became known, or goes on after a restart where `journal` and this node's
    /// register stand.
    pub(crate) fn new(
        task: Task,
        journal: Option<JournalRecord>,
        rooms: &mut Rooms<'_>,
    ) -> Rollout {
        let stage = match journal {
            Some(journal) => Stage::Installing(Install::resume(journal, &task, rooms)),
            None if ended(rooms.reports.own(task.rollout())).is_some() => Stage::Ended,
            None => Stage::Waiting,
        };
        Rollout {
            task,
            stage,
            wanted: None,
            trouble: None,
            flowing: false,
            wake: None,
        }
    }

    /// Whether another installation must wait for this one.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(&self.stage, Stage::Installing(install) if install.is_busy())
    }

    /// Whether its slot is written and it has no leave to switch.
    pub(crate) fn awaits_leave(&self) -> bool {
        matches!(&self.stage, Stage::Installing(install) if install.awaits_leave())
    }

    /// Whether it stands before its switch with a slot, or pauses there: newer ones of its product may come
    /// first, and no others of it.
    pub(crate) fn stands(&self) -> bool {
        match &self.stage {
            Stage::Installing(install) => install.awaits_leave() || install.pauses(),
            _ => false,
        }
    }

    /// Whether it could install at once, were it not for others.
    pub(crate) fn could_begin(&self, rooms: &Rooms<'_>) -> bool {
        self.is_waiting() && self.task.staged && self.task.permission(rooms).is_ok()
    }

    /// Whether it could begin or switch at once, were every restart slot free.
    pub(crate) fn lacks_but_a_slot(&self, rooms: &Rooms<'_>) -> bool {
        let stands = self.is_waiting() && self.task.staged || self.awaits_leave();
        stands && self.task.permission_but_slot(rooms).is_ok()
    }

    /// Gives way to a newer release of its product.
    pub(crate) fn give_way(&mut self, rooms: &mut Rooms<'_>) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Installing(install) => Stage::Installing(install.give_way(&self.task, rooms)),
            other => other,
        };
    }

    /// Whether its user may still say something about it.
    pub(crate) fn may_be_wished(&self) -> bool {
        let asks = self.task.plan.constraints.user.is_some();
        asks && (self.is_waiting() || self.awaits_leave())
    }

    /// Whether nothing was begun, so that the plan may be exchanged or the node leave it.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    /// Whether everything about it may be forgotten once the bulletin does not name it.
    pub(crate) fn is_over(&self) -> bool {
        match &self.stage {
            Stage::Waiting => false,
            Stage::Installing(install) => install.is_over(),
            Stage::Ended => true,
        }
    }

    /// Whether it has a journal.
    pub(crate) fn has_journal(&self) -> bool {
        matches!(self.stage, Stage::Installing(_))
    }

    /// Releases that must be kept for it.
    pub(crate) fn releases(&self) -> impl Iterator<Item = Hash> {
        let before = match &self.stage {
            Stage::Installing(install) => install.before(),
            _ => None,
        };
        [Some(self.task.release.digest()), before]
            .into_iter()
            .flatten()
    }

    /// When time alone may move it on.
    pub(crate) fn wake(&self) -> Option<Time> {
        match &self.stage {
            Stage::Installing(install) => install.wake(),
            _ => self.wake,
        }
    }

    /// The swarm has every byte.
    pub(crate) fn staged(&mut self) {
        self.task.staged = true;
        self.trouble = None;
    }

    /// The swarm cannot stage it, for good or for now.
    pub(crate) fn not_staged(&mut self, failure: Failure) {
        self.trouble = Some(failure);
        self.flowing = false;
    }

    /// Bytes came in: what troubled the swarm is over. True if that was not known.
    pub(crate) fn progressed(&mut self) -> bool {
        let trouble = self
            .trouble
            .take_if(|failure| failure.class != FailureClass::Release)
            .is_some();
        trouble || self.is_waiting() && !self.task.staged && !self.flowing
    }

    /// Takes the answer to a step, if it was asked by this rollout.
    pub(crate) fn step_ended(
        &mut self,
        ticket: Ticket,
        outcome: StepOutcome,
        rooms: &mut Rooms<'_>,
    ) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Installing(install) => {
                Stage::Installing(install.step_ended(ticket, outcome, &self.task, rooms))
            }
            other => other,
        };
    }

    /// Does what can be done now.
    pub(crate) fn advance(&mut self, rooms: &mut Rooms<'_>) {
        self.wake = None;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Waiting => self.await_turn(rooms),
            Stage::Installing(install) => Stage::Installing(install.advance(&self.task, rooms)),
            Stage::Ended => self.after_the_end(rooms),
        };
        self.serve(rooms);
    }

    fn await_turn(&mut self, rooms: &mut Rooms<'_>) -> Stage {
        if let Some(recall) = rooms.orders.recalled(&self.task.plan)
            && rooms.installed.release(&self.task.release.product)
                == Some(self.task.release.digest())
        {
            // It was installed and retired since: nothing but the release itself tells of it.
            return if rooms.rival {
                Stage::Waiting
            } else {
                Stage::Installing(Install::take_back(&self.task, &recall.reason, rooms))
            };
        }
        if self.task.release.applicability.is_some() && !rooms.inventory.is_known() {
            // What the machine is like is not known yet, and an answer would be for good.
            return Stage::Waiting;
        }
        if let Some((state, why)) = self.unneeded(rooms) {
            self.task.say(state, &why, 1, rooms);
            return Stage::Ended;
        }
        if rooms.reports.own(self.task.rollout()).is_none() {
            self.task
                .say(State::Received, "plan and release are known", 1, rooms);
        }
        self.want(rooms);
        if !self.task.staged {
            return self.await_content(rooms);
        }
        let now = rooms.reports.own(self.task.rollout()).map(|s| s.state);
        if matches!(now, Some(State::Received | State::Downloading)) {
            self.task
                .say(State::Staged, "every byte is here and verified", 1, rooms);
        }
        self.task.give_notice(rooms);
        match self.task.permission(rooms) {
            Ok(leave) if rooms.busy => {
                self.wake = Some(leave.until);
                let why = OTHER_UNDER_WAY;
                self.task.say(
                    State::Waiting(protocol::status::WaitingFor::Lock),
                    why,
                    1,
                    rooms,
                );
                Stage::Waiting
            }
            Ok(_) => Stage::Installing(Install::begin(&self.task, rooms)),
            Err(wait) => {
                self.wake = wait.until;
                self.task.say(wait.on, &wait.why, 1, rooms);
                Stage::Waiting
            }
        }
    }

    /// Why nothing is to be installed, if so.
    fn unneeded(&self, rooms: &mut Rooms<'_>) -> Option<(State, String)> {
        let release = &self.task.release;
        if let Some(recall) = rooms.orders.recalled(&self.task.plan) {
            return Some((
                State::Cancelled,
                format!("recalled before its turn: {}", recall.reason),
            ));
        }
        if !self.task.alive(rooms.orders) {
            return Some((
                State::Cancelled,
                "the rollout ended before this node's turn".into(),
            ));
        }
        if self.task.artifact.is_none() {
            let (os, arch) = (&rooms.config.os, &rooms.config.arch);
            return Some((
                State::NotApplicable,
                format!("the release has nothing for {os} on {arch}"),
            ));
        }
        if let Some(rule) = release.applicability.as_ref()
            && !rule.matches(&rooms.inventory.subject(None))
        {
            let why = format!("the release is for nodes with {rule}");
            return Some((State::NotApplicable, why));
        }
        if rooms.installed.release(&release.product) == Some(release.digest()) {
            return Some((State::AlreadyInstalled, "it was installed before".into()));
        }
        let plan = &self.task.plan;
        if (&plan.product, &plan.version) != (&release.product, &release.version) {
            let why = format!(
                "wrong_target: the plan names {}@{}",
                plan.product, plan.version
            );
            rooms
                .out
                .note("wrong_target", format!("{}: {why}", self.task.name()));
            return Some((State::Failed, why));
        }
        match never(&self.task, rooms) {
            Some(Never::Refused(why)) => {
                let line = format!("{}: {why}", self.task.name());
                rooms.out.note("dependency", line);
                return Some((State::Failed, why));
            }
            Some(Never::Superseded(why)) => return Some((State::Superseded, why)),
            None => {}
        }
        let highest = rooms.counters.release(&release.product);
        if release.release_counter < highest {
            let why = format!(
                "release {} is older than {highest}, which was installed here",
                release.release_counter
            );
            rooms
                .out
                .note("software_rollback", format!("{}: {why}", self.task.name()));
            return Some((State::Superseded, why));
        }
        None
    }

    fn await_content(&mut self, rooms: &mut Rooms<'_>) -> Stage {
        let floor = self.floor();
        if rooms.now.wall < floor && floor != Time::MAX {
            self.wake = Some(boot_of(floor, rooms.now));
        }
        match &self.trouble {
            Some(failure) if failure.class == FailureClass::Release => {
                self.task
                    .say_with(State::Failed, &failure.reason, 1, Some(failure), rooms);
                return Stage::Ended;
            }
            Some(failure) => {
                let why = format!(
                    "content does not come, and is asked for again and again, after {}",
                    failure.line()
                );
                self.task.say(State::Downloading, &why, 1, rooms);
            }
            None => {
                let progress = rooms.swarm.progress(&self.task.release.digest());
                if progress.is_some_and(|p| !p.bytes.is_empty()) {
                    self.flowing = true;
                    self.task
                        .say(State::Downloading, "content is on its way", 1, rooms);
                }
            }
        }
        Stage::Waiting
    }

    /// An end is not for ever if the rollout had only vanished from a bulletin, or had made room.
    fn after_the_end(&self, rooms: &mut Rooms<'_>) -> Stage {
        let state = ended(rooms.reports.own(self.task.rollout()));
        let release = &self.task.release;
        let back = match state {
            Some(State::Cancelled) => true,
            // What superseded it was taken back, or failed here.
            Some(State::Superseded) => {
                release.release_counter >= rooms.counters.release(&release.product)
            }
            _ => false,
        };
        let back = back && self.unneeded(rooms).is_none();
        if back { Stage::Waiting } else { Stage::Ended }
    }

    /// Keeps serving the site what this node has, and lets go of what was recalled.
    fn serve(&mut self, rooms: &mut Rooms<'_>) {
        let here =
            rooms.installed.release(&self.task.release.product) == Some(self.task.release.digest());
        if rooms.orders.recalled(&self.task.plan).is_some() {
            if !here && !self.is_busy() {
                self.let_go(rooms);
            }
        } else if !matches!(self.stage, Stage::Ended) || here {
            self.want(rooms);
        }
    }

    /// Drops the release's content unless it is installed.
    pub(crate) fn let_go(&mut self, rooms: &mut Rooms<'_>) {
        let release = self.task.release.digest();
        if !rooms.shared.contains(&release) && self.wanted.take().is_some() {
            let keep = rooms.installed.all().any(|digest| digest == release);
            rooms.swarm.unwant(rooms.now, release, keep);
            self.task.staged = false;
        }
    }

    fn want(&mut self, rooms: &mut Rooms<'_>) {
        let Some(artifact) = self.task.artifact.clone() else {
            return;
        };
        let class = self.class(rooms);
        if self.wanted >= Some(class) {
            return;
        }
        self.wanted = Some(class);
        let release = &self.task.release;
        let (os, arch) = (&rooms.config.os, &rooms.config.arch);
        let donors = rooms
            .installed
            .on_disk(&release.product)
            .filter(|digest| *digest != release.digest())
            .filter_map(|digest| rooms.library.release(&digest)?.artifact_for(os, arch))
            .map(|donor| (donor.index, donor.pack))
            .collect();
        let want = Want {
            release: release.digest(),
            artifact,
            class,
            donors,
        };
        rooms.swarm.want(rooms.now, want);
    }

    /// Wall time before which the wave does not start.
    fn floor(&self) -> Time {
        let wave = self.task.plan.waves.get(self.task.wave as usize);
        wave.map_or(Time::MAX, |w| w.not_before)
    }

    /// Whether its wave has opened and nothing halts it.
    pub(crate) fn is_open(&self, orders: &Orders, leases: &Leases, now: Now) -> bool {
        let plan = &self.task.plan;
        let opened = leases.state(plan, self.task.wave, now) != LeaseState::NotOpen;
        opened && now.wall >= self.floor() && orders.halted(&plan.rollout).is_none()
    }

    /// Content for a wave that is not open is staged in the background.
    fn class(&self, rooms: &Rooms<'_>) -> Class {
        let plan = &self.task.plan;
        if !self.is_open(rooms.orders, rooms.leases, rooms.now) {
            Class::Background
        } else if plan.priority == Priority::Emergency {
            Class::Emergency
        } else {
            Class::Normal
        }
    }

    /// Where the node stands, in one line.
    pub(crate) fn standing(
        &self,
        reports: &crate::report::Reports,
        swarm: &crate::swarm::Swarm,
    ) -> Standing {
        let own = reports.own(self.task.rollout());
        let progress = swarm
            .progress(&self.task.release.digest())
            .unwrap_or_default();
        let missing = (!self.task.staged).then_some(progress.missing_bytes);
        let mut why = own.map_or("just heard of", |s| &s.reason).to_owned();
        if let (Some(State::Downloading), Some(missing)) = (own.map(|s| s.state), missing) {
            why = format!("{why}; {missing} bytes are missing");
        }
        if ended(own).is_some() && !reports.acknowledged(self.task.rollout()) {
            why.push_str("; the coordinator has not acknowledged it yet");
        }
        Standing {
            rollout: self.task.rollout().clone(),
            release: self.task.name(),
            wave: Some(self.task.wave),
            state: own.map_or(State::NotReceived, |s| s.state),
            why,
            missing_bytes: missing,
            bytes: progress.bytes,
        }
    }
}
