//! What a site's WAN may carry at which hour, by the clock on the site's wall.
//!
//! Rates of certain hours stand in the place of the site's own while the clock shows a time inside them; of
//! several that hold at once, the first in the list counts. Whoever looks is told until when its answer
//! surely stands, so nobody has to look every second.

use serde::{Deserialize, Serialize};

use crate::hours::{Hours, any_at};
use crate::limits::RATE_HOURS_MAX;
use crate::time::Time;
use crate::topology::Site;
use crate::zones::{Clock, Zone};

/// Hours in which a site's WAN has other rates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Schedule {
    /// Whose clock the hours mean: an IANA zone, because sources elsewhere keep to them too.
    pub zone: Zone,
    /// At most [`RATE_HOURS_MAX`], the first that holds counts.
    pub hours: Vec<RateHours>,
}

/// The rates of certain hours, bytes a second at the sockets; none: no cap, 0: nothing crosses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RateHours {
    /// When they hold.
    pub hours: Hours,
    /// In the place of [`Site::wan_down_bytes_per_s`].
    pub wan_down_bytes_per_s: Option<u64>,
    /// In the place of [`Site::wan_up_bytes_per_s`].
    pub wan_up_bytes_per_s: Option<u64>,
}

/// What a site's WAN may carry at a moment, bytes a second; none: no cap, 0: nothing crosses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// All its nodes together take no more.
    pub down: Option<u64>,
    /// All its nodes together send no more.
    pub up: Option<u64>,
    /// Wall time until which this surely stays so; none: until there is another topology.
    pub until: Option<Time>,
}

impl Site {
    /// Its rates at a wall time.
    pub fn rates(&self, at: Time) -> Rates {
        let clock = self.schedule.as_ref().and_then(Schedule::clock);
        self.rates_by(clock.as_ref(), at)
    }

    /// Its rates at a wall time by the clock of its schedule, if it has one. A program that does not know
    /// the zone keeps to the least of all rates.
    pub fn rates_by(&self, clock: Option<&Clock>, at: Time) -> Rates {
        let own = Rates {
            down: self.wan_down_bytes_per_s,
            up: self.wan_up_bytes_per_s,
            until: None,
        };
        match &self.schedule {
            None => own,
            Some(schedule) => match clock {
                Some(clock) => schedule.rates(own, clock, at),
                None => schedule.least(own),
            },
        }
    }
}

impl Schedule {
    /// The clock on the site's wall, if this program knows its zone.
    pub fn clock(&self) -> Option<Clock> {
        match &self.zone {
            Zone::Named(name) => Clock::of(name),
            Zone::Local => None,
        }
    }

    fn rates(&self, own: Rates, clock: &Clock, at: Time) -> Rates {
        let mut until: Option<Time> = None;
        for entry in &self.hours {
            let (holds, stays) = clock.timed(at, |shown| any_at(&[entry.hours], shown));
            until = until.into_iter().chain(stays).min();
            if holds {
                return Rates {
                    until,
                    ..entry.rates()
                };
            }
        }
        Rates { until, ..own }
    }

    fn least(&self, own: Rates) -> Rates {
        let less = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        self.hours.iter().fold(own, |least, entry| Rates {
            down: less(least.down, entry.wan_down_bytes_per_s),
            up: less(least.up, entry.wan_up_bytes_per_s),
            until: None,
        })
    }

    /// What whoever reads the topology must find true.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.hours.len() > RATE_HOURS_MAX {
            return Err(format!(
                "a site has rates for at most {RATE_HOURS_MAX} hours"
            ));
        }
        match self.zone {
            Zone::Local => Err(
                "hours of rates need an IANA zone, because sources elsewhere keep to them".into(),
            ),
            Zone::Named(_) => Ok(()),
        }
    }
}

impl RateHours {
    fn rates(&self) -> Rates {
        Rates {
            down: self.wan_down_bytes_per_s,
            up: self.wan_up_bytes_per_s,
            until: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Span;

    fn site(zone: &str, hours: &[(&str, Option<u64>)]) -> Site {
        let entry = |(hours, down): &(&str, Option<u64>)| RateHours {
            hours: hours.parse().expect("hours"),
            wan_down_bytes_per_s: *down,
            wan_up_bytes_per_s: down.map(|down| down / 2),
        };
        Site {
            id: "s".parse().expect("a name"),
            subnets: Vec::new(),
            parent: None,
            wan_down_bytes_per_s: Some(1_000),
            wan_up_bytes_per_s: None,
            relay: false,
            no_peers: false,
            node: Default::default(),
            schedule: Some(Schedule {
                zone: zone.parse().expect("a zone"),
                hours: hours.iter().map(entry).collect(),
            }),
        }
    }

    #[test]
    fn the_first_hours_that_hold_count_by_the_clock_of_the_site() {
        let site = site(
            "Europe/Berlin",
            &[
                ("mon-fri 08:00-18:00", Some(100)),
                ("daily 07:00-20:00", Some(500)),
                ("sat,sun 22:00-04:00", None),
            ],
        );
        // 2026-11-23, a Monday; Berlin is an hour ahead.
        let monday = |h: u64, m: u64| Time::from_secs(1_795_392_000 + h * 3600 + m * 60);
        let check = |at: Time, down: Option<u64>, until: Time| {
            let rates = site.rates(at);
            assert_eq!((rates.down, rates.until), (down, Some(until)), "{at:?}");
        };
        check(monday(5, 0), Some(1_000), monday(6, 0));
        check(monday(6, 0), Some(500), monday(7, 0));
        check(monday(7, 0), Some(100), monday(17, 0));
        check(monday(17, 0), Some(500), monday(19, 0));
        check(monday(19, 0), Some(1_000), monday(30, 0));
        let sunday = |h: u64| monday(6 * 24 + h, 0);
        check(sunday(22), None, sunday(27));
        assert_eq!(site.rates(monday(7, 0)).up, Some(50));
    }

    #[test]
    fn a_zone_that_is_not_known_has_the_least_of_all_rates() {
        let site = site(
            "Mars/Olympus",
            &[("daily 07:00-20:00", Some(70)), ("mon 01:00-02:00", None)],
        );
        let least = Rates {
            down: Some(70),
            up: Some(35),
            until: None,
        };
        assert_eq!(site.rates(Time::from_secs(5)), least);
    }

    #[test]
    fn hours_beyond_the_limit_or_without_a_zone_are_refused() {
        let most = site("UTC", &[("daily 07:00-20:00", None)].repeat(RATE_HOURS_MAX));
        assert_eq!(most.schedule.expect("set").check(), Ok(()));
        let more = site(
            "UTC",
            &[("daily 07:00-20:00", None)].repeat(RATE_HOURS_MAX + 1),
        );
        assert!(more.schedule.expect("set").check().is_err());
        assert!(site("local", &[]).schedule.expect("set").check().is_err());
    }

    /// Slow and obvious: asks the clock at every minute.
    fn model(site: &Site, at: Time) -> Option<u64> {
        let schedule = site.schedule.as_ref().expect("set");
        let shown = schedule.clock().expect("known").shows(at);
        let holds = |entry: &&RateHours| entry.hours.at(shown).holds;
        match schedule.hours.iter().find(holds) {
            Some(entry) => entry.wan_down_bytes_per_s,
            None => site.wan_down_bytes_per_s,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn an_answer_stands_until_it_says_and_is_that_of_every_minute(
            zone in prop::sample::select(vec!["Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "UTC", "Australia/Lord_Howe"]),
            hours in prop::collection::vec((1u8..128, 0u16..1440, 1u16..=1440, prop::option::of(0u64..5)), 0..5),
            // around the last Sunday of October 2026, when clocks jump
            from in 1_792_700_000u64..1_793_100_000,
        ) {
            let mut site = site(zone, &[]);
            site.schedule.as_mut().expect("set").hours = hours
                .into_iter()
                .map(|(days, start, minutes, down)| RateHours {
                    hours: Hours::new(days, start, minutes).expect("fine"),
                    wan_down_bytes_per_s: down,
                    wan_up_bytes_per_s: None,
                })
                .collect();
            let mut at = Time::from_secs(from);
            let mut rates = site.rates(at);
            for _ in 0..2_880 {
                if rates.until.is_some_and(|until| until <= at) {
                    prop_assert!(rates.until > Some(at - Span::from_secs(30)));
                    rates = site.rates(at);
                }
                prop_assert_eq!(rates.down, model(&site, at), "{:?}", at);
                prop_assert_eq!(site.rates(at).down, rates.down);
                at = at + Span::from_secs(30);
            }
        }
    }
}
