//! What the operators do and when: roll out one release after the other, or several at once, take back
//! what is wanted back, and whatever else the scenario has them do. How each is done is in
//! `operators`.

use anyhow::Result;
use coordinator_core::contract::{RolloutState, RolloutView};
use coordinator_core::forecast::Forecast;
use protocol::{Hash, RolloutId, Span, Time};

use crate::checks::findings::Rule;
use crate::hub::{Happening, Hub};
use crate::measures::Milestones;
use crate::scenario::{Act, OperatorSpec};

/// The operators look this often.
const LOOK: Span = Span::from_millis(500);
/// A rollout that did not end and stands still for so many times the idle time is given up.
const STUCK_IDLES: u64 = 5;
/// Notes that are kept.
const NOTES_MAX: usize = 500;

/// How far the operators are.
#[derive(Default)]
pub struct Story {
    /// The rollouts so far, in the order of the releases.
    pub rollouts: Vec<RolloutId>,
    /// Digests of their plans.
    pub plans: Vec<Hash>,
    /// Typed events, with the time in milliseconds.
    pub notes: Vec<(u64, &'static str, String)>,
    /// What was noted of each rollout.
    pub milestones: Vec<Milestones>,
    /// What the coordinator forecast before each rollout, if that is asked for.
    pub forecasts: Option<Vec<Forecast>>,
    /// The rollouts as they were at the last look.
    last: Vec<RolloutView>,
    /// Releases that were taken back because the scenario wants them back.
    recalled: Vec<usize>,
    /// For each of the scenario's acts, when it became due; none until then.
    due: Vec<Option<Time>>,
    /// Acts that are done.
    done: usize,
    pub(crate) quiet_since: Time,
    /// Since then no rollout changed.
    still_since: Time,
    /// Nothing new goes wrong after this.
    calm: Time,
}

impl Story {
    /// Nothing was done yet; nothing new goes wrong after `calm`.
    pub fn new(calm: Time) -> Story {
        Story {
            calm,
            ..Story::default()
        }
    }

    pub(crate) fn note(&mut self, at: Time, event: &'static str, line: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push((at.0, event, line));
        }
    }
}

impl Hub {
    pub(crate) fn operator(&mut self) {
        self.after(LOOK, Happening::Operator);
        if !self.desk.up || self.time() < Time::from_secs(self.shared.scenario.start_s) {
            return;
        }
        if let Err(e) = self.look() {
            self.audit
                .violated(self.time(), Rule::Story, format!("an operator: {e:#}"));
            self.over = true;
        }
    }

    fn look(&mut self) -> Result<()> {
        let quiet = self.is_quiet();
        self.act()?;
        let next = self.story.rollouts.len();
        let Some(spec) = self.shared.scenario.releases.get(next) else {
            return self.look_back(quiet);
        };
        let timed = spec.start_s.map(Time::from_secs);
        if timed.map_or(quiet, |at| self.time() >= at) {
            // what is wanted back goes before what comes next
            if timed.is_some() || !self.take_back_one()? {
                self.roll_out(next)?;
            }
        }
        Ok(())
    }

    /// Everything is rolled out.
    fn look_back(&mut self, quiet: bool) -> Result<()> {
        let waits = self.story.done < self.shared.scenario.operators.len();
        if quiet && !self.take_back_one()? && !waits {
            self.over = true;
        }
        Ok(())
    }

    /// Whether every rollout so far ended, or stands still and only an operator could move it, for as
    /// long as the scenario wants.
    fn is_quiet(&mut self) -> bool {
        use RolloutState as S;
        let now = self.time();
        let views = self.story.rollouts.iter();
        let views: Vec<RolloutView> = views
            .filter_map(|id| self.desk.conductor.rollout(id))
            .collect();
        let ended = |view: &RolloutView| match view.state {
            S::Finished => view.counts.open + view.counts.not_received == 0,
            S::Held | S::Aborted | S::Recalled => true,
            _ => false,
        };
        let all_ended = views.iter().all(ended);
        if self.story.last != views {
            self.story.still_since = now;
            self.story.last = views;
        }
        if !all_ended || self.story.still_since == now {
            self.story.quiet_since = now;
        }
        let idle = Span::from_secs(self.shared.scenario.idle_s);
        let quiet = now.since(self.story.quiet_since) >= idle;
        self.story.rollouts.is_empty() || quiet || self.is_stuck()
    }

    /// Whether nothing moved for so long that nothing will: some machine will never come back.
    fn is_stuck(&self) -> bool {
        let s = &self.shared.scenario;
        let own = s.releases.iter().flat_map(|r| &r.waves);
        let silences = s.rollout.waves.iter().chain(own).map(|w| w.silence_s);
        let patience = silences.max().unwrap_or(0) + STUCK_IDLES * s.idle_s;
        // laptops come back in the morning, and windows open at their time
        let still = self.story.still_since.max(self.story.calm);
        s.laptops.is_none()
            && !s.rollout.constraints.waits()
            && self.time().since(still) >= Span::from_secs(patience)
    }

    /// Takes back the first release that is everywhere and that the scenario wants back; whether there
    /// was one.
    fn take_back_one(&mut self) -> Result<bool> {
        let releases = self.shared.scenario.releases.iter().enumerate();
        let wanted = releases.filter(|(n, r)| r.recall && !self.story.recalled.contains(n));
        let finished = |n: &usize| {
            let view = self.story.last.get(*n);
            view.is_some_and(|v| v.state == RolloutState::Finished)
        };
        let Some(number) = wanted.map(|(n, _)| n).find(finished) else {
            return Ok(false);
        };
        self.story.recalled.push(number);
        self.take_back(number)?;
        Ok(true)
    }

    // ---- what the scenario has them do --------------------------------------------------------------

    /// Does what is due. An act may come too late, as a halt of what is over does: that is noted.
    fn act(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        let acts = &shared.scenario.operators;
        self.story.due.resize(acts.len(), None);
        for (n, spec) in acts.iter().enumerate() {
            let before = self.story.due[n];
            if before == Some(Time::MAX) || before.is_none() && !self.is_so(spec) {
                continue;
            }
            let due = before.unwrap_or(self.time() + Span::from_secs(spec.after_s));
            self.story.due[n] = Some(due);
            if self.time() < due {
                continue;
            }
            self.story.due[n] = Some(Time::MAX);
            self.story.done += 1;
            let Some(number) = self.meant(spec) else {
                continue;
            };
            let id = self.story.rollouts[number].clone();
            let why = "the scenario says so".to_owned();
            let done = match spec.act {
                Act::Pause => self.pause(id, why),
                Act::Resume => self.resume(id),
                Act::Halt => self.halt(id, why),
                Act::Recall => self.take_back(number),
            };
            if let Err(e) = done {
                let line = format!("{:?} of {}: {e:#}", spec.act, spec.release);
                self.story.note(self.time(), "act_refused", line);
            }
            self.story.quiet_since = self.time();
        }
        Ok(())
    }

    /// The number of the release that an act means, if it is rolled out.
    fn meant(&self, spec: &OperatorSpec) -> Option<usize> {
        let releases = &self.shared.scenario.releases;
        let number = releases
            .iter()
            .position(|r| spec.means(&r.product, &r.version))?;
        (number < self.story.rollouts.len()).then_some(number)
    }

    /// Whether what an act waits for is so.
    fn is_so(&self, spec: &OperatorSpec) -> bool {
        let Some(view) = self.meant(spec).and_then(|n| self.story.last.get(n)) else {
            return false;
        };
        let opened = |name: &String| {
            let wave = view.waves.iter().find(|w| w.name == *name);
            wave.is_some_and(|w| w.opened_at.is_some())
        };
        let wait = [
            spec.at_s.map(|at| self.time() >= Time::from_secs(at)),
            spec.when_applied.map(|n| view.counts.applied >= n),
            spec.when_failed.map(|n| view.counts.failed >= n),
            spec.when_wave.as_ref().map(opened),
        ];
        wait.into_iter().flatten().all(|so| so)
    }
}
