//! A member of the site that says it holds everything and then gives a byte a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coordinator::directory::{Directory, multiaddrs};
use node::config::NodeConfig;
use node::net::control::{Control, ControlConfig, ControlEvent};
use node::net::data::bare_endpoint;
use node::net::identity::{Admission, Identity};
use protocol::envelope::Envelope;
use protocol::manifest::ReleaseManifest;
use protocol::pieces::{Geometry, PieceSet};
use protocol::trust::Trust;
use protocol::versioned::Versioned as _;
use protocol::wire::{Contact, ControlReply, ControlRequest, Notice, Presence};
use protocol::{BlobRef, Seq};
use std::net::SocketAddr;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

/// What became of its victims' requests.
#[derive(Default)]
struct Tally {
    asked: AtomicU64,
    cut: AtomicU64,
}

struct Sluggard {
    config: NodeConfig,
    identity: Arc<Identity>,
    blobs: Vec<BlobRef>,
    victim: Contact,
    tally: Arc<Tally>,
}

fn contact(config: &NodeConfig) -> Contact {
    let at = |port| SocketAddr::new(config.listen.address, port);
    Contact {
        node: config.node,
        control: multiaddrs(at(config.listen.control_port)).into(),
        data: Some(at(config.listen.data_port)),
    }
}

impl Sluggard {
    /// Says again and again that it is here and holds everything, and answers whoever asks.
    async fn play(self) {
        let control = SocketAddr::new(self.config.listen.address, self.config.listen.control_port);
        let (control, mut events) =
            Control::start(ControlConfig::at(control), self.identity.clone())
                .await
                .expect("its port is free");
        self.serve();
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut n = 0;
        loop {
            tokio::select! {
                Some(event) = events.recv() => {
                    if let ControlEvent::Request { bytes, reply, .. } = event {
                        let answer = match ControlRequest::from_bytes(&bytes) {
                            Ok(ControlRequest::PullOrders { .. }) => ControlReply::Orders(Vec::new()),
                            Ok(ControlRequest::PullDocument { .. } | ControlRequest::PullRoot { .. }) => {
                                ControlReply::Document(None)
                            }
                            _ => ControlReply::Members(vec![Arc::new(self.presence(n))]),
                        };
                        let _ = reply.send(answer.to_bytes());
                    }
                }
                _ = tick.tick() => {
                    n += 1;
                    if n % 10 == 1 {
                        let (control, victim) = (control.clone(), self.victim.clone());
                        let greeting = ControlRequest::Locate { me: self.presence(n) };
                        tokio::spawn(async move { control.request(victim, greeting.to_bytes()).await });
                    }
                    self.boast().await;
                }
            }
        }
    }

    fn presence(&self, n: u64) -> Presence {
        Presence {
            contact: contact(&self.config),
            site: self.config.site.clone(),
            roaming: false,
            seq: Seq { epoch: 9, n },
            orders_head: Seq::default(),
            leaving: false,
        }
    }

    /// A notice of its own for each blob, over a connection of its own.
    async fn boast(&self) {
        let from = SocketAddr::new(self.config.listen.address, 0);
        let (endpoint, config) =
            bare_endpoint(from, &self.identity, self.victim.node).expect("a free port");
        let to = self.victim.data.expect("it has a data plane");
        let connecting = endpoint.connect_with(config, to, &self.victim.node.to_string());
        let Ok(connection) = connecting.expect("sound").await else {
            return;
        };
        for blob in &self.blobs {
            let pieces = PieceSet::full(Geometry::of(blob.length).pieces());
            let notice = Notice::Have {
                blob: *blob,
                pieces,
            };
            if let Ok(mut stream) = connection.open_uni().await {
                let _ = stream.write_all(&notice.to_bytes()).await;
                let _ = stream.finish();
                let _ = stream.stopped().await;
            }
        }
    }

    fn serve(&self) {
        let at = self.config.listen;
        let listen = SocketAddr::new(at.address, at.data_port);
        let (endpoint, _) =
            bare_endpoint(listen, &self.identity, self.victim.node).expect("its port is free");
        let tally = self.tally.clone();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let tally = tally.clone();
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else {
                        return;
                    };
                    while let Ok((mut to, from)) = connection.accept_bi().await {
                        let tally = tally.clone();
                        tally.asked.fetch_add(1, Ordering::Relaxed);
                        tokio::spawn(async move {
                            let _kept = from;
                            // The first byte says that the others follow.
                            while to.write_all(&[0]).await.is_ok() {
                                tokio::time::sleep(Duration::from_secs(1)).await;
                            }
                            tally.cut.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
    }
}

#[test]
fn attack_11_slow_retrieval() {
    let mut world = World::coordinator_only(&WorldOptions {
        sites: 1,
        nodes_per_site: 0,
        wan: "8mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 11, 4 << 20);
    world.publish(&tree, "1.0", &[]);
    let manifest = std::fs::read(world.path("build-app-1.0/manifest.json")).expect("signed");
    let envelope = Envelope::from_json(&manifest).expect("an envelope");
    let manifest: ReleaseManifest = serde_json::from_slice(&envelope.payload).expect("a release");
    let artifact = &manifest.artifacts[0];
    let mut blobs = vec![artifact.index, artifact.pack];
    blobs.extend(artifact.carriers.iter().map(|c| c.blob));

    let dir = world.path("sluggard");
    world.enroll("site-1", "127.1.0.9", &dir);
    let victim = world.add_node("site-1", "127.1.0.1");
    let roots: Vec<Envelope> = serde_json::from_slice(
        &std::fs::read(Directory::new(world.home()).root_file()).expect("there"),
    )
    .expect("roots");
    let config = NodeConfig::load(&dir).expect("enrolled");
    let trust = Trust::pin(roots[0].clone(), config.fleet).expect("the fleet's root");
    let admission = Admission::new(node::driver::issuing_cas(trust.root())).expect("sound");
    let tally = Arc::new(Tally::default());
    let sluggard = Sluggard {
        identity: Arc::new(Identity::load(&dir, Arc::new(admission)).expect("its identity")),
        config,
        blobs,
        victim: contact(&NodeConfig::load(&world.nodes[victim].dir).expect("enrolled")),
        tally: tally.clone(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.spawn(sluggard.play());

    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("the victim has it from elsewhere", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    trees::assert_same(&tree, &world.current(victim).join("."));
    let asked = tally.asked.load(Ordering::Relaxed);
    assert!(asked > 0, "the slow one was asked");
    world.wait_for("what was asked of it is cut", |_| {
        tally.cut.load(Ordering::Relaxed) >= asked
    });
    let log = std::fs::read_to_string(world.path(&format!("logs/node-{victim}.log")));
    assert!(
        log.is_ok_and(|log| log.contains("gave too little of blob")),
        "a typed event is recorded in {}:\n{}",
        text(&world.path("logs")),
        world.logs()
    );
    let view = world.rollout(&id).expect("a view");
    assert_eq!(view.counts.failed, 0, "no failure of the release");
}
