//! Who comes from other sites: at the origin they are referred, at a site's node they are guests. And who
//! is none of the fleet's: such ones are told upward.

use std::net::IpAddr;

use protocol::topology::Site;
use protocol::wire::{Contact, Notice};
use protocol::{NodeId, Now};

use super::Brain;
use crate::contract::{Action, Door, NodeRole, Ticket, Visit, Wanted};

impl Brain {
    /// The topology or the own site changed: who comes from where, and may it.
    pub(super) fn mind_the_doors(&mut self) {
        let Some(topology) = self.library.topology() else {
            return;
        };
        let budgets = &self.budgets;
        let rates = |site: &Site| {
            let rates = budgets.of(&site.id);
            rates.map_or((None, None), |rates| (rates.down, rates.up))
        };
        let own = self.membership.site().and_then(|own| topology.site(own));
        let door = match (self.config.role, own) {
            (NodeRole::Origin, _) if self.referrals.set_sites(topology, rates) => Door::Asks,
            (NodeRole::Origin, _) | (NodeRole::Endpoint, None) => Door::Open,
            (NodeRole::Endpoint, Some(site)) if site.no_peers => Door::Shut,
            (NodeRole::Endpoint, Some(_)) => Door::Asks,
        };
        if door != self.door {
            self.door = door;
            self.out.push(Action::Doorkeep(door));
        }
    }

    pub(super) fn asked_from_afar(&mut self, now: Now, wanted: Wanted) {
        if self.config.role == NodeRole::Origin {
            return self.referrals.wanted(now.boot, wanted, &mut self.out);
        }
        let own = self.membership.site();
        let may = own.zip(self.library.topology());
        let may = may.is_some_and(|(own, topology)| topology.may_relay(own, &wanted.site));
        self.guests.wanted(may, wanted.ticket, &mut self.out);
    }

    pub(super) fn guest_left(&mut self, now: Now, ticket: Ticket) {
        match self.config.role {
            NodeRole::Origin => self.referrals.left(now.boot, ticket),
            NodeRole::Endpoint => self.guests.left(ticket),
        }
    }

    /// Somebody was not let in.
    pub(super) fn knocked(&mut self, now: Now, visit: &Visit) {
        let known = match &visit.node {
            Some(node) => self.membership.is_member(node),
            None => self.lives_at(visit.address),
        };
        if !known {
            self.strangers.knocked(self.config.node, visit, now);
        }
    }

    /// Whether a node of the fleet is known to be there, this one included.
    fn lives_at(&self, address: IpAddr) -> bool {
        let there = |contact: &Contact| contact.data.is_some_and(|data| data.ip() == address);
        let members = self.membership.members().values();
        self.membership.addresses().contains(&address)
            || members.map(|m| &m.presence.contact).any(there)
            || self.coordinators().iter().any(there)
    }

    /// Tells who was not let in: the coordinator, or a delegate that tells it.
    pub(super) fn tell_of_strangers(&mut self, now: Now) {
        if self.strangers.timeout().is_none_or(|at| at > now.boot) {
            return;
        }
        let to = match self.membership.is_uplinker() {
            true => {
                let all = self.coordinators();
                all.get(self.strangers.turn(all.len())).cloned()
            }
            false => {
                let members = self.membership.members();
                let mut delegates = self.membership.delegates().iter();
                let member = delegates.find_map(|node| members.get(node));
                member.map(|m| m.presence.contact.clone())
            }
        };
        self.strangers.tell(to, now, &mut self.out);
    }

    /// To the origin: a node brought pieces into its site. True if it was for the origin.
    pub(super) fn brought(&mut self, now: Now, from: NodeId, notice: &Notice) -> bool {
        if self.config.role != NodeRole::Origin {
            return false;
        }
        if let Notice::Won { blob, pieces } = notice {
            let out = &mut self.out;
            self.referrals.won(now.boot, from, *blob, pieces, out);
        }
        true
    }
}
