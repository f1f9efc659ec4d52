//! A scenario as it is written, and what its seed draws.

mod draws;
mod faults;
mod grain;
mod release;
mod rollout;
mod site;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

pub use draws::{below, stream};
pub use faults::Faults;
pub use grain::GrainSpec;
pub use release::ReleaseSpec;
pub use rollout::{RolloutSpec, WaveSpec};
pub use site::SiteSpec;

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
    /// How fine the nodes' work is cut.
    #[serde(default)]
    pub grain: GrainSpec,
    /// What goes wrong beside sick releases.
    #[serde(default)]
    pub faults: Faults,
}

fn five() -> u64 {
    5
}
fn twenty() -> u64 {
    20
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
}
