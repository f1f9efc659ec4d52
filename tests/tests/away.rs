//! A node that was away for long: its certificate is over, the root went on by three versions, and of the
//! twelve releases that it missed it needs one barrier and the newest.

use std::time::{Duration, SystemTime};

use protocol::RolloutId;
use tidegate_tests::rotation::rotate;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

/// Certificates hold for so long here; elsewhere it is a year.
const LIFE: Duration = Duration::from_secs(30);
/// The one that everybody has to come by.
const BARRIER: u32 = 5;
/// The newest.
const LAST: u32 = 14;
/// Round trips, one after the other, for roots, orders, plans and releases, from its start until it has the newest.
const TRIPS_MAX: u64 = 10;

#[test]
fn who_was_away_for_long_walks_the_roots_and_installs_the_barrier_and_the_newest() {
    let mut world = World::coordinator_only(&WorldOptions {
        sites: 1,
        nodes_per_site: 0,
        wan: "200mbit",
    });
    world.configure("certificate_life", (LIFE.as_millis() as u64).into());
    let stays = world.add_node("site-1", "127.1.0.1");
    let away = world.add_node("site-1", "127.1.0.2");
    let tree = world.path("tree");
    trees::make(&tree, 90, 1 << 18);
    world.publish(&tree, "1.0", &[]);
    let first = world.roll_out("1.0", &["rest"]);
    world.wait_for("both have 1.0", |w| {
        w.rollout(&first)
            .is_some_and(|v| (v.counts.applied, v.targets) == (2, 2))
    });
    world.kill_node(away);
    let left = SystemTime::now();

    let public = world.home().join("keys/releases.pub");
    let public = format!("topology={}", text(&public));
    rotate(&world, "root-2", &["--add", &public]);
    rotate(&world, "root-3", &["--remove", &public]);
    rotate(&world, "root-4", &["--add", &public]);
    let rollouts: Vec<RolloutId> = (1..=LAST)
        .map(|n| {
            let version = format!("1.{n}");
            let over = format!("app<{version}");
            let mut more = vec!["--supersedes", &over];
            if n == BARRIER {
                more.extend(["--barrier", "its store moves"]);
            }
            world.publish(&tree, &version, &more);
            let id = world.roll_out(&version, &["rest"]);
            world.wait_for("the node that stays has it", |w| {
                w.installed_version(stays).as_deref() == Some(version.as_str())
            });
            id
        })
        .collect();
    world.wait_for("the certificate of the one that is away is over", |_| {
        SystemTime::now() > left + LIFE + Duration::from_secs(1)
    });
    assert_eq!(world.installed_version(away).as_deref(), Some("1.0"));

    world.start_node(away);
    world.wait_for("it has the newest", |w| {
        w.installed_version(away).as_deref() == Some(&*format!("1.{LAST}"))
    });
    let applied = |w: &World, n: u32| {
        let view = w.rollout(&rollouts[n as usize - 1])?;
        Some((view.counts.applied, view.targets))
    };
    world.wait_for("the counts say which it had", |w| {
        (1..=LAST).all(|n| {
            let both = n == BARRIER || n == LAST;
            applied(w, n) == Some(if both { (2, 2) } else { (1, 1) })
        })
    });
    let report = world.node_report(away).expect("it answers");
    assert_eq!(report["root_version"], 4);
    let trips = &report["snapshot"]["trips"];
    let rounds = trips["rounds"].as_u64().expect("it tells");
    assert!((1..=TRIPS_MAX).contains(&rounds), "{trips}");
    world.tidegate(&["audit", "verify"]);
}
