//! The signed documents that a node holds: topology, plans, releases, and which root and revocation
//! list are in force.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::ROLLOUTS_MAX;
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Bulletin, RolloutHead};
use protocol::plan::RolloutPlan;
use protocol::topology::Topology;
use protocol::trust::{Role, Root};
use protocol::{Hash, RolloutId, Time, Verified};

use crate::contract::{NodeRole, Record, RecordKey};
use crate::counters::Counters;
use crate::outbox::Outbox;

/// Digests of documents that came and were not acceptable; the newest are kept.
const REFUSED_MAX: usize = 2 * ROLLOUTS_MAX;

/// The documents of this node.
#[derive(Default)]
pub(crate) struct Library {
    topology: Option<Verified<Topology>>,
    plans: BTreeMap<Hash, Verified<RolloutPlan>>,
    releases: BTreeMap<Hash, Verified<ReleaseManifest>>,
    revocations: Option<Hash>,
    root: Option<Verified<Root>>,
    refused: BTreeSet<Hash>,
}

/// What matters of the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RootInForce {
    /// Its version.
    pub(crate) version: u64,
    /// Wall time at which it expires.
    pub(crate) expires: Time,
}

impl Library {
    /// A document that was remembered; other records are left alone.
    pub(crate) fn restore(&mut self, record: &Record) {
        match record {
            Record::Topology(topology) => self.topology = Some(topology.clone()),
            Record::Plan(plan) => drop(self.plans.insert(plan.digest(), plan.clone())),
            Record::Release(release) => {
                self.releases.insert(release.digest(), release.clone());
            }
            _ => {}
        }
    }

    /// The topology in force.
    pub(crate) fn topology(&self) -> Option<&Verified<Topology>> {
        self.topology.as_ref()
    }

    /// A plan by its digest.
    pub(crate) fn plan(&self, digest: &Hash) -> Option<&Verified<RolloutPlan>> {
        self.plans.get(digest)
    }

    /// A release by its digest.
    pub(crate) fn release(&self, digest: &Hash) -> Option<&Verified<ReleaseManifest>> {
        self.releases.get(digest)
    }

    /// The root in force; `None` until the body has told.
    pub(crate) fn root(&self) -> Option<RootInForce> {
        let root = self.root.as_ref()?;
        Some(RootInForce {
            version: root.version,
            expires: root.expires,
        })
    }

    /// The body trusts this root now. Gives the roles that lost a key by it: what was counted under
    /// them counts no more.
    pub(crate) fn set_root(&mut self, root: &Verified<Root>) -> Vec<Role> {
        let held = self.root.as_ref();
        if held.is_some_and(|held| root.version < held.version) {
            return Vec::new();
        }
        let Some(held) = self.root.replace(root.clone()) else {
            return Vec::new();
        };
        // What was refused may be signed anew.
        self.refused.clear();
        [Role::Coordinator, Role::Topology, Role::Releases]
            .into_iter()
            .filter(|role| held.retires(root, *role))
            .collect()
    }

    /// The revocation list with this digest is in force.
    pub(crate) fn set_revocations(&mut self, digest: Hash) {
        self.revocations = Some(digest);
    }

    /// Takes a topology in; true if it is a new one.
    pub(crate) fn take_topology(
        &mut self,
        topology: Verified<Topology>,
        counters: &mut Counters,
        out: &mut Outbox,
    ) -> bool {
        let digest = topology.digest();
        if self
            .topology
            .as_ref()
            .is_some_and(|held| held.digest() == digest)
        {
            return false;
        }
        let known = counters.topology();
        if topology.version < known {
            let version = topology.version;
            out.note(
                "metadata_rollback",
                format!("topology {version} is older than {known}; ignored"),
            );
            self.refuse(digest);
            return false;
        }
        if topology.version == known && self.topology.is_some() {
            out.note(
                "equivocation",
                format!("two topologies have version {known}; the first is kept"),
            );
            self.refuse(digest);
            return false;
        }
        out.remember(Record::Topology(topology.clone()));
        counters.raise_topology(topology.version);
        self.topology = Some(topology);
        true
    }

    /// Takes a plan in if the bulletin names it; true if it is new.
    pub(crate) fn take_plan(
        &mut self,
        plan: Verified<RolloutPlan>,
        bulletin: Option<&Bulletin>,
        out: &mut Outbox,
    ) -> bool {
        let digest = plan.digest();
        if self.plans.contains_key(&digest) {
            return false;
        }
        let Some(head) = bulletin.and_then(|b| b.rollouts.iter().find(|h| h.plan == digest)) else {
            return false;
        };
        if head.rollout != plan.rollout || head.release != plan.release {
            let line = format!(
                "bulletin and plan of {} do not fit each other; refused",
                head.rollout
            );
            out.note("snapshot_mismatch", line);
            self.refuse(digest);
            return false;
        }
        out.remember(Record::Plan(plan.clone()));
        self.plans.insert(digest, plan);
        true
    }

    /// Takes a release in if the bulletin names it; true if it is new.
    pub(crate) fn take_release(
        &mut self,
        release: Verified<ReleaseManifest>,
        bulletin: Option<&Bulletin>,
        out: &mut Outbox,
    ) -> bool {
        let digest = release.digest();
        let named = bulletin.is_some_and(|b| {
            let mut assessed = b.assess.iter().map(|a| a.release);
            let mut brought = b.rollouts.iter().map(|h| h.release);
            brought.any(|r| r == digest) || assessed.any(|r| r == digest)
        });
        if !named || self.releases.contains_key(&digest) {
            return false;
        }
        out.remember(Record::Release(release.clone()));
        self.releases.insert(digest, release);
        true
    }

    /// Digests that the bulletin names and that are not held, in the order in which they help.
    pub(crate) fn missing(&self, bulletin: &Bulletin, role: NodeRole) -> Vec<Hash> {
        let topology = bulletin.topology.filter(|d| {
            self.topology
                .as_ref()
                .is_none_or(|held| held.digest() != *d)
        });
        let revocations = bulletin
            .revocations
            .filter(|d| self.revocations != Some(*d));
        // An origin installs nothing.
        let (heads, assess) = match role {
            NodeRole::Origin => (&[][..], &[][..]),
            NodeRole::Endpoint => (&bulletin.rollouts[..], &bulletin.assess[..]),
        };
        let plans = heads
            .iter()
            .map(|h| h.plan)
            .filter(|d| !self.plans.contains_key(d));
        let releases = heads
            .iter()
            .map(|h| h.release)
            .chain(assess.iter().map(|a| a.release))
            .filter(|d| !self.releases.contains_key(d));
        let all = topology
            .into_iter()
            .chain(revocations)
            .chain(plans)
            .chain(releases);
        all.filter(|d| !self.refused.contains(d)).collect()
    }

    /// Rollouts that the bulletin names and of which a document is still to come.
    pub(crate) fn unread<'a>(
        &'a self,
        bulletin: Option<&'a Bulletin>,
    ) -> impl Iterator<Item = &'a RolloutId> {
        let heads = bulletin.map_or(&[][..], |b| &b.rollouts[..]);
        let comes = |digest: &Hash, here: bool| !here && !self.refused.contains(digest);
        let lacks = move |head: &&RolloutHead| {
            comes(&head.plan, self.plans.contains_key(&head.plan))
                || comes(&head.release, self.releases.contains_key(&head.release))
        };
        heads.iter().filter(lacks).map(|head| &head.rollout)
    }

    /// Drops every plan and release that is not among these.
    pub(crate) fn keep_only(
        &mut self,
        plans: &BTreeSet<Hash>,
        releases: &BTreeSet<Hash>,
        out: &mut Outbox,
    ) {
        self.plans.retain(|digest, _| {
            let keep = plans.contains(digest);
            if !keep {
                out.forget(RecordKey::Plan(*digest));
            }
            keep
        });
        self.releases.retain(|digest, _| {
            let keep = releases.contains(digest);
            if !keep {
                out.forget(RecordKey::Release(*digest));
            }
            keep
        });
    }

    fn refuse(&mut self, digest: Hash) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_first();
        }
        self.refused.insert(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{Fleet, node};

    #[test]
    fn an_older_topology_is_refused_and_not_asked_for_again() {
        let fleet = Fleet::new(1);
        let mut out = Outbox::default();
        let mut counters = Counters::new(None, None, 1);
        let mut library = Library::default();
        let [one, two] = [1, 2].map(|version| fleet.verified(&fleet.topology(version, 2)));
        assert!(library.take_topology(two.clone(), &mut counters, &mut out));
        assert!(!library.take_topology(two.clone(), &mut counters, &mut out));
        assert!(!library.take_topology(one.clone(), &mut counters, &mut out));
        assert_eq!(library.topology(), Some(&two));
        assert!(
            library
                .missing(&fleet.bulletin(Some(&one), &[]), NodeRole::Endpoint)
                .is_empty()
        );
    }

    #[test]
    fn only_what_the_bulletin_names_is_kept() {
        let fleet = Fleet::new(1);
        let mut out = Outbox::default();
        let mut library = Library::default();
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
        let bulletin = fleet.bulletin(None, &[(&plan, 1)]);
        assert_eq!(
            library.missing(&bulletin, NodeRole::Endpoint),
            [plan.digest(), release.digest()]
        );
        assert!(!library.take_plan(plan.clone(), None, &mut out));
        assert!(library.take_plan(plan, Some(&bulletin), &mut out));
        assert!(library.take_release(release, Some(&bulletin), &mut out));
        assert!(library.missing(&bulletin, NodeRole::Endpoint).is_empty());
        library.keep_only(&BTreeSet::new(), &BTreeSet::new(), &mut out);
        assert_eq!(library.missing(&bulletin, NodeRole::Endpoint).len(), 2);
    }

    #[test]
    fn a_plan_that_does_not_fit_the_bulletin_is_refused() {
        let fleet = Fleet::new(1);
        let mut out = Outbox::default();
        let mut library = Library::default();
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
        let mut bulletin = fleet.bulletin(None, &[(&plan, 1)]);
        bulletin.rollouts[0].release = Hash::of(b"another");
        assert!(!library.take_plan(plan.clone(), Some(&bulletin), &mut out));
        assert!(
            !library
                .missing(&bulletin, NodeRole::Endpoint)
                .contains(&plan.digest())
        );
    }
}
