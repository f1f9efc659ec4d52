//! A filter decides whom a rollout concerns, by what real nodes signed of themselves.

use coordinator_core::contract::RolloutState;
use tidegate_tests::programs::run;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

#[test]
fn a_rollout_concerns_the_nodes_of_which_its_filter_is_true() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 3,
        wan: "200mbit",
    });
    world.describe(0, "criticality", "mission_critical");
    world.describe(1, "ring", "early");
    let listed = |world: &World, filter: &str| -> Vec<String> {
        let listed = world.tidegate(&["nodes", "--json", "--where", filter]);
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
        let ids = listed
            .iter()
            .map(|n| n["node"].as_str().unwrap().to_owned());
        ids.collect()
    };
    let id = |world: &World, node: usize| world.nodes[node].id.to_string();
    let machine = format!("arch={} and agent", std::env::consts::ARCH);
    world.wait_for("all nodes told what they are", |w| {
        listed(w, &machine).len() == 3
            && listed(w, "criticality=mission_critical") == [id(w, 0)]
            && listed(w, "ring=early") == [id(w, 1)]
    });

    let home = world.home();
    let wrong = ["nodes", "--dir", text(&home), "--where", "os.nam=debian"];
    let said = String::from_utf8(run("tidegate", &wrong).stderr).unwrap();
    assert!(
        said.contains("column 1: there is no attribute \"os.nam\""),
        "{said}"
    );

    let tree = world.path("tree");
    trees::make(&tree, 1, 1 << 20);
    world.publish(&tree, "1.0", &[]);
    let filter = "os=linux and not label.kiosk and criticality!=mission_critical";
    let rollout = world.roll_out_as("most", "1.0", &["count:1", "rest"], &["--where", filter]);
    world.wait_for("whom it concerns has it", |w| {
        w.rollout(&rollout)
            .is_some_and(|v| v.state == RolloutState::Finished && v.counts.applied == 2)
    });
    assert_eq!(world.rollout(&rollout).unwrap().targets, 2);
    assert_eq!(world.installed_version(0), None);
    assert_eq!(world.installed_version(1).as_deref(), Some("1.0"));

    // The machine is not as critical any more, and joins by itself what is still in the bulletin.
    world.publish(&tree, "1.1", &[]);
    let stays = ["--where", filter, "--blackout", "daily 00:00-24:00"];
    let open = world.roll_out_as("open", "1.1", &["rest"], &stays);
    world.wait_for("it began for two", |w| {
        w.rollout(&open).is_some_and(|v| v.targets == 2)
    });
    world.describe(0, "criticality", "low");
    world.wait_for("the third one joined", |w| {
        w.rollout(&open)
            .is_some_and(|v| v.targets == 3 && v.counts.open == 3)
    });
}
