//! A blackout holds a real node back, its user puts a rollout off, and the deadline ends both.

use coordinator_core::contract::RolloutState;
use tidegate_tests::programs::{failure_line, success};
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

#[test]
fn a_blackout_and_a_user_hold_a_node_back_and_the_deadline_ends_what_the_user_said() {
    let world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 1,
        wan: "200mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 1, 1 << 20);
    world.publish(&tree, "1.0", &[]);
    let dir = world.nodes[0].dir.clone();
    let why = || success("tidegate-node", &["why", "--dir", text(&dir)]);

    // Nothing is ever allowed: the node says by what, and so does the coordinator.
    let closed = world.roll_out_as(
        "closed",
        "1.0",
        &["rest"],
        &["--zone", "Europe/Berlin", "--blackout", "daily 00:00-24:00"],
    );
    world.wait_for("the blackout holds it", |_| {
        why().contains("closed (app@1.0): a blackout (daily 00:00-24:00) holds until")
    });
    let id = world.nodes[0].id.to_string();
    world.wait_for("the coordinator knows", |w| {
        let told = w.tidegate(&["why", &id]);
        told.contains("Waiting(Window)") && told.contains("Europe/Berlin")
    });
    world.tidegate(&["rollout", "halt", closed.as_str()]);

    // Its user may put it off once, and the deadline comes before the deferral ends.
    let put_off = world.roll_out_as(
        "asked",
        "1.0",
        &["rest"],
        &["--defer", "1", "--notice", "1h", "--deadline", "90s"],
    );
    world.wait_for("notice is given", |_| {
        why().contains("its user was given notice")
    });
    let defer = ["defer", "--dir", text(&dir), "asked", "--for", "2h"];
    let said = success("tidegate-node", &defer);
    assert!(said.contains("asked is put off until"), "{said}");
    assert!(why().contains("put off by its user (1 of 1)"), "{}", why());
    let said = failure_line("tidegate-node", &defer);
    assert!(said.contains("put off 1 times"), "{said}");
    world.wait_for("the deadline ends it", |w| {
        w.rollout(&put_off)
            .is_some_and(|v| v.state == RolloutState::Finished && v.counts.applied == 1)
    });
    assert_eq!(world.installed_version(0).as_deref(), Some("1.0"));
}
