//! Rows about what nodes say of themselves, and what the gates make of it.

use std::sync::atomic::{AtomicU64, Ordering};

use coordinator_core::contract::{Event, RolloutState, Ticket, Uplink};
use protocol::fixtures::{Fleet, node, node_key, seq};
use protocol::plan::{RolloutPlan, Selector};
use protocol::positions::position;
use protocol::status::{NodeStatus, SignedStatus, State};
use protocol::{Hash, Verified};

use crate::bench::{Bench, draft, gate};
use crate::mutations::{CASES, Mutations};

/// Beyond those that the bench draws.
static TICKETS: AtomicU64 = AtomicU64::new(1 << 41);

fn status(
    fleet: &Fleet,
    plan: &Verified<RolloutPlan>,
    n: u64,
    at: u64,
    state: State,
) -> NodeStatus {
    NodeStatus {
        fleet: fleet.id(),
        node: node(n),
        rollout: plan.rollout.clone(),
        plan: plan.digest(),
        release: plan.release,
        wave: 0,
        seq: seq(at),
        state,
        reason: String::new(),
        entered_at: protocol::fixtures::CREATED,
        attempt: 1,
        install_id: Hash::of(b"install"),
        lan_bytes: 0,
        wan_bytes: 0,
        exit_code: None,
        output_tail: String::new(),
    }
}

fn brought(bench: &mut Bench, from: u64, statuses: Vec<Verified<NodeStatus>>) {
    let me = bench.presence(from, &Bench::site_of(from));
    bench.handle(Event::Uplink(Uplink {
        ticket: Ticket(TICKETS.fetch_add(1, Ordering::Relaxed)),
        from: node(from),
        me: Some(me),
        roster: None,
        statuses,
        stages: None,
    }));
}

#[test]
fn attack_22_forged_failures_by_many_identities() {
    let mut bench = Bench::with_nodes(6);
    let waves = vec![
        draft("first", Selector::Count(4), gate(500_000, 4, 0)),
        draft("rest", Selector::Rest, gate(0, 1, 0)),
    ];
    let plan = bench.start("r", waves);
    bench.audit = false;
    // A thousand identities that nobody enrolled cry failure, through an admitted delegate.
    for n in 1_000..1_000 + CASES as u64 {
        let failed = status(&bench.fleet, &plan, n, 1, State::Failed);
        let failed = failed.sign(&node_key(n)).verify(bench.fleet.id());
        brought(&mut bench, 0, vec![failed.expect("well signed, by nobody")]);
    }
    assert_eq!(bench.view("r").counts.failed, 0);
    // An enrolled one cries a thousand times: one vote.
    let voter = (0..6).find(|n| {
        let members = &plan.waves[0].members;
        matches!(members, protocol::plan::Members::Nodes(list) if list.contains(&node(*n)))
    });
    let voter = voter.expect("the first wave has members");
    for at in 1..=CASES as u64 {
        let failed = status(&bench.fleet, &plan, voter, at, State::Failed);
        let failed = failed.sign(&node_key(voter)).verify(bench.fleet.id());
        brought(&mut bench, voter, vec![failed.expect("its own word")]);
    }
    let view = bench.view("r");
    assert_eq!(view.counts.failed, 1, "one node, one vote");
    assert_eq!(
        view.state,
        RolloutState::Running,
        "one of four does not stop it"
    );
}

#[test]
fn attack_24_a_relay_alters_or_forks_statuses() {
    let mut bench = Bench::with_nodes(3);
    let plan = bench.start("r", vec![draft("all", Selector::Rest, gate(0, 1, 0))]);
    let fleet = bench.fleet.clone();
    let honest = status(&fleet, &plan, 1, 1, State::Failed);
    let signed = honest.sign(&node_key(1));
    let mut mutations = Mutations::new(24);
    for case in 0..2 * CASES {
        let mut altered = signed.clone();
        match mutations.below(3) {
            0 => altered.body = mutations.of(&signed.body),
            1 => altered.sig = mutations.of(&signed.sig),
            _ => {
                let mut other = honest.clone();
                other.state = State::Succeeded;
                other.seq = seq(mutations.below(1 << 20) as u64);
                altered = SignedStatus {
                    sig: signed.sig.clone(),
                    ..other.sign(&node_key(2))
                };
            }
        }
        assert!(altered.verify(fleet.id()).is_err(), "case {case}");
    }
    // Two genuine ones under one number: the first stays, and it is told.
    let verified = |state| {
        let status = status(&fleet, &plan, 1, 7, state).sign(&node_key(1));
        status.verify(fleet.id()).expect("its own word")
    };
    bench.audit = false;
    let (first, second) = (verified(State::Failed), verified(State::Succeeded));
    brought(&mut bench, 1, vec![first]);
    brought(&mut bench, 2, vec![second]);
    assert_eq!(bench.view("r").counts.failed, 1);
    assert_eq!(bench.view("r").counts.applied, 0);
    let told = bench
        .notes
        .iter()
        .any(|(event, _)| *event == "equivocation");
    assert!(told, "{:?}", bench.notes);
}

#[test]
fn attack_25_a_node_chooses_its_own_wave() {
    let fleet = Fleet::new(1);
    let release = fleet.verified(&fleet.release("app", "1.0", 1));
    let plan = fleet.plan("r1", &release, vec![node(1)]);
    let mut mutations = Mutations::new(25);
    let envelope = fleet.sign(&plan);
    for case in 0..CASES as u64 {
        // Whatever it writes into the plan, nobody signed that.
        let mut forged = envelope.clone();
        let mut mine = plan.clone();
        mine.waves[0].members = protocol::plan::Members::Nodes(vec![node(2 + case)]);
        mine.salt = Hash::of(&case.to_le_bytes());
        forged.payload = match mutations.below(2) {
            0 => serde_json::to_vec(&mine).expect("a plan"),
            _ => mutations.of(&envelope.payload),
        };
        assert!(
            fleet.trust().verify::<RolloutPlan>(&forged).is_err(),
            "case {case}"
        );
    }
    // Nor does an identity of its choice buy it a place in every rollout: the salt is drawn later.
    let early = |salt: Hash, n: u64| position(&salt, &plan.release, &node(n)) < u64::MAX / 100;
    let before = Hash::of(b"the salt that was guessed");
    let chosen: Vec<u64> = (0..10_000).filter(|n| early(before, *n)).collect();
    let again = chosen
        .iter()
        .filter(|n| early(Hash::of(b"drawn at approval"), **n))
        .count();
    assert!(
        chosen.len() > 50,
        "about a hundred are early under one salt"
    );
    assert!(
        again < chosen.len() / 5,
        "{again} of {} are early again",
        chosen.len()
    );
}

/// A quarter of the fleet says that all is well, whatever comes and before it came. It does not choose who
/// is first, and the honest ones that are first stop the release.
#[test]
fn attack_23_false_success() {
    const NODES: u64 = 60;
    const FIRST: usize = 12;
    let lies = |n: u64| n.is_multiple_of(4);
    // Under each salt others are first: liars are as often among them as they are in the fleet.
    let release = Hash::of(b"release");
    let mut liars_first = 0;
    for case in 0..CASES as u64 {
        let salt = Hash::of(&case.to_le_bytes());
        let mut all: Vec<u64> = (0..NODES).collect();
        all.sort_by_key(|n| position(&salt, &release, &node(*n)));
        liars_first += all[..FIRST].iter().filter(|n| lies(**n)).count();
    }
    let share = liars_first as f64 / (CASES * FIRST) as f64;
    assert!((0.22..0.28).contains(&share), "{share} of the first lie");

    let mut bench = Bench::with_nodes(NODES);
    let waves = vec![
        draft("first", Selector::Count(FIRST as u32), gate(800_000, 10, 0)),
        draft("rest", Selector::Rest, gate(0, 1, 0)),
    ];
    let plan = bench.start("r", waves);
    bench.audit = false;
    let protocol::plan::Members::Nodes(first) = &plan.waves[0].members else {
        panic!("a handful is a list");
    };
    let first = first.clone();
    for at in 1..=20 {
        for n in (0..NODES).filter(|n| lies(*n)) {
            let mut well = status(&bench.fleet, &plan, n, at, State::Succeeded);
            well.wave = u32::from(!first.contains(&node(n)));
            let well = well.sign(&node_key(n)).verify(bench.fleet.id());
            brought(&mut bench, n, vec![well.expect("its own word")]);
        }
    }
    let honest = |n: &u64| !lies(*n) && first.contains(&node(*n));
    for n in (0..NODES).filter(honest) {
        let failed = status(&bench.fleet, &plan, n, 1, State::Failed);
        let failed = failed.sign(&node_key(n)).verify(bench.fleet.id());
        brought(&mut bench, n, vec![failed.expect("its own word")]);
    }
    bench.wait(5);
    let view = bench.view("r");
    assert_eq!(view.state, RolloutState::Held, "{:?}", view.counts);
    let harmed = (0..NODES).filter(honest).count() as u32;
    assert_eq!(view.counts.failed, harmed, "nobody else was reached");
}
