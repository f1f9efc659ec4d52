//! What-if: what a proposal would come to, by hand-made worlds whose answer a person can work out.

mod support;

use protocol::feed::Roster;
use protocol::fixtures::{self, CREATED, EXPIRES, rollout};
use protocol::plan::Selector::{Count, Percent, Rest};
use protocol::plan::{Priority, Proposal};
use protocol::{Hash, Span, Time};
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::{Command, CommandError, Event, Ticket, Uplink};
use tidegate_coordinator_core::forecast::{Assumptions, Cause, Forecast, Question};

/// The fixture's release: full carrier and index.
const BYTES: u64 = (1 << 20) + 10_000;
const NODES: u64 = 12;

/// Twelve nodes in three sites of 1 MiB/s, all heard of but those numbers.
fn bench(silent: &[u64]) -> Bench {
    let mut bench = Bench::with_nodes(NODES);
    hear(&mut bench, silent);
    bench
}

fn hear(bench: &mut Bench, silent: &[u64]) {
    for s in 0..3 {
        let of_site = |n: &u64| n % 3 == s && !silent.contains(n);
        let members: Vec<u64> = (0..NODES).filter(of_site).collect();
        let me = bench.presence(members[0], &Bench::site_of(members[0]));
        let mut joined: Vec<_> = members.iter().map(|n| fixtures::node(*n)).collect();
        joined.sort_unstable();
        let roster = Roster {
            digest: Roster::digest(&joined),
            joined,
            left: Vec::new(),
            whole: true,
        };
        bench.handle(Event::Uplink(Uplink {
            ticket: Ticket((1 << 41) + me.seq.n),
            from: me.contact.node,
            me: Some(me),
            roster: Some(roster),
            statuses: Vec::new(),
            stages: None,
        }));
    }
}

fn question() -> Question {
    Question {
        start: None,
        deadline: None,
        assumptions: Assumptions {
            lan_bytes_per_s: 1 << 40,
            payload_ppm: 1_000_000,
            begins_after: Span::from_secs(3),
            install: Span::from_secs(10),
            word: Span::from_secs(1),
            ..Assumptions::default()
        },
    }
}

fn waves() -> Vec<protocol::plan::WaveDraft> {
    vec![
        draft("first", Count(3), gate(900_000, 3, 60)),
        draft("half", Percent(50), gate(900_000, 3, 60)),
        draft("rest", Rest, gate(900_000, 3, 60)),
    ]
}

fn proposal(bench: &mut Bench, id: &str) -> Proposal {
    let release = bench.publish(&format!("{id}-1"), bench.ledger.len() as u64 + 1);
    bench.proposal(id, release.digest(), waves())
}

fn simulate(bench: &Bench, proposal: &Proposal, question: &Question) -> Forecast {
    let salt = Hash::of(proposal.rollout.as_str().as_bytes());
    let forecast = bench.conductor.simulate(proposal, salt, question);
    forecast.expect("resolvable")
}

fn seconds(at: Option<Time>) -> f64 {
    at.expect("it comes").since(CREATED).0 as f64 / 1000.0
}

#[test]
fn waves_open_one_after_the_other_and_sites_take_what_their_link_gives() {
    let mut bench = bench(&[]);
    let proposal = proposal(&mut bench, "r");
    let entries = bench.ledger.len();
    let forecast = simulate(&bench, &proposal, &question());
    assert_eq!(bench.ledger.len(), entries, "nothing is recorded");
    assert!(bench.conductor.rollouts().is_empty());
    assert_eq!(
        (forecast.targets, forecast.unreachable, forecast.late),
        (12, 0, 0)
    );
    let taken = BYTES as f64 / (1 << 20) as f64;
    for site in &forecast.sites {
        assert_eq!((site.targets(), site.bytes), (4, BYTES));
        assert!((seconds(site.has_bytes) - (3.0 + taken)).abs() < 0.01);
    }
    // the first wave waits for the bytes, the others for the gate before and the word of it
    let bytes = 3.0 + taken;
    let mut opens = 0.0;
    for (number, wave) in forecast.waves.iter().enumerate() {
        let begins = if number == 0 { bytes } else { opens + 1.0 };
        let completes = begins + 10.0;
        let passes = completes + 1.0 + 60.0;
        assert!((seconds(wave.opens) - opens).abs() < 0.1, "{wave:?}");
        assert!(
            (seconds(wave.completes) - completes).abs() < 0.1,
            "{wave:?}"
        );
        assert!((seconds(wave.passes) - passes).abs() < 0.1, "{wave:?}");
        opens = passes;
    }
    assert_eq!(forecast.finishes, forecast.waves[2].passes);
    assert_eq!(forecast.completes, forecast.waves[2].completes);
    assert!(forecast.advice.is_empty());
    let targets: Vec<u32> = forecast.waves.iter().map(|w| w.targets).collect();
    assert_eq!(targets.iter().sum::<u32>(), 12);
    for (number, wave) in forecast.waves.iter().enumerate() {
        let in_sites: u32 = forecast.sites.iter().map(|s| s.waves[number]).sum();
        assert_eq!(wave.targets, in_sites);
        assert_eq!(wave.cohorts.values().sum::<u32>(), wave.targets);
    }
}

#[test]
fn the_forecast_of_a_rollout_is_that_of_its_proposal() {
    let mut bench = bench(&[]);
    let proposal = proposal(&mut bench, "r");
    let before = simulate(&bench, &proposal, &question());
    let plan = bench.plan(proposal);
    let after = bench.conductor.forecast(&rollout("r"), &question());
    assert_eq!(after, Ok(before.clone()));
    for (number, wave) in before.waves.iter().enumerate() {
        let named = bench.wave(&plan, number as u32, NODES).len();
        assert_eq!(wave.targets as usize, named, "{}", wave.name);
    }
    let none = bench.conductor.forecast(&rollout("other"), &question());
    assert_eq!(none, Err(CommandError::NoRollout(rollout("other"))));
}

#[test]
fn a_floor_holds_a_wave_back_and_a_later_start_moves_everything() {
    let mut bench = bench(&[]);
    let mut proposal = proposal(&mut bench, "r");
    let floor = CREATED + Span::from_secs(3600);
    proposal.waves[1].not_before = floor;
    proposal.waves[2].not_before = floor;
    let forecast = simulate(&bench, &proposal, &question());
    assert_eq!(forecast.waves[1].opens, Some(floor));
    let later = Question {
        start: Some(CREATED + Span::from_secs(7200)),
        ..question()
    };
    let forecast = simulate(&bench, &proposal, &later);
    assert_eq!(forecast.waves[0].opens, later.start);
    assert!(forecast.waves[1].opens > later.start);
}

#[test]
fn a_slow_link_makes_its_site_late_and_the_rate_that_is_advised_helps() {
    let mut bench = bench(&[]);
    let mut proposal = proposal(&mut bench, "r");
    // no gate waits for the slow site
    proposal
        .waves
        .iter_mut()
        .for_each(|w| w.gate.min_sample = 1);
    let mut topology = bench.fleet.topology(2, 3);
    topology.sites[1].wan_down_bytes_per_s = Some(1000);
    let signed = bench.fleet.verified(&topology);
    bench.done(Command::SetTopology(signed));
    let asked = Question {
        deadline: Some(CREATED + Span::from_secs(400)),
        ..question()
    };
    let forecast = simulate(&bench, &proposal, &asked);
    assert_eq!(forecast.late, 4);
    let late: Vec<_> = forecast.sites.iter().filter(|s| s.late > 0).collect();
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].site, Some(fixtures::site("s2")));
    let advice = forecast.advice.first().expect("there is advice");
    assert_eq!((advice.cause, advice.nodes), (Cause::Wan, 4));
    assert_eq!(advice.sites, [fixtures::site("s2")]);
    assert!(
        advice.help.contains("raise the rate to 22 kbit/s"),
        "{}",
        advice.help
    );
    let rate = advice.needs_bytes_per_s;

    let mut topology = bench.fleet.topology(3, 3);
    topology.sites[1].wan_down_bytes_per_s = rate;
    let signed = bench.fleet.verified(&topology);
    bench.done(Command::SetTopology(signed));
    let helped = simulate(&bench, &proposal, &asked);
    assert_eq!((helped.late, helped.advice.as_slice()), (0, &[][..]));
}

#[test]
fn the_bytes_over_each_link_are_told_before() {
    let mut bench = bench(&[]);
    let proposal = proposal(&mut bench, "r");
    let mut topology = bench.fleet.topology(2, 3);
    topology.sites[1].no_peers = true;
    topology.sites[2].parent = Some(fixtures::site("s1"));
    let signed = bench.fleet.verified(&topology);
    bench.done(Command::SetTopology(signed));
    let forecast = simulate(&bench, &proposal, &question());
    let told = |n: usize| {
        let site = &forecast.sites[n];
        (
            site.carrier_bytes,
            site.wan_copies_ppm,
            site.bytes,
            site.link_bytes,
        )
    };
    assert_eq!(
        told(0),
        (BYTES, 1_000_000, BYTES, 2 * BYTES),
        "its own, and those of s3"
    );
    assert_eq!(
        told(1),
        (BYTES, 4_000_000, 4 * BYTES, 4 * BYTES),
        "a copy for each node"
    );
    assert_eq!(told(2), (BYTES, 1_000_000, BYTES, BYTES));
}

#[test]
fn one_uplink_of_the_origin_is_shared_by_all_sites() {
    let mut bench = bench(&[]);
    let proposal = proposal(&mut bench, "r");
    let mut asked = question();
    asked.assumptions.origin_bytes_per_s = Some(3000);
    asked.deadline = Some(CREATED + Span::from_secs(900));
    let forecast = simulate(&bench, &proposal, &asked);
    let expected = 3.0 + BYTES as f64 / 1000.0;
    for site in &forecast.sites {
        assert!((seconds(site.has_bytes) - expected).abs() < 0.1, "{site:?}");
    }
    assert_eq!(forecast.late, 12);
    assert_eq!(forecast.advice[0].cause, Cause::Origin);
}

#[test]
fn what_is_promised_to_others_comes_first_but_for_an_emergency() {
    let mut bench = bench(&[]);
    let other = bench.start("other", waves());
    let mut proposal = proposal(&mut bench, "r");
    let forecast = simulate(&bench, &proposal, &question());
    assert!(forecast.sites.iter().all(|s| s.promised_bytes == BYTES));
    // as soon as one node of a site has it staged, its WAN is done with it
    bench.report(&other, &[0], protocol::status::State::Staged);
    hear(&mut bench, &[]);
    let forecast = simulate(&bench, &proposal, &question());
    let promised: Vec<u64> = forecast.sites.iter().map(|s| s.promised_bytes).collect();
    assert_eq!(promised, [0, BYTES, BYTES]);
    assert!(forecast.sites[0].has_bytes < forecast.sites[1].has_bytes);
    proposal.priority = Priority::Emergency;
    let forecast = simulate(&bench, &proposal, &question());
    assert!(forecast.sites.iter().all(|s| s.promised_bytes == 0));
}

#[test]
fn nodes_that_are_not_heard_of_answer_nothing() {
    let silent: Vec<u64> = (0..NODES).filter(|n| *n > 2).collect();
    let mut bench = bench(&silent);
    let proposal = proposal(&mut bench, "r");
    let forecast = simulate(&bench, &proposal, &question());
    assert_eq!(forecast.unreachable, 9);
    assert_eq!(
        forecast.finishes, None,
        "no wave gets the sample that its gate asks for"
    );
    let causes: Vec<Cause> = forecast.advice.iter().map(|a| a.cause).collect();
    assert!(causes.contains(&Cause::Unreachable), "{causes:?}");
    assert!(forecast.waves.last().expect("waves").opens.is_none());
}

#[test]
fn a_plan_that_ends_too_early_leaves_waves_unopened() {
    let mut bench = bench(&[]);
    let mut proposal = proposal(&mut bench, "r");
    proposal.not_after = CREATED + Span::from_secs(100);
    let forecast = simulate(&bench, &proposal, &question());
    assert_eq!(forecast.finishes, None);
    assert!(forecast.waves[0].passes.is_some() && forecast.waves[2].opens.is_none());
    assert!(forecast.late > 0 && forecast.completes.is_none());
    proposal.not_after = EXPIRES;
    assert_eq!(simulate(&bench, &proposal, &question()).late, 0);
    proposal.not_after = CREATED;
    let salt = Hash::of(b"salt");
    let refused = bench.conductor.simulate(&proposal, salt, &question());
    assert!(matches!(refused, Err(CommandError::Unresolvable(_))));
}
