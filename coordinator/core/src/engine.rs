//! The wave engine of one rollout without a conductor around it: for trials of gates, where hundreds of
//! rollouts to a hundred thousand nodes are played. Its steps are those that a conductor takes.

use protocol::plan::{Proposal, RolloutPlan};
use protocol::status::State;
use protocol::{Hash, NodeId, Now, Time};

use crate::conductor::Conductor;
use crate::contract::{CommandError, Counts, RolloutState, Verdict};
use crate::fold::enlisted;
use crate::moves::Move;
use crate::rollout::Rollout;

/// A rollout that was started, with its targets.
///
/// The caller tells what is [heard](RolloutEngine::heard) of nodes and then takes
/// [steps](RolloutEngine::step) until there is none; and again when the time of
/// [`RolloutEngine::wakes_at`] has come.
#[derive(Clone)]
pub struct RolloutEngine {
    rollout: Rollout,
}

/// What the engine did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nodes of earlier waves and those of this whose position is below the bound have leave to start,
    /// but for those of the held cohorts.
    Lease {
        /// The newest wave.
        wave: u32,
        /// The bound; none: all of the wave.
        below: Option<u64>,
        /// Held cohorts, as numbers into the plan's list.
        held: Vec<u32>,
    },
    /// A wave opened, a gate passed, a test spoke for the release, silence was counted.
    Went,
    /// A cohort failed alone and is held.
    CohortHeld(u32),
    /// A gate failed, for this reason: nobody starts any more.
    Held(String),
    /// Every wave passed.
    Finished,
    /// The plan's time ended before.
    Aborted,
}

impl Conductor {
    /// A rollout as this proposal would become, approved and started now.
    ///
    /// # Errors
    /// As a proposal is refused.
    pub fn engine(&self, proposal: &Proposal, salt: Hash) -> Result<RolloutEngine, CommandError> {
        let (plan, _) = self.resolved(proposal, salt)?;
        let mut rollout = Rollout::proposed(plan);
        rollout.fold_state(RolloutState::Ready, "");
        for (node, wave) in enlisted(&rollout, &self.fleet, &[]) {
            let traits = self.fleet.nodes.get(&node).map(|n| rollout.traits(n));
            let traits = traits.unwrap_or_default();
            rollout.fold_joined(node, wave, traits, State::NotReceived, Time(0));
        }
        rollout.fold_state(RolloutState::Running, "started");
        Ok(RolloutEngine { rollout })
    }
}

impl RolloutEngine {
    /// Its plan.
    pub fn plan(&self) -> &RolloutPlan {
        &self.rollout.plan
    }

    /// Where it stands.
    pub fn state(&self) -> RolloutState {
        self.rollout.state
    }

    /// Its four counts.
    pub fn counts(&self) -> Counts {
        self.rollout.tally().counts
    }

    /// Its targets, each with its wave.
    pub fn targets(&self) -> impl Iterator<Item = (NodeId, u32)> {
        self.rollout.targets.iter().map(|(id, t)| (*id, t.wave))
    }

    /// A node said where it stands.
    pub fn heard(&mut self, now: Now, node: &NodeId, state: State) {
        self.rollout.fold_target_state(node, state, now.boot);
    }

    /// Someone said that the release does harm on a node.
    pub fn problem(&mut self, node: &NodeId) {
        self.rollout.fold_problem(node);
    }

    /// When time alone may bring a step.
    pub fn wakes_at(&self, now: Now) -> Option<Time> {
        self.rollout.wakes_at(now)
    }

    /// The next step, if one is due.
    pub fn step(&mut self, now: Now) -> Option<Step> {
        let rollout = &mut self.rollout;
        let next = rollout.next_move(now)?;
        Some(match next {
            Move::Lease { wave, below } => {
                rollout.lease_given(now.boot);
                rollout.fold_lease(below, now.boot);
                let held = rollout.evidence.as_ref().map(|e| e.held());
                let held = held.unwrap_or_default();
                Step::Lease { wave, below, held }
            }
            Move::Dawn(day) => {
                rollout.fold_dawn(day);
                Step::Went
            }
            Move::Silence(nodes) => {
                for node in &nodes {
                    rollout.fold_target_state(node, State::MissingReport, now.boot);
                }
                Step::Went
            }
            Move::Open(wave) => {
                rollout.fold_opened(wave, now.wall);
                Step::Went
            }
            Move::Pass { wave, .. } => {
                rollout.fold_verdict(wave, Verdict::Pass, now.wall);
                Step::Went
            }
            Move::Clear { cohort, .. } => {
                rollout.fold_cleared(cohort);
                Step::Went
            }
            Move::HoldCohort { cohort, .. } => {
                rollout.fold_cohort_held(cohort);
                Step::CohortHeld(cohort)
            }
            Move::Fail { wave, why, .. } => {
                rollout.fold_verdict(wave, Verdict::Fail, now.wall);
                rollout.fold_state(RolloutState::Held, &why);
                Step::Held(why)
            }
            Move::Finish => {
                rollout.fold_state(RolloutState::Finished, "every wave passed");
                Step::Finished
            }
            Move::TakenBack | Move::Expire => {
                rollout.fold_state(RolloutState::Aborted, "its time is over");
                Step::Aborted
            }
        })
    }
}
