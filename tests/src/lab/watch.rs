//! A rollout in the lab, and when each node had every byte of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::fleet::Fleet;
use super::interrupt;
use super::mishaps::Mishaps;
use super::network::Network;
use super::scenario::{AWAY, CUT, Scenario};

/// Nodes are asked this often where they are.
const LOOK: Duration = Duration::from_millis(100);
/// A node that was killed stays down for so long.
const DOWN: Duration = Duration::from_millis(500);
/// What every node has must be installed by then.
const INSTALLED: Duration = Duration::from_secs(120);
/// Stages before everything is there, as a node's status names them.
const BEFORE: [&str; 3] = ["NotReceived", "Received", "Downloading"];

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// For each node seconds from the start of the rollout until every byte was there.
    pub complete_s: Vec<f64>,
    /// For each node payload bytes by the reason why they came the way they came.
    pub reasons: Vec<BTreeMap<String, u64>>,
    /// For each node payload bytes that came though it had them already.
    pub again: Vec<u64>,
    /// Nodes that were killed, in order.
    pub killed: Vec<String>,
    /// Mishaps by their kind.
    pub mishaps: BTreeMap<String, u32>,
}

/// Starts the rollout and looks until every node has everything.
///
/// # Errors
/// When that takes longer than the scenario's patience, or a signal ends it.
pub fn roll_out(scenario: &Scenario, network: &Network, fleet: &mut Fleet) -> Result<Story> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let id = fleet.approve()?;
    let since = Instant::now();
    fleet.tidegate(&["rollout", "start", &id])?;
    let mut watch = Watch {
        complete: vec![None; fleet.nodes.len()],
        reasons: vec![BTreeMap::new(); fleet.nodes.len()],
        ended: vec![BTreeMap::new(); fleet.nodes.len()],
        again: vec![0; fleet.nodes.len()],
        again_ended: vec![0; fleet.nodes.len()],
        killed: Vec::new(),
        cuts: 0,
        mishaps: Mishaps::new(),
    };
    let total = scenario.payload_bytes * fleet.nodes.len() as u64;
    while watch.complete.iter().any(Option::is_none) {
        std::thread::sleep(LOOK);
        interrupt::check()?;
        if since.elapsed() > Duration::from_secs(scenario.patience_s) {
            bail!(
                "after {} s these nodes are not complete: {:?}; logs:\n{}",
                scenario.patience_s,
                watch.open(fleet),
                fleet.logs()
            );
        }
        watch.look(&runtime, fleet, since);
        let came: u64 = (0..fleet.nodes.len()).map(|n| watch.bytes(n)).sum();
        let done = came as f64 / total as f64;
        watch.disturb(scenario, network, fleet, done)?;
        if watch.mishaps.are_due(scenario.mishaps, done) {
            let open = |n: &usize| watch.complete[*n].is_none();
            let open: Vec<usize> = (0..fleet.nodes.len()).filter(open).collect();
            watch.look(&runtime, fleet, since);
            if let Some(killed) = watch.mishaps.happen(&open, network, fleet)? {
                watch.was_killed(killed);
            }
        }
    }
    let complete_s = watch.complete.iter().map(|t| t.unwrap_or(f64::NAN));
    Ok(Story {
        complete_s: complete_s.collect(),
        reasons: (0..fleet.nodes.len()).map(|n| watch.sum(n)).collect(),
        again: (watch.again.iter().zip(&watch.again_ended))
            .map(|(now, before)| now + before)
            .collect(),
        killed: watch.killed,
        mishaps: watch.mishaps.counts(),
    })
}

/// Waits until every node has installed, byte by byte, what was published.
///
/// # Errors
/// With the nodes whose files are not right within `INSTALLED`.
pub fn wait_for_installs(fleet: &Fleet) -> Result<()> {
    let since = Instant::now();
    loop {
        let wrong = fleet.wrong_installs()?;
        if wrong.is_empty() {
            return Ok(());
        }
        if since.elapsed() > INSTALLED {
            bail!(
                "files are missing or wrong at {wrong:?}; logs:\n{}",
                fleet.logs()
            );
        }
        interrupt::check()?;
        std::thread::sleep(LOOK);
    }
}

struct Watch {
    complete: Vec<Option<f64>>,
    /// Bytes by reason of the process that runs now, and of those that were killed.
    reasons: Vec<BTreeMap<String, u64>>,
    ended: Vec<BTreeMap<String, u64>>,
    /// The same of bytes that came again.
    again: Vec<u64>,
    again_ended: Vec<u64>,
    killed: Vec<String>,
    cuts: u32,
    mishaps: Mishaps,
}

impl Watch {
    fn look(&mut self, runtime: &tokio::runtime::Runtime, fleet: &Fleet, since: Instant) {
        for (n, node) in fleet.nodes.iter().enumerate() {
            if self.complete[n].is_some() {
                continue;
            }
            let report = runtime.block_on(node::driver::status::read(&node.dir));
            let Ok(report) = report else { continue };
            self.again[n] = report["traffic"]["again"].as_u64().unwrap_or(0);
            let Some(standing) = report["snapshot"]["standings"].get(0) else {
                continue;
            };
            self.reasons[n] = bytes_by_reason(&standing["bytes"]);
            let state = standing["state"].as_str().unwrap_or("Waiting");
            if !BEFORE.contains(&state) {
                self.complete[n] = Some(since.elapsed().as_secs_f64());
            }
        }
    }

    /// Kills and cuts come evenly spread over the bytes that have come.
    fn disturb(
        &mut self,
        scenario: &Scenario,
        network: &Network,
        fleet: &mut Fleet,
        done: f64,
    ) -> Result<()> {
        let due = |count: u32, past: u32| {
            past < count && done > f64::from(past + 1) / f64::from(count + 1)
        };
        if due(scenario.owner_kills, self.killed.len() as u32) {
            let over_wan = |n: &usize| {
                let wan = self.reasons[*n].iter().filter(|(r, _)| *r != "peer");
                wan.map(|(_, bytes)| bytes).sum::<u64>()
            };
            let running = (0..fleet.nodes.len()).filter(|n| self.complete[*n].is_none());
            let owner = running.max_by_key(over_wan).context("somebody fetches")?;
            self.takes_away(network, fleet, owner, DOWN)?;
        }
        if due(scenario.goings, self.killed.len() as u32) {
            let running = (0..fleet.nodes.len()).filter(|n| self.complete[*n].is_none());
            let running: Vec<usize> = running.collect();
            let next = self.killed.len() * 3 % running.len().max(1);
            if let Some(next) = running.get(next) {
                self.takes_away(network, fleet, *next, AWAY)?;
            }
        }
        if due(scenario.cuts, self.cuts) {
            self.cuts += 1;
            network.cut(true)?;
            std::thread::sleep(CUT);
            network.cut(false)?;
        }
        Ok(())
    }

    fn takes_away(
        &mut self,
        network: &Network,
        fleet: &mut Fleet,
        node: usize,
        length: Duration,
    ) -> Result<()> {
        fleet.kill(node);
        self.killed.push(fleet.nodes[node].role.clone());
        self.was_killed(node);
        std::thread::sleep(length);
        fleet.start(network, node)
    }

    /// What it counted is gone with it, and is remembered here.
    fn was_killed(&mut self, node: usize) {
        self.again_ended[node] += std::mem::take(&mut self.again[node]);
        for (reason, bytes) in std::mem::take(&mut self.reasons[node]) {
            *self.ended[node].entry(reason).or_default() += bytes;
        }
    }

    fn sum(&self, n: usize) -> BTreeMap<String, u64> {
        let mut all = self.ended[n].clone();
        for (reason, bytes) in &self.reasons[n] {
            *all.entry(reason.clone()).or_default() += bytes;
        }
        all
    }

    fn bytes(&self, n: usize) -> u64 {
        self.sum(n).values().sum()
    }

    fn open(&self, fleet: &Fleet) -> Vec<String> {
        let open = fleet.nodes.iter().zip(&self.complete);
        open.filter(|(_, t)| t.is_none())
            .map(|(n, _)| n.role.clone())
            .collect()
    }
}

fn bytes_by_reason(value: &Value) -> BTreeMap<String, u64> {
    let entries = value.as_object().into_iter().flatten();
    entries
        .filter_map(|(reason, bytes)| Some((reason.clone(), bytes.as_u64()?)))
        .collect()
}
