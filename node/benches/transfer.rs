//! A verified transfer from disk to disk between two nodes, over QUIC and over TLS and TCP, against a bare
//! quinn stream of as many bytes with the same TLS and transport settings, in one process on loopback.
//!
//! All keep their connections over all runs, so none pays for handshakes or a slow start again.
//! `TIDEGATE_BENCH_BYTES` sets the size (default 1 GiB), `TIDEGATE_BENCH_ROUNDS` how often each runs
//! (default 7). Absolute rates say little on a busy machine; the ratios come from runs that alternate.
//! CPU seconds are those of the whole process, both ends together, by its own threads: they hardly
//! depend on what else the machine does. A profiler wants one kind alone: `TIDEGATE_BENCH_ONLY` is
//! `bare`, `quic` or `tcp`.

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use node::net::data::{DataConfig, DataPlane, FetchJob, bare_endpoint};
use node::net::identity::issue::{IssuingCa, Validity};
use node::net::identity::{Admission, Identity};
use node::store::blobs::Blobs;
use node_core::contract::FetchOutcome;
use protocol::wire::{Class, Contact};
use protocol::{BlobRef, Time};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// What the bare stream's ends write and read at once.
const BUFFER_BYTES: usize = 256 << 10;

fn main() {
    let bytes = setting("TIDEGATE_BENCH_BYTES", 1 << 30);
    let rounds = setting("TIDEGATE_BENCH_ROUNDS", 7).max(1);
    let runtime = Runtime::new().expect("a runtime");
    let bench = runtime.block_on(Bench::new(bytes));

    if let Ok(only) = std::env::var("TIDEGATE_BENCH_ONLY") {
        let kind = KINDS.into_iter().find(|kind| kind.name() == only);
        let kind = kind.expect("TIDEGATE_BENCH_ONLY is bare, quic or tcp");
        for _ in 0..rounds {
            println!("{}", runtime.block_on(bench.run(kind)).line(kind, bytes));
        }
        return;
    }
    // The first round is not counted: buffers, windows and the page cache find their size.
    let round = || KINDS.map(|kind| runtime.block_on(bench.run(kind)));
    round();
    let mut all = Vec::new();
    for _ in 0..rounds {
        let took = round();
        let lines: Vec<String> = KINDS
            .into_iter()
            .zip(&took)
            .map(|(kind, took)| took.line(kind, bytes))
            .collect();
        println!("{}", lines.join("; "));
        all.push(took);
    }
    report(bytes, &all);
}

/// What is measured, in the order of a round.
#[derive(Clone, Copy)]
enum Kind {
    Bare,
    Quic,
    Tcp,
}

const KINDS: [Kind; 3] = [Kind::Bare, Kind::Quic, Kind::Tcp];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Bare => "bare",
            Kind::Quic => "quic",
            Kind::Tcp => "tcp",
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn report(bytes: u64, all: &[[Took; 3]]) {
    let median = |of: &dyn Fn(&[Took; 3]) -> f64| {
        let mut all: Vec<f64> = all.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let gib = bytes as f64 / (1u64 << 30) as f64;
    let per_gib = |n: usize| median(&|round| round[n].cpu.as_secs_f64() / gib);
    println!(
        "of a bare quinn stream ({:.2} CPU seconds per GiB), medians of {} rounds of {bytes} bytes:",
        per_gib(Kind::Bare as usize),
        all.len()
    );
    for kind in [Kind::Quic, Kind::Tcp] {
        let n = kind as usize;
        let written = median(&|round| round[0].written.div_duration_f64(round[n].written));
        let durable = median(&|round| round[0].durable.div_duration_f64(round[n].durable));
        let cpu = median(&|round| round[0].cpu.div_duration_f64(round[n].cpu));
        println!(
            "verified over {} has {written:.2} of the rate ({durable:.2} until durable), {cpu:.2} by CPU \
             time ({:.2} CPU seconds per GiB)",
            kind.name(),
            per_gib(n)
        );
    }
}

/// How long until every byte was verified and written, until it was durable and claimed, and CPU time
/// of the process until it was written.
#[derive(Clone, Copy)]
struct Took {
    written: Duration,
    durable: Duration,
    cpu: Duration,
}

impl Took {
    fn line(&self, kind: Kind, bytes: u64) -> String {
        let rate = |took: Duration| bytes as f64 / 1e6 / took.as_secs_f64();
        format!(
            "{} {:.0} MB/s (durable {:.0}), {:.2} CPU s",
            kind.name(),
            rate(self.written),
            rate(self.durable),
            self.cpu.as_secs_f64()
        )
    }
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
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
            control: [].into(),
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

    async fn run(&self, kind: Kind) -> Took {
        match kind {
            Kind::Bare => self.bare().await,
            // That is what the nodes choose over a WAN, and inside a LAN.
            Kind::Quic => self.verified(true).await,
            Kind::Tcp => self.verified(false).await,
        }
    }

    async fn bare(&self) -> Took {
        let (begin, cpu_begin) = (Instant::now(), cpu());
        let (mut to, mut from) = self.bare.open_bi().await.expect("a stream");
        to.write_all(b"go").await.expect("a stream");
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut read = 0;
        while let Some(n) = from.read(&mut buffer).await.expect("a stream") {
            black_box(&buffer[..n]);
            read += n as u64;
        }
        assert_eq!(read, self.name.length);
        let written = begin.elapsed();
        Took {
            written,
            durable: written,
            cpu: cpu() - cpu_begin,
        }
    }

    async fn verified(&self, wan: bool) -> Took {
        let blob = self.store.open_blob(self.name).expect("a store");
        let job = FetchJob {
            from: self.source.clone(),
            groups: vec![(0, blob.geometry().groups())],
            blob,
            class: Class::Normal,
            max_bytes_per_s: 0,
            wan,
            spurned: Vec::new(),
        };
        let (progress, mut reports) = mpsc::channel(1 << 16);
        let (begin, cpu_begin) = (Instant::now(), cpu());
        let (_handle, end) = self.asker.fetch(job, progress);
        let mut won = 0;
        while won < self.name.length {
            won += reports.recv().await.expect("the fetch goes on");
        }
        let (written, cpu) = (begin.elapsed(), cpu() - cpu_begin);
        assert_eq!(end.await.expect("no panic").outcome, FetchOutcome::Complete);
        let durable = begin.elapsed();
        self.store.drop_blob(&self.name.root).expect("a store");
        Took {
            written,
            durable,
            cpu,
        }
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
