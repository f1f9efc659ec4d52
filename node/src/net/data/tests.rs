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

mod hostile;
mod liars;
mod over_tcp;
mod pacing;
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

impl Node {
    /// What the next so many machines that were not let in had shown.
    async fn knocks(&mut self, count: usize) -> Vec<Knock> {
        let mut knocks = Vec::new();
        while knocks.len() < count {
            let event = tokio::time::timeout(Duration::from_secs(60), self.events.recv()).await;
            match event.expect("one more") {
                Some(DataEvent::Knocked(visit)) => {
                    assert_eq!((visit.node, visit.address), (None, [127, 0, 0, 1].into()));
                    knocks.push(visit.knock);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(self.events.try_recv().is_err(), "and nobody else");
        knocks
    }
}

async fn start(n: u8, address: &str) -> Node {
    start_as(TestFleet::new("fleet").identity(n), address, |_| {}).await
}

fn contact(identity: &Identity, data: SocketAddr) -> Contact {
    Contact {
        node: identity.node(),
        control: [].into(),
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
            spurned: Vec::new(),
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
            spurned: Vec::new(),
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
            referral: None,
            bytes: gone
        }
    );
    assert_eq!(again.plane.counters().sites[&None].payload_in, gone);
    assert_eq!(
        again.plane.counters().again,
        0,
        "nothing that was here came again"
    );
    assert_eq!(contents(&again.blobs.get(&name.root).unwrap()), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_though_it_is_here_is_counted() {
    let (source, asker) = (start(1, "127.0.0.1").await, start(2, "127.0.0.1").await);
    let name = source.seed(&noise(700_000));
    for (groups, again) in [((0, 9), 0), ((5, 12), 4), ((20, 21), 4)] {
        let job = FetchJob {
            groups: vec![groups],
            ..asker.job(&source.contact, name)
        };
        assert_eq!(asker.fetch(job).await.outcome, FetchOutcome::Complete);
        assert_eq!(asker.plane.counters().again, again * GROUP_BYTES);
    }
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
                // Whoever has enough of it stops it.
                let _ = to.write_all(&reply).await;
                kept.push((to, from));
            }
        }
    });
    (endpoint, contact)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_is_not_the_peers_fault() {
    let source = start(1, "127.0.0.1").await;
    let name = source.seed(&noise(500_000));
    let asker = start(2, "127.0.0.1").await;
    let job = asker.job(&source.contact, name);
    std::fs::remove_dir_all(asker.dir.path().join("blobs")).unwrap();
    assert_eq!(asker.fetch(job).await.outcome, FetchOutcome::Storage);
    assert!(asker.blobs.complete().is_empty());
}

/// A source that was killed says no goodbye. Started again, it tells the asker at the first packet
/// that the old connection is gone, and the asker makes a new one within the same fetch.
#[test]
fn a_source_that_was_killed_and_started_again_is_asked_again_at_once() {
    let doomed = tokio::runtime::Runtime::new().unwrap();
    let rest = tokio::runtime::Runtime::new().unwrap();
    let source = doomed.block_on(start(1, "127.0.0.1"));
    let (first, second) = (noise(400_000), noise(300_000));
    let (first, second) = (source.seed(&first), source.seed(&second));
    let asker = rest.block_on(start(2, "127.0.0.1"));
    let fetched = rest.block_on(asker.fetch_all(&source.contact, first));
    assert_eq!(fetched, FetchOutcome::Complete);

    doomed.shutdown_timeout(Duration::from_secs(10));
    let Node {
        dir: _dir,
        identity,
        blobs,
        plane,
        events,
        contact,
    } = source;
    drop((plane, events));
    let again = rest.block_on(async {
        let config = DataConfig::new(contact.data.unwrap());
        loop {
            match DataPlane::bind(config.clone(), identity.clone(), blobs.clone()).await {
                Ok(bound) => break bound,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    let fetched = rest.block_on(asker.fetch_all(&contact, second));
    assert_eq!(fetched, FetchOutcome::Complete);
    drop(again);
}
