//! What the WANs of sites may carry now: the rates of the signed topology at this hour of each site's clock.
//!
//! Sources and takers each follow the clock by themselves, so a switch needs no message. The wall clock may
//! be set at any time; as long as any hours are to come it is looked at every second.

use std::collections::BTreeMap;

use litemap::LiteMap;
use protocol::schedule::Rates;
use protocol::topology::Site;
use protocol::zones::{Clock, Zone};
use protocol::{Now, SiteId, Span, Time};

/// See the head of this file.
const LOOK_EVERY: Span = Span::from_secs(1);

/// The rates of the sites that this node paces.
#[derive(Default)]
pub(crate) struct Budgets {
    /// An endpoint has one, and there are many endpoints in a simulated world.
    sites: LiteMap<SiteId, Kept>,
    /// Clocks of the zones that schedules name; none: this program does not know the zone.
    clocks: BTreeMap<String, Option<Clock>>,
    /// Wall time of the last look.
    looked: Time,
    /// Boot time of the next.
    due: Option<Time>,
}

struct Kept {
    /// Only if its rates change with the hour.
    by_hour: Option<Box<Site>>,
    rates: Rates,
}

/// A site has other rates than it had; none: it is not paced any more.
pub(crate) type Change = (SiteId, Option<Rates>);

impl Budgets {
    /// These sites are paced from now on. All of them are told, and those that are not any more.
    pub fn set<'a>(&mut self, now: Now, sites: impl Iterator<Item = &'a Site>) -> Vec<Change> {
        let mut before = core::mem::take(&mut self.sites);
        self.clocks.clear();
        let mut changes = Vec::new();
        for site in sites {
            let rates = self.rates(site, now.wall);
            before.remove(&site.id);
            changes.push((site.id.clone(), Some(rates)));
            let by_hour = site.schedule.is_some().then(|| Box::new(site.clone()));
            self.sites.insert(site.id.clone(), Kept { by_hour, rates });
        }
        changes.extend(before.into_iter().map(|(site, _)| (site, None)));
        self.looks_again(now);
        changes
    }

    /// When [`Budgets::follow`] has something to do.
    pub fn timeout(&self) -> Option<Time> {
        self.due
    }

    /// The sites whose rates changed with the hour.
    pub fn follow(&mut self, now: Now) -> Vec<Change> {
        let back = now.wall < self.looked;
        let over = |rates: &Rates| rates.until.is_some_and(|until| back || until <= now.wall);
        let mut changes = Vec::new();
        let mut sites = core::mem::take(&mut self.sites);
        for (name, kept) in sites.iter_mut().filter(|(_, kept)| over(&kept.rates)) {
            let Some(site) = &kept.by_hour else {
                continue;
            };
            let rates = self.rates(site, now.wall);
            if (rates.down, rates.up) != (kept.rates.down, kept.rates.up) {
                changes.push((name.clone(), Some(rates)));
            }
            kept.rates = rates;
        }
        self.sites = sites;
        self.looks_again(now);
        changes
    }

    /// What a site may carry now, if it is one of those that are paced.
    pub fn of(&self, site: &SiteId) -> Option<Rates> {
        Some(self.sites.get(site)?.rates)
    }

    fn rates(&mut self, site: &Site, at: Time) -> Rates {
        let clock = match site.schedule.as_ref().map(|schedule| &schedule.zone) {
            Some(Zone::Named(zone)) => {
                let known = || Clock::of(zone);
                let clock = self.clocks.entry(zone.clone()).or_insert_with(known);
                clock.as_ref()
            }
            Some(Zone::Local) | None => None,
        };
        site.rates_by(clock, at)
    }

    fn looks_again(&mut self, now: Now) {
        self.looked = now.wall;
        let ends = self.sites.values().filter_map(|kept| kept.rates.until);
        let next = ends.min().map(|until| until.since(now.wall));
        self.due = next.map(|left| now.boot + left.clamp(Span(1), LOOK_EVERY));
    }
}

#[cfg(test)]
mod tests {
    use protocol::fixtures::Fleet;
    use protocol::schedule::{RateHours, Schedule};

    use super::*;

    const BY_DAY: u64 = 8_000;
    const BY_NIGHT: u64 = 2_500_000;

    /// The first has other rates by day, the second has none.
    fn sites() -> Vec<Site> {
        let mut sites = Fleet::new(1).topology(1, 2).sites;
        sites[0].wan_down_bytes_per_s = Some(BY_NIGHT);
        sites[0].schedule = Some(Schedule {
            zone: "UTC".parse().expect("a zone"),
            hours: vec![RateHours {
                hours: "daily 08:00-18:00".parse().expect("hours"),
                wan_down_bytes_per_s: Some(BY_DAY),
                wan_up_bytes_per_s: None,
            }],
        });
        sites
    }

    /// So many seconds after a midnight, and as many after the machine's start.
    fn at(s: u64) -> Now {
        Now {
            boot: Time::from_secs(s),
            wall: Time::from_secs(1_795_392_000 + s),
        }
    }

    fn down(budgets: &Budgets) -> Option<u64> {
        let rates = budgets.of(&"s1".parse().expect("a name"));
        rates.and_then(|rates| rates.down)
    }

    #[test]
    fn a_switch_is_seen_at_its_second() {
        let mut budgets = Budgets::default();
        let begin = at(8 * 3600 - 60);
        assert_eq!(budgets.set(begin, sites().iter()).len(), 2);
        let mut now = begin;
        for _ in 0..70 {
            let due = budgets.timeout().expect("hours are to come");
            assert!(due > now.boot && due <= now.boot + LOOK_EVERY);
            now = at(due.0 / 1000);
            let changes = budgets.follow(now);
            let switches = now.boot == Time::from_secs(8 * 3600);
            assert_eq!(changes.len(), usize::from(switches), "{now:?}");
            let by_day = now.boot >= Time::from_secs(8 * 3600);
            assert_eq!(down(&budgets), Some(if by_day { BY_DAY } else { BY_NIGHT }));
        }
    }

    #[test]
    fn a_clock_that_is_set_is_followed_both_ways() {
        let mut budgets = Budgets::default();
        budgets.set(at(0), sites().iter());
        assert_eq!(down(&budgets), Some(BY_NIGHT));
        let later = |s: u64, wall: u64| Now {
            boot: Time::from_secs(s),
            ..at(wall)
        };
        assert_eq!(budgets.follow(later(1, 12 * 3600)).len(), 1);
        assert_eq!(down(&budgets), Some(BY_DAY));
        assert_eq!(budgets.follow(later(2, 2)).len(), 1);
        assert_eq!(down(&budgets), Some(BY_NIGHT));
    }

    #[test]
    fn without_hours_nobody_looks_and_sites_that_go_are_told() {
        let mut budgets = Budgets::default();
        let mut sites = sites();
        sites[0].schedule = None;
        budgets.set(at(0), sites.iter());
        assert_eq!(budgets.timeout(), None);
        let changes = budgets.set(at(1), sites[1..].iter());
        let gone = |change: &&Change| change.1.is_none();
        assert_eq!(changes.iter().filter(gone).count(), 1);
        assert_eq!(budgets.of(&sites[0].id), None);
    }
}
