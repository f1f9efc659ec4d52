//! The fleet as the conductor sees it: who is enrolled, in which site, what it said last.
//!
//! Enrolment, site, revocation and statuses are folds of the ledger. When a node was last heard of
//! and where it is reached are not: they are worth nothing after a restart; see [`crate::presence`].
//! Counts per site are kept as things change, so nothing here looks through all nodes but what was
//! asked for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::envelope::Envelope;
use protocol::inventory::{NodeInventory, Subject};
use protocol::limits::NODES_MAX;
use protocol::status::NodeStatus;
use protocol::topology::Topology;
use protocol::trust::Statement;
use protocol::wire::Presence;
use protocol::{Hash, NodeId, Now, RolloutId, Seq, SiteId, Span, Time};

use crate::contract::Enrolled;
use crate::pool::Pool;
use crate::presence::Sighting;
use crate::register::{Register, Registers};

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
pub(crate) struct Node {
    pub hostname: Box<str>,
    pub os: Arc<String>,
    pub arch: Arc<String>,
    pub labels: Arc<BTreeMap<String, String>>,
    /// What else it says of itself, by name.
    pub attributes: Arc<BTreeMap<String, String>>,
    /// The number of its newest inventory.
    pub(crate) described: Seq,
    pub site: Option<Arc<SiteId>>,
    pub revoked: bool,
    /// The newest register of each rollout.
    pub statuses: Registers,
    /// Where it is reached by its newest own word; not ledgered.
    pub(crate) presence: Option<Box<Presence>>,
    /// The number of that word.
    pub(crate) word: Seq,
    /// When it was last heard of, apart from sightings; not ledgered.
    pub(crate) heard: Option<Now>,
    /// It counts as reachable.
    pub(crate) reachable: bool,
}

impl Node {
    /// As filters see it.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            site: self.site.as_deref(),
            labels: &self.labels,
            attributes: &self.attributes,
        }
    }
}

/// The nodes that are in a site, or none when nobody is.
#[derive(Default)]
pub(crate) struct Population {
    /// All that may speak.
    pub nodes: u32,
    /// Those heard of lately.
    pub reachable: u32,
    /// Those that said where they are reached.
    pub(crate) present: BTreeSet<NodeId>,
    /// What its delegates saw last.
    pub(crate) sightings: BTreeMap<NodeId, Sighting>,
}

/// All nodes, and the newest topology.
pub(crate) struct Fleet {
    /// They install nothing, so nothing is asked of them.
    pub origins: BTreeSet<NodeId>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub topology: Option<Held<Topology>>,
    /// Sites in which someone is.
    pub sites: BTreeMap<Arc<SiteId>, Population>,
    /// See [`crate::contract::Config::unreachable_after`].
    pub(crate) unreachable_after: Span,
    /// Boot times at which to look whether a reachable node still is; never before it is.
    pub(crate) due: BTreeSet<(Time, NodeId)>,
    words: Pool<String>,
    label_sets: Pool<BTreeMap<String, String>>,
    rollouts: Pool<RolloutId>,
}

impl Fleet {
    /// Nobody yet.
    pub fn new(origins: BTreeSet<NodeId>, unreachable_after: Span) -> Fleet {
        Fleet {
            origins,
            nodes: BTreeMap::new(),
            topology: None,
            sites: BTreeMap::new(),
            unreachable_after,
            due: BTreeSet::new(),
            words: Pool::default(),
            label_sets: Pool::default(),
            rollouts: Pool::default(),
        }
    }

    /// Whether one more may be enrolled.
    pub fn has_room_for(&self, node: &NodeId) -> bool {
        self.nodes.len() < NODES_MAX || self.nodes.contains_key(node)
    }

    /// Folds an enrolment. One who enrols again under the same key stays where it is, and revoked.
    pub fn enrol(&mut self, enrolled: &Enrolled) {
        let hostname: Box<str> = enrolled.hostname.as_str().into();
        let os = self.words.share(&enrolled.os);
        let arch = self.words.share(&enrolled.arch);
        let labels = self.label_sets.share(&enrolled.labels);
        if let Some(node) = self.nodes.get_mut(&enrolled.node) {
            (node.hostname, node.os, node.arch, node.labels) = (hostname, os, arch, labels);
            return;
        }
        let known = [("os", &enrolled.os), ("arch", &enrolled.arch)];
        let known = known.map(|(name, value)| (name.to_owned(), value.clone()));
        let node = Node {
            hostname,
            os,
            arch,
            labels,
            attributes: self.label_sets.share(&BTreeMap::from(known)),
            described: Seq::default(),
            site: None,
            revoked: false,
            statuses: Registers::default(),
            presence: None,
            word: Seq::default(),
            heard: None,
            reachable: false,
        };
        self.nodes.insert(enrolled.node, node);
        self.place(&enrolled.node, enrolled.site.as_ref());
    }

    /// Folds what a node says of itself.
    pub fn describe(&mut self, inventory: &NodeInventory) {
        let labels = self.label_sets.share(&inventory.labels);
        let attributes = self.label_sets.share(&inventory.attributes);
        if let Some(node) = self.nodes.get_mut(&inventory.node) {
            (node.labels, node.attributes) = (labels, attributes);
            node.described = inventory.seq;
        }
    }

    /// Folds that a node is in another site now.
    pub fn place(&mut self, id: &NodeId, site: Option<&SiteId>) {
        let seen = self.heard(id);
        let before = self.nodes.get(id).and_then(|n| n.site.clone());
        self.count(id, false);
        if let Some(left) = before.and_then(|s| self.sites.get_mut(&s)) {
            left.sightings.values_mut().for_each(|s| s.estranges(id));
        }
        let counts = self.admitted(id).is_some();
        let site = site.map(|site| match counts {
            true => self.shared_site(site),
            false => Arc::new(site.clone()),
        });
        if let Some(node) = self.nodes.get_mut(id) {
            // sightings of the site that it leaves are not asked any more
            node.heard = seen;
            node.site = site;
        }
        self.count(id, true);
    }

    /// Folds a revocation.
    pub fn revoke(&mut self, id: &NodeId) {
        let seen = self.heard(id);
        self.count(id, false);
        if let Some(node) = self.nodes.get_mut(id) {
            node.heard = seen;
            (node.revoked, node.reachable, node.presence) = (true, false, None);
        }
    }

    /// Folds a status, if it is newer than what is held.
    pub fn hold(&mut self, status: &NodeStatus) -> bool {
        let rollout = self.rollouts.share(&status.rollout);
        let Some(node) = self.nodes.get_mut(&status.node) else {
            return false;
        };
        let held = node.statuses.get(&status.rollout).map(|r| r.seq);
        let newer = held.is_none_or(|held| held < status.seq);
        if newer {
            node.statuses.insert(Register::of(rollout, status));
        }
        newer
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

    fn shared_site(&mut self, site: &SiteId) -> Arc<SiteId> {
        if let Some((held, _)) = self.sites.get_key_value(site) {
            return held.clone();
        }
        let shared = Arc::new(site.clone());
        self.sites.insert(shared.clone(), Population::default());
        shared
    }

    /// Counts a node in its site, or takes it out of the counts.
    fn count(&mut self, id: &NodeId, there: bool) {
        if self.origins.contains(id) {
            return;
        }
        let Some(node) = self.nodes.get(id).filter(|n| !n.revoked) else {
            return;
        };
        let Some(site) = &node.site else { return };
        let Some(population) = self.sites.get_mut(site) else {
            return;
        };
        let reachable = u32::from(node.reachable);
        match there {
            true => {
                population.nodes += 1;
                population.reachable += reachable;
                if node.presence.is_some() {
                    population.present.insert(*id);
                }
            }
            false => {
                population.nodes -= 1;
                population.reachable -= reachable;
                population.present.remove(id);
                if population.nodes == 0 {
                    let site = site.clone();
                    self.sites.remove(&site);
                }
            }
        }
    }
}
