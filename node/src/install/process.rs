//! Running a program of a release: bounded in time and output, with all its children.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use node_core::contract::{Failure, FailureClass};
use protocol::Span;
use protocol::limits::OUTPUT_TAIL_BYTES;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{io_failure, lasting_failure};

/// Variables that a program gets from the node's own environment.
const INHERITED: [&str; 8] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SYSTEMROOT",
];
/// Once the program has ended, its output is read for so long: a child that it left behind on purpose
/// (a service) may hold the pipe open for ever.
const OUTPUT_GRACE: Span = Span::from_millis(500);

/// What is run.
pub(super) struct Run<'a> {
    /// Program and arguments; a program that starts with `./` is looked up in `cwd`.
    pub argv: &'a [String],
    /// Where.
    pub cwd: &'a Path,
    /// Beside the inherited variables.
    pub environment: &'a [(&'static str, String)],
    /// It and its process group are killed after this.
    pub timeout: Span,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself.
    Exit {
        /// Its exit code, or 128 and the number of the signal that ended it, as shells have it.
        code: i32,
        /// The last of its output.
        tail: String,
    },
    /// It was killed because its time was over.
    TimedOut {
        /// The last of its output.
        tail: String,
        /// The time that it had.
        after: Span,
    },
    /// There is no such program.
    NotFound,
}

impl Ended {
    /// An error unless it ended by itself with one of `codes`.
    pub fn expect(self, what: &str, argv: &[String], codes: &[i32]) -> Result<(), Failure> {
        let line = shown(argv);
        match self {
            Ended::Exit { code, .. } if codes.contains(&code) => Ok(()),
            Ended::Exit { code, tail } => Err(Failure {
                reason: format!("{what} `{line}` ended with exit code {code}"),
                exit_code: Some(code),
                output_tail: tail,
                class: FailureClass::Release,
            }),
            Ended::TimedOut { tail, after } => Err(Failure {
                reason: format!(
                    "{what} `{line}` was killed after {} s",
                    after.0 as f64 / 1e3
                ),
                exit_code: None,
                output_tail: tail,
                class: FailureClass::Timeout,
            }),
            Ended::NotFound => Err(lasting_failure(format!(
                "{what} `{line}`: there is no such program"
            ))),
        }
    }
}

/// A command line for a message, cut at 120 characters.
fn shown(argv: &[String]) -> String {
    let line = argv.join(" ");
    let mut line: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if let Some((cut, _)) = line.char_indices().nth(120) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

/// Runs a program to its end. Dropping the future kills its process group.
///
/// # Errors
/// When it cannot be started for another reason than that it is not there.
pub(super) async fn run(run: Run<'_>) -> Result<Ended, Failure> {
    let (word, arguments) = run
        .argv
        .split_first()
        .ok_or_else(|| lasting_failure("an argv is empty".into()))?;
    if !run.cwd.is_dir() {
        return Err(lasting_failure(format!(
            "{} is not there to run `{word}` in",
            run.cwd.display()
        )));
    }
    let program = program(word, run.cwd);
    let (output, input) = io::pipe().map_err(io_failure(&program))?;
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .current_dir(run.cwd)
        .env_clear()
        .envs(inherited())
        .envs(run.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(input.try_clone().map_err(io_failure(&program))?)
        .stderr(input)
        .process_group(0);
    let spawned = spawn(&mut command).await;
    // It holds the pipe's writing ends, which must close with the program.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Ended::NotFound),
        Err(e) => return Err(lasting_failure(format!("{}: {e}", program.display()))),
    };
    let group = Group::of(&child);
    let output = pipe::Receiver::from_owned_fd(output.into()).map_err(io_failure(&program))?;
    let mut tail = Tail::default();
    let status = {
        let ended = async {
            tokio::select! {
                status = child.wait() => status,
                () = tail.read(&output) => child.wait().await,
            }
        };
        timeout(run.timeout.as_duration(), ended).await
    };
    match status {
        Ok(status) => {
            group.leave();
            let status = status.map_err(io_failure(&program))?;
            let _ = timeout(OUTPUT_GRACE.as_duration(), tail.read(&output)).await;
            Ok(Ended::Exit {
                code: exit_code(status),
                tail: tail.text(),
            })
        }
        Err(_) => {
            drop(group);
            let _ = child.wait().await;
            let _ = timeout(OUTPUT_GRACE.as_duration(), tail.read(&output)).await;
            Ok(Ended::TimedOut {
                tail: tail.text(),
                after: run.timeout,
            })
        }
    }
}

/// Where the program is: `./x` in `cwd`, anything else as the system finds it.
fn program(word: &str, cwd: &Path) -> PathBuf {
    match word.strip_prefix("./") {
        Some(below) => cwd.join(below),
        None => PathBuf::from(word),
    }
}

fn inherited() -> impl Iterator<Item = (&'static str, OsString)> {
    INHERITED
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// Starts it. A file that was just unpacked may be open for writing in a process that another thread of
/// this one is only just forking: that passes.
async fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..50 {
        match command.spawn() {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            spawned => return spawned,
        }
    }
    command.spawn()
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The program's process group, which is killed on drop. Its id cannot have passed to others by then: it
/// is that of a child that was not waited for.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        Group(child.id().and_then(|id| Pid::from_raw(id as i32)))
    }
    /// The program has ended by itself; what it left behind on purpose stays.
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The last bytes of an output.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads until the end; may be dropped and called again at any point.
    async fn read(&mut self, output: &pipe::Receiver) {
        let mut buffer = [0; 4096];
        while output.readable().await.is_ok() {
            match output.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => self.push(&buffer[..read]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(OUTPUT_TAIL_BYTES);
        self.0.drain(..surplus);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}
