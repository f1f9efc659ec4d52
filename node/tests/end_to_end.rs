//! Whole nodes on loopback, with a coordinator out of a table: what is ordered gets installed, byte
//! for byte, and a sick release takes itself back.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use node::config::{NodeConfig, Role};
use node::content::build::{BuildOptions, Built, build};
use node::driver::status;
use node::run::{RunError, RunOptions, run_until};
use protocol::fixtures;
use protocol::manifest::{Artifact, HealthCheck, ReleaseManifest};
use protocol::orders::OrderBody;
use protocol::plan::RolloutPlan;
use protocol::status::State;
use protocol::topology::Topology;
use protocol::wire::Contact;
use protocol::{BlobRef, Hash, NodeId, Span, Verified};
use support::coordinator::{FakeCoordinator, PATIENCE};
use support::{TestFleet, contact};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Starts of a node whose port is taken, and the pause between them.
const STARTS_MAX: u32 = 50;
/// See [`STARTS_MAX`].
const AGAIN: std::time::Duration = std::time::Duration::from_millis(200);

/// A node that runs in this process.
struct Running {
    dir: tempfile::TempDir,
    id: NodeId,
    stop: Option<watch::Sender<()>>,
    task: Option<JoinHandle<Result<(), RunError>>>,
}

impl Running {
    fn new(dir: tempfile::TempDir, id: NodeId) -> Running {
        let mut running = Running {
            dir,
            id,
            stop: None,
            task: None,
        };
        running.start();
        running
    }

    /// In one process the ports and files of the node that was stopped may be held for a moment
    /// longer than its run: it is started again then, as a service would be.
    fn start(&mut self) {
        let (stop, stopped) = watch::channel(());
        let dir = self.dir.path().to_owned();
        self.stop = Some(stop);
        self.task = Some(tokio::spawn(async move {
            for _ in 0..STARTS_MAX {
                let mut stopped = stopped.clone();
                let end = async move {
                    let _ = stopped.changed().await;
                };
                match run_until(&dir, RunOptions::default(), end).await {
                    Err(
                        error @ (RunError::Control(_) | RunError::Data(_) | RunError::Records(_)),
                    ) => {
                        eprintln!("{} starts again: {error}", dir.display());
                        tokio::time::sleep(AGAIN).await;
                    }
                    done => return done,
                }
            }
            run_until(&dir, RunOptions::default(), std::future::pending()).await
        }));
    }

    async fn stop(&mut self) {
        self.stop.take();
        self.task.take().unwrap().await.unwrap().unwrap();
    }

    fn installed(&self) -> PathBuf {
        self.dir.path().join("install/app/current")
    }
}

/// A fleet with an origin and as many nodes in each site; site 1 is `127.1.0.0/16`, and so on.
struct World {
    fleet: Arc<TestFleet>,
    coordinator: FakeCoordinator,
    origin: Running,
    nodes: Vec<Running>,
    orders: u64,
    topology: Verified<Topology>,
}

impl World {
    async fn new(sites: u8, nodes: u8, wan_bytes_per_s: Option<u64>) -> World {
        World::with(sites, nodes, wan_bytes_per_s, false).await
    }

    async fn with(sites: u8, nodes: u8, wan_bytes_per_s: Option<u64>, relay: bool) -> World {
        if std::env::var_os("TIDEGATE_LOG").is_some() {
            let _ = node::cli::log_to_stderr(&std::env::var("TIDEGATE_LOG").unwrap());
        }
        let fleet = Arc::new(TestFleet::new(1));
        let coordinator = FakeCoordinator::start(fleet.clone()).await;
        let dir = tempfile::tempdir().unwrap();
        let key = fixtures::key("origin", 1);
        let up = vec![coordinator.contact()];
        let origin = fleet.enroll(
            dir.path(),
            &key,
            Role::Origin,
            Ipv4Addr::LOCALHOST.into(),
            up.clone(),
            Vec::new(),
        );
        let origins: Vec<Contact> = vec![contact(&origin)];
        let origin = Running::new(dir, origin.node);
        let mut running = Vec::new();
        for (site, n) in (1..=sites).flat_map(|s| (1..=nodes).map(move |n| (s, n))) {
            let dir = tempfile::tempdir().unwrap();
            let key = fixtures::node_key(u64::from(site) * 256 + u64::from(n));
            let listen = Ipv4Addr::new(127, site, 0, n).into();
            let config = fleet.enroll(
                dir.path(),
                &key,
                Role::Endpoint,
                listen,
                up.clone(),
                origins.clone(),
            );
            running.push(Running::new(dir, config.node));
        }
        let mut topology = fleet.fleet.topology(1, sites);
        for site in &mut topology.sites {
            site.wan_down_bytes_per_s = wan_bytes_per_s;
            site.wan_up_bytes_per_s = wan_bytes_per_s;
            site.relay = relay;
        }
        let topology = fleet.fleet.verified(&topology);
        coordinator.publish(topology.envelope());
        let mut world = World {
            fleet,
            coordinator,
            origin,
            nodes: running,
            orders: 0,
            topology,
        };
        world.bulletin(&[]);
        world
    }

    fn bulletin(&mut self, rollouts: &[(&Verified<RolloutPlan>, u64)]) {
        self.bulletin_with(rollouts, 2, None);
    }

    fn bulletin_with(
        &mut self,
        rollouts: &[(&Verified<RolloutPlan>, u64)],
        root_version: u64,
        revocations: Option<Hash>,
    ) {
        let mut bulletin = self.fleet.fleet.bulletin(Some(&self.topology), rollouts);
        bulletin.root_version = root_version;
        bulletin.revocations = revocations;
        bulletin.coordinators = vec![self.coordinator.contact()];
        bulletin.origins = vec![contact(&NodeConfig::load(self.origin.dir.path()).unwrap())];
        self.order(OrderBody::Bulletin(bulletin));
    }

    fn order(&mut self, body: OrderBody) {
        self.orders += 1;
        self.coordinator.order(self.orders, body);
    }

    /// Builds `tree` and hands its blobs to the origin.
    fn release(
        &self,
        tree: &Path,
        version: &str,
        counter: u64,
        health: Option<HealthCheck>,
    ) -> (Built, Verified<ReleaseManifest>) {
        let out = tempfile::tempdir().unwrap();
        let out = out.path().join("built");
        let built = build(tree, &out, BuildOptions::default()).unwrap();
        let incoming = self.origin.dir.path().join("incoming");
        fs::create_dir_all(&incoming).unwrap();
        for (blob, file) in built.blobs(&out) {
            let part = incoming.join("part");
            fs::copy(file, &part).unwrap();
            fs::rename(part, incoming.join(name(blob))).unwrap();
        }
        let manifest = ReleaseManifest {
            artifacts: vec![Artifact {
                os: "any".into(),
                arch: "any".into(),
                index: built.index,
                pack: built.pack,
                carriers: built.carriers(),
                group_log2: protocol::limits::GROUP_LOG2,
                disk_bytes: built.disk_bytes,
            }],
            health_check: health,
            relations: Default::default(),
            ..self.fleet.fleet.release("app", version, counter)
        };
        let release = self.fleet.fleet.verified(&manifest);
        self.coordinator.publish(release.envelope());
        (built, release)
    }

    /// Approves a rollout to everyone and opens all its waves.
    fn roll_out(&mut self, id: &str, release: &Verified<ReleaseManifest>) -> Verified<RolloutPlan> {
        let first = self.nodes.first().map(|n| n.id).into_iter().collect();
        let plan = self
            .fleet
            .fleet
            .verified(&self.fleet.fleet.plan(id, release, first));
        self.coordinator.publish(plan.envelope());
        let last = self.orders + 1;
        let lease = self.fleet.fleet.lease(&plan, 1);
        self.order(lease);
        self.bulletin(&[(&plan, last)]);
        plan
    }

    async fn all_reach(&self, plan: &Verified<RolloutPlan>, state: State) {
        self.coordinator
            .wait_for(&format!("{state:?} of all nodes"), |registers| {
                self.nodes.iter().all(|node| {
                    let register = registers.get(&(node.id, plan.rollout.clone()));
                    register.is_some_and(|status| status.state == state)
                })
            })
            .await;
    }
}

fn name(blob: BlobRef) -> String {
    node::driver::incoming_name(blob)
}

/// A tree with what a release may hold, of some megabytes.
fn payload(into: &Path, salt: u8) {
    let write = |path: &str, mode: u32, bytes: &[u8]| {
        let path = into.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let noise = |n: u32, length: usize| {
        let mut bytes = vec![0; length];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&n.to_le_bytes()).update(&[salt]);
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    };
    write("bin/app", 0o755, &noise(1, 5_000_000));
    write("share/data", 0o644, &noise(2, 1_200_000));
    write("share/text", 0o600, "tide\n".repeat(50_000).as_bytes());
    write("empty", 0o644, b"");
    write("check", 0o755, b"#!/bin/sh\ntest -x bin/app\n");
    fs::create_dir(into.join("hollow")).unwrap();
    std::os::unix::fs::symlink("bin/app", into.join("link")).unwrap();
}

/// Path → what stands there, in words.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let mode = meta.permissions().mode() & 0o777;
            let what = if meta.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else if meta.is_dir() {
                todo.push(path.clone());
                format!("directory {mode:o}")
            } else {
                format!("file {mode:o} {}", blake3::hash(&fs::read(&path).unwrap()))
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), what);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_a_site_install_what_is_ordered_over_one_wan_copy() {
    let mut world = World::new(1, 2, None).await;
    let tree = tempfile::tempdir().unwrap();
    payload(tree.path(), 1);
    let (built, release) = world.release(tree.path(), "1.0", 1, None);
    let plan = world.roll_out("r1", &release);
    world.all_reach(&plan, State::Succeeded).await;
    installed_over_one_copy(&world, tree.path(), &built).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_three_sites_takes_one_copy_over_its_thin_link() {
    let mut world = World::new(3, 3, Some(4 << 20)).await;
    let tree = tempfile::tempdir().unwrap();
    payload(tree.path(), 1);
    let (built, release) = world.release(tree.path(), "1.0", 1, None);
    let plan = world.roll_out("r1", &release);
    world.all_reach(&plan, State::Succeeded).await;
    installed_over_one_copy(&world, tree.path(), &built).await;
}

/// The origin serves about one copy to three sites that relay; sites that do not exchange no byte.
#[tokio::test(flavor = "multi_thread")]
async fn sites_that_relay_take_from_each_other_what_the_origin_gave_once() {
    for relay in [true, false] {
        let mut world = World::with(3, 2, Some(4 << 20), relay).await;
        let tree = tempfile::tempdir().unwrap();
        payload(tree.path(), 1);
        let (built, release) = world.release(tree.path(), "1.0", 1, None);
        let plan = world.roll_out("r1", &release);
        world.all_reach(&plan, State::Succeeded).await;
        installed_over_one_copy(&world, tree.path(), &built).await;
        let (mut from_origin, mut from_siblings, mut at_sockets) = (0, 0, 0);
        for node in &world.nodes {
            let report = status::read(node.dir.path()).await.unwrap();
            let own = &report["snapshot"]["site"];
            for site in report["traffic"]["sites"].as_array().unwrap() {
                let of = |field: &str| site[field].as_u64().unwrap();
                if site["site"].is_null() {
                    from_origin += of("payload_in");
                } else if site["site"] != *own {
                    from_siblings += of("payload_in");
                    at_sockets += of("socket_in") + of("socket_out");
                }
            }
        }
        let copies = from_origin as f64 / (built.travels().length + built.index.length) as f64;
        if relay {
            assert!((0.99..=1.3).contains(&copies), "{copies} from the origin");
            assert!(from_siblings > 0);
        } else {
            assert!((2.97..=3.2).contains(&copies), "{copies} from the origin");
            assert_eq!((from_siblings, at_sockets), (0, 0));
        }
    }
}

/// Every node has the tree, and each site's nodes together took about one copy over the WAN.
async fn installed_over_one_copy(world: &World, tree: &Path, built: &Built) {
    let mut over_wan: BTreeMap<String, u64> = BTreeMap::new();
    for node in &world.nodes {
        assert_eq!(listing(&node.installed()), listing(tree));
        let report = status::read(node.dir.path()).await.unwrap();
        let site = report["snapshot"]["site"].as_str().unwrap().to_owned();
        *over_wan.entry(site).or_default() += report["traffic"]["wan_payload_in"].as_u64().unwrap();
    }
    assert_eq!(over_wan.len(), world.topology.sites.len());
    let one_copy = built.travels().length + built.index.length;
    for (site, bytes) in over_wan {
        assert!(
            bytes >= one_copy && bytes < one_copy * 3 / 2,
            "{site}: {bytes} of {one_copy}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_release_goes_back_by_itself_and_a_restarted_node_knows_where_it_stands() {
    let mut world = World::new(1, 1, None).await;
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    payload(old.path(), 1);
    payload(new.path(), 2);
    fs::write(
        new.path().join("check"),
        b"#!/bin/sh\necho it is sick; exit 3\n",
    )
    .unwrap();
    let health = world.fleet.fleet.health_check(Span::from_millis(200), 0);
    let (_, good) = world.release(old.path(), "1.0", 1, Some(health.clone()));
    let plan = world.roll_out("r1", &good);
    world.all_reach(&plan, State::Succeeded).await;

    world.nodes[0].stop().await;
    assert!(status::read(world.nodes[0].dir.path()).await.is_err());
    world.nodes[0].start();

    let (_, sick) = world.release(new.path(), "2.0", 2, Some(health));
    let plan = world.roll_out("r2", &sick);
    world.all_reach(&plan, State::RolledBack).await;
    let registers = world.coordinator.wait_for("the report", |_| true).await;
    let status = &registers[&(world.nodes[0].id, plan.rollout.clone())];
    assert_eq!(status.exit_code, Some(3));
    assert!(
        status.output_tail.contains("it is sick"),
        "{}",
        status.output_tail
    );
    assert_eq!(listing(&world.nodes[0].installed()), listing(old.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_coordinator_lays_at_the_door_is_checked_before_it_is_kept() {
    let mut world = World::new(1, 0, None).await;
    let incoming = world.origin.dir.path().join("incoming");
    let wrong = incoming.join(name(BlobRef::of(b"other")));
    let right = incoming.join(name(BlobRef::of(b"right")));
    let patience = tokio::time::Instant::now() + PATIENCE;
    let tick = || tokio::time::sleep(std::time::Duration::from_millis(20));
    while !incoming.exists() && tokio::time::Instant::now() < patience {
        tick().await;
    }
    fs::write(incoming.join("part"), b"wrong").unwrap();
    fs::rename(incoming.join("part"), &wrong).unwrap();
    fs::write(incoming.join("part"), b"right").unwrap();
    fs::rename(incoming.join("part"), &right).unwrap();
    let refused = PathBuf::from(format!("{}.refused", wrong.display()));
    while (right.exists() || !refused.exists()) && tokio::time::Instant::now() < patience {
        tick().await;
    }
    assert!(refused.exists() && !wrong.exists() && !right.exists());
    world.origin.stop().await;
    let blobs = node::store::blobs::Blobs::open(&world.origin.dir.path().join("store")).unwrap();
    assert_eq!(blobs.complete(), vec![BlobRef::of(b"right")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_runs_one_node_at_a_time() {
    let world = World::new(1, 0, None).await;
    let dir = world.origin.dir.path();
    let patience = tokio::time::Instant::now() + PATIENCE;
    while status::read(dir).await.is_err() && tokio::time::Instant::now() < patience {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let second = run_until(dir, RunOptions::default(), async {}).await;
    let line = second.unwrap_err().to_string();
    assert!(
        line.contains(&format!("in use by process {}", std::process::id())),
        "{line}"
    );
}

/// A bulletin names the newest root and the newest revocation list; a node fetches both, turns its
/// back on who was revoked, and knows all that again after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_root_and_a_revocation_list_are_fetched_and_kept() {
    let mut world = World::new(1, 2, None).await;
    for version in [3, 4] {
        let first = world.fleet.fleet.trust().root();
        let mut root = (**first).clone();
        root.version = version;
        root.fleet = Some(world.fleet.fleet.id());
        root.issuing_cas = vec![data_encoding::HEXLOWER.encode(world.fleet.ca.certificate())];
        let mut envelope = root.to_envelope();
        let keys = world.fleet.fleet.keys(protocol::trust::Role::Root);
        keys.iter().for_each(|key| envelope.sign(key));
        world.coordinator.publish_root(envelope);
    }
    let members = |n: u64| move |report: &serde_json::Value| report["snapshot"]["members"] == n;
    wait_for_report(world.nodes[0].dir.path(), "a site of two", members(2)).await;
    let serial = support::serial(world.nodes[1].id);
    let list = world.fleet.ca.revoke(&[serial], 1, support::VALID).unwrap();
    world.coordinator.publish_revocations(&list);
    world.bulletin_with(&[], 4, Some(Hash::of(&list)));
    let knows = |report: &serde_json::Value| {
        report["root_version"] == 4 && report["revocations"] == Hash::of(&list).to_string()
    };
    for dir in [world.origin.dir.path(), world.nodes[0].dir.path()] {
        wait_for_report(dir, "root and list", knows).await;
    }
    wait_for_report(world.nodes[0].dir.path(), "a site of one", members(1)).await;
    world.nodes[0].stop().await;
    world.nodes[0].start();
    wait_for_report(world.nodes[0].dir.path(), "root and list again", knows).await;
}

async fn wait_for_report(dir: &Path, what: &str, wanted: impl Fn(&serde_json::Value) -> bool) {
    let patience = tokio::time::Instant::now() + PATIENCE;
    let mut last = None;
    while tokio::time::Instant::now() < patience {
        last = status::read(dir).await.ok();
        if last.as_ref().is_some_and(&wanted) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{what} never came to {}: {last:#?}", dir.display());
}
