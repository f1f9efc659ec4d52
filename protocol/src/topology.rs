//! The signed topology: which subnets make a site, and what its WAN may carry.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::foreign::{ForeignRule, check_rules};
use crate::ids::{FleetId, SiteId};
use crate::limits::SITES_MAX;
use crate::schedule::Schedule;
use crate::time::Time;
use crate::trust::{Statement, header};

/// All sites of a fleet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Topology {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet that it is for.
    pub fleet: FleetId,
    /// Rises with every topology.
    pub version: u64,
    /// Signed at.
    pub created: Time,
    /// The sites.
    pub sites: Vec<Site>,
    /// What machines must be that are no nodes and report; in this order they are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<ForeignRule>,
}

/// Nodes that share a LAN and a WAN link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub id: SiteId,
    /// Its address ranges.
    pub subnets: Vec<Subnet>,
    /// The site whose WAN its traffic also crosses.
    pub parent: Option<SiteId>,
    /// Cap on what all its nodes together take over the WAN, bytes a second at the sockets; none: no cap.
    pub wan_down_bytes_per_s: Option<u64>,
    /// Cap on what all its nodes together send over the WAN, bytes a second; none: no cap.
    pub wan_up_bytes_per_s: Option<u64>,
    /// Its nodes may give to other such sites over the WAN, and take from them.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub relay: bool,
    /// Its nodes fetch from origins alone and serve nobody: over its WAN goes a copy for each of them.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub no_peers: bool,
    /// Caps on what each of its nodes moves, whatever the site as a whole may.
    #[serde(default, skip_serializing_if = "NodeRates::is_none")]
    pub node: NodeRates,
    /// Hours in which other rates hold than those above; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

/// Caps on what one node moves, bytes a second of payload and headers, up and down and LAN and WAN apart;
/// none: no cap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeRates {
    /// It takes no more from others of its site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan_down_bytes_per_s: Option<u64>,
    /// It sends no more to others of its site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan_up_bytes_per_s: Option<u64>,
    /// It takes no more from outside its site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wan_down_bytes_per_s: Option<u64>,
    /// It sends no more out of its site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wan_up_bytes_per_s: Option<u64>,
}

impl NodeRates {
    /// Whether nothing is capped.
    pub fn is_none(&self) -> bool {
        *self == NodeRates::default()
    }
}

/// An address range, written `10.1.0.0/16`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subnet {
    /// Its first address.
    pub network: IpAddr,
    /// Leading bits that count.
    pub prefix: u8,
}

impl Subnet {
    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(n), IpAddr::V4(a)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                (u64::from(n.to_bits()) >> shift) == (u64::from(a.to_bits()) >> shift)
            }
            (IpAddr::V6(n), IpAddr::V6(a)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                shift == 128 || (n.to_bits() >> shift) == (a.to_bits() >> shift)
            }
            _ => false,
        }
    }
}

impl core::fmt::Display for Subnet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl core::str::FromStr for Subnet {
    type Err = String;
    fn from_str(text: &str) -> Result<Subnet, String> {
        let refuse = || format!("{text:?} is not an address range such as 10.1.0.0/16");
        let (network, prefix) = text.split_once('/').ok_or_else(refuse)?;
        let network: IpAddr = network.parse().map_err(|_| refuse())?;
        let prefix: u8 = prefix.parse().map_err(|_| refuse())?;
        if prefix > if network.is_ipv4() { 32 } else { 128 } {
            return Err(refuse());
        }
        Ok(Subnet { network, prefix })
    }
}

impl Serialize for Subnet {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Subnet, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Topology {
    /// The site of an address: that of the longest range that contains it.
    pub fn site_of(&self, address: IpAddr) -> Option<&Site> {
        self.sites
            .iter()
            .flat_map(|site| site.subnets.iter().map(move |subnet| (subnet, site)))
            .filter(|(subnet, _)| subnet.contains(address))
            .max_by_key(|(subnet, _)| subnet.prefix)
            .map(|(_, site)| site)
    }

    /// Whether nodes of one site may give to those of the other over the WAN.
    pub fn may_relay(&self, one: &SiteId, other: &SiteId) -> bool {
        let permits = |id: &SiteId| self.site(id).is_some_and(|site| site.relay);
        one != other && permits(one) && permits(other)
    }

    /// The site of that name.
    pub fn site(&self, id: &SiteId) -> Option<&Site> {
        self.sites.iter().find(|s| s.id == *id)
    }
}

impl Statement for Topology {
    header!("application/vnd.tidegate.topology+json", Topology);
    fn check(&self) -> Result<(), String> {
        if self.sites.len() > SITES_MAX {
            return Err(format!("a topology has at most {SITES_MAX} sites"));
        }
        let mut names: Vec<_> = self.sites.iter().map(|s| &s.id).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(format!("site {} stands twice", twice[0]));
        }
        for site in &self.sites {
            let told = |why| format!("site {}: {why}", site.id);
            if site.relay && site.no_peers {
                return Err(told("a site without peers cannot relay".to_owned()));
            }
            site.schedule
                .as_ref()
                .map_or(Ok(()), Schedule::check)
                .map_err(told)?;
        }
        check_rules(&self.foreign)
    }
}
