//! Hours that come again every week: `sat,sun 22:00-04:00`.
//!
//! They hold **while the clock on the wall shows a time inside them**. So in a night in which an hour comes
//! twice they hold twice in it, and of an hour that does not come they lack just that; nobody has to know
//! how long a day was. A night that passes midnight belongs to the day on which it begins.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::zones::{DAY_MS, Reading, written_as_text};

/// Minutes of a day.
const DAY_MINUTES: u16 = 1440;
/// The days as they are written, the first of the week first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// All seven.
const DAILY: u8 = 0b111_1111;

/// Hours of certain days of the week.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    /// The days on which they begin, Monday the lowest bit; never none.
    days: u8,
    /// Minutes after midnight at which they begin, below 1440.
    start: u16,
    /// How long they last on the clock in minutes, 1 to 1440.
    minutes: u16,
}

/// Whether something holds, and until which reading of the clock that stays so if the clock runs evenly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Phase {
    /// Whether it holds.
    pub holds: bool,
    /// Until here; none: for ever.
    pub until: Option<Reading>,
}

impl Hours {
    /// Hours of the days in `days` (Monday is bit 0), from `start` minutes after midnight, for `minutes`.
    ///
    /// # Errors
    /// When there is no day, or a number is out of range.
    pub fn new(days: u8, start: u16, minutes: u16) -> Result<Hours, String> {
        let fine = days != 0
            && days <= DAILY
            && start < DAY_MINUTES
            && (1..=DAY_MINUTES).contains(&minutes);
        match fine {
            true => Ok(Hours {
                days,
                start,
                minutes,
            }),
            false => {
                Err("hours need a day, a start below 24:00 and a length up to 24 hours".into())
            }
        }
    }

    /// Whether they hold at a reading, and how long that stays so.
    pub fn at(&self, shown: Reading) -> Phase {
        let begins = |day: i64| day * DAY_MS + i64::from(self.start) * 60_000;
        let length = i64::from(self.minutes) * 60_000;
        let today = shown.day();
        for day in [today - 1, today] {
            let (from, to) = (begins(day), begins(day) + length);
            if self.has(day) && (from..to).contains(&shown.0) {
                return Phase {
                    holds: true,
                    until: Some(Reading(to)),
                };
            }
        }
        let next = (today..=today + 7).find(|day| self.has(*day) && begins(*day) > shown.0);
        Phase {
            holds: false,
            until: next.map(|day| Reading(begins(day))),
        }
    }

    fn has(&self, day: i64) -> bool {
        // The first day of all was a Thursday.
        self.days >> (day + 3).rem_euclid(7) & 1 != 0
    }
}

/// Whether any of `all` holds, and until when that surely stays so.
pub fn any_at(all: &[Hours], shown: Reading) -> Phase {
    let phases = all.iter().map(|hours| hours.at(shown));
    let holds = phases.clone().any(|phase| phase.holds);
    let ends = phases
        .filter(|phase| phase.holds == holds)
        .filter_map(|phase| phase.until);
    let until = if holds { ends.max() } else { ends.min() };
    Phase { holds, until }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days == DAILY {
            f.write_str("daily")?;
        } else {
            let mut day = 0;
            let mut comma = "";
            while day < 7 {
                let run = (day..7).take_while(|d| self.days >> d & 1 != 0).count();
                match run {
                    0 => {}
                    1 => write!(f, "{comma}{}", DAYS[day])?,
                    _ => write!(f, "{comma}{}-{}", DAYS[day], DAYS[day + run - 1])?,
                }
                if run > 0 {
                    comma = ",";
                }
                day += run.max(1);
            }
        }
        let clock = |f: &mut fmt::Formatter<'_>, m: u16| write!(f, "{:02}:{:02}", m / 60, m % 60);
        f.write_str(" ")?;
        clock(f, self.start)?;
        f.write_str("-")?;
        let end = self.start + self.minutes;
        clock(
            f,
            if end <= DAY_MINUTES {
                end
            } else {
                end - DAY_MINUTES
            },
        )
    }
}

impl FromStr for Hours {
    type Err = String;
    fn from_str(text: &str) -> Result<Hours, String> {
        let wrong = |what: &str| {
            format!(
                "{text:.64?}: {what}; hours are written 'sat,sun 22:00-04:00' or 'daily 01:00-05:00'"
            )
        };
        let (days, times) = text
            .split_once(' ')
            .ok_or_else(|| wrong("days, then times"))?;
        let days = days_of(days).ok_or_else(|| wrong("the days are mon to sun, or daily"))?;
        let (from, to) = times
            .split_once('-')
            .ok_or_else(|| wrong("from, then to"))?;
        let (Some(from), Some(to)) = (minutes_of(from), minutes_of(to)) else {
            return Err(wrong("a time is 00:00 to 24:00"));
        };
        if from == DAY_MINUTES {
            return Err(wrong("they begin before 24:00"));
        }
        let minutes = if to > from {
            to - from
        } else {
            to + DAY_MINUTES - from
        };
        Hours::new(days, from, minutes).map_err(|why| wrong(&why))
    }
}

written_as_text!(Hours);

fn days_of(text: &str) -> Option<u8> {
    if text == "daily" {
        return Some(DAILY);
    }
    let day = |name: &str| DAYS.iter().position(|d| *d == name);
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // fri-mon passes the end of the week
        let length = (last + 7 - first) % 7;
        (0..=length).for_each(|n| days |= 1 << ((first + n) % 7));
    }
    Some(days)
}

fn minutes_of(text: &str) -> Option<u16> {
    let (h, m) = text.split_once(':')?;
    let two = |s: &str| {
        (s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok())?
    };
    let (h, m): (u16, u16) = (two(h)?, two(m)?);
    (h <= 24 && m < 60 && h * 60 + m <= DAY_MINUTES).then_some(h * 60 + m)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The reading `minutes` after the beginning of Monday, 1970-01-05.
    fn reading(minutes: i64) -> Reading {
        Reading(4 * DAY_MS + minutes * 60_000)
    }

    #[test]
    fn hours_hold_on_their_days_and_past_midnight() {
        let check = |text: &str, minutes: i64, holds: bool, until: i64| {
            let hours: Hours = text.parse().unwrap();
            let expected = Phase {
                holds,
                until: Some(reading(until)),
            };
            assert_eq!(hours.at(reading(minutes)), expected, "{text} at {minutes}");
        };
        const DAY: i64 = 1440;
        check("mon 08:00-18:00", 479, false, 480);
        check("mon 08:00-18:00", 480, true, 1080);
        check("mon 08:00-18:00", 1080, false, 7 * DAY + 480);
        check("sat,sun 22:00-04:00", 6 * DAY + 1320, true, 7 * DAY + 240);
        check("sat,sun 22:00-04:00", 7 * DAY + 239, true, 7 * DAY + 240);
        check("sat,sun 22:00-04:00", 7 * DAY + 240, false, 12 * DAY + 1320);
        check("daily 00:00-24:00", 5, true, DAY);
        check("daily 22:00-22:00", 5, true, 1320);
    }

    #[test]
    fn hours_are_refused_with_what_is_wrong() {
        for (text, what) in [
            ("", "days, then times"),
            ("sat", "days, then times"),
            ("foo 01:00-02:00", "mon to sun"),
            (" 01:00-02:00", "mon to sun"),
            ("sat 1:00-02:00", "00:00 to 24:00"),
            ("sat 01:00-24:01", "00:00 to 24:00"),
            ("sat 24:00-02:00", "before 24:00"),
            ("sat 01:00", "from, then to"),
        ] {
            let error = text.parse::<Hours>().unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_as_the_same(days in 1u8..128, start in 0u16..1440, minutes in 1u16..=1440) {
            let hours = Hours::new(days, start, minutes).unwrap();
            prop_assert_eq!(hours.to_string().parse::<Hours>().unwrap(), hours);
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<Hours>();
        }
    }
}
