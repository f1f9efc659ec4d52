//! A fleet out of a seed, for tests: real keys, a real root, real signatures. Nothing here may be
//! used outside of tests, because the keys follow from the seed.

use ed25519_dalek::SigningKey;

use crate::blob::BlobRef;
use crate::envelope::Envelope;
use crate::ids::{FleetId, Hash, NodeId, PublicKey, RolloutId, Seq, SiteId};
use crate::manifest::{
    Artifact, Carrier, CarrierKind, HealthCheck, Install, ReleaseManifest, Severity,
};
use crate::orders::{Bulletin, Order, OrderBody, Receipt, RolloutHead};
use crate::plan::{Gate, Members, Priority, Recall, RolloutPlan, Targets, Wave};
use crate::time::{Span, Time};
use crate::topology::{Site, Topology};
use crate::trust::{Role, RoleKeys, Root, Statement, Trust, Verified};
use crate::wire::{Contact, Presence};

/// Wall time at which the statements of a fixture are made.
pub const CREATED: Time = Time::from_secs(1_800_000_000);
/// Wall time at which they expire unless a test says otherwise.
pub const EXPIRES: Time = Time::from_secs(1_900_000_000);

/// A fleet with all its keys: root 1 of 1, releases 2 of 2, plans 2 of 3, topology and coordinator
/// 1 of 1. The first operator proposes, so the other two approve.
#[derive(Clone)]
pub struct Fleet {
    trust: Trust,
    keys: Vec<(Role, SigningKey)>,
}

/// The key that `label` and `number` name.
pub fn key(label: &str, number: u64) -> SigningKey {
    let seed = [label.as_bytes(), &number.to_le_bytes()].concat();
    SigningKey::from_bytes(&blake3::derive_key("tidegate 2026 fixture key v1", &seed))
}

/// The key of node `number`.
pub fn node_key(number: u64) -> SigningKey {
    key("node", number)
}

/// The id of node `number`.
pub fn node(number: u64) -> NodeId {
    NodeId(node_key(number).verifying_key().to_bytes())
}

/// A node's contact on loopback.
pub fn contact(number: u64) -> Contact {
    let port = 10_000 + (number % 20_000) as u16;
    Contact {
        node: node(number),
        control: [format!("/ip4/127.0.0.1/udp/{port}/quic-v1")].into(),
        data: Some(([127, 0, 0, 1], port + 20_000).into()),
    }
}

/// A node's first presence, before it knows its site.
pub fn presence(number: u64) -> Presence {
    Presence {
        contact: contact(number),
        site: None,
        roaming: false,
        seq: Seq::default(),
        orders_head: Seq::default(),
        leaving: false,
    }
}

/// A site's or product's name; panics on a wrong one.
pub fn site(name: &str) -> SiteId {
    name.parse().expect("a fixture's name is well-formed")
}

/// A rollout's id; panics on a wrong one.
pub fn rollout(name: &str) -> RolloutId {
    name.parse().expect("a fixture's name is well-formed")
}

/// A number of epoch 1.
pub fn seq(n: u64) -> Seq {
    Seq { epoch: 1, n }
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

impl Fleet {
    /// The fleet of a seed.
    pub fn new(seed: u64) -> Fleet {
        let roles = [
            (Role::Root, 1, 1, "root"),
            (Role::Releases, 2, 2, "releases"),
            (Role::Plans, 3, 2, "plans"),
            (Role::Topology, 1, 1, "topology"),
            (Role::Coordinator, 1, 1, "coordinator"),
        ];
        let mut keys = Vec::new();
        let mut role_keys = Vec::new();
        for (role, count, threshold, label) in roles {
            let mine: Vec<_> = (0..count).map(|i| key(label, seed * 16 + i)).collect();
            role_keys.push(RoleKeys {
                role,
                keys: mine.iter().map(public).collect(),
                threshold,
            });
            keys.extend(mine.into_iter().map(|k| (role, k)));
        }
        let root = Root {
            spec_version: 1,
            fleet_name: format!("fixture {seed}"),
            fleet: None,
            version: 1,
            expires: EXPIRES,
            roles: role_keys,
            issuing_cas: Vec::new(),
            delegations: Vec::new(),
        };
        let mut envelope = root.to_envelope();
        keys.iter()
            .filter(|(r, _)| *r == Role::Root)
            .for_each(|(_, k)| envelope.sign(k));
        let pinned = FleetId(envelope.digest().0);
        let trust = Trust::pin(envelope, pinned).expect("a fixture's root is sound");
        Fleet { trust, keys }
    }

    /// The fleet's id.
    pub fn id(&self) -> FleetId {
        self.trust.fleet()
    }

    /// What a node of the fleet trusts.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The keys of a role, in order.
    pub fn keys(&self, role: Role) -> Vec<SigningKey> {
        self.keys
            .iter()
            .filter(|(r, _)| *r == role)
            .map(|(_, k)| k.clone())
            .collect()
    }

    /// Gives roles keys that they never had, as many as before, and steps to the root that says so.
    pub fn rotate(&mut self, roles: &[Role]) -> Verified<Root> {
        let before = self.keys(Role::Root);
        let mut root = (**self.trust.root()).clone();
        (root.version, root.fleet) = (root.version + 1, Some(self.id()));
        for (role, held) in &mut self.keys {
            if roles.contains(role) {
                let seed = [&held.to_bytes()[..], b"next"].concat();
                *held = SigningKey::from_bytes(blake3::hash(&seed).as_bytes());
            }
        }
        for keys in &mut root.roles {
            keys.keys = self.keys(keys.role).iter().map(public).collect();
        }
        let mut envelope = root.to_envelope();
        let both = before.into_iter().chain(self.keys(Role::Root));
        both.for_each(|key| envelope.sign(&key));
        self.trust.update(envelope).expect("both thresholds signed");
        self.trust.root().clone()
    }

    /// The operator who proposes.
    pub fn proposer(&self) -> PublicKey {
        public(&self.keys(Role::Plans)[0])
    }

    /// A statement in its envelope, signed by every key of its role.
    pub fn sign<T: Statement>(&self, statement: &T) -> Envelope {
        let mut envelope = statement.to_envelope();
        self.keys(T::ROLE).iter().for_each(|k| envelope.sign(k));
        envelope
    }

    /// A statement that a node of the fleet believes.
    pub fn verified<T: Statement>(&self, statement: &T) -> Verified<T> {
        self.trust
            .verify(&self.sign(statement))
            .expect("a fixture's statement is believed")
    }

    /// A `tree` release with one artifact for any platform; its blobs are named after `version`.
    pub fn release(&self, product: &str, version: &str, release_counter: u64) -> ReleaseManifest {
        let blob = |what: &str, length| BlobRef {
            root: Hash::of(format!("{what} {product} {version}").as_bytes()),
            length,
        };
        ReleaseManifest {
            spec_version: 1,
            fleet: self.id(),
            product: site(product),
            version: site(version),
            release_counter,
            vendor_severity: Severity::Moderate,
            applicability: None,
            artifacts: vec![Artifact {
                os: "any".into(),
                arch: "any".into(),
                index: blob("index", 10_000),
                pack: blob("pack", 3 << 20),
                carriers: vec![Carrier {
                    kind: CarrierKind::Full,
                    blob: blob("full", 1 << 20),
                }],
                group_log2: crate::limits::GROUP_LOG2,
                disk_bytes: 3 << 20,
            }],
            install: Install::Tree,
            health_check: None,
            hooks: Default::default(),
            restart: Default::default(),
            relations: Default::default(),
            created: CREATED,
            expires: EXPIRES,
        }
    }

    /// A health check that must hold for `soak`.
    pub fn health_check(&self, soak: Span, attempts: u32) -> HealthCheck {
        HealthCheck {
            argv: vec!["./check".into()],
            soak,
            attempts,
            timeout: Span::from_secs(10),
        }
    }

    /// A plan for all nodes: wave 0 are `first`, wave 1 is the rest.
    pub fn plan(
        &self,
        id: &str,
        release: &Verified<ReleaseManifest>,
        first: Vec<NodeId>,
    ) -> RolloutPlan {
        let wave = |name: &str, members| Wave {
            name: name.into(),
            members,
            not_before: CREATED,
            gate: Gate {
                min_success_ppm: 900_000,
                min_sample: 1,
                soak: Span::from_secs(1),
                silence_after: Span::from_secs(600),
            },
        };
        RolloutPlan {
            spec_version: 1,
            fleet: self.id(),
            rollout: rollout(id),
            plan_version: 1,
            release: release.digest(),
            product: release.product.clone(),
            version: release.version.clone(),
            proposer: self.proposer(),
            priority: Priority::Medium,
            salt: Hash::of(id.as_bytes()),
            targets: Targets::default(),
            waves: vec![
                wave("first", Members::Nodes(first)),
                wave("rest", Members::Rest),
            ],
            test: None,
            constraints: Default::default(),
            closure: Default::default(),
            lease_ttl: Span::from_secs(60),
            created: CREATED,
            not_after: EXPIRES,
        }
    }

    /// A topology of sites named `s1`, `s2`, … where site `n` is `127.n.0.0/16`.
    pub fn topology(&self, version: u64, sites: u8) -> Topology {
        let site = |n: u8| Site {
            id: site(&format!("s{n}")),
            subnets: vec![format!("127.{n}.0.0/16").parse().expect("a subnet")],
            parent: None,
            wan_down_bytes_per_s: Some(1 << 20),
            wan_up_bytes_per_s: None,
            relay: false,
            no_peers: false,
            node: Default::default(),
            schedule: None,
        };
        Topology {
            spec_version: 1,
            fleet: self.id(),
            version,
            created: CREATED,
            sites: (1..=sites).map(site).collect(),
            foreign: Vec::new(),
        }
    }

    /// Order number `n`.
    pub fn order(&self, n: u64, body: OrderBody) -> Verified<Order> {
        let order = Order {
            spec_version: 1,
            fleet: self.id(),
            seq: seq(n),
            issued: Time(CREATED.0 + n),
            body,
        };
        self.verified(&order)
    }

    /// A go-lease.
    pub fn lease(&self, plan: &Verified<RolloutPlan>, wave: u32) -> OrderBody {
        OrderBody::GoLease {
            rollout: plan.rollout.clone(),
            plan: plan.digest(),
            wave,
            below: None,
            held: Vec::new(),
            not_after: EXPIRES,
        }
    }

    /// A recall of a plan's rollout, for an order and believed.
    pub fn recall(&self, plan: &Verified<RolloutPlan>) -> (OrderBody, Verified<Recall>) {
        let recall = self.verified(&Recall {
            spec_version: 1,
            fleet: self.id(),
            rollout: plan.rollout.clone(),
            plan: plan.digest(),
            proposer: self.proposer(),
            reason: "it harms".into(),
            created: CREATED,
        });
        let body = OrderBody::Recall {
            rollout: plan.rollout.clone(),
            statement: recall.envelope().clone(),
        };
        (body, recall)
    }

    /// A bulletin of these rollouts, each with the number of the last order about it.
    pub fn bulletin(
        &self,
        topology: Option<&Verified<Topology>>,
        rollouts: &[(&Verified<RolloutPlan>, u64)],
    ) -> Bulletin {
        let head = |(plan, last): &(&Verified<RolloutPlan>, u64)| RolloutHead {
            rollout: plan.rollout.clone(),
            plan: plan.digest(),
            release: plan.release,
            last_order: seq(*last),
        };
        Bulletin {
            expires: EXPIRES,
            root_version: 1,
            topology: topology.map(Verified::digest),
            revocations: None,
            rollouts: rollouts.iter().map(head).collect(),
            assess: Vec::new(),
            ledger_head: Hash([0; 32]),
            ledger_entries: None,
            origins: vec![contact(9001)],
            coordinators: vec![contact(9000)],
        }
    }

    /// A receipt for these registers.
    pub fn receipt(&self, marks: Vec<crate::orders::Mark>) -> Verified<Receipt> {
        self.verified(&Receipt {
            spec_version: 1,
            fleet: self.id(),
            marks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_fixture_signs_is_believed() {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1.0", 1));
        let plan = fleet.verified(&fleet.plan("r1", &release, vec![node(1)]));
        assert_eq!(plan.wave_of(&node(1), None), Some(0));
        assert_eq!(plan.wave_of(&node(2), None), Some(1));
        let topology = fleet.verified(&fleet.topology(1, 3));
        let bulletin = fleet.bulletin(Some(&topology), &[(&plan, 1)]);
        let lease = fleet.order(1, fleet.lease(&plan, 0));
        let order = fleet.order(2, OrderBody::Bulletin(bulletin));
        assert!(lease.seq < order.seq);
        let (body, recall) = fleet.recall(&plan);
        assert_eq!(recall.rollout, plan.rollout);
        assert_eq!(fleet.order(3, body).body.rollout(), Some(&plan.rollout));
        assert_ne!(Fleet::new(1).id(), Fleet::new(2).id());
    }
}
