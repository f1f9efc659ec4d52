//! Peers that send wrong bytes, stall, come from another fleet, or were revoked. All are real
//! processes; the honest nodes end right and take nothing from them.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use coordinator_core::contract::RolloutState;
use protocol::limits::UNVERIFIED_MAX_BYTES;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, programs, trees};

/// A site with one node that has release 1.0 and all its blobs.
fn site_with_a_holder() -> World {
    let world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 1,
        wan: "200mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 7, 6 << 20);
    world.publish(&tree, "1.0", &[]);
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("the holder has it", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    world
}

fn assert_all_right(world: &World, nodes: &[usize]) {
    let id = "app-1.0".parse().expect("an id");
    let wanted = nodes.len() as u32 + 1;
    world.wait_for("the others have it too", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied >= wanted)
    });
    for node in nodes {
        trees::assert_same(&world.path("tree"), &world.current(*node).join("."));
    }
}

#[test]
fn attack_13_poisoned_bytes() {
    let mut world = site_with_a_holder();
    world.kill_node(0);
    let spoiled = spoil_blobs(&world.nodes[0].dir);
    assert!(spoiled >= 2, "the holder had blobs to spoil");
    world.start_node(0);
    let a = world.add_node("site-1", "127.1.0.11");
    let b = world.add_node("site-1", "127.1.0.12");
    assert_all_right(&world, &[a, b]);
    let log = std::fs::read_to_string(world.path("logs/node-1.log")).unwrap_or_default()
        + &std::fs::read_to_string(world.path("logs/node-2.log")).unwrap_or_default();
    assert!(
        log.contains("poisoned"),
        "a typed event is recorded:\n{}",
        world.logs()
    );
    let liar = serde_json::to_value(world.nodes[0].id).expect("JSON");
    let lies: Vec<u64> = [a, b]
        .iter()
        .filter_map(|node| {
            let report = world.node_report(*node)?;
            let wasted = report["traffic"]["wasted"].as_array()?.clone();
            wasted.iter().find(|w| w["node"] == liar)?["lies"].as_u64()
        })
        .collect();
    assert!(!lies.is_empty(), "it was asked");
    assert!(
        lies.iter().all(|bytes| *bytes <= UNVERIFIED_MAX_BYTES),
        "read in vain: {lies:?} bytes"
    );
}

/// Flips a byte in every 16 KiB of each blob's data, behind the node's back.
fn spoil_blobs(dir: &Path) -> usize {
    let mut spoiled = 0;
    let mut queue = vec![dir.join("store")];
    while let Some(folder) = queue.pop() {
        for entry in std::fs::read_dir(folder).expect("readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|e| e == "data") {
                let mut file = std::fs::File::options()
                    .write(true)
                    .open(&path)
                    .expect("a blob");
                let length = file.metadata().expect("there").len();
                for at in (100..length).step_by(16 << 10) {
                    file.seek(SeekFrom::Start(at)).expect("sought");
                    file.write_all(&[0x5a, 0xa5, 0x5a]).expect("written");
                }
                spoiled += 1;
            }
        }
    }
    spoiled
}

#[test]
fn attack_12_a_peer_that_withholds() {
    let mut world = site_with_a_holder();
    world.stop_node(0);
    let a = world.add_node("site-1", "127.1.0.11");
    let b = world.add_node("site-1", "127.1.0.12");
    assert_all_right(&world, &[a, b]);
    let view = world.rollout(&"app-1.0".parse().expect("an id"));
    assert_eq!(
        view.expect("a view").counts.failed,
        0,
        "no failure of the release"
    );
    world.continue_node(0);
}

#[test]
fn attack_31_unenrolled_machine_on_the_lan() {
    let mut world = site_with_a_holder();
    let other = World::coordinator_only(&WorldOptions {
        sites: 1,
        ..WorldOptions::default()
    });
    // A machine enrolled elsewhere is told this fleet's addresses: its certificate is worth nothing here.
    let dir = world.path("stranger");
    other.enroll("site-1", "127.1.0.66", &dir);
    let read = |dir: &Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(dir.join("node.json")).expect("there")).expect("JSON")
    };
    let mut config = read(&dir);
    let ours = read(&world.nodes[0].dir);
    for field in ["coordinators", "origins"] {
        config[field] = ours[field].clone();
    }
    std::fs::write(
        dir.join("node.json"),
        serde_json::to_vec(&config).expect("JSON"),
    )
    .expect("written");
    let stranger = world.adopt_node(dir);
    let honest = world.add_node("site-1", "127.1.0.11");
    assert_all_right(&world, &[honest]);
    assert_eq!(world.installed_version(stranger), None);
    assert!(
        !world.nodes[stranger].dir.join("install/app").exists(),
        "nothing reached its install area"
    );
    assert!(
        world
            .node_views()
            .iter()
            .all(|n| n.node != world.nodes[stranger].id),
        "the fleet does not know it"
    );
    // Whoever runs the fleet sees that it is there, and where.
    let listed = || -> Vec<serde_json::Value> {
        let said = world.tidegate(&["nodes", "--unmanaged", "--json"]);
        serde_json::from_str(&said).expect("JSON")
    };
    world.wait_for("it is listed as unmanaged", |_| {
        listed().iter().any(|one| {
            one["address"] == "127.1.0.66"
                && one["site"] == "site-1"
                && one["times"].as_u64() >= Some(1)
                && one["last_seen"].as_u64() >= one["first_seen"].as_u64()
        })
    });
    let enrolled = [0, honest].map(|n| world.nodes[n].id.to_string());
    assert!(
        listed()
            .iter()
            .all(|one| enrolled.iter().all(|id| one["node"] != id.as_str())),
        "nodes of the fleet are not on that list"
    );
}

#[test]
fn attack_32_revoked_node() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 3,
        wan: "200mbit",
    });
    let tree = world.path("one");
    trees::make(&tree, 8, 1 << 20);
    world.publish(&tree, "1.0", &[]);
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("all have 1.0", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 3)
    });

    let revoked = world.nodes[2].id.to_string();
    world.tidegate(&["nodes", "--revoke", &revoked, "--reason", "stolen"]);
    // It comes back as a thief would bring it back.
    world.kill_node(2);
    world.start_node(2);
    let tree = world.path("two");
    trees::make(&tree, 9, 1 << 20);
    world.publish(&tree, "2.0", &[]);
    let id = world.roll_out("2.0", &["rest"]);
    world.wait_for("the others have 2.0", |w| {
        w.rollout(&id).is_some_and(|v| {
            v.state == RolloutState::Finished && v.targets == 2 && v.counts.applied == 2
        })
    });
    assert_eq!(
        world.installed_version(2).as_deref(),
        Some("1.0"),
        "what was installed stays, nothing new comes"
    );
    for node in [0, 1] {
        trees::assert_same(&world.path("two"), &world.current(node).join("."));
    }
}

#[test]
fn attack_36_enrolment_against_a_false_coordinator() {
    let world = World::coordinator_only(&WorldOptions::default());
    let other = World::coordinator_only(&WorldOptions::default());
    let made = |w: &World| -> serde_json::Value {
        serde_json::from_str(&w.tidegate(&["token", "--json"])).expect("JSON")
    };
    let (ours, theirs) = (made(&world), made(&other));
    let field = |v: &serde_json::Value, name: &str| v[name].as_str().expect("text").to_owned();
    let dir = world.path("victim");
    let enroll = |coordinator: &str, token: &str, root: &str| {
        programs::failure_line(
            "tidegate-node",
            &[
                "enroll",
                "--coordinator",
                coordinator,
                "--token",
                token,
                "--root-digest",
                root,
                "--listen",
                "127.0.0.1",
                "--dir",
                text(&dir),
            ],
        )
    };
    // Another server than the token pins.
    let line = enroll(
        &field(&theirs, "coordinator"),
        &field(&ours, "token"),
        &field(&ours, "root_digest"),
    );
    assert!(
        line.contains("certificate") || line.contains("pin"),
        "{line}"
    );
    // The server that the token pins, but not the root that was given.
    let line = enroll(
        &field(&theirs, "coordinator"),
        &field(&theirs, "token"),
        &field(&ours, "root_digest"),
    );
    assert!(line.contains("root"), "{line}");
    assert!(!dir.join("node.json").exists(), "no node came of it");
}
