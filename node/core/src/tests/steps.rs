//! What a step of an installation does to the scripted machine.

use protocol::manifest::{ReleaseManifest, release_name};
use protocol::{Hash, Verified};

use super::{World, failure};
use crate::contract::{Failure, FailureClass, Step, StepOutcome};

impl World {
    pub(super) fn take_step(
        &mut self,
        release: &Verified<ReleaseManifest>,
        before: Option<Hash>,
        step: &Step,
    ) -> StepOutcome {
        let digest = release.digest();
        self.steps.push(step.clone());
        if let Some(outcome) = self.keeper.step(digest, before, step) {
            return outcome;
        }
        match step {
            Step::PreHook(attempt) | Step::PostHook(attempt) => {
                return self.run_hook(step, *attempt);
            }
            Step::Restart if self.config.agent.is_none() => return self.restart_fails(),
            Step::Switch if self.around.busy > 0 => {
                self.around.busy -= 1;
                return StepOutcome::Failed(Failure {
                    class: FailureClass::InstallerBusy,
                    ..failure("another installer is at work", true)
                });
            }
            Step::WriteSlot => {
                let outcome = self.slot_outcomes.pop_front().unwrap_or(StepOutcome::Done);
                if outcome == StepOutcome::Done {
                    self.slots.insert(digest);
                }
                return outcome;
            }
            Step::Switch => {
                assert!(
                    self.slots.contains(&digest),
                    "a slot is written before its switch"
                );
                let name = release_name(&release.product, &release.version);
                self.switched.push(name);
                if release.product == self.old.product {
                    self.installed = Some(digest);
                }
            }
            Step::Detect if self.installed != Some(digest) => return StepOutcome::Absent,
            Step::CheckHealth if !self.healthy => {
                return StepOutcome::Failed(failure("exit code 3", false));
            }
            Step::Discard => drop(self.slots.remove(&digest)),
            Step::RollBack => {
                self.slots.remove(&digest);
                if self.installed == Some(digest) {
                    assert!(before.is_none_or(|b| self.slots.contains(&b)), "a way back");
                    self.installed = before;
                }
            }
            Step::Restart | Step::Keep | Step::Detect | Step::CheckHealth | Step::CleanUp => {}
        }
        StepOutcome::Done
    }
}
