//! What is rolled out, and what is wrong with it.

use serde::Deserialize;

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
