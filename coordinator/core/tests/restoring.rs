//! A coordinator whose ledger came from a backup: what the fleet knows better is taken over by its
//! signatures, nothing is ordered before, and the counts come out exact.

mod support;

use protocol::fixtures::{node, rollout};
use protocol::orders::{Order, OrderBody};
use protocol::plan::Selector::{Count, Rest};
use protocol::plan::{Recall, RolloutPlan};
use protocol::status::State;
use protocol::{Seq, Time, Verified};
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::{
    Command, CommandError, Event, LedgerEvent, RolloutState as S, Testimony,
};

fn waves() -> Vec<protocol::plan::WaveDraft> {
    vec![
        draft("first", Count(4), gate(900_000, 4, 10)),
        draft("rest", Rest, gate(900_000, 1, 10)),
    ]
}

/// What a node has that saw the given orders.
fn testimony(bench: &Bench, from: u64, orders: &[Order], plans: &[Verified<RolloutPlan>]) -> Event {
    let recalls = orders.iter().filter_map(|order| match &order.body {
        OrderBody::Recall { statement, .. } => Some(
            bench
                .fleet
                .trust()
                .verify::<Recall>(statement)
                .expect("signed"),
        ),
        _ => None,
    });
    let releases = plans.iter().filter_map(|plan| {
        let view = bench.conductor.document(&plan.release)?;
        bench.fleet.trust().verify(view).ok()
    });
    Event::Testimony(Box::new(Testimony {
        from: node(from),
        orders: orders.iter().map(|o| bench.fleet.verified(o)).collect(),
        recalls: recalls.collect(),
        plans: plans.to_vec(),
        releases: releases.collect(),
        topology: None,
        revoked: Vec::new(),
        barred: None,
    }))
}

/// A backup is taken while `old` runs. Afterwards an operator halts it, and `new` is approved, started
/// and done on the first wave. Then the ledger goes back.
struct Story {
    bench: Bench,
    backup: Vec<LedgerEvent>,
    since: Seq,
    new: Verified<RolloutPlan>,
    old: Verified<RolloutPlan>,
    lost: Vec<Order>,
}

impl Story {
    fn new() -> Story {
        let mut bench = Bench::with_nodes(12);
        let old = bench.start("old", waves());
        let (backup, since) = (bench.ledger.clone(), bench.conductor.orders_head());
        let given = bench.issued.len();
        bench.done(Command::Halt(rollout("old"), "it harms".into()));
        let new = bench.start("new", waves());
        let first = bench.wave(&new, 0, 12);
        bench.report(&new, &first, State::Succeeded);
        bench.wait(30);
        assert_eq!(bench.view("new").waves[0].state, "passed");
        let lost = bench.issued[given..].to_vec();
        Story {
            bench,
            backup,
            since,
            new,
            old,
            lost,
        }
    }

    fn heard(&self, from: u64) -> Event {
        testimony(
            &self.bench,
            from,
            &self.lost,
            std::slice::from_ref(&self.new),
        )
    }

    fn restore(&mut self) {
        self.bench.ledger = self.backup.clone();
        self.bench.ledger.push(LedgerEvent::Restored {
            why: "a backup".into(),
            at: self.bench.now.wall,
        });
        self.bench.restart();
    }
}

#[test]
fn a_restored_ledger_orders_nothing_until_every_site_was_heard() {
    let mut story = Story::new();
    let witness = story.heard(0);
    let others = [story.heard(1), story.heard(2)];
    let given = story.bench.issued.len();
    story.restore();
    let bench = &mut story.bench;
    assert_eq!(bench.state("old"), S::Running, "the backup's truth");
    let refused = bench.refused(Command::Halt(rollout("old"), "again".into()));
    assert!(matches!(refused, CommandError::Listening(600)), "{refused}");
    assert_eq!(bench.conductor.asks_for(story.since), Some(story.since));
    bench.handle(witness);
    for other in others {
        assert_eq!(bench.issued.len(), given, "not even a bulletin");
        bench.handle(other);
    }
    let told = &bench.issued[given..];
    assert!(
        told.iter().all(|o| o.seq.epoch == 2),
        "past all that was known"
    );
    assert_eq!(bench.kinds(given), ["resume", "halt", "lease 1"]);
    assert_eq!(bench.state("old"), S::Aborted, "what stops is believed");
    assert_eq!(bench.state("new"), S::Running);
    assert!(bench.in_bulletin("new"));
    let newest = story.lost.last().expect("orders").seq;
    assert_eq!(bench.conductor.asks_for(newest), Some(story.since));
    let caught_up = bench.conductor.orders_head();
    assert_eq!(bench.conductor.asks_for(caught_up), None);
    assert_eq!(bench.conductor.asks_for(story.since), None);
}

/// A site's node was asked on a busy machine and told what was ordered, but not the plan in time: the epoch
/// began without a rollout that the whole fleet knew, and nobody was asked about it again.
#[test]
fn a_site_that_has_not_brought_a_plan_yet_is_asked_again() {
    let mut story = Story::new();
    let without = [0, 1, 2].map(|from| testimony(&story.bench, from, &story.lost, &[]));
    let witness = story.heard(0);
    let given = story.bench.issued.len();
    story.restore();
    let bench = &mut story.bench;
    without.into_iter().for_each(|heard| bench.handle(heard));
    assert_eq!(bench.issued.len(), given, "it still listens");
    assert_eq!(bench.conductor.asks_for(story.since), Some(story.since));
    bench.handle(witness);
    assert_eq!(bench.kinds(given), ["resume", "halt", "lease 1"]);
    assert_eq!(bench.state("new"), S::Running);
}

/// A node that was enrolled after the backup was named alone for a rollout's first wave. Before it was taken in
/// again the wave had no voters and passed, and the next one opened.
#[test]
fn a_wave_waits_for_the_node_that_the_ledger_lost() {
    let mut story = Story::new();
    let named = story.bench.wave(&story.new, 0, 12)[0];
    let heard = [0, 1, 2].map(|from| story.heard(from));
    story.backup.retain(
        |event| !matches!(event, LedgerEvent::Enrolled(enrolled) if enrolled.node == node(named)),
    );
    let given = story.bench.issued.len();
    story.restore();
    let bench = &mut story.bench;
    heard.into_iter().for_each(|heard| bench.handle(heard));
    assert_eq!(bench.issued.len(), given, "one is missing");
    bench.enrol(named);
    let again = testimony(bench, 1, &story.lost, &[]);
    bench.handle(again);
    assert!(bench.issued.len() > given);
    assert_eq!(bench.view("new").targets, 12);
    assert_eq!(bench.view("new").waves[0].state, "running");
}

/// The statuses that the lost time brought were acknowledged, and their nodes say them again in the new
/// epoch.
#[test]
fn the_counts_come_out_exact() {
    let mut story = Story::new();
    let heard = [story.heard(0), story.heard(1), story.heard(2)];
    story.restore();
    let bench = &mut story.bench;
    heard.into_iter().for_each(|t| bench.handle(t));
    assert_eq!(bench.view("new").targets, 12);
    assert_eq!(bench.view("new").counts.applied, 0);
    let first = bench.wave(&story.new, 0, 12);
    bench.report(&story.new, &first, State::Succeeded);
    assert_eq!(bench.view("new").counts.applied, first.len() as u32);
    bench.wait(30);
    let rest = bench.wave(&story.new, 1, 12);
    bench.report(&story.new, &rest, State::AlreadyInstalled);
    bench.wait(30);
    assert_eq!(bench.view("new").counts.applied, 12);
    assert_eq!(bench.state("new"), S::Finished);
    bench.restart();
    assert_eq!(bench.view("new").counts.applied, 12, "and it is on record");
}

#[test]
fn what_no_site_confirms_ends_the_listening_in_its_time_and_late_witnesses_count() {
    let mut story = Story::new();
    let late = story.heard(2);
    let given = story.bench.issued.len();
    story.restore();
    let bench = &mut story.bench;
    bench.wait(599);
    assert_eq!(bench.issued.len(), given);
    bench.wait(1);
    assert!(bench.issued.len() > given, "the time is over");
    assert_eq!(bench.state("old"), S::Running, "nobody said otherwise");
    let given = bench.issued.len();
    bench.handle(late);
    assert_eq!(bench.state("old"), S::Aborted);
    assert_eq!(bench.state("new"), S::Running);
    assert!(bench.kinds(given).contains(&"halt".to_owned()));
    let lift = |bench: &Bench| {
        let halted = bench
            .conductor
            .halted(Some(&rollout("old")))
            .expect("halted");
        bench.fleet.verified(&protocol::lift::Lift {
            spec_version: 1,
            fleet: bench.fleet.id(),
            rollout: Some(rollout("old")),
            halted,
            reason: "looked at".into(),
            created: Time(halted.0 + 1),
        })
    };
    let lifted = lift(bench);
    bench.done(Command::Lift(lifted));
    assert_eq!(bench.state("old"), S::Running);
    let again = testimony(bench, 1, &story.lost, &[]);
    bench.handle(again);
    assert_eq!(bench.state("old"), S::Running, "the same halt is no news");
    assert_eq!(story.old.rollout, rollout("old"));
}

#[test]
fn a_recall_and_a_revocation_of_the_lost_time_stand() {
    let mut bench = Bench::with_nodes(6);
    let plan = bench.start("r", waves());
    let backup = bench.ledger.clone();
    let given = bench.issued.len();
    let first = bench.wave(&plan, 0, 6);
    bench.report(&plan, &first, State::Succeeded);
    let recall = bench.recall(&plan);
    bench.done(Command::Recall(recall));
    let lost = bench.issued[given..].to_vec();
    let Event::Testimony(mut witness) = testimony(&bench, 0, &lost, &[]) else {
        panic!("a testimony")
    };
    bench.ledger = backup;
    bench.ledger.push(LedgerEvent::Restored {
        why: "a backup".into(),
        at: bench.now.wall,
    });
    bench.restart();
    witness.revoked = vec![node(5), node(77)];
    witness.barred = Some((vec!["5".into(), "4d".into()], 9));
    let others = [1, 2].map(|n| testimony(&bench, n, &lost, &[]));
    bench.handle(Event::Testimony(witness));
    others.into_iter().for_each(|t| bench.handle(t));
    assert_eq!(bench.state("r"), S::Recalling);
    assert_eq!(bench.view("r").targets, 5, "the revoked one is no target");
    let barred = |e: &LedgerEvent| matches!(e, LedgerEvent::Barred { number: 9, .. });
    assert!(bench.ledger.iter().any(barred));
}

#[test]
fn a_rollout_that_had_left_the_bulletin_does_not_run_again() {
    let mut bench = Bench::with_nodes(6);
    let plan = bench.start("r", waves());
    let backup = bench.ledger.clone();
    let given = bench.issued.len();
    let all: Vec<u64> = (0..6).collect();
    bench.report(&plan, &all, State::Succeeded);
    bench.wait(30);
    bench.done(Command::Halt(rollout("r"), "done with".into()));
    bench.wait(200);
    assert!(!bench.in_bulletin("r"));
    // Its nodes have forgotten the orders about it, too.
    let mut lost = bench.issued[given..].to_vec();
    lost.retain(|o| o.body.rollout().is_none());
    bench.ledger = backup;
    bench.ledger.push(LedgerEvent::Restored {
        why: "a backup".into(),
        at: bench.now.wall,
    });
    bench.restart();
    for n in 0..3 {
        let heard = testimony(&bench, n, &lost, &[]);
        bench.handle(heard);
    }
    assert_eq!(bench.state("r"), S::Aborted);
}

#[test]
fn a_fleet_without_nodes_is_not_waited_for() {
    let mut bench = Bench::new();
    bench.ledger.push(LedgerEvent::Restored {
        why: "a backup".into(),
        at: bench.now.wall,
    });
    bench.restart();
    assert_eq!(bench.conductor.orders_head().epoch, 2);
}
