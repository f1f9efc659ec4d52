//! Who comes from other sites: at the origin they are referred, at a site's node they are guests. And who
//! is none of the fleet's: such ones are told upward.

use core::net::IpAddr;

use protocol::topology::Site;
use protocol::wire::{Contact, Notice};
use protocol::{NodeId, Now};

use super::Brain;
use crate::contract::{Action, Door, NodeRole, Ticket, Visit, Wanted};
use crate::witness::{self, Witness};

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
            false => self.other_delegates().into_iter().next(),
        };
        self.strangers.tell(to, now, &mut self.out);
    }

    /// Says whom it misses as a witness, and carries what others say.
    pub(super) fn bear_witness(&mut self, now: Now) {
        let alive = self
            .orders
            .bulletin()
            .is_some_and(|b| !b.rollouts.is_empty());
        if alive {
            self.witness.misses(self.membership.missed(), now);
        }
        let due = self.witness.timeout().is_some_and(|at| at <= now.boot);
        if !due {
            return;
        }
        let Some(site) = self.membership.site() else {
            self.witness = Witness::default();
            return;
        };
        let mut around = witness::Around {
            me: self.config.node,
            site,
            delegate: self.membership.is_uplinker(),
            delegates: self.other_delegates(),
            coordinator: self.coordinators().first().cloned(),
            now,
            counters: &mut self.counters,
            out: &mut self.out,
        };
        self.witness.tell(self.membership.missed(), &mut around);
    }

    /// The delegates of the site beside this node, by rank.
    fn other_delegates(&self) -> Vec<Contact> {
        let members = self.membership.members();
        let delegates = self.membership.delegates().iter();
        let delegates = delegates.filter_map(|node| members.get(node));
        delegates.map(|m| m.presence.contact.clone()).collect()
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
