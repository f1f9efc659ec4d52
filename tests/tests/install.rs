//! The main job: publish a real tree, install it everywhere, compare every byte, mode and link.

use coordinator_core::contract::RolloutState;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

#[test]
fn a_tree_arrives_everywhere_byte_for_byte_and_crosses_each_wan_once() {
    let world = World::raise(&WorldOptions {
        sites: 2,
        nodes_per_site: 3,
        wan: "200mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 1, 12 << 20);
    world.publish(
        &tree,
        "1.0",
        &["--health-check", "./run.sh", "--health-soak", "100ms"],
    );
    let id = world.roll_out("1.0", &["count:2", "rest"]);
    world.wait_for("the rollout finishes", |w| {
        w.rollout(&id)
            .is_some_and(|v| v.state == RolloutState::Finished && v.counts.applied == 6)
    });
    for node in 0..world.nodes.len() {
        assert_eq!(world.installed_version(node).as_deref(), Some("1.0"));
        trees::assert_same(&tree, &world.current(node).join("."));
    }
    let carrier = carrier_bytes(&world);
    for site in ["site-1", "site-2"] {
        let wan: u64 = (world.node_views().iter())
            .filter(|n| n.site.as_ref().is_some_and(|s| s.as_str() == site))
            .flat_map(|n| &n.statuses)
            .map(|s| s.wan_bytes)
            .sum();
        let copies = wan as f64 / carrier as f64;
        assert!(
            (0.99..=1.15).contains(&copies),
            "{site} took {copies:.3} copies of the carrier over its WAN"
        );
    }
}

fn carrier_bytes(world: &World) -> u64 {
    let releases: serde_json::Value =
        serde_json::from_str(&world.tidegate(&["release", "list", "--json"])).expect("JSON");
    releases[0]["carrier_bytes"].as_u64().expect("a number")
}

#[test]
fn a_release_whose_health_check_fails_is_halted_in_its_first_wave_and_rolled_back_there() {
    let world = World::raise(&WorldOptions {
        sites: 2,
        nodes_per_site: 3,
        wan: "200mbit",
    });
    let good = world.path("good");
    trees::make(&good, 2, 1 << 20);
    world.publish(
        &good,
        "1.0",
        &["--health-check", "./run.sh", "--health-soak", "100ms"],
    );
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("the good release is everywhere", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 6)
    });

    let bad = world.path("bad");
    trees::make(&bad, 3, 1 << 20);
    world.publish(
        &bad,
        "2.0",
        &["--health-check", "echo the self-test fails >&2; exit 3"],
    );
    let id = world.roll_out("2.0", &["count:2", "rest"]);
    world.wait_for("the gate holds the bad release", |w| {
        w.rollout(&id).is_some_and(|v| {
            v.state == RolloutState::Held && v.counts.failed == 2 && v.waves[0].counts.failed == 2
        })
    });
    world.wait_for("both nodes say that they are back, and why", |w| {
        let told = |s: &coordinator::api::messages::StatusView| {
            s.rollout == id
                && s.state == protocol::status::State::RolledBack
                && s.exit_code == Some(3)
                && s.output_tail.contains("the self-test fails")
        };
        w.node_views()
            .iter()
            .filter(|n| n.statuses.iter().any(told))
            .count()
            == 2
    });
    for node in 0..world.nodes.len() {
        assert_eq!(
            world.installed_version(node).as_deref(),
            Some("1.0"),
            "nobody keeps the bad release"
        );
        trees::assert_same(&good, &world.current(node).join("."));
    }
    let view = world.rollout(&id).expect("a view");
    assert!(
        view.waves[1].opened_at.is_none(),
        "the second wave never opened"
    );

    let review = world.tidegate(&["report", "review", "app-2.0", "--json"]);
    let review: serde_json::Value = serde_json::from_str(&review).expect("a review");
    let group = &review["failures"][0];
    assert_eq!(
        (&group["count"], &group["exit_code"]),
        (&2.into(), &3.into())
    );
    assert_eq!(group["line"], "the self-test fails");
    let file = world.path("review.html");
    world.tidegate(&["report", "review", "app-1.0", "--out", text(&file)]);
    let page = std::fs::read_to_string(&file).expect("a page");
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg "));
    assert!(page.contains("app@1.0: finished."), "{page}");
    let review = world.tidegate(&["report", "review", "app-1.0", "--json"]);
    let review: serde_json::Value = serde_json::from_str(&review).expect("a review");
    let traffic = |key: &str| review["traffic"][key].as_u64().expect("bytes");
    assert!(traffic("wan_bytes") < traffic("alone_bytes"), "{review}");
    let all = review["waves"][0]["completion"].as_array().expect("points");
    assert_eq!(all.last().expect("a point")[1], 6);
}

#[test]
fn a_recall_takes_the_release_back_where_it_was_installed() {
    let world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 2,
        wan: "200mbit",
    });
    for (version, seed) in [("1.0", 4), ("2.0", 5)] {
        let tree = world.path(version);
        trees::make(&tree, seed, 1 << 20);
        world.publish(&tree, version, &[]);
        let id = world.roll_out(version, &["rest"]);
        world.wait_for("the release is everywhere", |w| {
            w.rollout(&id).is_some_and(|v| v.counts.applied == 2)
        });
    }
    for operator in ["op1", "op2", "op3"] {
        world.tidegate(&[
            "rollout",
            "recall",
            "app-2.0",
            "--key",
            &world.key(operator),
            "--reason",
            "a regression",
        ]);
    }
    let id = "app-2.0".parse().expect("an id");
    world.wait_for("the release is taken back", |w| {
        w.rollout(&id)
            .is_some_and(|v| v.state == RolloutState::Recalled)
    });
    for node in 0..2 {
        assert_eq!(world.installed_version(node).as_deref(), Some("1.0"));
        trees::assert_same(&world.path("1.0"), &world.current(node).join("."));
    }
}

#[test]
fn a_paused_rollout_starts_nothing_until_it_is_resumed() {
    let world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 3,
        wan: "200mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 6, 1 << 20);
    world.publish(&tree, "1.0", &[]);
    let id = world.propose("1.0", &["count:1", "rest"]);
    for operator in ["op2", "op3"] {
        world.tidegate(&[
            "rollout",
            "approve",
            id.as_str(),
            "--key",
            &world.key(operator),
        ]);
    }
    world.tidegate(&["rollout", "start", id.as_str()]);
    world.tidegate(&["rollout", "pause", id.as_str(), "--reason", "a test"]);
    world.wait_for("all nodes have the content and wait", |w| {
        let view = w.rollout(&id).expect("a view");
        assert_eq!(view.state, RolloutState::Paused);
        view.stages.staged + view.counts.applied == 3 && view.counts.applied <= 1
    });
    world.tidegate(&["rollout", "resume", id.as_str()]);
    world.wait_for("the rollout finishes", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 3)
    });
}
