//! What came of a run, beside its lower bound.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

use super::bound::{Reach, t_min};
use super::fleet::Published;
use super::hostile::Harm;
use super::process::Usage;
use super::scenario::Scenario;
use super::watch::Story;

/// Bytes on the wire for a byte of payload in full packets at MTU 1500 with TCP and IPv4 headers and
/// Ethernet's framing. A veth's counter may show less: it sees a batch of datagrams that the kernel has
/// not cut yet as one packet with one header.
pub const WIRE_FLOOR: f64 = 1.045;

/// What came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Bytes that must cross each WAN once: carrier and index.
    pub release_bytes: u64,
    /// The sites.
    pub sites: Vec<SiteReport>,
    /// Processor seconds of all processes for each GiB that a node took in, since the rollout began.
    pub cpu_seconds_per_gib: f64,
    /// The processes, with what each has used since its own start: the coordinator has published.
    pub processes: Vec<Usage>,
    /// Nodes that were killed.
    pub killed: Vec<String>,
    /// Random mishaps by their kind.
    pub mishaps: BTreeMap<String, u32>,
    /// What those did who are not to be trusted; none where there are none.
    pub harm: Option<Harm>,
}

/// A site.
#[derive(Clone, Debug, Serialize)]
pub struct SiteReport {
    /// Its number.
    pub site: usize,
    /// Its nodes.
    pub nodes: usize,
    /// The lower bound, in seconds.
    pub t_min: f64,
    /// Seconds until its first node and its last node had every byte.
    pub first_s: f64,
    /// See [`SiteReport::first_s`].
    pub last_s: f64,
    /// The last over the bound.
    pub makespan_ratio: f64,
    /// Payload bytes of verified groups that crossed its WAN, over the release's.
    pub wan_copies: f64,
    /// Payload bytes that the origin handed to connections with it, over the release's: what was asked
    /// for again counts again, as does what was lost on the way.
    pub sent_copies: f64,
    /// Bytes that its WAN interface carried inward, over the release's.
    pub interface_copies: f64,
    /// Payload bytes that came to a node that had them already, over all that its nodes took in.
    pub refetched: f64,
    /// Payload bytes by reason.
    pub reasons: BTreeMap<String, u64>,
}

impl Report {
    /// Sums a run up.
    ///
    /// # Errors
    /// When a site has no nodes.
    pub fn of(
        scenario: &Scenario,
        release: &Published,
        story: &Story,
        crossed: Vec<u64>,
        processes: Vec<Usage>,
    ) -> Result<Report> {
        let bytes = release.wan_bytes;
        let rate = |bits: Option<u64>| bits.map(|b| b as f64 / 8.0);
        let mut sites = Vec::new();
        let mut first = 0;
        for (number, site) in scenario.sites.iter().enumerate() {
            let nodes = first..first + usize::from(site.nodes);
            first = nodes.end;
            let times = &story.complete_s[nodes.clone()];
            let mut reasons = BTreeMap::new();
            for node in &story.reasons[nodes.clone()] {
                for (reason, bytes) in node {
                    *reasons.entry(reason.clone()).or_default() += bytes;
                }
            }
            let again: u64 = story.again[nodes.clone()].iter().sum();
            let taken: u64 = reasons.values().sum();
            let wan = reasons.iter().filter(|(reason, _)| *reason != "peer");
            let wan: u64 = wan.map(|(_, bytes)| bytes).sum();
            let reach = Reach {
                nodes: u32::from(site.nodes),
                wan_down: rate(site.down),
                lan: rate(site.lan),
            };
            let bound = t_min(
                bytes,
                &reach,
                scenario.sites.len() as u32,
                rate(scenario.origin_up),
            );
            let last = times.iter().copied().fold(0.0, f64::max);
            sites.push(SiteReport {
                site: number + 1,
                nodes: nodes.len(),
                t_min: round(bound),
                first_s: round(times.iter().copied().reduce(f64::min).context("no nodes")?),
                last_s: round(last),
                makespan_ratio: if bound > 0.0 {
                    round(last / bound)
                } else {
                    f64::NAN
                },
                wan_copies: round(wan as f64 / bytes as f64),
                sent_copies: 0.0,
                refetched: round(again as f64 / taken.max(1) as f64),
                interface_copies: round(crossed[number] as f64 / bytes as f64),
                reasons,
            });
        }
        Ok(Report {
            scenario: scenario.name,
            about: scenario.about,
            release_bytes: bytes,
            sites,
            cpu_seconds_per_gib: 0.0,
            processes,
            killed: story.killed.clone(),
            mishaps: story.mishaps.clone(),
            harm: None,
        })
    }

    /// Seconds until the last node had every byte.
    pub fn last_s(&self) -> f64 {
        self.sites
            .iter()
            .map(|site| site.last_s)
            .fold(0.0, f64::max)
    }

    /// Adds what so many hostile members did: the most wasted by one at one node, and all of it.
    pub fn set_harm(&mut self, liars: usize, clean_s: f64, (worst, all): (u64, u64)) {
        self.harm = Some(Harm {
            liars,
            clean_s,
            makespan_over_clean: round(self.last_s() / clean_s),
            worst_wasted_bytes: worst,
            wasted_bytes: all,
        });
    }

    /// Adds what all processes used of the processor since the rollout began.
    pub fn set_cpu(&mut self, seconds: f64) {
        let nodes: usize = self.sites.iter().map(|site| site.nodes).sum();
        let taken = self.release_bytes as f64 * nodes as f64 / f64::from(1 << 30);
        self.cpu_seconds_per_gib = round(seconds / taken);
    }

    /// Adds what the origin says that it sent to each site.
    pub fn add_sent(&mut self, release: &Published, handed_out: &[u64]) {
        for (site, bytes) in self.sites.iter_mut().zip(handed_out) {
            site.sent_copies = round(*bytes as f64 / release.wan_bytes as f64);
        }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{}: {}\n{} bytes must cross each WAN; as full TCP packets at MTU 1500 they would be {WIRE_FLOOR} of that\n",
            self.scenario, self.about, self.release_bytes
        );
        for s in &self.sites {
            text += &format!(
                "  site {}: {} nodes, first {} s, last {} s, bound {} s, ratio {}, WAN copies {} (sent {}, by the interface {}), refetched {} {:?}\n",
                s.site,
                s.nodes,
                s.first_s,
                s.last_s,
                s.t_min,
                s.makespan_ratio,
                s.wan_copies,
                s.sent_copies,
                s.interface_copies,
                s.refetched,
                s.reasons
            );
        }
        if !self.killed.is_empty() {
            text += &format!("  killed: {:?}\n", self.killed);
        }
        if !self.mishaps.is_empty() {
            text += &format!("  mishaps: {:?}; every file is right\n", self.mishaps);
        }
        if let Some(harm) = &self.harm {
            text += &format!(
                "  {} hostile members: {} of the time without them ({} s); one of them wasted {} bytes of one node at most, all {}; every file is right\n",
                harm.liars,
                harm.makespan_over_clean,
                harm.clean_s,
                harm.worst_wasted_bytes,
                harm.wasted_bytes
            );
        }
        for p in &self.processes {
            text += &format!(
                "  {}: {:.2} CPU seconds, at most {:.0} MiB\n",
                p.process, p.cpu_seconds, p.peak_mib
            );
        }
        text + &format!(
            "  {} CPU seconds for each GiB taken in\n",
            self.cpu_seconds_per_gib
        )
    }
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}
