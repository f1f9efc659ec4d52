//! What came of the demo: one JSON object, or a table.

use std::collections::BTreeMap;

use coordinator_core::contract::RolloutState;
use protocol::SiteId;
use protocol::status::State;
use serde::Serialize;

use super::rollout::{Outcome, attempted};
use crate::cli::{output, units};

/// The object that `--once --json` prints.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// Nodes that the good release was for.
    pub nodes: u32,
    /// Of those, with the good release installed and healthy.
    pub succeeded: u32,
    /// Of those, failed.
    pub failed: u32,
    /// From the start of the good rollout to its end.
    pub seconds: f64,
    /// Bytes of all files.
    pub payload_bytes: u64,
    /// Bytes that must cross each WAN once.
    pub carrier_bytes: u64,
    /// The good rollout's waves.
    pub waves: Vec<WaveSummary>,
    /// What the good release cost each site.
    pub sites: Vec<SiteSummary>,
    /// What came of the release whose health check fails.
    pub bad_release: BadRelease,
}

/// A wave.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WaveSummary {
    /// Its name.
    pub name: String,
    /// Its nodes.
    pub nodes: u32,
    /// Of those, succeeded.
    pub succeeded: u32,
    /// Of those, failed.
    pub failed: u32,
    /// From its opening to its gate's verdict.
    pub seconds: Option<f64>,
}

/// A site.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SiteSummary {
    /// Its name.
    pub site: SiteId,
    /// Its nodes.
    pub nodes: u32,
    /// Payload bytes of verified groups that crossed its WAN.
    pub wan_bytes: u64,
    /// That over the carrier's bytes.
    pub wan_copies: f64,
}

/// The release whose health check fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct BadRelease {
    /// Nodes that began to install it.
    pub attempted: u32,
    /// Of those, back at the release before.
    pub rolled_back: u32,
    /// Whether its gate halted it.
    pub halted: bool,
}

impl Summary {
    /// Sums both rollouts up.
    pub fn of(good: &Outcome, bad: &Outcome) -> Summary {
        let mut sites: BTreeMap<&SiteId, (u32, u64)> = BTreeMap::new();
        for (node, site) in &good.sites {
            let entry = sites.entry(site).or_default();
            entry.0 += 1;
            entry.1 += good.statuses.get(node).map_or(0, |s| s.wan_bytes);
        }
        let count = |outcome: &Outcome, fits: fn(State) -> bool| {
            outcome.statuses.values().filter(|s| fits(s.state)).count() as u32
        };
        Summary {
            nodes: good.view.targets,
            succeeded: good.view.counts.applied,
            failed: good.view.counts.failed,
            seconds: round(good.seconds),
            payload_bytes: good.payload_bytes,
            carrier_bytes: good.carrier_bytes,
            waves: good
                .view
                .waves
                .iter()
                .map(|w| WaveSummary {
                    name: w.name.clone(),
                    nodes: w.targets,
                    succeeded: w.counts.applied,
                    failed: w.counts.failed,
                    seconds: w
                        .opened_at
                        .zip(w.ended_at)
                        .map(|(from, to)| round(to.since(from).as_millis() as f64 / 1000.0)),
                })
                .collect(),
            sites: sites
                .into_iter()
                .map(|(site, (nodes, wan_bytes))| SiteSummary {
                    site: site.clone(),
                    nodes,
                    wan_bytes,
                    wan_copies: round(wan_bytes as f64 / good.carrier_bytes.max(1) as f64),
                })
                .collect(),
            bad_release: BadRelease {
                attempted: count(bad, attempted),
                rolled_back: count(bad, |state| state == State::RolledBack),
                halted: bad.view.state == RolloutState::Held,
            },
        }
    }

    /// Whether both went as they should.
    pub fn good(&self) -> bool {
        let bad = self.bad_release;
        self.succeeded == self.nodes
            && bad.halted
            && bad.attempted == bad.rolled_back
            && bad.attempted >= 1
    }

    /// As a table for people.
    pub fn table(&self) -> String {
        let mut waves = output::table(&["wave", "nodes", "succeeded", "failed", "seconds"]);
        for w in &self.waves {
            let seconds = w.seconds.map_or_else(|| "-".into(), |s| format!("{s:.1}"));
            waves.add_row([
                w.name.clone(),
                w.nodes.to_string(),
                w.succeeded.to_string(),
                w.failed.to_string(),
                seconds,
            ]);
        }
        let mut sites = output::table(&[
            "site",
            "nodes",
            "bytes over the WAN",
            "copies of the carrier",
        ]);
        for s in &self.sites {
            sites.add_row([
                s.site.to_string(),
                s.nodes.to_string(),
                units::bytes(s.wan_bytes),
                format!("{:.3}", s.wan_copies),
            ]);
        }
        let bad = self.bad_release;
        format!(
            "{waves}\n{sites}\n{} of {} nodes have {} of files ({} as carrier) after {:.1} s\nthe broken release: tried on {}, rolled back on {}, {}",
            self.succeeded,
            self.nodes,
            units::bytes(self.payload_bytes),
            units::bytes(self.carrier_bytes),
            self.seconds,
            bad.attempted,
            bad.rolled_back,
            if bad.halted {
                "halted by its gate"
            } else {
                "NOT halted"
            },
        )
    }
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}
