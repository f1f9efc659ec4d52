//! What came of it, as data: the same bytes for the same seed.

use std::collections::BTreeMap;

use coordinator_core::contract::{Counts, RolloutState};
use node_core::contract::FetchReason;
use protocol::status::{Bucket, Reachability, bucket};
use serde::Serialize;

use crate::traffic::Traffic;
use crate::world::World;

/// What came of a scenario.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// Nodes, without the origin.
    pub nodes: u32,
    /// Happenings.
    pub events: u64,
    /// Virtual time that passed.
    pub virtual_seconds: f64,
    /// Real time that passed; left out unless asked for, because it differs each time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_seconds: Option<f64>,
    /// Copies of the carrier that crossed a site's WAN, over sites and releases.
    pub wan_copies: Copies,
    /// Bytes that crossed any WAN inward, by why they came that way.
    pub wan_bytes_by_reason: BTreeMap<FetchReason, u64>,
    /// The sites.
    pub sites: Vec<SiteReport>,
    /// The rollouts, in order.
    pub rollouts: Vec<RolloutReport>,
    /// What stands on the machines at the end, whatever they say, with the number of machines.
    pub installed: BTreeMap<String, u32>,
    /// Orders that the coordinator gave.
    pub orders: u64,
    /// Entries of its ledger.
    pub ledger_entries: u64,
    /// Bytes to and from the coordinator since the first rollout was proposed, for each node and rollout.
    pub coordinator_bytes_per_node: f64,
    /// The same by kind of message.
    pub coordinator_traffic: Traffic,
    /// Rules that were broken.
    pub violations: Vec<String>,
}

/// Copies that crossed the WANs.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Copies {
    /// Over all sites and releases.
    pub mean: f64,
    /// The most of one site and release.
    pub worst: f64,
}

/// A site.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SiteReport {
    /// Its name.
    pub site: String,
    /// Its nodes.
    pub nodes: u32,
    /// Payload bytes over its WAN, inward.
    pub wan_bytes: u64,
    /// For each release, these over the carrier's.
    pub wan_copies: Vec<f64>,
}

/// A rollout.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RolloutReport {
    /// The release.
    pub release: String,
    /// Where it ended.
    pub state: RolloutState,
    /// Why.
    pub why: String,
    /// The four counts.
    pub counts: Counts,
    /// Nodes that switched to it.
    pub attempted: u32,
    /// Nodes that switched to it although it does them harm, as the scenario has it.
    pub harmed: u32,
    /// Nodes on which it was and is not any more.
    pub rolled_back: u32,
    /// The waves.
    pub waves: Vec<WaveReport>,
}

/// A wave.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WaveReport {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: String,
    /// Its targets.
    pub targets: u32,
    /// Their counts.
    pub counts: Counts,
    /// Targets that switched.
    pub started: u32,
    /// Virtual seconds at which it opened.
    pub opened_s: Option<f64>,
    /// Virtual seconds at which it passed or failed.
    pub ended_s: Option<f64>,
}

impl Report {
    /// What came of a world.
    pub fn of(world: &World) -> Report {
        let mut copies = Vec::new();
        let mut sites = Vec::new();
        for (number, site) in world.shared.sites.iter().enumerate() {
            let bytes = |release: usize| world.islands[number].tally.wan[release];
            let released = world.hub.story.rollouts.len();
            let of_carrier =
                |r: usize| round(bytes(r) as f64 / world.shared.contents[r].carrier.length as f64);
            let mine: Vec<f64> = (0..released).map(of_carrier).collect();
            if site.nodes > 0 {
                copies.extend(mine.iter().copied());
            }
            sites.push(SiteReport {
                site: site.name.clone(),
                nodes: site.nodes,
                wan_bytes: (0..released).map(bytes).sum(),
                wan_copies: mine,
            });
        }
        let mean = copies.iter().sum::<f64>() / copies.len().max(1) as f64;
        Report {
            scenario: world.shared.scenario.name.clone(),
            seed: world.shared.scenario.seed,
            nodes: world.shared.scenario.nodes(),
            events: world.events(),
            virtual_seconds: world.time().0 as f64 / 1000.0,
            wall_seconds: None,
            wan_copies: Copies {
                mean: round(mean),
                worst: copies.iter().copied().fold(0.0, f64::max),
            },
            wan_bytes_by_reason: reasons(world),
            sites,
            rollouts: (0..world.hub.story.rollouts.len())
                .filter_map(|n| rollout(world, n))
                .collect(),
            installed: installed(world),
            orders: world.hub.desk.conductor.orders_head().n,
            ledger_entries: world.hub.desk.ledger.len() as u64,
            coordinator_bytes_per_node: round(
                world.hub.desk.traffic.bytes() as f64
                    / f64::from(world.shared.scenario.nodes().max(1))
                    / world.hub.story.rollouts.len().max(1) as f64,
            ),
            coordinator_traffic: world.hub.desk.traffic.clone(),
            violations: world.violations(),
        }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut out = format!(
            "{} (seed {}): {} nodes, {:.1} virtual seconds, {} events, WAN copies mean {} worst {}\n",
            self.scenario,
            self.seed,
            self.nodes,
            self.virtual_seconds,
            self.events,
            self.wan_copies.mean,
            self.wan_copies.worst
        );
        out += &format!("  WAN bytes {:?}\n", self.wan_bytes_by_reason);
        for site in &self.sites {
            let (name, nodes) = (&site.site, site.nodes);
            out += &format!(
                "  {name}: {nodes} nodes, WAN copies {:?}\n",
                site.wan_copies
            );
        }
        for r in &self.rollouts {
            out += &format!(
                "  {}: {:?} ({}) {:?}\n",
                r.release, r.state, r.why, r.counts
            );
            for w in &r.waves {
                out += &format!(
                    "    {}: {}, {} of {} started, opened at {:?} s, ended at {:?} s\n",
                    w.name, w.state, w.started, w.targets, w.opened_s, w.ended_s
                );
            }
        }
        for violation in &self.violations {
            out += &format!("  VIOLATION {violation}\n");
        }
        out
    }
}

fn reasons(world: &World) -> BTreeMap<FetchReason, u64> {
    let mut reasons = BTreeMap::new();
    for (reason, bytes) in world.islands.iter().flat_map(|i| &i.tally.reasons) {
        *reasons.entry(*reason).or_default() += bytes;
    }
    reasons
}

fn installed(world: &World) -> BTreeMap<String, u32> {
    let names: BTreeMap<_, _> = world
        .hub
        .desk
        .conductor
        .releases()
        .into_iter()
        .map(|r| (r.digest, r.name))
        .collect();
    let mut installed = BTreeMap::new();
    let sites = world.islands.iter().filter(|i| i.site().is_some());
    for machine in sites.flat_map(|i| &i.machines) {
        let there = machine.installed.values();
        let mut there: Vec<String> = there.filter_map(|d| names.get(d).cloned()).collect();
        if there.is_empty() {
            there.push("nothing".into());
        }
        for name in there {
            *installed.entry(name).or_default() += 1;
        }
    }
    installed
}

fn rollout(world: &World, number: usize) -> Option<RolloutReport> {
    let id = &world.hub.story.rollouts[number];
    let view = world.hub.desk.conductor.rollout(id)?;
    let seconds = |at: protocol::Time| at.since(crate::fleet::BEGINNING).0 as f64 / 1000.0;
    let waves = view.waves.into_iter().map(|w| WaveReport {
        started: world
            .hub
            .checks
            .starts
            .get(&(id.clone(), w.number))
            .copied()
            .unwrap_or(0),
        name: w.name,
        state: w.state,
        targets: w.targets,
        counts: w.counts,
        opened_s: w.opened_at.map(seconds),
        ended_s: w.ended_at.map(seconds),
    });
    let waves: Vec<WaveReport> = waves.collect();
    let rolled_back = world
        .hub
        .desk
        .conductor
        .nodes()
        .into_iter()
        .flat_map(|n| n.statuses)
        .filter(|s| {
            let failed = bucket(s.state, Reachability::Reachable) == Bucket::Failed;
            s.rollout == *id && failed && s.state.ended()
        });
    Some(RolloutReport {
        release: view.release,
        state: view.state,
        why: view.why,
        counts: view.counts,
        attempted: waves.iter().map(|w| w.started).sum(),
        harmed: world.islands.iter().map(|i| i.tally.harmed[number]).sum(),
        rolled_back: rolled_back.count() as u32,
        waves,
    })
}

fn round(x: f64) -> f64 {
    (x * 10_000.0).round() / 10_000.0
}
