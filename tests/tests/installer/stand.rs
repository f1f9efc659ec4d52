//! An installer, and whoever took over the node that it serves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node::config::{ListenAsked, NodeConfig, Role};
use node::content::build::{BuildOptions, Built, build};
use node_core::contract::{Failure, Step, StepOutcome};
use node_core::handover::{Ask, Errand, Said};
use protocol::fixtures::{self, Fleet};
use protocol::manifest::{CarrierKind, ReleaseManifest};
use protocol::orders::Order;
use protocol::plan::RolloutPlan;
use protocol::trust::Statement;
use protocol::{Time, Verified};
use tidegate_tests::pair::Pair;
use tidegate_tests::trees;
use tokio::net::UnixStream;

/// A node's directory whose owner is hostile, and its installer.
pub struct Stand {
    pub dir: tempfile::TempDir,
    pub fleet: Fleet,
    pub pair: Pair,
    pub runtime: tokio::runtime::Runtime,
}

/// All documents for one release.
pub struct Documents {
    pub release: Verified<ReleaseManifest>,
    pub plan: Verified<RolloutPlan>,
    pub lease: Verified<Order>,
}

pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after");
    Time(since.as_millis() as u64)
}

impl Stand {
    pub fn new() -> Stand {
        let dir = tempfile::Builder::new().prefix("tidegate-test-").tempdir();
        let dir = dir.expect("a temporary directory");
        let fleet = Fleet::new(1);
        let node_dir = dir.path().join("node");
        std::fs::create_dir_all(node_dir.join("store/blobs")).expect("made");
        let config = NodeConfig {
            spec_version: 1,
            fleet: fleet.id(),
            node: fixtures::node(1),
            role: Role::Endpoint,
            hostname: "box".into(),
            labels: Vec::new(),
            site: None,
            listen: ListenAsked::default().settle().expect("free ports"),
            coordinators: Vec::new(),
            origins: Vec::new(),
            epoch: 0,
            enrolled: now(),
            zone: None,
            metered: None,
            ring: None,
            criticality: None,
            notify: Vec::new(),
            restart: Vec::new(),
            installer: None,
            agent: None,
            dscp: Default::default(),
            machine: None,
        };
        config.store(&node_dir).expect("written");
        let own = rustix::process::geteuid().as_raw();
        let pair = Pair::of(&node_dir, dir.path(), own);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let mut stand = Stand {
            dir,
            fleet,
            pair,
            runtime,
        };
        stand.start();
        stand
    }

    pub fn start(&mut self) {
        let _ = std::fs::remove_file(&self.pair.socket);
        self.pair.start(&self.dir.path().join("log"));
        let since = std::time::Instant::now();
        while !self.pair.socket.exists() {
            let log = std::fs::read_to_string(self.dir.path().join("log"));
            let waited = since.elapsed() < Duration::from_secs(240);
            assert!(waited, "the installer does not listen: {log:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The path of a blob of a release, as the node's side keeps it.
    pub fn blob(&self, root: protocol::Hash) -> PathBuf {
        let name = format!("store/blobs/{root}.data");
        self.pair.node_dir.join(name)
    }

    pub fn tree(&self, n: u64) -> PathBuf {
        self.dir.path().join(format!("tree-{n}"))
    }

    /// A release whose content lies in the node's store, and documents that let it be installed.
    pub fn documents(&self, n: u64) -> Documents {
        let tree = self.tree(n);
        trees::make(&tree, n, 300 << 10);
        let out = self.dir.path().join(format!("build-{n}"));
        let built = build(&tree, &out, BuildOptions::default()).expect("built");
        for (blob, path) in built.blobs(&out) {
            std::fs::copy(path, self.blob(blob.root)).expect("copied");
        }
        let release = self.release(n, &built);
        self.approved(&release)
    }

    pub fn release(&self, n: u64, built: &Built) -> ReleaseManifest {
        let mut release = self.fleet.release("app", &n.to_string(), n);
        let artifact = &mut release.artifacts[0];
        (artifact.index, artifact.pack) = (built.index, built.pack);
        artifact.carriers = built.carriers();
        assert!(
            artifact
                .carriers
                .iter()
                .all(|c| c.kind == CarrierKind::Full)
        );
        release
    }

    pub fn approved(&self, release: &ReleaseManifest) -> Documents {
        let release = self.fleet.verified(release);
        let id = format!("r{}", release.release_counter);
        let mut plan = self.fleet.plan(&id, &release, vec![fixtures::node(1)]);
        for wave in &mut plan.waves {
            wave.not_before = Time(0);
        }
        let plan = self.fleet.verified(&plan);
        let lease = self.lease(&plan, release.release_counter, now());
        Documents {
            release,
            plan,
            lease,
        }
    }

    pub fn lease(&self, plan: &Verified<RolloutPlan>, n: u64, issued: Time) -> Verified<Order> {
        let body = self.fleet.lease(plan, 0);
        let order = self.fleet.order(n, body);
        self.fleet.verified(&Order {
            issued,
            ..(*order).clone()
        })
    }

    pub fn ask(&self, ask: &Ask) -> std::io::Result<Said> {
        self.runtime.block_on(async {
            let mut stream = UnixStream::connect(&self.pair.socket).await?;
            let greeting: Said = node::handover::read(&mut stream).await?;
            if greeting == Said::Root(0) && !matches!(ask, Ask::Root(_)) {
                let root = self.fleet.trust().root().envelope().to_json();
                node::handover::write(&mut stream, &Ask::Root(root)).await?;
                let said: Said = node::handover::read(&mut stream).await?;
                assert_eq!(said, Said::Root(1));
            }
            node::handover::write(&mut stream, ask).await?;
            node::handover::read(&mut stream).await
        })
    }

    pub fn step(&self, errand: Errand) -> Said {
        let ask = Ask::Step(Box::new(errand));
        self.ask(&ask).expect("the installer answers")
    }

    pub fn refused(&self, errand: Errand, why: &str) {
        match self.step(errand) {
            Said::Refused(Failure { reason, .. })
            | Said::Ended(StepOutcome::Failed(Failure { reason, .. })) => {
                assert!(reason.contains(why), "{why:?} is missing in: {reason}");
            }
            said => panic!("{why}: {said:?}"),
        }
    }

    pub fn done(&self, errand: Errand) {
        assert_eq!(self.step(errand), Said::Ended(StepOutcome::Done));
    }

    pub fn install(&self, documents: &Documents, before: Option<&Documents>) {
        for step in [Step::WriteSlot, Step::Switch, Step::CleanUp] {
            let before = before.map(|before| json(&before.release));
            self.done(Errand {
                before,
                ..documents.errand(step)
            });
        }
    }

    /// Everything that is installed.
    pub fn installed(&self) -> BTreeMap<String, trees::Thing> {
        let install = self.pair.dir.join("install");
        match install.exists() {
            true => trees::read(&install),
            false => BTreeMap::new(),
        }
    }
}

pub fn json<T: Statement>(statement: &Verified<T>) -> Vec<u8> {
    statement.envelope().to_json()
}

impl Documents {
    pub fn errand(&self, step: Step) -> Errand {
        Errand {
            step,
            release: json(&self.release),
            plan: Some(json(&self.plan)),
            lease: Some(json(&self.lease)),
            recall: None,
            before: None,
            site: None,
        }
    }
}
