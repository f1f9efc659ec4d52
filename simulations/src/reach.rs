//! How far each part of the world may run by itself.
//!
//! What a part has yet to do can be heard elsewhere only after the way out of its door and the way in at
//! the other's. So a part may run until the soonest of what the others can yet send, and the way to itself;
//! one at the end of a long way runs far, and is entered seldom (conservative windows with the
//! distances between parts: Lubachevsky, 1989; Nicol, 1993).

use protocol::{Span, Time};

use crate::shared::Shared;

/// The soonest at which each kind of part can have anything at the middle of the world, on its way to
/// another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    sites: Time,
    centre: Time,
    hub: Time,
}

impl Default for Reach {
    /// Nobody has anything to do.
    fn default() -> Reach {
        Reach {
            sites: Time::MAX,
            centre: Time::MAX,
            hub: Time::MAX,
        }
    }
}

impl Reach {
    /// A part has something to do then.
    pub fn has(&mut self, shared: &Shared, part: usize, at: Time) {
        let kind = match part {
            part if part < shared.centre() => &mut self.sites,
            part if part == shared.centre() => &mut self.centre,
            _ => &mut self.hub,
        };
        *kind = (at + shared.way(part)).min(*kind);
    }

    /// What either of them knows.
    pub fn join(&mut self, other: Reach) {
        self.sites = self.sites.min(other.sites);
        self.centre = self.centre.min(other.centre);
        self.hub = self.hub.min(other.hub);
    }

    /// Until just before this a part hears of nothing that it was not sent yet.
    pub fn of(&self, shared: &Shared, part: usize) -> Time {
        // the data centre and the coordinator are further from one another than their doors, and what
        // one of them says comes back answered after twice that
        let way = shared.way(part).0;
        let far = Span(shared.lookahead.0.saturating_sub(2 * way));
        let back = Span(2 * (far.0 + way));
        let others = match part {
            part if part < shared.centre() => self.centre.min(self.hub),
            part if part == shared.centre() => (self.hub + far).min(self.centre + back),
            _ => (self.centre + far).min(self.hub + back),
        };
        self.sites.min(others) + shared.way(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scenario;

    /// Three sites at 15, 15 and 60 ms; the centre is part 3 and the hub part 4.
    fn world() -> Shared {
        let text = include_str!("../scenarios/three-sites.toml");
        let mut scenario = Scenario::parse(text).expect("a scenario");
        let delays = [15, 15, 60];
        let sites = scenario.sites.iter_mut().zip(delays);
        sites.for_each(|(site, ms)| site.wan_delay_ms = ms);
        Shared::new(scenario).expect("a world")
    }

    /// How far each part may run when these have something to do.
    fn reached(has: &[(usize, u64)]) -> [u64; 5] {
        let shared = world();
        let mut reach = Reach::default();
        has.iter()
            .for_each(|(part, at)| reach.has(&shared, *part, Time(*at)));
        [0, 1, 2, 3, 4].map(|part| reach.of(&shared, part).0)
    }

    #[test]
    fn a_part_runs_until_the_soonest_that_others_can_have_reach_it() {
        // a site's word takes its way out, and the other's way in
        assert_eq!(reached(&[(0, 100)]), [130, 130, 175, 116, 116]);
        // the coordinator is at the door of every site, and 16 ms from the data centre, which may answer
        assert_eq!(reached(&[(4, 100)]), [116, 116, 161, 116, 132]);
        assert_eq!(reached(&[(3, 100)]), [116, 116, 161, 132, 116]);
        assert_eq!(
            reached(&[(2, 100), (4, 155)]),
            [171, 171, 216, 161, 161],
            "the soonest counts for each"
        );
    }
}
