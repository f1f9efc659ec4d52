//! Where nodes stand, and by which links.

use serde::Deserialize;

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
