//! Who comes from other sites: at the origin they are referred, at a site's node they are guests.

use protocol::topology::Site;
use protocol::wire::Notice;
use protocol::{NodeId, Now};

use super::Brain;
use crate::contract::{Action, Door, NodeRole, Ticket, Wanted};

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
