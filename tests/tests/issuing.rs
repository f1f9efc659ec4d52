//! The issuing CA is stolen: the fleet moves to another one while it runs, and the old one is taken away.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coordinator::directory::Directory;
use node::net::control::{Control, ControlConfig, ControlEvent};
use node::net::identity::issue::{IssuingCa, Validity};
use node::net::identity::{Admission, Identity, Issuer, load_key};
use protocol::envelope::Envelope;
use protocol::trust::Root;
use protocol::{NodeId, Time};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tidegate_tests::rotation::rotate;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

/// Certificates hold for so long here, so that nodes move within ten seconds; elsewhere it is a year.
const LIFE: Duration = Duration::from_secs(640);

fn newest(world: &World) -> Root {
    let chain = std::fs::read(world.home().join("root.json")).expect("there");
    let chain: Vec<Envelope> = serde_json::from_slice(&chain).expect("roots");
    serde_json::from_slice(&chain.last().expect("a root").payload).expect("a root")
}

fn leaf(dir: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(dir.join("certificates.pem")).expect("a certificate")
}

/// Whether what lies in a directory is of the CA in use.
fn moved(world: &World, dir: &Path) -> bool {
    let cas = node::driver::issuing_cas(&newest(world));
    let rules = Admission::new(cas).expect("sound");
    rules.issuer_of(&leaf(dir)) == Issuer::InUse
}

fn knows_root(world: &World, node: usize, version: u64) -> bool {
    let report = world.node_report(node);
    report.is_some_and(|report| report["root_version"] == version)
}

/// A machine that nobody enrolled, with a certificate that the thief made; it keeps to the coordinator.
/// Counts how often it was let in and put out.
fn intruder(
    world: &World,
    let_in: Arc<AtomicUsize>,
    put_out: Arc<AtomicUsize>,
) -> impl Future<Output = ()> + use<> {
    let dir = Directory::new(world.home());
    let der = std::fs::read(dir.ca_certificate_file()).expect("there");
    let ca_key = load_key(&dir.ca_key_file()).expect("there");
    let ca = IssuingCa::open(der.into(), &ca_key).expect("the fleet's CA");
    let key = ed25519_dalek::SigningKey::from_bytes(&[66; 32]);
    let node = NodeId(key.verifying_key().to_bytes());
    let now = node::driver::Clock::new(Time(0)).now().wall;
    let validity = Validity {
        not_before: now,
        not_after: now + protocol::Span::from_secs(1 << 20),
    };
    let leaf = ca.node(node, 666, validity).expect("made");
    let cas = node::driver::issuing_cas(&newest(world));
    let coordinator = dir.settings().expect("settings").coordinator_contact();
    async move {
        // He admits whoever has been a CA of the fleet: whether he is admitted is the question.
        let rules = Arc::new(Admission::new(cas).expect("sound"));
        let identity = Identity::new(key, vec![leaf], rules);
        let listen = ControlConfig::at(SocketAddr::from(([127, 0, 0, 1], 0)));
        let (control, mut events) = Control::start(listen, Arc::new(identity))
            .await
            .expect("a port is free");
        let mut again = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = again.tick() => control.connect(coordinator.clone()),
                event = events.recv() => match event {
                    Some(ControlEvent::Connected(_)) => { let_in.fetch_add(1, Ordering::Relaxed); }
                    Some(ControlEvent::Disconnected(_)) => { put_out.fetch_add(1, Ordering::Relaxed); }
                    Some(_) => {}
                    None => return,
                }
            }
        }
    }
}

/// Two nodes run, one is away over the change, and one is away and revoked.
#[test]
fn stolen_issuing_ca_is_taken_away_and_the_fleet_goes_on() {
    let mut world = World::coordinator_only(&WorldOptions {
        sites: 1,
        nodes_per_site: 0,
        wan: "200mbit",
    });
    world.configure("certificate_life", (LIFE.as_millis() as u64).into());
    for place in 1..=4 {
        world.add_node("site-1", &format!("127.1.0.{place}"));
    }
    world.wait_for("all report", |w| {
        let seen = |n: &&_| {
            let n: &coordinator::api::messages::NodeView = n;
            n.last_seen.is_some()
        };
        w.node_views().iter().filter(seen).count() == 4
    });
    world.kill_node(2);
    world.kill_node(3);
    world.tidegate(&["nodes", "--revoke", &world.nodes[3].id.to_string()]);
    let revoked = leaf(&world.nodes[3].dir);
    let (let_in, put_out) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let intruder = intruder(&world, let_in.clone(), put_out.clone());
    runtime.spawn(intruder);
    world.wait_for("the thief's machine is let in", |_| {
        let_in.load(Ordering::Relaxed) > 0
    });

    let old = world.path("old.der");
    std::fs::copy(world.home().join("ca/ca.der"), &old).expect("copied");
    let next = world.path("next.der");
    world.tidegate(&["root", "issuing-ca", "--out", text(&next)]);
    let said = rotate(&world, "root-2", &["--add", &format!("ca={}", text(&next))]);
    assert!(said.contains("root 2 is in force"), "{said}");
    world.wait_for("who runs moves to the next CA", |w| {
        let origin = moved(w, &w.home().join("origin"));
        origin && (0..2).all(|n| knows_root(w, n, 2) && moved(w, &w.nodes[n].dir))
    });
    let said = rotate(
        &world,
        "root-3",
        &["--remove", &format!("ca={}", text(&old))],
    );
    assert!(said.contains("root 3 is in force"), "{said}");
    world.wait_for("the thief's machine is put out", |_| {
        put_out.load(Ordering::Relaxed) > 0
    });
    let entered = let_in.load(Ordering::Relaxed);
    world.wait_for("who runs follows", |w| (0..2).all(|n| knows_root(w, n, 3)));

    assert!(!moved(&world, &world.nodes[2].dir));
    world.start_node(2);
    world.start_node(3);
    world.wait_for("the one that was away comes back", |w| {
        knows_root(w, 2, 3) && moved(w, &w.nodes[2].dir)
    });
    let tree = world.path("tree");
    trees::make(&tree, 6, 1 << 18);
    world.publish(&tree, "1.0", &[]);
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("all three have 1.0", |w| {
        w.rollout(&id)
            .is_some_and(|v| (v.counts.applied, v.targets) == (3, 3))
    });
    trees::assert_same(&tree, &world.current(2).join("."));
    assert_eq!(world.installed_version(3), None);
    assert_eq!(leaf(&world.nodes[3].dir), revoked, "it has no other");
    assert_eq!(
        let_in.load(Ordering::Relaxed),
        entered,
        "nobody let the thief in again"
    );

    // What lies at the coordinator is whole.
    world.stop_coordinator();
    world.start_coordinator();
    world.add_node("site-1", "127.1.0.5");
    world.wait_for("a machine that is enrolled later gets it too", |w| {
        w.installed_version(4).as_deref() == Some("1.0")
    });
    world.tidegate(&["audit", "verify"]);
}
