//! Who is around: the site as this node sees it, and what it may ask of its WAN.

use std::collections::BTreeSet;
use std::sync::Arc;

use litemap::LiteMap;
use protocol::limits::FETCHERS_MAX;
use protocol::positions::rank;
use protocol::wire::{Contact, Presence};
use protocol::{Hash, NodeId, SiteId, Time};

/// Members that are asked because they may be fetchers: one may be off, or not seen by all.
const LIKELY_FETCHERS: usize = FETCHERS_MAX + 2;

/// To whom a node turns for a blob.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Circle {
    /// Its own neighbours.
    pub own: BTreeSet<NodeId>,
    /// The blob's likely fetchers.
    pub likely: BTreeSet<NodeId>,
}

/// A member of the site, as the node sees it: by the presence that it gave, which is shared with whoever
/// else keeps it.
#[derive(Clone, Debug)]
pub struct Member(pub Arc<Presence>);

impl Member {
    /// Where it is reached.
    pub fn contact(&self) -> &Contact {
        &self.0.contact
    }

    /// It owns nothing and serves nobody.
    pub fn roaming(&self) -> bool {
        self.0.roaming
    }
}

/// To the swarm nothing else of a presence means anything.
impl PartialEq for Member {
    fn eq(&self, other: &Member) -> bool {
        self.contact() == other.contact() && self.roaming() == other.roaming()
    }
}

impl Eq for Member {}

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
    pub members: LiteMap<NodeId, Member>,
    pub origins: Vec<Contact>,
    /// The origins refer this site to others, and others to it.
    pub relay: bool,
    /// The site has no peers: everybody fetches from the origins.
    pub alone: bool,
    /// So many of the site share its WAN if it has no peers.
    pub crowd: usize,
}

impl Site {
    pub fn new(me: NodeId) -> Site {
        Site {
            me,
            roaming: false,
            id: None,
            cap: None,
            since: Time(0),
            members: LiteMap::new(),
            origins: Vec::new(),
            relay: false,
            alone: false,
            crowd: 1,
        }
    }

    /// Where a member is reached, if it is one.
    pub fn contact(&self, node: &NodeId) -> Option<&Contact> {
        self.members.get(node).map(Member::contact)
    }

    /// Whether a node may own pieces and be asked for them.
    pub fn serves(&self, node: &NodeId) -> bool {
        self.members
            .get(node)
            .is_some_and(|member| !member.roaming() && member.contact().data.is_some())
    }

    /// Whether there is anybody to share with.
    pub fn has_company(&self) -> bool {
        self.id.is_some() && self.members.keys().any(|node| self.serves(node))
    }

    /// Whether a node may own pieces. A claim is proof enough of a node that this one has not seen
    /// yet: views differ, and what it brings must not be brought twice.
    pub fn may_own(&self, node: &NodeId) -> bool {
        *node != self.me && !self.alone && (self.serves(node) || !self.members.contains_key(node))
    }

    /// To whom this node turns for a blob: half as many of its own as it shall have neighbours,
    /// because as many again turn to it. The blob's likely fetchers, to which everybody turns, are
    /// asked too, so that those few know of each other. In a small site: everybody.
    pub fn circle(&self, root: &Hash, neighbours: usize) -> Circle {
        if self.members.len() <= neighbours {
            return Circle {
                own: self.members.keys().copied().collect(),
                likely: BTreeSet::new(),
            };
        }
        let about = [root.0, self.me.0].concat();
        Circle {
            own: self.first("neighbour", &about, neighbours.div_ceil(2)),
            likely: self.first("fetcher", &root.0, LIKELY_FETCHERS),
        }
    }

    fn first(&self, purpose: &'static str, about: &[u8], count: usize) -> BTreeSet<NodeId> {
        let mut ranked: Vec<(u64, NodeId)> = self
            .members
            .keys()
            .map(|node| (rank(purpose, about, node), *node))
            .collect();
        ranked.sort_unstable();
        ranked
            .into_iter()
            .take(count)
            .map(|(_, node)| node)
            .collect()
    }
}
