//! What goes wrong, as it is written.

use serde::Deserialize;

/// What goes wrong.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Processes die and machines restart between second 2 and this one.
    #[serde(default)]
    pub until_s: u64,
    /// Node processes that are killed at random moments and come back.
    #[serde(default)]
    pub crashes: u32,
    /// Machines that restart at random moments: their boot clock begins anew.
    #[serde(default)]
    pub reboots: u32,
    /// Restarts of the coordinator at random moments.
    #[serde(default)]
    pub coordinator_crashes: u32,
    /// Of a million gossip messages, so many do not reach one of their readers.
    #[serde(default)]
    pub gossip_loss_ppm: u32,
    /// Of a million gossip messages, so many reach one of their readers twice.
    #[serde(default)]
    pub gossip_duplicate_ppm: u32,
    /// Of a million requests and answers on the control plane, so many are lost.
    #[serde(default)]
    pub request_loss_ppm: u32,
    /// A control message over the WAN takes up to so many milliseconds more.
    #[serde(default)]
    pub jitter_ms: u64,
    /// Who cannot reach whom, and when.
    #[serde(default)]
    pub cuts: Vec<CutSpec>,
}

/// A time in which some cannot reach others.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutSpec {
    /// What is cut.
    pub what: Cut,
    /// `wan`, `lan`: of this site; none: of so many of a hundred sites as `percent` says.
    #[serde(default)]
    pub site: Option<String>,
    /// `wan`, `lan` without a site: so many of a hundred sites.
    #[serde(default)]
    pub percent: Option<u32>,
    /// From this second.
    pub from_s: u64,
    /// To this one.
    pub to_s: u64,
}

/// What is cut.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// A site's WAN: nobody in it reaches anybody outside.
    Wan,
    /// A site's LAN: it falls into two halves that do not reach one another.
    Lan,
    /// Nobody reaches the coordinator, which goes on.
    Coordinator,
    /// Nobody reaches the origin, which goes on.
    Origin,
}
