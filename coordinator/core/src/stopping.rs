//! Stopping everything, and what lifts a stop: one operator what stopped by itself, the `plans` threshold
//! what an operator stopped.

use protocol::lift::Lift;
use protocol::limits::ROLLOUTS_MAX;
use protocol::plan::Cohort;
use protocol::{RolloutId, Time, Verified};

use crate::commands::{Outcome, wrong_state};
use crate::conductor::{Conductor, cut};
use crate::contract::{Answer, CommandError, LedgerEvent, RolloutState};

/// Everything is halted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stop {
    /// One line.
    pub why: String,
    /// When it was given.
    pub at: Time,
}

impl Conductor {
    /// When the operator's halt of a rollout, or of everything, was given.
    ///
    /// # Errors
    /// When none is in force that could be lifted.
    pub fn halted(&self, rollout: Option<&RolloutId>) -> Result<Time, CommandError> {
        let Some(id) = rollout else {
            let stop = self.stopped.as_ref().map(|stop| stop.at);
            return stop.ok_or(CommandError::NothingHalted);
        };
        let wanted = "only one that was halted after its start is lifted";
        let rollout = self.in_state(id, &[RolloutState::Aborted], wanted)?;
        if !rollout.started || rollout.plan.not_after <= self.now.wall {
            let wanted = "it was never started, or its not_after has passed; propose it anew";
            return Err(wrong_state(rollout, wanted));
        }
        Ok(rollout.since)
    }

    pub(crate) fn halt_all(&mut self, why: &str) -> Outcome {
        if self.stopped.is_some() {
            return Ok(Answer::Done);
        }
        let (why, at) = (cut(why), self.now.wall);
        self.note("halted_all", why.clone());
        self.record(LedgerEvent::HaltedAll {
            why: why.clone(),
            at,
        });
        // What runs is set aside in the round after; what is through has stragglers.
        for id in self.finished() {
            self.give_halt(&id, &why);
        }
        Ok(Answer::Done)
    }

    pub(crate) fn lift(&mut self, lift: &Verified<Lift>) -> Outcome {
        let halted = self.halted(lift.rollout.as_ref())?;
        let alive = self.rollouts.values().filter(|r| r.is_alive()).count();
        let named = lift.rollout.as_ref().and_then(|id| self.rollouts.get(id));
        if named.is_some_and(|r| !r.is_alive()) && alive >= ROLLOUTS_MAX {
            let line = format!("{ROLLOUTS_MAX} rollouts are alive already; finish or halt one");
            return Err(CommandError::Limit(line));
        }
        if halted != lift.halted {
            return Err(CommandError::OtherHalt);
        }
        self.note("lifted", lift.reason.clone());
        self.record(LedgerEvent::Lifted {
            envelope: lift.envelope().clone(),
        });
        match &lift.rollout {
            None => self.finished().iter().for_each(|id| self.go_on(id)),
            Some(id) => self.run_again(id, "its halt was lifted"),
        }
        Ok(Answer::Done)
    }

    pub(crate) fn release_cohort(&mut self, id: &RolloutId, cohort: &Cohort) -> Outcome {
        use RolloutState as S;
        let from = [S::Running, S::Paused, S::Preempted, S::Held, S::Finished];
        let rollout = self.in_state(id, &from, "cohorts are held only while it is judged")?;
        let held = rollout.evidence.as_ref().map(|e| e.held());
        let declared = rollout.plan.test.as_ref().map(|t| &t.cohorts[..]);
        let number = |c: &u32| declared.and_then(|all| all.get(*c as usize)) == Some(cohort);
        let Some(number) = held.unwrap_or_default().into_iter().find(number) else {
            return Err(CommandError::CohortNotHeld(cohort.to_string()));
        };
        self.note("cohort_released", format!("{id}: {cohort}"));
        self.record(LedgerEvent::CohortReleased {
            rollout: id.clone(),
            cohort: number,
            at: self.now.wall,
        });
        Ok(Answer::Done)
    }

    /// Rollouts that are through and still in the bulletin.
    fn finished(&self) -> Vec<RolloutId> {
        let through = self.rollouts.values();
        let through = through.filter(|r| r.state == RolloutState::Finished && r.is_alive());
        through.map(|r| r.plan.rollout.clone()).collect()
    }
}
