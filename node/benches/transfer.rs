//! A verified transfer from disk to disk between two nodes, against a bare quinn stream of as many
//! bytes with the same TLS and transport settings, in one process on loopback.
//!
//! Both keep their connection over all runs, so neither pays for handshakes or a slow start again.
//! `TIDEGATE_BENCH_BYTES` sets the size (default 1 GiB). Absolute rates say little on a busy machine;
//! the line with the ratio comes from runs that alternate.

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use ed25519_dalek::SigningKey;
use node::net::data::{DataConfig, DataPlane, FetchJob, bare_endpoint};
use node::net::identity::issue::{IssuingCa, Validity};
use node::net::identity::{Admission, Identity};
use node::store::blobs::Blobs;
use node_core::contract::FetchOutcome;
use protocol::wire::{Class, Contact};
use protocol::{BlobRef, Time};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Pairs of runs behind the printed ratio.
const PAIRS: usize = 5;
/// What the bare stream's ends write and read at once.
const BUFFER_BYTES: usize = 256 << 10;

fn main() {
    let bytes = std::env::var("TIDEGATE_BENCH_BYTES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1 << 30);
    let runtime = Runtime::new().expect("a runtime");
    let bench = runtime.block_on(Bench::new(bytes));

    let mut pairs: Vec<(Duration, Took)> = (0..PAIRS)
        .map(|_| {
            (
                runtime.block_on(bench.bare()),
                runtime.block_on(bench.verified()),
            )
        })
        .collect();
    report(bytes, &mut pairs);

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("transfer");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .throughput(Throughput::Bytes(bytes));
    group.bench_function("bare quinn stream", |b| {
        b.iter_custom(|n| (0..n).map(|_| runtime.block_on(bench.bare())).sum());
    });
    group.bench_function("verified, disk to disk", |b| {
        b.iter_custom(|n| {
            (0..n)
                .map(|_| runtime.block_on(bench.verified()).written)
                .sum()
        });
    });
    group.finish();
    criterion.final_summary();
}

fn report(bytes: u64, pairs: &mut [(Duration, Took)]) {
    let rate = |took: Duration| bytes as f64 / 1e6 / took.as_secs_f64();
    for (bare, verified) in pairs.iter() {
        println!(
            "bare {:.0} MB/s, verified {:.0} MB/s, until durable {:.0} MB/s",
            rate(*bare),
            rate(verified.written),
            rate(verified.durable)
        );
    }
    let mut median = |of: &dyn Fn(&(Duration, Took)) -> f64| {
        pairs.sort_by(|a, b| of(a).total_cmp(&of(b)));
        of(&pairs[pairs.len() / 2])
    };
    let written = median(&|(bare, verified)| bare.as_secs_f64() / verified.written.as_secs_f64());
    let durable = median(&|(bare, verified)| bare.as_secs_f64() / verified.durable.as_secs_f64());
    println!(
        "ratio: verified disk to disk is {written:.2} of a bare quinn stream ({durable:.2} until durable), {bytes} bytes, median of {PAIRS}"
    );
}

/// How long until every byte was verified and written, and until it was durable and claimed.
struct Took {
    written: Duration,
    durable: Duration,
}

struct Bench {
    _dir: tempfile::TempDir,
    name: BlobRef,
    source: Contact,
    asker: DataPlane,
    _source_plane: DataPlane,
    store: Blobs,
    bare: quinn::Connection,
    _bare_endpoint: quinn::Endpoint,
}

impl Bench {
    async fn new(bytes: u64) -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        let [source_identity, asker_identity] = identities();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));

        let seed = Blobs::open(&dir.path().join("source")).expect("a store");
        let file = dir.path().join("payload");
        write_noise(&file, bytes);
        let name = seed.import_file(&file).expect("an import");
        std::fs::remove_file(&file).expect("its own file");

        let bind = |identity: &Arc<Identity>, blobs: &Blobs| {
            DataPlane::bind(DataConfig::new(listen), identity.clone(), blobs.clone())
        };
        let (source_plane, _events) = bind(&source_identity, &seed).await.expect("a port");
        let store = Blobs::open(&dir.path().join("asker")).expect("a store");
        let (asker, _events) = bind(&asker_identity, &store).await.expect("a port");
        let source = Contact {
            node: source_identity.node(),
            control: Vec::new(),
            data: Some(source_plane.local_addr()),
        };

        let (writer, _) =
            bare_endpoint(listen, &source_identity, asker_identity.node()).expect("a port");
        let address = writer.local_addr().expect("it is bound");
        tokio::spawn(write_bare(writer, bytes));
        let (reader, config) =
            bare_endpoint(listen, &asker_identity, source_identity.node()).expect("a port");
        let server_name = source_identity.node().to_string();
        let connecting = reader
            .connect_with(config, address, &server_name)
            .expect("an address");
        let bare = connecting.await.expect("a handshake");
        Bench {
            _dir: dir,
            name,
            source,
            asker,
            _source_plane: source_plane,
            store,
            bare,
            _bare_endpoint: reader,
        }
    }

    async fn bare(&self) -> Duration {
        let begin = Instant::now();
        let (mut to, mut from) = self.bare.open_bi().await.expect("a stream");
        to.write_all(b"go").await.expect("a stream");
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut read = 0;
        while let Some(n) = from.read(&mut buffer).await.expect("a stream") {
            black_box(&buffer[..n]);
            read += n as u64;
        }
        assert_eq!(read, self.name.length);
        begin.elapsed()
    }

    async fn verified(&self) -> Took {
        let blob = self.store.open_blob(self.name).expect("a store");
        let job = FetchJob {
            from: self.source.clone(),
            groups: vec![(0, blob.geometry().groups())],
            blob,
            class: Class::Normal,
            max_bytes_per_s: 0,
            wan: false,
        };
        let (progress, mut reports) = mpsc::channel(1 << 16);
        let begin = Instant::now();
        let (_handle, end) = self.asker.fetch(job, progress);
        let mut won = 0;
        while won < self.name.length {
            won += reports.recv().await.expect("the fetch goes on");
        }
        let written = begin.elapsed();
        assert_eq!(end.await.expect("no panic").outcome, FetchOutcome::Complete);
        let durable = begin.elapsed();
        self.store.drop_blob(&self.name.root).expect("a store");
        Took { written, durable }
    }
}

async fn write_bare(endpoint: quinn::Endpoint, bytes: u64) {
    let buffer = vec![7; BUFFER_BYTES];
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await.expect("a handshake");
        while let Ok((mut to, mut from)) = connection.accept_bi().await {
            from.read_exact(&mut [0; 2]).await.expect("a stream");
            let mut rest = bytes;
            while rest > 0 {
                let now = rest.min(BUFFER_BYTES as u64);
                to.write_all(&buffer[..now as usize])
                    .await
                    .expect("a stream");
                rest -= now;
            }
            to.finish().expect("a stream");
        }
    }
}

fn write_noise(path: &Path, bytes: u64) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file");
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut buffer = vec![0; 1 << 20];
    let mut rest = bytes;
    while rest > 0 {
        let now = rest.min(buffer.len() as u64) as usize;
        noise.fill(&mut buffer[..now]);
        file.write_all(&buffer[..now]).expect("room on the disk");
        rest -= now as u64;
    }
}

fn identities() -> [Arc<Identity>; 2] {
    let validity = Validity {
        not_before: Time::from_secs(1_577_836_800),
        not_after: Time::from_secs(4_102_444_800),
    };
    let ca = IssuingCa::create("bench", &SigningKey::from_bytes(&[1; 32]), validity).expect("a CA");
    [2u8, 3].map(|n| {
        let key = SigningKey::from_bytes(&[n; 32]);
        let node = protocol::NodeId(key.verifying_key().to_bytes());
        let chain = vec![
            ca.node(node, u64::from(n), validity)
                .expect("a certificate"),
        ];
        let admission = Admission::new(vec![ca.certificate().clone()]).expect("rules");
        Arc::new(Identity::new(key, chain, Arc::new(admission)))
    })
}
