//! The row about a coordinator that comes back from an older backup.

use protocol::RolloutId;
use tidegate_tests::programs::{run, success};
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

fn applied(world: &World, id: &RolloutId) -> Option<(u32, u32)> {
    let view = world.rollout(id)?;
    Some((view.counts.applied, view.targets))
}

/// A backup is taken while 1.0 is rolled out. Then all get it, another machine is enrolled, 2.0 is approved
/// and comes to one node, and another product's rollout is halted. The coordinator is killed and the old
/// backup brought back: it knows neither the machine nor the two rollouts, and would give numbers that the
/// nodes have long seen.
#[test]
fn attack_35_restored_from_an_older_backup() {
    let mut world = World::raise(&WorldOptions {
        sites: 2,
        nodes_per_site: 1,
        wan: "200mbit",
    });
    for (version, seed) in [("1.0", 35), ("2.0", 36), ("tool", 37)] {
        trees::make(&world.path(version), seed, 1 << 18);
    }
    world.publish(&world.path("1.0"), "1.0", &[]);
    let first = world.roll_out_as("app-1.0", "1.0", &["rest"], &["--soak", "1h"]);
    world.wait_for("somebody has 1.0", |w| {
        applied(w, &first).is_some_and(|(applied, _)| applied > 0)
    });
    let backup = world.path("backup");
    let home = world.home();
    let back_up = ["backup", "--dir", text(&home), "--out", text(&backup)];
    success("tidegate", &back_up);
    let again = run("tidegate", &back_up);
    assert!(!again.status.success(), "nothing is overwritten");

    world.wait_for("all have 1.0", |w| applied(w, &first) == Some((2, 2)));
    let late = world.add_node("site-2", "127.2.0.2");
    world.wait_for("the new machine has 1.0", |w| {
        w.installed_version(late).as_deref() == Some("1.0")
    });
    world.publish(&world.path("2.0"), "2.0", &[]);
    let second = world.roll_out_as("app-2.0", "2.0", &["count:1", "rest"], &["--soak", "1h"]);
    world.wait_for("the first wave has 2.0", |w| {
        applied(w, &second) == Some((1, 3))
    });
    world.publish_as("tool", &world.path("tool"), "1.0", &[]);
    let halted = world.approved(
        "tool-1.0",
        "tool@1.0",
        &["count:1", "rest"],
        &["--soak", "1h"],
    );
    world.tidegate(&["rollout", "start", halted.as_str()]);
    // A halt is quicker than what it is about: who has not fetched plan and release yet cannot bring them back.
    world.wait_for("all hold plan and release", |w| {
        (0..3).all(|n| {
            let report = w.node_report(n).unwrap_or_default();
            let standings = report["snapshot"]["standings"].as_array();
            let held = |s: &serde_json::Value| {
                s["rollout"] == halted.as_str() && s["state"] != "NotReceived"
            };
            standings.is_some_and(|all| all.iter().any(held))
        })
    });
    world.tidegate(&["rollout", "halt", halted.as_str(), "--reason", "it harms"]);
    let heads = |w: &World| -> Vec<String> {
        let head = |n| Some(w.node_report(n)?["snapshot"]["orders_head"].to_string());
        (0..3).filter_map(head).collect()
    };
    world.wait_for("all know of the halt", |w| {
        let heads = heads(w);
        heads.len() == 3 && heads.iter().all(|head| *head == heads[0])
    });

    world.kill_coordinator();
    let root = std::fs::read(backup.join("root.json")).expect("in the backup");
    std::fs::write(backup.join("root.json"), "[]").expect("written");
    let restore = ["restore", "--from", text(&backup), "--dir", text(&home)];
    let refused = run("tidegate", &restore);
    assert!(!refused.status.success(), "a changed backup is none");
    std::fs::write(backup.join("root.json"), root).expect("written");
    success("tidegate", &restore);
    world.start_coordinator();

    world.wait_for("the fleet told of the lost rollouts", |w| {
        w.rollout(&second).is_some() && w.rollout(&halted).is_some()
    });
    world.wait_for("the counts are exact again", |w| {
        applied(w, &first) == Some((3, 3)) && applied(w, &second) == Some((1, 3))
    });
    let state = world.rollout(&halted).map(|view| view.state);
    assert_eq!(format!("{state:?}"), "Some(Aborted)", "the halt stands");
    world.tidegate(&["audit", "verify"]);
    let again = world.roll_out_as("app-2.0-b", "2.0", &["rest"], &[]);
    world.wait_for("orders of the new epoch are obeyed", |w| {
        applied(w, &again) == Some((3, 3))
    });
    for node in 0..3 {
        trees::assert_same(&world.path("2.0"), &world.current(node).join("."));
    }
}
