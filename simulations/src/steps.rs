//! The steps of an installation: what each does to a machine, and how a release's ailment shows.

use node_core::contract::{Failure, FailureClass, Step, StepOutcome};
use protocol::{Hash, Span};

use crate::checks::findings::Rule;
use crate::faults::Ailment;
use crate::island::{Happening, Island};
use crate::scenario::{How, Lie};

impl Island {
    /// How long a release's switch takes beside what every switch takes, in milliseconds.
    pub(crate) fn extra_switch(&mut self, release: &Hash) -> u64 {
        let number = self.shared.release_number(release);
        let length = number.and_then(|n| self.shared.scenario.releases[n].install_s);
        length.map_or(0, |length| length.draw(&mut self.draws.effects).0)
    }

    /// What comes of a step; none if the process does not live to hear it.
    pub(crate) fn step_ends(
        &mut self,
        n: usize,
        release: Hash,
        before: Option<Hash>,
        step: Step,
    ) -> Option<StepOutcome> {
        let Some(index) = self.shared.release_number(&release) else {
            return Some(StepOutcome::Absent);
        };
        let shared = self.shared.clone();
        let content = &shared.contents[index];
        let product = &content.manifest.product;
        let lie = self.machines[n].traits.lie;
        if lie == Some(Lie::FalseSuccess) {
            return Some(StepOutcome::Done);
        }
        let now = self.time();
        let machine = &mut self.machines[n];
        let installed = machine.installed.get(product) == Some(&release);
        match step {
            Step::WriteSlot => {
                if !machine.holds(&content.pack) {
                    let what = "it writes what it does not hold";
                    self.watch.violated(now, Rule::Body, n, what);
                }
            }
            Step::Switch => return self.switch_ends(n, index),
            Step::Detect if !installed => return Some(StepOutcome::Absent),
            // No machine of this world keeps its own agent up to date.
            Step::Detect | Step::CleanUp | Step::Restart | Step::Keep => {}
            // No release of this world has hooks.
            Step::PreHook(_) | Step::PostHook(_) | Step::Discard => {}
            Step::CheckHealth => {
                if lie == Some(Lie::FalseFailure) || self.is_sick(n, index) {
                    return Some(failed("health check: exit code 1", "not well\n"));
                }
            }
            Step::RollBack if lie == Some(Lie::FalseFailure) => {}
            Step::RollBack => {
                if installed {
                    match before {
                        Some(before) => machine.installed.insert(product.clone(), before),
                        None => machine.installed.remove(product),
                    };
                }
            }
        }
        Some(StepOutcome::Done)
    }

    fn switch_ends(&mut self, n: usize, index: usize) -> Option<StepOutcome> {
        let shared = self.shared.clone();
        let content = &shared.contents[index];
        let spec = &shared.scenario.releases[index];
        let now = self.time();
        let ailment = self.ailment(n, index);
        let machine = &mut self.machines[n];
        let first = machine.switched.insert(content.digest, now).is_none();
        if first && ailment.is_some() {
            self.tally.harmed[index] += 1;
        }
        let how = ailment.map(|a| a.how);
        if how == Some(How::Install) {
            return Some(failed("switch: exit code 2", "cannot be installed\n"));
        }
        let product = content.manifest.product.clone();
        machine.installed.insert(product, content.digest);
        if how == Some(How::Silent) {
            machine.bricked = true;
            self.kill(n);
            return None;
        }
        if let Some(away) = &spec.restart_s {
            let away = away.draw(&mut self.draws.effects);
            machine.restarts = true;
            self.kill(n);
            self.after(away.max(Span(1)), Happening::Boot(n));
            return None;
        }
        Some(StepOutcome::Done)
    }

    /// Whether a machine switched to a release that does it harm, as the scenario has it.
    pub fn is_harmed(&self, n: usize, index: usize) -> bool {
        let switched = &self.machines[n].switched;
        let tried = switched.contains_key(&self.shared.contents[index].digest);
        tried && self.ailment(n, index).is_some()
    }

    fn ailment(&self, n: usize, index: usize) -> Option<Ailment> {
        let traits = &self.machines[n].traits;
        self.shared.fate.ailment(index, traits, self.part, n)
    }

    /// Whether the health check of a release fails now.
    fn is_sick(&self, n: usize, index: usize) -> bool {
        let switched = &self.machines[n].switched;
        let since = switched.get(&self.shared.contents[index].digest);
        let old = since.map_or(Span(0), |at| self.time().since(*at));
        self.ailment(n, index).is_some_and(|a| match a.how {
            How::Health => true,
            How::Latent => old >= a.after,
            How::Install | How::Silent => false,
        })
    }
}

fn failed(reason: &str, output: &str) -> StepOutcome {
    StepOutcome::Failed(Failure {
        reason: reason.into(),
        exit_code: Some(1),
        output_tail: output.into(),
        class: FailureClass::Health,
    })
}
