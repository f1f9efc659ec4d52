//! Certificates are renewed by the nodes themselves: while they live, and after they were away for longer
//! than a certificate holds. A revoked one is not.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tidegate_tests::{World, WorldOptions, trees};

/// Certificates hold for so long here; elsewhere it is a year.
const LIFE: Duration = Duration::from_secs(20);

fn file(world: &World, node: usize) -> PathBuf {
    world.nodes[node].dir.join("certificates.pem")
}

fn certificate(world: &World, node: usize) -> Vec<u8> {
    std::fs::read(file(world, node)).expect("a node has certificates")
}

/// Whether what a node has was over two seconds ago.
fn is_over(world: &World, node: usize) -> bool {
    let issued = std::fs::metadata(file(world, node)).and_then(|meta| meta.modified());
    let end = issued.expect("a time") + LIFE + Duration::from_secs(2);
    SystemTime::now() > end
}

#[test]
fn nodes_renew_their_certificates_also_when_they_are_over() {
    let mut world = World::coordinator_only(&WorldOptions {
        sites: 1,
        nodes_per_site: 0,
        wan: "200mbit",
    });
    world.configure("certificate_life", (LIFE.as_millis() as u64).into());
    for place in 1..=3 {
        world.add_node("site-1", &format!("127.1.0.{place}"));
    }
    world.wait_for("all report", |w| {
        w.node_views()
            .iter()
            .filter(|n| n.last_seen.is_some())
            .count()
            == 3
    });
    // Two go away for longer than their certificates hold; one of them is revoked meanwhile.
    world.kill_node(1);
    world.kill_node(2);
    let (stays, away, revoked) = (
        certificate(&world, 0),
        certificate(&world, 1),
        certificate(&world, 2),
    );
    world.tidegate(&["nodes", "--revoke", &world.nodes[2].id.to_string()]);
    world.wait_for("the one that stays renews by itself", |w| {
        certificate(w, 0) != stays
    });
    world.wait_for("what the others have is over", |w| {
        is_over(w, 1) && is_over(w, 2)
    });
    world.start_node(1);
    world.start_node(2);
    world.wait_for("the one that was away renews", |w| {
        certificate(w, 1) != away
    });

    let tree = world.path("tree");
    trees::make(&tree, 6, 1 << 18);
    world.publish(&tree, "1.0", &[]);
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("both have 1.0", |w| {
        w.rollout(&id)
            .is_some_and(|v| (v.counts.applied, v.targets) == (2, 2))
    });
    trees::assert_same(&tree, &world.current(1).join("."));
    world.wait_for("the revoked one is told so", |w| {
        w.logged("node-2", "was revoked")
    });
    assert_eq!(certificate(&world, 2), revoked);
    assert_eq!(world.installed_version(2), None);
    world.tidegate(&["audit", "verify"]);
}
