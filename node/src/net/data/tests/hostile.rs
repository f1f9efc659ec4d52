//! Peers that lie, stall, babble, or are nobody.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_under_a_valid_claim_are_poison_and_stay_off_the_disk() {
    let bytes = noise(2_000_000);
    let (source, asker) = (start(1, "127.0.0.1").await, start(2, "127.0.0.1").await);
    let name = source.seed(&bytes);
    let path = source.dir.path().join(format!("blobs/{}.data", name.root));
    let mut tampered = bytes.clone();
    tampered[1_000_000] ^= 0x20;
    std::fs::write(&path, &tampered).unwrap();

    let job = asker.job(&source.contact, name);
    let blob = job.blob.clone();
    let end = asker.fetch(job).await;
    assert_eq!(end.outcome, FetchOutcome::Poisoned);
    let bad = 1_000_000 / GROUP_BYTES;
    assert!(!blob.holds(bad..bad + 1));
    for group in (0..blob.geometry().groups()).filter(|g| blob.holds(*g..*g + 1)) {
        let start = (group * GROUP_BYTES) as usize;
        let mut found = vec![0; (bytes.len() - start).min(GROUP_BYTES as usize)];
        blob.read_at(start as u64, &mut found).unwrap();
        assert!(found == bytes[start..start + found.len()]);
    }
    // An honest source completes it.
    let honest = start(3, "127.0.0.1").await;
    honest.seed(&bytes);
    assert_eq!(
        asker.fetch_all(&honest.contact, name).await,
        FetchOutcome::Complete
    );
    assert_eq!(contents(&blob), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_peer_is_slow_and_a_babbling_one_broken() {
    let name = BlobRef::of(&noise(700_000));
    let impatient = |c: &mut DataConfig| c.slow_near_after = Duration::from_millis(300);
    let asker = start_as(TestFleet::new("fleet").identity(1), "127.0.0.1", impatient).await;
    let cases = [
        (vec![], FetchOutcome::Slow),
        (vec![0], FetchOutcome::Slow),
        (vec![0; 50], FetchOutcome::Slow),
        (vec![0; 100_000], FetchOutcome::Poisoned),
        (vec![1], FetchOutcome::NotHeld),
        (vec![9], FetchOutcome::Broken),
    ];
    for (n, (reply, outcome)) in (10..).zip(cases) {
        let (_endpoint, contact) = stalling(n, reply.clone()).await;
        assert_eq!(
            asker.fetch_all(&contact, name).await,
            outcome,
            "{} bytes",
            reply.len()
        );
    }
    // What we asked to come slowly may come slowly.
    let source = start(3, "127.0.0.1").await;
    let small = source.seed(&noise(1_000));
    let job = FetchJob {
        max_bytes_per_s: 1_000,
        ..asker.job(&source.contact, small)
    };
    assert_eq!(asker.fetch(job).await.outcome, FetchOutcome::Complete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_nothing() {
    let mut source = start(1, "127.0.0.1").await;
    let name = source.seed(&noise(100_000));
    // Of another fleet, with the right node id expected: refused by both sides alike.
    let stranger = start_as(TestFleet::new("other").identity(2), "127.0.0.1", |_| {}).await;
    assert_eq!(
        stranger.fetch_all(&source.contact, name).await,
        FetchOutcome::Broken
    );
    // The certificate of another fleet, but our rules: only the source refuses.
    let other = TestFleet::new("other");
    let chain = vec![other.certificate(3, crate::net::identity::fixture::LONG)];
    let forged = start_as(
        TestFleet::new("fleet").identity_with(3, chain),
        "127.0.0.1",
        |_| {},
    )
    .await;
    assert_eq!(
        forged.fetch_all(&source.contact, name).await,
        FetchOutcome::Broken
    );
    // Another node at the address than the one we want.
    let friend = start(4, "127.0.0.1").await;
    let wrong = Contact {
        node: node(9),
        ..source.contact.clone()
    };
    assert_eq!(friend.fetch_all(&wrong, name).await, FetchOutcome::Broken);
    // No certificate at all.
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut tls = (*friend
        .identity
        .tls_client(source.contact.node, protocol::wire::DATA_ALPN))
    .clone();
    tls.client_auth_cert_resolver = Arc::new(NoCertificate);
    let quic = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(quic));
    let name_of = source.contact.node.to_string();
    let connected = endpoint
        .connect_with(config, source.plane.local_addr(), &name_of)
        .unwrap()
        .await;
    let reply = async {
        let (mut to, mut from) = connected.map_err(drop)?.open_bi().await.map_err(drop)?;
        let request = DataRequest {
            blob: name,
            groups: vec![(0, 7)],
            class: Class::Normal,
            max_bytes_per_s: 0,
            spurned: Vec::new(),
        };
        codec::write_request(&mut to, &request)
            .await
            .map_err(drop)?;
        codec::read_reply(&mut from).await.map_err(drop)
    };
    assert_eq!(reply.await, Err(()));
    // The forged one came over TCP and over QUIC, the last one had none. Those who refused us are none.
    let told = [Knock::Refused, Knock::Refused, Knock::Bare];
    assert_eq!(source.knocks(3).await, told);
    // And a friend gets it.
    assert_eq!(
        friend.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
    assert_eq!(source.plane.counters().sites[&None].payload_out, 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_loses_its_connection_in_the_middle_of_a_transfer() {
    let source = start(1, "127.0.0.1").await;
    let name = source.seed(&noise(5_000_000));
    let (asker, other) = (start(2, "127.0.0.1").await, start(3, "127.0.0.1").await);
    let job = FetchJob {
        max_bytes_per_s: 100_000,
        ..asker.job(&source.contact, name)
    };
    let (progress, mut reports) = mpsc::channel(100);
    let (_handle, end) = asker.plane.fetch(job, progress);
    reports.recv().await.unwrap();
    let list = TestFleet::new("fleet").revocations(&[2], 1);
    source.identity.admission().set_revocations(&list).unwrap();
    assert_eq!(end.await.unwrap().outcome, FetchOutcome::Broken);
    assert_eq!(
        asker.fetch_all(&source.contact, name).await,
        FetchOutcome::Broken
    );
    assert_eq!(
        other.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
}

/// The story: whoever sent wrong bytes, be it that its disk was damaged, was cut off for an hour: it brought
/// all over the WAN by itself, and a halt that it would have passed on was not heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barred_peer_is_no_source_and_is_served_and_heard_all_the_same() {
    let (mut a, mut b) = (start(1, "127.0.0.1").await, start(2, "127.0.0.1").await);
    let (first, theirs) = (a.seed(&noise(100_000)), b.seed(&noise(90_000)));
    let running = FetchJob {
        max_bytes_per_s: 1_000,
        ..a.job(&b.contact, theirs)
    };
    let (progress, _reports) = mpsc::channel(100);
    let (_handle, end) = a.plane.fetch(running, progress);
    a.plane.bar(b.contact.node);
    assert_eq!(end.await.unwrap().outcome, FetchOutcome::Broken);
    assert_eq!(a.fetch_all(&b.contact, theirs).await, FetchOutcome::Broken);
    assert_eq!(b.fetch_all(&a.contact, first).await, FetchOutcome::Complete);
    let notice = Notice::Interested { blob: first };
    b.plane.notify(a.contact.clone(), notice.clone());
    a.plane.notify(b.contact.clone(), notice.clone());
    let nodes = [a.contact.node, b.contact.node];
    for (node, from) in [(&mut a, nodes[1]), (&mut b, nodes[0])] {
        let heard = node.events.recv().await.unwrap();
        assert_eq!(heard, DataEvent::Notice(from, notice.clone()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_asker_is_cut_and_others_are_served() {
    let mut source = start_as(TestFleet::new("fleet").identity(1), "127.0.0.1", |c| {
        c.slow_after = Duration::from_millis(400);
    })
    .await;
    let name = source.seed(&noise(1_000_000));
    let hostile = start(2, "127.0.0.1").await;
    let connection = hostile
        .plane
        .inner
        .peers
        .connect(&source.contact)
        .await
        .unwrap()
        .connection;
    let request = |groups| DataRequest {
        blob: name,
        groups,
        class: Class::Normal,
        max_bytes_per_s: 0,
        spurned: Vec::new(),
    };
    let framed = |length: u32, body: &[u8]| [&length.to_le_bytes()[..], body].concat();
    let mut wrong = vec![
        framed(u32::MAX, &[7; 1000]),
        framed(100, &[7; 100]),
        framed(0, &[]),
    ];
    for groups in [
        vec![],
        vec![(0, 0)],
        vec![(5, 2)],
        vec![(0, 1), (1, 2)],
        vec![(2, 3), (0, 1)],
        vec![(0, 63)],
        vec![(0, u64::MAX)],
    ] {
        let body = request(groups).to_bytes();
        wrong.push(framed(body.len() as u32, &body));
    }
    for bytes in wrong {
        let (mut to, mut from) = connection.open_bi().await.unwrap();
        to.write_all(&bytes).await.unwrap();
        assert_eq!(
            codec::read_reply(&mut from).await.unwrap(),
            DataReply::Refused,
            "{bytes:?}"
        );
        let _ = to.finish();
        assert!(from.read_to_end(10).await.is_ok_and(|rest| rest.is_empty()));
    }
    // Requests that are never finished, askers that never read, notices of garbage.
    let mut kept = Vec::new();
    for _ in 0..10 {
        let (mut to, from) = connection.open_bi().await.unwrap();
        to.write_all(&[9, 0]).await.unwrap();
        kept.push((to, from));
        let (mut to, from) = connection.open_bi().await.unwrap();
        codec::write_request(&mut to, &request(vec![(0, 62)]))
            .await
            .unwrap();
        kept.push((to, from));
        let mut notice = connection.open_uni().await.unwrap();
        notice.write_all(&[0xff; 5_000]).await.unwrap();
        notice.finish().unwrap();
    }
    let friend = start(3, "127.0.0.1").await;
    assert_eq!(
        friend.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
    assert!(
        kept[0].1.read(&mut [0; 8]).await.is_err(),
        "a request without an end is cut"
    );
    assert!(source.events.try_recv().is_err());
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_has_a_few_connections_at_most() {
    let source = start(1, "127.0.0.1").await;
    let greedy = start(2, "127.0.0.1").await;
    let to = source.plane.local_addr();
    let name = source.contact.node.to_string();
    let mut open = Vec::new();
    for _ in 0..20 {
        let config = endpoint::client_config(&greedy.identity, source.contact.node, false).unwrap();
        let endpoint = greedy.plane.inner.peers.endpoint();
        let connecting = endpoint.connect_with(config, to, &name).unwrap();
        let connection = connecting.await.unwrap();
        // Answered, it is known: else a busy source may come to know them in another order.
        let (mut ask, mut answer) = connection.open_bi().await.unwrap();
        ask.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        codec::read_reply(&mut answer).await.unwrap();
        open.push(connection);
    }
    let mut closed = 0;
    while closed < 16 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        closed = open.iter().filter(|c| c.close_reason().is_some()).count();
    }
    assert_eq!(closed, 16);
    assert!(
        open[..16].iter().all(|c| c.close_reason().is_some()),
        "the oldest go"
    );
}
