//! The agent's own release: a tree like any other, of which one version runs.
//!
//! `tidegate-node run` in a directory whose `node.json` names the `agent` product is its [`keeper`]: it
//! starts `tidegate-node` of `install/<agent>/current`, or itself as long as there is none, and ends with
//! it. A version that has not proved itself is on trial. The brain says that it has (it came up, took up
//! its journal, and the coordinator has a receipt for what it reported); if it dies too often before, or
//! does not come up in time, the keeper puts the one before back, and that one reports the failure.
//!
//! ```text
//! agent/proved.json     the version that proved itself last
//!      /trial.json      the version on trial, and how often it was started
//!      /refused.json    the version that the keeper took back
//!      /up.json         the version that came up last
//! ```
//!
//! Each is written anew and renamed, and names no version for the keeper's own program.

pub(crate) mod keeper;

use std::io;
use std::path::{Path, PathBuf};

use node_core::contract::{Failure, Step, StepOutcome};
use protocol::SiteId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Content, Job, io_failure, lasting_failure};
use crate::disk::Disk;

/// The variable by which a keeper tells a program which version it is; empty for the keeper's own.
pub(crate) const RUNNING: &str = "TIDEGATE_AGENT";
/// The variable by which a keeper names itself.
const KEEPER: &str = "TIDEGATE_KEEPER";
/// A mark is a short line.
const MARK_MAX_BYTES: u64 = 4096;
const MARK_VERSION: u32 = 1;

/// One of the marks.
#[derive(Clone, Copy)]
pub(crate) enum Mark {
    Proved,
    Trial,
    Refused,
    Up,
}

impl Mark {
    fn file(self) -> &'static str {
        match self {
            Mark::Proved => "proved.json",
            Mark::Trial => "trial.json",
            Mark::Refused => "refused.json",
            Mark::Up => "up.json",
        }
    }
}

/// What a mark says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Marked {
    version: u32,
    /// None: the keeper's own program.
    pub(crate) slot: Option<SiteId>,
    /// Of a trial.
    #[serde(default)]
    pub(crate) starts: u32,
}

impl Marked {
    pub(crate) fn new(slot: Option<SiteId>, starts: u32) -> Marked {
        Marked {
            version: MARK_VERSION,
            slot,
            starts,
        }
    }
}

/// The marks of a node directory.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    disk: Disk,
    dir: PathBuf,
}

impl Marks {
    pub(crate) fn new(disk: &Disk, node: &Path) -> Marks {
        Marks {
            disk: disk.clone(),
            dir: node.join("agent"),
        }
    }

    /// What it says; nothing if it is not there or not understood.
    pub(crate) fn read(&self, mark: Mark) -> Option<Marked> {
        let path = self.dir.join(mark.file());
        let length = std::fs::metadata(&path).ok()?.len();
        let text = (length <= MARK_MAX_BYTES).then(|| std::fs::read(&path).ok())??;
        let marked: Marked = serde_json::from_slice(&text).ok()?;
        (marked.version == MARK_VERSION).then_some(marked)
    }

    /// Durable on return.
    pub(crate) fn write(&self, mark: Mark, marked: &Marked) -> io::Result<()> {
        let text = serde_json::to_vec(marked).expect("a mark is plain JSON");
        self.disk.make_dirs(&self.dir)?;
        let (path, new) = (self.dir.join(mark.file()), self.dir.join(".new"));
        self.disk.clear(&new)?;
        let file = self.disk.make_file(new.as_path().into(), 0o644)?;
        self.disk.write_at(&file, &text, 0)?;
        self.disk.sync(&file)?;
        self.disk.rename(&new, &path)?;
        self.disk.sync_dir(&self.dir)
    }

    /// Durable on return.
    pub(crate) fn clear(&self, mark: Mark) -> io::Result<()> {
        let path = self.dir.join(mark.file());
        if path.exists() {
            self.disk.remove(&path)?;
            self.disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }
}

/// The agent as its own installer sees it.
#[derive(Debug)]
pub struct Agent {
    product: SiteId,
    marks: Marks,
    /// The version that runs; none for the keeper's own program.
    running: Option<SiteId>,
    restart: watch::Sender<bool>,
}

impl Agent {
    /// The agent of a node directory, if a keeper runs it.
    pub(crate) fn of(dir: &Path, product: &SiteId) -> Option<Agent> {
        let running = std::env::var(RUNNING).ok()?;
        Some(Agent {
            product: product.clone(),
            marks: Marks::new(&Disk::default(), dir),
            running: running.parse().ok(),
            restart: watch::Sender::new(false),
        })
    }

    /// The product that it is.
    pub(super) fn product(&self) -> &SiteId {
        &self.product
    }

    /// Says that it came up.
    pub(crate) fn came_up(&self) {
        let up = Marked::new(self.running.clone(), 0);
        if let Err(e) = self.marks.write(Mark::Up, &up) {
            tracing::warn!(
                event = "storage",
                "the keeper is not told that the agent is up: {e}"
            );
        }
    }

    /// Turns true when this process is to end, so that another version is started.
    pub(crate) fn restarts(&self) -> watch::Receiver<bool> {
        self.restart.subscribe()
    }

    /// Takes one step of the installation of an agent.
    pub(super) async fn step(
        &self,
        job: Job,
        content: Option<Content>,
        step: Step,
    ) -> Result<StepOutcome, Failure> {
        let version = job.release.version.clone();
        let refused = self.marks.read(Mark::Refused);
        let refused = refused.is_some_and(|mark| mark.slot.as_ref() == Some(&version));
        let mark = |mark, slot: Option<SiteId>| {
            let written = self.marks.write(mark, &Marked::new(slot, 0));
            written.map_err(io_failure(&self.marks.dir))
        };
        match step {
            Step::Detect | Step::Restart if refused => Err(lasting_failure(format!(
                "version {version} of the agent did not come up; the one before runs again"
            ))),
            Step::Restart if job.places.current_version()? == self.running => Ok(StepOutcome::Done),
            Step::Restart => {
                self.restart.send_replace(true);
                // The answer is given by the version that is started.
                std::future::pending().await
            }
            Step::Keep => {
                mark(Mark::Proved, Some(version))?;
                Ok(StepOutcome::Done)
            }
            Step::RollBack => {
                // What was there before has proved itself before.
                mark(Mark::Proved, job.before.as_ref().map(|b| b.version.clone()))?;
                let outcome = job.tree_step(content, step).await?;
                for done_with in [Mark::Refused, Mark::Trial] {
                    let cleared = self.marks.clear(done_with);
                    cleared.map_err(io_failure(&self.marks.dir))?;
                }
                Ok(outcome)
            }
            _ => job.tree_step(content, step).await,
        }
    }
}

/// Whether a keeper started this process.
pub(crate) fn under_keeper() -> bool {
    std::env::var_os(RUNNING).is_some()
}

/// The version of the agent that this process is, if a keeper started it.
pub(crate) fn running() -> Option<String> {
    std::env::var(RUNNING).ok()
}

/// This process ends with its keeper, however that ends.
pub(crate) fn end_with_keeper() -> io::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Unless that was gone before.
    let keeper = std::env::var(KEEPER).unwrap_or_default();
    match getppid().map(|pid| pid.as_raw_nonzero().to_string()) {
        Some(parent) if parent == keeper => Ok(()),
        _ => Err(io::Error::other("its keeper is gone")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_and_written_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::new(&Disk::default(), dir.path());
        let path = dir.path().join("agent").join(Mark::Trial.file());
        let write = |marked: &Marked| {
            marks.write(Mark::Trial, marked).unwrap();
            std::fs::read(&path).unwrap()
        };
        let trial = write(&Marked::new(Some("1.2.3".parse().unwrap()), 2));
        let own = write(&Marked::new(None, 0));
        let samples = [("trial.json".into(), trial), ("own.json".into(), own)];
        crate::golden::check("agent-mark", &samples, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            marks
                .read(Mark::Trial)
                .map(|marked| write(&marked))
                .ok_or("no mark".to_owned())
        });
    }

    #[test]
    fn what_is_no_mark_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::new(&Disk::default(), dir.path());
        assert_eq!(marks.read(Mark::Proved), None);
        std::fs::create_dir(dir.path().join("agent")).unwrap();
        let path = dir.path().join("agent").join(Mark::Proved.file());
        for text in [
            "",
            "{",
            r#"{"version":2,"slot":null}"#,
            r#"{"version":1,"slot":"../x"}"#,
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(marks.read(Mark::Proved), None, "{text}");
        }
        let long = format!(r#"{{"version":1,"slot":null}}{}"#, " ".repeat(5000));
        std::fs::write(&path, long).unwrap();
        assert_eq!(marks.read(Mark::Proved), None);
    }
}
