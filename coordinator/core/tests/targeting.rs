//! Filters over what nodes say of themselves: who becomes a target, and who joins and leaves later.

mod support;

use std::collections::BTreeMap;

use protocol::Verified;
use protocol::fixtures::{node, node_key, rollout, seq};
use protocol::inventory::{NodeInventory, SignedInventory};
use protocol::plan::Selector::{Count, Rest};
use protocol::plan::{Members, RolloutPlan};
use protocol::status::State;
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::{Answer, Command, Event, LedgerEvent};

/// Node `n` says that it runs this version of its system.
fn describe(bench: &mut Bench, n: u64, number: u64, version: &str) {
    let inventory = NodeInventory {
        node: node(n),
        seq: seq(number),
        labels: BTreeMap::from([("ring".into(), "main".into())]),
        attributes: BTreeMap::from([
            ("os.name".into(), "debian".into()),
            ("os.version".into(), version.into()),
        ]),
    };
    let mut signed = SignedInventory::unsigned(&inventory);
    signed.sign(bench.fleet.id(), &node_key(n));
    let inventory = signed.verify(bench.fleet.id()).unwrap();
    bench.handle(Event::Inventory(inventory));
}

fn inventories(bench: &Bench) -> usize {
    let is_one = |event: &&LedgerEvent| matches!(event, LedgerEvent::Inventory { .. });
    bench.ledger.iter().filter(is_one).count()
}

/// Of nine nodes the first six run 12.9, the others 13; a rollout for what is older than 13 began.
fn begun() -> (Bench, Verified<RolloutPlan>) {
    let mut bench = Bench::with_nodes(9);
    (0..9).for_each(|n| describe(&mut bench, n, 1, if n < 6 { "12.9" } else { "13" }));
    let release = bench.publish("1", 1);
    let waves = [Count(2), Rest].map(|s| draft("w", s, gate(900_000, 1, 0)));
    let mut proposal = bench.proposal("r", release.digest(), waves.to_vec());
    proposal.targets.filter = Some("os.version<13 and not label.kiosk".parse().unwrap());
    let plan = bench.plan(proposal);
    let Members::Nodes(named) = &plan.waves[0].members else {
        panic!("{:?}", plan.waves[0])
    };
    assert_eq!(named.len(), 2, "a counted wave names its nodes in the plan");
    assert!(named.iter().all(|id| (0..6).any(|n| node(n) == *id)));
    let plan = bench.approve(&plan);
    bench.done(Command::Start(rollout("r")));
    (bench, plan)
}

fn targets(bench: &Bench) -> u32 {
    bench.conductor.rollout(&rollout("r")).unwrap().targets
}

#[test]
fn only_nodes_of_which_the_filter_is_true_are_targets() {
    let (bench, _) = begun();
    assert_eq!(targets(&bench), 6);
}

#[test]
fn a_filter_that_means_nobody_is_refused_with_its_text() {
    let mut bench = Bench::with_nodes(3);
    let release = bench.publish("1", 1);
    let waves = vec![draft("w", Rest, gate(900_000, 1, 0))];
    let mut proposal = bench.proposal("r", release.digest(), waves);
    proposal.targets.filter = Some("arch = sparc".parse().unwrap());
    let Answer::Refused(why) = bench.propose(proposal) else {
        panic!("it resolved")
    };
    let expected = "no enrolled node is concerned of which \"arch=sparc\" is true";
    assert!(why.to_string().contains(expected), "{why}");
}

#[test]
fn who_is_another_one_than_before_joins_or_leaves_but_never_midway() {
    let (mut bench, plan) = begun();
    describe(&mut bench, 7, 2, "12.10");
    assert_eq!(targets(&bench), 7, "it was set back");
    describe(&mut bench, 0, 2, "13");
    assert_eq!(targets(&bench), 6, "somebody brought it up to date by hand");
    bench.report(&plan, &[1], State::Verifying);
    describe(&mut bench, 1, 2, "13");
    assert_eq!(
        targets(&bench),
        6,
        "the outcome of what it began still counts"
    );
    bench.report(&plan, &[1], State::Succeeded);
    let view = bench.conductor.rollout(&rollout("r")).unwrap();
    assert_eq!((view.targets, view.counts.applied), (6, 1));
}

#[test]
fn what_is_no_news_is_not_ledgered_and_what_is_older_not_believed() {
    let (mut bench, _) = begun();
    let before = inventories(&bench);
    assert_eq!(before, 9);
    describe(&mut bench, 0, 5, "12.9");
    assert_eq!(inventories(&bench), before, "the same again");
    describe(&mut bench, 0, 6, "13");
    describe(&mut bench, 0, 5, "12.9");
    assert_eq!(inventories(&bench), before + 1, "a replay");
    assert_eq!(targets(&bench), 5);
    describe(&mut bench, 99, 1, "12.9");
    assert_eq!(inventories(&bench), before + 1, "nobody enrolled it");
    assert!(
        bench
            .notes
            .iter()
            .any(|(event, _)| *event == "not_enrolled")
    );
}

#[test]
fn listings_take_filters() {
    let (bench, _) = begun();
    let count = |filter: &str| {
        let filter = filter.parse().unwrap();
        bench.conductor.nodes_where(Some(&filter)).len()
    };
    assert_eq!(count("site=s1"), 3);
    assert_eq!(count("site=s1 and os.version>=13"), 1);
    assert_eq!(count("label.ring=main"), 9);
    assert_eq!(bench.conductor.nodes_where(None).len(), 9);
}
