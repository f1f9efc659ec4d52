//! Rows about releases at real nodes: what is old, stale, for another machine, or cut off in the middle.

use std::path::PathBuf;

use coordinator_core::contract::RolloutState;
use protocol::{BlobRef, RolloutId};
use tidegate_tests::programs::success;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

use tidegate_tests::member::blobs_of;

fn site_of_two() -> World {
    World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 2,
        wan: "200mbit",
    })
}

fn publish(world: &World, version: &str, seed: u64, more: &[&str]) {
    let tree = world.path(version);
    trees::make(&tree, seed, 1 << 18);
    world.publish(&tree, version, more);
}

fn wait_applied(world: &World, id: &RolloutId, nodes: u32) {
    world.wait_for("it is applied", |w| {
        w.rollout(id).is_some_and(|v| v.counts.applied == nodes)
    });
}

fn log(world: &World, node: usize) -> String {
    std::fs::read_to_string(world.path(&format!("logs/node-{node}.log"))).unwrap_or_default()
}

#[test]
fn attack_04_rollback_of_software() {
    let world = site_of_two();
    publish(&world, "1.0", 4, &[]);
    publish(&world, "2.0", 5, &[]);
    let id = world.roll_out("2.0", &["rest"]);
    wait_applied(&world, &id, 2);
    // Older, validly signed, approved: it needs a recall, not a rollout.
    world.roll_out("1.0", &["rest"]);
    world.wait_for("both refuse it by name", |w| {
        (0..2).all(|node| log(w, node).contains("software_rollback"))
    });
    for node in 0..2 {
        assert_eq!(world.installed_version(node).as_deref(), Some("2.0"));
    }
    publish(&world, "3.0", 6, &[]);
    let id = world.roll_out("3.0", &["rest"]);
    wait_applied(&world, &id, 2);
}

/// The release's last day comes between its approval and its start.
#[test]
fn attack_06_freeze() {
    let world = site_of_two();
    let tree = world.path("1.0");
    trees::make(&tree, 6, 1 << 18);
    let out = world.path("stale");
    let build = [
        "release",
        "build",
        text(&tree),
        "--product",
        "app",
        "--version",
        "1.0",
    ];
    success("tidegate", &[&build[..], &["--out", text(&out)]].concat());
    let root = world.home().join("root.json");
    let key = world.key("releases");
    let sign = [
        "release",
        "sign",
        text(&out),
        "--key",
        &key,
        "--root",
        text(&root),
    ];
    success("tidegate", &[&sign[..], &["--valid", "20s"]].concat());
    let since = std::time::Instant::now();
    world.tidegate(&["release", "publish", text(&out)]);
    let id = world.propose("1.0", &["rest"]);
    for operator in ["op2", "op3"] {
        let key = world.key(operator);
        world.tidegate(&["rollout", "approve", id.as_str(), "--key", &key]);
    }
    // Its end is the workload here.
    let end = std::time::Duration::from_secs(21);
    std::thread::sleep(end.saturating_sub(since.elapsed()));
    world.tidegate(&["rollout", "start", id.as_str()]);
    world.wait_for("both say since when and why they wait", |w| {
        let waits = |node| {
            let report = w.node_report(node);
            report.is_some_and(|r| {
                r["snapshot"]
                    .to_string()
                    .contains("the release has expired")
            })
        };
        waits(0) && waits(1)
    });
    for node in 0..2 {
        assert_eq!(world.installed_version(node), None);
    }
    world.tidegate(&["rollout", "halt", id.as_str()]);
    publish(&world, "1.1", 7, &[]);
    let id = world.roll_out("1.1", &["rest"]);
    wait_applied(&world, &id, 2);
}

#[test]
fn attack_08_release_for_another_machine() {
    let world = site_of_two();
    publish(&world, "1.0", 8, &["--arch", "m68k"]);
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("nobody is a target of it any more", |w| {
        w.rollout(&id)
            .is_some_and(|v| v.targets == 0 && v.counts.total() == 0)
    });
    for node in 0..2 {
        assert_eq!(world.installed_version(node), None);
    }
}

/// A node is cut off while the lease for its wave lies with its neighbour; the coordinator is gone, so a
/// halt could never reach it. When it comes back after the lease's end it starts nothing.
#[test]
fn attack_21_halt_suppressed_by_a_partition() {
    let mut world = site_of_two();
    publish(&world, "1.0", 21, &[]);
    let key = world.key("op1");
    let propose = [
        "rollout", "propose", "app@1.0", "--id", "r", "--key", &key, "--preset", "fast",
    ];
    let shape = [
        "--soak", "6s", "--lease", "2s", "--wave", "count:1", "--wave", "rest",
    ];
    world.tidegate(&[&propose[..], &shape[..]].concat());
    for operator in ["op2", "op3"] {
        let key = world.key(operator);
        world.tidegate(&["rollout", "approve", "r", "--key", &key]);
    }
    world.tidegate(&["rollout", "start", "r"]);
    let id: RolloutId = "r".parse().expect("an id");
    wait_applied(&world, &id, 1);
    let first = (0..2).find(|node| world.installed_version(*node).is_some());
    let other = 1 - first.expect("one has it");
    world.stop_node(other);
    world.wait_for("the second wave opens", |w| {
        w.rollout(&id)
            .is_some_and(|v| v.waves[1].opened_at.is_some())
    });
    world.kill_coordinator();
    // Two lives of the lease: the end that its order names.
    std::thread::sleep(std::time::Duration::from_secs(5));
    world.continue_node(other);
    world.wait_for("it says that the lease is over", |w| {
        let report = w.node_report(other);
        report.is_some_and(|r| r["snapshot"].to_string().contains("lease"))
    });
    assert_eq!(world.installed_version(other), None, "no new start");
    world.start_coordinator();
    wait_applied(&world, &id, 2);
}

#[test]
fn attack_33_kill_at_any_step() {
    let mut world = site_of_two();
    publish(&world, "1.0", 33, &[]);
    let id = world.roll_out("1.0", &["rest"]);
    wait_applied(&world, &id, 2);
    let health = ["--health-check", "./run.sh", "--health-soak", "300ms"];
    publish(&world, "2.0", 34, &health);
    let id = world.roll_out("2.0", &["rest"]);
    for step in 0..12 {
        // The moment is the workload here.
        std::thread::sleep(std::time::Duration::from_millis(60 * step % 250));
        for node in 0..2 {
            world.kill_node(node);
            let version = world.installed_version(node);
            let whole = version
                .as_deref()
                .is_some_and(|v| ["1.0", "2.0"].contains(&v));
            assert!(whole, "step {step}: {version:?}");
            let tree = world.path(version.as_deref().unwrap_or_default());
            trees::assert_same(&tree, &world.current(node).join("."));
            world.start_node(node);
        }
    }
    world.wait_for("both end right", |w| {
        w.rollout(&id)
            .is_some_and(|v| v.state == RolloutState::Finished && v.counts.applied == 2)
    });
}

/// A release is a set of blobs. One that is nowhere to be had keeps all of it out: no half of it is
/// ever at the place of the whole.
#[test]
fn attack_18_one_component_of_a_set_missing() {
    let mut world = site_of_two();
    publish(&world, "1.0", 18, &[]);
    let id = world.roll_out("1.0", &["rest"]);
    wait_applied(&world, &id, 2);
    for (version, seed, missing) in [("2.0", 19, "index"), ("3.0", 20, "content")] {
        publish(&world, version, seed, &[]);
        let before = world.installed_version(0);
        let all = blobs_of(&world.path(&format!("build-app-{version}"))).expect("a build");
        let gone = match missing {
            "index" => &all[..1],
            _ => &all[1..],
        };
        lose(&mut world, gone);
        let id = world.roll_out(version, &["rest"]);
        let told = |w: &World, state: &[&str]| {
            let said = serde_json::to_value(w.node_views()).expect("plain data");
            let said = said.as_array().cloned().unwrap_or_default();
            said.iter()
                .filter_map(|node| node["statuses"].as_array())
                .filter(|statuses| {
                    statuses.iter().any(|status| {
                        status["rollout"] == id.as_str()
                            && state.iter().any(|state| status["state"] == *state)
                    })
                })
                .count()
        };
        world.wait_for("both are at it", |w| {
            told(w, &["Received", "Downloading"]) == 2
        });
        for node in 0..2 {
            assert_eq!(world.installed_version(node), before, "without {missing}");
            let place = world.nodes[node].dir.join("install/app/versions");
            assert!(!place.join(version).exists(), "nothing of it: {missing}");
        }
        bring_back(&world, gone);
        wait_applied(&world, &id, 2);
        for node in 0..2 {
            trees::assert_same(&world.path(version), &world.current(node).join("."));
        }
    }
}

/// Of two products one needs the other, whose content is nowhere to be had: neither is installed, and both
/// are once it is back.
#[test]
fn attack_18_one_product_of_a_set_missing() {
    let mut world = site_of_two();
    let tree = world.path("runtime");
    trees::make(&tree, 21, 1 << 18);
    world.publish_as("runtime", &tree, "1.0", &[]);
    publish(&world, "1.0", 22, &["--depends-on", "runtime>=1.0"]);
    let gone = blobs_of(&world.path("build-runtime-1.0")).expect("a build");
    lose(&mut world, &gone[1..]);
    let runtime = world.approved("runtime", "runtime@1.0", &["rest"], &[]);
    world.tidegate(&["rollout", "start", runtime.as_str()]);
    let app = world.roll_out("1.0", &["rest"]);
    world.wait_for("each waits for what it needs", |w| {
        (0..2).all(|node| w.why(node).contains("it needs runtime>=1.0"))
    });
    for node in 0..2 {
        assert_eq!(world.installed_version(node), None);
        assert!(
            !world.nodes[node]
                .dir
                .join("install/runtime/current")
                .exists()
        );
    }
    bring_back(&world, &gone[1..]);
    wait_applied(&world, &runtime, 2);
    wait_applied(&world, &app, 2);
    for node in 0..2 {
        trees::assert_same(&world.path("1.0"), &world.current(node).join("."));
    }
}

fn aside(world: &World, blob: &BlobRef) -> PathBuf {
    world.path(&format!("aside-{}", blob.root))
}

/// Blobs are lost where everybody would take them from.
fn lose(world: &mut World, blobs: &[BlobRef]) {
    world.wait_for("the origin has them", |w| {
        blobs.iter().all(|blob| at_origin(w, blob).exists())
    });
    world.stop_coordinator();
    for blob in blobs {
        std::fs::rename(at_origin(world, blob), aside(world, blob)).expect("moved");
    }
    world.start_coordinator();
}

fn bring_back(world: &World, blobs: &[BlobRef]) {
    let incoming = node::driver::incoming_directory(&world.home().join("origin"));
    for blob in blobs {
        let name = node::driver::incoming_name(*blob);
        std::fs::rename(aside(world, blob), incoming.join(name)).expect("brought back");
    }
}

/// Where the origin keeps a blob's bytes.
fn at_origin(world: &World, blob: &BlobRef) -> PathBuf {
    let name = format!("{}.data", blob.root);
    world.home().join("origin/store/blobs").join(name)
}
