//! A node without privileges and the process that installs for it: they install together, survive the death
//! of either, and whoever took over the node's side gets nothing installed that was not signed.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node::config::{ListenAsked, NodeConfig, Role};
use node::content::build::{BuildOptions, Built, build};
use node_core::contract::{Failure, Step, StepOutcome};
use node_core::handover::{Ask, Errand, Said};
use protocol::envelope::Envelope;
use protocol::fixtures::{self, EXPIRES, Fleet};
use protocol::manifest::{CarrierKind, Hook, ReleaseManifest};
use protocol::orders::Order;
use protocol::plan::RolloutPlan;
use protocol::trust::{Role as Signer, Statement};
use protocol::{Span, Time, Verified};
use tidegate_tests::pair::{Pair, split};
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_release_installs_through_the_pair_and_either_may_die() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 1,
        wan: "200mbit",
    });
    let mut pair = split(&mut world, 0);
    let log = world.path("logs").join("installer.log");
    let tree = world.path("1.0");
    trees::make(&tree, 1, 1 << 20);
    let health = ["--health-check", "./run.sh", "--health-soak", "100ms"];
    world.publish(&tree, "1.0", &health);
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("the node waits for its installer and says so", |w| {
        w.why(0).contains("the privileged installer at ")
    });
    pair.start(&log);
    world.wait_for("the release is installed", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    assert!(!world.why(0).contains("the privileged installer at "));
    assert_eq!(pair.installed_version().as_deref(), Some("1.0"));
    trees::assert_same(&tree, &pair.current().join("."));
    assert_eq!(
        world.installed_version(0),
        None,
        "the node installs nothing"
    );
    if let Some(user) = world.nodes[0].user {
        let made = std::fs::metadata(pair.current().join("run.sh")).expect("installed");
        assert_ne!(made.uid(), user, "the node owns nothing of it");
    }

    // The installer dies in the pre hook of the second, and the node in that of the second attempt.
    let ran = world.path("ran");
    let hook = format!("echo $TIDEGATE_ATTEMPT >> {}; sleep 2", text(&ran));
    let tree = world.path("2.0");
    trees::make(&tree, 2, 1 << 20);
    world.publish(
        &tree,
        "2.0",
        &[&health[..], &["--pre-hook", &hook]].concat(),
    );
    let id = world.roll_out("2.0", &["rest"]);
    world.wait_for("the hook runs", |_| lines(&ran).len() == 1);
    pair.kill();
    pair.start(&log);
    world.wait_for("the hook runs in another attempt", |_| {
        lines(&ran).len() == 2
    });
    world.kill_node(0);
    world.start_node(0);
    world.wait_for("the release is installed", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    assert_eq!(lines(&ran), ["1", "2", "3"], "once in each attempt");
    assert_eq!(pair.installed_version().as_deref(), Some("2.0"));
    trees::assert_same(&tree, &pair.current().join("."));

    for operator in ["op1", "op2", "op3"] {
        let key = world.key(operator);
        let recall = ["rollout", "recall", "app-2.0", "--key", &key];
        world.tidegate(&[&recall[..], &["--reason", "a regression"]].concat());
    }
    world.wait_for("the release is taken back", |_| {
        pair.installed_version().as_deref() == Some("1.0")
    });
    trees::assert_same(&world.path("1.0"), &pair.current().join("."));
}

/// A node's directory whose owner is hostile, and its installer.
struct Stand {
    dir: tempfile::TempDir,
    fleet: Fleet,
    pair: Pair,
    runtime: tokio::runtime::Runtime,
}

/// All documents for one release.
struct Documents {
    release: Verified<ReleaseManifest>,
    plan: Verified<RolloutPlan>,
    lease: Verified<Order>,
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after");
    Time(since.as_millis() as u64)
}

impl Stand {
    fn new() -> Stand {
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

    fn start(&mut self) {
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
    fn blob(&self, root: protocol::Hash) -> PathBuf {
        let name = format!("store/blobs/{root}.data");
        self.pair.node_dir.join(name)
    }

    fn tree(&self, n: u64) -> PathBuf {
        self.dir.path().join(format!("tree-{n}"))
    }

    /// A release whose content lies in the node's store, and documents that let it be installed.
    fn documents(&self, n: u64) -> Documents {
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

    fn release(&self, n: u64, built: &Built) -> ReleaseManifest {
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

    fn approved(&self, release: &ReleaseManifest) -> Documents {
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

    fn lease(&self, plan: &Verified<RolloutPlan>, n: u64, issued: Time) -> Verified<Order> {
        let body = self.fleet.lease(plan, 0);
        let order = self.fleet.order(n, body);
        self.fleet.verified(&Order {
            issued,
            ..(*order).clone()
        })
    }

    fn ask(&self, ask: &Ask) -> std::io::Result<Said> {
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

    fn step(&self, errand: Errand) -> Said {
        let ask = Ask::Step(Box::new(errand));
        self.ask(&ask).expect("the installer answers")
    }

    fn refused(&self, errand: Errand, why: &str) {
        match self.step(errand) {
            Said::Refused(Failure { reason, .. })
            | Said::Ended(StepOutcome::Failed(Failure { reason, .. })) => {
                assert!(reason.contains(why), "{why:?} is missing in: {reason}");
            }
            said => panic!("{why}: {said:?}"),
        }
    }

    fn done(&self, errand: Errand) {
        assert_eq!(self.step(errand), Said::Ended(StepOutcome::Done));
    }

    fn install(&self, documents: &Documents, before: Option<&Documents>) {
        for step in [Step::WriteSlot, Step::Switch, Step::CleanUp] {
            let before = before.map(|before| json(&before.release));
            self.done(Errand {
                before,
                ..documents.errand(step)
            });
        }
    }

    /// Everything that is installed.
    fn installed(&self) -> BTreeMap<String, trees::Thing> {
        let install = self.pair.dir.join("install");
        match install.exists() {
            true => trees::read(&install),
            false => BTreeMap::new(),
        }
    }
}

fn json<T: Statement>(statement: &Verified<T>) -> Vec<u8> {
    statement.envelope().to_json()
}

impl Documents {
    fn errand(&self, step: Step) -> Errand {
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

/// What fewer than the threshold signed.
fn signed_by_one<T: Statement>(fleet: &Fleet, statement: &T) -> Vec<u8> {
    let mut envelope: Envelope = statement.to_envelope();
    // The first operator proposes, so that key would not count at all.
    envelope.sign(fleet.keys(T::ROLE).last().expect("a key"));
    envelope.to_json()
}

#[test]
fn a_stolen_node_gets_nothing_written_that_the_thresholds_did_not_sign() {
    let stand = Stand::new();
    let good = stand.documents(1);
    let write = || good.errand(Step::WriteSlot);

    let root = signed_by_one(&Fleet::new(2), &(*good.release).clone());
    let said = stand.ask(&Ask::Root(root)).expect("an answer");
    assert!(matches!(said, Said::Refused(_)), "{said:?}");
    let other = Fleet::new(2).trust().root().envelope().to_json();
    let said = stand.ask(&Ask::Root(other)).expect("an answer");
    assert!(matches!(said, Said::Refused(f) if f.reason.contains("root digest")));

    let mut evil = (*good.release).clone();
    evil.hooks.pre = Some(Hook {
        argv: vec!["touch".into(), text(&stand.dir.path().join("pwned")).into()],
        timeout: Span::from_secs(5),
    });
    let release = evil.to_envelope().to_json();
    stand.refused(Errand { release, ..write() }, "signature");
    let release = signed_by_one(&stand.fleet, &evil);
    stand.refused(Errand { release, ..write() }, "threshold");
    let plan = Some(signed_by_one(&stand.fleet, &*good.plan));
    stand.refused(Errand { plan, ..write() }, "threshold");
    stand.refused(
        Errand {
            plan: None,
            ..write()
        },
        "without a plan",
    );
    // Its own release key signs: the plan names another release.
    let release = stand.fleet.sign(&evil).to_json();
    stand.refused(Errand { release, ..write() }, "wrong_target");
    let mut others = (*good.plan).clone();
    others.targets.exclusions = vec![fixtures::node(1)];
    let plan = Some(stand.fleet.sign(&others).to_json());
    stand.refused(Errand { plan, ..write() }, "does not name this node");
    let mut past = (*good.plan).clone();
    past.not_after = Time(now().0 - 1);
    let plan = Some(stand.fleet.sign(&past).to_json());
    stand.refused(Errand { plan, ..write() }, "expired");
    assert_eq!(stand.fleet.keys(Signer::Releases).len(), 2);
    let tricky = stand.fleet.sign(&*good.plan).to_json();
    stand.refused(
        Errand {
            release: tricky,
            ..write()
        },
        "wrong_target",
    );

    // Bytes that are not what was signed, in every way in which they can lie there.
    let pack = stand.blob(good.release.artifacts[0].pack.root);
    let aside = stand.dir.path().join("aside");
    std::fs::rename(&pack, &aside).expect("moved");
    stand.refused(write(), "No such file");
    std::fs::copy(&aside, &pack).expect("copied");
    let file = std::fs::File::options().write(true).open(&pack);
    file.expect("there")
        .write_at(&[0x5a; 3], 1000)
        .expect("written");
    stand.refused(write(), "not what its hash promises");
    std::fs::remove_file(&pack).expect("removed");
    symlink(&aside, &pack).expect("linked");
    stand.refused(write(), "symbolic link");
    std::fs::remove_file(&pack).expect("removed");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pack,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .expect("a pipe");
    stand.refused(write(), "it is not the file");
    std::fs::remove_file(&pack).expect("removed");
    std::fs::rename(&aside, &pack).expect("moved");
    let (blobs, elsewhere) = (pack.parent().expect("above"), stand.dir.path().join("else"));
    std::fs::rename(blobs, &elsewhere).expect("moved");
    symlink(&elsewhere, blobs).expect("linked");
    stand.refused(write(), "Not a directory");
    std::fs::remove_file(blobs).expect("removed");
    std::fs::rename(&elsewhere, blobs).expect("moved");

    assert!(stand.installed().is_empty(), "nothing was written");
    assert!(!stand.dir.path().join("pwned").exists(), "nothing was run");
    let copies = std::fs::read_dir(stand.pair.dir.join("copies/blobs"));
    let copies: Vec<_> = copies.expect("a directory").flatten().collect();
    assert!(copies.is_empty(), "no copy stays: {copies:?}");
    // What was signed is installed all the same, and a change of the bytes behind the copy changes nothing.
    stand.done(write());
    std::fs::write(&pack, b"something else").expect("written");
    stand.done(good.errand(Step::Switch));
    stand.done(good.errand(Step::CleanUp));
    trees::assert_same(&stand.tree(1), &stand.pair.current().join("."));
}

#[test]
fn a_stolen_node_cannot_switch_without_a_lease_go_back_or_repeat() {
    let mut stand = Stand::new();
    let (old, new) = (stand.documents(1), stand.documents(2));
    stand.refused(old.errand(Step::Switch), "does not come next");
    stand.done(old.errand(Step::WriteSlot));
    let lease = None;
    stand.refused(
        Errand {
            lease,
            ..old.errand(Step::Switch)
        },
        "lease",
    );
    let long_ago = stand.lease(&old.plan, 1, Time(now().0 - 3_600_000));
    let lease = Some(json(&long_ago));
    stand.refused(
        Errand {
            lease,
            ..old.errand(Step::Switch)
        },
        "lease",
    );
    let lease = Some(signed_by_one(&Fleet::new(2), &*old.lease));
    stand.refused(
        Errand {
            lease,
            ..old.errand(Step::Switch)
        },
        "lease",
    );
    let lease = Some(json(&new.lease));
    stand.refused(
        Errand {
            lease,
            ..old.errand(Step::Switch)
        },
        "lease",
    );
    assert_eq!(stand.pair.installed_version(), None);
    stand.install(&old, None);
    stand.install(&new, Some(&old));
    let before = stand.installed();
    // Also after a death: what was seen is remembered.
    for _ in ["running", "started again"] {
        stand.refused(old.errand(Step::WriteSlot), "software_rollback");
        stand.refused(new.errand(Step::RollBack), "was not recalled");
        stand.refused(new.errand(Step::PostHook(1)), "does not come next");
        stand.refused(new.errand(Step::Restart), "does not come next");
        assert_eq!(stand.installed(), before, "nothing changed");
        stand.pair.kill();
        stand.start();
    }
    let recall = Some(json(&stand.fleet.recall(&new.plan).1));
    let back = |before| Errand {
        recall: recall.clone(),
        before,
        ..new.errand(Step::RollBack)
    };
    stand.refused(back(None), "was not handed over");
    stand.refused(back(Some(json(&new.release))), "was not handed over");
    stand.done(back(Some(json(&old.release))));
    assert_eq!(stand.pair.installed_version().as_deref(), Some("1"));
    stand.done(back(Some(json(&old.release))));
    trees::assert_same(&stand.tree(1), &stand.pair.current().join("."));
    assert!(EXPIRES > now(), "the documents of this test are over");
}

#[test]
fn whoever_may_not_ask_is_hung_up_on_and_garbage_ends_nothing() {
    let mut stand = Stand::new();
    let good = stand.documents(1);
    for garbage in [&[0xff; 64][..], &[4, 0, 0, 0, 1, 2, 3, 4], b"", b"TGHA"] {
        stand.runtime.block_on(async {
            let stream = UnixStream::connect(&stand.pair.socket).await;
            let mut stream = stream.expect("it listens");
            // It may hang up before all of it was written.
            let _ = stream.write_all(garbage).await;
            drop(stream);
        });
    }
    stand.install(&good, None);
    assert_eq!(stand.pair.installed_version().as_deref(), Some("1"));
    let own = rustix::process::geteuid().as_raw();
    if own != 0 {
        println!("not run by root: no other user's installer can be asked");
        return;
    }
    stand.pair.kill();
    stand.pair.dir = stand.dir.path().join("of-another");
    stand.pair.user = tidegate_tests::pair::NOBODY;
    stand.start();
    let asked = stand.ask(&Ask::Step(Box::new(good.errand(Step::WriteSlot))));
    assert!(asked.is_err(), "{asked:?}");
    assert!(stand.installed().is_empty());
}
