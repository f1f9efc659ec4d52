//! What every part of the world knows and nobody changes: the scenario, keys, contents, who is where.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use protocol::topology::{Site, Subnet, Topology};
use protocol::wire::Contact;
use protocol::{BlobRef, NodeId, SiteId, Span, Time};

use crate::content::Content;
use crate::faults::{Fate, Side};
use crate::fleet::{BEGINNING, Fleet};
use crate::scenario::{Lie, Scenario, SiteSpec};

/// One way inside a site.
pub const LAN_DELAY: Span = Span::from_millis(1);
/// One way from the data centre to the door of any WAN.
const DOOR_MS: u64 = 1;

/// Where a node stands: which part of the world, and which of its machines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The part: a site by its number, or [`Shared::centre`].
    pub part: usize,
    /// The machine within the part.
    pub slot: usize,
}

/// What every part of the world knows.
pub struct Shared {
    /// What was asked for.
    pub scenario: Scenario,
    /// The sites, those of groups too.
    pub sites: Vec<SiteSpec>,
    /// Their names.
    pub names: Vec<SiteId>,
    /// Keys and beliefs.
    pub fleet: Fleet,
    /// The releases.
    pub contents: Vec<Content>,
    /// The coordinator.
    pub coordinator: Contact,
    /// The origin.
    pub origin: Contact,
    /// What goes wrong.
    pub fate: Fate,
    /// The number of each site's first node.
    pub firsts: Vec<usize>,
    /// The least way between two parts of the world: so long each may run without hearing of the
    /// others.
    pub lookahead: Span,
    // looked up and never walked through, so its order does not matter
    places: HashMap<NodeId, Place>,
    by_name: BTreeMap<SiteId, usize>,
}

impl Shared {
    /// What a scenario's seed draws.
    ///
    /// # Errors
    /// When the scenario's names are malformed.
    pub fn new(scenario: Scenario) -> Result<Shared> {
        let sites = scenario.all_sites();
        let count: usize = sites.iter().map(|s| s.nodes as usize).sum();
        // the origin and the coordinator have keys too
        let fleet = Fleet::new(scenario.seed, count as u32 + 2)?;
        let contents = scenario.releases.iter().enumerate();
        let contents = contents
            .map(|(n, spec)| Content::make(fleet.id(), n, spec, &scenario.grain))
            .collect::<Result<Vec<_>>>()?;
        let names = sites
            .iter()
            .map(|s| Ok(s.name.parse()?))
            .collect::<Result<Vec<SiteId>>>()?;
        let mut firsts = Vec::with_capacity(sites.len());
        let mut places = HashMap::with_capacity(count + 1);
        let mut number = 0;
        for (part, spec) in sites.iter().enumerate() {
            firsts.push(number);
            for slot in 0..spec.nodes as usize {
                places.insert(fleet.node(number), Place { part, slot });
                number += 1;
            }
        }
        let centre = Place {
            part: sites.len(),
            slot: 0,
        };
        places.insert(fleet.node(count), centre);
        let nearest = sites.iter().map(|s| s.wan_delay_ms).min().unwrap_or(0);
        let by_name = names.iter().cloned().zip(0..).collect();
        Ok(Shared {
            coordinator: contact(&fleet, count + 1),
            origin: contact(&fleet, count),
            lookahead: Span(DOOR_MS + nearest),
            fate: Fate::of(&scenario, &sites),
            sites,
            names,
            fleet,
            contents,
            firsts,
            places,
            by_name,
            scenario,
        })
    }

    /// The part of the world in which the origin stands.
    pub fn centre(&self) -> usize {
        self.sites.len()
    }

    /// The part of the world in which the coordinator and the operators are.
    pub fn hub(&self) -> usize {
        self.sites.len() + 1
    }

    /// What a part of the world is, as far as cuts go.
    pub fn side(&self, part: usize) -> Side {
        match part {
            site if site < self.centre() => Side::Site(site),
            part if part == self.centre() => Side::Origin,
            _ => Side::Coordinator,
        }
    }

    /// A release's number.
    pub fn release_number(&self, digest: &protocol::Hash) -> Option<usize> {
        self.contents.iter().position(|c| c.digest == *digest)
    }

    /// Whether what is said may come to nothing.
    pub fn is_lossy(&self) -> bool {
        self.scenario.faults.request_loss_ppm > 0 || self.fate.cuts().any()
    }

    /// Whether two parts of the world reach one another.
    pub fn reaches(&self, a: usize, b: usize, at: Time) -> bool {
        self.fate.cuts().reaches(self.side(a), self.side(b), at)
    }

    /// The labels of a node by its number.
    pub fn labels(&self, number: usize) -> BTreeMap<String, String> {
        if self.scenario.attributes.is_empty() && self.scenario.laptops.is_none() {
            return BTreeMap::new();
        }
        let Place { part, slot } = self.place_of_number(number);
        self.fate.traits(part, slot).labels
    }

    /// How a node lies, if it does.
    pub fn lie(&self, place: Place) -> Option<Lie> {
        if self.scenario.liars.is_empty() || place.part >= self.centre() {
            return None;
        }
        self.fate.traits(place.part, place.slot).lie
    }

    /// Nodes, without the origin.
    pub fn nodes(&self) -> usize {
        self.places.len() - 1
    }

    /// A node's number in the fleet; the origin's is the last.
    pub fn number(&self, place: Place) -> usize {
        let first = self.firsts.get(place.part).copied();
        first.unwrap_or(self.nodes()) + place.slot
    }

    /// Where a node by its number stands.
    pub fn place_of_number(&self, number: usize) -> Place {
        let part = self.firsts.partition_point(|first| *first <= number) - 1;
        let slot = number - self.firsts[part];
        Place { part, slot }
    }

    /// Where a node stands; none for the coordinator and for strangers.
    pub fn place(&self, node: &NodeId) -> Option<Place> {
        self.places.get(node).copied()
    }

    /// A site's number.
    pub fn site(&self, name: &SiteId) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// One way between two parts of the world.
    pub fn delay(&self, a: usize, b: usize) -> Span {
        if a == b {
            return LAN_DELAY;
        }
        // the coordinator and the origin stand as far apart as costs the world no time
        Span(self.way(a).0 + self.way(b).0).max(self.lookahead)
    }

    /// One way between a part of the world and the middle, where all ways meet.
    pub fn way(&self, part: usize) -> Span {
        Span(self.sites.get(part).map_or(DOOR_MS, |s| s.wan_delay_ms))
    }

    /// Which release a blob belongs to.
    pub fn release_of(&self, blob: &BlobRef) -> Option<usize> {
        self.contents.iter().position(|c| c.blobs().contains(blob))
    }

    /// The topology of the scenario: a range of addresses for each site, capped at its link's rate.
    ///
    /// # Errors
    /// When an address is malformed, which is a mistake in this file.
    pub fn topology(&self) -> Result<Topology> {
        let site = |(n, spec): (usize, &SiteSpec)| -> Result<Site> {
            Ok(Site {
                id: self.names[n].clone(),
                subnets: vec![subnet(n).map_err(anyhow::Error::msg)?],
                parent: None,
                wan_down_bytes_per_s: Some(spec.wan_mbit * 125_000),
                wan_up_bytes_per_s: Some(spec.up_mbit() * 125_000),
                relay: spec.relay,
                no_peers: false,
                node: Default::default(),
                schedule: None,
            })
        };
        Ok(Topology {
            spec_version: 1,
            fleet: self.fleet.id(),
            version: 1,
            created: BEGINNING,
            foreign: Vec::new(),
            sites: self
                .sites
                .iter()
                .enumerate()
                .map(site)
                .collect::<Result<_>>()?,
        })
    }
}

/// The addresses of a site: 4,096 of 10.0.0.0/8.
fn subnet(site: usize) -> Result<Subnet, String> {
    let first = std::net::Ipv4Addr::from_bits(address_bits(site, 0));
    format!("{first}/20").parse()
}

/// The address of a site's host, as a number.
pub fn address_bits(site: usize, host: usize) -> u32 {
    (10 << 24) | ((site as u32 & 0xfff) << 12) | (host as u32 & 0xfff)
}

/// Where a node is reached: an address that nobody dials.
fn contact(fleet: &Fleet, number: usize) -> Contact {
    Contact {
        node: fleet.node(number),
        control: [format!("/memory/{number}")].into(),
        data: Some(([127, 0, 0, 1], 1 + (number % 60_000) as u16).into()),
    }
}

impl Shared {
    /// Where a node by its number is reached.
    pub fn contact(&self, number: usize) -> Contact {
        contact(&self.fleet, number)
    }
}
