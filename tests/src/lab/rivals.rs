//! Other programs that move the same bytes over the same network, for comparison: `scp`, libtorrent and a
//! small peer on iroh-blobs. Each moves one file of noise from the data centre to every host of the first
//! site at once; what it costs is the processor time of all its processes, those at both ends.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use serde::Serialize;

use super::network::{DATA_CENTRE, Network, address};
use super::process::{output, reaped_seconds, usage};
use super::scenario::Scenario;
use super::{interrupt, network};

/// Debian's Python, to which its package of libtorrent belongs.
const PYTHON: &str = "/usr/bin/python3";
const SSHD: &str = "/usr/sbin/sshd";
/// `scp` and iroh-blobs listen here, libtorrent as well.
const PORT: u16 = 7710;
/// A rival must be through by then.
const PATIENCE: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_millis(20);

/// A peer of a swarm: `make FILE TORRENT`, `seed` or `fetch ADDRESS DIRECTORY TORRENT PEER…`. It says
/// `ready` when it listens and `done` when it has every byte, and goes on giving until it is ended.
const TORRENT_PEER: &str = r#"
import os, sys, time
import libtorrent as lt

if sys.argv[1] == "make":
    files = lt.file_storage()
    lt.add_files(files, sys.argv[2])
    torrent = lt.create_torrent(files)
    lt.set_piece_hashes(torrent, os.path.dirname(sys.argv[2]))
    open(sys.argv[3], "wb").write(lt.bencode(torrent.generate()))
    sys.exit(0)

role, address, directory, torrent, *peers = sys.argv[1:]
session = lt.session({
    "listen_interfaces": address + ":7710",
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "allow_multiple_connections_per_ip": True,
    "in_enc_policy": 2, "out_enc_policy": 2,
    "alert_mask": 0,
})
wanted = lt.add_torrent_params()
wanted.ti = lt.torrent_info(torrent)
wanted.save_path = directory
if role == "seed":
    wanted.flags |= lt.torrent_flags.seed_mode
handle = session.add_torrent(wanted)
print("ready", flush=True)
for peer in peers:
    handle.connect_peer((peer, 7710))
while not handle.status().is_seeding:
    time.sleep(0.02)
print("done", flush=True)
while True:
    time.sleep(1)
"#;

/// What a program took.
#[derive(Clone, Debug, Serialize)]
pub struct Rival {
    /// Its name.
    pub name: &'static str,
    /// Seconds until the last host had every byte.
    pub last_s: f64,
    /// Processor seconds of all its processes for each GiB that a host took in.
    pub cpu_seconds_per_gib: f64,
}

/// What came of the comparison.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rivals {
    /// Those that ran.
    pub ran: Vec<Rival>,
    /// Those that did not, and why.
    pub missing: Vec<String>,
}

impl Rivals {
    /// For people, beside what Tidegate took.
    pub fn to_text(&self, last_s: f64, cpu_seconds_per_gib: f64) -> String {
        let mut text = String::new();
        for rival in &self.ran {
            text += &format!(
                "  beside it {}: last {:.2} s ({:.2} of it), {:.2} CPU seconds for each GiB taken in ({:.2} of it)\n",
                rival.name,
                rival.last_s,
                last_s / rival.last_s,
                rival.cpu_seconds_per_gib,
                cpu_seconds_per_gib / rival.cpu_seconds_per_gib,
            );
        }
        for missing in &self.missing {
            text += &format!("  not compared with {missing}\n");
        }
        text
    }
}

/// Has every rival that this machine has play a scenario, one after the other, each in a network of its own.
///
/// # Errors
/// What broke off.
pub fn run(scenario: &Scenario) -> Result<Rivals> {
    network::check_tools()?;
    let mut rivals = Rivals::default();
    let all: [(&'static str, Play); 3] = [
        ("scp", scp),
        ("libtorrent", libtorrent),
        ("iroh-blobs", iroh),
    ];
    for (name, play) in all {
        let network = Network::build(scenario)?;
        let dir = tempfile::Builder::new().prefix("tidegate-lab-").tempdir()?;
        let stage = Stage::set(scenario, &network, dir.path())?;
        match play(&stage).with_context(|| format!("{name} did not play"))? {
            Ok(run) => {
                let taken = scenario.payload_bytes as f64 * stage.hosts as f64;
                let cpu = reaped_seconds()? - run.before;
                rivals.ran.push(Rival {
                    name,
                    last_s: run.last_s,
                    cpu_seconds_per_gib: cpu / (taken / f64::from(1 << 30)),
                });
            }
            Err(lacking) => rivals.missing.push(format!("{name}: {lacking}")),
        }
    }
    Ok(rivals)
}

/// How it ran, or what the machine lacks.
type Play = fn(&Stage) -> Result<Result<Run, String>>;

/// A run that is over, with all its processes.
struct Run {
    /// Seconds until the last host had every byte.
    last_s: f64,
    /// Processor seconds before, for keys and for hashing what is given, which do not count.
    before: f64,
}

/// The network and the file.
struct Stage<'a> {
    network: &'a Network,
    hosts: usize,
    dir: PathBuf,
    file: PathBuf,
}

impl Stage<'_> {
    fn set<'a>(scenario: &Scenario, network: &'a Network, dir: &Path) -> Result<Stage<'a>> {
        let site = scenario.sites.first().context("a scenario without sites")?;
        let file = dir.join("payload");
        let mut noise = ChaCha8Rng::seed_from_u64(7);
        let mut out = std::io::BufWriter::new(std::fs::File::create(&file)?);
        let mut block = vec![0; 1 << 20];
        for _ in 0..scenario.payload_bytes >> 20 {
            noise.fill_bytes(&mut block);
            std::io::Write::write_all(&mut out, &block)?;
        }
        std::io::Write::flush(&mut out)?;
        Ok(Stage {
            network,
            hosts: usize::from(site.nodes),
            dir: dir.to_owned(),
            file,
        })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A host's own directory.
    fn home(&self, host: usize) -> Result<PathBuf> {
        let home = self.at(&format!("h{host}"));
        std::fs::create_dir_all(&home)?;
        Ok(home)
    }

    fn command(&self, host: Option<usize>, program: &str) -> Command {
        let role = host.map_or("dc".to_owned(), |host| format!("h1-{host}"));
        self.network.command(&role, Path::new(program))
    }
}

/// A process that is ended, and whose processor time is counted, when it goes out of scope.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Running> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        Ok(Running(child))
    }

    /// The lines that it says.
    fn lines(&mut self) -> Result<impl Iterator<Item = String> + use<>> {
        let said = self.0.stdout.take().context("its words were taken")?;
        Ok(BufReader::new(said).lines().map_while(Result::ok))
    }

    /// Whether it has ended, and well.
    fn is_over(&mut self) -> Result<bool> {
        match self.0.try_wait()? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => bail!("it ended with {status}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked to end, a process waits for its children, whose time counts too.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Waits until all have ended, and gives the seconds that it took.
fn until_over(since: Instant, mut all: Vec<Running>) -> Result<f64> {
    while !all.is_empty() {
        let mut open = Vec::new();
        for mut one in all {
            if !one.is_over()? {
                open.push(one);
            }
        }
        all = open;
        interrupt::check()?;
        if since.elapsed() > PATIENCE {
            bail!("it was not through after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(LOOK);
    }
    Ok(since.elapsed().as_secs_f64())
}

fn scp(stage: &Stage) -> Result<Result<Run, String>> {
    let has = |tool: &str| Command::new(tool).arg("-V").output().is_ok();
    if !has(SSHD) || !has("scp") {
        return Ok(Err(format!("there is no {SSHD}; install openssh-server")));
    }
    for name in ["host", "user"] {
        let key = stage.at(name);
        let mut make = Command::new("ssh-keygen");
        output(make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key))?;
    }
    let server = stage.at("sshd_config");
    let text = format!(
        "Port {PORT}\nListenAddress {DATA_CENTRE}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
         UsePAM no\nPidFile none\nPermitRootLogin prohibit-password\nMaxStartups 100\nSubsystem sftp internal-sftp\n",
        stage.at("host").display(),
        stage.at("user.pub").display(),
    );
    std::fs::write(&server, text)?;
    let made = !Path::new("/run/sshd").exists();
    if made {
        std::fs::create_dir("/run/sshd").context("sshd needs /run/sshd")?;
    }
    let played = scp_between(stage, &server);
    if made {
        std::fs::remove_dir("/run/sshd")?;
    }
    played.map(Ok)
}

fn scp_between(stage: &Stage, server: &Path) -> Result<Run> {
    let mut serve = stage.command(None, SSHD);
    let _server = Running::start(serve.args(["-D", "-q", "-f"]).arg(server))?;
    let client = |host: usize, program: &str| {
        let mut command = stage.command(Some(host), program);
        command
            .args(["-q", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-i"])
            .arg(stage.at("user"));
        command
    };
    let since = Instant::now();
    let there = format!("root@{DATA_CENTRE}");
    let port = PORT.to_string();
    while output(client(1, "ssh").args(["-p", &port, &there, "true"])).is_err() {
        if since.elapsed() > Duration::from_secs(30) {
            bail!("sshd does not answer");
        }
        std::thread::sleep(LOOK);
    }
    let from = format!("{there}:{}", stage.file.display());
    let (before, since) = (reaped_seconds()?, Instant::now());
    let all = (1..=stage.hosts).map(|host| {
        let mut copy = client(host, "scp");
        copy.args(["-P", &port])
            .arg(&from)
            .arg(stage.home(host)?.join("payload"));
        Running::start(&mut copy)
    });
    let last_s = until_over(since, all.collect::<Result<_>>()?)?;
    Ok(Run { last_s, before })
}

fn libtorrent(stage: &Stage) -> Result<Result<Run, String>> {
    let test = Command::new(PYTHON)
        .args(["-c", "import libtorrent"])
        .output();
    if !test.is_ok_and(|o| o.status.success()) {
        return Ok(Err(format!(
            "{PYTHON} has no libtorrent; install python3-libtorrent"
        )));
    }
    let (torrent, directory) = (stage.at("payload.torrent"), stage.dir.clone());
    output(
        Command::new(PYTHON)
            .args(["-c", TORRENT_PEER, "make"])
            .args([&stage.file, &torrent]),
    )?;
    let before = reaped_seconds()?;
    let hosts: Vec<String> = (1..=stage.hosts).map(|host| address(1, host)).collect();
    let peer = |host: Option<usize>, role: &str, address: &str, home: &Path, peers: &[String]| {
        let mut run = stage.command(host, PYTHON);
        run.args(["-c", TORRENT_PEER, role, address])
            .args([home, &torrent])
            .args(peers);
        Running::start(&mut run)
    };
    let mut seed = peer(None, "seed", DATA_CENTRE, &directory, &[])?;
    let mut said = seed.lines()?;
    said.find(|line| line == "done")
        .context("it does not seed")?;
    let since = Instant::now();
    let mut all = Vec::new();
    for host in 1..=stage.hosts {
        let mut peers = vec![DATA_CENTRE.to_owned()];
        peers.extend(hosts[host..].iter().cloned());
        all.push(peer(
            Some(host),
            "fetch",
            &hosts[host - 1],
            &stage.home(host)?,
            &peers,
        )?);
    }
    for one in &mut all {
        let mut said = one.lines()?;
        said.find(|line| line == "done")
            .context("a peer ended before it had everything")?;
    }
    let last_s = since.elapsed().as_secs_f64();
    Ok(Ok(Run { last_s, before }))
}

fn iroh(stage: &Stage) -> Result<Result<Run, String>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals");
    let program = manifest.join("target/release/iroh-peer");
    if !program.exists() {
        return Ok(Err(
            "it is not built; run `cargo build --release --manifest-path tests/rivals/Cargo.toml`"
                .to_owned(),
        ));
    }
    let program = program.display().to_string();
    let at = |address: &str| format!("{address}:{PORT}");
    let mut serve = stage.command(None, &program);
    serve
        .arg("seed")
        .arg(stage.at("seed"))
        .arg(at(DATA_CENTRE))
        .arg(&stage.file);
    let mut seed = Running::start(&mut serve)?;
    let ticket = seed.lines()?.next().context("it does not seed")?;
    let hashing = usage("seed".to_owned(), seed.0.id())?.cpu_seconds;
    let (before, since) = (reaped_seconds()? + hashing, Instant::now());
    let all = (1..=stage.hosts).map(|host| {
        let mut fetch = stage.command(Some(host), &program);
        fetch
            .arg("fetch")
            .arg(stage.home(host)?)
            .args([at(&address(1, host)), ticket.clone()]);
        Running::start(&mut fetch)
    });
    let last_s = until_over(since, all.collect::<Result<_>>()?)?;
    Ok(Ok(Run { last_s, before }))
}
