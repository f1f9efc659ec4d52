//! What goes wrong, as it is written.

use serde::Deserialize;

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
