//! What is rolled out, and what is wrong with it.

use std::collections::BTreeMap;

use protocol::plan::Priority;
use serde::Deserialize;

use super::{Length, WaveSpec};

/// A release.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseSpec {
    /// Its product; each machine has one release of a product.
    #[serde(default = "app")]
    pub product: String,
    /// Its version.
    pub version: String,
    /// Plain bytes, in MiB.
    pub pack_mib: u64,
    /// Bytes of the full carrier, in MiB.
    pub carrier_mib: u64,
    /// It must stay healthy so long.
    #[serde(default)]
    pub health_soak_s: u64,
    /// Its switch takes so long.
    #[serde(default)]
    pub install_s: Option<Length>,
    /// The machine restarts after its switch, and is away for so long.
    #[serde(default)]
    pub restart_s: Option<Length>,
    /// On so many of a hundred nodes its health check fails.
    #[serde(default)]
    pub sick_percent: u32,
    /// What else goes wrong with it; the first that fits a node counts.
    #[serde(default)]
    pub failures: Vec<FailureSpec>,
    /// Once it is everywhere, the operators take it back.
    #[serde(default)]
    pub recall: bool,
    /// Rolled out so many seconds after the beginning, whatever else goes on; without it, when the
    /// one before is over.
    #[serde(default)]
    pub start_s: Option<u64>,
    /// `low`, `medium`, `high` or `emergency`; `medium` if it is not said.
    #[serde(default)]
    pub priority: Priority,
    /// Only for these sites; none: for all.
    #[serde(default)]
    pub sites: Vec<String>,
    /// Its own waves; none: those of the scenario.
    #[serde(default)]
    pub waves: Vec<WaveSpec>,
}

/// How a release fails.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureSpec {
    /// What is seen of it.
    pub how: How,
    /// Of the nodes that it may hit, so many of a hundred.
    #[serde(default = "hundred")]
    pub percent: u32,
    /// It may hit nodes with all of these attributes; none: all nodes.
    #[serde(default)]
    pub cohort: BTreeMap<String, String>,
    /// `latent`: so long after the switch.
    #[serde(default)]
    pub after_s: Option<Length>,
}

/// What is seen of a failure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The health check fails.
    Health,
    /// The switch itself fails.
    Install,
    /// The health check is passed; the node turns bad later, and no check of Tidegate looks then.
    Latent,
    /// The machine starts the switch and is never heard of again.
    Silent,
}

/// A product's name, if none is written.
fn app() -> String {
    "app".into()
}
fn hundred() -> u32 {
    100
}

impl ReleaseSpec {
    /// `product@version`.
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.product, self.version)
    }
}
