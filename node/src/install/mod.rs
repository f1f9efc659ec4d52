//! The installers: what a step of the journal does to the machine.
//!
//! ```text
//! install/<product>/versions/<version>/     a complete slot; its appearance is one rename
//!                  /current                 a link to versions/<version>; its change is one rename
//!                  /releases/<version>.json which release the slot holds
//!                  /slots/<install id>      a slot while it is written or removed
//!                  /staging/<install id>/   the unpacked files of a command recipe
//! ```
//!
//! Every step may be asked for again after a crash: it looks at what is on disk and does what is left.
//! A step never reports more than it found: an outcome is `Done` only when its result is on disk, durably.
//!
//! Programs (hooks, recipe steps, detect rules, health checks) run in the unpacked tree, in a process group of
//! their own, with a small environment: `PATH`, `HOME`, `LANG`, `TZ`, `TMPDIR` of the node, and
//! `TIDEGATE_INSTALL_ID`, `TIDEGATE_PRODUCT`, `TIDEGATE_VERSION`, `TIDEGATE_RELEASE` (its digest) and
//! `TIDEGATE_PREVIOUS` (the version that was installed before, or nothing); hooks also have
//! `TIDEGATE_ATTEMPT`.

pub(crate) mod agent;
mod command;
mod notice;
mod process;
mod slots;
#[cfg(test)]
mod tests;
mod tree;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use node_core::contract::{Failure, FailureClass, Step, StepOutcome};
use protocol::index::CheckedIndex;
use protocol::limits::STEP_TIMEOUT;
use protocol::manifest::{HealthCheck, Hook, Install, ReleaseManifest};
use protocol::{BlobRef, Hash, Verified};

use crate::content::tree::UnpackError;
use crate::disk::Disk;
use crate::store::blobs::Blob;
pub use agent::Agent;
pub use notice::show;
use process::Run;
use slots::Places;

/// Takes the steps of installations below one directory: `<product>/{versions/<version>, current}`.
#[derive(Clone, Debug)]
pub struct Installer {
    disk: Disk,
    root: PathBuf,
    agent: Option<Arc<Agent>>,
    restart: Arc<Vec<String>>,
}

/// The release's content, complete and verified on this disk.
#[derive(Clone)]
pub struct Content {
    /// The index.
    pub index: Arc<CheckedIndex>,
    /// The pack.
    pub pack: Arc<Blob>,
}

/// Index and pack of a release for this platform.
pub(crate) fn blobs_of(release: &ReleaseManifest) -> Result<(BlobRef, BlobRef), String> {
    let artifact = release
        .artifact_for(std::env::consts::OS, std::env::consts::ARCH)
        .ok_or("the release has nothing for this platform")?;
    Ok((artifact.index, artifact.pack))
}

impl Installer {
    /// Installs below `root`, which is made when it is first needed.
    pub fn new(root: impl Into<PathBuf>) -> Installer {
        Installer::on(Disk::default(), root.into())
    }

    /// The same on any disk.
    pub(crate) fn on(disk: Disk, root: PathBuf) -> Installer {
        Installer {
            disk,
            root,
            agent: None,
            restart: Arc::default(),
        }
    }

    /// Asks the machine to restart by this program.
    pub fn with_restart(self, restart: Vec<String>) -> Installer {
        Installer {
            restart: Arc::new(restart),
            ..self
        }
    }

    /// Installs the agent's own releases as well.
    pub fn with_agent(self, agent: Option<Arc<Agent>>) -> Installer {
        Installer { agent, ..self }
    }

    /// Whether the release is the agent itself.
    pub(crate) fn is_agents(&self, release: &ReleaseManifest) -> bool {
        let agent = self.agent.as_ref();
        agent.is_some_and(|agent| *agent.product() == release.product)
    }

    /// The directory of all products.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes one step. `content` is needed for [`Step::WriteSlot`], and for [`Step::RollBack`] of a recipe
    /// whose unpacked files are gone. Dropping the future kills a
    /// program that the step runs.
    pub async fn step(
        &self,
        install_id: Hash,
        release: &Verified<ReleaseManifest>,
        before: Option<&Verified<ReleaseManifest>>,
        content: Option<Content>,
        step: Step,
    ) -> StepOutcome {
        let job = Job {
            places: Places::new(&self.disk, &self.root, &release.product),
            install_id,
            release: release.clone(),
            before: before.cloned(),
            restart: self.restart.clone(),
        };
        let agent = self.agent.as_ref();
        let agent = agent.filter(|agent| *agent.product() == release.product);
        let outcome = match (&release.install, agent) {
            (Install::Tree, Some(agent)) => agent.step(job, content, step).await,
            (Install::Command { .. }, Some(_)) => Err(lasting_failure(
                "a release of the agent itself is a tree; build it without a recipe".into(),
            )),
            (Install::Tree, None) => job.tree_step(content, step).await,
            (Install::Command { .. }, None) => job.command_step(content, step).await,
        };
        outcome.unwrap_or_else(StepOutcome::Failed)
    }
}

/// One installation, as a step sees it.
#[derive(Clone)]
struct Job {
    places: Places,
    install_id: Hash,
    release: Verified<ReleaseManifest>,
    before: Option<Verified<ReleaseManifest>>,
    restart: Arc<Vec<String>>,
}

impl Job {
    /// Runs `work`, which blocks on the disk, on a thread for that.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(Job) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let job = self.clone();
        let broken = |e: tokio::task::JoinError| machine_failure(format!("the step broke: {e}"));
        tokio::task::spawn_blocking(move || work(job))
            .await
            .map_err(broken)?
    }

    /// The health check, once.
    async fn check_health(&self, check: &HealthCheck, cwd: &Path) -> Result<StepOutcome, Failure> {
        let ended = self.run(&check.argv, cwd, check.timeout).await?;
        let health = of_class(FailureClass::Health);
        ended
            .expect("health check", &check.argv, &[0])
            .map_err(health)?;
        Ok(StepOutcome::Done)
    }

    /// A hook of the manifest, in an attempt; no hook is done.
    async fn hook(
        &self,
        hook: Option<&Hook>,
        class: FailureClass,
        attempt: u32,
        cwd: &Path,
    ) -> Result<StepOutcome, Failure> {
        let Some(hook) = hook else {
            return Ok(StepOutcome::Done);
        };
        let attempt = ("TIDEGATE_ATTEMPT", attempt.to_string());
        let ended = self.run_with(&hook.argv, cwd, hook.timeout, Some(attempt));
        let what = match class {
            FailureClass::PreHook => "pre hook",
            _ => "post hook",
        };
        let expected = ended.await?.expect(what, &hook.argv, &[0]);
        expected.map_err(of_class(class))?;
        Ok(StepOutcome::Done)
    }

    /// Asks the machine to restart.
    async fn restart(&self) -> Result<StepOutcome, Failure> {
        if self.restart.is_empty() {
            return Err(lasting_failure(
                "the release needs a restart of the machine, and node.json names no program that does \
                 it: set `restart`"
                    .into(),
            ));
        }
        let ended = self.run(&self.restart, Path::new("/"), STEP_TIMEOUT);
        let expected = ended.await?.expect("the restart by", &self.restart, &[0]);
        expected.map_err(of_class(FailureClass::Restart))?;
        Ok(StepOutcome::Done)
    }

    async fn run(
        &self,
        argv: &[String],
        cwd: &Path,
        timeout: protocol::Span,
    ) -> Result<process::Ended, Failure> {
        self.run_with(argv, cwd, timeout, None).await
    }

    async fn run_with(
        &self,
        argv: &[String],
        cwd: &Path,
        timeout: protocol::Span,
        more: Option<(&'static str, String)>,
    ) -> Result<process::Ended, Failure> {
        let mut environment = vec![
            ("TIDEGATE_INSTALL_ID", self.install_id.to_string()),
            ("TIDEGATE_PRODUCT", self.release.product.to_string()),
            ("TIDEGATE_VERSION", self.release.version.to_string()),
            ("TIDEGATE_RELEASE", self.release.digest().to_string()),
            (
                "TIDEGATE_PREVIOUS",
                self.before
                    .as_ref()
                    .map_or(String::new(), |b| b.version.to_string()),
            ),
        ];
        environment.extend(more);
        process::run(Run {
            argv,
            cwd,
            environment: &environment,
            timeout,
        })
        .await
    }
}

/// A failure of this machine: another attempt may succeed.
fn machine_failure(reason: String) -> Failure {
    Failure {
        reason,
        exit_code: None,
        output_tail: String::new(),
        class: FailureClass::Machine,
    }
}

/// A failure of the release, or of how things stand here: another attempt would end alike.
fn lasting_failure(reason: String) -> Failure {
    Failure {
        reason,
        exit_code: None,
        output_tail: String::new(),
        class: FailureClass::Release,
    }
}

/// The same failure as one of this class.
fn of_class(class: FailureClass) -> impl Fn(Failure) -> Failure {
    move |failure| Failure { class, ..failure }
}

/// A failed system call on `path`.
fn io_failure(path: &Path) -> impl Fn(io::Error) -> Failure + use<> {
    let path = crate::content::build::shown(path);
    move |e| Failure {
        class: class_of(&e),
        ..machine_failure(format!("{path}: {e}"))
    }
}

fn class_of(error: &io::Error) -> FailureClass {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FailureClass::DiskFull,
        _ => FailureClass::Machine,
    }
}

impl From<UnpackError> for Failure {
    fn from(error: UnpackError) -> Failure {
        match &error {
            UnpackError::Io { source, .. } => Failure {
                class: class_of(source),
                ..machine_failure(error.to_string())
            },
            _ => lasting_failure(error.to_string()),
        }
    }
}
