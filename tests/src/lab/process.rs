//! Processes of the lab: commands that must succeed, and what a process has used.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// What a process has used.
#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    /// Which one.
    pub process: String,
    /// Its number.
    #[serde(skip)]
    pub pid: u32,
    /// Processor time, user and system.
    pub cpu_seconds: f64,
    /// Most memory that was resident at once.
    pub peak_mib: f64,
}

/// Runs a command to its end and gives what it prints.
///
/// # Errors
/// The command and what it said, when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command
        .output()
        .with_context(|| format!("failed to start {command:?}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("failed to run {command:?}: {}", said.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// What the process `pid` has used so far, its ended children not counted (proc(5)).
///
/// # Errors
/// When it is gone.
pub fn usage(process: String, pid: u32) -> Result<Usage> {
    let [user, system, _, _] =
        times(&pid.to_string()).with_context(|| format!("{process} has ended"))?;
    Ok(Usage {
        process,
        pid,
        cpu_seconds: user + system,
        peak_mib: memory_mib(pid, "VmHWM:")?,
    })
}

/// What of the process `pid` is in memory now.
///
/// # Errors
/// When it is gone.
pub fn resident_mib(pid: u32) -> Result<f64> {
    memory_mib(pid, "VmRSS:")
}

fn memory_mib(pid: u32, which: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|l| l.strip_prefix(which));
    let kib = kib.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.with_context(|| format!("process {pid} has no {which}"))? / 1024.0)
}

/// Processor seconds of all processes that the lab started and that have ended, and of theirs.
///
/// # Errors
/// When the kernel does not say.
pub fn reaped_seconds() -> Result<f64> {
    let [_, _, user, system] = times("self")?;
    Ok(user + system)
}

/// Seconds as user and in the system, and those of children that were waited for (proc(5)).
fn times(pid: &str) -> Result<[f64; 4]> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // the second field is the command in parentheses and may contain anything
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok());
    let second = rustix::param::clock_ticks_per_second() as f64;
    Ok([11, 12, 13, 14].map(|n| ticks(n).unwrap_or(0) as f64 / second))
}

/// Whether a process runs the given subcommand of our executables.
pub fn runs(pid: u32, subcommand: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .any(|argument| argument == subcommand.as_bytes())
}
