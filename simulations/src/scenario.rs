//! A scenario as it is written, and what its seed draws.

use std::path::Path;

use anyhow::{Context, Result, bail};
use protocol::plan::{Gate, Selector, WaveDraft};
use protocol::{Span, Time};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use serde::Deserialize;

/// A pretend world and what happens in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// For people.
    pub name: String,
    /// Everything that is drawn follows from it.
    pub seed: u64,
    /// The world ends after so many seconds.
    pub duration_s: u64,
    /// The first release is published after so many seconds.
    #[serde(default = "five")]
    pub start_s: u64,
    /// A rollout that stands still for so many seconds is over.
    #[serde(default = "twenty")]
    pub idle_s: u64,
    /// The sites.
    pub sites: Vec<SiteSpec>,
    /// Rolled out one after the other.
    pub releases: Vec<ReleaseSpec>,
    /// How each is rolled out.
    pub rollout: RolloutSpec,
    /// What goes wrong beside sick releases.
    #[serde(default)]
    pub faults: Faults,
}

/// Nodes that share a LAN and a WAN link.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteSpec {
    /// Its name.
    pub name: String,
    /// Its nodes.
    pub nodes: u32,
    /// Its WAN link, each way, in Mbit/s; the signed topology caps it at the same.
    pub wan_mbit: u64,
    /// Each node's link, each way, in Mbit/s.
    pub lan_mbit: u64,
    /// One way to the coordinator and the origin, in milliseconds.
    pub wan_delay_ms: u64,
}

/// A release.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseSpec {
    /// Its version.
    pub version: String,
    /// Plain bytes, in MiB.
    pub pack_mib: u64,
    /// Bytes of the full carrier, in MiB.
    pub carrier_mib: u64,
    /// It must stay healthy so long.
    #[serde(default)]
    pub health_soak_s: u64,
    /// On so many of a hundred nodes its health check fails.
    #[serde(default)]
    pub sick_percent: u32,
    /// Once it is everywhere, the operators take it back.
    #[serde(default)]
    pub recall: bool,
}

/// A rollout.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// A lease's life in seconds.
    pub lease_ttl_s: u64,
    /// The waves; one without a selector is the rest.
    pub waves: Vec<WaveSpec>,
}

/// A wave.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveSpec {
    /// For people.
    pub name: String,
    /// So many nodes.
    pub count: Option<u32>,
    /// So many of a hundred.
    pub percent: Option<u32>,
    /// All of a site.
    pub site: Option<String>,
    /// Of the outcomes, at least so many of a hundred are good.
    pub success_percent: u32,
    /// Outcomes that must be in.
    pub sample: u32,
    /// The ratio must hold so long.
    pub soak_s: u64,
    /// Silence after a reported start counts as failure after so many seconds.
    #[serde(default = "ten_minutes")]
    pub silence_s: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Processes die between second 2 and this one.
    #[serde(default)]
    pub until_s: u64,
    /// Node processes that are killed at random moments and come back.
    #[serde(default)]
    pub crashes: u32,
    /// Restarts of the coordinator at random moments.
    #[serde(default)]
    pub coordinator_crashes: u32,
    /// Of a million gossip messages, so many do not reach one of their readers.
    #[serde(default)]
    pub gossip_loss_ppm: u32,
}

fn five() -> u64 {
    5
}
fn twenty() -> u64 {
    20
}
fn ten_minutes() -> u64 {
    600
}

impl Scenario {
    /// Reads a scenario's file.
    ///
    /// # Errors
    /// When it cannot be read, is no scenario or describes an impossible world.
    pub fn load(path: &Path) -> Result<Scenario> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("read {name}"))?;
        Scenario::parse(&text).with_context(|| format!("use {name}"))
    }

    /// Reads a scenario.
    ///
    /// # Errors
    /// When the text is no scenario or describes an impossible world.
    pub fn parse(text: &str) -> Result<Scenario> {
        let scenario: Scenario = toml::from_str(text).context("read the scenario")?;
        if scenario.sites.is_empty() || scenario.sites.len() > 250 {
            bail!("a scenario has 1 to 250 sites");
        }
        if scenario.releases.is_empty() || scenario.rollout.waves.is_empty() {
            bail!("a scenario has releases and waves");
        }
        let slow = scenario
            .sites
            .iter()
            .find(|s| s.wan_mbit == 0 || s.lan_mbit == 0);
        if let Some(site) = slow {
            bail!("site {} has a link without rate", site.name);
        }
        if scenario
            .releases
            .iter()
            .any(|r| r.pack_mib == 0 || r.carrier_mib == 0)
        {
            bail!("a release has no bytes");
        }
        Ok(scenario)
    }

    /// Spreads `nodes` evenly over the sites, whatever the scenario said.
    pub fn spread(&mut self, nodes: u32) {
        let sites = self.sites.len() as u32;
        for (i, site) in self.sites.iter_mut().enumerate() {
            site.nodes = nodes / sites + u32::from((i as u32) < nodes % sites);
        }
    }

    /// All nodes.
    pub fn nodes(&self) -> u32 {
        self.sites.iter().map(|s| s.nodes).sum()
    }

    /// The waves as an operator proposes them.
    ///
    /// # Errors
    /// When a site's name is malformed.
    pub fn drafts(&self, not_before: Time) -> Result<Vec<WaveDraft>> {
        let draft = |wave: &WaveSpec| -> Result<WaveDraft> {
            let select = match (wave.count, wave.percent, &wave.site) {
                (Some(n), None, None) => Selector::Count(n),
                (None, Some(p), None) => Selector::Percent(p),
                (None, None, Some(site)) => Selector::Site(site.parse()?),
                (None, None, None) => Selector::Rest,
                _ => bail!("wave {} has more than one selector", wave.name),
            };
            let gate = Gate {
                min_success_ppm: wave.success_percent * 10_000,
                min_sample: wave.sample,
                soak: Span::from_secs(wave.soak_s),
                silence_after: Span::from_secs(wave.silence_s),
            };
            Ok(WaveDraft {
                name: wave.name.clone(),
                select,
                not_before,
                gate,
            })
        };
        self.rollout.waves.iter().map(draft).collect()
    }
}

/// The stream of draws for one purpose: a new draw here changes nothing there.
pub fn stream(seed: u64, purpose: &str) -> ChaCha8Rng {
    let name = protocol::Hash::of(purpose.as_bytes());
    let mut key = name.0;
    for (byte, s) in key.iter_mut().zip(seed.to_le_bytes()) {
        *byte ^= s;
    }
    ChaCha8Rng::from_seed(key)
}

/// A number below `bound`.
pub fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    rng.next_u64() % bound.max(1)
}
