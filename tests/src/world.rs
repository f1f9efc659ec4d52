//! A fleet of real processes in a temporary directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use coordinator::api::Client;
use coordinator::api::messages::{NodeView, RolloutView};
use protocol::{NodeId, RolloutId};

use crate::programs::{MACHINE, THIS_MACHINE, command, run, success};

/// Whatever a test waits for has come by then; on a busy machine things take long.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Sites.
    pub sites: u8,
    /// Nodes in each.
    pub nodes_per_site: u8,
    /// Each site's WAN rate, as `tidegate sites --set` takes it.
    pub wan: &'static str,
}

impl Default for WorldOptions {
    fn default() -> WorldOptions {
        WorldOptions {
            sites: 2,
            nodes_per_site: 2,
            wan: "200mbit",
        }
    }
}

/// A running fleet. Dropping it ends every process that it started.
pub struct World {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    client: Client,
    coordinator: Option<Child>,
    /// The nodes, site by site.
    pub nodes: Vec<NodeProcess>,
}

/// A node and, while it runs, its process.
pub struct NodeProcess {
    /// Its directory.
    pub dir: PathBuf,
    /// Its id.
    pub id: NodeId,
    /// Who runs it; none: whoever runs the test.
    pub user: Option<u32>,
    process: Option<Child>,
}

impl World {
    /// Makes a fleet by the commands of the README and waits until every node has reported.
    ///
    /// # Panics
    /// When something does not come up.
    pub fn raise(options: &WorldOptions) -> World {
        let mut world = World::coordinator_only(options);
        for site in 1..=options.sites {
            for place in 1..=options.nodes_per_site {
                world.add_node(&format!("site-{site}"), &format!("127.{site}.0.{place}"));
            }
        }
        world.wait_for("every node reports", |w| {
            w.node_views()
                .iter()
                .filter(|n| n.last_seen.is_some())
                .count()
                == w.nodes.len()
        });
        world
    }

    /// Makes a fleet without nodes.
    ///
    /// # Panics
    /// When the coordinator does not come up.
    pub fn coordinator_only(options: &WorldOptions) -> World {
        let dir = tempfile::Builder::new()
            .prefix("tidegate-test-")
            .tempdir()
            .expect("a temporary directory");
        let home = dir.path().join("coordinator");
        success(
            "tidegate",
            &["init", "--plain-keys", "--port", "0", "--dir", text(&home)],
        );
        let client = Client::from_dir(&home).expect("the directory of a coordinator");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut world = World {
            dir,
            runtime,
            client,
            coordinator: None,
            nodes: Vec::new(),
        };
        world.start_coordinator();
        let mut sites = String::new();
        for site in 1..=options.sites {
            sites += &format!(
                "[[site]]\nid = \"site-{site}\"\nsubnets = [\"127.{site}.0.0/16\"]\nwan_down = \"{}\"\n",
                options.wan
            );
        }
        let file = world.path("sites.toml");
        std::fs::write(&file, sites).expect("written");
        world.tidegate(&["sites", "--set", text(&file), "--key", &world.key("op1")]);
        world
    }

    /// A path below the world's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The coordinator's directory.
    pub fn home(&self) -> PathBuf {
        self.path("coordinator")
    }

    /// The path of a key as text.
    pub fn key(&self, name: &str) -> String {
        text(&self.home().join("keys").join(format!("{name}.pem"))).to_owned()
    }

    /// Runs an operator command against this coordinator and gives what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn tidegate(&self, arguments: &[&str]) -> String {
        let home = self.home();
        let mut all = arguments.to_vec();
        all.extend(["--dir", text(&home)]);
        success("tidegate", &all)
    }

    /// Enrols a node and starts it.
    ///
    /// # Panics
    /// When it cannot be enrolled.
    pub fn add_node(&mut self, site: &str, address: &str) -> usize {
        let number = self.nodes.len();
        let dir = self.path(&format!("node-{number}"));
        let id = self.enroll(site, address, &dir);
        self.nodes.push(NodeProcess {
            dir,
            id,
            user: None,
            process: None,
        });
        self.start_node(number);
        number
    }

    /// Enrols a machine by `tidegate token` and `tidegate-node enroll`.
    ///
    /// # Panics
    /// When it cannot be enrolled.
    pub fn enroll(&self, site: &str, address: &str, dir: &Path) -> NodeId {
        self.enroll_with(site, address, dir, &[])
    }

    /// The same with `more` said about it.
    ///
    /// # Panics
    /// When it cannot be enrolled.
    pub fn enroll_with(&self, site: &str, address: &str, dir: &Path, more: &[&str]) -> NodeId {
        let made: serde_json::Value =
            serde_json::from_str(&self.tidegate(&["token", "--json", "--site", site]))
                .expect("JSON");
        let field = |name: &str| made[name].as_str().expect("text").to_owned();
        let (coordinator, token, root) =
            (field("coordinator"), field("token"), field("root_digest"));
        let mut enroll = vec![
            "enroll",
            "--coordinator",
            &coordinator,
            "--token",
            &token,
            "--root-digest",
            &root,
            "--listen",
            address,
            "--dir",
            text(dir),
        ];
        enroll.extend(more);
        success("tidegate-node", &enroll);
        node::config::NodeConfig::load(dir)
            .expect("an enrolled node")
            .node
    }

    /// Starts the coordinator and waits until it answers.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_coordinator(&mut self) {
        let home = self.home();
        self.coordinator =
            Some(self.spawn("tidegate", &["serve", "--dir", text(&home)], "coordinator"));
        self.wait_for("the coordinator answers", |w| {
            w.runtime.block_on(w.client.status()).is_ok()
        });
    }

    /// Sets one of the coordinator's settings while it is down.
    ///
    /// # Panics
    /// When the file cannot be read or written, or the coordinator does not come up.
    pub fn configure(&mut self, name: &str, value: serde_json::Value) {
        self.stop_coordinator();
        let path = self.home().join("coordinator.json");
        let settings = std::fs::read(&path).expect("settings");
        let mut settings: serde_json::Value = serde_json::from_slice(&settings).expect("JSON");
        settings[name] = value;
        std::fs::write(&path, settings.to_string()).expect("written");
        self.start_coordinator();
    }

    /// Kills the coordinator with SIGKILL. Its origin lives on.
    ///
    /// # Panics
    /// When it did not run.
    pub fn kill_coordinator(&mut self) {
        kill(self.coordinator.take().expect("the coordinator runs"));
    }

    /// Ends the coordinator, and its origin with it, as a shutdown of its machine does.
    ///
    /// # Panics
    /// When it did not run.
    pub fn stop_coordinator(&mut self) {
        let mut process = self.coordinator.take().expect("the coordinator runs");
        let pid = rustix::process::Pid::from_child(&process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = process.wait();
    }

    /// Starts a node.
    ///
    /// # Panics
    /// When its process cannot be started.
    pub fn start_node(&mut self, number: usize) {
        self.start_node_on(number, THIS_MACHINE);
    }

    /// Starts a node on a machine of this name.
    ///
    /// # Panics
    /// When its process cannot be started.
    pub fn start_node_on(&mut self, number: usize, machine: &str) {
        self.start_node_with(number, &[(MACHINE, machine)]);
    }

    /// Kills a node and starts it on its machine in another boot, which has this name.
    ///
    /// # Panics
    /// When its process cannot be started.
    pub fn reboot_node(&mut self, number: usize, boot: &str) {
        self.kill_node(number);
        let name = node::driver::BOOT_ID;
        self.start_node_with(number, &[(MACHINE, THIS_MACHINE), (name, boot)]);
    }

    fn start_node_with(&mut self, number: usize, environment: &[(&str, &str)]) {
        let dir = self.nodes[number].dir.clone();
        let log = self.log(&format!("node-{number}"));
        let mut run = command("tidegate-node", &["run", "--dir", text(&dir)]);
        if let Some(user) = self.nodes[number].user {
            std::os::unix::process::CommandExt::uid(&mut run, user);
        }
        let process = run
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        self.nodes[number].process = Some(process);
    }

    /// Writes into a node's own file what its installer would have written there, and starts it again.
    ///
    /// # Panics
    /// When the file cannot be read or written.
    pub fn describe(&mut self, node: usize, key: &str, value: impl Into<serde_json::Value>) {
        self.kill_node(node);
        let path = self.nodes[node].dir.join("node.json");
        let config = std::fs::read(&path).expect("an enrolled node");
        let mut config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
        config[key] = value.into();
        std::fs::write(&path, config.to_string()).expect("written");
        self.start_node(node);
    }

    /// Kills a node with SIGKILL.
    pub fn kill_node(&mut self, number: usize) {
        if let Some(process) = self.nodes[number].process.take() {
            kill(process);
        }
    }

    /// Takes a directory that was enrolled by other means, and starts its node.
    ///
    /// # Panics
    /// When it is no node's directory.
    pub fn adopt_node(&mut self, dir: PathBuf) -> usize {
        let number = self.take_node(dir);
        self.start_node(number);
        number
    }

    /// The same, but its node is not started.
    ///
    /// # Panics
    /// When it is no node's directory.
    pub fn take_node(&mut self, dir: PathBuf) -> usize {
        let id = node::config::NodeConfig::load(&dir)
            .expect("an enrolled node")
            .node;
        self.nodes.push(NodeProcess {
            dir,
            id,
            user: None,
            process: None,
        });
        self.nodes.len() - 1
    }

    /// Stops a node with SIGSTOP: its sockets stay open and nothing answers.
    pub fn stop_node(&self, number: usize) {
        self.signal(number, rustix::process::Signal::STOP);
    }

    /// Lets a stopped node go on.
    pub fn continue_node(&self, number: usize) {
        self.signal(number, rustix::process::Signal::CONT);
    }

    fn signal(&self, number: usize, signal: rustix::process::Signal) {
        if let Some(process) = &self.nodes[number].process {
            let _ =
                rustix::process::kill_process(rustix::process::Pid::from_child(process), signal);
        }
    }

    fn spawn(&self, name: &str, arguments: &[&str], log: &str) -> Child {
        let log = self.log(log);
        command(name, arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the program starts")
    }

    fn log(&self, name: &str) -> File {
        std::fs::create_dir_all(self.path("logs")).expect("made");
        File::options()
            .create(true)
            .append(true)
            .open(self.path("logs").join(format!("{name}.log")))
            .expect("a log")
    }

    /// Whether a program's log has a line with this in it.
    pub fn logged(&self, name: &str, what: &str) -> bool {
        let log = std::fs::read_to_string(self.path("logs").join(format!("{name}.log")));
        log.is_ok_and(|log| log.contains(what))
    }

    /// Builds, signs and publishes `tree` as `app@version`.
    ///
    /// # Panics
    /// When a command fails.
    pub fn publish(&self, tree: &Path, version: &str, more: &[&str]) {
        self.publish_as("app", tree, version, more);
    }

    /// The same as `product@version`.
    ///
    /// # Panics
    /// When a command fails.
    pub fn publish_as(&self, product: &str, tree: &Path, version: &str, more: &[&str]) {
        let out = self.path(&format!("build-{product}-{version}"));
        let mut build = vec![
            "release",
            "build",
            text(tree),
            "--product",
            product,
            "--version",
            version,
            "--level",
            "3",
            "--out",
            text(&out),
        ];
        build.extend(more);
        success("tidegate", &build);
        let root = self.home().join("root.json");
        success(
            "tidegate",
            &[
                "release",
                "sign",
                text(&out),
                "--key",
                &self.key("releases"),
                "--root",
                text(&root),
            ],
        );
        self.tidegate(&["release", "publish", text(&out)]);
    }

    /// Proposes (op1), approves (op2, op3) and starts a rollout of `app@version` in these waves.
    ///
    /// # Panics
    /// When a command fails.
    pub fn roll_out(&self, version: &str, waves: &[&str]) -> RolloutId {
        self.roll_out_as(&format!("app-{version}"), version, waves, &[])
    }

    /// The same under a name of its own, with `more` said about it.
    ///
    /// # Panics
    /// When a command fails.
    pub fn roll_out_as(
        &self,
        name: &str,
        version: &str,
        waves: &[&str],
        more: &[&str],
    ) -> RolloutId {
        let id = self.approved(name, &format!("app@{version}"), waves, more);
        self.tidegate(&["rollout", "start", id.as_str()]);
        id
    }

    /// Proposes and approves a rollout of a release, `product@version`, which is not started yet.
    ///
    /// # Panics
    /// When a command fails.
    pub fn approved(&self, name: &str, release: &str, waves: &[&str], more: &[&str]) -> RolloutId {
        let id = self.propose_as(name, release, waves, more);
        for operator in ["op2", "op3"] {
            self.tidegate(&[
                "rollout",
                "approve",
                id.as_str(),
                "--key",
                &self.key(operator),
            ]);
        }
        id
    }

    /// Proposes a rollout of `app@version` in these waves, by op1, with short soaks and leases.
    ///
    /// # Panics
    /// When the command fails.
    pub fn propose(&self, version: &str, waves: &[&str]) -> RolloutId {
        let (name, release) = (format!("app-{version}"), format!("app@{version}"));
        self.propose_as(&name, &release, waves, &[])
    }

    fn propose_as(&self, name: &str, release: &str, waves: &[&str], more: &[&str]) -> RolloutId {
        let key = self.key("op1");
        let mut propose = vec![
            "rollout", "propose", release, "--id", name, "--key", &key, "--preset", "fast",
            "--lease", "20s",
        ];
        if !more.contains(&"--soak") {
            propose.extend(["--soak", "200ms"]);
        }
        propose.extend(more);
        for wave in waves {
            propose.extend(["--wave", wave]);
        }
        self.tidegate(&propose);
        name.parse().expect("a rollout's name")
    }

    /// The coordinator's view of a rollout; `None` while it does not answer.
    pub fn rollout(&self, id: &RolloutId) -> Option<RolloutView> {
        let view = self.runtime.block_on(self.client.rollout(id)).ok()?.view;
        assert_eq!(view.counts.total(), view.targets, "the four counts add up");
        Some(view)
    }

    /// The coordinator's view of the nodes; empty while it does not answer.
    pub fn node_views(&self) -> Vec<NodeView> {
        self.runtime
            .block_on(self.client.nodes())
            .unwrap_or_default()
    }

    /// What a running node says of itself: `tidegate-node status --json`; `None` while it does not answer.
    pub fn node_report(&self, number: usize) -> Option<serde_json::Value> {
        let dir = &self.nodes[number].dir;
        self.runtime.block_on(node::driver::status::read(dir)).ok()
    }

    /// What `tidegate-node why` says; nothing while the node does not answer.
    pub fn why(&self, number: usize) -> String {
        let dir = text(&self.nodes[number].dir);
        let said = run("tidegate-node", &["why", "--dir", dir]).stdout;
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The last lines of every log, for a test that fails.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        let Ok(entries) = std::fs::read_dir(self.path("logs")) else {
            return all;
        };
        for entry in entries.flatten() {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            all += &format!(
                "--- {}\n{}\n",
                entry.path().display(),
                lines[lines.len().saturating_sub(15)..].join("\n")
            );
        }
        all
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// When it does not hold in time; the logs say why.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&World) -> bool) {
        let since = Instant::now();
        while !condition(self) {
            assert!(
                since.elapsed() < PATIENCE,
                "waited in vain: {what}\n{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Where a node has `app` installed, as its `current` link says.
    pub fn current(&self, number: usize) -> PathBuf {
        self.nodes[number].dir.join("install/app/current")
    }

    /// The version that a node's `current` names.
    pub fn installed_version(&self, number: usize) -> Option<String> {
        let target = std::fs::read_link(self.current(number)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for number in 0..self.nodes.len() {
            self.kill_node(number);
        }
        // A fresh coordinator adopts an origin that outlived another, so that it is ended with it.
        if self.coordinator.is_none() && !std::thread::panicking() {
            self.start_coordinator();
        }
        if self.coordinator.is_some() {
            self.stop_coordinator();
        }
    }
}

fn kill(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// A path as text.
///
/// # Panics
/// When it is not UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
