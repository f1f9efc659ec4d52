//! Whatever happens in whatever order: the ledger folds to what the conductor shows, and the four
//! counts add up after every single event. The bench checks both after every call.

mod support;

use proptest::prelude::*;
use protocol::Verified;
use protocol::fixtures::{self, rollout};
use protocol::plan::RolloutPlan;
use protocol::plan::Selector::{Count, Percent, Rest};
use protocol::status::{State, WaitingFor};
use support::{Bench, adds_up, draft, gate};
use tidegate_coordinator_core::contract::{Command, Event, LedgerEvent, RolloutState};

#[derive(Clone, Debug)]
enum Do {
    Report(Vec<(u64, State)>),
    Stale(u64),
    Wait(u64),
    Enrol(u64),
    Move(u64, u8),
    Pause,
    Resume,
    Halt,
    Recall,
    Revoke(u64),
    Restart,
}

fn state() -> impl Strategy<Value = State> {
    prop::sample::select(vec![
        State::Received,
        State::Downloading,
        State::Waiting(WaitingFor::Wave),
        State::Installing,
        State::Verifying,
        State::Succeeded,
        State::Succeeded,
        State::Succeeded,
        State::AlreadyInstalled,
        State::Failed,
        State::RollingBack,
        State::RolledBack,
        State::NotApplicable,
        State::Cancelled,
        State::Superseded,
    ])
}

fn deed() -> impl Strategy<Value = Do> {
    prop_oneof![
        8 => proptest::collection::vec((0u64..14, state()), 1..6).prop_map(Do::Report),
        1 => (0u64..14).prop_map(Do::Stale),
        4 => prop::sample::select(vec![1u64, 10, 40, 130]).prop_map(Do::Wait),
        1 => (0u64..14).prop_map(Do::Enrol),
        1 => (0u64..14, 1u8..4).prop_map(|(n, s)| Do::Move(n, s)),
        1 => Just(Do::Pause),
        2 => Just(Do::Resume),
        1 => prop::sample::select(vec![Do::Halt, Do::Recall, Do::Restart, Do::Restart]),
        1 => (0u64..14).prop_map(Do::Revoke),
    ]
}

fn perform(bench: &mut Bench, plan: &Verified<RolloutPlan>, deed: &Do) {
    let id = || rollout("r");
    match deed {
        Do::Report(list) => {
            let statuses = list
                .iter()
                .map(|(n, s)| bench.status(plan, *n, *s))
                .collect();
            bench.uplink(statuses);
        }
        Do::Stale(n) => {
            let mut status = bench.status(plan, *n, State::Failed);
            status.seq = fixtures::seq(0);
            bench.uplink(vec![status]);
        }
        Do::Wait(seconds) => bench.wait(*seconds),
        Do::Enrol(n) => bench.enrol(*n),
        Do::Move(n, to) => {
            let me = bench.presence(*n, &format!("s{to}"));
            bench.handle(Event::Located(me));
        }
        Do::Pause => drop(bench.command(Command::Pause(id(), "p".into()))),
        Do::Resume => drop(bench.command(Command::Resume(id()))),
        Do::Halt => drop(bench.command(Command::Halt(id(), "h".into()))),
        Do::Recall => {
            let recall = bench.recall(plan);
            bench.command(Command::Recall(recall));
        }
        Do::Revoke(n) => {
            // node 0 carries the uplinks
            if *n != 0 {
                let node = fixtures::node(*n);
                bench.command(Command::Revoke {
                    node,
                    reason: "lost".into(),
                });
            }
        }
        Do::Restart => bench.restart(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_ledger_is_the_truth(deeds in proptest::collection::vec(deed(), 1..40)) {
        let mut bench = Bench::with_nodes(10);
        let plan = bench.start("r", vec![
            draft("first", Count(2), gate(800_000, 2, 5)),
            draft("half", Percent(50), gate(700_000, 3, 5)),
            draft("rest", Rest, gate(500_000, 4, 5)),
        ]);
        for deed in &deeds {
            perform(&mut bench, &plan, deed);
            adds_up(&bench.conductor);
            // every open wave but the newest passed before, unless it failed later
            let view = bench.view("r");
            let open = view.waves.iter().filter(|w| w.opened_at.is_some()).count();
            prop_assert!(view.waves.iter().take(open).all(|w| w.opened_at.is_some()));
            // no lease names a wave that is not open, and none is given while held
            if let Some(kind) = bench.kinds(0).last()
                && matches!(view.state, RolloutState::Held | RolloutState::Paused)
            {
                prop_assert_eq!(kind.as_str(), "halt");
            }
        }
        bench.restart();
    }
}

#[test]
fn a_large_fleets_start_takes_one_small_entry() {
    // the origin of the bench is one of these numbers, and no target
    let mut bench = Bench::with_nodes(9_004);
    bench.audit = false;
    let waves = vec![
        draft("first", Count(5), gate(0, 1, 0)),
        draft("half", Percent(50), gate(0, 1, 0)),
        draft("rest", Rest, gate(0, 1, 0)),
    ];
    bench.start("r", waves);
    let began = |event: &&LedgerEvent| matches!(event, LedgerEvent::Enlisted { .. });
    let entries: Vec<_> = bench.ledger.iter().filter(began).collect();
    let [LedgerEvent::Enlisted { except, waves, .. }] = entries[..] else {
        panic!("not one entry but {entries:?}");
    };
    assert_eq!(except, &[fixtures::node(9001)]);
    let targets: Vec<u32> = bench.view("r").waves.iter().map(|w| w.targets).collect();
    assert_eq!(waves, &targets);
    assert_eq!(targets.iter().sum::<u32>(), 9_003);
    let bytes = serde_json::to_vec(entries[0]).expect("written").len();
    assert!(bytes < 500, "{bytes} bytes name no node but the origin");
    bench.check();
}
