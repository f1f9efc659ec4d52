//! A machine becomes a node against a real TLS server, or is told in one line why not.

mod support;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use node::config::{ListenAsked, NodeConfig, Role};
use node::enroll::{EnrollError, EnrollOptions, adopt, enroll};
use node::net::identity::issue::{Validity, private_key_der};
use protocol::enroll::{EnrollReply, EnrollRequest, Token};
use protocol::fixtures;
use protocol::{FleetId, Hash, NodeId, Time};
use support::{TestFleet, VALID};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A coordinator that answers every enrolment with what `answer` makes of it.
struct Server {
    address: String,
    pin: Hash,
}

async fn serve(
    fleet: &TestFleet,
    answer: impl Fn(EnrollRequest) -> (u16, Vec<u8>) + Send + Sync + 'static,
) -> Server {
    let key = fixtures::key("server", 1);
    let loopback = [Ipv4Addr::LOCALHOST.into()];
    let certificate = fleet.ca.server(&key, &[], &loopback, 1, VALID).unwrap();
    let pin = Hash::of(&certificate);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], private_key_der(&key))
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let mut seen = Vec::new();
            let body = loop {
                let mut part = [0; 4096];
                let n = tls.read(&mut part).await.unwrap();
                seen.extend_from_slice(&part[..n]);
                let text = String::from_utf8_lossy(&seen);
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                assert!(head.starts_with("POST /v1/enroll "), "{head}");
                let length = head.lines().find_map(|l| {
                    l.to_ascii_lowercase()
                        .strip_prefix("content-length: ")
                        .map(|n| n.parse().unwrap())
                });
                if body.len() >= length.unwrap_or(0) {
                    break body.to_owned();
                }
            };
            let request: EnrollRequest = serde_json::from_str(&body).unwrap();
            assert!(request.proven());
            let (status, json) = answer(request);
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                json.len()
            );
            tls.write_all(head.as_bytes()).await.unwrap();
            tls.write_all(&json).await.unwrap();
            let _ = tls.shutdown().await;
        }
    });
    Server { address, pin }
}

fn options(server: &Server, fleet: &TestFleet) -> EnrollOptions {
    let token = Token {
        id: "t1".into(),
        secret: "s".into(),
        server_pin: server.pin,
        expires: Time::from_secs(2_500_000_000),
    };
    let listen = ListenAsked {
        address: Ipv4Addr::LOCALHOST.into(),
        ..Default::default()
    };
    EnrollOptions {
        coordinator: server.address.clone(),
        token,
        root_digest: fleet.fleet.id(),
        labels: vec![("ring".into(), "canary".into())],
        listen,
    }
}

fn honest(fleet: Arc<TestFleet>) -> impl Fn(EnrollRequest) -> (u16, Vec<u8>) {
    move |request| (200, serde_json::to_vec(&fleet.reply(request.node)).unwrap())
}

/// One line for people, and no node.json behind it.
async fn refused(dir: &Path, options: EnrollOptions, line_has: &str) {
    let line = enroll(dir, options).await.unwrap_err().to_string();
    assert!(line.contains(line_has), "{line:?} lacks {line_has:?}");
    assert!(!line.contains('\n'), "{line:?}");
    assert!(!NodeConfig::path(dir).exists());
}

#[tokio::test]
async fn a_machine_becomes_a_node_once() {
    let (fleet, dir) = (Arc::new(TestFleet::new(1)), tempfile::tempdir().unwrap());
    let server = serve(&fleet, honest(fleet.clone())).await;
    let config = enroll(dir.path(), options(&server, &fleet)).await.unwrap();
    assert_eq!(NodeConfig::load(dir.path()).unwrap(), config);
    assert_eq!(config.fleet, fleet.fleet.id());
    assert_eq!(config.labels, vec![("ring".into(), "canary".into())]);
    let key = dir.path().join("node.key");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = enroll(dir.path(), options(&server, &fleet)).await;
    assert!(
        matches!(again, Err(EnrollError::AlreadyEnrolled { .. })),
        "{again:?}"
    );
}

#[tokio::test]
async fn each_wrong_thing_gets_its_line() {
    let fleet = Arc::new(TestFleet::new(1));
    let server = serve(&fleet, honest(fleet.clone())).await;
    let dir = tempfile::tempdir().unwrap();
    let good = || options(&server, &fleet);

    let mut wrong = good();
    wrong.token.server_pin = Hash::of(b"another server");
    refused(dir.path(), wrong, "another pin").await;

    let mut wrong = good();
    wrong.root_digest = FleetId([9; 32]);
    refused(dir.path(), wrong, "was pinned").await;

    let mut wrong = good();
    wrong.token.expires = Time::from_secs(1_600_000_000);
    refused(dir.path(), wrong, "the token expired").await;

    let mut wrong = good();
    let closed = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    wrong.coordinator = format!("https://{}", closed.local_addr().unwrap());
    drop(closed);
    refused(dir.path(), wrong, "cannot be reached").await;

    for address in ["http://127.0.0.1:1", "over there"] {
        let mut wrong = good();
        wrong.coordinator = address.into();
        refused(dir.path(), wrong, "is not the address of a coordinator").await;
    }

    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    refused(&file.join("node"), good(), "cannot be written").await;
    enroll(dir.path(), good()).await.unwrap();
}

#[tokio::test]
async fn what_the_coordinator_refuses_is_passed_on_in_one_line() {
    let (fleet, dir) = (TestFleet::new(1), tempfile::tempdir().unwrap());
    let said = br#"{"error":"the token was used up\nby others"}"#;
    let server = serve(&fleet, |_| (403, said.to_vec())).await;
    refused(
        dir.path(),
        options(&server, &fleet),
        "the token was used up by others",
    )
    .await;
    let server = serve(&fleet, |_| (200, b"[]".to_vec())).await;
    refused(dir.path(), options(&server, &fleet), "not understood").await;
}

/// The digest is given apart from the token, so a server that holds the pinned certificate still
/// cannot bring its own root, and cannot hand out a certificate of another key or CA.
#[test]
fn a_reply_is_believed_only_from_the_pinned_root_down() {
    let (fleet, other) = (TestFleet::new(1), TestFleet::new(2));
    let key = fixtures::node_key(1);
    let node = NodeId(key.verifying_key().to_bytes());
    let listen = ListenAsked {
        address: Ipv4Addr::LOCALHOST.into(),
        ..Default::default()
    };
    let refuse = |reply: EnrollReply| {
        let dir = tempfile::tempdir().unwrap();
        let done = adopt(
            dir.path(),
            &key,
            &reply,
            fleet.fleet.id(),
            Role::Endpoint,
            Vec::new(),
            listen,
        );
        assert!(!NodeConfig::path(dir.path()).exists());
        done.unwrap_err()
    };
    assert!(matches!(refuse(other.reply(node)), EnrollError::Root(_)));
    let skipped = EnrollReply {
        roots: vec![fleet.roots[1].clone()],
        ..fleet.reply(node)
    };
    assert!(matches!(refuse(skipped), EnrollError::Root(_)));
    let none = EnrollReply {
        roots: Vec::new(),
        ..fleet.reply(node)
    };
    assert!(matches!(refuse(none), EnrollError::Reply(_)));
    let foreign = EnrollReply {
        certificates: other.reply(node).certificates,
        ..fleet.reply(node)
    };
    assert!(matches!(refuse(foreign), EnrollError::Certificate(_)));
    let another = EnrollReply {
        certificates: fleet.reply(fixtures::node(2)).certificates,
        ..fleet.reply(node)
    };
    assert!(matches!(refuse(another), EnrollError::Certificate(_)));
}

/// A crash between reply and node.json leaves leftovers; the next try must not trip over them.
#[test]
fn an_enrolment_that_was_cut_short_can_be_tried_again() {
    let (fleet, other, dir) = (
        TestFleet::new(1),
        TestFleet::new(2),
        tempfile::tempdir().unwrap(),
    );
    let key = fixtures::node_key(1);
    let node = NodeId(key.verifying_key().to_bytes());
    let listen = ListenAsked {
        address: Ipv4Addr::LOCALHOST.into(),
        ..Default::default()
    };
    let adopt = |fleet: &TestFleet| {
        adopt(
            dir.path(),
            &key,
            &fleet.reply(node),
            fleet.fleet.id(),
            Role::Endpoint,
            Vec::new(),
            listen,
        )
    };
    adopt(&other).unwrap();
    std::fs::remove_file(NodeConfig::path(dir.path())).unwrap();
    let config = adopt(&fleet).unwrap();
    assert_eq!(config.fleet, fleet.fleet.id());
}

/// A machine that woke up in the past cannot tell its peers' certificates from ones of the future,
/// unless it takes its own for a proof that it is not that early.
#[test]
fn a_clock_that_is_behind_is_set_by_the_own_certificate() {
    let (mut fleet, dir) = (TestFleet::new(1), tempfile::tempdir().unwrap());
    let key = fixtures::node_key(1);
    let later = Validity {
        not_before: Time::from_secs(2_000_000_000),
        ..VALID
    };
    fleet.leaf_validity = later;
    let reply = fleet.reply(NodeId(key.verifying_key().to_bytes()));
    let listen = ListenAsked {
        address: Ipv4Addr::LOCALHOST.into(),
        ..Default::default()
    };
    let pinned = fleet.fleet.id();
    adopt(
        dir.path(),
        &key,
        &reply,
        pinned,
        Role::Endpoint,
        Vec::new(),
        listen,
    )
    .unwrap();
}
