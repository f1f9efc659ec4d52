//! The `tree` installer: a slot for each version, and one link that says which is in use.

use node_core::contract::{Failure, FailureClass, Step, StepOutcome};
use protocol::Verified;
use protocol::manifest::ReleaseManifest;

use super::{Content, Job, io_failure, lasting_failure, slots};
use crate::content::tree;

impl Job {
    pub(super) async fn tree_step(
        self,
        content: Option<Content>,
        step: Step,
    ) -> Result<StepOutcome, Failure> {
        match step {
            Step::WriteSlot => self.on_disk(|job| job.write_slot(content)).await,
            Step::Switch => self.on_disk(|job| job.switch()).await,
            Step::Detect => self.on_disk(|job| job.detect()).await,
            Step::RollBack => self.on_disk(|job| job.roll_back()).await,
            Step::CleanUp => self.on_disk(|job| job.clean_up()).await,
            // The way back finds nothing but the slot to drop.
            Step::Discard => self.on_disk(|job| job.roll_back()).await,
            Step::PreHook(attempt) => {
                let slot = self.places.slot(&self.release.version);
                let pre = self.release.hooks.pre.as_ref();
                self.hook(pre, FailureClass::PreHook, attempt, &slot).await
            }
            Step::PostHook(attempt) => {
                let slot = self.places.slot(&self.release.version);
                let post = self.release.hooks.post.as_ref();
                self.hook(post, FailureClass::PostHook, attempt, &slot)
                    .await
            }
            Step::Restart => self.restart().await,
            // Asked for agents only.
            Step::Keep => Ok(StepOutcome::Done),
            Step::CheckHealth => match &self.release.health_check {
                None => Ok(StepOutcome::Done),
                Some(check) => {
                    let slot = self.places.slot(&self.release.version);
                    self.check_health(check, &slot).await
                }
            },
        }
    }

    /// A slot that is complete but was changed by somebody is written anew.
    fn write_slot(self, content: Option<Content>) -> Result<StepOutcome, Failure> {
        let content =
            content.ok_or_else(|| lasting_failure("the release's content is not here".into()))?;
        let (places, release) = (&self.places, &self.release);
        let in_use = places.current_version()?.as_ref() == Some(&release.version);
        let same = places.holds_release(release)?;
        if same && tree::matches(&content.index, &places.slot(&release.version))? {
            return Ok(StepOutcome::Done);
        }
        if in_use && !same {
            return Err(lasting_failure(format!(
                "version {} of {} is in use and is another release; give the new one its own version",
                release.version, release.product
            )));
        }
        if !same {
            places.drop_slot(&release.version)?;
        }
        let made = places.workshop().join(self.install_id.to_string());
        tree::unpack_on(places.disk(), &content.index, &content.pack, &made)?;
        places.put(&made, release)?;
        Ok(StepOutcome::Done)
    }

    fn switch(self) -> Result<StepOutcome, Failure> {
        let release = &self.release;
        if !self.places.holds_release(release)? {
            let slot = self.places.slot(&release.version);
            return Err(lasting_failure(format!(
                "{} does not hold the release",
                slot.display()
            )));
        }
        self.places
            .point_current(&release.version, &self.install_id)?;
        Ok(StepOutcome::Done)
    }

    fn detect(self) -> Result<StepOutcome, Failure> {
        let in_use = self.places.current_version()?.as_ref() == Some(&self.release.version);
        Ok(match in_use && self.places.holds_release(&self.release)? {
            true => StepOutcome::Done,
            false => StepOutcome::Absent,
        })
    }

    fn roll_back(self) -> Result<StepOutcome, Failure> {
        let Job {
            places,
            release,
            before,
            install_id,
            ..
        } = &self;
        let current = places.current_version()?;
        let names =
            |manifest: &Verified<ReleaseManifest>| current.as_ref() == Some(&manifest.version);
        match before {
            // A link to a third version was set by another installation and is not ours to move.
            Some(before) if names(release) || names(before) || current.is_none() => {
                if !places.holds_release(before)? {
                    let slot = places.slot(&before.version);
                    return Err(lasting_failure(format!(
                        "nothing to go back to: {} is not complete",
                        slot.display()
                    )));
                }
                places.point_current(&before.version, install_id)?;
            }
            None if names(release) => places.drop_current()?,
            _ => {}
        }
        let is_before = before
            .as_ref()
            .is_some_and(|before| before.version == release.version);
        if !is_before {
            places.drop_slot(&release.version)?;
        }
        let made = places.workshop().join(install_id.to_string());
        places.disk().clear(&made).map_err(io_failure(&made))?;
        Ok(StepOutcome::Done)
    }

    /// Keeps what is in use and what it replaced.
    fn clean_up(self) -> Result<StepOutcome, Failure> {
        let Job { places, before, .. } = &self;
        let current = places.current_version()?;
        let kept = [
            current,
            before.as_ref().map(|before| before.version.clone()),
        ];
        for name in slots::names(&places.versions())? {
            // A name that is no version is not ours to judge.
            if let Ok(version) = name.parse()
                && !kept.iter().flatten().any(|kept| *kept == version)
            {
                places.drop_slot(&version)?;
            }
        }
        let workshop = places.workshop();
        places
            .disk()
            .clear(&workshop)
            .map_err(io_failure(&workshop))?;
        Ok(StepOutcome::Done)
    }
}
