//! Hooks, a restart of the machine and failures that are tried again, through real processes.

use coordinator::api::messages::StatusView;
use coordinator_core::contract::RolloutState;
use protocol::RolloutId;
use protocol::status::State;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

const ONE_NODE: WorldOptions = WorldOptions {
    sites: 1,
    nodes_per_site: 1,
    wan: "200mbit",
};

fn lines(world: &World, name: &str) -> Vec<String> {
    let log = std::fs::read_to_string(world.path(name)).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

/// What the coordinator has of the first node about a rollout.
fn status(world: &World, id: &RolloutId) -> Option<StatusView> {
    let mut views = world.node_views();
    let statuses = views.pop()?.statuses;
    statuses.into_iter().find(|s| s.rollout == *id)
}

#[test]
fn hooks_run_around_the_change_and_the_machine_restarts_before_its_health_counts() {
    let mut world = World::raise(&ONE_NODE);
    let asked = format!("echo restart >> {}", text(&world.path("log")));
    world.describe(0, "restart", vec!["sh", "-c", &asked]);
    let tree = world.path("tree");
    trees::make(&tree, 1, 1 << 20);
    let log = |what: &str| format!("echo {what} >> {}", text(&world.path("log")));
    let (pre, post) = (log("pre $TIDEGATE_ATTEMPT"), log("post $TIDEGATE_ATTEMPT"));
    let health = log("health");
    world.publish(
        &tree,
        "1.0",
        &[
            "--pre-hook",
            &pre,
            "--post-hook",
            &post,
            "--restart",
            "--health-check",
            &health,
            "--health-soak",
            "0s",
        ],
    );
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("the machine is asked to restart", |w| {
        lines(w, "log") == ["pre 1", "post 1", "restart"]
    });
    world.wait_for("the node says so", |w| w.why(0).contains("restart"));
    // A process that starts anew in the same boot is no restart.
    world.kill_node(0);
    world.start_node(0);
    world.wait_for("it is back and goes on waiting", |w| {
        w.why(0).contains("the machine restarts")
    });
    let before = ["pre 1", "post 1", "restart"];
    assert_eq!(lines(&world, "log"), before, "nothing ran a second time");
    world.reboot_node(0, "another boot");
    world.wait_for("the rollout finishes", |w| {
        w.rollout(&id)
            .is_some_and(|v| v.state == RolloutState::Finished && v.counts.applied == 1)
    });
    let ran = lines(&world, "log");
    assert_eq!(ran[..3], before);
    assert!(ran[3..].iter().all(|line| line == "health") && ran.len() > 3);
    assert_eq!(world.installed_version(0).as_deref(), Some("1.0"));
}

#[test]
fn a_post_hook_that_fails_takes_the_change_back_and_a_pre_hook_that_fails_changes_nothing() {
    let world = World::raise(&ONE_NODE);
    let tree = world.path("tree");
    trees::make(&tree, 2, 1 << 20);
    world.publish(&tree, "1.0", &[]);
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("the first release is there", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    let post = "echo the service does not start >&2; exit 7";
    world.publish(&tree, "2.0", &["--post-hook", post]);
    let id = world.roll_out("2.0", &["rest"]);
    world.wait_for("it is taken back", |w| {
        status(w, &id).is_some_and(|s| s.state == State::RolledBack)
    });
    let told = status(&world, &id).expect("a status");
    assert!(told.reason.starts_with("post_hook: "), "{}", told.reason);
    assert_eq!(told.exit_code, Some(7));
    assert!(told.output_tail.contains("does not start"));
    assert_eq!(world.installed_version(0).as_deref(), Some("1.0"));

    world.publish(&tree, "3.0", &["--pre-hook", "echo not now; exit 9"]);
    let id = world.roll_out("3.0", &["rest"]);
    world.wait_for(
        "the node says which class failed and when it tries again",
        |w| {
            let why = w.why(0);
            why.contains("attempt 2 comes in 60 s, at ") && why.contains("after pre_hook: pre hook")
        },
    );
    let told = status(&world, &id).map(|s| s.state);
    assert!(!matches!(
        told,
        Some(State::RollingBack | State::RolledBack)
    ));
    assert_eq!(world.installed_version(0).as_deref(), Some("1.0"));
}
