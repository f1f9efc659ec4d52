use std::sync::Arc;

use node::net::control::{Control, ControlConfig};
use node::net::identity::{Admission, Identity};
use protocol::feed::{Batch, Roster};
use protocol::orders::{Order, OrderBody, Receipt};
use protocol::status::{NodeStatus, State};
use protocol::trust::Trust;
use protocol::versioned::Versioned as _;
use protocol::wire::{Contact, ControlReply, ControlRequest, Presence};
use protocol::{RolloutId, Seq};
use rustls::pki_types::CertificateDer;

use super::*;

/// An enrolled node's control plane, without the node's brain.
struct Peer {
    control: Control,
    identity: Arc<Identity>,
    coordinator: Contact,
    trust: Trust,
    _events: tokio::sync::mpsc::Receiver<node::net::control::ControlEvent>,
}

impl Peer {
    async fn new(town: &Town) -> Peer {
        let key = keys::generate();
        let token = town.token(1, Span::from_secs(60)).await;
        let reply = town.client.enroll(&request(&token, &key)).await.unwrap();
        let trust = Trust::pin(reply.roots[0].clone(), town.fleet).unwrap();
        let der = |hex: &String| {
            CertificateDer::from(data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap())
        };
        let admission = Admission::new(trust.root().issuing_cas.iter().map(der).collect()).unwrap();
        let chain = reply.certificates.iter().map(der).collect();
        let identity = Arc::new(Identity::new(key, chain, Arc::new(admission)));
        let local = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (control, events) = Control::start(ControlConfig::at(local), identity.clone())
            .await
            .unwrap();
        let coordinator = reply.coordinators[0].clone();
        Peer {
            control,
            identity,
            coordinator,
            trust,
            _events: events,
        }
    }

    fn presence(&self) -> Presence {
        let control = self
            .control
            .listen_addrs()
            .iter()
            .map(ToString::to_string)
            .collect();
        Presence {
            contact: Contact {
                node: self.identity.node(),
                control,
                data: None,
            },
            site: Some("north".parse().unwrap()),
            roaming: false,
            seq: Seq { epoch: 1, n: 1 },
            orders_head: Seq::default(),
            leaving: false,
        }
    }

    async fn ask(&self, request: ControlRequest) -> ControlReply {
        let bytes = self
            .control
            .request(self.coordinator.clone(), request.to_bytes())
            .await
            .unwrap();
        ControlReply::from_bytes(&bytes).unwrap()
    }

    async fn uplink(
        &self,
        statuses: Vec<protocol::status::SignedStatus>,
    ) -> (Vec<Envelope>, Option<Envelope>) {
        let members = [self.identity.node()];
        let roster = Roster {
            joined: members.to_vec(),
            left: Vec::new(),
            whole: true,
            digest: Roster::digest(&members),
        };
        let fleet = self.trust.fleet();
        let batch = Batch::of(fleet, statuses);
        let marks = batch.marks();
        let request = ControlRequest::Uplink {
            me: Some(self.presence()),
            roster: Some(roster),
            statuses: batch,
            stages: None,
            after: Seq::default(),
        };
        match self.ask(request).await {
            ControlReply::Uplink {
                orders,
                receipt,
                known: true,
            } => (orders, receipt.map(|seal| seal.receipt(fleet, &marks))),
            other => panic!("{other:?}"),
        }
    }

    /// A sign of life: nothing is told that was told before.
    async fn keepalive(&self) -> ControlReply {
        let members = [self.identity.node()];
        let roster = Roster {
            digest: Roster::digest(&members),
            ..Roster::default()
        };
        self.ask(ControlRequest::Uplink {
            me: None,
            roster: Some(roster),
            statuses: Batch::default(),
            stages: None,
            after: Seq { epoch: 9, n: 0 },
        })
        .await
    }

    /// The newest bulletin.
    async fn bulletin(&self) -> protocol::orders::Bulletin {
        let (orders, _) = self.uplink(Vec::new()).await;
        let orders: Vec<_> = orders
            .iter()
            .map(|o| self.trust.verify::<Order>(o).unwrap())
            .collect();
        assert!(
            orders.windows(2).all(|w| w[0].seq < w[1].seq),
            "orders rise"
        );
        let mut bulletins = orders.iter().filter_map(|o| {
            if let OrderBody::Bulletin(b) = &o.body {
                Some(b.clone())
            } else {
                None
            }
        });
        bulletins.next_back().expect("there is always a bulletin")
    }

    fn status(&self, fleet: FleetId, rollout: &RolloutId) -> NodeStatus {
        NodeStatus {
            fleet,
            node: self.identity.node(),
            rollout: rollout.clone(),
            plan: Hash([1; 32]),
            release: Hash([2; 32]),
            wave: 0,
            seq: Seq { epoch: 1, n: 5 },
            state: State::Received,
            reason: "just heard".into(),
            entered_at: Time(1),
            attempt: 1,
            install_id: Hash([3; 32]),
            lan_bytes: 0,
            wan_bytes: 0,
            exit_code: None,
            output_tail: String::new(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delegate_gets_signed_orders_and_documents_and_a_receipt_for_what_it_brings() {
    let mut town = Town::new().await;
    let topology = town.signed(&town.topology(1), &["alice"]);
    town.client.set_topology(&topology).await.unwrap();
    assert_eq!(
        town.client.topology().await.unwrap(),
        Some(topology.clone())
    );
    let peer = Peer::new(&town).await;

    let bulletin = eventually("the bulletin names the topology", async || {
        let bulletin = peer.bulletin().await;
        (bulletin.topology == Some(topology.digest())).then_some(bulletin)
    });
    assert_eq!(
        bulletin.await.origins[0].node,
        town.dir().settings().unwrap().origin
    );
    let ControlReply::Document(Some(document)) = peer
        .ask(ControlRequest::PullDocument {
            digest: topology.digest(),
        })
        .await
    else {
        panic!()
    };
    assert_eq!(Envelope::from_json(&document).unwrap(), topology);
    let ControlReply::Document(Some(root)) =
        peer.ask(ControlRequest::PullRoot { version: 1 }).await
    else {
        panic!()
    };
    assert_eq!(Envelope::from_json(&root).unwrap().digest().0, town.fleet.0);
    for version in [0, 2, u64::MAX] {
        assert_eq!(
            peer.ask(ControlRequest::PullRoot { version }).await,
            ControlReply::Document(None)
        );
    }

    let second = Peer::new(&town).await;
    assert!(
        matches!(
            second.keepalive().await,
            ControlReply::Uplink { known: false, .. }
        ),
        "nobody knows it"
    );
    let ControlReply::Uplink {
        orders,
        receipt: None,
        known: true,
    } = peer.keepalive().await
    else {
        panic!("it was introduced, with its site's members")
    };
    assert!(orders.is_empty());

    let rollout: RolloutId = "r1".parse().unwrap();
    let good = peer.status(town.fleet, &rollout).sign(peer.identity.key());
    let mut forged = peer.status(town.fleet, &rollout).sign(&keys::generate());
    forged.sig[0] ^= 1;
    let (_, receipt) = peer.uplink(vec![good, forged]).await;
    let receipt = peer
        .trust
        .verify::<Receipt>(&receipt.expect("statuses came"))
        .unwrap();
    assert!(
        receipt
            .marks
            .iter()
            .all(|mark| mark.node == peer.identity.node()),
        "{:?}",
        receipt.marks
    );
    assert!(peer.uplink(Vec::new()).await.1.is_none());
    let seen = town.client.nodes().await.unwrap();
    assert!(
        seen.iter()
            .any(|n| n.node == peer.identity.node() && n.last_seen.is_some())
    );

    let mut other = peer.presence();
    other.contact.node = NodeId([9; 32]);
    assert!(
        matches!(
            peer.ask(ControlRequest::Locate { me: other }).await,
            ControlReply::Refused(_)
        ),
        "speaks for another"
    );
    assert!(matches!(
        peer.ask(ControlRequest::Push { orders: Vec::new() }).await,
        ControlReply::Refused(_)
    ));
    let garbage = peer
        .control
        .request(peer.coordinator.clone(), vec![0; 100])
        .await
        .unwrap();
    assert!(matches!(
        ControlReply::from_bytes(&garbage).unwrap(),
        ControlReply::Refused(_)
    ));

    assert!(
        matches!(second.ask(ControlRequest::Locate { me: second.presence() }).await, ControlReply::Members(m) if m.iter().any(|p| p.contact.node == peer.identity.node()))
    );
    town.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_list_reaches_the_bulletin_and_stays_the_same_over_a_restart() {
    let mut town = Town::new().await;
    let (peer, bad) = (Peer::new(&town).await, Peer::new(&town).await);
    bad.uplink(Vec::new()).await;
    town.client
        .revoke(bad.identity.node(), "lost")
        .await
        .unwrap();
    let list = async |peer: &Peer| {
        eventually("the bulletin names the list", async || {
            peer.bulletin().await.revocations
        })
        .await
    };
    let digest = list(&peer).await;
    let ControlReply::Document(Some(der)) = peer.ask(ControlRequest::PullDocument { digest }).await
    else {
        panic!()
    };
    assert_eq!(Hash::of(&der), digest);
    peer.identity.admission().set_revocations(&der).unwrap();
    eventually("the coordinator admits it no more", async || {
        let request = ControlRequest::PullOrders {
            after: Seq::default(),
        };
        bad.control
            .request(bad.coordinator.clone(), request.to_bytes())
            .await
            .err()
    })
    .await;

    town.restart().await;
    let peer = Peer::new(&town).await;
    assert_eq!(list(&peer).await, digest);
    town.close().await;
}
