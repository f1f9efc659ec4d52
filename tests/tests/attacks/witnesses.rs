//! A node says that the release works, and is dead a moment later: its peers say so, and the gate waits.

use std::time::{Duration, Instant};

use coordinator_core::contract::RolloutState;
use tidegate_tests::{World, WorldOptions, trees};

const SOAK: Duration = Duration::from_secs(90);

#[test]
fn attack_23_false_success_of_a_node_that_its_peers_see_dead() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 5,
        wan: "200mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 23, 1 << 20);
    world.publish(&tree, "1.0", &[]);
    let soak = format!("{}s", SOAK.as_secs());
    let gate = ["--soak", &soak, "--min-success", "100", "--min-sample", "5"];
    let id = world.roll_out_as("app-1.0", "1.0", &["rest"], &gate);
    world.wait_for("all say that they have it", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 5)
    });
    let claimed = Instant::now();
    let delegates = |n: usize| -> bool {
        let report = world.node_report(n).expect("it answers");
        report["snapshot"]["delegate"] == true
    };
    let liar = (0..5).find(|n| !delegates(*n)).expect("two of five are");
    world.kill_node(liar);
    let noted = |w: &World, event: &str| w.logged("coordinator", event);
    world.wait_for("its peers say so", |w| noted(w, "see them no more"));
    // The others alone would have passed by now.
    world.wait_for("the soak is over", |_| claimed.elapsed() > SOAK * 5 / 4);
    let view = world.rollout(&id).expect("a view");
    assert_eq!(view.state, RolloutState::Running, "{}", view.why);
    assert_eq!((view.counts.applied, view.counts.failed), (5, 0));

    // It was no liar after all: they see it again, and its success counts.
    world.start_node(liar);
    world.wait_for("its peers see it again", |w| {
        noted(w, "are seen by their peers again")
    });
    world.wait_for("the gate passes", |w| {
        w.rollout(&id)
            .is_some_and(|v| v.state == RolloutState::Finished)
    });
    world.tidegate(&["audit", "verify"]);
}
