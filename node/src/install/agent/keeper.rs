//! The keeper: starts the agent's version in use, and puts the one before back if a new one does not
//! prove itself.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use protocol::{Hash, SiteId};
use tokio::process::{Child, Command};

use super::{KEEPER, Mark, Marked, Marks, RUNNING};
use crate::disk::Disk;
use crate::install::slots::Places;

/// The exit code by which an agent asks to be started again.
pub(crate) const RESTART: u8 = 75;
/// The program of an agent's release.
const PROGRAM: &str = "tidegate-node";
/// So often a version on trial is started; a reboot counts as well.
const STARTS_MAX: u32 = 5;
/// A version on trial that is not up within this is killed.
const UP_WITHIN: Duration = Duration::from_secs(120);
/// Between two starts of a version on trial that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether a version on trial is up.
const LOOK: Duration = Duration::from_millis(200);

/// Runs the agent's versions, one at a time, until one ends for good.
pub(crate) struct Keeper {
    places: Places,
    marks: Marks,
    arguments: Vec<OsString>,
}

/// What is started next.
#[derive(PartialEq, Eq, Debug)]
struct Next {
    slot: Option<SiteId>,
    on_trial: bool,
}

impl Keeper {
    pub(crate) fn new(dir: &Path, agent: &SiteId, arguments: Vec<OsString>) -> Keeper {
        Keeper::on(&Disk::default(), dir, agent, arguments)
    }

    fn on(disk: &Disk, dir: &Path, agent: &SiteId, arguments: Vec<OsString>) -> Keeper {
        Keeper {
            places: Places::new(disk, &dir.join("install"), agent),
            marks: Marks::new(disk, dir),
            arguments,
        }
    }

    /// Keeps the agent running; the exit code with which it ended for good.
    ///
    /// # Errors
    /// When the marks cannot be written, or a version that proved itself cannot be started.
    pub(crate) async fn keep(&self) -> io::Result<u8> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        loop {
            let next = self.next()?;
            self.marks.clear(Mark::Up)?;
            let mut child = match self.start(&next.slot) {
                Err(e) if next.on_trial => {
                    tracing::warn!(event = "agent", "the new agent cannot be started: {e}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                child => child?,
            };
            let ended = tokio::select! {
                ended = self.watch(&mut child, &next) => ended?,
                _ = term.recv() => return end(child).await,
                _ = int.recv() => return end(child).await,
            };
            let code = ended.code().and_then(|code| u8::try_from(code).ok());
            match code {
                Some(RESTART) => {}
                _ if next.on_trial => {
                    tracing::warn!(event = "agent", "the new agent ended: {ended}");
                    tokio::time::sleep(PAUSE).await;
                }
                code => return Ok(code.unwrap_or(1)),
            }
        }
    }

    /// What is to run: what `current` names, unless it was on trial for too long.
    fn next(&self) -> io::Result<Next> {
        let failed = |f: node_core::contract::Failure| io::Error::other(f.reason);
        let current = self.places.current_version().map_err(failed)?;
        let proved = self.marks.read(Mark::Proved).and_then(|mark| mark.slot);
        if current == proved {
            return Ok(Next {
                slot: current,
                on_trial: false,
            });
        }
        let trial = self.marks.read(Mark::Trial);
        let starts = trial
            .filter(|mark| mark.slot == current)
            .map_or(0, |mark| mark.starts);
        if starts < STARTS_MAX {
            let trial = Marked::new(current.clone(), starts + 1);
            self.marks.write(Mark::Trial, &trial)?;
            return Ok(Next {
                slot: current,
                on_trial: true,
            });
        }
        tracing::warn!(
            event = "agent",
            "the new agent did not prove itself; the one before is put back"
        );
        // Said first: whoever finds the old one in use must not take the new one for untried.
        self.marks.write(Mark::Refused, &Marked::new(current, 0))?;
        match &proved {
            Some(version) => self.places.point_current(version, &Hash([0; 32])),
            None => self.places.drop_current(),
        }
        .map_err(failed)?;
        Ok(Next {
            slot: proved,
            on_trial: false,
        })
    }

    fn start(&self, slot: &Option<SiteId>) -> io::Result<Child> {
        let (program, running) = match slot {
            Some(version) => (self.places.slot(version).join(PROGRAM), version.as_str()),
            None => (std::env::current_exe()?, ""),
        };
        Command::new(program)
            .args(&self.arguments)
            .env(RUNNING, running)
            .env(KEEPER, std::process::id().to_string())
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits for its end; kills it if it is on trial and does not come up in time.
    async fn watch(&self, child: &mut Child, next: &Next) -> io::Result<ExitStatus> {
        let began = Instant::now();
        let mut is_up = !next.on_trial;
        loop {
            tokio::select! {
                ended = child.wait() => return ended,
                () = tokio::time::sleep(LOOK), if !is_up => {}
            }
            let up = self.marks.read(Mark::Up);
            is_up = up.is_some_and(|mark| mark.slot == next.slot);
            if !is_up && began.elapsed() > UP_WITHIN {
                child.kill().await?;
            }
        }
    }
}

/// Hands the signal on, and ends with the agent.
async fn end(mut child: Child) -> io::Result<u8> {
    if let Some(pid) = child
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(id as i32))
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let ended = child.wait().await?;
    Ok(ended
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Arc;

    use super::*;
    use crate::crashes::mortal::{Death, Lost, Mortal};

    /// A node directory with agents 1.0 and 2.0, scripts of these lines; 2.0 is in use, 1.0 has proved
    /// itself.
    fn switched(one: &str, two: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let product = dir.path().join("install/agent");
        for (version, line) in [("1.0", one), ("2.0", two)] {
            let slot = product.join("versions").join(version);
            fs::create_dir_all(&slot).unwrap();
            let program = slot.join(PROGRAM);
            fs::write(&program, format!("#!/bin/sh\n{line}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        symlink("versions/2.0", product.join("current")).unwrap();
        let marks = Marks::new(&Disk::default(), dir.path());
        marks.write(Mark::Proved, &version("1.0")).unwrap();
        dir
    }

    fn version(version: &str) -> Marked {
        Marked::new(Some(version.parse().unwrap()), 0)
    }

    fn keeper(disk: &Disk, dir: &Path, arguments: &[&str]) -> Keeper {
        let arguments = arguments.iter().map(OsString::from).collect();
        Keeper::on(disk, dir, &"agent".parse().unwrap(), arguments)
    }

    fn current(dir: &Path) -> String {
        let target = fs::read_link(dir.join("install/agent/current")).unwrap();
        target.to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_version_that_does_not_live_is_put_back() {
        let dir = switched("echo one >> $1; exit 3", "echo two >> $1; exit 7");
        let log = dir.path().join("log");
        let keeper = keeper(&Disk::default(), dir.path(), &[log.to_str().unwrap()]);
        assert_eq!(
            keeper.keep().await.unwrap(),
            3,
            "the code of the one that proved itself"
        );
        let expected = "two\n".repeat(STARTS_MAX as usize) + "one\n";
        assert_eq!(fs::read_to_string(log).unwrap(), expected);
        assert_eq!(current(dir.path()), "versions/1.0");
        assert_eq!(keeper.marks.read(Mark::Refused), Some(version("2.0")));
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_put_back_too() {
        let dir = switched("exit 0", "exit 0");
        fs::remove_file(dir.path().join("install/agent/versions/2.0").join(PROGRAM)).unwrap();
        let keeper = keeper(&Disk::default(), dir.path(), &[]);
        assert_eq!(keeper.keep().await.unwrap(), 0);
        assert_eq!(current(dir.path()), "versions/1.0");
    }

    #[tokio::test]
    async fn an_agent_that_asks_is_started_again_as_the_version_in_use() {
        let dir = switched("exit 0", "ln -sfn versions/1.0 $1; exit 75");
        let link = dir.path().join("install/agent/current");
        let keeper = keeper(&Disk::default(), dir.path(), &[link.to_str().unwrap()]);
        assert_eq!(keeper.keep().await.unwrap(), 0);
        assert_eq!(
            keeper.marks.read(Mark::Refused),
            None,
            "it gave way by itself"
        );
    }

    /// Whatever change of the disk the keeper dies at, the next one goes on: the new version has its
    /// starts and no more, and is refused before the old one runs.
    #[test]
    fn a_keeper_that_dies_at_any_change_puts_back_all_the_same() {
        let deaths = [
            Death::Killed,
            Death::Torn,
            Death::PowerCut(Lost::Everything),
            Death::PowerCut(Lost::Bytes),
            Death::PowerCut(Lost::Names),
        ];
        let mut points = 0;
        for how in deaths {
            for at in 0.. {
                let dir = switched("", "");
                let graves = dir.path().join("graves");
                let mortal = Arc::new(Mortal::new(graves, at, how));
                let dying = keeper(&Disk::over(mortal.clone()), dir.path(), &[]);
                let mut starts = 0;
                while dying.next().is_ok_and(|next| next.on_trial) {
                    starts += 1;
                }
                if !mortal.is_dead() {
                    break;
                }
                points += 1;
                mortal.forget();
                let keeper = keeper(&Disk::default(), dir.path(), &[]);
                let last = loop {
                    let next = keeper.next().unwrap();
                    if !next.on_trial {
                        break next;
                    }
                    starts += 1;
                };
                // The start that was noted and not made counts.
                assert!(
                    (STARTS_MAX - 1..=STARTS_MAX).contains(&starts),
                    "{how:?} at {at}"
                );
                assert_eq!(last.slot, Some("1.0".parse().unwrap()), "{how:?} at {at}");
                assert_eq!(current(dir.path()), "versions/1.0");
                assert_eq!(keeper.marks.read(Mark::Refused), Some(version("2.0")));
            }
        }
        println!("{points} points");
        assert!(points >= 150);
    }
}
