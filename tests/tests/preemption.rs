//! An emergency takes its turn in the middle of an ordinary rollout, on real nodes.

use coordinator_core::contract::RolloutState;
use tidegate_tests::{World, WorldOptions, trees};

#[test]
fn an_emergency_halts_an_ordinary_rollout_on_every_node_and_it_goes_on_by_itself() {
    let world = World::raise(&WorldOptions {
        sites: 2,
        nodes_per_site: 2,
        wan: "200mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 1, 1 << 20);
    world.publish(&tree, "1.0", &[]);
    world.publish_as("fix", &tree, "1", &[]);

    world.publish_as("alarm", &tree, "1", &[]);
    let emergency = ["--priority", "emergency"];
    // Nobody may ever start this one, so it goes first for as long as the test wants.
    let barred = ["--priority", "emergency", "--blackout", "daily 00:00-24:00"];
    let alarm = world.approved("alarm", "alarm@1", &["rest"], &barred);
    let fix = world.approved("fix", "fix@1", &["rest"], &emergency);
    let waves = ["count:1", "rest"];
    let ordinary = world.roll_out_as("ordinary", "1.0", &waves, &["--soak", "30s"]);
    world.wait_for("the first wave has it, and its gate soaks", |w| {
        w.rollout(&ordinary).is_some_and(|v| v.counts.applied == 1)
    });
    world.tidegate(&["rollout", "start", alarm.as_str()]);
    world.wait_for("the ordinary one waits", |w| {
        w.rollout(&ordinary)
            .is_some_and(|v| v.state == RolloutState::Preempted)
    });
    let knows = |w: &World, node: &usize| w.why(*node).contains("the emergency alarm goes first");
    world.wait_for("every node knows, but for the one that has it", |w| {
        (0..4).filter(|node| knows(w, node)).count() == 3
    });
    world.tidegate(&["rollout", "start", fix.as_str()]);
    world.wait_for("another emergency does not wait", |w| {
        w.rollout(&fix).is_some_and(|v| v.counts.applied == 4)
    });
    let view = world.rollout(&ordinary).unwrap();
    assert_eq!(view.state, RolloutState::Preempted);
    assert_eq!(view.counts.applied, 1, "nobody started it meanwhile");

    world.tidegate(&["rollout", "halt", alarm.as_str()]);
    world.wait_for("the ordinary one went on by itself", |w| {
        w.rollout(&ordinary)
            .is_some_and(|v| v.state == RolloutState::Finished && v.counts.applied == 4)
    });
}
