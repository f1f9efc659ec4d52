//! The origin's process: started, watched, adopted, stopped.
//!
//! It is this executable again with a hidden subcommand, in a process group of its own, so that it
//! outlives the coordinator. It gets its own directory and nothing else: no signing key is in its
//! reach. A node holds `run/lock` in its directory while it lives, with its process id inside; that
//! is how an origin of an earlier coordinator is found and adopted.

use protocol::limits;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node::driver::Clock;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::events::EventLog;

/// After its death an origin is started again at once, then ever later.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// See [`BACKOFF_MIN`].
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// An origin that lived for so long was well.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// How often an adopted origin is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// An origin that is asked to end has so long; then it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What runs as the origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

impl Program {
    /// This executable's hidden subcommand.
    ///
    /// # Errors
    /// When the system does not tell which executable this is.
    pub fn own(origin_dir: &Path) -> io::Result<Program> {
        let dir = origin_dir
            .to_str()
            .ok_or_else(|| io::Error::other("the directory's name is not UTF-8"))?;
        let args = ["internal-node", "--dir", dir, "--role", "origin"]
            .map(str::to_owned)
            .to_vec();
        Ok(Program {
            path: std::env::current_exe()?,
            args,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Run,
    /// Let it live, but look after it no more.
    Leave,
    Stop,
}

/// The supervisor of one origin.
pub struct Supervisor {
    wish: watch::Sender<Wish>,
    pid: watch::Receiver<Option<u32>>,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Adopts the origin that runs, or starts one, and starts another whenever it dies.
    pub fn start(
        dir: PathBuf,
        program: Program,
        log: Arc<EventLog>,
        clock: Arc<Clock>,
    ) -> Supervisor {
        let (wish, wishes) = watch::channel(Wish::Run);
        let (pid_to, pid) = watch::channel(None);
        let watcher = Watcher {
            dir,
            program,
            log,
            clock,
            wishes,
            pid: pid_to,
        };
        Supervisor {
            wish,
            pid,
            task: tokio::spawn(watcher.watch()),
        }
    }

    /// Process id of the origin, while it runs.
    pub fn pid(&self) -> watch::Receiver<Option<u32>> {
        self.pid.clone()
    }

    /// Ends the supervision, and the origin unless `keep`.
    pub async fn end(self, keep: bool) {
        self.wish
            .send_replace(if keep { Wish::Leave } else { Wish::Stop });
        let _ = self.task.await;
    }
}

struct Watcher {
    dir: PathBuf,
    program: Program,
    log: Arc<EventLog>,
    clock: Arc<Clock>,
    wishes: watch::Receiver<Wish>,
    pid: watch::Sender<Option<u32>>,
}

impl Watcher {
    async fn watch(mut self) {
        let mut backoff = BACKOFF_MIN;
        while *self.wishes.borrow() == Wish::Run {
            let since = Instant::now();
            match running(&self.dir) {
                Some(pid) => self.adopt(pid).await,
                None => self.run_child().await,
            }
            self.pid.send_replace(None);
            backoff = if since.elapsed() >= WELL_AFTER {
                BACKOFF_MIN
            } else {
                backoff
            };
            let gone = self.wishes.wait_for(|wish| *wish != Wish::Run);
            let _ = tokio::time::timeout(backoff, gone).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn note(&self, line: &str) {
        self.log.note(self.clock.now().wall, "origin", line);
    }

    async fn run_child(&self) {
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(e) => {
                return self.note(&format!(
                    "the origin cannot be started ({}): {e}",
                    self.program.path.display()
                ));
            }
        };
        let pid = child.id();
        self.pid.send_replace(pid);
        self.note(&format!(
            "the origin runs as process {}",
            pid.unwrap_or_default()
        ));
        let mut wishes = self.wishes.clone();
        let wish = tokio::select! {
            ended = child.wait() => {
                let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
                return self.note(&format!("the origin ended ({how}); its log is {}", self.log_file().display()));
            }
            wish = wishes.wait_for(|wish| *wish != Wish::Run) => wish.map_or(Wish::Leave, |wish| *wish),
        };
        if wish == Wish::Stop {
            signal(pid, Signal::TERM);
            if tokio::time::timeout(END_TIMEOUT, child.wait())
                .await
                .is_err()
            {
                let _ = child.kill().await;
            }
        }
    }

    fn spawn(&self) -> io::Result<tokio::process::Child> {
        let mut command = std::process::Command::new(&self.program.path);
        command
            .args(&self.program.args)
            .env_remove("TIDEGATE_PASSPHRASE")
            .stdin(Stdio::null())
            .stdout(self.open_log()?)
            .stderr(self.open_log()?)
            .process_group(0);
        tokio::process::Command::from(command)
            .kill_on_drop(false)
            .spawn()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("origin.log")
    }

    fn open_log(&self) -> io::Result<File> {
        let path = self.log_file();
        if fs::metadata(&path).is_ok_and(|m| m.len() > limits::ORIGIN_LOG_MAX_BYTES) {
            fs::rename(&path, path.with_extension("log.old"))?;
        }
        OpenOptions::new().create(true).append(true).open(path)
    }

    /// Looks after an origin that an earlier coordinator started.
    async fn adopt(&self, pid: u32) {
        self.pid.send_replace(Some(pid));
        self.note(&format!(
            "the origin runs already, as process {pid}; adopted"
        ));
        let mut wishes = self.wishes.clone();
        let wish = loop {
            let changed = wishes.wait_for(|wish| *wish != Wish::Run);
            match tokio::time::timeout(LOOK, changed).await {
                Ok(wish) => break wish.map_or(Wish::Leave, |wish| *wish),
                Err(_) if running(&self.dir).is_none() => {
                    return self.note("the adopted origin ended");
                }
                Err(_) => {}
            }
        };
        if wish == Wish::Stop {
            signal(Some(pid), Signal::TERM);
            let since = Instant::now();
            while running(&self.dir) == Some(pid) {
                if since.elapsed() > END_TIMEOUT {
                    signal(Some(pid), Signal::KILL);
                }
                tokio::time::sleep(LOOK / 5).await;
            }
        }
    }
}

/// The process that holds the node directory, if one does.
pub(super) fn running(dir: &Path) -> Option<u32> {
    let path = dir.join("run").join("lock");
    let file = File::open(&path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => fs::read_to_string(&path).ok()?.trim().parse().ok(),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn signal(pid: Option<u32>, signal: Signal) {
    if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid as i32)) {
        // It may be gone already, and then there is nobody to end.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An origin as far as its supervisor sees: it locks its directory and writes its id.
    fn program(dir: &Path) -> Program {
        let script = format!(
            "mkdir -p {0}/run && exec 9>>{0}/run/lock && flock -n 9 && echo $$ > {0}/run/lock && while :; do sleep 0.05; done",
            dir.display()
        );
        Program {
            path: "/bin/sh".into(),
            args: vec!["-c".into(), script],
        }
    }

    fn supervise(dir: &Path) -> Supervisor {
        Supervisor::start(
            dir.to_owned(),
            program(dir),
            Arc::default(),
            Arc::new(Clock::new(protocol::Time(0))),
        )
    }

    async fn lives(supervisor: &Supervisor, dir: &Path, not: Option<u32>) -> u32 {
        let mut pid = supervisor.pid();
        let wait = async {
            loop {
                let now = *pid.borrow_and_update();
                if let Some(now) = now
                    && Some(now) != not
                    && running(dir) == Some(now)
                {
                    return now;
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), pid.changed()).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .expect("an origin lives")
    }

    #[tokio::test]
    async fn a_dead_origin_is_started_again_and_a_living_one_is_adopted_by_the_next_coordinator() {
        let temp = tempfile::tempdir().unwrap();
        let first = supervise(temp.path());
        let pid = lives(&first, temp.path(), None).await;
        signal(Some(pid), Signal::KILL);
        let second_pid = lives(&first, temp.path(), Some(pid)).await;
        first.end(true).await;
        assert_eq!(
            running(temp.path()),
            Some(second_pid),
            "it outlives its coordinator"
        );

        let next = supervise(temp.path());
        assert_eq!(lives(&next, temp.path(), None).await, second_pid);
        next.end(false).await;
        assert_eq!(running(temp.path()), None);
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_started_is_told_of() {
        let temp = tempfile::tempdir().unwrap();
        let log = Arc::new(EventLog::new());
        let program = Program {
            path: "/nonexistent/tidegate".into(),
            args: Vec::new(),
        };
        let clock = Arc::new(Clock::new(protocol::Time(0)));
        let supervisor = Supervisor::start(temp.path().to_owned(), program, log.clone(), clock);
        let events = log.after(0, Duration::from_secs(30)).await;
        assert!(events.events[0].line.contains("/nonexistent/tidegate"));
        supervisor.end(false).await;
    }
}
