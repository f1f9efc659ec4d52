//! Starts of a day, and how many more there may be.
//!
//! A day is one of UTC, so that no clock change makes one longer and every ledger replays to the same. Leave
//! that was given cannot be taken back, and whoever has it may start tomorrow as well. So what counts against
//! a day's cap is who started in it **and** everyone who has leave and has not started: then no day sees more
//! starts than its cap, whatever windows, links or users made of yesterday's leave.
//!
//! A node that had leave for a whole day and said nothing new of it, and does not say either that it waits
//! for its window or the like, is off: it is counted when it starts, and not before, or machines that nobody
//! switches on would use up every day.

use std::collections::BTreeSet;

use protocol::plan::Priority;
use protocol::status::{State, WaitingFor};
use protocol::zones::DAY_MS;
use protocol::{NodeId, Now, Time};

use crate::conductor::Conductor;
use crate::contract::RolloutState;
use crate::rollout::Rollout;
use crate::tally::Target;

/// What a rollout's nodes made of a day.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Daily {
    /// The day, counted from 1970.
    day: u64,
    /// Starts that were heard of in it.
    started: u32,
    /// Nodes that had leave when it began and of which nothing new was heard since.
    silent: BTreeSet<NodeId>,
    /// Those of them that were silent on the day before, too.
    off: BTreeSet<NodeId>,
    /// What the fleet's cap leaves for this rollout; none: the fleet has none.
    pub left_of_fleet: Option<u32>,
}

/// The UTC day of a wall time, counted from 1970.
pub(crate) fn day_of(wall: Time) -> u64 {
    wall.0 / DAY_MS as u64
}

/// When the day after this one begins.
pub(crate) fn day_after(day: u64) -> Time {
    Time((day + 1).saturating_mul(DAY_MS as u64))
}

impl Daily {
    /// A target changes: it is silent no more, and perhaps it started.
    pub fn changed(&mut self, node: &NodeId, before: Option<State>, after: Option<State>) {
        self.silent.remove(node);
        self.off.remove(node);
        let tried = |state: State| {
            let done_before = matches!(state, State::AlreadyInstalled | State::NotApplicable);
            state.started() || (state.ended() && !done_before)
        };
        let begins = before.is_some_and(|s| !tried(s)) && after.is_some_and(tried);
        self.started += u32::from(begins);
    }
}

/// Whether it says nothing of why it has not started, though it has leave.
fn is_silent(state: State) -> bool {
    use WaitingFor as W;
    match state {
        State::Waiting(what) => matches!(what, W::Wave | W::Lease),
        _ => true,
    }
}

impl Rollout {
    /// Whether its starts are capped.
    fn is_capped(&self) -> bool {
        self.plan.constraints.starts_per_day.is_some() || self.daily.left_of_fleet.is_some()
    }

    /// The day that has begun, if its starts are counted by the day and it does not know of it.
    pub(crate) fn dawned(&self, now: Now) -> Option<u64> {
        let today = day_of(now.wall);
        (self.is_capped() && today > self.daily.day).then_some(today)
    }

    /// Folds that a day begins.
    pub(crate) fn fold_dawn(&mut self, day: u64) {
        let leave = |(_, t): &(&NodeId, &Target)| {
            t.waits() && is_silent(t.state) && self.has_leave(t.wave, t.at)
        };
        let silent = self.targets.iter().filter(leave).map(|(id, _)| *id);
        let silent: BTreeSet<NodeId> = silent.collect();
        let daily = &mut self.daily;
        daily.off = &(&daily.silent | &daily.off) & &silent;
        (daily.day, daily.started, daily.silent) = (day, 0, silent);
    }

    fn has_leave(&self, wave: u32, at: u64) -> bool {
        let newest = self.newest_open();
        newest.is_some_and(|newest| wave < newest || (wave == newest && self.window.reaches(at)))
    }

    /// Nodes that count against the day's cap: those that started, and those that may at any moment.
    pub(crate) fn claimed(&self) -> u32 {
        use RolloutState as S;
        // stragglers of what is through may never come
        let goes_on = matches!(self.state, S::Running | S::Paused | S::Preempted | S::Held);
        let open = self.waves.iter().filter(|w| w.opened_at.is_some());
        let waiting: u32 = open.map(|w| w.tally.waiting).sum();
        let without = self.window.without_leave() + self.daily.off.len() as u32;
        let may = if goes_on {
            waiting.saturating_sub(without)
        } else {
            0
        };
        self.daily.started + may
    }

    /// How many more may get leave today; none: as many as there are.
    pub(crate) fn left_today(&self) -> Option<u32> {
        self.left_of(self.daily.left_of_fleet)
    }

    fn left_of(&self, fleet: Option<u32>) -> Option<u32> {
        let cap = self.plan.constraints.starts_per_day;
        let own = cap.map(|cap| cap.saturating_sub(self.claimed()));
        own.into_iter().chain(fleet).min()
    }

    /// When a day's cap lets go what it holds back now.
    pub(crate) fn capped_until(&self) -> Option<Time> {
        let held = self.left_today() == Some(0) && !self.window.is_open();
        held.then(|| day_after(self.daily.day))
    }

    /// What it waits for if that is a new day, where the fleet's cap leaves it so many; for people.
    pub(crate) fn capped_line(&self, fleet: Option<u32>) -> Option<String> {
        let runs = self.state == RolloutState::Running && !self.window.is_open();
        if !runs || self.left_of(fleet) != Some(0) {
            return None;
        }
        let until = day_after(self.daily.day);
        let clock = protocol::zones::Clock::utc();
        let own = self.plan.constraints.starts_per_day;
        let own = own.filter(|cap| self.claimed() >= *cap);
        let whose = match own {
            Some(cap) => format!("its plan's {cap} starts a day"),
            None => "the fleet's starts a day".to_owned(),
        };
        let (started, claimed) = (self.daily.started, self.claimed());
        let may = claimed - started;
        Some(format!(
            "{whose} are given: {started} of its nodes started today and {may} more may; others wait until {} at least",
            clock.tells(until)
        ))
    }
}

impl Conductor {
    /// Tells each rollout what the fleet's cap leaves it. An emergency counts and is not held.
    pub(crate) fn share_day(&mut self) {
        let Some(left) = self.left_of_fleet() else {
            return;
        };
        for rollout in self.rollouts.values_mut().filter(|r| r.is_alive()) {
            rollout.daily.left_of_fleet = Some(left_for(rollout, left));
        }
    }

    fn left_of_fleet(&self) -> Option<u32> {
        let alive = self.rollouts.values().filter(|r| r.is_alive());
        let claimed = |cap: u32| cap.saturating_sub(alive.map(Rollout::claimed).sum());
        self.config.starts_per_day.map(claimed)
    }

    /// What the next starts of a rollout wait for, if that is a new day.
    pub(crate) fn capped_line(&self, rollout: &Rollout) -> Option<String> {
        rollout.capped_line(self.left_of_fleet().map(|left| left_for(rollout, left)))
    }
}

fn left_for(rollout: &Rollout, left: u32) -> u32 {
    match rollout.plan.priority {
        Priority::Emergency => u32::MAX,
        _ => left,
    }
}
