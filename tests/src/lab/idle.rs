//! What nodes use that have nothing to do: they hold a release, belong to a site, and wait.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::fleet::Fleet;
use super::interrupt;
use super::network::{Network, check_tools};
use super::process::{Usage, resident_mib};
use super::scenario::Scenario;
use super::watch;

/// After the rollout, until everybody has told everybody.
const CALM: Duration = Duration::from_secs(20);
/// They are watched for so long.
const LENGTH: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// The scenario.
    pub scenario: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// For so long they were watched.
    pub seconds: f64,
    /// Each process.
    pub processes: Vec<Idler>,
}

/// One process that waits.
#[derive(Clone, Debug, Serialize)]
pub struct Idler {
    /// Which one.
    pub process: String,
    /// Of one core.
    pub cpu_percent: f64,
    /// Resident at the end, MiB.
    pub resident_mib: f64,
    /// The most that was resident since it began, MiB.
    pub peak_mib: f64,
}

/// Rolls the payload out, waits, and looks at each process twice.
///
/// # Errors
/// What did not come up, or ended.
pub fn run(scenario: &Scenario) -> Result<Idle> {
    check_tools()?;
    interrupt::listen()?;
    let network = Network::build(scenario)?;
    let mut fleet = Fleet::raise(scenario, &network)?;
    fleet.publish(scenario)?;
    watch::roll_out(scenario, &network, &mut fleet)?;
    watch::wait_for_installs(&fleet)?;
    interrupt::wait(CALM)?;
    let (before, since) = (fleet.usage(&network)?, Instant::now());
    interrupt::wait(LENGTH)?;
    let after = fleet.usage(&network)?;
    let seconds = since.elapsed().as_secs_f64();
    let idler = |(before, after): (&Usage, Usage)| -> Result<Idler> {
        let used = after.cpu_seconds - before.cpu_seconds;
        Ok(Idler {
            cpu_percent: round(used / seconds * 100.0),
            resident_mib: round(resident_mib(after.pid)?),
            peak_mib: round(after.peak_mib),
            process: after.process,
        })
    };
    let processes: Result<Vec<Idler>> = before.iter().zip(after).map(idler).collect();
    Ok(Idle {
        scenario: scenario.name,
        about: scenario.about,
        seconds: round(seconds),
        processes: processes?,
    })
}

impl Idle {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{}: {}; watched for {} s\n",
            self.scenario, self.about, self.seconds
        );
        for p in &self.processes {
            text += &format!(
                "  {:12} {:6.3} % of a core, {:6.1} MiB resident, at most {:6.1}\n",
                p.process, p.cpu_percent, p.resident_mib, p.peak_mib
            );
        }
        text
    }
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}
