//! The agent's own release on real nodes: a good one, also under kills, and one that does not come up.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use coordinator_core::contract::RolloutState;
use protocol::RolloutId;
use tidegate_tests::{World, WorldOptions};

const NODES: usize = 3;

/// A tree whose `tidegate-node` is a script of this line.
fn agent(world: &World, version: &str, line: &str) -> PathBuf {
    let tree = world.path(&format!("agent-{version}"));
    std::fs::create_dir(&tree).unwrap();
    let program = tree.join("tidegate-node");
    std::fs::write(&program, format!("#!/bin/sh\n# {version}\n{line}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    tree
}

fn roll_out(world: &World, version: &str, line: &str) -> RolloutId {
    let tree = agent(world, version, line);
    world.publish_as("agent", &tree, version, &[]);
    let (name, release) = (format!("agent-{version}"), format!("agent@{version}"));
    let id = world.approved(&name, &release, &["count:1", "rest"], &[]);
    world.tidegate(&["rollout", "start", id.as_str()]);
    id
}

fn finished(world: &World, id: &RolloutId) -> bool {
    let view = world.rollout(id);
    view.is_some_and(|v| v.state == RolloutState::Finished && v.counts.applied as usize == NODES)
}

/// The version of the agent that answers on a node's socket.
fn runs(world: &World, node: usize) -> Option<String> {
    world.node_report(node)?["agent"]
        .as_str()
        .map(str::to_owned)
}

#[test]
fn agents_are_kept_once_they_report_and_put_back_if_they_do_not_come_up() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: NODES as u8,
        wan: "200mbit",
    });
    for node in 0..NODES {
        world.describe(node, "agent", "agent");
    }
    let real = tidegate_tests::programs::program("tidegate-node");
    let works = format!("exec {} \"$@\"", real.display());

    let first = roll_out(&world, "1.1", &works);
    world.wait_for("every node runs the new agent", |w| {
        finished(w, &first) && (0..NODES).all(|n| runs(w, n).as_deref() == Some("1.1"))
    });

    let dead = roll_out(&world, "1.2", "exit 7");
    world.wait_for("the dead agent is told, and its wave held", |w| {
        let view = w.rollout(&dead);
        view.is_some_and(|v| v.counts.failed == 1 && v.state == RolloutState::Held)
    });
    world.wait_for("every node runs the agent before", |w| {
        (0..NODES).all(|n| runs(w, n).as_deref() == Some("1.1"))
    });
    let view = world.rollout(&dead).unwrap();
    assert_eq!(view.counts.applied, 0, "nobody else tried it");

    let last = roll_out(&world, "1.3", &works);
    for round in 0..8 {
        // The moment is the workload: anywhere in download, switch, restart and proof.
        std::thread::sleep(Duration::from_millis(400 + 130 * round));
        let node = round as usize % NODES;
        world.kill_node(node);
        world.start_node(node);
    }
    world.wait_for("kills do not keep the next one back", |w| {
        finished(w, &last) && (0..NODES).all(|n| runs(w, n).as_deref() == Some("1.3"))
    });
}
