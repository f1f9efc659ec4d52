//! What a site's WAN carries over the day, and while it is cut.

use std::collections::BTreeSet;

use protocol::{Span, Time};

use super::Mishap;
use crate::scenario::{Scenario, SiteSpec, second_of_day};

const HOUR: Span = Span::from_secs(3600);

/// When a site's WAN changes its rate; the first entry is at the beginning, if it is not whole then.
pub(super) fn changes(
    scenario: &Scenario,
    site: &SiteSpec,
    cut: &[(Time, Time)],
) -> Vec<(Time, Mishap)> {
    let end = Time::from_secs(scenario.duration_s);
    let zone = site.zone_h.unwrap_or(0);
    // worlds begin and hours change on the hour
    let mut moments: BTreeSet<Time> = cut.iter().flat_map(|(from, to)| [*from, *to]).collect();
    moments.insert(Time(0));
    if !site.schedule.is_empty() {
        let hours = (0..).map(|n| Time(HOUR.0 * n));
        moments.extend(hours.take_while(|at| *at < end));
    }
    let mut before = 1000;
    let mut changes = Vec::new();
    for at in moments {
        let second = second_of_day(zone, at.0 / 1000);
        let hours = site.schedule.iter().find(|hours| hours.hold(second));
        let permille = match cut.iter().any(|(from, to)| (*from..*to).contains(&at)) {
            true => 0,
            false => hours.map_or(1000, |hours| hours.percent * 10),
        };
        if permille != before {
            changes.push((at, Mishap::Wan { permille }));
            before = permille;
        }
    }
    changes
}
