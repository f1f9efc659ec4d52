//! A site's WAN rate holds for the site as a whole: the bytes of all its nodes, counted at their
//! sockets, stay under the cap while several fetchers are at work.

use std::time::Instant;

use tidegate_tests::{World, WorldOptions, trees};

/// 16 Mbit/s in bytes a second: wide enough for several fetchers.
const CAP: f64 = 2_000_000.0;

/// Bytes that a node's data socket took from outside its site, and verified payload bytes of those.
fn wan_bytes(world: &World, number: usize) -> (u64, u64) {
    let Some(report) = world.node_report(number) else {
        return (0, 0);
    };
    let sites = report["traffic"]["sites"].as_array().expect("a list");
    let outside = sites.iter().filter(|s| s["site"] != "site-1");
    outside.fold((0, 0), |(socket, payload), s| {
        let of = |field: &str| s[field].as_u64().expect("a number");
        (socket + of("socket_in"), payload + of("payload_in"))
    })
}

#[test]
fn all_nodes_of_a_site_together_stay_under_its_cap() {
    let world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 4,
        wan: "16mbit",
    });
    let tree = world.path("tree");
    trees::make(&tree, 11, 24 << 20);
    world.publish(&tree, "1.0", &[]);
    let nodes = 0..world.nodes.len();
    let before: u64 = nodes.clone().map(|n| wan_bytes(&world, n).0).sum();
    let since = Instant::now();
    let id = world.roll_out("1.0", &["rest"]);

    // (seconds, bytes at the sockets since the start), sampled until everybody has the release.
    let mut samples = vec![(0.0, 0)];
    loop {
        let sum: u64 = nodes.clone().map(|n| wan_bytes(&world, n).0).sum();
        samples.push((since.elapsed().as_secs_f64(), sum.saturating_sub(before)));
        if world.rollout(&id).is_some_and(|v| v.counts.applied == 4) {
            break;
        }
        assert!(
            since.elapsed() < tidegate_tests::world::PATIENCE,
            "{}",
            world.logs()
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }

    // Why bytes crossed the WAN is said for as many as the counters have.
    let (why, counted) = nodes.clone().fold((0, 0), |(why, counted), n| {
        let report = world.node_report(n).expect("it runs");
        let reasons = report["snapshot"]["standings"][0]["bytes"].as_object();
        let reasons = reasons.expect("bytes by reason").iter();
        let wan = reasons.filter(|(reason, _)| *reason != "peer");
        let wan: u64 = wan
            .map(|(_, bytes)| bytes.as_u64().expect("a number"))
            .sum();
        (why + wan, counted + wan_bytes(&world, n).1)
    });
    assert!(
        why.abs_diff(counted) * 100 <= counted,
        "{why} bytes over the WAN have a reason, and {counted} came"
    );

    let fetchers = nodes.filter(|n| wan_bytes(&world, *n).1 > 1 << 20).count();
    assert!(
        fetchers >= 2,
        "several fetchers were at work, not {fetchers}"
    );
    let total = samples.last().expect("sampled").1;
    assert!(
        total > 12 << 20,
        "the content crossed the WAN: {total} bytes"
    );
    // In every window of two seconds and more: the cap, a twentieth, and what a bucket holds.
    let burst = 0.25 * CAP;
    for (i, (from, base)) in samples.iter().enumerate() {
        for (to, sum) in &samples[i + 1..] {
            if to - from >= 2.0 {
                let bytes = (sum - base) as f64;
                assert!(
                    bytes <= 1.05 * CAP * (to - from) + burst,
                    "{bytes:.0} bytes in {:.2} s are over the cap of {CAP:.0} a second",
                    to - from
                );
            }
        }
    }
}
