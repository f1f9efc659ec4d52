//! A whole scenario out of a seed: small worlds in which anything that the language can say may
//! happen, so that the checkers see what nobody thought of (swarm testing: Groce et al. 2012; every
//! feature is left out of most worlds, because features hide one another).

use protocol::constraints::PastDeadline;
use protocol::hours::Hours as HoursOfWeek;
use protocol::plan::Priority;
use protocol::zones::Zone;
use rand_chacha::ChaCha8Rng;

use super::{
    BEGINS_H, ChurnSpec, ConstraintSpec, Cut, CutSpec, FailureSpec, Faults, Hours, How, LaptopSpec,
    Length, MachineSpec, ReleaseSpec, RolloutSpec, Scenario, SiteSpec, TestSpec, WaveSpec, below,
    stream,
};

/// Faults of a drawn world end by then, in seconds.
const CALM_S: u64 = 180;
/// A drawn world ends by then, in seconds.
const DURATION_S: u64 = 2400;
/// Nodes of a drawn site.
const SITE_NODES_MAX: u64 = 8;

/// One stream of draws for each part of the scenario.
struct Draw(ChaCha8Rng);

impl Draw {
    /// Between two, both included.
    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + below(&mut self.0, to - from + 1)
    }
    /// One of `n` times.
    fn one_in(&mut self, n: u64) -> bool {
        below(&mut self.0, n) == 0
    }
    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[below(&mut self.0, all.len() as u64) as usize]
    }
    fn share(&mut self, all: &[u64]) -> u32 {
        self.pick(all) as u32
    }
    fn length(&mut self, most_s: u64) -> Length {
        let most = self.between(1, most_s) as f64;
        match self.between(0, 2) {
            0 => Length::Fixed(most),
            1 => Length::Between {
                from_s: 0.0,
                to_s: most,
            },
            _ => Length::Usual {
                median_s: most / 4.0,
                p99_s: most,
            },
        }
    }
}

impl Scenario {
    /// The scenario that a seed draws: at most 5 sites of 8 nodes, 3 releases of 16 MiB, and faults
    /// that end after three minutes of 40. The same seed gives the same scenario.
    pub fn drawn(seed: u64) -> Scenario {
        let of = |part: &str| Draw(stream(seed, &format!("scenario: {part}")));
        let sites = sites(&mut of("sites"));
        let attributes = attributes(&mut of("attributes"));
        let names: Vec<String> = sites.iter().map(|s| s.name.clone()).collect();
        let mut machines = of("machines");
        let mut laptops = of("laptops");
        let mut churn = of("churn");
        Scenario {
            name: format!("drawn-{seed}"),
            seed,
            duration_s: DURATION_S,
            idle_s: 20,
            rollout: RolloutSpec {
                test: test(&mut of("test"), !attributes.is_empty()),
                constraints: constraints(&mut of("hours of starts")),
                ..rollout(&mut of("waves"), &names)
            },
            releases: releases(&mut of("releases"), !attributes.is_empty()),
            machines: MachineSpec {
                boot_s: machines.length(20),
                restart_s: machines.length(60),
                ..MachineSpec::default()
            },
            laptops: laptops.one_in(5).then(|| LaptopSpec {
                percent: laptops.share(&[10, 30, 60]),
                on_h: 7,
                off_h: 19,
                spread_min: 90,
                abrupt_percent: 50,
            }),
            churn: churn.one_in(4).then(|| ChurnSpec {
                percent_per_hour: churn.share(&[20, 100, 600]),
                away_s: churn.length(60),
                until_s: CALM_S,
            }),
            faults: faults(&mut of("faults"), &names),
            attributes,
            sites,
            ..Scenario::empty()
        }
    }
}

fn sites(draw: &mut Draw) -> Vec<SiteSpec> {
    let count = draw.between(1, 5);
    let site = |n| SiteSpec {
        name: format!("s{n}"),
        nodes: draw.between(1, SITE_NODES_MAX) as u32,
        wan_mbit: draw.pick(&[2, 5, 10, 20, 50, 100]),
        lan_mbit: draw.pick(&[100, 1000]),
        wan_delay_ms: draw.pick(&[2, 10, 40, 150, 300]),
        zone_h: Some(draw.between(0, 23) as i32 - 11),
        schedule: match draw.one_in(4) {
            true => vec![Hours {
                from_h: 8,
                to_h: 18,
                percent: draw.share(&[10, 25, 50]),
            }],
            false => Vec::new(),
        },
        ..SiteSpec::default()
    };
    (1..=count).map(site).collect()
}

fn attributes(draw: &mut Draw) -> std::collections::BTreeMap<String, super::Shares> {
    let shares = [
        ("e1000".to_owned(), draw.share(&[1, 10, 50])),
        ("virtio".to_owned(), 50),
    ];
    match draw.one_in(2) {
        true => [("driver".to_owned(), shares.into())].into(),
        false => Default::default(),
    }
}

fn releases(draw: &mut Draw, cohorts: bool) -> Vec<ReleaseSpec> {
    let count = draw.between(1, 3);
    let at_once = draw.one_in(3);
    let mut release = |n: u64| {
        let carrier_mib = draw.between(1, 8);
        ReleaseSpec {
            product: match at_once {
                true => format!("app-{n}"),
                false => "app".into(),
            },
            version: format!("1.{n}"),
            pack_mib: carrier_mib * draw.between(1, 2),
            carrier_mib,
            health_soak_s: draw.pick(&[0, 2, 10]),
            install_s: draw.one_in(3).then(|| draw.length(30)),
            restart_s: draw.one_in(4).then(|| draw.length(60)),
            failures: match draw.one_in(3) {
                true => vec![failure(draw, cohorts)],
                false => Vec::new(),
            },
            recall: draw.one_in(8),
            start_s: at_once.then(|| 5 + draw.between(0, 30)),
            priority: draw.pick(&[
                Priority::Low,
                Priority::Medium,
                Priority::High,
                Priority::Emergency,
            ]),
            ..ReleaseSpec::default()
        }
    };
    (0..count).map(&mut release).collect()
}

fn failure(draw: &mut Draw, cohorts: bool) -> FailureSpec {
    let how = draw.pick(&[How::Health, How::Install, How::Latent, How::Silent]);
    let cohort = [("driver".to_owned(), "e1000".to_owned())];
    FailureSpec {
        how,
        percent: draw.share(&[5, 30, 100]),
        cohort: match cohorts && draw.one_in(2) {
            true => cohort.into(),
            false => Default::default(),
        },
        after_s: (how == How::Latent).then(|| draw.length(120)),
    }
}

fn rollout(draw: &mut Draw, sites: &[String]) -> RolloutSpec {
    let wave = |name: &str, soak_s| WaveSpec {
        name: name.into(),
        success_percent: 90,
        sample: 2,
        soak_s,
        silence_s: 240,
        ..WaveSpec::default()
    };
    let soak_s = draw.pick(&[1, 5, 30]);
    let mut waves = vec![wave("rest", soak_s)];
    if draw.one_in(2) {
        let percent = Some(draw.share(&[20, 50]));
        waves.insert(
            0,
            WaveSpec {
                percent,
                ..wave("share", soak_s)
            },
        );
    }
    if draw.one_in(2) {
        let count = Some(draw.between(1, 4) as u32);
        waves.insert(
            0,
            WaveSpec {
                count,
                ..wave("canary", soak_s)
            },
        );
    }
    // first, because a canary before it could leave nobody in it
    if sites.len() > 1 && draw.one_in(4) {
        let at = below(&mut draw.0, sites.len() as u64) as usize;
        let site = Some(sites[at].clone());
        waves.insert(
            0,
            WaveSpec {
                site,
                ..wave("site", soak_s)
            },
        );
    }
    RolloutSpec {
        lease_ttl_s: draw.pick(&[30, 60, 300]),
        waves,
        ..RolloutSpec::default()
    }
}

fn test(draw: &mut Draw, cohorts: bool) -> Option<TestSpec> {
    draw.one_in(3).then(|| TestSpec {
        preset: draw
            .pick(&["careful", "normal", "fast", "emergency"])
            .into(),
        cohorts: match cohorts && draw.one_in(2) {
            true => vec!["driver=e1000".into()],
            false => Vec::new(),
        },
        in_flight_max: Some(draw.share(&[2, 5, 50])),
    })
}

/// No starts in some minutes soon after the beginning, or a window that opens then.
fn constraints(draw: &mut Draw) -> ConstraintSpec {
    if !draw.one_in(4) {
        return ConstraintSpec::default();
    }
    let start = 60 * BEGINS_H as u16 + draw.between(1, 4) as u16;
    let minutes = draw.between(1, 4) as u16;
    let hours = HoursOfWeek::new(0x7f, start, minutes).into_iter().collect();
    let mut rules = ConstraintSpec {
        zone: Zone::Named("UTC".into()),
        deadline_s: draw.one_in(2).then(|| draw.between(60, 600)),
        spread_s: draw.pick(&[0, 0, 60]),
        ..ConstraintSpec::default()
    };
    match draw.between(0, 2) {
        0 => rules.blackouts = hours,
        1 => rules.quiet = hours,
        _ => {
            rules.windows = hours;
            rules.past_deadline = PastDeadline::OverrideWindows;
        }
    }
    rules
}

fn faults(draw: &mut Draw, sites: &[String]) -> Faults {
    let mut cuts = Vec::new();
    for what in [Cut::Wan, Cut::Lan, Cut::Coordinator, Cut::Origin] {
        if draw.one_in(5) {
            let from_s = draw.between(2, CALM_S - 10);
            let one_site = matches!(what, Cut::Wan | Cut::Lan);
            let at = below(&mut draw.0, sites.len() as u64) as usize;
            cuts.push(CutSpec {
                what,
                site: one_site.then(|| sites[at].clone()),
                percent: None,
                from_s,
                to_s: draw.between(from_s + 1, CALM_S),
            });
        }
    }
    let mut some = |most: u64| match draw.one_in(3) {
        true => draw.between(1, most) as u32,
        false => 0,
    };
    Faults {
        until_s: CALM_S,
        crashes: some(10),
        reboots: some(4),
        coordinator_crashes: some(3),
        gossip_loss_ppm: some(200_000),
        gossip_duplicate_ppm: some(200_000),
        request_loss_ppm: some(100_000),
        jitter_ms: u64::from(some(300)),
        cuts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::check::check;

    #[test]
    fn every_seed_draws_a_scenario_that_can_be() {
        let mut faults = [0; 6];
        for seed in 0..500 {
            let drawn = Scenario::drawn(seed);
            check(&drawn).unwrap_or_else(|e| panic!("seed {seed}: {e:#}"));
            assert!(drawn.nodes() <= 40);
            faults[0] += u32::from(drawn.laptops.is_some());
            faults[1] += u32::from(drawn.churn.is_some());
            faults[2] += u32::from(!drawn.faults.cuts.is_empty());
            faults[3] += u32::from(drawn.releases.iter().any(|r| r.start_s.is_some()));
            faults[4] += u32::from(drawn.rollout.test.is_some());
            faults[5] += u32::from(drawn.rollout.constraints.waits());
        }
        assert!(faults.iter().all(|n| (50..450).contains(n)), "{faults:?}");
    }

    #[test]
    fn the_same_seed_draws_the_same_scenario() {
        let text = |seed| format!("{:?}", Scenario::drawn(seed));
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }
}
