//! How fast a revocation list may grow on the word of the coordinator's keys alone.
//!
//! Room for [`REVOCATIONS_BELIEVED`] certificates comes with every day. A node that is in touch keeps room for
//! one day; one that is away gathers room for all its days, because all that was revoked meanwhile comes at
//! once. Its own clock measures, which no thief of those keys turns. A node that never heard of a list takes
//! the first one as it is: it has nothing to compare it with.

use protocol::Time;
use protocol::limits::REVOCATIONS_BELIEVED;

const DAY_MS: u64 = 86_400_000;
/// Room is counted in shares of a certificate, so that every millisecond brings some.
const SHARE: u64 = DAY_MS;
/// Room of one day.
const DAY: u64 = REVOCATIONS_BELIEVED * SHARE;

/// How much a list may grow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Growth {
    known: bool,
    room: u64,
    at: Time,
}

impl Growth {
    /// A node that starts: it was in touch at `last`, and has a list or not.
    pub fn new(last: Time, has_list: bool) -> Growth {
        Growth {
            known: has_list,
            room: DAY,
            at: last,
        }
    }

    /// A bulletin names the list that the node has.
    pub fn confirmed(&mut self, now: Time) {
        self.fill(now);
        self.room = self.room.min(DAY);
    }

    /// Whether a list may come that has so many certificates more than the node knew. If so, they are counted.
    pub fn takes(&mut self, now: Time, more: usize) -> bool {
        self.fill(now);
        if !std::mem::replace(&mut self.known, true) {
            self.room = DAY;
            return true;
        }
        let cost = (more as u64).saturating_mul(SHARE);
        let fits = cost <= self.room;
        if fits {
            self.room -= cost;
        }
        fits
    }

    fn fill(&mut self, now: Time) {
        let gained = now.since(self.at).0.saturating_mul(REVOCATIONS_BELIEVED);
        self.room = self.room.saturating_add(gained);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = REVOCATIONS_BELIEVED as usize;

    fn day(n: u64) -> Time {
        Time((100 + n) * DAY_MS)
    }

    #[test]
    fn a_day_brings_room_for_so_many_and_no_more() {
        let mut growth = Growth::new(day(0), true);
        assert!(!growth.takes(day(0), N + 1));
        assert!(growth.takes(day(0), N - 1), "what was refused cost nothing");
        assert!(growth.takes(day(0), 1));
        assert!(!growth.takes(day(0), 1));
        assert!(growth.takes(day(0), 0), "a list that takes some away");
        let half = Time(day(0).0 + DAY_MS / 2);
        assert!(!growth.takes(half, N / 2 + 1));
        assert!(growth.takes(half, N / 2));
        // Whoever is in touch gathers no more than a day's.
        growth.confirmed(day(30));
        assert!(!growth.takes(day(30), N + 1));
        assert!(growth.takes(day(30), N));
    }

    #[test]
    fn whoever_was_away_takes_what_came_meanwhile() {
        let mut growth = Growth::new(day(0), true);
        assert!(!growth.takes(day(90), 91 * N + 1));
        assert!(growth.takes(day(90), 91 * N));
        assert!(!growth.takes(day(90), 1));
    }

    #[test]
    fn the_first_list_is_taken_as_it_is_and_no_other() {
        let mut fresh = Growth::new(Time(0), false);
        assert!(fresh.takes(day(0), 50_000));
        assert!(fresh.takes(day(0), N));
        assert!(!fresh.takes(day(0), 1));
    }

    #[test]
    fn a_clock_that_is_set_back_gives_no_room_twice() {
        let mut growth = Growth::new(day(5), true);
        assert!(growth.takes(day(5), N));
        assert!(!growth.takes(day(1), 1));
        assert!(!growth.takes(day(5), 1));
        assert!(growth.takes(day(6), N));
    }

    /// The coordinator never gives in a day what a node would not take, however it falls into it.
    #[test]
    fn what_the_coordinator_gives_in_any_day_is_taken() {
        use protocol::limits::REVOCATIONS_PER_DAY_MAX as GIVEN;
        let mut growth = Growth::new(day(0), true);
        for step in 0..200_u64 {
            let (now, late) = (day(step), Time(day(step).0 + DAY_MS - 1));
            let part = (step as usize * 37) % (GIVEN + 1);
            growth.confirmed(now);
            assert!(growth.takes(now, part), "step {step}");
            assert!(growth.takes(late, GIVEN - part), "step {step}");
        }
    }
}
