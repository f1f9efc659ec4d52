//! Who misses the deadline is told why and what would help; and what is told helps.

mod support;

use proptest::prelude::*;
use protocol::constraints::Freeze;
use protocol::feed::Roster;
use protocol::fixtures::{self, CREATED};
use protocol::plan::Selector::Rest;
use protocol::plan::{Priority, Proposal};
use protocol::schedule::{RateHours, Schedule};
use protocol::slots::SlotRules;
use protocol::topology::Topology;
use protocol::zones::Zone;
use protocol::{Hash, Span};
use support::{Bench, config, draft, gate};
use tidegate_coordinator_core::contract::{Command, Config, Event, Ticket, Uplink};
use tidegate_coordinator_core::forecast::{Assumptions, Cause, Forecast, Question};
use tidegate_coordinator_core::presets::Preset;

const NODES: u64 = 12;
const BYTES: u64 = (1 << 20) + 10_000;

/// Twelve nodes in three sites of 1 MiB/s, all heard of; where it is asked for, another rollout fetches.
fn bench(promised: bool) -> Bench {
    hear(Bench::with_nodes(NODES), promised)
}

fn hear(mut bench: Bench, promised: bool) -> Bench {
    bench.audit = false;
    for s in 0..3 {
        let members: Vec<u64> = (0..NODES).filter(|n| n % 3 == s).collect();
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
    if promised {
        bench.start("other", vec![draft("all", Rest, gate(0, 1, 1))]);
    }
    bench
}

fn proposal(bench: &mut Bench) -> Proposal {
    let release = bench.publish("r-1", bench.ledger.len() as u64 + 1);
    let waves = vec![draft("all", Rest, gate(0, 1, 1))];
    let mut proposal = bench.proposal("r", release.digest(), waves);
    proposal.test = Some(Preset::Normal.test());
    proposal.constraints.zone = "UTC".parse().expect("a zone");
    proposal
}

/// Bytes are there after 4 s, and an install takes 10.
fn simulate(bench: &Bench, proposal: &Proposal, deadline: f64) -> Forecast {
    let question = Question {
        start: None,
        deadline: Some(CREATED + Span((deadline * 1000.0) as u64)),
        assumptions: Assumptions {
            lan_bytes_per_s: 1 << 40,
            payload_ppm: 1_000_000,
            begins_after: Span::from_secs(3),
            install: Span::from_secs(10),
            word: Span::from_secs(1),
            ..Assumptions::default()
        },
    };
    let forecast = bench
        .conductor
        .simulate(proposal, Hash::of(b"s"), &question);
    forecast.expect("resolvable")
}

/// Another version of the topology.
fn rate(bench: &mut Bench, version: u64, change: impl Fn(&mut Topology)) {
    let mut topology = bench.fleet.topology(version, 3);
    change(&mut topology);
    let signed = bench.fleet.verified(&topology);
    bench.done(Command::SetTopology(signed));
}

fn hour(text: &str) -> protocol::hours::Hours {
    text.parse().expect("hours")
}

/// Hours that end just before the fixtures' moment begins and come again a day later.
fn shut() -> protocol::hours::Hours {
    let minute = (CREATED.0 / 60_000 % 1440) as u16;
    protocol::hours::Hours::new(127, (minute + 1430) % 1440, 5).expect("hours")
}

fn year_end() -> Freeze {
    Freeze {
        name: "year end".into(),
        from: "2020-01-01T00:00".parse().expect("a minute"),
        to: "2090-01-01T00:00".parse().expect("a minute"),
        zone: Zone::Local,
        exempt: None,
    }
}

/// The causes that a forecast names, and all of them with a remedy.
fn causes(forecast: &Forecast) -> Vec<Cause> {
    assert!(forecast.advice.iter().all(|a| !a.help.is_empty()));
    forecast.advice.iter().map(|a| a.cause).collect()
}

#[test]
fn a_narrow_window_is_named_and_a_wide_one_helps() {
    let mut bench = bench(false);
    let mut proposal = proposal(&mut bench);
    proposal.constraints.windows = vec![shut()];
    let forecast = simulate(&bench, &proposal, 20.0);
    assert_eq!(
        (forecast.late, causes(&forecast)),
        (12, vec![Cause::Windows])
    );
    assert_eq!(forecast.advice[0].sites.len(), 3);
    let (opens, starts) = (forecast.waves[0].opens, forecast.waves[0].starts);
    assert_eq!(
        opens,
        Some(CREATED),
        "the wave is open long before its window is"
    );
    let waited = starts.expect("it starts tomorrow").since(CREATED).0;
    assert!((85_000_000..86_400_000).contains(&waited), "{waited}");
    assert!(forecast.advice[0].help.contains("widen them"));
    proposal.constraints.windows.push(hour("daily 00:00-24:00"));
    assert_eq!(simulate(&bench, &proposal, 20.0).late, 0);
}

#[test]
fn a_freeze_is_named_and_an_exemption_helps() {
    let mut bench = bench(false);
    let mut proposal = proposal(&mut bench);
    proposal.constraints.freezes = vec![year_end()];
    let forecast = simulate(&bench, &proposal, 20.0);
    assert_eq!(
        (forecast.late, causes(&forecast)),
        (12, vec![Cause::Freeze])
    );
    assert_eq!(forecast.waves[0].starts, None);
    assert!(forecast.advice[0].help.contains("--freeze-exempt"));
    proposal.constraints.freezes[0].exempt = Some(Priority::Low);
    assert_eq!(simulate(&bench, &proposal, 20.0).late, 0);
}

#[test]
fn a_link_that_is_promised_is_named_and_a_higher_rate_or_priority_helps() {
    let mut bench = bench(true);
    let mut proposal = proposal(&mut bench);
    let forecast = simulate(&bench, &proposal, 14.6);
    assert_eq!(
        (forecast.late, causes(&forecast)),
        (12, vec![Cause::Promised])
    );
    let needed = forecast.advice[0].needs_bytes_per_s;
    assert!(
        forecast.advice[0]
            .help
            .contains("promised to other rollouts")
    );
    proposal.priority = Priority::Emergency;
    assert_eq!(simulate(&bench, &proposal, 14.6).late, 0);
    proposal.priority = Priority::Medium;
    rate(&mut bench, 2, |t| {
        t.sites
            .iter_mut()
            .for_each(|s| s.wan_down_bytes_per_s = needed)
    });
    assert_eq!(simulate(&bench, &proposal, 14.6).late, 0);
}

#[test]
fn a_link_has_the_rates_of_its_hours() {
    let mut bench = bench(false);
    let proposal = proposal(&mut bench);
    let minute = (CREATED.0 / 60_000 % 1440) as u16;
    // nothing crosses for the first ten minutes, then a hundredth for an hour, then all
    let hours = |from: u16, length, rate| RateHours {
        hours: protocol::hours::Hours::new(127, (minute + from) % 1440, length).expect("hours"),
        wan_down_bytes_per_s: Some(rate),
        wan_up_bytes_per_s: None,
    };
    rate(&mut bench, 2, |t| {
        t.sites[1].schedule = Some(Schedule {
            zone: "UTC".parse().expect("a zone"),
            hours: vec![hours(0, 10, 0), hours(10, 60, BYTES / 1000)],
        });
    });
    let forecast = simulate(&bench, &proposal, 20.0);
    let (second, left) = (CREATED.0 % 60_000, BYTES as f64 / (BYTES / 1000) as f64);
    let expected = 600.0 - second as f64 / 1000.0 + left;
    let has = forecast.sites[1].has_bytes.expect("in the end");
    let took = has.since(CREATED).0 as f64 / 1000.0;
    assert!((took - expected).abs() < 1.0, "{took} and {expected}");
    assert_eq!(causes(&forecast), [Cause::Wan]);
    assert_eq!((forecast.sites[0].late, forecast.sites[1].late), (0, 4));
}

#[test]
fn the_fleets_starts_a_day_are_foreseen_and_an_emergency_does_not_wait_for_them() {
    let mut bench = Bench::of(|fleet| Config {
        starts_per_day: Some(5),
        ..config(fleet)
    });
    bench.audit = false;
    (0..NODES).for_each(|n| bench.enrol(n));
    rate(&mut bench, 1, |_| {});
    let mut bench = hear(bench, false);
    let mut proposal = proposal(&mut bench);
    let forecast = simulate(&bench, &proposal, 20.0);
    assert_eq!(
        (forecast.late, causes(&forecast)),
        (7, vec![Cause::StartsPerDay])
    );
    let day = 86_400_000;
    let completes = forecast.completes.expect("on the third day");
    assert_eq!(completes.0 / day - CREATED.0 / day, 2);
    proposal.priority = Priority::Emergency;
    assert_eq!(simulate(&bench, &proposal, 20.0).late, 0);
}

/// What may stand in a plan's way, each by itself or together.
#[derive(Clone, Debug)]
struct Hindered {
    windows: bool,
    freeze: bool,
    slots: bool,
    cap: bool,
    slow: bool,
    promised: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whoever does what each advice says needs no advice in the end.
    #[test]
    fn what_is_told_helps(hindered in any::<[bool; 6]>().prop_map(|b| Hindered {
        windows: b[0], freeze: b[1], slots: b[2], cap: b[3], slow: b[4], promised: b[5],
    })) {
        let mut bench = bench(hindered.promised);
        let mut proposal = proposal(&mut bench);
        let constraints = &mut proposal.constraints;
        if hindered.windows {
            constraints.windows = vec![shut()];
        }
        if hindered.freeze {
            constraints.freezes = vec![year_end()];
        }
        constraints.slots = hindered.slots.then_some(SlotRules {
            per: None,
            max_unavailable: 1,
            lease: Span::from_secs(600),
        });
        constraints.starts_per_day = hindered.cap.then_some(5);
        let mut version = 2;
        if hindered.slow {
            rate(&mut bench, version, |t| t.sites[2].wan_down_bytes_per_s = Some(1000));
        }
        let deadline = 14.6;
        let mut forecast = simulate(&bench, &proposal, deadline);
        let free = !(hindered.windows || hindered.freeze || hindered.slots || hindered.cap
            || hindered.slow || hindered.promised);
        prop_assert_eq!(forecast.late == 0, free);
        for _ in 0..12 {
            let Some(advice) = forecast.advice.first().cloned() else {
                break;
            };
            let constraints = &mut proposal.constraints;
            match advice.cause {
                Cause::Windows => constraints.windows.push(hour("daily 00:00-24:00")),
                Cause::Freeze => constraints.freezes[0].exempt = Some(Priority::Low),
                Cause::Slots => constraints.slots.iter_mut().for_each(|s| s.max_unavailable = 4),
                Cause::StartsPerDay => constraints.starts_per_day = Some(12),
                Cause::Wan | Cause::Promised => {
                    version += 1;
                    let needed = advice.needs_bytes_per_s.expect("a rate");
                    let before = bench.conductor.topology().cloned().expect("signed");
                    rate(&mut bench, version, |t| {
                        for (site, was) in t.sites.iter_mut().zip(&before.sites) {
                            let concerned = advice.sites.contains(&site.id);
                            let rate = if concerned { Some(needed) } else { was.wan_down_bytes_per_s };
                            site.wan_down_bytes_per_s = rate;
                        }
                    });
                }
                cause => prop_assert!(false, "{cause:?} does not stand in the way"),
            }
            let after = simulate(&bench, &proposal, deadline);
            let again = after.advice.iter().find(|a| a.cause == advice.cause);
            prop_assert!(again.is_none_or(|a| a.nodes < advice.nodes || a.sites != advice.sites), "{advice:?} does not help: {after:?}");
            forecast = after;
        }
        prop_assert_eq!((forecast.late, forecast.advice.len()), (0, 0));
    }
}
