//! Who needs a release is asked of the fleet and counted, whatever is rolled out.

mod support;

use std::collections::BTreeMap;

use protocol::Hash;
use protocol::fixtures::{Fleet, node, node_key, seq};
use protocol::inventory::{Need, NodeInventory, SignedInventory};
use protocol::limits::{ASSESSMENT_LIFE, ASSESSMENTS_MAX};
use protocol::orders::OrderBody;
use support::Bench;
use tidegate_coordinator_core::contract::{Command, CommandError, Event, NeedCounts};

/// A published release; `n` also is its counter.
fn publish(bench: &mut Bench, n: u64) -> Hash {
    let release = bench.fleet.release(&format!("p{n}"), "1", n);
    let release = bench.fleet.verified(&release);
    bench.done(Command::Publish(release.clone()));
    release.digest()
}

fn answer(bench: &mut Bench, n: u64, number: u64, release: &Hash, value: &str) {
    let inventory = NodeInventory {
        node: node(n),
        seq: seq(number),
        labels: BTreeMap::new(),
        attributes: BTreeMap::from([(Need::attribute(release), value.to_owned())]),
    };
    let mut signed = SignedInventory::unsigned(&inventory);
    let fleet = Fleet::new(1).id();
    signed.sign(fleet, &node_key(n));
    bench.handle(Event::Inventory(signed.verify(fleet).expect("its own")));
}

/// The releases that the newest bulletin names.
fn asked(bench: &Bench) -> Vec<Hash> {
    let bulletins = bench
        .issued
        .iter()
        .rev()
        .find_map(|order| match &order.body {
            OrderBody::Bulletin(bulletin) => Some(bulletin),
            _ => None,
        });
    let bulletin = bulletins.expect("a bulletin was given");
    bulletin.assess.iter().map(|a| a.release).collect()
}

fn counts(bench: &Bench, release: &Hash) -> Option<NeedCounts> {
    let view = bench.conductor.assessment(release)?;
    let of_sites = NeedCounts::sum(view.sites.iter().map(|(_, counts)| counts));
    assert_eq!(of_sites, view.counts, "sites add up");
    Some(view.counts)
}

#[test]
fn the_fleet_is_asked_by_the_bulletin_and_every_node_is_in_one_count() {
    let mut bench = Bench::with_nodes(10);
    let release = publish(&mut bench, 1);
    assert_eq!(counts(&bench, &release), None, "nobody asked");
    bench.done(Command::Assess(release));
    assert_eq!(asked(&bench), [release]);
    answer(&mut bench, 1, 1, &release, "needs");
    answer(&mut bench, 2, 1, &release, "already_installed");
    answer(&mut bench, 3, 1, &release, "not_applicable");
    answer(&mut bench, 4, 1, &release, "perhaps");
    // Another release's answer is none to this one.
    answer(&mut bench, 5, 1, &Hash::of(b"another"), "needs");
    // The newest word counts.
    answer(&mut bench, 6, 2, &release, "already_installed");
    answer(&mut bench, 6, 1, &release, "needs");
    bench.done(Command::Revoke {
        node: node(7),
        reason: "stolen".into(),
    });
    bench.restart();
    let expected = NeedCounts {
        needs: 1,
        already_installed: 2,
        not_applicable: 1,
        no_answer: 5,
    };
    assert_eq!(counts(&bench, &release), Some(expected));
    assert!(
        bench.conductor.rollouts().is_empty(),
        "nothing is rolled out"
    );

    bench.done(Command::EndAssessment(release));
    assert_eq!((asked(&bench), counts(&bench, &release)), (vec![], None));
    let again = bench.refused(Command::EndAssessment(release));
    assert!(matches!(again, CommandError::Limit(_)), "{again}");
}

#[test]
fn a_question_ends_by_itself_and_there_are_only_so_many() {
    let mut bench = Bench::with_nodes(3);
    let releases: Vec<Hash> = (0..=ASSESSMENTS_MAX as u64)
        .map(|n| publish(&mut bench, n + 1))
        .collect();
    let (last, first) = releases.split_last().expect("some");
    for release in first {
        bench.done(Command::Assess(*release));
    }
    let refused = bench.refused(Command::Assess(*last));
    assert!(
        refused.to_string().contains("are assessed already"),
        "{refused}"
    );
    // Asking again takes no room.
    bench.done(Command::Assess(first[0]));
    let unknown = Hash::of(b"unknown");
    let refused = bench.refused(Command::Assess(unknown));
    assert_eq!(refused, CommandError::NoRelease(unknown));

    bench.audit = false;
    let last_second = ASSESSMENT_LIFE.as_millis() / 1000 - 1;
    bench.wait(last_second);
    assert_eq!(asked(&bench).len(), ASSESSMENTS_MAX);
    bench.wait(1);
    assert!(asked(&bench).is_empty(), "{:?}", asked(&bench));
    bench.done(Command::Assess(*last));
    assert_eq!(asked(&bench), [*last]);
}
