//! The same exchanges over TLS and TCP, and who may have them.

use std::sync::atomic::AtomicUsize;

use protocol::limits::{TCP_HANDSHAKES_MAX, TCP_HANDSHAKES_PER_ADDRESS_MAX, TCP_PER_PEER_MAX};
use protocol::wire::DATA_TCP_ALPN;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// Waits until a connection is closed by the other end.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let mut rest = Vec::new();
    timeout(LONG, stream.read_to_end(&mut rest)).await.is_ok()
}

/// A connection of `node` to `to`, past its own half of the handshake.
async fn shake_hands(node: &Node, to: &Contact) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(to.data.unwrap()).await?;
    let tls = node.identity.tls_client(to.node, DATA_TCP_ALPN);
    let name = ServerName::try_from(to.node.to_string()).unwrap();
    TlsConnector::from(tls).connect(name, socket).await
}

fn request(blob: BlobRef, groups: Vec<(u64, u64)>) -> DataRequest {
    DataRequest {
        blob,
        groups,
        class: Class::Normal,
        max_bytes_per_s: 0,
        spurned: Vec::new(),
    }
}

async fn ask(
    stream: &mut TlsStream<TcpStream>,
    request: &DataRequest,
) -> Result<DataReply, codec::ExchangeError> {
    stream.write_u8(tcp::ASKS).await?;
    codec::write_request(stream, request).await?;
    codec::read_reply(stream).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lan_uses_tcp_and_keeps_its_connection_and_a_wan_uses_quic() {
    let bytes = noise(5_000_000);
    let (source, near, far) = (
        start(1, "127.0.0.1").await,
        start(2, "127.0.0.1").await,
        start(3, "127.0.0.1").await,
    );
    let name = source.seed(&bytes);
    assert_eq!(
        near.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
    assert_eq!(near.plane.inner.peers.alive(), (0, 1));
    assert_eq!(contents(&near.blobs.get(&name.root).unwrap()), bytes);
    assert_eq!(
        near.plane.counters().sites[&None].payload_in,
        bytes.len() as u64
    );
    let socket = near.plane.counters().sites[&None].socket_in;
    assert!(
        (5_000_000..5_500_000).contains(&socket),
        "{socket} bytes at the socket"
    );
    // One that is not held, and one that is: over the same connection.
    let second = source.seed(&noise(20_000));
    for (blob, outcome) in [
        (BlobRef::of(b"else"), FetchOutcome::NotHeld),
        (second, FetchOutcome::Complete),
    ] {
        assert_eq!(near.fetch_all(&source.contact, blob).await, outcome);
        assert_eq!(near.plane.inner.peers.alive(), (0, 1));
    }

    let job = FetchJob {
        wan: true,
        ..far.job(&source.contact, name)
    };
    assert_eq!(far.fetch(job).await.outcome, FetchOutcome::Complete);
    assert_eq!(far.plane.inner.peers.alive(), (1, 0));
}

/// Something else has the TCP port: it takes connections and says nothing, or closes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_tcp_does_not_get_through_quic_does_and_it_is_remembered() {
    for silent in [true, false] {
        let foreign = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = foreign.local_addr().unwrap().port();
        let source = start_as(TestFleet::new("fleet").identity(1), "127.0.0.1", |c| {
            c.listen.set_port(port);
        })
        .await;
        assert_eq!(source.plane.local_addr().port(), port);
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((socket, _)) = foreign.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                kept.push(silent.then_some(socket));
            }
        });
        let (first, second) = (source.seed(&noise(300_000)), source.seed(&noise(90_000)));
        let asker = start(2, "127.0.0.1").await;
        for name in [first, second] {
            assert_eq!(
                asker.fetch_all(&source.contact, name).await,
                FetchOutcome::Complete
            );
        }
        assert_eq!(asker.plane.inner.peers.alive(), (1, 0));
        assert_eq!(taken.load(Ordering::Relaxed), 1, "TCP is tried once");
    }
}

/// Only TCP gets through: requests over a WAN and notices come that way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_udp_does_not_get_through_tcp_does() {
    let mut source = start(1, "127.0.0.1").await;
    let to = source.plane.local_addr();
    let name = source.seed(&noise(300_000));
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = Contact {
        data: Some(door.local_addr().unwrap()),
        ..source.contact.clone()
    };
    tokio::spawn(async move {
        while let Ok((mut near, _)) = door.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let impatient = |c: &mut DataConfig| c.slow_after = Duration::from_secs(4);
    let asker = start_as(TestFleet::new("fleet").identity(2), "127.0.0.1", impatient).await;
    let job = FetchJob {
        wan: true,
        ..asker.job(&through, name)
    };
    assert_eq!(asker.fetch(job).await.outcome, FetchOutcome::Complete);
    for _ in 0..3 {
        let notice = Notice::Interested { blob: name };
        asker.plane.notify(through.clone(), notice.clone());
        assert_eq!(
            timeout(LONG, source.events.recv()).await.unwrap(),
            Some(DataEvent::Notice(asker.contact.node, notice))
        );
    }
    assert_eq!(asker.plane.inner.peers.alive().0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_strangers_and_the_slow_are_closed_and_friends_are_served() {
    let impatient = |c: &mut DataConfig| c.slow_after = Duration::from_secs(2);
    let mut source = start_as(TestFleet::new("fleet").identity(1), "127.0.0.1", impatient).await;
    let to = source.plane.local_addr();
    let name = source.seed(&noise(100_000));
    // No TLS, TLS without an end, nothing at all.
    for begin in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[22, 3, 1, 64, 0, 1, 0],
        &[],
    ] {
        let mut socket = TcpStream::connect(to).await.unwrap();
        socket.write_all(begin).await.unwrap();
        assert!(closed(&mut socket).await, "{begin:?}");
    }
    // Of another fleet, under our rules.
    let chain = vec![TestFleet::new("other").certificate(3, crate::net::identity::fixture::LONG)];
    let forged = TestFleet::new("fleet").identity_with(3, chain);
    let forged = start_as(forged, "127.0.0.1", |_| {}).await;
    if let Ok(mut stream) = shake_hands(&forged, &source.contact).await {
        let asked = ask(&mut stream, &request(name, vec![(0, 7)])).await;
        assert!(asked.is_err(), "a stranger is answered");
    }
    // Whoever said something is told of; who was silent, or just went away, may be a friend.
    assert_eq!(source.knocks(2).await, [Knock::Garbage, Knock::Refused]);
    assert_eq!(source.plane.inner.peers.alive(), (0, 0));
    assert_eq!(source.plane.counters().sites[&None].payload_out, 0);
    let friend = start(4, "127.0.0.1").await;
    assert_eq!(
        friend.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
    assert_eq!(friend.plane.inner.peers.alive(), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_exchange_ends_the_connection() {
    let impatient = |c: &mut DataConfig| c.slow_after = Duration::from_secs(2);
    let mut source = start_as(TestFleet::new("fleet").identity(1), "127.0.0.1", impatient).await;
    let name = source.seed(&noise(1_000_000));
    let hostile = start(2, "127.0.0.1").await;
    let too_long = (protocol::limits::NOTICE_MAX_BYTES as u32 + 1).to_le_bytes();
    let cases: [Vec<u8>; 6] = [
        vec![7; 100],
        [&[tcp::ASKS][..], &u32::MAX.to_le_bytes(), &[7; 100]].concat(),
        [&[tcp::ASKS][..], &[100, 0, 0, 0], &[7; 100]].concat(),
        vec![tcp::ASKS, 9, 0],
        [&[tcp::TELLS][..], &too_long, &[7; 100]].concat(),
        [&[tcp::TELLS][..], &[4, 0, 0, 0], &[0xff; 4]].concat(),
    ];
    for bytes in cases {
        let mut stream = shake_hands(&hostile, &source.contact).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        assert!(closed(&mut stream).await, "{bytes:?}");
    }
    // A request that makes no sense is refused, and the next may make some.
    let mut stream = shake_hands(&hostile, &source.contact).await.unwrap();
    for groups in [vec![], vec![(5, 2)], vec![(0, u64::MAX)]] {
        let reply = ask(&mut stream, &request(name, groups)).await.unwrap();
        assert_eq!(reply, DataReply::Refused);
    }
    let reply = ask(&mut stream, &request(name, vec![(0, 62)])).await;
    assert_eq!(reply.unwrap(), DataReply::Sending);
    // It never reads on, and others are served meanwhile.
    let friend = start(3, "127.0.0.1").await;
    assert_eq!(
        friend.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
    assert!(source.events.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_cannot_take_all_handshakes_and_one_peer_not_all_connections() {
    let source = start(1, "127.0.0.1").await;
    let to = source.plane.local_addr();
    let name = source.seed(&noise(100_000));
    // So many begin and do not go on; the next is closed at once, from elsewhere it is taken.
    let mut begun = Vec::new();
    for _ in 0..TCP_HANDSHAKES_PER_ADDRESS_MAX {
        begun.push(TcpStream::connect(to).await.unwrap());
    }
    let mut one_more = TcpStream::connect(to).await.unwrap();
    assert!(closed(&mut one_more).await);
    let friend = start(3, "127.0.0.3").await;
    assert_eq!(
        friend.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
    assert_eq!(friend.plane.inner.peers.alive(), (0, 1));
    // Many addresses together: QUIC still serves.
    for n in 0..TCP_HANDSHAKES_MAX {
        let socket = TcpSocket::new_v4().unwrap();
        let from = [127, 0, 1 + (n / 8) as u8, 9];
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        begun.push(socket.connect(to).await.unwrap());
    }
    let late = start(4, "127.0.0.4").await;
    assert_eq!(
        late.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
    assert_eq!(late.plane.inner.peers.alive(), (1, 0));
    drop(begun);

    let greedy = start(5, "127.0.0.5").await;
    let mut open = Vec::new();
    while open.len() < TCP_PER_PEER_MAX + 4 {
        // Until the handshakes above are given up there may be no room.
        let Ok(mut stream) = shake_hands(&greedy, &source.contact).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if let Ok(reply) = ask(&mut stream, &request(BlobRef::of(b"none"), vec![(0, 1)])).await {
            assert_eq!(reply, DataReply::NotHeld);
            open.push(stream);
        }
    }
    for oldest in &mut open[..4] {
        assert!(closed(oldest).await);
    }
    let reply = ask(&mut open[4], &request(name, vec![(0, 1)])).await;
    assert_eq!(reply.unwrap(), DataReply::Sending);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_peer_loses_connections_that_lie_idle() {
    let source = start(1, "127.0.0.1").await;
    let (first, second) = (source.seed(&noise(100_000)), source.seed(&noise(90_000)));
    let asker = start(2, "127.0.0.1").await;
    let fetched = asker.fetch_all(&source.contact, first).await;
    assert_eq!(fetched, FetchOutcome::Complete);
    assert_eq!(source.plane.inner.peers.alive(), (0, 1));
    let list = TestFleet::new("fleet").revocations(&[2], 1);
    source.identity.admission().set_revocations(&list).unwrap();
    let gone = async {
        while source.plane.inner.peers.alive().1 > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, gone).await.unwrap();
    let fetched = asker.fetch_all(&source.contact, second).await;
    assert_eq!(fetched, FetchOutcome::Broken);
}
