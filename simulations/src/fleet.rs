//! Keys, root and signatures of a pretend fleet: all real, all out of the seed.
//!
//! A statement is verified once and the belief is shared, because every node trusts the same root and
//! would come to the same verdict.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Result;
use ed25519_dalek::SigningKey;
use node_core::contract::Event;
use protocol::envelope::Envelope;
use protocol::feed::SignedStages;
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Order, OrderBody, Receipt};
use protocol::plan::{Recall, RolloutPlan};
use protocol::status::{NodeStatus, SignedStatus};
use protocol::topology::Topology;
use protocol::trust::{Role, RoleKeys, Root, Statement, Trust};
use protocol::versioned::Versioned;
use protocol::wire::ControlReply;
use protocol::witness::SignedWord;
use protocol::{FleetId, Hash, NodeId, PublicKey, Time, Verified};

/// Wall time at the world's beginning.
pub const BEGINNING: Time = Time::from_secs(1_800_000_000);
/// Wall time at which all metadata expires.
pub const EXPIRES: Time = Time::from_secs(1_900_000_000);

/// Shelves of verified statuses, so that parts of the world seldom wait for one another.
const SHELVES: usize = 64;
/// Verified statuses on a shelf. A status is heard in its site and a little later by the coordinator;
/// what is heard later yet is verified again.
const SHELF_MAX: usize = 1024;

/// The fleet's keys and what was believed so far.
pub struct Fleet {
    trust: Trust,
    keys: Vec<(Role, SigningKey)>,
    nodes: Vec<SigningKey>,
    // every part of the world reads these, and each verdict is the same whoever comes to it first
    orders: RwLock<BTreeMap<Hash, Event>>,
    documents: RwLock<BTreeMap<Hash, Arc<Document>>>,
    statuses: Vec<Mutex<BTreeMap<Hash, Verified<NodeStatus>>>>,
}

/// A signed document that was believed.
pub struct Document {
    /// Its name.
    pub digest: Hash,
    /// The bytes of an answer that brings it.
    pub bytes: usize,
    /// What it says.
    pub event: Event,
}

fn key(seed: u64, label: &str, number: u32) -> SigningKey {
    let text = format!("tidegate simulation {seed} {label} {number}");
    SigningKey::from_bytes(&Hash::of(text.as_bytes()).0)
}

/// The public half.
pub fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

impl Fleet {
    /// The fleet of a seed with so many nodes, the origin and the coordinator among them.
    ///
    /// # Errors
    /// When its root is not sound, which is a mistake in this file.
    pub fn new(seed: u64, nodes: u32) -> Result<Fleet> {
        let roles = [
            (Role::Root, 1, 1, "root"),
            (Role::Releases, 1, 1, "releases"),
            (Role::Plans, 3, 2, "plans"),
            (Role::Topology, 1, 1, "topology"),
            (Role::Coordinator, 1, 1, "coordinator"),
        ];
        let mut keys = Vec::new();
        let mut role_keys = Vec::new();
        for (role, count, threshold, label) in roles {
            let mine: Vec<_> = (0..count).map(|n| key(seed, label, n)).collect();
            role_keys.push(RoleKeys {
                role,
                keys: mine.iter().map(public).collect(),
                threshold,
            });
            keys.extend(mine.into_iter().map(|k| (role, k)));
        }
        let root = Root {
            spec_version: 1,
            fleet_name: format!("simulation {seed}"),
            fleet: None,
            version: 1,
            expires: EXPIRES,
            roles: role_keys,
            issuing_cas: Vec::new(),
            delegations: Vec::new(),
        };
        let payload = serde_json::to_vec(&root)?;
        let mut envelope = Envelope::unsigned(Root::PAYLOAD_TYPE, payload);
        keys.iter()
            .filter(|(r, _)| *r == Role::Root)
            .for_each(|(_, k)| envelope.sign(k));
        let pinned = FleetId(envelope.digest().0);
        Ok(Fleet {
            trust: Trust::pin(envelope, pinned)?,
            keys,
            nodes: (0..nodes).map(|n| key(seed, "node", n)).collect(),
            orders: RwLock::default(),
            documents: RwLock::default(),
            statuses: (0..SHELVES).map(|_| Mutex::default()).collect(),
        })
    }

    /// The fleet's id.
    pub fn id(&self) -> FleetId {
        self.trust.fleet()
    }

    /// The trusted root.
    pub fn root(&self) -> &Verified<Root> {
        self.trust.root()
    }

    /// A node's id, by number.
    pub fn node(&self, number: usize) -> NodeId {
        public(&self.nodes[number]).into()
    }

    /// The keys of a role, in order.
    pub fn keys(&self, role: Role) -> impl Iterator<Item = &SigningKey> {
        self.keys
            .iter()
            .filter(move |(r, _)| *r == role)
            .map(|(_, k)| k)
    }

    /// A statement signed by every key of its role.
    pub fn sign<T: Statement>(&self, statement: &T) -> Envelope {
        let mut envelope = statement.to_envelope();
        self.keys(T::ROLE).for_each(|k| envelope.sign(k));
        envelope
    }

    /// A statement, if it is believed.
    pub fn believe<T: Statement>(&self, envelope: &Envelope) -> Option<Verified<T>> {
        self.trust.verify(envelope).ok()
    }

    /// An order, and the recall in it, if they are believed.
    pub fn order(&self, envelope: &Envelope) -> Option<Event> {
        once(&self.orders, envelope.digest(), || {
            let order: Verified<Order> = self.believe(envelope)?;
            let recall: Option<Verified<Recall>> = match &order.body {
                OrderBody::Recall { statement, .. } => self.believe(statement),
                _ => None,
            };
            Some(Event::Order(order, recall))
        })
    }

    /// A receipt, if it is believed.
    pub fn receipt(&self, envelope: &Envelope) -> Option<Event> {
        self.believe::<Receipt>(envelope).map(Event::Receipt)
    }

    /// A document of the kind that its envelope names, if it is believed: judged and kept once for all.
    pub fn document(&self, envelope: &Envelope) -> Option<Arc<Document>> {
        once(&self.documents, envelope.digest(), || {
            let event = match envelope.payload_type.as_str() {
                Topology::PAYLOAD_TYPE => Event::Topology(self.believe(envelope)?),
                RolloutPlan::PAYLOAD_TYPE => Event::Plan(self.believe(envelope)?),
                ReleaseManifest::PAYLOAD_TYPE => Event::Release(self.believe(envelope)?),
                _ => return None,
            };
            Some(Arc::new(Document {
                digest: envelope.digest(),
                bytes: ControlReply::Document(Some(envelope.to_json()))
                    .to_bytes()
                    .len(),
                event,
            }))
        })
    }

    /// A status, if it is believed.
    pub fn status(&self, signed: &SignedStatus) -> Option<Verified<NodeStatus>> {
        let digest = Hash::of(&signed.body);
        let shelf = &self.statuses[usize::from(digest.0[0]) % SHELVES];
        let held = || shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = held().get(&digest) {
            return Some(status.clone());
        }
        let status = signed.verify(self.id()).ok()?;
        let mut held = held();
        if held.len() >= SHELF_MAX {
            held.clear();
        }
        held.insert(digest, status.clone());
        Some(status)
    }

    /// A node signs its status.
    pub fn sign_status(&self, number: usize, status: &NodeStatus) -> SignedStatus {
        status.sign(&self.nodes[number])
    }

    /// A witness signs what it says.
    pub fn sign_word(&self, number: usize, word: &mut SignedWord) {
        word.sign(self.id(), &self.nodes[number]);
    }

    /// A delegate signs what it counts.
    pub fn sign_stages(&self, number: usize, stages: &mut SignedStages) {
        stages.sign(self.id(), &self.nodes[number]);
    }
}

/// What is believed of some bytes, judged once.
fn once<T: Clone>(
    held: &RwLock<BTreeMap<Hash, T>>,
    digest: Hash,
    judge: impl FnOnce() -> Option<T>,
) -> Option<T> {
    let read = held.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = read.get(&digest) {
        return Some(found.clone());
    }
    drop(read);
    let found = judge()?;
    let mut write = held.write().unwrap_or_else(PoisonError::into_inner);
    write.insert(digest, found.clone());
    Some(found)
}
