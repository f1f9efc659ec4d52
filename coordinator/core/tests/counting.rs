//! The four counts are kept as statuses come in, never counted anew. Here they are compared with a slow
//! recount, whatever the way does to the statuses: lost, repeated, out of order.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::fixtures::{self, site};
use protocol::plan::Selector::{Count, Percent, Rest};
use protocol::status::{Bucket, NodeStatus, Reachability, State, WaitingFor, bucket};
use support::{Bench, adds_up, draft, gate};
use tidegate_coordinator_core::contract::Counts;

const NODES: u64 = 16;

/// What a node goes through, one register after the other.
fn path() -> impl Strategy<Value = Vec<State>> {
    let begin = [
        State::Received,
        State::Downloading,
        State::Staged,
        State::Waiting(WaitingFor::Wave),
        State::Installing,
        State::Verifying,
    ];
    let end = prop::sample::select(vec![
        State::Succeeded,
        State::Succeeded,
        State::AlreadyInstalled,
        State::RolledBack,
        State::Failed,
        State::NotApplicable,
        State::Superseded,
        State::Held,
    ]);
    (0..begin.len(), end).prop_map(move |(skipped, end)| {
        let states = begin[skipped..].iter().copied();
        states.chain([end]).collect()
    })
}

/// What the newest register of each node adds up to, wave by wave, counted one by one.
fn recount(bench: &Bench, arrived: &BTreeMap<u64, NodeStatus>, waves: usize) -> Vec<Counts> {
    let plan = bench
        .conductor
        .plan(&fixtures::rollout("r"))
        .expect("there");
    let mut counts = vec![Counts::default(); waves];
    for n in 0..NODES {
        let at = site(&Bench::site_of(n));
        let wave = plan
            .wave_of(&fixtures::node(n), Some(&at))
            .expect("a target");
        let state = arrived.get(&n).map_or(State::NotReceived, |s| s.state);
        counts[wave as usize].add(bucket(state, Reachability::Reachable));
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn counts_equal_a_recount_whatever_the_way_does(
        paths in proptest::collection::vec(path(), NODES as usize),
        way in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..10), 10..160),
        batch in 1usize..9,
    ) {
        let mut bench = Bench::with_nodes(NODES);
        bench.audit = false;
        // no gate fails and nobody falls silent: what is compared is the counting
        let plan = bench.start("r", vec![
            draft("first", Count(3), gate(0, 3, 5)),
            draft("half", Percent(50), gate(0, 3, 5)),
            draft("rest", Rest, gate(0, 3, 5)),
        ]);
        let mut sent = Vec::new();
        for (n, path) in (0u64..).zip(&paths) {
            for state in path {
                let status = bench.status(&plan, n, *state);
                sent.push((n, status));
            }
        }
        let mut arrived: BTreeMap<u64, NodeStatus> = BTreeMap::new();
        // any order, some never, some twice; then what was lost is sent again
        let drawn = way.iter().filter(|(_, luck)| *luck > 1).map(|(at, _)| at.get(&sent).clone());
        let deliveries: Vec<_> = drawn.chain(sent.iter().rev().cloned()).collect();
        for delivery in deliveries.chunks(batch) {
            bench.uplink(delivery.iter().map(|(_, status)| status.clone()).collect());
            for (n, status) in delivery {
                let held = arrived.entry(*n).or_insert_with(|| status.clone());
                if held.seq < status.seq {
                    *held = status.clone();
                }
            }
            adds_up(&bench.conductor);
            let view = bench.view("r");
            let counted: Vec<Counts> = view.waves.iter().map(|w| w.counts).collect();
            prop_assert_eq!(&counted, &recount(&bench, &arrived, counted.len()));
        }
        for (n, path) in (0u64..).zip(&paths) {
            prop_assert_eq!(Some(&arrived[&n].state), path.last(), "node {}", n);
        }
        let ended = paths.iter().filter_map(|p| p.last());
        let out = ended.filter(|s| bucket(**s, Reachability::Reachable) == Bucket::Out).count();
        prop_assert_eq!(bench.view("r").targets as usize, NODES as usize - out);
        bench.check();
    }
}
