//! Not a row, but what all of them are for: a third of a site is hostile, and the rest of it ends right.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use protocol::Seq;
use protocol::envelope::Envelope;
use protocol::fixtures::{EXPIRES, Fleet, rollout};
use protocol::orders::{Order, OrderBody};
use tidegate_tests::member::{Manner, Member, fleet_of};
use tidegate_tests::{World, WorldOptions, trees};

/// Orders in this fleet's name with a thief's keys, numbered past everything that the coordinator gives.
fn forged(fleet: protocol::FleetId) -> Vec<Envelope> {
    let thief = Fleet::new(66);
    let release = thief.verified(&thief.release("app", "6.6", 66));
    let plan = thief.verified(&thief.plan("app-6.6", &release, Vec::new()));
    let bodies = [
        OrderBody::Halt {
            rollout: rollout("app-1.0"),
            reason: "forged".into(),
        },
        thief.lease(&plan, 0),
    ];
    let sign = |(n, body): (u64, OrderBody)| {
        let order = Order {
            spec_version: 1,
            fleet,
            seq: Seq { epoch: 9, n },
            issued: EXPIRES,
            body,
        };
        thief.sign(&order)
    };
    (1..).zip(bodies).map(sign).collect()
}

fn head(world: &World, node: usize) -> Option<String> {
    Some(world.node_report(node)?["snapshot"]["orders_head"].to_string())
}

#[test]
fn a_third_of_a_site_is_hostile() {
    let mut world = World::coordinator_only(&WorldOptions {
        sites: 1,
        nodes_per_site: 0,
        wan: "200mbit",
    });
    for (version, seed) in [("1.0", 331), ("2.0", 332)] {
        trees::make(&world.path(version), seed, 2 << 20);
        world.publish(&world.path(version), version, &[]);
    }
    let hostile = ["hostile-1", "hostile-2"].map(|name| world.path(name));
    for (dir, address) in hostile.iter().zip(["127.1.0.8", "127.1.0.9"]) {
        world.enroll("site-1", address, dir);
    }
    let honest: Vec<usize> = (1..=4)
        .map(|place| world.add_node("site-1", &format!("127.1.0.{place}")))
        .collect();
    let orders = forged(fleet_of(&hostile[0]));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let tallies = hostile.each_ref().map(|dir| {
        let member = Member::of(&world, dir, &honest, Manner::Forging(orders.clone()));
        let tally = member.tally();
        runtime.spawn(member.play());
        tally
    });

    for version in ["1.0", "2.0"] {
        let id = world.roll_out_as(&format!("app-{version}"), version, &["rest"], &[]);
        // The two hostile ones are meant too, and say nothing of themselves.
        world.wait_for("every honest node has it, and the count says so", |w| {
            w.rollout(&id)
                .is_some_and(|v| (v.counts.applied, v.targets) == (4, 6))
        });
        for node in &honest {
            trees::assert_same(&world.path(version), &world.current(*node).join("."));
        }
    }
    world.tidegate(&["rollout", "halt", "app-2.0", "--reason", "the last word"]);
    world.wait_for("all honest nodes know the same newest order", |w| {
        let heads: BTreeSet<Option<String>> = honest.iter().map(|n| head(w, *n)).collect();
        let halted = |n: &usize| w.node_report(*n).is_some();
        heads.len() == 1 && !heads.contains(&None) && honest.iter().all(halted)
    });
    let told = head(&world, honest[0]).expect("it answers");
    assert!(!told.contains("\"epoch\":9"), "nobody believed {told}");
    for node in &honest {
        let versions = world.nodes[*node].dir.join("install/app/versions");
        for entry in std::fs::read_dir(versions).expect("installed").flatten() {
            let name = entry.file_name().into_string().expect("a version");
            assert!(
                name.starts_with("1.0") || name.starts_with("2.0"),
                "{name} was approved by nobody"
            );
        }
        assert!(
            world.logged(&format!("node-{node}"), "signature"),
            "a typed event is recorded:\n{}",
            world.logs()
        );
    }
    let asked: u64 = tallies
        .iter()
        .map(|t| t.asked.load(Ordering::Relaxed) + t.questions.load(Ordering::Relaxed))
        .sum();
    assert!(asked > 0, "the hostile ones were asked");
}
