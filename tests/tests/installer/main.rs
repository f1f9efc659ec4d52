//! A node without privileges and the process that installs for it: they install together, survive the death
//! of either, and whoever took over the node's side gets nothing installed that was not signed.

mod stand;
mod stolen;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tidegate_tests::pair::split;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_release_installs_through_the_pair_and_either_may_die() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 1,
        wan: "200mbit",
    });
    let mut pair = split(&mut world, 0);
    let log = world.path("logs").join("installer.log");
    let tree = world.path("1.0");
    trees::make(&tree, 1, 1 << 20);
    let health = ["--health-check", "./run.sh", "--health-soak", "100ms"];
    world.publish(&tree, "1.0", &health);
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("the node waits for its installer and says so", |w| {
        w.why(0).contains("the privileged installer at ")
    });
    pair.start(&log);
    world.wait_for("the release is installed", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    assert!(!world.why(0).contains("the privileged installer at "));
    assert_eq!(pair.installed_version().as_deref(), Some("1.0"));
    trees::assert_same(&tree, &pair.current().join("."));
    assert_eq!(
        world.installed_version(0),
        None,
        "the node installs nothing"
    );
    if let Some(user) = world.nodes[0].user {
        let made = std::fs::metadata(pair.current().join("run.sh")).expect("installed");
        assert_ne!(made.uid(), user, "the node owns nothing of it");
    }

    // The installer dies in the pre hook of the second, and the node in that of the second attempt.
    let ran = world.path("ran");
    let hook = format!("echo $TIDEGATE_ATTEMPT >> {}; sleep 2", text(&ran));
    let tree = world.path("2.0");
    trees::make(&tree, 2, 1 << 20);
    world.publish(
        &tree,
        "2.0",
        &[&health[..], &["--pre-hook", &hook]].concat(),
    );
    let id = world.roll_out("2.0", &["rest"]);
    world.wait_for("the hook runs", |_| lines(&ran).len() == 1);
    pair.kill();
    pair.start(&log);
    world.wait_for("the hook runs in another attempt", |_| {
        lines(&ran).len() == 2
    });
    world.kill_node(0);
    world.start_node(0);
    world.wait_for("the release is installed", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    assert_eq!(lines(&ran), ["1", "2", "3"], "once in each attempt");
    assert_eq!(pair.installed_version().as_deref(), Some("2.0"));
    trees::assert_same(&tree, &pair.current().join("."));

    for operator in ["op1", "op2", "op3"] {
        let key = world.key(operator);
        let recall = ["rollout", "recall", "app-2.0", "--key", &key];
        world.tidegate(&[&recall[..], &["--reason", "a regression"]].concat());
    }
    world.wait_for("the release is taken back", |_| {
        pair.installed_version().as_deref() == Some("1.0")
    });
    trees::assert_same(&world.path("1.0"), &pair.current().join("."));
}

/// A recipe is at work when the installer dies: its detect rule decides, and no step runs twice in vain.
#[test]
fn an_installer_that_dies_in_a_switch_looks_first_and_installs_once() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 1,
        wan: "200mbit",
    });
    let mut pair = split(&mut world, 0);
    let log = world.path("logs").join("installer.log");
    pair.start(&log);
    let tree = world.path("tree");
    trees::make(&tree, 3, 100 << 10);
    let (ran, done) = (world.path("ran"), world.path("done"));
    // What it does is done before its end: the rest of the step is waiting.
    let step = format!("echo ran >> {}; touch {}; sleep 3", text(&ran), text(&done));
    let recipe = serde_json::json!({
        "steps": [["sh", "-c", step]],
        "detect": ["test", "-e", text(&done)],
        "undo": [["rm", text(&done)]],
    });
    let file = world.path("recipe.json");
    std::fs::write(&file, recipe.to_string()).expect("written");
    world.publish(&tree, "1.0", &["--recipe", text(&file)]);
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("the recipe runs", |_| done.exists());
    pair.kill();
    pair.start(&log);
    world.wait_for("the release is installed", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    assert_eq!(lines(&ran), ["ran"], "once");
}
