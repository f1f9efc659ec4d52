use std::time::Duration;

use futures::StreamExt;
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::swarm::{SwarmEvent, dummy};
use libp2p::{Swarm, noise, tcp, yamux};
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, sleep};

use super::*;
use crate::net::identity::fixture::{LONG, OVER, TestFleet, key, node};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Link {
    Tcp,
    Quic,
}

const LINKS: [Link; 2] = [Link::Tcp, Link::Quic];

/// A node of a test.
struct Peer {
    control: Control,
    events: mpsc::Receiver<ControlEvent>,
    contact: Contact,
    identity: Arc<Identity>,
}

impl Peer {
    async fn start(identity: Arc<Identity>, link: Link) -> Peer {
        Peer::start_at(identity, link, "127.0.0.1", 0).await
    }

    async fn start_at(identity: Arc<Identity>, link: Link, ip: &str, port: u16) -> Peer {
        let mut config = ControlConfig::at(SocketAddr::new(ip.parse().unwrap(), port));
        config.listen = vec![config.listen.remove(link as usize)];
        let deadline = Instant::now() + PATIENCE;
        let (control, events) = loop {
            match Control::start(config.clone(), identity.clone()).await {
                Ok(started) => break started,
                // A swarm that was dropped lets go of its socket a little later.
                Err(StartError::Listen { .. }) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let control_addresses = control
            .listen_addrs()
            .iter()
            .map(Multiaddr::to_string)
            .collect();
        let contact = Contact {
            node: identity.node(),
            control: control_addresses,
            data: None,
        };
        Peer {
            control,
            events,
            contact,
            identity,
        }
    }

    /// The next event that fits; the others are dropped.
    async fn until(&mut self, what: &str, fits: impl Fn(&ControlEvent) -> bool) -> ControlEvent {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the swarm runs");
                if fits(&event) {
                    return event;
                }
            }
        };
        timeout(PATIENCE, search)
            .await
            .unwrap_or_else(|_| panic!("waited for {what}"))
    }

    /// Waits for all of them, in whatever order they come.
    async fn all_connected(&mut self, nodes: &[u8]) {
        let mut missing: Vec<NodeId> = nodes.iter().map(|n| node(*n)).collect();
        while !missing.is_empty() {
            let event = self
                .until("connections", |e| matches!(e, ControlEvent::Connected(_)))
                .await;
            missing.retain(|node| !matches!(event, ControlEvent::Connected(who) if who == *node));
        }
    }

    async fn connected(&mut self, n: u8) {
        self.until(
            "a connection",
            |e| matches!(e, ControlEvent::Connected(who) if *who == node(n)),
        )
        .await;
    }

    async fn disconnected(&mut self, n: u8) {
        let gone =
            |e: &ControlEvent| matches!(e, ControlEvent::Disconnected(who) if *who == node(n));
        self.until("a disconnection", gone).await;
    }

    /// Answers every request with its own bytes, reversed.
    fn echo(mut self) -> (Control, Contact) {
        let handles = (self.control.clone(), self.contact.clone());
        tokio::spawn(async move {
            while let Some(event) = self.events.recv().await {
                if let ControlEvent::Request {
                    mut bytes, reply, ..
                } = event
                {
                    bytes.reverse();
                    let _ = reply.send(bytes);
                }
            }
        });
        handles
    }
}

/// Gossips from the last peer until all the others have heard it.
async fn all_hear(peers: &mut [Peer]) {
    let (speaker, listeners) = peers.split_last_mut().unwrap();
    let from = speaker.contact.node;
    let mut waiting: Vec<&mut Peer> = listeners.iter_mut().collect();
    let deadline = Instant::now() + PATIENCE;
    let mut n = 0u32;
    while !waiting.is_empty() {
        assert!(Instant::now() < deadline, "{} did not hear", waiting.len());
        n += 1;
        speaker.control.publish(n.to_be_bytes().to_vec());
        sleep(Duration::from_millis(50)).await;
        waiting.retain_mut(|peer| {
            let mut heard = false;
            while let Ok(event) = peer.events.try_recv() {
                heard |= matches!(event, ControlEvent::Gossip { from: who, .. } if who == from);
            }
            !heard
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sites_of_two_three_and_eight_gossip_over_both_transports() {
    let fleet = TestFleet::new("a");
    for link in LINKS {
        for size in [2, 3, 8] {
            let mut peers = Vec::new();
            for n in 0..size {
                let peer = Peer::start(fleet.identity(n), link).await;
                peer.control.join(Some("site".into()));
                peers.push(peer);
            }
            let hub = peers[0].contact.clone();
            for peer in &peers[1..] {
                peer.control.connect(hub.clone());
            }
            all_hear(&mut peers).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_over_both_transports_and_connect_by_themselves() {
    let fleet = TestFleet::new("a");
    for link in LINKS {
        let asker = Peer::start(fleet.identity(1), link).await;
        let (_answerer, contact) = Peer::start(fleet.identity(2), link).await.echo();
        for body in [
            vec![],
            b"abc".to_vec(),
            (0..=255).cycle().take(CONTROL_MAX_BYTES).collect(),
        ] {
            let reply = asker
                .control
                .request(contact.clone(), body.clone())
                .await
                .unwrap();
            assert!(
                reply.iter().rev().eq(body.iter()),
                "{link:?} {}",
                body.len()
            );
        }
        let ask = |n: u8| asker.control.request(contact.clone(), vec![n; 100]);
        let replies = futures::future::join_all((0..100).map(ask)).await;
        for (n, reply) in replies.into_iter().enumerate() {
            assert_eq!(reply, Ok(vec![n as u8; 100]));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_answered_says_why() {
    let fleet = TestFleet::new("a");
    let asker = Peer::start(fleet.identity(1), Link::Tcp).await;
    let mut peer = Peer::start(fleet.identity(2), Link::Tcp).await;
    let there = peer.contact.clone();
    let ask = |to: &Contact, bytes: Vec<u8>| asker.control.request(to.clone(), bytes);

    let long = ask(&there, vec![0; CONTROL_MAX_BYTES + 1]).await;
    assert_eq!(long, Err(RequestError::TooLong(CONTROL_MAX_BYTES + 1)));
    let nowhere = Contact {
        control: [].into(),
        ..there.clone()
    };
    let lost = ask(&nowhere, vec![]).await.unwrap_err();
    assert!(matches!(lost, RequestError::Unreachable { .. }), "{lost}");
    let closed = Contact {
        control: ["/ip4/127.0.0.1/tcp/1".into()].into(),
        ..there.clone()
    };
    let lost = ask(&closed, vec![]).await.unwrap_err().to_string();
    assert!(
        lost.contains("/ip4/127.0.0.1/tcp/1") && lost.contains("refused"),
        "{lost}"
    );
    let myself = asker.contact.clone();
    assert!(matches!(
        ask(&myself, vec![]).await,
        Err(RequestError::Unreachable { .. })
    ));

    let (dropped, _) = tokio::join!(ask(&there, vec![1]), async {
        let event = peer
            .until("a request", |e| matches!(e, ControlEvent::Request { .. }))
            .await;
        drop(event);
    });
    assert!(
        matches!(dropped, Err(RequestError::Ended { .. })),
        "{dropped:?}"
    );
    let (long, _) = tokio::join!(ask(&there, vec![1]), async {
        let event = peer
            .until("a request", |e| matches!(e, ControlEvent::Request { .. }))
            .await;
        let ControlEvent::Request { from, reply, .. } = event else {
            unreachable!()
        };
        assert_eq!(from, node(1));
        reply.send(vec![0; CONTROL_MAX_BYTES + 1]).unwrap();
    });
    assert!(matches!(long, Err(RequestError::Ended { .. })), "{long:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_gossip_arrives_and_longer_is_never_sent() {
    let fleet = TestFleet::new("a");
    for link in LINKS {
        let mut peers = Vec::new();
        for n in 0..2 {
            let peer = Peer::start(fleet.identity(n), link).await;
            peer.control.join(Some("site".into()));
            peers.push(peer);
        }
        peers[1].control.connect(peers[0].contact.clone());
        all_hear(&mut peers).await;
        peers[1].control.publish(vec![1; GOSSIP_MAX_BYTES + 1]);
        for n in 2..12 {
            peers[1].control.publish(vec![n; GOSSIP_MAX_BYTES]);
        }
        for n in 2..12 {
            let long = |e: &ControlEvent| matches!(e, ControlEvent::Gossip { bytes, .. } if bytes.len() > 4);
            let ControlEvent::Gossip { bytes, .. } = peers[0].until("long gossip", long).await
            else {
                unreachable!()
            };
            assert_eq!(bytes, vec![n; GOSSIP_MAX_BYTES], "{link:?}");
        }
    }
}

/// Whoever is at the door, the peers behind it see nothing but a refusal.
async fn only_refusals(peer: &mut Peer, what: &str) -> String {
    let event = timeout(PATIENCE, peer.events.recv())
        .await
        .expect(what)
        .unwrap();
    let ControlEvent::Refused { reason, .. } = event else {
        panic!("{what}: {event:?}")
    };
    while let Ok(event) = peer.events.try_recv() {
        assert!(
            matches!(event, ControlEvent::Refused { .. }),
            "{what}: {event:?}"
        );
    }
    reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_admitted_is_refused_in_both_directions() {
    let fleet = TestFleet::new("a");
    let foreign = TestFleet::new("b");
    let cases: [(&str, Vec<CertificateDer<'static>>, &str); 5] = [
        ("no certificate", vec![], "no certificate"),
        (
            "a foreign CA's",
            vec![foreign.certificate(2, LONG)],
            "no CA",
        ),
        (
            "another node's",
            vec![fleet.certificate(3, LONG)],
            "expected",
        ),
        (
            "an expired one",
            vec![fleet.certificate(2, OVER)],
            "expired",
        ),
        (
            "a revoked one",
            vec![fleet.ca.node(node(2), 666, LONG).unwrap()],
            "revoked",
        ),
    ];
    for link in LINKS {
        for (what, chain, reason) in &cases {
            for bad_dials in [true, false] {
                let what = format!("{what}, {link:?}, bad dials: {bad_dials}");
                let good = fleet.identity(1);
                let revoked = fleet.ca.revoke(&[666], 1, LONG).unwrap();
                good.admission().set_revocations(&revoked).unwrap();
                let mut good = Peer::start(good, link).await;
                let bad = Identity::new(key(2), chain.clone(), fleet.admission());
                let mut bad = Peer::start(Arc::new(bad), link).await;
                for peer in [&good, &bad] {
                    peer.control.join(Some("site".into()));
                }
                if bad_dials {
                    bad.control.connect(good.contact.clone());
                } else {
                    good.control.connect(bad.contact.clone());
                }
                let said = only_refusals(&mut good, &what).await;
                assert!(said.contains(reason), "{what}: {said}");
                let heard = only_refusals(&mut bad, &what).await;
                assert!(heard.contains("refused us"), "{what}: {heard}");
                let asked = bad.control.request(good.contact.clone(), vec![]).await;
                assert!(
                    matches!(asked, Err(RequestError::Unreachable { .. })),
                    "{what}: {asked:?}"
                );
                only_refusals(&mut good, &what).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_knows_no_admission_is_refused() {
    let mut good = Peer::start(TestFleet::new("a").identity(1), Link::Tcp).await;
    let keypair = TestFleet::new("a").identity(2).libp2p_keypair();
    let transport = tcp::tokio::Transport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&keypair).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed();
    let config = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_millis(100));
    let peer = keypair.public().to_peer_id();
    let mut stranger = Swarm::new(transport, dummy::Behaviour, peer, config);
    stranger
        .dial(good.control.listen_addrs()[0].clone())
        .unwrap();
    // It takes itself for connected and, with nothing to say, hangs up.
    let hang_up = async {
        while !matches!(
            stranger.select_next_some().await,
            SwarmEvent::ConnectionClosed { .. }
        ) {}
    };
    timeout(PATIENCE, hang_up).await.unwrap();
    let reason = only_refusals(&mut good, "a stranger").await;
    assert!(reason.contains("broke admission off"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_closes_the_live_connection_and_keeps_the_door_shut() {
    let fleet = TestFleet::new("a");
    for link in LINKS {
        let mut one = Peer::start(fleet.identity(1), link).await;
        let mut two = Peer::start(fleet.identity(2), link).await;
        let mut three = Peer::start(fleet.identity(3), link).await;
        two.control.connect(one.contact.clone());
        three.control.connect(one.contact.clone());
        one.all_connected(&[2, 3]).await;
        two.connected(1).await;
        one.identity
            .admission()
            .set_revocations(&fleet.revocations(&[2], 1))
            .unwrap();
        one.disconnected(2).await;
        two.disconnected(1).await;
        let refused = |e: &ControlEvent| {
            matches!(e, ControlEvent::Refused { peer: Some(peer), error: Some(AdmissionError::Revoked), .. }
                if *peer == node(2))
        };
        one.until("a refusal at the door", refused).await;
        two.until("its reason", |e| matches!(e, ControlEvent::Refused { .. }))
            .await;
        while let Ok(event) = three.events.try_recv() {
            assert!(!matches!(event, ControlEvent::Disconnected(_)), "{event:?}");
        }
        let (_one, contact) = one.echo();
        assert_eq!(
            three.control.request(contact, vec![1, 2]).await,
            Ok(vec![2, 1])
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_apart_and_a_late_joiner_misses_gossip_but_may_ask() {
    let fleet = TestFleet::new("a");
    let mut peers = Vec::new();
    for n in 0..3 {
        peers.push(Peer::start(fleet.identity(n), Link::Tcp).await);
    }
    let hub = peers[0].contact.clone();
    for peer in &peers[1..] {
        peer.control.connect(hub.clone());
    }
    peers[0].all_connected(&[1, 2]).await;
    peers[0].control.join(Some("one".into()));
    peers[1].control.join(Some("two".into()));
    peers[2].control.join(Some("one".into()));
    let mut other = peers.remove(1);
    all_hear(&mut peers).await;
    while let Ok(event) = other.events.try_recv() {
        assert!(matches!(event, ControlEvent::Connected(_)), "{event:?}");
    }
    // It joins now: what was gossiped before never comes, what is gossiped from now on does.
    other.control.join(Some("one".into()));
    peers.insert(0, other);
    all_hear(&mut peers).await;
    let asker = peers[0].control.clone();
    let (_hub, contact) = peers.remove(1).echo();
    assert_eq!(asker.request(contact, vec![3, 4]).await, Ok(vec![4, 3]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_contact_is_found_again_after_its_restart_and_let_go_on_demand() {
    let fleet = TestFleet::new("a");
    for link in LINKS {
        let mut keeper = Peer::start(fleet.identity(1), link).await;
        let first = Peer::start(fleet.identity(2), link).await;
        let address = first.control.listen_addrs()[0].clone();
        let port = address.iter().find_map(|part| match part {
            Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
            _ => None,
        });
        keeper.control.connect(first.contact.clone());
        keeper.connected(2).await;
        drop(first);
        keeper.disconnected(2).await;
        let mut second = Peer::start_at(fleet.identity(2), link, "127.0.0.1", port.unwrap()).await;
        keeper.connected(2).await;
        second.connected(1).await;
        keeper.control.disconnect(node(2));
        keeper.disconnected(2).await;
        second.disconnected(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialled_connections_leave_from_the_address_that_is_listened_on() {
    let fleet = TestFleet::new("a");
    for link in LINKS {
        let mut door = Peer::start_at(fleet.identity(1), link, "127.3.0.1", 0).await;
        // The door says where a refused peer came from.
        let expired = fleet.identity_with(2, vec![fleet.certificate(2, OVER)]);
        let guest = Peer::start_at(expired, link, "127.4.1.2", 0).await;
        guest.control.connect(door.contact.clone());
        let refused = door
            .until("a refusal", |e| matches!(e, ControlEvent::Refused { .. }))
            .await;
        let ControlEvent::Refused { address, knock, .. } = refused else {
            unreachable!()
        };
        assert_eq!(knock, Some(Knock::Refused), "it came to the door");
        assert!(
            address.starts_with("/ip4/127.4.1.2/"),
            "{link:?}: {address}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_handshake_is_told_of_and_who_just_hangs_up_is_not() {
    let mut door = Peer::start(TestFleet::new("a").identity(1), Link::Tcp).await;
    let to = peers::tcp_address(&door.control.listen_addrs()[0]).unwrap();
    drop(tokio::net::TcpStream::connect(to).await.unwrap());
    let mut garbage = tokio::net::TcpStream::connect(to).await.unwrap();
    let said = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n".repeat(9);
    let sent = tokio::io::AsyncWriteExt::write_all(&mut garbage, &said);
    sent.await.unwrap();
    let event = timeout(PATIENCE, door.events.recv()).await.unwrap();
    let from = garbage.local_addr().unwrap();
    assert!(
        matches!(&event, Some(ControlEvent::Refused { peer: None, address, knock: Some(Knock::Garbage), .. })
            if peers::tcp_address(&address.parse().unwrap()) == Some(from)),
        "{event:?}"
    );
    assert!(door.events.try_recv().is_err(), "and nobody else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named() {
    let fleet = TestFleet::new("a");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = ControlConfig::at(taken.local_addr().unwrap());
    let refused = Control::start(config, fleet.identity(1))
        .await
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(&taken.local_addr().unwrap().port().to_string()),
        "{refused}"
    );
    assert!(refused.contains("in use"), "{refused}");
}
