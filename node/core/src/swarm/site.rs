//! Who is around: the site as this node sees it, and what it may ask of its WAN.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::NEIGHBOURS_MAX;
use protocol::positions::rank;
use protocol::wire::Contact;
use protocol::{Hash, NodeId, SiteId, Time};

use super::Member;

/// The site, its members, and the sources beyond it.
pub(super) struct Site {
    pub me: NodeId,
    /// I own nothing.
    pub roaming: bool,
    pub id: Option<SiteId>,
    /// Bytes a second that the site may take over its WAN.
    pub cap: Option<u64>,
    /// Since when I am in it.
    pub since: Time,
    pub members: BTreeMap<NodeId, Member>,
    pub origins: Vec<Contact>,
}

impl Site {
    pub fn new(me: NodeId) -> Site {
        Site {
            me,
            roaming: false,
            id: None,
            cap: None,
            since: Time(0),
            members: BTreeMap::new(),
            origins: Vec::new(),
        }
    }

    /// Where a member is reached, if it is one.
    pub fn contact(&self, node: &NodeId) -> Option<&Contact> {
        self.members.get(node).map(|member| &member.contact)
    }

    /// Whether a node may own pieces and be asked for them.
    pub fn serves(&self, node: &NodeId) -> bool {
        self.members
            .get(node)
            .is_some_and(|member| !member.roaming && member.contact.data.is_some())
    }

    /// Whether there is anybody to share with.
    pub fn has_company(&self) -> bool {
        self.id.is_some() && self.members.keys().any(|node| self.serves(node))
    }

    /// To whom this node turns for a blob. Half of them are the blob's likely fetchers, which
    /// everybody turns to, so that those few know of each other; half are this node's own, so that
    /// what is known spreads through a large site. In a small one: everybody.
    pub fn neighbours(&self, root: &Hash) -> BTreeSet<NodeId> {
        if self.members.len() <= NEIGHBOURS_MAX {
            return self.members.keys().copied().collect();
        }
        let own = [root.0, self.me.0].concat();
        let mut near = self.first("fetcher", &root.0);
        near.extend(self.first("neighbour", &own));
        near
    }

    fn first(&self, purpose: &'static str, about: &[u8]) -> BTreeSet<NodeId> {
        let mut ranked: Vec<(u64, NodeId)> = self
            .members
            .keys()
            .map(|node| (rank(purpose, about, node), *node))
            .collect();
        ranked.sort_unstable();
        ranked
            .into_iter()
            .take(NEIGHBOURS_MAX / 2)
            .map(|(_, node)| node)
            .collect()
    }
}
