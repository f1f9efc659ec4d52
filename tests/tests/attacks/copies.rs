//! The row about copies: a disk that was put back, a directory on a second machine, an image.

use std::fs;
use std::path::Path;

use node::config::NodeConfig;
use protocol::NodeId;
use tidegate_tests::programs::success;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

/// Copies a node's directory as a tool for disks does; sockets are none of the disk.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_symlink() {
            let link = fs::read_link(entry.path()).expect("a link");
            std::os::unix::fs::symlink(link, target).expect("linked");
        } else if kind.is_file() {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fn everybody_has(world: &World, version: &str, nodes: u32) {
    let rollout = format!("app-{version}").parse().expect("a name");
    world.wait_for(&format!("{nodes} have {version}"), |w| {
        w.rollout(&rollout)
            .is_some_and(|v| (v.counts.applied, v.targets) == (nodes, nodes))
    });
}

fn node_of(dir: &Path) -> Option<NodeId> {
    NodeConfig::load(dir).ok().map(|config| config.node)
}

/// A node's disk is put back to before 2.0: it gives numbers again that it gave before, and what it says
/// under them was dropped without a word. Then the disk is cloned to a second machine, and at last made
/// an image of.
#[test]
fn attack_34_clones_and_reverted_snapshots() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 2,
        wan: "200mbit",
    });
    for (version, seed) in [("1.0", 341), ("2.0", 342), ("3.0", 343)] {
        trees::make(&world.path(version), seed, 1 << 18);
        world.publish(&world.path(version), version, &[]);
    }
    let soak = ["--soak", "1h"];
    world.roll_out_as("app-1.0", "1.0", &["rest"], &soak);
    everybody_has(&world, "1.0", 2);
    let (dir, snapshot) = (world.nodes[1].dir.clone(), world.path("snapshot"));
    world.kill_node(1);
    copy(&dir, &snapshot);
    world.start_node(1);
    world.roll_out_as("app-2.0", "2.0", &["rest"], &soak);
    everybody_has(&world, "2.0", 2);

    world.kill_node(1);
    fs::remove_dir_all(&dir).expect("removed");
    copy(&snapshot, &dir);
    world.start_node(1);
    world.wait_for("the one that was put back says so", |w| {
        w.logged("node-1", "begins a new epoch")
    });
    world.wait_for("it is told from an attack", |w| {
        w.logged("coordinator", "its disk was put back")
    });
    world.wait_for("it has 2.0 again", |w| {
        w.installed_version(1).as_deref() == Some("2.0")
    });
    assert_eq!(node_of(&dir), Some(world.nodes[1].id), "it is who it was");

    // Its clone, on another machine, while it runs itself.
    let clone = world.path("clone");
    copy(&snapshot, &clone);
    let mut config = NodeConfig::load(&clone).expect("a node");
    config.listen.address = "127.1.0.9".parse().expect("an address");
    config.store(&clone).expect("written");
    let clone = world.take_node(clone);
    world.start_node_on(clone, "another machine");
    let dir = world.nodes[clone].dir.clone();
    let original = world.nodes[1].id;
    world.wait_for("the clone is a node of its own", |w| {
        let id = node_of(&dir);
        let views = w.node_views();
        let heard = |id| views.iter().any(|v| v.node == id && v.last_seen.is_some());
        id != Some(original) && id.is_some_and(heard)
    });
    let second = node_of(&dir).expect("a node");
    world.roll_out_as("app-3.0", "3.0", &["rest"], &soak);
    everybody_has(&world, "3.0", 3);
    // At its next start it is at home.
    world.kill_node(clone);
    world.start_node_on(clone, "another machine");
    world.wait_for("it runs again", |w| w.node_report(clone).is_some());
    assert_eq!(node_of(&dir), Some(second));
    assert!(!world.logged("coordinator", "two machines may have its key"));

    // An image: no key in it, and its copies enrol by themselves.
    world.kill_node(clone);
    let made = world.tidegate(&["token", "--json", "--site", "site-1"]);
    let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
    let installer = world.path("installer.json");
    let file = serde_json::json!({
        "coordinator": made["coordinator"], "token": made["token"], "root_digest": made["root_digest"],
    });
    fs::write(&installer, file.to_string()).expect("written");
    let listen = ["--listen", "127.1.0.10"];
    let seal = ["seal", "--dir", text(&dir), "--installer", text(&installer)];
    success("tidegate-node", &[&seal[..], &listen[..]].concat());
    assert!(!dir.join("node.key").exists());
    assert_eq!(node_of(&dir), None);
    world.start_node_on(clone, "a third machine");
    world.wait_for("its copy enrolled by itself", |w| {
        let id = node_of(&dir);
        let known = [Some(original), Some(second)].contains(&id);
        id.is_some() && !known && w.node_report(clone).is_some()
    });
    assert!(!dir.join("sealed.json").exists(), "the token is used up");
    world.tidegate(&["audit", "verify"]);
}
