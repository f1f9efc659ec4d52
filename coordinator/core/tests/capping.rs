//! No UTC day sees more starts than its cap: the plan's, and the fleet's over all rollouts.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::fixtures::node;
use protocol::orders::OrderBody;
use protocol::plan::Priority;
use protocol::plan::Selector::{Count, Percent, Rest};
use protocol::positions::position;
use protocol::status::{State, WaitingFor};
use protocol::{Hash, NodeId, Now, Span, Time, Verified, plan::RolloutPlan};
use support::{Bench, config, draft, gate};
use tidegate_coordinator_core::contract::{Command, Config, LedgerEvent, RolloutState};
use tidegate_coordinator_core::engine::{RolloutEngine, Step};
use tidegate_coordinator_core::presets::Preset;

const DAY: u64 = 86_400;

/// What a node does with its leave.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// It is never on.
    Off,
    /// It starts so many minutes after it got leave, and is heard of so many minutes after that.
    After(u64, u64),
    /// It starts at the first of these hours of a week after it got leave.
    Window(u64),
    /// It has the release already.
    HasIt,
}

fn habit() -> impl Strategy<Value = Habit> {
    prop_oneof![
        1 => Just(Habit::Off),
        8 => (0u64..3000, 0u64..120).prop_map(|(after, word)| Habit::After(after, word)),
        4 => (0u64..168).prop_map(Habit::Window),
        1 => Just(Habit::HasIt),
    ]
}

fn engine(nodes: u64, cap: u32) -> (RolloutEngine, Now) {
    let mut bench = Bench::new();
    bench.audit = false;
    (0..nodes).for_each(|n| bench.enrol(n));
    let release = bench.publish("1", 1);
    let waves = vec![
        draft("first", Count(3), gate(0, 1, 1)),
        draft("half", Percent(50), gate(0, 1, 1)),
        draft("rest", Rest, gate(0, 1, 1)),
    ];
    let mut proposal = bench.proposal("r", release.digest(), waves);
    proposal.constraints.starts_per_day = Some(cap);
    // silence is patient: nobody who has leave is given up while the trial lasts
    for wave in &mut proposal.waves {
        wave.gate.silence_after = Span::from_secs(100 * DAY);
    }
    proposal.not_after = bench.now.wall + Span::from_secs(400 * DAY);
    proposal.lease_ttl = Span::from_secs(3 * DAY);
    let mut test = Preset::Normal.test();
    test.in_flight_max = 40;
    proposal.test = Some(test);
    let engine = bench.conductor.engine(&proposal, Hash::of(b"salt"));
    (engine.expect("a sound proposal"), bench.now)
}

/// When a node with leave since `given` starts.
fn starts(habit: Habit, given: Time) -> Option<Time> {
    let hour = 3_600_000;
    match habit {
        Habit::Off | Habit::HasIt => None,
        Habit::After(minutes, _) => Some(given + Span::from_secs(minutes * 60)),
        Habit::Window(of_week) => {
            let open = (0..=168).map(|n| Time((given.0 / hour + 1 + n) * hour));
            open.into_iter().find(|at| at.0 / hour % 168 == of_week)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_day_sees_more_starts_than_the_cap_and_all_get_their_day(
        habits in prop::collection::vec(habit(), 4..40),
        cap in 1u32..20,
        from in 0u64..DAY,
    ) {
        let cap = cap.max(habits.len() as u32 / 12);
        let (mut engine, start) = engine(habits.len() as u64, cap);
        let plan = engine.plan().clone();
        let waves: BTreeMap<NodeId, u32> = engine.targets().collect();
        let at = |n: &NodeId| position(&plan.salt, &plan.release, n);
        let mut leave = (0, Some(0));
        let mut given: BTreeMap<usize, Time> = BTreeMap::new();
        // what happens at nodes, and what is heard of it: by the minute
        let mut heard: Vec<(Time, usize, State)> = Vec::new();
        let mut by_day: BTreeMap<u64, u32> = BTreeMap::new();
        for (n, habit) in habits.iter().enumerate() {
            match habit {
                Habit::Off => {}
                // whoever has leave and does not start at once says what it waits for
                Habit::Window(_) => heard.push((start.wall, n, State::Waiting(WaitingFor::Window))),
                Habit::After(..) => heard.push((start.wall, n, State::Waiting(WaitingFor::Deferral))),
                Habit::HasIt => heard.push((start.wall, n, State::Staged)),
            }
        }
        let mut now = Now { boot: start.boot + Span::from_secs(from), wall: start.wall + Span::from_secs(from) };
        let end = now.wall + Span::from_secs(150 * DAY);
        for _ in 0..5000 {
            let due: Vec<_> = heard.extract_if(.., |(at, ..)| *at <= now.wall).collect();
            due.iter().for_each(|(_, n, state)| engine.heard(now, &node(*n as u64), *state));
            while let Some(step) = engine.step(now) {
                prop_assert!(!matches!(step, Step::Held(_)));
                if let Step::Lease { wave, below, .. } = step {
                    leave = (wave, below);
                }
                for (n, habit) in habits.iter().enumerate() {
                    let id = node(n as u64);
                    let wave = waves[&id];
                    let has = wave < leave.0 || (wave == leave.0 && leave.1.is_none_or(|b| at(&id) < b));
                    if !has || given.contains_key(&n) {
                        continue;
                    }
                    given.insert(n, now.wall);
                    if let Some(begins) = starts(*habit, now.wall) {
                        *by_day.entry(begins.0 / 1000 / DAY).or_default() += 1;
                        let word = match habit { Habit::After(_, word) => *word, _ => 1 };
                        heard.push((begins + Span::from_secs(word * 60), n, State::Installing));
                        heard.push((begins + Span::from_secs((word + 5) * 60), n, State::Succeeded));
                    }
                    if matches!(habit, Habit::HasIt) {
                        heard.push((now.wall, n, State::AlreadyInstalled));
                    }
                }
            }
            let wakes = engine.wakes_at(now).map(|boot| now.wall + boot.since(now.boot));
            let next = heard.iter().map(|(at, ..)| *at).chain(wakes).min().unwrap_or(Time::MAX);
            let step = next.since(now.wall).0.max(60_000);
            now = Now { boot: now.boot + Span(step.min(DAY * 1000)), wall: now.wall + Span(step.min(DAY * 1000)) };
            if now.wall > end {
                break;
            }
        }
        for (day, starts) in &by_day {
            prop_assert!(*starts <= cap, "{starts} starts on day {day}, and the cap is {cap}");
        }
        // nodes that are never on let no wave pass, and hold nobody of theirs up for ever
        if !habits.iter().any(|h| matches!(h, Habit::Off)) {
            prop_assert_eq!(engine.counts().applied as usize, habits.len());
        }
    }
}

fn capped(starts_per_day: u32) -> Bench {
    let capped = |fleet: &protocol::fixtures::Fleet| Config {
        starts_per_day: Some(starts_per_day),
        ..config(fleet)
    };
    let mut bench = Bench::of(capped);
    bench.audit = false;
    (0..12).for_each(|n| bench.enrol(n));
    bench.audit = true;
    bench
}

/// A rollout to everyone at once.
fn begin(
    bench: &mut Bench,
    id: &str,
    cap: Option<u32>,
    priority: Priority,
) -> Verified<RolloutPlan> {
    let release = bench.publish(&format!("{id}-1"), bench.ledger.len() as u64 + 1);
    let waves = vec![draft("all", Rest, gate(500_000, 1, 1))];
    let mut proposal = bench.proposal(id, release.digest(), waves);
    proposal.priority = priority;
    proposal.constraints.starts_per_day = cap;
    proposal.lease_ttl = Span::from_secs(DAY / 4);
    proposal.test = Some(Preset::Normal.test());
    proposal.not_after = bench.now.wall + Span::from_secs(30 * DAY);
    let plan = bench.plan(proposal);
    let plan = bench.approve(&plan);
    bench.done(Command::Start(plan.rollout.clone()));
    plan
}

/// The nodes that have leave by the newest lease.
fn with_leave(bench: &Bench, plan: &Verified<RolloutPlan>) -> Vec<u64> {
    let lease = bench
        .issued
        .iter()
        .rev()
        .find_map(|order| match &order.body {
            OrderBody::GoLease { rollout, below, .. } if *rollout == plan.rollout => Some(*below),
            _ => None,
        });
    let at = |n: &u64| position(&plan.salt, &plan.release, &node(*n));
    let has = |n: &u64| lease.is_some_and(|below| below.is_none_or(|below| at(n) < below));
    (0..12).filter(has).collect()
}

#[test]
fn rollouts_share_the_days_of_the_fleet_and_say_what_they_wait_for() {
    let mut bench = capped(5);
    let first = begin(&mut bench, "first", Some(3), Priority::Medium);
    let second = begin(&mut bench, "second", None, Priority::Medium);
    let (ours, theirs) = (with_leave(&bench, &first), with_leave(&bench, &second));
    assert_eq!((ours.len(), theirs.len()), (3, 2));
    let waits = bench.view("first").waits.expect("it waits");
    assert!(waits.starts_with("its plan's 3 starts a day are given: 0 of its nodes started today and 3 more may; others wait until "), "{waits}");
    let waits = bench.view("second").waits.expect("it waits");
    assert!(
        waits.starts_with("the fleet's starts a day are given: "),
        "{waits}"
    );
    // whoever starts keeps its place in the day, and a restart forgets nothing
    bench.report(&first, &ours, State::Succeeded);
    bench.restart();
    bench.wait(60);
    assert_eq!(with_leave(&bench, &first).len(), 3);
    assert_eq!(with_leave(&bench, &second).len(), 2);
    // leave of yesterday that nobody used counts tomorrow
    bench.wait(DAY);
    assert_eq!(with_leave(&bench, &first).len(), 6);
    assert_eq!(with_leave(&bench, &second).len(), 2);
    let dawned = |e: &&LedgerEvent| matches!(e, LedgerEvent::Dawned { .. });
    assert_eq!(bench.ledger.iter().filter(dawned).count(), 4);
}

#[test]
fn an_emergency_is_not_held_by_the_fleets_cap_and_takes_its_starts_from_it() {
    let mut bench = capped(5);
    let urgent = begin(&mut bench, "urgent", None, Priority::Emergency);
    let all = with_leave(&bench, &urgent);
    assert_eq!(all.len(), 12);
    bench.report(&urgent, &all, State::Succeeded);
    bench.wait(60);
    assert_eq!(bench.state("urgent"), RolloutState::Finished);
    let other = begin(&mut bench, "other", None, Priority::High);
    assert_eq!(with_leave(&bench, &other).len(), 0);
    bench.wait(DAY);
    assert_eq!(with_leave(&bench, &other).len(), 5);
}

#[test]
fn machines_that_nobody_switches_on_use_up_no_day() {
    let mut bench = capped(4);
    let plan = begin(&mut bench, "r", None, Priority::Medium);
    assert_eq!(with_leave(&bench, &plan).len(), 4);
    bench.wait(DAY);
    assert_eq!(
        with_leave(&bench, &plan).len(),
        4,
        "they may start today as well"
    );
    bench.wait(DAY);
    assert_eq!(
        with_leave(&bench, &plan).len(),
        8,
        "they had leave for a whole day"
    );
}

#[test]
fn a_plan_without_a_test_cannot_keep_to_a_cap() {
    let mut bench = capped(5);
    let release = bench.publish("1", 1);
    let waves = vec![draft("all", Rest, gate(500_000, 1, 1))];
    let proposal = bench.proposal("r", release.digest(), waves);
    let refused = format!("{:?}", bench.propose(proposal.clone()));
    assert!(refused.contains("sequential test"), "{refused}");
    let mut bench = Bench::new();
    bench.enrol(0);
    let release = bench.publish("1", 1);
    let mut proposal = bench.proposal("r", release.digest(), proposal.waves);
    proposal.constraints.starts_per_day = Some(1);
    let refused = format!("{:?}", bench.propose(proposal));
    assert!(refused.contains("sequential test"), "{refused}");
}
