//! The agent's own update with real processes: a keeper, the versions that it runs, and a coordinator
//! out of a table.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use node::config::{NodeConfig, Role};
use node::content::build::{BuildOptions, build};
use node::driver::status;
use node::store::blobs::Blobs;
use protocol::fixtures;
use protocol::manifest::ReleaseManifest;
use protocol::orders::OrderBody;
use protocol::plan::RolloutPlan;
use protocol::status::State;
use protocol::topology::Topology;
use protocol::{NodeId, Verified};
use support::TestFleet;
use support::coordinator::FakeCoordinator;

/// Well within a lease's life.
const RENEWED_EVERY: Duration = Duration::from_secs(15);

/// One machine with its agents, and who orders them.
struct World {
    fleet: Arc<TestFleet>,
    coordinator: FakeCoordinator,
    topology: Verified<Topology>,
    orders: Arc<AtomicU64>,
    rollouts: Vec<(Verified<RolloutPlan>, u64)>,
    dir: tempfile::TempDir,
    id: NodeId,
    process: Option<Child>,
}

impl World {
    /// A machine that was enrolled and runs its first agent.
    async fn new() -> World {
        let fleet = Arc::new(TestFleet::new(1));
        let coordinator = FakeCoordinator::start(fleet.clone()).await;
        let dir = tempfile::tempdir().unwrap();
        let config = fleet.enroll(
            dir.path(),
            &fixtures::node_key(1),
            Role::Endpoint,
            [127, 1, 0, 1].into(),
            vec![coordinator.contact()],
            Vec::new(),
        );
        let config = NodeConfig {
            agent: Some("agent".parse().unwrap()),
            ..config
        };
        let path = NodeConfig::path(dir.path());
        fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
        let topology = fleet.fleet.verified(&fleet.fleet.topology(1, 1));
        coordinator.publish(topology.envelope());
        World {
            fleet,
            coordinator,
            topology,
            orders: Arc::default(),
            rollouts: Vec::new(),
            id: config.node,
            dir,
            process: None,
        }
    }

    fn start(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let keeper = Command::new(env!("CARGO_BIN_EXE_tidegate-node"))
            .args(["run", "--dir"])
            .arg(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(keeper.unwrap());
    }

    /// With SIGKILL; what the keeper started dies with it.
    fn kill(&mut self) {
        if let Some(mut keeper) = self.process.take() {
            keeper.kill().unwrap();
            keeper.wait().unwrap();
        }
    }

    /// A release of the agent whose program is a script of this line. Its blobs are put into the store of
    /// the node, which does not run.
    fn release(&mut self, version: &str, counter: u64, line: &str) -> Verified<ReleaseManifest> {
        let tree = self.dir.path().join("tree");
        fs::create_dir_all(&tree).unwrap();
        let program = tree.join("tidegate-node");
        fs::write(&program, format!("#!/bin/sh\n# {version}\n{line}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let out = self.dir.path().join("built");
        let built = build(&tree, &out, BuildOptions { level: 1 }).unwrap();
        let blobs = Blobs::open(&self.dir.path().join("store")).unwrap();
        for (blob, file) in built.blobs(&out) {
            blobs.import_expected(&file, blob).unwrap();
        }
        let fleet = &self.fleet.fleet;
        let mut manifest = fleet.release("agent", version, counter);
        let artifact = &mut manifest.artifacts[0];
        (artifact.index, artifact.pack) = (built.index, built.pack);
        artifact.carriers = built.carriers();
        artifact.disk_bytes = built.disk_bytes;
        let release = fleet.verified(&manifest);
        self.coordinator.publish(release.envelope());
        release
    }

    /// Orders a release, and renews its lease for as long as the test runs.
    fn roll_out(&mut self, release: &Verified<ReleaseManifest>) -> Verified<RolloutPlan> {
        let fleet = &self.fleet.fleet;
        let id = format!("r{}", release.release_counter);
        let plan = fleet.verified(&fleet.plan(&id, release, vec![self.id]));
        self.coordinator.publish(plan.envelope());
        let lease = fleet.lease(&plan, 0);
        let number = self.orders.fetch_add(1, Ordering::SeqCst) + 1;
        self.coordinator.order(number, lease.clone());
        self.rollouts.push((plan.clone(), number));
        let named: Vec<_> = self.rollouts.iter().map(|(p, n)| (p, *n)).collect();
        let mut bulletin = fleet.bulletin(Some(&self.topology), &named);
        bulletin.root_version = 2;
        bulletin.coordinators = vec![self.coordinator.contact()];
        bulletin.origins = Vec::new();
        let number = self.orders.fetch_add(1, Ordering::SeqCst) + 1;
        self.coordinator
            .order(number, OrderBody::Bulletin(bulletin));
        let (coordinator, orders) = (self.coordinator.clone(), self.orders.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWED_EVERY).await;
                let number = orders.fetch_add(1, Ordering::SeqCst) + 1;
                coordinator.order(number, lease.clone());
            }
        });
        plan
    }

    async fn reaches(&self, plan: &Verified<RolloutPlan>, state: State) {
        let register = (self.id, plan.rollout.clone());
        let what = format!("{state:?} of {}", plan.rollout);
        let heard = self.coordinator.wait_for(&what, |registers| {
            let status = registers.get(&register);
            status.is_some_and(|status| status.state == state)
        });
        heard.await;
    }

    /// Waits until this version of the agent answers on the node's socket.
    async fn runs(&self, version: &str) {
        for _ in 0..1_200 {
            let report = status::read(self.dir.path()).await;
            if report.is_ok_and(|report| report["agent"] == version) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = fs::read_to_string(self.dir.path().join("log"));
        panic!("{version} does not answer: {}", log.unwrap_or_default());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_kept_once_it_reports_and_put_back_if_it_does_not_come_up() {
    let mut world = World::new().await;
    let works = format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_tidegate-node"));
    let first = world.release("1.1", 1, &works);
    let dead = world.release("1.2", 2, "exit 7");
    let last = world.release("1.3", 3, &works);

    world.start();
    world.runs("").await;
    let plan = world.roll_out(&first);
    world.reaches(&plan, State::Succeeded).await;
    world.runs("1.1").await;

    let plan = world.roll_out(&dead);
    world.reaches(&plan, State::RolledBack).await;
    world.runs("1.1").await;

    let plan = world.roll_out(&last);
    // A version on trial has five starts, of which its switch takes one.
    for round in 0..3 {
        // The moment is the workload: anywhere in switch, restart and proof.
        tokio::time::sleep(Duration::from_millis(300 + 400 * round)).await;
        world.kill();
        world.start();
    }
    world.reaches(&plan, State::Succeeded).await;
    world.runs("1.3").await;
}
