//! What came of it, as data: the same bytes for the same seed.

mod gather;
mod pictures;

use std::collections::BTreeMap;

use coordinator_core::contract::{Counts, RolloutState};
use node_core::contract::FetchReason;
use serde::Serialize;

use crate::figures::Percentiles;
use crate::rehearsal::Rehearsal;
use crate::traffic::Traffic;

/// Sites that are listed one by one; of more, those with the most copies.
pub const SITES_LISTED_MAX: usize = 100;

/// What came of a scenario.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// Nodes, without the origin.
    pub nodes: u32,
    /// Sites.
    pub sites: u32,
    /// Happenings.
    pub events: u64,
    /// Virtual time that passed.
    pub virtual_seconds: f64,
    /// Real time that passed; null unless asked for, because it differs each time.
    pub wall_seconds: Option<f64>,
    /// Copies of the carrier that crossed a site's WAN, over sites and releases.
    pub wan_copies: Copies,
    /// For each node and rollout, the time until every byte was there, over the least that the links of
    /// its site allow ([`crate::figures::Ways::t_min`]). Only of nodes that stayed online from the start
    /// of the rollout until then; null if there were none.
    pub makespan_ratio: Option<Percentiles>,
    /// Nodes that stayed online to the end and never had every byte, over all rollouts; not in the
    /// ratio.
    pub makespan_unfinished: u32,
    /// Copies of a release that left the origin, the most of any release; null if nothing was rolled out.
    pub origin_copies: Option<f64>,
    /// Seconds from the first halt of a rollout until 99.9 % of the nodes that were online all the while
    /// had it; null if nothing was halted, or if so many never heard of it.
    pub halt_seconds_p999: Option<f64>,
    /// Seconds from the last end that a node came to until the coordinator's counts were those of the
    /// machines, the most of any rollout; null if nothing was rolled out or they never were.
    pub counts_true_seconds: Option<f64>,
    /// Bytes to and from the coordinator since the first rollout was proposed, for each node and rollout.
    pub coordinator_bytes_per_node: f64,
    /// The same by kind of message.
    pub coordinator_traffic: Traffic,
    /// Bytes that crossed any WAN inward, by why they came that way.
    pub wan_bytes_by_reason: BTreeMap<FetchReason, u64>,
    /// The sites, at most [`SITES_LISTED_MAX`]: if there are more, those with the most copies.
    pub site_details: Vec<SiteReport>,
    /// The rollouts, in order.
    pub rollouts: Vec<RolloutReport>,
    /// What stands on the machines at the end, whatever they say, with the number of machines.
    pub installed: BTreeMap<String, u32>,
    /// Orders that the coordinator gave.
    pub orders: u64,
    /// Entries of its ledger.
    pub ledger_entries: u64,
    /// What was forecast before each rollout, beside what came of it; left out unless asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forecasts: Vec<Rehearsal>,
    /// Rules that were broken: the first few of each, then for each rule how many more there are.
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
    /// What its WAN brings, Mbit/s.
    pub wan_mbit: u64,
    /// The slowest of its nodes that stayed online, over T_min, of the release that took it longest.
    pub makespan_worst: Option<f64>,
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
    /// For people.
    pub fn to_text(&self) -> String {
        let figure = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x}"));
        let mut out = format!(
            "{} (seed {}): {} nodes in {} sites, {:.1} virtual seconds, {} events\n",
            self.scenario, self.seed, self.nodes, self.sites, self.virtual_seconds, self.events,
        );
        out += &format!(
            "  WAN copies mean {} worst {}, origin copies {}\n",
            self.wan_copies.mean,
            self.wan_copies.worst,
            figure(self.origin_copies)
        );
        if let Some(p) = self.makespan_ratio {
            out += &format!(
                "  makespan over T_min: p50 {} p99 {} p99.9 {}, {} nodes never had all\n",
                p.p50, p.p99, p.p999, self.makespan_unfinished
            );
        }
        out += &format!(
            "  halt at p99.9 {} s, counts true after {} s, coordinator {} bytes a node and rollout\n",
            figure(self.halt_seconds_p999),
            figure(self.counts_true_seconds),
            self.coordinator_bytes_per_node
        );
        out += &format!("  WAN bytes {:?}\n", self.wan_bytes_by_reason);
        for site in &self.site_details {
            let (name, nodes, copies) = (&site.site, site.nodes, &site.wan_copies);
            out += &format!("  {name}: {nodes} nodes, WAN copies {copies:?}\n");
        }
        let left_out = self.sites as usize - self.site_details.len();
        if left_out > 0 {
            out += &format!("  and {left_out} sites with no more copies than these\n");
        }
        for r in &self.rollouts {
            let (release, state, why, counts) = (&r.release, r.state, &r.why, r.counts);
            out += &format!("  {release}: {state:?} ({why}) {counts:?}\n");
            for w in &r.waves {
                out += &format!(
                    "    {}: {}, {} of {} started, opened at {} s, ended at {} s\n",
                    w.name,
                    w.state,
                    w.started,
                    w.targets,
                    figure(w.opened_s),
                    figure(w.ended_s)
                );
            }
        }
        for f in &self.forecasts {
            let (name, ends, bytes) = (&f.release, f.finishes, f.last_site_has_bytes);
            out += &format!(
                "  forecast of {name}: last site has the bytes after {} s (came after {}), last gate passes after {} s (came after {})\n",
                figure(bytes.forecast_s),
                figure(bytes.run_s),
                figure(ends.forecast_s),
                figure(ends.run_s)
            );
        }
        for violation in &self.violations {
            out += &format!("  VIOLATION {violation}\n");
        }
        out
    }
}
