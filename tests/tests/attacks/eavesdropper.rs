//! Somebody who hears all that passes on the wire.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coordinator::directory::{Directory, multiaddrs};
use ed25519_dalek::SigningKey;
use node::net::control::{Control, ControlConfig, ControlEvent};
use node::net::data::{DataConfig, DataPlane, FetchJob};
use node::net::identity::issue::{IssuingCa, Validity};
use node::net::identity::{Admission, Identity};
use node::store::blobs::Blobs;
use node_core::contract::FetchOutcome;
use protocol::wire::{Class, Contact};
use protocol::{NodeId, Time};
use tidegate_tests::relay::Tape;
use tidegate_tests::{World, WorldOptions, trees};

use crate::mutations::{CASES, Mutations};

/// What is cut out of plain bytes and looked for.
const NEEDLE_BYTES: usize = 24;

/// At least [`CASES`] runs of the bytes of each file below `dir` whose name ends in `.data`.
fn needles_of(dir: &Path, mutations: &mut Mutations) -> Vec<Vec<u8>> {
    let mut needles = Vec::new();
    for entry in std::fs::read_dir(dir).expect("readable").flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "data") {
            continue;
        }
        let bytes = std::fs::read(path).expect("a blob");
        assert!(bytes.len() > NEEDLE_BYTES);
        needles.extend((0..CASES).map(|_| {
            let at = mutations.below(bytes.len() - NEEDLE_BYTES);
            bytes[at..at + NEEDLE_BYTES].to_vec()
        }));
    }
    assert!(needles.len() >= CASES, "there are blobs");
    needles
}

fn assert_unheard(tape: &Tape, needles: &[Vec<u8>]) {
    let heard = tape.find(needles);
    assert!(
        heard.is_empty(),
        "{} runs of plain bytes were heard, such as {:?}",
        heard.len(),
        String::from_utf8_lossy(heard[0])
    );
    tape.plant(&[b"before ", needles[0].as_slice(), b" after"].concat());
    assert_eq!(tape.find(needles)[0], needles[0], "it would be found");
}

/// All that passes between the nodes and the coordinator's machine: enrolment, API, control plane, bytes.
#[test]
fn attack_27_eavesdropping() {
    let mut world = World::coordinator_only(&WorldOptions {
        sites: 1,
        nodes_per_site: 0,
        wan: "200mbit",
    });
    // Nodes and operators are told another address; there somebody listens.
    world.stop_coordinator();
    let dir = Directory::new(world.home());
    let mut settings = dir.settings().expect("settings");
    let ear = "127.0.0.9".parse().expect("an address");
    settings.public = Some(ear);
    let json = serde_json::to_vec(&settings).expect("plain data");
    std::fs::write(world.home().join("coordinator.json"), json).expect("written");
    let tape = Tape::default();
    let at = |to: SocketAddr| SocketAddr::new(ear, to.port());
    for to in [settings.api, settings.control, settings.origin_control] {
        tape.relay_tcp(at(to), to);
    }
    for to in [
        settings.control,
        settings.origin_control,
        settings.origin_data,
    ] {
        tape.relay_udp(at(to), to);
    }
    world.start_coordinator();

    let label = "asset=inventory-tag-4711-of-the-finance-department";
    let node = world.path("node-0");
    world.enroll_with("site-1", "127.1.0.1", &node, &["--label", label]);
    let node = world.adopt_node(node);
    let tree = world.path("tree");
    trees::make(&tree, 27, 2 << 20);
    let version = "1.0-not-for-everyone";
    world.publish(&tree, version, &[]);
    let id = world.roll_out(version, &["rest"]);
    world.wait_for("it is installed", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    trees::assert_same(&tree, &world.current(node).join("."));

    let mut mutations = Mutations::new(27);
    let mut needles = needles_of(&world.home().join("origin/store/blobs"), &mut mutations);
    let token = dir.api_token().expect("a token");
    let hostname = node::inventory::hostname();
    let words = [
        version,
        &label[6..],
        &token,
        "token_secret",
        "\"hostname\"",
        &hostname,
    ];
    let words = words.iter().map(|word| word.as_bytes().to_vec());
    needles.extend(words.filter(|word| word.len() >= 8));
    let manifest = std::fs::read(world.path(&format!("build-app-{version}/manifest.json")));
    let manifest = manifest.expect("signed");
    needles.extend(manifest.chunks_exact(NEEDLE_BYTES).map(<[u8]>::to_vec));
    let carried = std::fs::metadata(world.path(&format!("build-app-{version}"))).is_ok();
    assert!(
        carried && tape.bytes() > 1 << 20,
        "{} bytes passed here",
        tape.bytes()
    );
    assert_unheard(&tape, &needles);
}

/// Two members of a site.
struct Pair {
    ca: IssuingCa,
}

const LONG: Validity = Validity {
    not_before: Time::from_secs(1_577_836_800),
    not_after: Time::from_secs(4_102_444_800),
};

impl Pair {
    fn identity(&self, n: u8) -> Arc<Identity> {
        let key = SigningKey::from_bytes(&[n; 32]);
        let node = NodeId(key.verifying_key().to_bytes());
        let chain = vec![
            self.ca.node(node, n.into(), LONG).expect("issued"),
            self.ca.certificate().clone(),
        ];
        let admission = Admission::new(vec![self.ca.certificate().clone()]).expect("sound");
        Arc::new(Identity::new(key, chain, Arc::new(admission)))
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A port of the loopback address that is free for UDP and TCP.
fn free() -> SocketAddr {
    let udp = std::net::UdpSocket::bind(loopback(0)).expect("a port");
    let port = udp.local_addr().expect("bound").port();
    SocketAddr::from(([127, 0, 0, 8], port))
}

/// The same inside a site: bytes from node to node, gossip and questions, over TCP and over QUIC.
#[test]
fn attack_27_eavesdropping_inside_a_site() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let key = SigningKey::from_bytes(&[27; 32]);
        let pair = Pair {
            ca: IssuingCa::create("pair", &key, LONG).expect("a CA"),
        };
        let (one, two) = (pair.identity(1), pair.identity(2));
        let tape = Tape::default();

        let dirs = [
            tempfile::tempdir().expect("made"),
            tempfile::tempdir().expect("made"),
        ];
        let source = dirs[0].path().join("source");
        let mut bytes = vec![0; 3 << 20];
        let mut mutations = Mutations::new(28);
        bytes
            .iter_mut()
            .for_each(|b| *b = mutations.below(256) as u8);
        std::fs::write(&source, &bytes).expect("written");
        let (mine, theirs) = (
            Blobs::open(dirs[0].path()).expect("a store"),
            Blobs::open(dirs[1].path()).expect("a store"),
        );
        let blob = mine.import_file(&source).expect("imported");
        let (from, _events) = DataPlane::bind(DataConfig::new(loopback(0)), one.clone(), mine)
            .await
            .expect("a port");
        let (to, _more) =
            DataPlane::bind(DataConfig::new(loopback(0)), two.clone(), theirs.clone())
                .await
                .expect("a port");
        let ear = free();
        tape.relay_udp(ear, from.local_addr());
        let open = theirs.open_blob(blob).expect("a blob");
        let job = FetchJob {
            from: Contact {
                node: one.node(),
                control: [].into(),
                data: Some(ear),
            },
            groups: vec![(0, open.geometry().groups())],
            blob: open,
            class: Class::Normal,
            max_bytes_per_s: 0,
            wan: false,
            spurned: Vec::new(),
        };
        let (progress, _reports) = tokio::sync::mpsc::channel(1);
        let end = to.fetch(job, progress).1.await.expect("it ends");
        assert_eq!(end.outcome, FetchOutcome::Complete);
        assert!(tape.bytes() > bytes.len(), "all of it passed here");

        let secret = b"status register of node finance-17: installed, free disk 12 GB".to_vec();
        for quic in [false, true] {
            let before = tape.bytes();
            talk(&tape, [&one, &two], quic, &secret).await;
            assert!(tape.bytes() > before + secret.len(), "that passed here too");
        }
        let mut needles = needles_of(&dirs[0].path().join("blobs"), &mut mutations);
        needles.extend(secret.chunks_exact(NEEDLE_BYTES / 2).map(<[u8]>::to_vec));
        assert_unheard(&tape, &needles);
    });
}

/// One asks the other over the relay, and gets the answer.
async fn talk(tape: &Tape, [one, two]: [&Arc<Identity>; 2], quic: bool, secret: &[u8]) {
    let (hears, mut events) = Control::start(ControlConfig::at(loopback(0)), one.clone())
        .await
        .expect("it listens");
    let (asks, _theirs) = Control::start(ControlConfig::at(loopback(0)), two.clone())
        .await
        .expect("it listens");
    let wanted = if quic { "/udp/" } else { "/tcp/" };
    let listening = hears.listen_addrs();
    let address = listening
        .iter()
        .map(ToString::to_string)
        .find(|a| a.contains(wanted));
    let address = address.expect("it listens on both");
    let port = address.split('/').nth(4).and_then(|port| port.parse().ok());
    let ear = free();
    let target = loopback(port.expect("a port"));
    let all = multiaddrs(ear);
    match quic {
        true => tape.relay_udp(ear, target),
        false => tape.relay_tcp(ear, target),
    }
    let told: Vec<String> = all.into_iter().filter(|a| a.contains(wanted)).collect();
    let to = Contact {
        node: one.node(),
        control: told.into(),
        data: None,
    };
    let answering = async {
        loop {
            if let Some(ControlEvent::Request { bytes, reply, .. }) = events.recv().await {
                let _ = reply.send(bytes);
                return;
            }
        }
    };
    let asked = asks.request(to, secret.to_vec());
    let limit = Duration::from_secs(60);
    let (answer, ()) = tokio::time::timeout(limit, async { tokio::join!(asked, answering) })
        .await
        .expect("they talk");
    assert_eq!(answer.expect("an answer"), secret);
}
