//! A member of the site that says it holds everything and then gives a byte a second.

use std::sync::atomic::Ordering;

use tidegate_tests::member::{Manner, Member};
use tidegate_tests::{World, WorldOptions, trees};

#[test]
fn attack_11_slow_retrieval() {
    let mut world = World::coordinator_only(&WorldOptions {
        sites: 1,
        nodes_per_site: 0,
        wan: "8mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 11, 4 << 20);
    world.publish(&tree, "1.0", &[]);
    let dir = world.path("sluggard");
    world.enroll("site-1", "127.1.0.9", &dir);
    let victim = world.add_node("site-1", "127.1.0.1");
    let sluggard = Member::of(&world, &dir, &[victim], Manner::Slow);
    let tally = sluggard.tally();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.spawn(sluggard.play());

    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("the victim has it from elsewhere", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    trees::assert_same(&tree, &world.current(victim).join("."));
    let asked = tally.asked.load(Ordering::Relaxed);
    assert!(asked > 0, "the slow one was asked");
    world.wait_for("what was asked of it is cut", |_| {
        tally.cut.load(Ordering::Relaxed) >= asked
    });
    assert!(
        world.logged(&format!("node-{victim}"), "gave too little of blob"),
        "a typed event is recorded:\n{}",
        world.logs()
    );
    let view = world.rollout(&id).expect("a view");
    assert_eq!(view.counts.failed, 0, "no failure of the release");
}
