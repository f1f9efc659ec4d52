//! A member of a site whose program is not ours: enrolled like any other, it says that it is here and holds
//! everything, answers whoever asks, and gives what it likes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
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
use protocol::{BlobRef, FleetId, Seq};

use crate::World;

/// What became of its victims' questions.
#[derive(Default)]
pub struct Tally {
    /// Requests for bytes.
    pub asked: AtomicU64,
    /// Of these, those that the victim ended.
    pub cut: AtomicU64,
    /// Questions for orders, documents and roots.
    pub questions: AtomicU64,
}

/// What it gives.
#[derive(Clone)]
pub enum Manner {
    /// Nothing of what is asked for by message, and of bytes one a second.
    Slow,
    /// These orders, for documents and roots too, and bytes that are none of the blob's. It takes every
    /// report and hands none on.
    Forging(Vec<Envelope>),
}

/// The member.
pub struct Member {
    config: NodeConfig,
    identity: Arc<Identity>,
    blobs: Vec<BlobRef>,
    victims: Vec<Contact>,
    manner: Manner,
    tally: Arc<Tally>,
}

/// All blobs of the release that was built and signed in a directory.
///
/// # Errors
/// When it holds none.
pub fn blobs_of(build: &Path) -> anyhow::Result<Vec<BlobRef>> {
    let manifest = std::fs::read(build.join("manifest.json")).context("not signed")?;
    let envelope = Envelope::from_json(&manifest)?;
    let manifest: ReleaseManifest = serde_json::from_slice(&envelope.payload)?;
    let artifact = manifest.artifacts.first().context("a release of nothing")?;
    let mut blobs = vec![artifact.index, artifact.pack];
    blobs.extend(artifact.carriers.iter().map(|c| c.blob));
    Ok(blobs)
}

/// The fleet that was enrolled with in `dir`.
///
/// # Panics
/// When there is no configuration.
pub fn fleet_of(dir: &Path) -> FleetId {
    NodeConfig::load(dir).expect("enrolled").fleet
}

/// Where the node of this directory is reached.
///
/// # Panics
/// When there is no configuration.
pub fn contact_of(dir: &Path) -> Contact {
    contact(&NodeConfig::load(dir).expect("enrolled"))
}

/// The rules of admission of a fleet, by its file of roots.
///
/// # Errors
/// When the file cannot be used.
pub fn admission_of(roots: &Path, fleet: FleetId) -> anyhow::Result<Admission> {
    let roots: Vec<Envelope> = serde_json::from_slice(&std::fs::read(roots)?)?;
    let trust = Trust::pin(roots.first().context("no roots")?.clone(), fleet)?;
    Ok(Admission::new(node::driver::issuing_cas(trust.root()))?)
}

fn contact(config: &NodeConfig) -> Contact {
    let at = |port| SocketAddr::new(config.listen.address, port);
    Contact {
        node: config.node,
        control: multiaddrs(at(config.listen.control_port)).into(),
        data: Some(at(config.listen.data_port)),
    }
}

impl Member {
    /// One with the identity that was enrolled in `dir`, for the nodes of these directories; `roots` is the
    /// fleet's file of roots.
    ///
    /// # Errors
    /// When a file of its own or of a victim cannot be used.
    pub fn new(
        dir: &Path,
        roots: &Path,
        victims: &[PathBuf],
        blobs: Vec<BlobRef>,
        manner: Manner,
    ) -> anyhow::Result<Member> {
        let config = NodeConfig::load(dir)?;
        let admission = admission_of(roots, config.fleet)?;
        let victims: Result<Vec<_>, _> = victims.iter().map(|dir| NodeConfig::load(dir)).collect();
        Ok(Member {
            identity: Arc::new(Identity::load(dir, Arc::new(admission))?),
            config,
            blobs,
            victims: victims?.iter().map(contact).collect(),
            manner,
            tally: Arc::default(),
        })
    }

    /// One for nodes of a world, by their numbers, that holds "app" 1.0 there.
    ///
    /// # Panics
    /// When it or a victim was not enrolled.
    pub fn of(world: &World, dir: &Path, victims: &[usize], manner: Manner) -> Member {
        let roots = Directory::new(world.home()).root_file();
        let victims: Vec<PathBuf> = victims
            .iter()
            .map(|n| world.nodes[*n].dir.clone())
            .collect();
        let blobs = blobs_of(&world.path("build-app-1.0")).expect("it was published");
        Member::new(dir, &roots, &victims, blobs, manner).expect("enrolled")
    }

    /// What became of its victims' questions so far.
    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// Says again and again that it is here and holds everything, and answers whoever asks.
    pub async fn play(self) {
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
                        let answer = self.answer(&bytes, n);
                        let _ = reply.send(answer.to_bytes());
                    }
                }
                _ = tick.tick() => {
                    n += 1;
                    if n % 10 == 1 {
                        self.call(&control, n);
                    }
                    // Often at first, then as a node would.
                    if n < 50 || n % 10 == 0 {
                        self.boast().await;
                    }
                }
            }
        }
    }

    fn answer(&self, bytes: &[u8], n: u64) -> ControlReply {
        let request = ControlRequest::from_bytes(bytes);
        if let Ok(
            ControlRequest::PullOrders { .. }
            | ControlRequest::PullDocument { .. }
            | ControlRequest::PullRoot { .. },
        ) = &request
        {
            self.tally.questions.fetch_add(1, Ordering::Relaxed);
        }
        match (request, &self.manner) {
            (Ok(ControlRequest::PullOrders { .. }), Manner::Slow) => {
                ControlReply::Orders(Vec::new())
            }
            (Ok(ControlRequest::PullOrders { .. }), Manner::Forging(orders)) => {
                ControlReply::Orders(orders.clone())
            }
            (
                Ok(ControlRequest::PullDocument { .. } | ControlRequest::PullRoot { .. }),
                Manner::Slow,
            ) => ControlReply::Document(None),
            (
                Ok(ControlRequest::PullDocument { .. } | ControlRequest::PullRoot { .. }),
                Manner::Forging(orders),
            ) => ControlReply::Document(orders.first().map(Envelope::to_json)),
            (Ok(ControlRequest::Report { .. }), Manner::Forging(_)) => ControlReply::Done,
            _ => ControlReply::Members(vec![Arc::new(self.presence(n))]),
        }
    }

    fn presence(&self, n: u64) -> Presence {
        Presence {
            contact: contact(&self.config),
            site: self.config.site.clone(),
            roaming: false,
            seq: Seq { epoch: 9, n },
            orders_head: match self.manner {
                Manner::Slow => Seq::default(),
                Manner::Forging(_) => Seq { epoch: 9, n },
            },
            leaving: false,
        }
    }

    /// Introduces itself to its victims, and pushes what it forged.
    fn call(&self, control: &Control, n: u64) {
        for victim in &self.victims {
            let mut requests = vec![ControlRequest::Locate {
                me: self.presence(n),
            }];
            if let Manner::Forging(orders) = &self.manner {
                let orders = orders.clone();
                requests.push(ControlRequest::Push { orders });
            }
            for request in requests {
                let (control, victim) = (control.clone(), victim.clone());
                tokio::spawn(async move { control.request(victim, request.to_bytes()).await });
            }
        }
    }

    /// A notice of its own for each blob, over a connection of its own.
    async fn boast(&self) {
        let from = SocketAddr::new(self.config.listen.address, 0);
        for victim in &self.victims {
            let (endpoint, config) =
                bare_endpoint(from, &self.identity, victim.node).expect("a free port");
            let to = victim.data.expect("it has a data plane");
            let connecting = endpoint.connect_with(config, to, &victim.node.to_string());
            let Ok(connection) = connecting.expect("sound").await else {
                continue;
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
    }

    fn serve(&self) {
        let at = self.config.listen;
        let listen = SocketAddr::new(at.address, at.data_port);
        let (endpoint, _) =
            bare_endpoint(listen, &self.identity, self.victims[0].node).expect("its port is free");
        let (tally, slow) = (self.tally.clone(), matches!(self.manner, Manner::Slow));
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
                            let mut sent = to.write_all(&[0]).await;
                            while sent.is_ok() {
                                if slow {
                                    tokio::time::sleep(Duration::from_secs(1)).await;
                                }
                                let bytes: &[u8] = if slow { &[0] } else { &[0x5a; 4096] };
                                sent = to.write_all(bytes).await;
                            }
                            tally.cut.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
    }
}
