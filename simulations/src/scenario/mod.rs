//! A scenario as it is written, and what its seed draws.
//!
//! [`Scenario::parse`] reads it and refuses what cannot be, so that nothing fails after it. What the
//! seed makes of it, without any engine, is in [`crate::faults`].

mod check;
mod drawn;
mod draws;
mod faults;
mod grain;
mod group;
mod length;
mod machine;
mod operator;
mod release;
mod rollout;
mod rules;
mod site;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use protocol::Time;
use protocol::plan::WaveDraft;
use serde::Deserialize;

pub use draws::{below, stream};
pub use faults::{Cut, CutSpec, Faults};
pub use grain::GrainSpec;
pub use group::{OriginSpec, SiteGroup};
pub use length::Length;
pub use machine::{ChurnSpec, LaptopSpec, LiarSpec, Lie, MachineSpec, Shares};
pub use operator::{Act, OperatorSpec};
pub use release::{FailureSpec, How, ReleaseSpec};
pub use rollout::{RolloutSpec, WaveSpec};
pub use rules::{ConstraintSpec, TestSpec};
pub use site::{BEGINS_H, Hours, Region, SiteSpec, second_of_day};

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
    /// Once faults have stopped, a node that can be reached converges within so many seconds of its
    /// wave; if it is not said, what its links need, three times over, and three minutes.
    #[serde(default)]
    pub converge_s: Option<u64>,
    /// Regions that sites name.
    #[serde(default)]
    pub regions: Vec<Region>,
    /// The sites, one by one.
    #[serde(default)]
    pub sites: Vec<SiteSpec>,
    /// Sites by the hundred.
    #[serde(default)]
    pub site_groups: Vec<SiteGroup>,
    /// The node that has every blob from the start.
    #[serde(default)]
    pub origin: OriginSpec,
    /// Attributes of machines, such as model or driver: every node draws one value of each by share,
    /// and carries it as a label.
    #[serde(default)]
    pub attributes: BTreeMap<String, Shares>,
    /// What machines have in common.
    #[serde(default)]
    pub machines: MachineSpec,
    /// Machines that people carry home.
    #[serde(default)]
    pub laptops: Option<LaptopSpec>,
    /// Nodes that leave and come back at any time.
    #[serde(default)]
    pub churn: Option<ChurnSpec>,
    /// Nodes that do not do what they say; the first that fits a node counts.
    #[serde(default)]
    pub liars: Vec<LiarSpec>,
    /// Rolled out one after the other, but for those with a time of their own.
    pub releases: Vec<ReleaseSpec>,
    /// How each is rolled out.
    pub rollout: RolloutSpec,
    /// What operators do beside rolling out.
    #[serde(default)]
    pub operators: Vec<OperatorSpec>,
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
        check::check(&scenario)?;
        Ok(scenario)
    }

    /// Nothing at all; to be filled in.
    fn empty() -> Scenario {
        Scenario {
            name: String::new(),
            seed: 0,
            duration_s: 0,
            start_s: five(),
            idle_s: twenty(),
            converge_s: None,
            regions: Vec::new(),
            sites: Vec::new(),
            site_groups: Vec::new(),
            origin: OriginSpec::default(),
            attributes: BTreeMap::new(),
            machines: MachineSpec::default(),
            laptops: None,
            churn: None,
            liars: Vec::new(),
            releases: Vec::new(),
            rollout: RolloutSpec::default(),
            operators: Vec::new(),
            grain: GrainSpec::default(),
            faults: Faults::default(),
        }
    }

    /// The waves of a release as an operator proposes them.
    ///
    /// # Errors
    /// When a site's name is malformed; a scenario that was parsed has none.
    pub fn drafts(&self, release: &ReleaseSpec, not_before: Time) -> Result<Vec<WaveDraft>> {
        let waves = match release.waves.is_empty() {
            true => &self.rollout.waves,
            false => &release.waves,
        };
        waves.iter().map(|wave| wave.draft(not_before)).collect()
    }
}
