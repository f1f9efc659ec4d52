//! A laptop that goes from one site to another in the middle of a release takes along what it has.

use tidegate_tests::{World, WorldOptions, trees};

/// Payload bytes that a node's process took in, of them those that it had already, and whether it has all.
fn taken(world: &World, node: usize) -> Option<(u64, u64, bool)> {
    let report = world.node_report(node)?;
    let sites = report["traffic"]["sites"].as_array()?;
    let payload = sites.iter().filter_map(|s| s["payload_in"].as_u64()).sum();
    let missing = report["snapshot"]["standings"][0]["missing_bytes"].as_u64();
    Some((
        payload,
        report["traffic"]["again"].as_u64()?,
        missing == Some(0),
    ))
}

#[test]
fn a_laptop_that_changes_site_at_60_percent_fetches_only_the_rest() {
    let mut world = World::raise(&WorldOptions {
        sites: 2,
        nodes_per_site: 1,
        wan: "8mbit",
    });
    let laptop = 0;
    let tree = world.path("tree");
    trees::make(&tree, 13, 16 << 20);
    world.publish(&tree, "1.0", &[]);
    let listed: Vec<serde_json::Value> =
        serde_json::from_str(&world.tidegate(&["release", "list", "--json"])).expect("JSON");
    let carrier = listed[0]["carrier_bytes"].as_u64().expect("a number");
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("it has 60 percent", |w| {
        taken(w, laptop).is_some_and(|(bytes, ..)| bytes * 10 >= carrier * 6)
    });
    let (before, again, all) = taken(&world, laptop).expect("it runs");
    assert!(!all && again == 0, "in the middle of it: {before} bytes");

    world.kill_node(laptop);
    let path = world.nodes[laptop].dir.join("node.json");
    let config = std::fs::read(&path).expect("an enrolled node");
    let mut config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    config["listen"]["address"] = "127.2.0.9".into();
    std::fs::write(&path, config.to_string()).expect("written");
    world.start_node(laptop);
    world.wait_for("both have it", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 2)
    });

    let report = world.node_report(laptop).expect("it runs");
    assert_eq!(report["snapshot"]["site"], "site-2");
    let (after, again, _) = taken(&world, laptop).expect("it runs");
    assert_eq!(again, 0, "nothing came twice");
    // The index is not in the carrier's bytes.
    let rest = carrier + carrier / 100 - before;
    assert!(
        (1..=rest).contains(&after),
        "of {carrier} bytes {before} came before and {after} after"
    );
    trees::assert_same(&tree, &world.current(laptop).join("."));
}
