//! The row about the stolen online key: a thief with the coordinator's machine, its peer identity and
//! its signing key, against real nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coordinator::directory::Directory;
use node::net::control::{Control, ControlConfig, ControlEvent};
use node::net::identity::{Admission, Identity, load_key};
use protocol::envelope::Envelope;
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Bulletin, Order, OrderBody, RolloutHead};
use protocol::plan::{Gate, Members, Priority, Recall, RolloutPlan, Targets, Wave};
use protocol::trust::{Role, Root, Statement, Trust};
use protocol::versioned::Versioned as _;
use protocol::wire::{ControlReply, ControlRequest};
use protocol::{FleetId, Hash, PublicKey, Seq, Span, Time};
use tidegate_tests::{World, WorldOptions, trees};

use crate::roots::rotate_online_key;

const FAR: u64 = 1 << 63;

/// What the thief has: a copy of all that lies at the coordinator.
struct Thief {
    dir: Directory,
    fleet: FleetId,
    key: ed25519_dalek::SigningKey,
    operator: PublicKey,
    documents: BTreeMap<Hash, Vec<u8>>,
    orders: Vec<Envelope>,
}

fn wall() -> Time {
    node::driver::Clock::new(Time(0)).now().wall
}

impl Thief {
    fn new(world: &World) -> Thief {
        let dir = Directory::new(world.home());
        let roots: Vec<Envelope> =
            serde_json::from_slice(&std::fs::read(dir.root_file()).expect("there")).expect("roots");
        let root: Root = serde_json::from_slice(&roots[0].payload).expect("a root");
        Thief {
            fleet: dir.settings().expect("settings").fleet,
            key: load_key(&dir.online_key_file()).expect("the online key"),
            operator: root.role(Role::Plans).expect("the role").keys[0],
            documents: BTreeMap::new(),
            orders: Vec::new(),
            dir,
        }
    }

    /// Signs with the only key there is, and has it ready for whoever asks.
    fn document<T: Statement>(&mut self, statement: &T) -> Hash {
        let mut envelope = statement.to_envelope();
        envelope.sign(&self.key);
        self.documents.insert(envelope.digest(), envelope.to_json());
        envelope.digest()
    }

    fn order(&mut self, body: OrderBody) -> Seq {
        let seq = Seq {
            epoch: 1,
            n: FAR + self.orders.len() as u64,
        };
        let order = Order {
            spec_version: 1,
            fleet: self.fleet,
            seq,
            issued: wall(),
            body,
        };
        let mut envelope = order.to_envelope();
        envelope.sign(&self.key);
        self.orders.push(envelope);
        seq
    }

    /// A plan that nobody approved, for everybody, at once.
    fn plan(&mut self, id: &str, release: Hash, version: &str) -> RolloutHead {
        let now = wall();
        let plan = RolloutPlan {
            spec_version: 1,
            fleet: self.fleet,
            rollout: id.parse().expect("an id"),
            plan_version: 1,
            release,
            product: "app".parse().expect("a product"),
            version: version.parse().expect("a version"),
            proposer: self.operator,
            priority: Priority::Emergency,
            salt: Hash::of(b"salt"),
            targets: Targets::default(),
            waves: vec![Wave {
                name: "all".into(),
                members: Members::Rest,
                not_before: now,
                gate: Gate {
                    min_success_ppm: 0,
                    min_sample: 1,
                    soak: Span::ZERO,
                    silence_after: Span::from_secs(600),
                },
            }],
            test: None,
            constraints: Default::default(),
            closure: Default::default(),
            lease_ttl: Span::from_secs(600),
            created: now,
            not_after: now + Span::from_secs(86_400),
        };
        let digest = self.document(&plan);
        let last_order = self.order(OrderBody::GoLease {
            rollout: plan.rollout.clone(),
            plan: digest,
            wave: 0,
            below: None,
            held: Vec::new(),
            not_after: plan.not_after,
        });
        RolloutHead {
            rollout: plan.rollout,
            plan: digest,
            release,
            last_order,
        }
    }

    /// Plays the coordinator until `served` says enough documents went out.
    async fn play(self, served: Arc<AtomicU64>) {
        let settings = self.dir.settings().expect("settings");
        let roots: Vec<Envelope> =
            serde_json::from_slice(&std::fs::read(self.dir.root_file()).expect("there"))
                .expect("roots");
        let trust = Trust::pin(roots[0].clone(), self.fleet).expect("the fleet's root");
        let cas = node::driver::issuing_cas(trust.root());
        let admission = Arc::new(Admission::new(cas).expect("sound"));
        let identity =
            Identity::load(&self.dir.peer_dir(), admission).expect("the peer's identity");
        let config = ControlConfig::at(settings.control);
        let (control, mut events) = Control::start(config, Arc::new(identity))
            .await
            .expect("its port is free");
        while let Some(event) = events.recv().await {
            let ControlEvent::Request { bytes, reply, .. } = event else {
                continue;
            };
            let answer = match ControlRequest::from_bytes(&bytes) {
                Ok(ControlRequest::Uplink { .. }) => ControlReply::Uplink {
                    orders: self.orders.clone(),
                    receipt: None,
                    known: true,
                },
                Ok(ControlRequest::PullOrders { .. }) => ControlReply::Orders(self.orders.clone()),
                Ok(ControlRequest::PullDocument { digest }) => {
                    let found = self.documents.get(&digest).cloned();
                    if found.is_some() {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    ControlReply::Document(found)
                }
                Ok(ControlRequest::PullRoot { .. }) => ControlReply::Document(None),
                _ => ControlReply::Members(Vec::new()),
            };
            let _ = reply.send(answer.to_bytes());
        }
        drop(control);
    }
}

/// He gives orders near the end of all numbers: a plan of his own for a genuine release that nobody
/// approved, a release of his own, a recall of what is installed. Nothing is installed or taken back.
/// The root takes his key away, and the fleet goes on.
#[test]
fn attack_15_online_coordinator_key_stolen() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 2,
        wan: "200mbit",
    });
    for (version, seed) in [("1.0", 15), ("2.0", 16), ("3.0", 17)] {
        let tree = world.path(version);
        trees::make(&tree, seed, 1 << 18);
        world.publish(&tree, version, &[]);
    }
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("both have 1.0", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 2)
    });
    let listed: serde_json::Value =
        serde_json::from_str(&world.tidegate(&["release", "list", "--json"])).expect("JSON");
    let digest_of = |version: &str| -> Hash {
        let mut all = listed.as_array().expect("releases").iter();
        let found = all.find(|r| r["version"] == version).expect("published");
        found["digest"]
            .as_str()
            .expect("text")
            .parse()
            .expect("a digest")
    };
    let manifest = std::fs::read(world.path("build-app-2.0/manifest.json")).expect("signed");
    let genuine = Envelope::from_json(&manifest).expect("an envelope");
    assert_eq!(genuine.digest(), digest_of("2.0"));

    let mut thief = Thief::new(&world);
    thief.documents.insert(genuine.digest(), manifest);
    let mut evil: ReleaseManifest = serde_json::from_slice(&genuine.payload).expect("a manifest");
    evil.version = "6.6".parse().expect("a version");
    evil.release_counter += 1_000;
    let evil = thief.document(&evil);
    let mut rollouts = vec![
        thief.plan("unapproved", genuine.digest(), "2.0"),
        thief.plan("his-own", evil, "6.6"),
    ];
    let recall = Recall {
        spec_version: 1,
        fleet: thief.fleet,
        rollout: id.clone(),
        plan: Hash::of(b"any"),
        proposer: thief.operator,
        reason: "none".into(),
        created: wall(),
    };
    let mut statement = recall.to_envelope();
    statement.sign(&thief.key);
    thief.order(OrderBody::Recall {
        rollout: id.clone(),
        statement,
    });
    rollouts.sort_by(|a, b| a.rollout.cmp(&b.rollout));
    let settings = thief.dir.settings().expect("settings");
    thief.order(OrderBody::Bulletin(Bulletin {
        expires: wall() + Span::from_secs(86_400),
        root_version: 1,
        topology: None,
        revocations: None,
        rollouts,
        ledger_head: Hash::of(b"his"),
        assess: Vec::new(),
        ledger_entries: None,
        origins: vec![settings.origin_contact()],
        coordinators: vec![settings.coordinator_contact()],
    }));
    world.kill_coordinator();
    let served = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.spawn(thief.play(served.clone()));
    let enough = |_: &World| served.load(Ordering::Relaxed) >= 12;
    world.wait_for("the nodes ask for his documents again and again", enough);
    for node in 0..2 {
        assert_eq!(
            world.installed_version(node).as_deref(),
            Some("1.0"),
            "node {node}"
        );
        let report = world.node_report(node).expect("it runs");
        let head = &report["snapshot"]["orders_head"];
        assert!(
            head.to_string().contains(&FAR.to_string()[..6]),
            "it believed him: {head}"
        );
    }
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));

    world.start_coordinator();
    rotate_online_key(&world, "root-2");
    let id = world.roll_out("3.0", &["rest"]);
    world.wait_for("the fleet goes on with 3.0", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 2)
    });
    for node in 0..2 {
        trees::assert_same(&world.path("3.0"), &world.current(node).join("."));
    }
}
