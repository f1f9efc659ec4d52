//! Who cannot reach whom, and when.

use std::collections::BTreeMap;

use protocol::Time;

use super::Mishap;
use crate::scenario::{Cut, Scenario, SiteSpec, below, stream};

/// From a moment to just before another.
pub(super) type Times = Vec<(Time, Time)>;

/// Who cannot reach whom, and when.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    seed: u64,
    wan: BTreeMap<usize, Times>,
    lan: BTreeMap<usize, Times>,
    coordinator: Times,
    origin: Times,
}

/// Where something in the world stands, as far as cuts go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A site, by number.
    Site(usize),
    /// The origin.
    Origin,
    /// The coordinator.
    Coordinator,
}

impl Cuts {
    pub(super) fn draw(scenario: &Scenario, sites: &[SiteSpec]) -> Cuts {
        let mut cuts = Cuts {
            seed: scenario.seed,
            ..Cuts::default()
        };
        for (n, spec) in scenario.faults.cuts.iter().enumerate() {
            let times = (Time::from_secs(spec.from_s), Time::from_secs(spec.to_s));
            let mut rng = stream(scenario.seed, &format!("sites of cut {n}"));
            let mut hit: Vec<usize> = Vec::new();
            for (number, site) in sites.iter().enumerate() {
                let drawn = below(&mut rng, 100) < u64::from(spec.percent.unwrap_or(0));
                if spec.site.as_ref().map_or(drawn, |name| *name == site.name) {
                    hit.push(number);
                }
            }
            let into = match spec.what {
                Cut::Wan => &mut cuts.wan,
                Cut::Lan => &mut cuts.lan,
                Cut::Coordinator => {
                    cuts.coordinator.push(times);
                    continue;
                }
                Cut::Origin => {
                    cuts.origin.push(times);
                    continue;
                }
            };
            for site in hit {
                into.entry(site).or_default().push(times);
            }
        }
        cuts
    }

    /// Whether what stands in one place reaches what stands in another.
    pub fn reaches(&self, a: Side, b: Side, at: Time) -> bool {
        a == b || !self.alone(a, at) && !self.alone(b, at)
    }

    /// Whether a place is cut off from all others.
    pub fn alone(&self, side: Side, at: Time) -> bool {
        let times = match side {
            Side::Site(site) => self.wan(site),
            Side::Origin => &self.origin,
            Side::Coordinator => &self.coordinator,
        };
        hold(times, at)
    }

    /// Whether two machines of a site reach one another.
    pub fn near(&self, site: usize, a: usize, b: usize, at: Time) -> bool {
        let split = self.lan.get(&site).is_some_and(|times| hold(times, at));
        !split || self.half(site, a) == self.half(site, b)
    }

    /// The half of a site's LAN in which a machine finds itself when it falls in two.
    pub fn half(&self, site: usize, slot: usize) -> bool {
        below(&mut stream(self.seed, &format!("half of {site}/{slot}")), 2) == 0
    }

    /// Whether anything is ever cut.
    pub fn any(&self) -> bool {
        self.begins().next().is_some() || !self.lan.is_empty() || !self.coordinator.is_empty()
    }

    /// When some place is cut off from the others.
    pub(super) fn begins(&self) -> impl Iterator<Item = Time> {
        let wan = self.wan.values().flatten();
        wan.chain(&self.origin).map(|(from, _)| *from)
    }

    /// When a site's WAN is cut.
    pub(super) fn wan(&self, site: usize) -> &[(Time, Time)] {
        self.wan.get(&site).map_or(&[], |times| times)
    }

    /// When a site's LAN falls in two, and when it is whole again.
    pub(super) fn splits(&self, site: usize) -> Vec<(Time, Mishap)> {
        let times = self.lan.get(&site).map_or(&[][..], |times| times);
        let merged = merge(times.to_vec());
        let ends = merged.into_iter();
        ends.flat_map(|(from, to)| [(from, Mishap::Splits), (to, Mishap::Joins)])
            .collect()
    }
}

fn hold(times: &[(Time, Time)], at: Time) -> bool {
    times.iter().any(|(from, to)| (*from..*to).contains(&at))
}

/// The same times, in order and apart from one another.
pub(super) fn merge(mut times: Times) -> Times {
    times.sort_unstable();
    let mut merged: Times = Vec::new();
    for (from, to) in times {
        match merged.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
    }
    merged
}
