//! What the site's WAN may carry, told to the body and to the rooms that plan with it.

use protocol::Now;
use protocol::topology::{NodeRates, Site};

use super::Brain;
use crate::budget::Change;
use crate::contract::{Action, NodeRole};
use crate::swarm;

impl Brain {
    /// The topology or the own site changed.
    pub(super) fn know_sites(&mut self, now: Now) {
        let topology = self.library.topology().map(|t| &**t);
        let own = own_site(topology, self.membership.site());
        let paced = match self.config.role {
            NodeRole::Origin => topology.map_or(&[][..], |t| &t.sites[..]),
            NodeRole::Endpoint => own.map_or(&[][..], std::slice::from_ref),
        };
        let changes = self.budgets.set(now, paced.iter());
        let node = match (self.config.role, own) {
            (NodeRole::Endpoint, Some(site)) => site.node,
            _ => NodeRates::default(),
        };
        if self.paced != node {
            self.paced = node;
            self.out.push(Action::PaceSelf(node));
        }
        self.pace(changes);
        self.mind_the_doors();
        self.tell_swarm_of_site(now);
    }

    /// The hour may have changed what sites may carry.
    pub(super) fn follow_hours(&mut self, now: Now) {
        let changes = self.budgets.follow(now);
        if changes.is_empty() {
            return;
        }
        self.pace(changes);
        self.mind_the_doors();
        self.tell_swarm_of_site(now);
    }

    fn pace(&mut self, changes: Vec<Change>) {
        let topology = self.library.topology();
        for (site, rates) in changes {
            // Where sites relay, what a node sends from its site goes by the other way of the WAN.
            let relays = topology
                .and_then(|t| t.site(&site))
                .is_some_and(|site| site.relay);
            let gives = self.config.role == NodeRole::Endpoint && relays;
            let bytes_per_s = rates.and_then(|rates| if gives { rates.up } else { rates.down });
            self.out.push(Action::Pace { site, bytes_per_s });
        }
    }

    fn tell_swarm_of_site(&mut self, now: Now) {
        let topology = self.library.topology().map(|t| &**t);
        let own = own_site(topology, self.membership.site());
        let (relays, alone) = own.map_or((false, false), |site| (site.relay, site.no_peers));
        let down = |site: &Site| self.budgets.of(&site.id).and_then(|rates| rates.down);
        let site = own.map(|site| (site.id.clone(), down(site)));
        self.swarm.set_site(now, site);
        self.swarm.set_relay(now, relays);
        if self.swarm.set_alone(now, alone) {
            let members = self.membership.members().iter();
            let member = members.map(|(n, m)| (*n, swarm::Member(m.presence.clone())));
            self.swarm.set_members(now, member);
        }
    }
}

fn own_site<'a>(
    topology: Option<&'a protocol::topology::Topology>,
    id: Option<&protocol::SiteId>,
) -> Option<&'a Site> {
    topology.and_then(|topology| topology.site(id?))
}
