//! Whom a newcomer asks for the topology, so that the coordinator hands it to each site about once and
//! not to each node: at two thousand sites it is longer than everything else that a node is told.
//!
//! A newcomer does not know its site before it has the topology, so it says its addresses. What it is
//! told is a hint: it believes only what is signed, and finds its site itself.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::{CONTACT_ADDRESSES_MAX, GUIDES_MAX, SCOUT_LIFE};
use protocol::topology::Topology;
use protocol::wire::Presence;
use protocol::{NodeId, SiteId, Time};

use crate::fleet::Fleet;

/// The first newcomer of each site in which nobody is.
#[derive(Default)]
pub(crate) struct Scouts {
    sites: BTreeMap<SiteId, (Presence, Time)>,
}

impl Scouts {
    /// A newcomer asks for guides. It becomes its site's scout if there is none.
    pub fn came(&mut self, fleet: &Fleet, me: &Presence, addresses: &[IpAddr], now: Time) {
        let Some(topology) = fleet.topology.as_ref().map(|t| &t.value) else {
            return;
        };
        if fleet.admitted(&me.contact.node).is_none() {
            return;
        }
        if let Some(site) = site_of(topology, addresses) {
            let held = self.sites.get(site);
            if held.is_none_or(|(_, since)| now.since(*since) >= SCOUT_LIFE) {
                self.sites.insert(site.clone(), (me.clone(), now));
            }
        }
        // Only sites that a topology has named come in; those that it names no more go out, but not with
        // every newcomer: thousands of these come at once to thousands of sites.
        if self.sites.len() > topology.sites.len() {
            let named: BTreeSet<&SiteId> = topology.sites.iter().map(|s| &s.id).collect();
            self.sites.retain(|site, _| named.contains(site));
        }
    }

    /// Whom a node at these addresses asks; nobody if it is the first itself.
    pub fn guides(
        &self,
        members: impl FnOnce(&SiteId) -> Vec<Presence>,
        topology: &Topology,
        node: &NodeId,
        addresses: &[IpAddr],
    ) -> Vec<Presence> {
        let Some(site) = site_of(topology, addresses) else {
            return Vec::new();
        };
        let scout = || self.sites.get(site).map(|(scout, _)| scout.clone());
        let mut guides = members(site);
        if guides.is_empty() {
            guides.extend(scout());
        }
        guides.retain(|guide| guide.contact.node != *node);
        guides.truncate(GUIDES_MAX);
        guides
    }
}

fn site_of<'a>(topology: &'a Topology, addresses: &[IpAddr]) -> Option<&'a SiteId> {
    let mut addresses = addresses.iter().take(CONTACT_ADDRESSES_MAX);
    addresses.find_map(|address| topology.site_of(*address).map(|site| &site.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{Fleet as Fixture, node, presence, site};

    #[test]
    fn the_first_of_a_site_fetches_for_all_and_members_come_before_it() {
        let topology = Fixture::new(1).topology(1, 2);
        let at = |site: u8| [IpAddr::from([127, site, 0, 9])];
        let mut scouts = Scouts::default();
        let names = |scouts: &Scouts, n: u64, s: u8, members: &[u64]| -> Vec<NodeId> {
            let members = |_: &SiteId| members.iter().map(|n| presence(*n)).collect();
            let guides = scouts.guides(members, &topology, &node(n), &at(s));
            guides.iter().map(|g| g.contact.node).collect()
        };
        scouts.sites.insert(site("s1"), (presence(1), Time(0)));
        assert_eq!(names(&scouts, 1, 1, &[]), [], "it is the scout");
        assert_eq!(names(&scouts, 2, 1, &[]), [node(1)]);
        assert_eq!(names(&scouts, 3, 2, &[]), [], "in another site");
        assert_eq!(names(&scouts, 3, 9, &[4]), [], "in none");
        assert_eq!(names(&scouts, 2, 1, &[7, 8, 9]), [node(7), node(8)]);
    }
}
