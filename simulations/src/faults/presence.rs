//! When machines are on: people carry them home, they leave and come back, die and restart.

use std::collections::BTreeMap;

use protocol::{Span, Time};
use rand_chacha::ChaCha8Rng;

use super::{Traits, moment};
use crate::scenario::{ChurnSpec, LaptopSpec, Scenario, SiteSpec, below, second_of_day, stream};

const DAY: Span = Span::from_secs(86_400);
const HOUR: Span = Span::from_secs(3600);
/// A machine that comes back stays for at least so long.
const STAY: Span = Span::from_secs(1);
/// Absences of one machine by churn; more of them are left out.
const CHURN_MAX: usize = 10_000;

/// A time in which a machine is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Absence {
    /// From this moment.
    pub from: Time,
    /// To this one.
    pub to: Time,
    /// Whether it tells its site that it goes.
    pub farewell: bool,
    /// Whether the whole machine was off, not only its process.
    pub rebooted: bool,
}

/// Machines that die or restart at random moments, all sites together.
#[derive(Clone, Debug, Default)]
pub(super) struct Victims {
    of: BTreeMap<(usize, usize), Vec<Absence>>,
}

impl Victims {
    pub(super) fn draw(scenario: &Scenario, sites: &[SiteSpec]) -> Victims {
        let mut victims = Victims::default();
        let nodes: u64 = sites.iter().map(|s| u64::from(s.nodes)).sum();
        if nodes == 0 {
            return victims;
        }
        let (faults, machines) = (&scenario.faults, &scenario.machines);
        let kinds = [
            ("crashes", faults.crashes, machines.boot_s, false),
            ("reboots", faults.reboots, machines.restart_s, true),
        ];
        for (purpose, count, away, rebooted) in kinds {
            let mut rng = stream(scenario.seed, purpose);
            for _ in 0..count {
                let place = place(sites, below(&mut rng, nodes));
                let from = moment(&mut rng, faults.until_s);
                let absence = Absence {
                    from,
                    to: from + away.draw(&mut rng),
                    farewell: false,
                    rebooted,
                };
                victims.of.entry(place).or_default().push(absence);
            }
        }
        victims
    }
}

/// The site and slot of a node by its number.
fn place(sites: &[SiteSpec], mut number: u64) -> (usize, usize) {
    for (site, spec) in sites.iter().enumerate() {
        match number.checked_sub(u64::from(spec.nodes)) {
            Some(rest) => number = rest,
            None => return (site, number as usize),
        }
    }
    (0, 0)
}

/// When a machine is away, in order and apart from one another.
pub(super) fn absences(
    scenario: &Scenario,
    site: &SiteSpec,
    traits: &Traits,
    victims: &Victims,
    place: (usize, usize),
) -> Vec<Absence> {
    let (number, slot) = place;
    let of = |purpose: &str| stream(scenario.seed, &format!("{purpose} of {number}/{slot}"));
    let end = Time::from_secs(scenario.duration_s);
    let mut all = victims.of.get(&place).cloned().unwrap_or_default();
    if let Some(laptops) = scenario.laptops.filter(|_| traits.laptop) {
        nights(
            &laptops,
            site.zone_h.unwrap_or(0),
            end,
            &mut of("days"),
            &mut all,
        );
    }
    if let Some(churn) = scenario.churn {
        churned(&churn, end, &mut of("churn"), &mut all);
    }
    apart(all)
}

/// A laptop is away from each day's going to the next day's coming.
fn nights(
    laptops: &LaptopSpec,
    zone_h: i32,
    end: Time,
    rng: &mut ChaCha8Rng,
    all: &mut Vec<Absence>,
) {
    let hour = |h: u32| HOUR.0 * u64::from(h);
    let night = (hour(laptops.on_h) + DAY.0 - hour(laptops.off_h)) % DAY.0;
    let spread = u64::from(laptops.spread_min) * 60_000;
    // everything is counted from the day before the beginning, so that nothing is negative
    let since_midnight = second_of_day(zone_h, 0) * 1000;
    let midnight = 2 * DAY.0 - since_midnight;
    let mut day = 0;
    loop {
        let mut about = |at: u64| at + below(rng, 2 * spread + 1) - spread;
        let going = about(midnight - DAY.0 + DAY.0 * day + hour(laptops.off_h));
        let coming = about(midnight - DAY.0 + DAY.0 * day + hour(laptops.off_h) + night);
        let abrupt = below(rng, 100) < u64::from(laptops.abrupt_percent);
        let since = |at: u64| Time(at.saturating_sub(DAY.0 * 2));
        day += 1;
        if since(going) >= end && going > DAY.0 * 2 {
            return;
        }
        if coming > DAY.0 * 2 && coming > going {
            all.push(Absence {
                from: since(going),
                to: since(coming),
                farewell: !abrupt,
                rebooted: true,
            });
        }
    }
}

/// A node leaves as often as the rate says: the times between are exponential, cut to milliseconds.
fn churned(churn: &ChurnSpec, end: Time, rng: &mut ChaCha8Rng, all: &mut Vec<Absence>) {
    if churn.percent_per_hour == 0 {
        return;
    }
    let mean = HOUR.0 as f64 * 100.0 / f64::from(churn.percent_per_hour);
    let end = end.min(Time::from_secs(churn.until_s));
    let mut at = Time(0);
    for _ in 0..CHURN_MAX {
        let unit = (below(rng, 1 << 52) + 1) as f64 / (1u64 << 52) as f64;
        at = Time(at.0 + (-unit.ln() * mean) as u64 + STAY.0);
        if at >= end {
            return;
        }
        let to = at + churn.away_s.draw(rng);
        all.push(Absence {
            from: at,
            to,
            farewell: below(rng, 2) == 0,
            rebooted: true,
        });
        at = to;
    }
}

/// Absences that touch become one: it begins as the first begins, and was a reboot if any was.
fn apart(mut all: Vec<Absence>) -> Vec<Absence> {
    all.sort_unstable_by_key(|a| (a.from, a.to, a.rebooted));
    let mut merged: Vec<Absence> = Vec::new();
    for one in all {
        match merged.last_mut() {
            Some(last) if one.from <= last.to + STAY => {
                last.to = last.to.max(one.to);
                last.rebooted |= one.rebooted;
            }
            _ => merged.push(one),
        }
    }
    merged
}
