//! A success counts as long as its site does not see the node silent.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use proptest::prelude::*;
use protocol::feed::Roster;
use protocol::fixtures::{node, node_key, seq, site};
use protocol::limits::WITNESS_LAG;
use protocol::plan::{RolloutPlan, Selector};
use protocol::status::State;
use protocol::witness::{SignedWord, WitnessWord};
use protocol::{NodeId, Verified};
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::{Event, RolloutState, Ticket, Uplink};

/// All in one site.
fn bench(count: u64) -> Bench {
    let mut bench = Bench::new();
    (0..count).for_each(|n| bench.enrol_at(n, Some(site("s1"))));
    (0..count).for_each(|n| {
        let me = bench.presence(n, "s1");
        bench.handle(Event::Located(me));
    });
    told_of(&mut bench, &(0..count).collect::<Vec<_>>());
    bench
}

/// The delegate, node 0, says that these are there.
fn told_of(bench: &mut Bench, members: &[u64]) {
    let members: BTreeSet<NodeId> = members.iter().map(|n| node(*n)).collect();
    let me = bench.presence(0, "s1");
    bench.handle(Event::Uplink(Uplink {
        ticket: Ticket(me.seq.n + (1 << 50)),
        from: node(0),
        me: Some(me),
        roster: Some(Roster {
            joined: members.iter().copied().collect(),
            left: Vec::new(),
            whole: true,
            digest: Roster::digest(&members),
        }),
        statuses: Vec::new(),
        stages: None,
    }));
}

fn says(bench: &mut Bench, witness: u64, at: u64, silent: &[u64]) {
    let mut silent: Vec<NodeId> = silent.iter().map(|n| node(*n)).collect();
    silent.sort_unstable();
    let mut word = SignedWord::unsigned(&WitnessWord {
        witness: node(witness),
        site: site("s1"),
        seq: seq(at),
        silent,
    });
    let fleet = bench.fleet.id();
    word.sign(fleet, &node_key(witness));
    bench.handle(Event::Witnessed(word.verify(fleet).expect("its own")));
}

fn started(bench: &mut Bench) -> Verified<RolloutPlan> {
    bench.start(
        "r",
        vec![draft("all", Selector::Rest, gate(800_000, 5, 20))],
    )
}

fn succeed(bench: &mut Bench, plan: &Verified<RolloutPlan>, nodes: impl IntoIterator<Item = u64>) {
    let nodes: Vec<u64> = nodes.into_iter().collect();
    bench.report(plan, &nodes, State::Succeeded);
}

#[test]
fn a_success_that_its_peers_see_silent_proves_nothing_and_then_counts_as_silent() {
    let mut bench = bench(6);
    let plan = started(&mut bench);
    succeed(&mut bench, &plan, 0..5);
    (0..2).for_each(|n| says(&mut bench, n, 1, &[4]));
    bench.wait(25);
    assert_eq!(
        bench.view("r").state,
        RolloutState::Finished,
        "two of five are no majority"
    );

    let mut bench = self::bench(6);
    let plan = started(&mut bench);
    succeed(&mut bench, &plan, 0..5);
    (0..3).for_each(|n| says(&mut bench, n, 1, &[4]));
    bench.wait(60);
    let view = bench.view("r");
    assert_eq!(
        view.state,
        RolloutState::Running,
        "four of five that are needed"
    );
    assert_eq!(view.counts.applied, 5, "its own word is on record");
    bench.wait(70);
    let view = bench.view("r");
    assert_eq!((view.counts.applied, view.counts.failed), (4, 1), "silent");
    // It comes back, and so does its success.
    (0..2).for_each(|n| says(&mut bench, n, 2, &[]));
    let view = bench.view("r");
    assert_eq!((view.counts.applied, view.counts.failed), (5, 0));
    bench.wait(25);
    assert_eq!(bench.view("r").state, RolloutState::Finished);
}

#[test]
fn who_goes_long_after_its_success_goes_in_peace() {
    let mut bench = bench(6);
    let plan = bench.start(
        "r",
        vec![draft("all", Selector::Rest, gate(800_000, 6, 20))],
    );
    succeed(&mut bench, &plan, 0..5);
    bench.wait(20 + WITNESS_LAG.as_millis() / 1000 + 1);
    let all: Vec<u64> = (0..6).collect();
    told_of(&mut bench, &all);
    (0..4).for_each(|n| says(&mut bench, n, 1, &[4]));
    succeed(&mut bench, &plan, [5]);
    bench.wait(25);
    assert_eq!(bench.view("r").state, RolloutState::Finished);
}

#[test]
fn who_is_missed_before_it_claims_its_success_is_not_believed_either() {
    let mut bench = bench(6);
    let plan = started(&mut bench);
    (0..3).for_each(|n| says(&mut bench, n, 1, &[4]));
    succeed(&mut bench, &plan, 0..5);
    bench.wait(60);
    assert_eq!(bench.view("r").state, RolloutState::Running);
}

#[test]
fn a_delegate_that_tells_of_its_friends_only_makes_no_majority() {
    let mut bench = bench(10);
    let plan = started(&mut bench);
    succeed(&mut bench, &plan, 0..10);
    told_of(&mut bench, &[0, 1, 2, 9]);
    (0..3).for_each(|n| says(&mut bench, n, 1, &[9]));
    bench.wait(25);
    assert_eq!(bench.view("r").state, RolloutState::Finished);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever a minority of a site says in whatever order, the good rollout goes through.
    #[test]
    fn a_hostile_minority_fails_no_good_rollout(
        size in 4u64..12,
        words in prop::collection::vec((any::<u8>(), 1u64..40, prop::collection::btree_set(0u64..12, 0..12)), 0..60),
    ) {
        let mut bench = bench(size);
        bench.audit = false;
        let plan = started(&mut bench);
        // Of the others of any node, half at most.
        let hostile = (size - 1) / 2;
        let mut words = words.into_iter();
        for n in 0..size {
            for (witness, at, silent) in words.by_ref().take(4) {
                let silent: Vec<u64> = silent.into_iter().collect();
                says(&mut bench, u64::from(witness) % hostile, at, &silent);
            }
            succeed(&mut bench, &plan, [n]);
        }
        bench.wait(25);
        prop_assert_eq!(bench.view("r").state, RolloutState::Finished);
        bench.check();
    }
}
