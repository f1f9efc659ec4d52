//! What stops a rollout on real nodes, and who lets it go on.

use coordinator_core::contract::RolloutState;
use protocol::RolloutId;
use tidegate_tests::programs::failure_line;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

fn stands(world: &World, id: &RolloutId, state: RolloutState, applied: u32) -> bool {
    world
        .rollout(id)
        .is_some_and(|v| v.state == state && v.counts.applied == applied)
}

#[test]
fn a_halt_of_everything_outlives_every_restart_and_two_operators_lift_it() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 2,
        wan: "200mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 1, 1 << 20);
    world.publish(&tree, "1.0", &[]);
    world.tidegate(&["rollout", "halt", "--all", "--reason", "an intruder"]);
    // What is started after it is halted too.
    let id = world.roll_out("1.0", &["rest"]);
    let halted = |w: &World| {
        let told = (0..2).filter(|node| w.why(*node).contains("everything is halted: an intruder"));
        told.count()
    };
    world.wait_for("every node knows", |w| halted(w) == 2);
    world.kill_coordinator();
    (0..2).for_each(|node| world.kill_node(node));
    world.start_coordinator();
    (0..2).for_each(|node| world.start_node(node));
    world.wait_for("every node still knows, and has the content", |w| {
        halted(w) == 2 && w.rollout(&id).is_some_and(|v| v.stages.staged == 2)
    });
    assert!(stands(&world, &id, RolloutState::Preempted, 0));

    let lift = |operator: &str| {
        let key = world.key(operator);
        world.tidegate(&["rollout", "lift", "--all", "--key", &key])
    };
    assert!(lift("op1").contains("lift signed: 1 of 2"));
    assert!(
        lift("op1").contains("lift signed: 1 of 2"),
        "the same one again"
    );
    assert!(
        stands(&world, &id, RolloutState::Preempted, 0),
        "one is not enough"
    );
    assert!(lift("op2").contains("lift signed: 2 of 2"));
    world.wait_for("it goes on by itself", |w| {
        stands(w, &id, RolloutState::Finished, 2)
    });
}

#[test]
fn a_problem_that_a_person_reports_halts_a_rollout_whose_installs_were_green() {
    let world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 2,
        wan: "200mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 2, 1 << 20);
    world.publish(&tree, "1.0", &[]);
    let gate = ["--min-success", "100", "--soak", "30s"];
    let id = world.roll_out_as("sound", "1.0", &["count:1", "rest"], &gate);
    world.wait_for("the first one has it", |w| {
        stands(w, &id, RolloutState::Running, 1)
    });
    let has_it = |n: &&coordinator::api::messages::NodeView| {
        let done = |s: &coordinator::api::messages::StatusView| {
            s.rollout == id && s.state == protocol::status::State::Succeeded
        };
        n.statuses.iter().any(done)
    };
    let node = world
        .node_views()
        .iter()
        .find(has_it)
        .expect("it told")
        .node;
    let node = node.to_string();
    let problem = [
        "rollout",
        "problem",
        "sound",
        &node,
        "--what",
        "no sound any more",
    ];
    world.tidegate(&problem);
    world.wait_for("the gate halts it", |w| {
        w.rollout(&id)
            .is_some_and(|v| v.state == RolloutState::Held)
    });
    assert!(world.rollout(&id).unwrap().waves[1].opened_at.is_none());

    // One operator lifts what stopped by itself, and two what an operator stopped.
    world.tidegate(&["rollout", "resume", "sound"]);
    world.tidegate(&["rollout", "halt", "sound"]);
    let home = world.home();
    let resume = ["rollout", "resume", "sound", "--dir", text(&home)];
    assert!(failure_line("tidegate", &resume).contains("rollout sound is halted"));
    for operator in ["op1", "op3"] {
        world.tidegate(&["rollout", "lift", "sound", "--key", &world.key(operator)]);
    }
    world.wait_for("it goes on", |w| {
        w.rollout(&id)
            .is_some_and(|v| v.state == RolloutState::Finished)
    });
}

#[test]
fn a_cohort_that_fails_alone_is_held_and_let_go_by_one_operator() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 8,
        wan: "200mbit",
    });
    (0..4).for_each(|node| world.describe(node, "ring", "odd"));
    world.wait_for("the coordinator knows the cohort", |w| {
        let odd = w.tidegate(&["nodes", "--json", "--where", "ring=odd"]);
        let odd: Vec<serde_json::Value> = serde_json::from_str(&odd).unwrap();
        odd.len() == 4
    });
    // The last of them is off until the others are through.
    world.kill_node(3);
    let marks = world.path("marks");
    std::fs::create_dir_all(&marks).unwrap();
    let (fails, mended) = (marks.join("fails"), marks.join("mended"));
    let dirs: Vec<String> = (0..4)
        .map(|node| format!("{}/*", text(&world.nodes[node].dir)))
        .collect();
    // The check runs in the installed tree, so it knows which node's it is.
    let check = format!(
        "case \"$(pwd -P)\" in {}) until test -e {}; do sleep 0.1; done; test -e {};; esac",
        dirs.join("|"),
        text(&fails),
        text(&mended)
    );
    let tree = world.path("tree");
    trees::make(&tree, 3, 1 << 20);
    let checked = ["--health-check", &check, "--health-soak", "100ms"];
    world.publish(&tree, "1.0", &checked);
    let more = [
        "--cohort",
        "ring=odd",
        "--unacceptable",
        "90",
        "--min-success",
        "50",
    ];
    let id = world.roll_out_as("some", "1.0", &["rest"], &more);
    world.wait_for(
        "the others have it, and three of the cohort are at it",
        |w| {
            w.rollout(&id)
                .is_some_and(|v| v.counts.applied == 4 && v.stages.installing == 3)
        },
    );
    std::fs::write(&fails, "").unwrap();
    world.wait_for("three fail", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.failed == 3)
    });
    world.start_node(3);
    world.wait_for("the fourth is held by the safeguard", |w| {
        w.why(3).contains("a safeguard holds nodes with ring=odd")
    });
    let state = world.rollout(&id).unwrap().state;
    assert_ne!(state, RolloutState::Held, "the rest goes on");

    let home = world.home();
    let wrong = [
        "rollout",
        "release-cohort",
        "some",
        "ring=even",
        "--dir",
        text(&home),
    ];
    let refused = failure_line("tidegate", &wrong);
    assert!(refused.contains("no cohort ring=even is held"), "{refused}");
    std::fs::write(&mended, "").unwrap();
    world.tidegate(&["rollout", "release-cohort", "some", "ring=odd"]);
    world.wait_for("the fourth has it", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 5)
    });
}
