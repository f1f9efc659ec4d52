//! Releases that need, supersede and precede each other, on real nodes.

use coordinator_core::contract::RolloutState;
use tidegate_tests::programs::failure_line;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

fn finished(world: &World, id: &protocol::RolloutId, applied: u32) -> bool {
    world
        .rollout(id)
        .is_some_and(|v| v.state == RolloutState::Finished && v.counts.applied == applied)
}

#[test]
fn a_release_waits_for_what_it_needs_and_who_was_away_walks_over_the_barrier_only() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 2,
        wan: "200mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 1, 1 << 18);

    // What is needed must be there before anybody can even propose.
    world.publish(&tree, "1.0", &["--depends-on", "runtime>=2.1,<3"]);
    let home = world.home();
    let key = world.key("op1");
    let refused = failure_line(
        "tidegate",
        &[
            "rollout",
            "propose",
            "app@1.0",
            "--key",
            &key,
            "--dir",
            text(&home),
        ],
    );
    assert!(
        refused.contains("dependency: app@1.0 needs runtime>=2.1,<3"),
        "{refused}"
    );
    world.publish_as("runtime", &tree, "2.9", &[]);
    world.publish_as("runtime", &tree, "2.10", &[]);
    let app = world.roll_out("1.0", &["rest"]);
    world.wait_for("every node waits for the runtime", |w| {
        let why = |n: &usize| {
            w.why(*n)
                .contains("it needs runtime>=2.1,<3, and no runtime is installed; no rollout")
        };
        (0..2).filter(why).count() == 2
    });
    let id = world.nodes[0].id.to_string();
    world.wait_for("the coordinator knows", |w| {
        w.tidegate(&["why", &id]).contains("Waiting(Dependency)")
    });
    assert_eq!(world.installed_version(0), None);
    let runtime = world.approved("runtime", "runtime@2.10", &["rest"], &[]);
    world.tidegate(&["rollout", "start", runtime.as_str()]);
    world.wait_for("both are installed", |w| {
        finished(w, &runtime, 2) && finished(w, &app, 2)
    });

    // One node is away while three releases are approved, the second a barrier.
    world.kill_node(1);
    // Meanwhile somebody says to have seen to it by hand: that is told apart.
    let away = world.nodes[1].id.to_string();
    let said = world.tidegate(&[
        "nodes",
        "record-install",
        &away,
        "app@1.0",
        "--who",
        "Dana",
        "--why",
        "its disk was changed",
    ]);
    assert!(said.contains("Dana installed app@1.0"), "{said}");
    let view = world.rollout(&app).expect("the coordinator answers");
    assert_eq!((view.by_hand, view.counts.applied), (1, 2));
    let told = world.tidegate(&["why", &away]);
    assert!(told.contains("by hand: Dana installed"), "{told}");
    let over = |bound: &'static str| ["--supersedes", bound];
    let barrier = ["--barrier", "its store moves"];
    world.publish(&tree, "1.1", &over("app<1.1"));
    world.publish(&tree, "1.2", &[over("app<1.2"), barrier].concat());
    world.publish(&tree, "1.3", &over("app<1.3"));
    let rollouts = ["1.1", "1.2", "1.3"].map(|version| {
        let id = world.roll_out(version, &["rest"]);
        world.wait_for("the node that is there has it", |w| {
            w.installed_version(0).as_deref() == Some(version)
        });
        id
    });
    assert_eq!(world.installed_version(1).as_deref(), Some("1.0"));
    world.start_node(1);
    world.wait_for("the other came over the barrier to the newest", |w| {
        finished(w, &rollouts[1], 2) && finished(w, &rollouts[2], 2)
    });
    assert_eq!(world.installed_version(1).as_deref(), Some("1.3"));
    world.wait_for("the first was superseded there", |w| {
        w.rollout(&rollouts[0])
            .is_some_and(|v| v.counts.applied == 1 && v.targets == 1)
    });
}
