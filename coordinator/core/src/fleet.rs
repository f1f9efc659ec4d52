//! The fleet as the conductor sees it: who is enrolled, in which site, heard of when.
//!
//! Enrolment, site, revocation and statuses are folds of the ledger. When a node was last heard of
//! and where it is reached are not: they are worth nothing after a restart.

use std::collections::{BTreeMap, BTreeSet};

use protocol::envelope::Envelope;
use protocol::limits::NODES_MAX;
use protocol::status::{NodeStatus, Reachability};
use protocol::topology::Topology;
use protocol::trust::Statement;
use protocol::wire::Presence;
use protocol::{Hash, NodeId, Now, RolloutId, SiteId, Span};

use crate::contract::Enrolled;

/// Contacts that are handed to a node which asks who is in its site: enough to join its gossip.
const MEMBERS_HANDED_MAX: usize = 64;

/// A statement as it was signed, and what it says. The body verified it before it was ledgered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Held<T> {
    pub value: T,
    pub digest: Hash,
    pub envelope: Envelope,
}

impl<T: Statement> Held<T> {
    /// Reads a statement from the coordinator's own ledger.
    pub fn read(envelope: &Envelope) -> Option<Held<T>> {
        let value = serde_json::from_slice(&envelope.payload).ok()?;
        Some(Held {
            value,
            digest: envelope.digest(),
            envelope: envelope.clone(),
        })
    }
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub enrolled: Enrolled,
    pub site: Option<SiteId>,
    pub revoked: bool,
    /// The newest register of each rollout.
    pub statuses: BTreeMap<RolloutId, NodeStatus>,
    /// Its newest own word on where it is reached; not ledgered.
    pub presence: Option<Presence>,
    /// When it was last heard of; not ledgered.
    pub heard: Option<Now>,
}

/// All nodes, and the newest topology.
#[derive(Default)]
pub(crate) struct Fleet {
    /// They install nothing, so nothing is asked of them.
    pub origins: BTreeSet<NodeId>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub topology: Option<Held<Topology>>,
}

impl Fleet {
    /// Whether one more may be enrolled.
    pub fn has_room_for(&self, node: &NodeId) -> bool {
        self.nodes.len() < NODES_MAX || self.nodes.contains_key(node)
    }

    /// Folds an enrolment. One who enrols again under the same key stays where it is, and revoked.
    pub fn enrol(&mut self, enrolled: &Enrolled) {
        match self.nodes.get_mut(&enrolled.node) {
            Some(node) => node.enrolled = enrolled.clone(),
            None => {
                let node = Node {
                    site: enrolled.site.clone(),
                    enrolled: enrolled.clone(),
                    revoked: false,
                    statuses: BTreeMap::new(),
                    presence: None,
                    heard: None,
                };
                self.nodes.insert(enrolled.node, node);
            }
        }
    }

    /// A node that may speak: enrolled, not revoked, no origin.
    pub fn admitted(&self, node: &NodeId) -> Option<&Node> {
        self.nodes
            .get(node)
            .filter(|n| !n.revoked && !self.origins.contains(node))
    }

    /// All that may speak, by id.
    pub fn all_admitted(&self) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.nodes
            .iter()
            .filter(|(id, n)| !n.revoked && !self.origins.contains(id))
    }

    /// A node said itself where it is. Returns its site if that is another than before.
    pub fn introduced(
        &mut self,
        presence: &Presence,
        now: Now,
    ) -> Option<(NodeId, Option<SiteId>)> {
        let node = self
            .nodes
            .get_mut(&presence.contact.node)
            .filter(|n| !n.revoked)?;
        if node
            .presence
            .as_ref()
            .is_some_and(|held| held.seq > presence.seq)
        {
            return None;
        }
        node.heard = Some(now);
        node.presence = Some(presence.clone());
        (node.site != presence.site).then(|| (presence.contact.node, presence.site.clone()))
    }

    /// A delegate of `site` sees this member. Returns the site if the node had none: one that has a
    /// place leaves it by its own word only, or a single machine could empty the waves of others.
    pub fn witnessed(
        &mut self,
        member: &NodeId,
        site: Option<&SiteId>,
        now: Now,
    ) -> Option<(NodeId, Option<SiteId>)> {
        let node = self.nodes.get_mut(member).filter(|n| !n.revoked)?;
        node.heard = Some(now);
        (node.site.is_none() && site.is_some()).then(|| (*member, site.cloned()))
    }

    /// Whether a node is heard of.
    pub fn reachability(node: &Node, now: Now, unreachable_after: Span) -> Reachability {
        match node.heard {
            Some(heard) if now.boot.since(heard.boot) < unreachable_after => {
                Reachability::Reachable
            }
            _ => Reachability::Unreachable,
        }
    }

    /// Members of a site that said lately where they are reached, the freshest first.
    pub fn members_of(&self, site: &SiteId, now: Now, fresh: Span) -> Vec<Presence> {
        let mut members: Vec<_> = self
            .all_admitted()
            .filter(|(_, n)| Fleet::reachability(n, now, fresh) == Reachability::Reachable)
            .filter_map(|(_, n)| Some((n.heard?.boot, n.presence.as_ref()?)))
            .filter(|(_, p)| p.site.as_ref() == Some(site) && !p.leaving)
            .collect();
        members.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.contact.node.cmp(&b.1.contact.node)));
        members
            .into_iter()
            .take(MEMBERS_HANDED_MAX)
            .map(|(_, p)| p.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Time;
    use protocol::fixtures::{contact, node, seq, site};

    fn enrolled(n: u64, site_name: Option<&str>) -> Enrolled {
        Enrolled {
            node: node(n),
            hostname: format!("host-{n}"),
            os: "linux".into(),
            arch: "x86_64".into(),
            labels: BTreeMap::new(),
            site: site_name.map(site),
            serial: format!("{n:x}"),
            token: "t".into(),
        }
    }

    fn presence(n: u64, at: &str, number: u64) -> Presence {
        Presence {
            contact: contact(n),
            site: Some(site(at)),
            roaming: false,
            seq: seq(number),
            orders_head: seq(0),
            leaving: false,
        }
    }

    fn at(seconds: u64) -> Now {
        Now {
            boot: Time::from_secs(seconds),
            wall: Time::from_secs(1_000_000 + seconds),
        }
    }

    #[test]
    fn a_delegate_places_who_has_no_place_and_moves_nobody() {
        let mut fleet = Fleet::default();
        fleet.enrol(&enrolled(1, None));
        let (s1, s2) = (site("s1"), site("s2"));
        let placed = fleet.witnessed(&node(1), Some(&s1), at(1));
        assert_eq!(placed, Some((node(1), Some(s1.clone()))));
        fleet.nodes.get_mut(&node(1)).expect("enrolled").site = Some(s1.clone());
        for seconds in [2, 200_000] {
            let moved = fleet.witnessed(&node(1), Some(&s2), at(seconds));
            assert_eq!(moved, None, "however long the node said nothing itself");
        }
        assert_eq!(
            fleet.introduced(&presence(1, "s2", 5), at(200_001)),
            Some((node(1), Some(s2))),
            "its own word"
        );
        assert_eq!(
            fleet.introduced(&presence(1, "s3", 4), at(200_002)),
            None,
            "an older word"
        );
        assert_eq!(
            fleet.witnessed(&node(2), Some(&s1), at(3)),
            None,
            "not enrolled"
        );
    }

    #[test]
    fn members_are_the_fresh_ones_of_the_site() {
        let fresh = Span::from_secs(60);
        let mut fleet = Fleet::default();
        for n in 1..=4 {
            fleet.enrol(&enrolled(n, Some("s1")));
            fleet.introduced(
                &presence(n, if n == 3 { "s2" } else { "s1" }, n),
                at(n * 10),
            );
        }
        fleet.nodes.get_mut(&node(4)).expect("enrolled").revoked = true;
        let found = fleet.members_of(&site("s1"), at(65), fresh);
        let ids: Vec<_> = found.iter().map(|p| p.contact.node).collect();
        assert_eq!(ids, vec![node(2), node(1)]);
        assert!(fleet.members_of(&site("s1"), at(500), fresh).is_empty());
    }
}
