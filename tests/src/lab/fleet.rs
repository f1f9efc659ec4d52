//! The fleet in the lab: a coordinator with its origin in the data centre, a node on every host.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use coordinator::api::messages::ReleaseView;
use coordinator::directory::Directory;
use protocol::manifest::ReleaseManifest;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::Value;

use super::hostile::{self, Members};
use super::interrupt;
use super::network::{DATA_CENTRE, Network, address};
use super::process::{Usage, output, runs, usage};
use super::scenario::Scenario;
use crate::programs::program;

/// The fleet must be up by then.
const UP: Duration = Duration::from_secs(120);
/// Of a WAN's rate, what the signed topology allows: datagrams carry headers that the cap does not see.
const CAP_PERCENT: u64 = 97;

/// Running processes. Dropping it ends them.
pub struct Fleet {
    dir: tempfile::TempDir,
    /// Prefixes of the commands that run in each namespace.
    dc: Vec<String>,
    coordinator: Child,
    /// The nodes, site by site.
    pub nodes: Vec<LabNode>,
    /// Members that are not to be trusted.
    pub hostile: Members,
    spent: Vec<Usage>,
    switch: Option<Instant>,
}

/// A node on its host.
pub struct LabNode {
    /// Its site, counted from 1.
    pub site: usize,
    /// Its place in the site, counted from 1.
    pub host: usize,
    /// The namespace's role.
    pub role: String,
    /// Its directory.
    pub dir: PathBuf,
    process: Option<Child>,
}

/// What was published.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// Bytes of the carrier and of the index: what must cross each WAN once.
    pub wan_bytes: u64,
}

impl Fleet {
    /// Makes the fleet by the commands of the README and waits until every node has reported.
    ///
    /// # Errors
    /// What does not come up.
    pub fn raise(scenario: &Scenario, network: &Network) -> Result<Fleet> {
        let dir = tempfile::Builder::new().prefix("tidegate-lab-").tempdir()?;
        let home = dir.path().join("coordinator");
        let tidegate = program("tidegate");
        output(
            network
                .command("dc", &tidegate)
                .args(["init", "--plain-keys", "--address", DATA_CENTRE, "--dir"])
                .arg(&home),
        )?;
        std::fs::create_dir_all(dir.path().join("logs"))?;
        let log = dir.path().join("logs/coordinator.log");
        let mut serve = network.command("dc", &tidegate);
        let coordinator = spawn(serve.args(["serve", "--dir"]).arg(&home), &log)?;
        let mut fleet = Fleet {
            dc: vec![network.name("dc")],
            dir,
            coordinator,
            nodes: Vec::new(),
            hostile: Members::default(),
            spent: Vec::new(),
            switch: None,
        };
        fleet.wait_for("the coordinator answers", |f| {
            f.tidegate(&["nodes", "--json"]).is_ok()
        })?;
        fleet.set_sites(scenario)?;
        for (number, site) in scenario.sites.iter().enumerate() {
            for host in 1..=usize::from(site.nodes) {
                // Where hosts move, nodes listen on whatever address there is.
                let listen = match scenario.mishaps {
                    0 => address(number + 1, host),
                    _ => "0.0.0.0".to_owned(),
                };
                fleet.add_node(network, number + 1, host, &listen)?;
                fleet.start(network, fleet.nodes.len() - 1)?;
            }
        }
        let count = fleet.nodes.len();
        fleet.wait_for("every node reports", |f| {
            let listed = f.tidegate(&["nodes", "--json"]).unwrap_or_default();
            let listed: Vec<Value> = serde_json::from_str(&listed).unwrap_or_default();
            listed.iter().filter(|n| !n["last_seen"].is_null()).count() == count
        })?;
        Ok(fleet)
    }

    fn set_sites(&mut self, scenario: &Scenario) -> Result<()> {
        let mut text = String::new();
        for (number, site) in scenario.sites.iter().enumerate() {
            let s = number + 1;
            text += &format!("[[site]]\nid = \"site-{s}\"\nsubnets = [\"10.{s}.0.0/24\"]\n");
            for (key, rate) in [("wan_down", site.down), ("wan_up", site.up)] {
                if let Some(bits) = rate.filter(|_| site.capped) {
                    text += &format!("{key} = \"{}kbit\"\n", bits * CAP_PERCENT / 100_000);
                }
            }
            if let Some(cap) = site.cap {
                text += &format!("wan_down = \"{}kbit\"\n", cap.bits / 1000);
                if let Some(later) = cap.later_bits {
                    let (hours, from) = a_minute_later()?;
                    self.switch = Some(from);
                    text += &format!(
                        "zone = \"UTC\"\n[[site.hours]]\nat = \"{hours}\"\nwan_down = \"{}kbit\"\n",
                        later / 1000
                    );
                }
            }
        }
        let file = self.path("sites.toml");
        std::fs::write(&file, text)?;
        let file = file.display().to_string();
        self.tidegate(&["sites", "--set", &file, "--key", &self.key("op1")])?;
        Ok(())
    }

    /// When the hours of the first site that has some begin.
    pub fn switch_at(&self) -> Option<Instant> {
        self.switch
    }

    fn add_node(
        &mut self,
        network: &Network,
        site: usize,
        host: usize,
        listen: &str,
    ) -> Result<()> {
        let (role, dir) = self.enroll(network, site, host, listen)?;
        self.nodes.push(LabNode {
            site,
            host,
            role,
            dir,
            process: None,
        });
        Ok(())
    }

    fn enroll(
        &self,
        network: &Network,
        site: usize,
        host: usize,
        listen: &str,
    ) -> Result<(String, PathBuf)> {
        let name = format!("site-{site}");
        let made = self.tidegate(&["token", "--json", "--site", &name])?;
        let made: Value = serde_json::from_str(&made)?;
        let field = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        let role = format!("h{site}-{host}");
        let dir = self.path(&role);
        let node_program = program("tidegate-node");
        output(
            network
                .command(&role, &node_program)
                .args(["enroll", "--coordinator", &field("coordinator")])
                .args(["--token", &field("token")])
                .args(["--root-digest", &field("root_digest")])
                .args(["--listen", listen, "--dir"])
                .arg(&dir),
        )?;
        Ok((role, dir))
    }

    /// Enrols the members that are not to be trusted and starts them against the nodes of their sites.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start_hostile(&mut self, scenario: &Scenario, network: &Network) -> Result<()> {
        let lab = std::env::current_exe()?;
        for (number, site) in scenario.sites.iter().enumerate() {
            let of_site = self.nodes.iter().filter(|node| node.site == number + 1);
            let victims: Vec<PathBuf> = of_site.map(|node| node.dir.clone()).collect();
            for n in 0..usize::from(site.liars) {
                let host = usize::from(site.nodes) + 1 + n;
                let listen = address(number + 1, host);
                let (role, dir) = self.enroll(network, number + 1, host, &listen)?;
                let roots = Directory::new(self.path("coordinator")).root_file();
                let (build, log) = (self.path("build"), self.path("logs").join(&role));
                let mut run = network.command(&role, &lab);
                let run = hostile::command(&mut run, n, [&dir, &roots, &build], &victims);
                self.hostile.0.push(spawn(run, &log)?);
            }
        }
        Ok(())
    }

    /// Starts a node.
    ///
    /// # Errors
    /// When its process cannot be started.
    pub fn start(&mut self, network: &Network, number: usize) -> Result<()> {
        let log = self
            .path("logs")
            .join(format!("{}.log", self.nodes[number].role));
        let node = &mut self.nodes[number];
        let node_program = program("tidegate-node");
        let mut run = network.command(&node.role, &node_program);
        node.process = Some(spawn(run.args(["run", "--dir"]).arg(&node.dir), &log)?);
        Ok(())
    }

    /// Kills a node with SIGKILL; what it has used is kept.
    pub fn kill(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if let Some(mut process) = node.process.take() {
            let name = format!("{} (killed)", node.role);
            self.spent.extend(usage(name, process.id()));
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Makes, signs and publishes a payload that does not compress.
    ///
    /// # Errors
    /// When a command fails.
    pub fn publish(&self, scenario: &Scenario) -> Result<Published> {
        let tree = self.path("payload");
        std::fs::create_dir_all(&tree)?;
        let mut noise = ChaCha8Rng::seed_from_u64(7);
        let mut left = scenario.payload_bytes;
        for number in 0.. {
            let mut bytes = vec![0; left.min(16 << 20) as usize];
            noise.fill_bytes(&mut bytes);
            left -= bytes.len() as u64;
            std::fs::write(tree.join(format!("part-{number}")), bytes)?;
            if left == 0 {
                break;
            }
        }
        let (tree, out) = (tree.display().to_string(), self.path("build"));
        let out = out.display().to_string();
        let root = self
            .path("coordinator")
            .join("root.json")
            .display()
            .to_string();
        let build = [
            "release",
            "build",
            &tree,
            "--product",
            "app",
            "--version",
            "1",
            "--level",
            "1",
            "--out",
            &out,
        ];
        output(Command::new(program("tidegate")).args(build))?;
        let key = self.key("releases");
        let sign = ["release", "sign", &out, "--key", &key, "--root", &root];
        output(Command::new(program("tidegate")).args(sign))?;
        self.tidegate(&["release", "publish", &out])?;
        let listed: Vec<ReleaseView> =
            serde_json::from_str(&self.tidegate(&["release", "list", "--json"])?)?;
        let release = listed.first().context("the release is not listed")?;
        let manifest: ReleaseManifest = serde_json::from_slice(&release.envelope.payload)?;
        let artifact = manifest.artifacts.first().context("a release of nothing")?;
        Ok(Published {
            wan_bytes: release.carrier_bytes + artifact.index.length,
        })
    }

    /// For each site payload bytes that the origin handed to its connections, be they lost on the way.
    ///
    /// # Errors
    /// When the origin does not say.
    pub fn handed_out(&self, sites: usize) -> Result<Vec<u64>> {
        let origin = self.path("coordinator").join("origin");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let report = runtime
            .block_on(node::driver::status::read(&origin))
            .context("the origin does not say what it sent")?;
        let lines = report["traffic"]["sites"].as_array();
        let of = |site: usize| {
            let line = lines?.iter().find(|l| l["site"] == format!("site-{site}"));
            line?["payload_out"].as_u64()
        };
        Ok((1..=sites).map(|site| of(site).unwrap_or(0)).collect())
    }

    /// Nodes whose installed files are not those of the payload, byte by byte.
    ///
    /// # Errors
    /// When the payload cannot be read.
    pub fn wrong_installs(&self) -> Result<Vec<String>> {
        let mut wrong = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(self.path("payload"))? {
            let file = entry?.path();
            let bytes = std::fs::read(&file)?;
            let name = file.file_name().context("a file without a name")?;
            for node in &self.nodes {
                let installed = node.dir.join("install/app/current").join(name);
                if std::fs::read(installed).ok().as_ref() != Some(&bytes) {
                    wrong.insert(node.role.clone());
                }
            }
        }
        Ok(wrong.into_iter().collect())
    }

    /// Has the operators approve a rollout to all nodes at once, without starting it; its name.
    ///
    /// # Errors
    /// When a command fails.
    pub fn approve(&self) -> Result<String> {
        let (id, key) = ("app-1", self.key("op1"));
        self.tidegate(&[
            "rollout", "propose", "app@1", "--id", id, "--key", &key, "--preset", "fast", "--soak",
            "200ms", "--wave", "rest",
        ])?;
        for operator in ["op2", "op3"] {
            self.tidegate(&["rollout", "approve", id, "--key", &self.key(operator)])?;
        }
        Ok(id.to_owned())
    }

    /// An operator command at the coordinator.
    ///
    /// # Errors
    /// When it fails.
    pub fn tidegate(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec"])
            .args(&self.dc)
            .arg(program("tidegate"));
        command.args(arguments);
        command.arg("--dir").arg(self.path("coordinator"));
        output(&mut command)
    }

    /// What every process has used, those that were killed included.
    ///
    /// # Errors
    /// When one has ended.
    pub fn usage(&self, network: &Network) -> Result<Vec<Usage>> {
        let mut all = self.spent.clone();
        all.push(usage("coordinator".into(), self.coordinator.id())?);
        for pid in network.processes("dc")? {
            if runs(pid, "internal-node") {
                all.push(usage("origin".into(), pid)?);
            }
        }
        for node in &self.nodes {
            let process = node.process.as_ref().context("a node does not run")?;
            all.push(usage(node.role.clone(), process.id())?);
        }
        Ok(all)
    }

    /// Processor seconds of all of them so far.
    ///
    /// # Errors
    /// When one has ended.
    pub fn cpu_seconds(&self, network: &Network) -> Result<f64> {
        Ok(self.usage(network)?.iter().map(|p| p.cpu_seconds).sum())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn key(&self, name: &str) -> String {
        let path = self.path("coordinator").join(format!("keys/{name}.pem"));
        path.display().to_string()
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&Fleet) -> bool) -> Result<()> {
        let since = Instant::now();
        while !holds(self) {
            if since.elapsed() > UP {
                bail!("waited in vain: {what}; logs:\n{}", self.logs());
            }
            interrupt::check()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The last lines of every log.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(self.path("logs"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(5)..].join("\n");
            all += &format!("--- {}\n{last}\n", entry.path().display());
        }
        all
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for number in 0..self.nodes.len() {
            if let Some(mut process) = self.nodes[number].process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        // asked to end, the coordinator ends its origin too
        let pid = rustix::process::Pid::from_child(&self.coordinator);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.coordinator.wait();
    }
}

/// A minute of the day by UTC that begins in one or two minutes, as hours are written, and when it does.
fn a_minute_later() -> Result<(String, Instant)> {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let minute = wall.as_secs() / 60 + 2;
    let clock = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    let hours = format!("daily {}-{}", clock(minute), clock(minute + 1));
    let left = Duration::from_secs(minute * 60).saturating_sub(wall);
    Ok((hours, Instant::now() + left))
}

fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("failed to start {command:?}"))
}
