//! The `command` installer: a recipe that is run in the unpacked files, and a rule that decides after a
//! crash whether it took.

use std::path::PathBuf;

use node_core::contract::{Failure, FailureClass, Step, StepOutcome};
use protocol::Span;
use protocol::manifest::{Busy, Install};

use super::process::Ended;
use super::{Content, Job, io_failure, lasting_failure, machine_failure};
use crate::content::tree;

/// A recipe, borrowed from the manifest.
struct Recipe<'a> {
    steps: &'a [Vec<String>],
    detect: &'a [String],
    undo: &'a [Vec<String>],
    codes: &'a [i32],
    max_run_time: Span,
    busy: &'a [Busy],
}

impl Recipe<'_> {
    fn is_busy(&self, ended: &Ended) -> bool {
        let Ended::Exit { code, tail } = ended else {
            return false;
        };
        let says = |busy: &Busy| busy.exit_code == *code && tail.contains(&busy.output);
        !self.codes.contains(code) && self.busy.iter().any(says)
    }
}

impl Job {
    pub(super) async fn command_step(
        self,
        content: Option<Content>,
        step: Step,
    ) -> Result<StepOutcome, Failure> {
        let Some(recipe) = self.recipe() else {
            return Err(lasting_failure("the release has no recipe".into()));
        };
        match step {
            Step::WriteSlot => self.on_disk(|job| job.stage(content)).await,
            Step::Switch => self.run_all("step", recipe.steps, &recipe).await,
            Step::Detect => self.detect_by_rule(&recipe).await,
            Step::RollBack if recipe.undo.is_empty() => {
                Err(lasting_failure("the recipe has no steps to undo it".into()))
            }
            Step::RollBack => {
                // The undo steps may need files that were dropped when the installation had ended.
                if content.is_some() && !self.staging().is_dir() {
                    self.on_disk(|job| job.stage(content)).await?;
                }
                self.run_all("undo step", recipe.undo, &recipe).await
            }
            Step::Discard => self.on_disk(|job| job.discard()).await,
            Step::PreHook(attempt) => {
                let pre = self.release.hooks.pre.as_ref();
                let cwd = self.work_dir()?;
                self.hook(pre, FailureClass::PreHook, attempt, &cwd).await
            }
            Step::PostHook(attempt) => {
                let post = self.release.hooks.post.as_ref();
                let cwd = self.work_dir()?;
                self.hook(post, FailureClass::PostHook, attempt, &cwd).await
            }
            Step::CheckHealth => match &self.release.health_check {
                None => Ok(StepOutcome::Done),
                Some(check) => self.check_health(check, &self.work_dir()?).await,
            },
            Step::CleanUp => self.on_disk(|job| job.unstage()).await,
            Step::Restart => self.restart().await,
            // Asked for agents only, which are trees.
            Step::Keep => Ok(StepOutcome::Done),
        }
    }

    fn recipe(&self) -> Option<Recipe<'_>> {
        match &self.release.install {
            Install::Command {
                steps,
                detect,
                undo,
                expected_exit_codes,
                max_run_time,
                busy,
            } => Some(Recipe {
                steps,
                detect,
                undo,
                codes: if expected_exit_codes.is_empty() {
                    &[0]
                } else {
                    expected_exit_codes
                },
                max_run_time: *max_run_time,
                busy,
            }),
            Install::Tree => None,
        }
    }

    fn staging(&self) -> PathBuf {
        self.places.stagings().join(self.install_id.to_string())
    }

    /// Where programs run: in the unpacked files, or in the product's directory once those are gone.
    fn work_dir(&self) -> Result<PathBuf, Failure> {
        let staging = self.staging();
        if staging.is_dir() {
            return Ok(staging);
        }
        let product = self.places.product();
        self.places
            .disk()
            .make_dirs(product)
            .map_err(io_failure(product))?;
        Ok(product.to_owned())
    }

    fn stage(self, content: Option<Content>) -> Result<StepOutcome, Failure> {
        let content =
            content.ok_or_else(|| lasting_failure("the release's content is not here".into()))?;
        let staging = self.staging();
        if tree::matches(&content.index, &staging)? {
            return Ok(StepOutcome::Done);
        }
        let made = staging.with_extension("partial");
        let disk = self.places.disk();
        tree::unpack_on(disk, &content.index, &content.pack, &made)?;
        disk.clear(&staging).map_err(io_failure(&staging))?;
        disk.rename(&made, &staging).map_err(io_failure(&staging))?;
        let stagings = self.places.stagings();
        disk.sync_dir(&stagings).map_err(io_failure(&stagings))?;
        Ok(StepOutcome::Done)
    }

    async fn run_all(
        &self,
        what: &str,
        steps: &[Vec<String>],
        recipe: &Recipe<'_>,
    ) -> Result<StepOutcome, Failure> {
        let cwd = self.work_dir()?;
        for (number, argv) in (1..).zip(steps) {
            let ended = self.run(argv, &cwd, recipe.max_run_time).await?;
            // Once a step has changed something, another installer in the way is a failure like any other.
            let busy = number == 1 && recipe.is_busy(&ended);
            let failed = |failure: Failure| Failure {
                class: match failure.class {
                    _ if busy => FailureClass::InstallerBusy,
                    FailureClass::Timeout => FailureClass::Timeout,
                    _ => FailureClass::Installer,
                },
                ..failure
            };
            ended
                .expect(&format!("{what} {number}"), argv, recipe.codes)
                .map_err(failed)?;
        }
        Ok(StepOutcome::Done)
    }

    /// Exit code 0 is `Done`; any other, and a program that is not there, is `Absent`.
    async fn detect_by_rule(&self, recipe: &Recipe<'_>) -> Result<StepOutcome, Failure> {
        match self
            .run(recipe.detect, &self.work_dir()?, recipe.max_run_time)
            .await?
        {
            Ended::Exit { code: 0, .. } => Ok(StepOutcome::Done),
            Ended::Exit { .. } | Ended::NotFound => Ok(StepOutcome::Absent),
            Ended::TimedOut { tail, .. } => {
                let failure =
                    machine_failure("the detect rule was killed when its time was over".into());
                Err(Failure {
                    output_tail: tail,
                    ..failure
                })
            }
        }
    }

    /// Drops the unpacked files of an installation that changed nothing.
    fn discard(self) -> Result<StepOutcome, Failure> {
        let staging = self.staging();
        for dir in [staging.with_extension("partial"), staging] {
            self.places.disk().clear(&dir).map_err(io_failure(&dir))?;
        }
        Ok(StepOutcome::Done)
    }

    /// Drops the unpacked files of this and of older installations.
    fn unstage(self) -> Result<StepOutcome, Failure> {
        let stagings = self.places.stagings();
        self.places
            .disk()
            .clear(&stagings)
            .map_err(io_failure(&stagings))?;
        Ok(StepOutcome::Done)
    }
}
