//! A rollout from start to end, in the ways that it can go.

mod support;

use protocol::fixtures::{self, CREATED, rollout, site};
use protocol::orders::OrderBody;
use protocol::plan::Selector::{Count, Rest};
use protocol::plan::WaveDraft;
use protocol::status::State;
use protocol::{Span, Time};
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::{
    Answer, Command, CommandError, Event, RolloutState as S,
};

fn two_waves() -> Vec<WaveDraft> {
    vec![
        draft("first", Count(3), gate(900_000, 3, 10)),
        draft("rest", Rest, gate(900_000, 5, 10)),
    ]
}

#[test]
fn a_good_release_goes_through_wave_by_wave() {
    let mut bench = Bench::with_nodes(12);
    let plan = bench.start("r", two_waves());
    assert_eq!(bench.kinds(0), ["lease 0"]);
    assert!(bench.in_bulletin("r"));
    let first = bench.wave(&plan, 0, 12);
    assert_eq!(first.len(), 3);
    assert_eq!(bench.view("r").counts.not_received, 12);

    bench.report(&plan, &first, State::Installing);
    bench.report(&plan, &first[..2], State::Succeeded);
    bench.wait(11);
    assert_eq!(
        bench.view("r").waves[0].state,
        "running",
        "one of three is missing"
    );
    bench.report(&plan, &first[2..], State::Succeeded);
    assert_eq!(bench.view("r").waves[0].state, "soaking");
    bench.wait(9);
    assert_eq!(bench.view("r").waves[1].state, "scheduled");
    bench.wait(1);
    let view = bench.view("r");
    assert_eq!(
        (view.waves[0].state.as_str(), view.waves[1].state.as_str()),
        ("passed", "running")
    );
    assert_eq!(bench.kinds(0).last().map(String::as_str), Some("lease 1"));

    let rest = bench.wave(&plan, 1, 12);
    bench.report(&plan, &rest[..5], State::Succeeded);
    bench.wait(10);
    assert_eq!(bench.state("r"), S::Finished, "the gate needs five");
    let leases = bench.kinds(0).len();
    bench.wait(60);
    assert!(
        bench.kinds(0).len() >= leases + 2,
        "late nodes still get leases"
    );
    assert!(bench.in_bulletin("r"));
    bench.report(&plan, &rest[5..], State::Succeeded);
    bench.wait(59);
    assert!(bench.in_bulletin("r"));
    bench.wait(1);
    assert!(!bench.in_bulletin("r"));
    let given = bench.kinds(0).len();
    bench.wait(400);
    assert_eq!(bench.kinds(0).len(), given, "nobody needs a lease any more");
    assert_eq!(bench.view("r").counts.applied, 12);
}

#[test]
fn a_bad_release_is_held_in_its_first_wave() {
    let mut bench = Bench::with_nodes(12);
    let plan = bench.start("r", two_waves());
    let first = bench.wave(&plan, 0, 12);
    let given = bench.issued.len();
    bench.report(&plan, &first[..1], State::RolledBack);
    assert_eq!(
        bench.state("r"),
        S::Held,
        "one of three cannot make nine tenths"
    );
    assert_eq!(bench.kinds(given), ["halt"]);
    let why = bench.view("r").why;
    assert_eq!(
        why,
        "wave 1 (first) failed its gate: 1 of 1 outcomes are failures, so 90.0 % can no longer be \
         reached in 3"
    );
    let halt = bench.issued.iter().rev().find_map(|o| match &o.body {
        OrderBody::Halt { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(halt, Some(why));
    assert_eq!(bench.view("r").waves[0].state, "failed");
    bench.wait(500);
    assert_eq!(bench.kinds(given), ["halt"], "a held rollout gets no lease");

    // the operator looked at it: that one failure is forgiven, the next is not
    bench.done(Command::Resume(rollout("r")));
    assert_eq!(bench.kinds(given), ["halt", "resume", "lease 0"]);
    bench.report(&plan, &first[1..], State::Succeeded);
    bench.wait(10);
    assert_eq!(bench.view("r").waves[1].state, "running");
    let rest = bench.wave(&plan, 1, 12);
    bench.report(&plan, &rest, State::Failed);
    assert_eq!(bench.state("r"), S::Held);
    assert_eq!(bench.view("r").counts.failed, 10);
}

#[test]
fn a_late_failure_in_a_passed_wave_still_holds() {
    let mut bench = Bench::with_nodes(12);
    let waves = vec![
        draft("first", Count(6), gate(900_000, 2, 0)),
        draft("rest", Rest, gate(0, 1, 0)),
    ];
    let plan = bench.start("r", waves);
    let first = bench.wave(&plan, 0, 12);
    bench.report(&plan, &first[..2], State::Succeeded);
    assert_eq!(bench.view("r").waves[0].state, "passed");
    bench.report(&plan, &first[2..4], State::Failed);
    assert_eq!(bench.state("r"), S::Held);
    assert!(
        bench.view("r").why.starts_with("wave 1 (first) failed"),
        "{}",
        bench.view("r").why
    );
}

#[test]
fn silence_after_a_reported_start_is_a_failure_until_the_node_speaks() {
    let mut bench = Bench::with_nodes(12);
    let plan = bench.start("r", two_waves());
    let first = bench.wave(&plan, 0, 12);
    bench.report(&plan, &first[..1], State::Staged);
    bench.wait(500);
    assert_eq!(
        bench.state("r"),
        S::Running,
        "nobody started, so nobody is silent"
    );
    bench.report(&plan, &first[..1], State::Verifying);
    bench.wait(119);
    assert_eq!(bench.view("r").counts.failed, 0);
    bench.restart();
    bench.wait(119);
    assert_eq!(
        bench.view("r").counts.failed,
        0,
        "silence counts from the restart"
    );
    bench.wait(1);
    assert_eq!(bench.view("r").counts.failed, 1);
    assert_eq!(bench.state("r"), S::Held);
    bench.report(&plan, &first[..1], State::Succeeded);
    assert_eq!(
        (
            bench.view("r").counts.failed,
            bench.view("r").counts.applied
        ),
        (0, 1)
    );
}

#[test]
fn a_restart_soaks_anew_and_renews() {
    let mut bench = Bench::with_nodes(12);
    let plan = bench.start("r", two_waves());
    let first = bench.wave(&plan, 0, 12);
    bench.report(&plan, &first, State::Succeeded);
    bench.wait(9);
    let given = bench.issued.len();
    bench.restart();
    assert_eq!(bench.kinds(given), ["lease 0"]);
    assert!(matches!(
        bench.issued.last().map(|o| &o.body),
        Some(OrderBody::Bulletin(_))
    ));
    bench.wait(9);
    assert_eq!(bench.view("r").waves[0].state, "soaking");
    bench.wait(1);
    assert_eq!(bench.view("r").waves[0].state, "passed");
}

#[test]
fn a_new_epoch_says_again_what_holds() {
    let mut bench = Bench::with_nodes(12);
    bench.start("held", two_waves());
    bench.start("goes", two_waves());
    bench.done(Command::Pause(rollout("held"), "wait".into()));
    bench
        .ledger
        .push(tidegate_coordinator_core::LedgerEvent::Epoch { epoch: 2 });
    let given = bench.issued.len();
    bench.restart();
    assert_eq!(bench.kinds(given), ["resume", "halt", "lease 0"]);
    assert!(bench.issued[given..].iter().all(|o| o.seq.epoch == 2));
}

#[test]
fn leases_are_renewed_and_end_with_the_plan() {
    let mut bench = Bench::with_nodes(3);
    let release = bench.publish("1", 1);
    let mut proposal = bench.proposal("r", release.digest(), two_waves());
    proposal.not_after = CREATED + Span::from_secs(200);
    let plan = bench.plan(proposal);
    bench.approve(&plan);
    bench.done(Command::Start(rollout("r")));
    bench.wait(199);
    let mut ends: Vec<(Time, Time)> = Vec::new();
    for order in &bench.issued {
        if let OrderBody::GoLease { not_after, .. } = order.body {
            ends.push((order.issued, not_after));
        }
    }
    assert_eq!(ends.len(), 10, "every third of a life: {ends:?}");
    for (issued, end) in ends {
        assert_eq!(end, (issued + Span::from_secs(120)).min(plan.not_after));
    }
    bench.wait(2);
    assert_eq!(bench.state("r"), S::Aborted);
    assert_eq!(bench.kinds(0).last().map(String::as_str), Some("halt"));
}

#[test]
fn pause_resume_halt_and_recall_give_their_orders() {
    let mut bench = Bench::with_nodes(12);
    let plan = bench.start("r", two_waves());
    let first = bench.wave(&plan, 0, 12);
    let given = bench.issued.len();
    bench.done(Command::Pause(rollout("r"), "lunch".into()));
    bench.wait(100);
    bench.done(Command::Resume(rollout("r")));
    assert_eq!(bench.kinds(given), ["halt", "resume", "lease 0"]);
    bench.report(&plan, &first, State::Succeeded);
    bench.done(Command::Halt(rollout("r"), "no more".into()));
    let recall = bench.recall(&plan);
    bench.done(Command::Recall(recall));
    assert_eq!(
        bench.kinds(given),
        ["halt", "resume", "lease 0", "halt", "recall"]
    );
    assert_eq!(bench.state("r"), S::Recalling);
    bench.report(&plan, &first, State::RolledBack);
    let rest = bench.wave(&plan, 1, 12);
    bench.report(&plan, &rest[1..], State::Cancelled);
    assert_eq!(bench.state("r"), S::Recalling, "one has not answered");
    assert_eq!(bench.view("r").targets, 4);
    bench.report(&plan, &rest[..1], State::Cancelled);
    assert_eq!(bench.state("r"), S::Recalled);
    bench.wait(60);
    assert!(!bench.in_bulletin("r"));
}

#[test]
fn commands_are_refused_in_the_wrong_state() {
    let mut bench = Bench::with_nodes(6);
    let id = || rollout("r");
    assert!(matches!(
        bench.refused(Command::Start(id())),
        CommandError::NoRollout(_)
    ));
    let release = bench.publish("1", 1);
    let proposal = bench.proposal("r", release.digest(), two_waves());
    let plan = bench.plan(proposal.clone());
    assert_eq!(bench.state("r"), S::WaitingForApproval);
    assert!(matches!(
        bench.propose(proposal),
        Answer::Refused(CommandError::RolloutExists(_))
    ));
    let start = bench.refused(Command::Start(id())).to_string();
    assert_eq!(
        start,
        "rollout r is waiting for approval, and only an approved one starts"
    );
    let approved = bench.approve(&plan);
    assert_eq!(bench.view("r").approvals, (2, 2));
    let again = Command::Approve {
        rollout: id(),
        by: bench.fleet.proposer(),
        envelope: approved.envelope().clone(),
        progress: (2, 2),
        complete: Some(approved.clone()),
    };
    assert!(matches!(
        bench.refused(again),
        CommandError::WrongState { .. }
    ));
    for command in [Command::Pause(id(), String::new()), Command::Resume(id())] {
        assert!(matches!(
            bench.refused(command),
            CommandError::WrongState { .. }
        ));
    }
    let recall = bench.recall(&approved);
    assert!(matches!(
        bench.refused(Command::Recall(recall)),
        CommandError::WrongState { .. }
    ));
    assert_eq!(
        bench.conductor.document(&approved.digest()),
        Some(approved.envelope())
    );
    bench.done(Command::Start(id()));
    assert!(matches!(
        bench.refused(Command::Start(id())),
        CommandError::WrongState { .. }
    ));
    bench.done(Command::Halt(id(), "over".into()));
    assert!(matches!(
        bench.refused(Command::Resume(id())),
        CommandError::WrongState { .. }
    ));
}

#[test]
fn an_approval_must_be_for_this_plan_and_by_another() {
    let mut bench = Bench::with_nodes(6);
    let release = bench.publish("1", 1);
    let proposal = bench.proposal("r", release.digest(), two_waves());
    let plan = bench.plan(proposal);
    let mut other = plan.clone();
    other.salt = protocol::Hash::of(b"other");
    use protocol::trust::Statement;
    let approve = |plan: &protocol::plan::RolloutPlan, by| Command::Approve {
        rollout: rollout("r"),
        by,
        envelope: plan.to_envelope(),
        progress: (1, 2),
        complete: None,
    };
    let somebody = protocol::PublicKey([7; 32]);
    let proposer = bench.fleet.proposer();
    assert!(matches!(
        bench.refused(approve(&other, somebody)),
        CommandError::OtherPlan { .. }
    ));
    assert!(matches!(
        bench.refused(approve(&plan, proposer)),
        CommandError::SignedAlready(_)
    ));
    assert_eq!(
        bench.command(approve(&plan, somebody)),
        Answer::Approvals(1, 2)
    );
    assert!(matches!(
        bench.refused(approve(&plan, somebody)),
        CommandError::SignedAlready(_)
    ));
}

#[test]
fn a_halted_proposal_never_reaches_a_node() {
    let mut bench = Bench::with_nodes(6);
    let release = bench.publish("1", 1);
    let proposal = bench.proposal("r", release.digest(), two_waves());
    bench.plan(proposal);
    bench.done(Command::Halt(rollout("r"), "never mind".into()));
    assert_eq!(bench.state("r"), S::Aborted);
    assert!(bench.kinds(0).is_empty());
    assert!(!bench.in_bulletin("r"));
}

#[test]
fn counters_must_rise() {
    let mut bench = Bench::with_nodes(1);
    let topology =
        |bench: &Bench, version, sites| bench.fleet.verified(&bench.fleet.topology(version, sites));
    let same = topology(&bench, 1, 3);
    bench.done(Command::SetTopology(same));
    let other = topology(&bench, 1, 2);
    assert!(matches!(
        bench.refused(Command::SetTopology(other)),
        CommandError::NotNewer { .. }
    ));
    let newer = topology(&bench, 2, 2);
    bench.done(Command::SetTopology(newer));
    bench.publish("1", 5);
    let older = bench.fleet.verified(&bench.fleet.release("app", "0", 5));
    assert!(matches!(
        bench.refused(Command::Publish(older)),
        CommandError::NotNewer { .. }
    ));
    let another = bench.fleet.verified(&bench.fleet.release("tool", "0", 1));
    bench.done(Command::Publish(another));
}

#[test]
fn who_joins_late_is_counted_but_has_no_vote() {
    let mut bench = Bench::with_nodes(6);
    let waves = vec![draft("all", Rest, gate(900_000, 100, 0))];
    let plan = bench.start("r", waves);
    bench.enrol(6);
    assert_eq!(bench.view("r").targets, 7);
    bench.report(&plan, &[6], State::Failed);
    assert_eq!(bench.state("r"), S::Running);
    assert_eq!(bench.view("r").counts.failed, 1);
    bench.report(&plan, &[0, 1, 2, 3, 4, 5], State::Succeeded);
    assert_eq!(bench.state("r"), S::Finished);
    bench.enrol(7);
    assert_eq!(bench.view("r").targets, 8);
    bench.report(&plan, &[7], State::Succeeded);
    bench.wait(61);
    bench.enrol(8);
    assert_eq!(
        bench.view("r").targets,
        8,
        "the rollout has left the bulletin"
    );
}

#[test]
fn who_has_no_use_for_it_leaves_and_may_come_back() {
    let mut bench = Bench::with_nodes(6);
    let plan = bench.start("r", two_waves());
    bench.report(&plan, &[0, 1], State::NotApplicable);
    assert_eq!(bench.view("r").targets, 4);
    bench.enrol(0);
    let me = bench.presence(1, "s3");
    bench.handle(Event::Located(me));
    assert_eq!(
        bench.view("r").targets,
        4,
        "neither enrolling again nor moving brings one back"
    );
    bench.report(&plan, &[0], State::Staged);
    assert_eq!(
        (bench.view("r").targets, bench.view("r").counts.open),
        (5, 1)
    );
    bench.done(Command::Revoke {
        node: fixtures::node(0),
        reason: "lost".into(),
    });
    assert_eq!(bench.view("r").targets, 4);
    assert!(
        bench
            .conductor
            .nodes()
            .iter()
            .any(|n| n.revoked && n.node == fixtures::node(0))
    );
}

#[test]
fn moving_changes_the_wave_or_the_rollout() {
    let mut bench = Bench::with_nodes(9);
    let release = bench.publish("1", 1);
    let waves = vec![
        draft(
            "one",
            protocol::plan::Selector::Site(site("s1")),
            gate(0, 1, 0),
        ),
        draft("rest", Rest, gate(0, 1, 0)),
    ];
    let mut proposal = bench.proposal("r", release.digest(), waves);
    proposal.targets.sites = vec![site("s1"), site("s2")];
    let plan = bench.plan(proposal);
    bench.approve(&plan);
    bench.done(Command::Start(rollout("r")));
    let targets =
        |bench: &Bench| -> Vec<u32> { bench.view("r").waves.iter().map(|w| w.targets).collect() };
    assert_eq!(targets(&bench), [3, 3]);
    for (to, expected) in [("s2", [2, 4]), ("s3", [2, 3]), ("s1", [3, 3])] {
        let me = bench.presence(3, to);
        bench.handle(Event::Located(me));
        assert_eq!(targets(&bench), expected, "to {to}");
    }
}

#[test]
fn only_what_is_stored_or_superseded_is_acknowledged() {
    let mut bench = Bench::with_nodes(6);
    let plan = bench.start("r", two_waves());
    let old = bench.status(&plan, 1, State::Received);
    let new = bench.status(&plan, 1, State::Staged);
    let marks = bench.uplink(vec![new.clone(), old.clone()]);
    assert_eq!(marks.len(), 1);
    assert_eq!(marks[0].seq, new.seq);
    assert_eq!(
        bench.uplink(vec![old])[0].seq,
        new.seq,
        "superseded: the watermark stands"
    );
    let mut foreign = bench.status(&plan, 1, State::Succeeded);
    foreign.plan = protocol::Hash::of(b"another plan");
    let mut unknown = bench.status(&plan, 2, State::Succeeded);
    unknown.rollout = rollout("nobody-knows");
    let stranger = bench.status(&plan, 300, State::Succeeded);
    bench.done(Command::Revoke {
        node: fixtures::node(3),
        reason: "lost".into(),
    });
    let revoked = bench.status(&plan, 3, State::Succeeded);
    let length = bench.ledger.len();
    assert!(
        bench
            .uplink(vec![foreign, unknown, stranger, revoked])
            .is_empty()
    );
    assert_eq!(bench.ledger.len(), length, "garbage is not ledgered");
    assert!(
        bench
            .notes
            .iter()
            .any(|(event, line)| *event == "status_dropped" && line.contains("4 in all"))
    );
    assert_eq!(bench.view("r").counts.applied, 0);
    let me = bench.presence(300, "s1");
    let good = bench.status(&plan, 2, State::Staged);
    assert!(
        bench.uplink_of(me, vec![good]).is_empty(),
        "a stranger carries nothing"
    );
}

#[test]
fn a_wave_waits_for_its_hour() {
    let mut bench = Bench::with_nodes(6);
    let mut waves = two_waves();
    waves[0].not_before = CREATED + Span::from_secs(50);
    waves[1].not_before = CREATED + Span::from_secs(500);
    let plan = bench.start("r", waves);
    assert!(bench.kinds(0).is_empty() && bench.in_bulletin("r"));
    bench.wait(50);
    assert_eq!(bench.kinds(0), ["lease 0"]);
    let first = bench.wave(&plan, 0, 6);
    bench.report(&plan, &first, State::Succeeded);
    bench.wait(440);
    assert_eq!(bench.view("r").waves[1].opened_at, None);
    bench.wait(10);
    assert_eq!(
        bench.view("r").waves[1].opened_at,
        Some(CREATED + Span::from_secs(500))
    );
}

#[test]
fn the_bulletin_is_renewed_at_half_of_its_life_and_with_news() {
    let mut bench = Bench::new();
    let bulletins = |bench: &Bench| {
        bench
            .issued
            .iter()
            .filter(|o| matches!(o.body, OrderBody::Bulletin(_)))
            .count()
    };
    assert_eq!(bulletins(&bench), 1);
    bench.handle(Event::LedgerHead {
        head: protocol::Hash::of(b"head"),
        entries: 9,
    });
    bench.enrol(1);
    assert_eq!(bulletins(&bench), 1, "no news for nodes");
    bench.handle(Event::Revocations(protocol::Hash::of(b"list")));
    assert_eq!(bulletins(&bench), 2);
    bench.wait(499);
    assert_eq!(bulletins(&bench), 2);
    bench.wait(1);
    assert_eq!(bulletins(&bench), 3);
    assert_eq!(bench.conductor.orders_after(Default::default()).len(), 1);
}

#[test]
fn an_origin_is_no_target_and_is_heard_in_silence() {
    let mut bench = Bench::with_nodes(3);
    bench.enrol(9001);
    bench.start("r", two_waves());
    assert_eq!(bench.view("r").targets, 3);
    let me = bench.presence(9001, "s1");
    assert!(bench.uplink_of(me, Vec::new()).is_empty());
    assert!(
        bench
            .notes
            .iter()
            .all(|(event, _)| *event != "not_enrolled")
    );
}
