//! What a review says of a rollout.

mod support;

use protocol::fixtures::{node, rollout};
use protocol::limits::{REVIEW_FAILURES_MAX, REVIEW_NODES_MAX, REVIEW_POINTS_MAX};
use protocol::plan::Selector::{Count, Rest};
use protocol::plan::{Priority, RolloutPlan};
use protocol::status::State;
use protocol::{Span, Time, Verified};
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::Command;
use tidegate_coordinator_core::review::Review;

fn started(
    nodes: u64,
    priority: Priority,
    deadline: Option<Span>,
) -> (Bench, Verified<RolloutPlan>) {
    let mut bench = Bench::with_nodes(nodes);
    let release = bench.publish("1", 1);
    let waves = [Count(2), Rest].map(|s| draft("w", s, gate(0, 1, 0)));
    let mut proposal = bench.proposal("r", release.digest(), waves.to_vec());
    proposal.priority = priority;
    proposal.constraints.deadline = deadline.map(|d| bench.now.wall + d);
    let plan = bench.plan(proposal);
    let plan = bench.approve(&plan);
    bench.done(Command::Start(rollout("r")));
    (bench, plan)
}

/// Node `n` says that it is in this state since `seconds` after now, and how.
fn says(
    bench: &mut Bench,
    plan: &Verified<RolloutPlan>,
    n: u64,
    state: State,
    seconds: u64,
    line: &str,
) {
    let mut status = bench.status(plan, n, state);
    status.entered_at = bench.now.wall + Span::from_secs(seconds);
    status.output_tail = format!("some\n{line}\n\n");
    status.exit_code = (state == State::RolledBack).then_some(3);
    (status.wan_bytes, status.lan_bytes) = (if n == 0 { 500 } else { 0 }, 100);
    bench.uplink(vec![status]);
}

fn review(bench: &Bench) -> Review {
    bench.conductor.review(&rollout("r")).expect("a review")
}

#[test]
fn a_review_adds_up_and_says_who_failed_how() {
    let (mut bench, plan) = started(9, Priority::Emergency, None);
    for n in 0..5 {
        says(&mut bench, &plan, n, State::Succeeded, 0, "");
        bench.wait(60);
    }
    says(&mut bench, &plan, 5, State::RolledBack, 0, "no space");
    says(&mut bench, &plan, 6, State::RolledBack, 0, "no space");
    says(&mut bench, &plan, 7, State::RolledBack, 0, "no licence");
    let review = review(&bench);
    assert_eq!(
        (review.targets, review.counts.applied, review.counts.failed),
        (9, 5, 3)
    );
    for parts in [&review.waves, &review.sites, &review.cohorts] {
        assert_eq!(parts.iter().map(|p| p.targets).sum::<u32>(), 9);
        assert_eq!(parts.iter().map(|p| p.counts.applied).sum::<u32>(), 5);
        let ends = parts
            .iter()
            .filter_map(|p| p.completion.last())
            .map(|(_, n)| n);
        assert_eq!(ends.sum::<u32>(), 5, "each curve ends at what was applied");
    }
    let names: Vec<&str> = review.sites.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["s1", "s2", "s3"]);
    let groups: Vec<_> = review
        .failures
        .iter()
        .map(|g| (g.count, g.line.as_str()))
        .collect();
    assert_eq!(groups, [(2, "no space"), (1, "no licence")]);
    let first = &review.failures[0];
    assert_eq!(
        (first.phase.as_str(), first.exit_code),
        ("rolled back", Some(3))
    );
    assert_eq!(first.nodes.len(), 2);
    assert!(first.nodes.contains(&node(5)) && first.nodes.contains(&node(6)));
    assert_eq!(
        (review.traffic.wan_bytes, review.traffic.lan_bytes),
        (500, 800)
    );
    let carrier = bench.fleet.release("app", "1", 1).artifacts[0]
        .full_carrier()
        .unwrap()
        .length;
    assert_eq!(review.traffic.alone_bytes, 8 * carrier, "eight got content");
    bench.restart();
    let again = bench.conductor.review(&rollout("r")).expect("a review");
    assert_eq!(
        (again.waves, again.failures),
        (review.waves, review.failures),
        "the ledger has it all"
    );
}

#[test]
fn whether_it_was_in_time_is_said_with_its_reason() {
    let (mut bench, plan) = started(3, Priority::Emergency, None);
    let start = review(&bench).started.expect("it started");
    says(&mut bench, &plan, 0, State::Succeeded, 0, "");
    let open = review(&bench).sla;
    let due = Some(start + Span::from_secs(86_400));
    assert_eq!((open.due, open.met), (due, None));
    let latest = start + Span::from_secs(14 * 86_400);
    assert_eq!(open.latest, Some(latest));
    let promise = bench.view("r").promise.expect("its priority has a frame");
    assert_eq!((Some(promise.target), promise.latest), (due, latest));
    let why = open.why;
    assert!(why.starts_with("1440 minutes are left; of 3, "), "{why}");

    let (mut bench, plan) = started(3, Priority::Low, Some(Span::from_secs(60)));
    says(&mut bench, &plan, 0, State::Succeeded, 0, "");
    bench.wait(90);
    says(&mut bench, &plan, 1, State::Succeeded, 0, "");
    let missed = review(&bench).sla;
    assert_eq!(
        (missed.met, missed.in_time, missed.late),
        (Some(false), 1, 1)
    );
    assert_eq!(missed.why, "of 3, 1 were late, 1 were never reached");

    let (mut bench, plan) = started(3, Priority::High, None);
    (0..3).for_each(|n| says(&mut bench, &plan, n, State::Succeeded, 0, ""));
    let met = review(&bench).sla;
    assert_eq!(
        (met.met, met.why.as_str()),
        (Some(true), "all 3 were in time")
    );
    let (bench, _) = started(3, Priority::Low, None);
    assert_eq!(review(&bench).sla.why, "no time was given");
}

#[test]
fn a_nodes_clock_does_not_leave_the_picture() {
    let (mut bench, plan) = started(3, Priority::High, None);
    bench.wait(10);
    says(&mut bench, &plan, 0, State::Succeeded, 1 << 40, "");
    let mut early = bench.status(&plan, 1, State::Succeeded);
    early.entered_at = Time(0);
    bench.uplink(vec![early]);
    let review = review(&bench);
    let (start, now) = (review.started.unwrap(), review.now);
    let points = review.waves.iter().flat_map(|p| &p.completion);
    let times: Vec<Time> = points.map(|(at, _)| *at).collect();
    assert_eq!(times.len(), 2);
    assert!(
        times.iter().all(|at| (start..=now).contains(at)),
        "{times:?}"
    );
}

#[test]
fn a_review_is_bounded() {
    let (mut bench, plan) = started(60, Priority::High, None);
    for n in 0..60 {
        let line = if n < 7 {
            "the same".to_owned()
        } else {
            format!("{n}{}", "x".repeat(300))
        };
        says(&mut bench, &plan, n, State::RolledBack, 0, &line);
    }
    let review = review(&bench);
    assert_eq!(review.failures.len(), REVIEW_FAILURES_MAX);
    let counted: u32 = review.failures.iter().map(|g| g.count).sum();
    assert_eq!(counted + review.other_failures, 60);
    assert_eq!(review.failures[0].nodes.len(), REVIEW_NODES_MAX);
    assert!(
        review
            .failures
            .iter()
            .all(|g| g.line.chars().count() <= 200)
    );
    let points = review.waves.iter().map(|p| p.completion.len()).max();
    assert!(points <= Some(REVIEW_POINTS_MAX));
}
