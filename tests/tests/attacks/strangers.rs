//! A machine on the LAN that was not enrolled here knocks at a node's doors: messages, content over QUIC and
//! over TCP; with another fleet's certificate, with none, with garbage. It gets nothing, and is seen.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use coordinator::directory::Directory;
use ed25519_dalek::SigningKey;
use node::net::control::{Control, ControlConfig};
use node::net::data::bare_endpoint;
use node::net::identity::Identity;
use node::net::identity::issue::{IssuingCa, Validity};
use protocol::versioned::Versioned as _;
use protocol::wire::{ControlRequest, DATA_TCP_ALPN};
use protocol::{NodeId, Seq, Time};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tidegate_tests::member::{admission_of, contact_of, fleet_of};
use tidegate_tests::{World, WorldOptions};

const LONG: Validity = Validity {
    not_before: Time::from_secs(1_577_836_800),
    not_after: Time::from_secs(4_102_444_800),
};
/// A door that answers nothing has refused.
const PATIENCE: Duration = Duration::from_secs(30);

/// A key and a certificate of a fleet that is not this one. It takes everybody of this fleet for a friend, so
/// that only the other end refuses.
fn foreigner(world: &World) -> Arc<Identity> {
    let key = SigningKey::from_bytes(&[31; 32]);
    let ca = IssuingCa::create("elsewhere", &SigningKey::from_bytes(&[32; 32]), LONG);
    let ca = ca.expect("a CA");
    let node = NodeId(key.verifying_key().to_bytes());
    let chain = vec![ca.node(node, 1, LONG).expect("issued")];
    let roots = Directory::new(world.home()).root_file();
    let admission = admission_of(&roots, fleet_of(&world.nodes[0].dir)).expect("the fleet's root");
    Arc::new(Identity::new(key, chain, Arc::new(admission)))
}

/// Shows no certificate when it is asked for one.
#[derive(Debug)]
struct Bare;

impl ResolvesClientCert for Bare {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A connection that leaves from `from`.
fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let from = SocketAddr::new(from, 0);
    socket.bind(&from.into()).expect("this machine's");
    socket.connect(&to.into()).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

/// What comes for a request over TLS and TCP.
fn asked_over_tcp(identity: &Identity, node: NodeId, bare: bool, stream: TcpStream) -> Vec<u8> {
    let mut config = (*identity.tls_client(node, DATA_TCP_ALPN)).clone();
    if bare {
        config.client_auth_cert_resolver = Arc::new(Bare);
    }
    let name = node.to_string().try_into().expect("a name");
    let tls = rustls::ClientConnection::new(Arc::new(config), name).expect("sound");
    let mut tls = rustls::StreamOwned::new(tls, stream);
    // The client's half of a handshake ends before the server has looked at it.
    let mut got = Vec::new();
    if tls.write_all(&[0; 64]).is_ok() {
        let _ = tls.read_to_end(&mut got);
    }
    got
}

#[test]
fn attack_31_unenrolled_machine_at_a_nodes_doors() {
    let world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 3,
        wan: "200mbit",
    });
    let identity = foreigner(&world);
    let (foreign, bare, garbage) = ([127, 1, 0, 66], [127, 1, 0, 67], [127, 1, 0, 68]);
    // One of the three is no delegate and tells one.
    let doors: Vec<_> = world.nodes.iter().map(|n| contact_of(&n.dir)).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for door in &doors {
        let data = door.data.expect("it has a data plane");
        let (got, said) = runtime.block_on(async {
            let at = SocketAddr::new(foreign.into(), 0);
            let (endpoint, config) = bare_endpoint(at, &identity, door.node).expect("a port");
            let connecting = endpoint.connect_with(config, data, &door.node.to_string());
            let got = match connecting.expect("sound").await {
                Err(_) => Vec::new(),
                Ok(connection) => match connection.open_bi().await {
                    Err(_) => Vec::new(),
                    Ok((mut to, mut from)) => {
                        let _ = to.write_all(&[0; 64]).await;
                        from.read_to_end(1 << 20).await.unwrap_or_default()
                    }
                },
            };
            let (control, _events) = Control::start(ControlConfig::at(at), identity.clone())
                .await
                .expect("a port");
            let ask = ControlRequest::PullOrders {
                after: Seq::default(),
            };
            (got, control.request(door.clone(), ask.to_bytes()).await)
        });
        assert!(got.is_empty(), "over QUIC it got {got:?}");
        assert!(said.is_err(), "it was answered: {said:?}");
        for (from, bare) in [(foreign, false), (bare, true)] {
            let stream = connect(from.into(), data);
            let got = asked_over_tcp(&identity, door.node, bare, stream);
            assert!(got.is_empty(), "over TCP it got {got:?}");
        }
        let mut stream = connect(garbage.into(), data);
        let said = b"GET /blobs HTTP/1.1\r\n\r\n";
        stream.write_all(said).expect("it takes it");
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got);
        assert!(got.len() < 16, "an alert at most: {got:?}");
    }

    let listed = || -> Vec<serde_json::Value> {
        let said = world.tidegate(&["nodes", "--unmanaged", "--json"]);
        serde_json::from_str(&said).expect("JSON")
    };
    let by_a_node = |one: &serde_json::Value| {
        let seen_by = one["seen_by"].as_str();
        let door = doors.iter().any(|d| seen_by == Some(&d.node.to_string()));
        door && one["site"] == "site-1" && one["last_seen"].as_u64() >= one["first_seen"].as_u64()
    };
    let key = NodeId(SigningKey::from_bytes(&[31; 32]).verifying_key().to_bytes());
    let seen = |address: [u8; 4], node: Option<String>, times: u64| {
        let address = IpAddr::from(address).to_string();
        let node = node.map_or(serde_json::Value::Null, Into::into);
        let of = |one: &&serde_json::Value| one["address"] == *address && one["node"] == node;
        let all = listed();
        let all = all.iter().filter(of).filter(|one| by_a_node(one));
        let count: u64 = all.filter_map(|one| one["times"].as_u64()).sum();
        count >= times
    };
    world.wait_for("each is listed, with site and door", |_| {
        seen(foreign, Some(key.to_string()), 3)
            && seen(foreign, None, 6)
            && seen(bare, None, 3)
            && seen(garbage, None, 3)
    });
    let ours: Vec<String> = doors.iter().map(|d| d.node.to_string()).collect();
    for one in listed() {
        let node = one["node"].as_str().unwrap_or_default();
        assert!(
            ours.iter().all(|id| id != node),
            "a node of the fleet: {one}"
        );
    }
}
