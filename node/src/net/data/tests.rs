use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node_core::contract::FetchOutcome;
use protocol::limits::GROUP_BYTES;
use protocol::pieces::PieceSet;
use protocol::topology::Site;
use protocol::versioned::Versioned;
use protocol::wire::{DataReply, DataRequest};
use protocol::{BlobRef, FleetId, Time};
use tempfile::TempDir;

use super::*;
use crate::net::identity::fixture::{TestFleet, node};

/// A node with a store and a data plane on loopback.
struct Node {
    dir: TempDir,
    identity: Arc<Identity>,
    blobs: Blobs,
    plane: DataPlane,
    events: mpsc::Receiver<DataEvent>,
    contact: Contact,
}

async fn start_as(
    identity: Arc<Identity>,
    address: &str,
    tune: impl FnOnce(&mut DataConfig),
) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut config = DataConfig::new(SocketAddr::new(address.parse().unwrap(), 0));
    tune(&mut config);
    let (plane, events) = DataPlane::bind(config, identity.clone(), blobs.clone())
        .await
        .unwrap();
    let contact = contact(&identity, plane.local_addr());
    Node {
        dir,
        identity,
        blobs,
        plane,
        events,
        contact,
    }
}

async fn start(n: u8, address: &str) -> Node {
    start_as(TestFleet::new("fleet").identity(n), address, |_| {}).await
}

fn contact(identity: &Identity, data: SocketAddr) -> Contact {
    Contact {
        node: identity.node(),
        control: Vec::new(),
        data: Some(data),
    }
}

impl Node {
    fn seed(&self, bytes: &[u8]) -> BlobRef {
        let file = self.dir.path().join("source");
        std::fs::write(&file, bytes).unwrap();
        self.blobs.import_file(&file).unwrap()
    }

    fn job(&self, from: &Contact, name: BlobRef) -> FetchJob {
        let blob = self.blobs.open_blob(name).unwrap();
        let groups = missing(&blob);
        FetchJob {
            from: from.clone(),
            blob,
            groups,
            class: Class::Normal,
            max_bytes_per_s: 0,
            wan: false,
        }
    }

    async fn fetch(&self, job: FetchJob) -> FetchEnd {
        self.plane.fetch(job, mpsc::channel(1).0).1.await.unwrap()
    }

    async fn fetch_all(&self, from: &Contact, name: BlobRef) -> FetchOutcome {
        self.fetch(self.job(from, name)).await.outcome
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn missing(blob: &Blob) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (start, end) in (0..blob.geometry().pieces()).flat_map(|piece| blob.missing_groups(piece)) {
        match runs.last_mut() {
            Some((_, before)) if *before == start => *before = end,
            _ => runs.push((start, end)),
        }
    }
    runs
}

fn contents(blob: &Blob) -> Vec<u8> {
    let mut bytes = vec![0; blob.name().length as usize];
    blob.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Site `N` is 127.N.0.0/16, for 1 to 3.
fn topology() -> Arc<Topology> {
    let site = |n: u8| Site {
        id: format!("site-{n}").parse().unwrap(),
        subnets: vec![format!("127.{n}.0.0/16").parse().unwrap()],
        parent: None,
        wan_down_bytes_per_s: None,
        wan_up_bytes_per_s: None,
    };
    Arc::new(Topology {
        spec_version: 1,
        fleet: FleetId([0; 32]),
        version: 1,
        created: Time(0),
        sites: vec![site(1), site(2), site(3)],
    })
}

fn site(n: u8) -> SiteId {
    format!("site-{n}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_comes_from_several_peers_at_once_and_is_claimed() {
    let bytes = noise(5_000_000);
    let (a, b, c) = (
        start(1, "127.0.0.1").await,
        start(2, "127.1.0.2").await,
        start(3, "127.2.0.3").await,
    );
    let name = a.seed(&bytes);
    assert_eq!(b.seed(&bytes), name);
    let groups = c.job(&a.contact, name).blob.geometry().groups();
    // Every third group run from one, the rest from the other.
    let (one, two): (Vec<_>, Vec<_>) = (0..groups.div_ceil(5))
        .map(|i| (i * 5, (i * 5 + 5).min(groups)))
        .partition(|(start, _)| start % 3 == 0);
    let apart = |runs: Vec<(u64, u64)>| {
        runs.into_iter()
            .fold(Vec::new(), |mut all: Vec<(u64, u64)>, (start, end)| {
                match all.last_mut() {
                    Some((_, before)) if *before == start => *before = end,
                    _ => all.push((start, end)),
                }
                all
            })
    };
    let (progress, mut reports) = mpsc::channel(1000);
    let fetch = |from: &Node, groups| {
        c.plane
            .fetch(
                FetchJob {
                    groups: apart(groups),
                    ..c.job(&from.contact, name)
                },
                progress.clone(),
            )
            .1
    };
    let (first, second) = (fetch(&a, one), fetch(&b, two));
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    drop(progress);
    assert_eq!(
        (first.outcome, second.outcome),
        (FetchOutcome::Complete, FetchOutcome::Complete)
    );
    assert_eq!(first.bytes + second.bytes, 5_000_000);
    let mut reported = 0;
    while let Some(bytes) = reports.recv().await {
        reported += bytes;
    }
    assert_eq!(reported, 5_000_000);
    assert_eq!(c.blobs.complete(), [name]);
    assert_eq!(contents(&c.blobs.get(&name.root).unwrap()), bytes);
    // And whoever fetched it serves it.
    let d = start(4, "127.0.0.1").await;
    assert_eq!(d.fetch_all(&c.contact, name).await, FetchOutcome::Complete);
    assert_eq!(contents(&d.blobs.get(&name.root).unwrap()), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_receiver_dies_only_what_is_missing_is_fetched() {
    let bytes = noise(3_000_000);
    let source = start(1, "127.0.0.1").await;
    let name = source.seed(&bytes);
    let Node {
        dir,
        identity,
        blobs,
        plane,
        ..
    } = start(2, "127.0.0.1").await;
    {
        let blob = blobs.open_blob(name).unwrap();
        let job = FetchJob {
            from: source.contact.clone(),
            groups: missing(&blob),
            blob,
            class: Class::Normal,
            max_bytes_per_s: 400_000,
            wan: false,
        };
        let (progress, mut reports) = mpsc::channel(100);
        let (_handle, end) = plane.fetch(job, progress);
        let mut won = 0;
        while won < 300_000 {
            won += reports.recv().await.unwrap();
        }
        drop(plane);
        assert_eq!(end.await.unwrap().outcome, FetchOutcome::Broken);
    }
    drop(blobs);

    let blobs = loop {
        // The dead endpoint's tasks let go of the database in their own time.
        match Blobs::open(dir.path()) {
            Ok(blobs) => break blobs,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let config = DataConfig::new("127.0.0.1:0".parse().unwrap());
    let (plane, events) = DataPlane::bind(config, identity.clone(), blobs.clone())
        .await
        .unwrap();
    let contact = contact(&identity, plane.local_addr());
    let again = Node {
        dir,
        identity,
        blobs,
        plane,
        events,
        contact,
    };
    let job = again.job(&source.contact, name);
    let gone: u64 = job
        .groups
        .iter()
        .map(|(start, end)| (end * GROUP_BYTES).min(3_000_000) - start * GROUP_BYTES)
        .sum();
    assert!(
        gone <= 3_000_000 - 300_000 && gone > 0,
        "{gone} bytes are missing"
    );
    let end = again.fetch(job).await;
    assert_eq!(
        end,
        FetchEnd {
            outcome: FetchOutcome::Complete,
            bytes: gone
        }
    );
    assert_eq!(again.plane.counters().sites[&None].payload_in, gone);
    assert_eq!(contents(&again.blobs.get(&name.root).unwrap()), bytes);
}

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
async fn who_holds_nothing_or_has_no_room_says_so() {
    let bytes = noise(700_000);
    let full = start(1, "127.0.0.1").await;
    let name = full.seed(&bytes);
    let (empty, asker) = (start(2, "127.0.0.1").await, start(3, "127.0.0.1").await);
    assert_eq!(
        asker.fetch_all(&empty.contact, name).await,
        FetchOutcome::NotHeld
    );

    // Half a blob serves its half.
    let half = FetchJob {
        groups: vec![(0, 20)],
        ..empty.job(&full.contact, name)
    };
    assert_eq!(empty.fetch(half).await.outcome, FetchOutcome::Complete);
    assert_eq!(
        asker.fetch_all(&empty.contact, name).await,
        FetchOutcome::NotHeld
    );
    let job = FetchJob {
        groups: vec![(3, 7), (9, 20)],
        ..asker.job(&empty.contact, name)
    };
    assert_eq!(asker.fetch(job).await.outcome, FetchOutcome::Complete);
    assert!(asker.blobs.open_blob(name).unwrap().holds(9..20));

    let busy = start_as(TestFleet::new("fleet").identity(4), "127.0.0.1", |c| {
        c.uploads_max = 0
    })
    .await;
    busy.seed(&bytes);
    assert_eq!(
        asker.fetch_all(&busy.contact, name).await,
        FetchOutcome::Busy
    );
    // Another length under the same root is another blob.
    let other = BlobRef {
        root: name.root,
        length: 700_001,
    };
    let fresh = start(5, "127.0.0.1").await;
    assert_eq!(
        fresh.fetch_all(&full.contact, other).await,
        FetchOutcome::NotHeld
    );
    // Nobody is there.
    let nobody = Contact {
        data: None,
        ..full.contact.clone()
    };
    assert_eq!(fresh.fetch_all(&nobody, other).await, FetchOutcome::Broken);
}

/// A peer that answers every request with these bytes and then keeps silent.
async fn stalling(n: u8, reply: Vec<u8>) -> (quinn::Endpoint, Contact) {
    let identity = TestFleet::new("fleet").identity(n);
    let endpoint =
        endpoint::bind("127.0.0.1:0".parse().unwrap(), &identity, Arc::default()).unwrap();
    let contact = contact(&identity, endpoint.local_addr().unwrap());
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(incoming) = accepting.accept().await {
            let connection = incoming.await.unwrap();
            while let Ok((mut to, from)) = connection.accept_bi().await {
                to.write_all(&reply).await.unwrap();
                kept.push((to, from));
            }
        }
    });
    (endpoint, contact)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_peer_is_slow_and_a_babbling_one_broken() {
    let name = BlobRef::of(&noise(700_000));
    let impatient = |c: &mut DataConfig| c.slow_after = Duration::from_millis(300);
    let asker = start_as(TestFleet::new("fleet").identity(1), "127.0.0.1", impatient).await;
    for (reply, outcome) in [
        (vec![], FetchOutcome::Slow),
        (vec![0], FetchOutcome::Slow),
        (vec![0; 50], FetchOutcome::Slow),
        (vec![0; 100_000], FetchOutcome::Poisoned),
        (vec![1], FetchOutcome::NotHeld),
        (vec![9], FetchOutcome::Broken),
    ] {
        let (_endpoint, contact) = stalling(2, reply.clone()).await;
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
async fn a_fetch_can_be_cancelled_at_any_moment() {
    let source = start(1, "127.0.0.1").await;
    let name = source.seed(&noise(2_000_000));
    let asker = start(2, "127.0.0.1").await;
    let (_endpoint, silent) = stalling(3, vec![]).await;
    for from in [&source.contact, &silent] {
        let job = FetchJob {
            max_bytes_per_s: 50_000,
            ..asker.job(from, name)
        };
        let (progress, mut reports) = mpsc::channel(100);
        let (handle, end) = asker.plane.fetch(job, progress);
        if from == &source.contact {
            reports.recv().await.unwrap();
        }
        handle.cancel();
        assert_eq!(end.await.unwrap().outcome, FetchOutcome::Cancelled);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_nothing() {
    let source = start(1, "127.0.0.1").await;
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
        };
        codec::write_request(&mut to, &request)
            .await
            .map_err(drop)?;
        codec::read_reply(&mut from).await.map_err(drop)
    };
    assert_eq!(reply.await, Err(()));
    // And a friend gets it.
    assert_eq!(
        friend.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
    assert_eq!(source.plane.counters().sites[&None].payload_out, 100_000);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_peer_is_left_alone_both_ways() {
    let (a, b) = (start(1, "127.0.0.1").await, start(2, "127.0.0.1").await);
    let name = a.seed(&noise(100_000));
    assert_eq!(b.fetch_all(&a.contact, name).await, FetchOutcome::Complete);
    a.plane.ban(b.contact.node);
    let second = a.seed(&noise(90_000));
    assert_eq!(b.fetch_all(&a.contact, second).await, FetchOutcome::Broken);
    assert_eq!(
        a.fetch_all(&b.contact, BlobRef::of(b"else")).await,
        FetchOutcome::Broken
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_fetchers_of_a_site_share_its_cap_at_the_socket() {
    const CAP: u64 = 600_000;
    let source = start(1, "127.0.0.1").await;
    source.plane.set_topology(topology());
    source.plane.set_pace(site(1), Some(CAP));
    let name = source.seed(&noise(600_000));
    let (a, b) = (start(2, "127.1.0.1").await, start(3, "127.1.0.2").await);
    let elsewhere = start(4, "127.2.0.1").await;
    elsewhere.plane.set_topology(topology());

    let begin = Instant::now();
    let wan = async |node: &Node| {
        let job = FetchJob {
            wan: true,
            ..node.job(&source.contact, name)
        };
        node.fetch(job).await
    };
    let (ends, third) = tokio::join!(async { tokio::join!(wan(&a), wan(&b)) }, async {
        let end = wan(&elsewhere).await;
        (end, begin.elapsed())
    });
    let seconds = begin.elapsed().as_secs_f64();
    for end in [ends.0, ends.1, third.0] {
        assert_eq!(
            end,
            FetchEnd {
                outcome: FetchOutcome::Complete,
                bytes: 600_000
            }
        );
    }
    let counters = source.plane.counters();
    let paced = counters.sites[&Some(site(1))];
    let (burst, in_flight) = (CAP as f64 / 8.0, 16_384.0);
    let allowed = CAP as f64 * seconds + burst + in_flight;
    assert!(
        (paced.socket_out as f64) < allowed,
        "{} bytes in {seconds} s",
        paced.socket_out
    );
    assert_eq!(paced.payload_out, 1_200_000);
    assert!(
        (1_200_000..1_400_000).contains(&paced.socket_out),
        "{}",
        paced.socket_out
    );
    // A site without a cap was not held up, and both ends count alike.
    let free = counters.sites[&Some(site(2))];
    assert_eq!(free.payload_out, 600_000);
    let theirs = elsewhere.plane.counters();
    assert_eq!(theirs.wan_payload_in, 600_000);
    assert_eq!(theirs.sites[&None].payload_in, 600_000);
    let (sent, received) = (free.socket_out as f64, theirs.sites[&None].socket_in as f64);
    assert!(
        (0.9..=1.0).contains(&(received / sent)),
        "{received} of {sent}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_rate_acts_on_requests_under_way_and_inside_a_site_there_is_none() {
    let source = start(1, "127.1.0.1").await;
    source.plane.set_topology(topology());
    source.plane.set_pace(site(1), Some(1_000));
    source.plane.set_pace(site(2), Some(8_000));
    let name = source.seed(&noise(3_000_000));
    // The own site's cap is for its WAN: a neighbour has the LAN.
    let neighbour = start(2, "127.1.0.2").await;
    assert_eq!(
        neighbour.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
    let far = start(3, "127.2.0.1").await;
    let job = far.job(&source.contact, name);
    let (_handle, end) = far.plane.fetch(job, mpsc::channel(1).0);
    while source
        .plane
        .counters()
        .sites
        .get(&Some(site(2)))
        .is_none_or(|count| count.socket_out < 4_000)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!end.is_finished());
    source.plane.set_pace(site(2), None);
    source.plane.set_pace(site(1), None);
    assert_eq!(end.await.unwrap().outcome, FetchOutcome::Complete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_arrive_in_order_from_whom_tls_names() {
    let (a, mut b) = (start(1, "127.0.0.1").await, start(2, "127.0.0.1").await);
    let blob = BlobRef::of(b"x");
    let mut pieces = PieceSet::empty(9);
    pieces.insert(4);
    let notices = [
        Notice::Interested { blob },
        Notice::Have { blob, pieces },
        Notice::Won {
            blob,
            pieces: vec![1, 2],
        },
    ];
    for notice in &notices {
        a.plane.notify(b.contact.clone(), notice.clone());
    }
    for notice in notices {
        assert_eq!(
            b.events.recv().await,
            Some(DataEvent::Notice(a.contact.node, notice))
        );
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
    let (_peer, connection) = hostile
        .plane
        .inner
        .peers
        .connect(&source.contact)
        .await
        .unwrap();
    let request = |groups| DataRequest {
        blob: name,
        groups,
        class: Class::Normal,
        max_bytes_per_s: 0,
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

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = start(1, "127.0.0.1").await;
    let again = DataPlane::bind(
        DataConfig::new(taken.plane.local_addr()),
        taken.identity.clone(),
        taken.blobs.clone(),
    )
    .await;
    let line = again.unwrap_err().to_string();
    assert!(
        line.contains(&taken.plane.local_addr().to_string()),
        "{line}"
    );
    assert_eq!(
        taken.plane.local_addr().ip(),
        "127.0.0.1".parse::<IpAddr>().unwrap()
    );
    taken.plane.shutdown().await;
}
