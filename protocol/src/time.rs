//! Time as the cores see it: integer milliseconds, always passed in, never read.

use serde::{Deserialize, Serialize};

/// A point in time in milliseconds. What it counts from depends on the clock that made it: the Unix
/// epoch for wall time, the machine's boot for boot time (see [`Now`]).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub u64);

/// A length of time in milliseconds.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(pub u64);

impl Time {
    /// The latest time that can be told.
    pub const MAX: Time = Time(u64::MAX);

    /// `s` seconds after the clock's zero.
    pub const fn from_secs(s: u64) -> Time {
        Time(s * 1000)
    }

    /// Milliseconds since the clock's zero.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// `s` seconds.
    pub const fn from_secs(s: u64) -> Span {
        Span(s * 1000)
    }

    /// `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Span {
        Span(ms)
    }

    /// In milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whether it is no time at all.
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// As the standard library's duration, for bodies that wait.
    pub const fn as_duration(self) -> core::time::Duration {
        core::time::Duration::from_millis(self.0)
    }
}

impl core::ops::Add<Span> for Time {
    type Output = Time;
    fn add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl core::ops::Sub<Span> for Time {
    type Output = Time;
    fn sub(self, span: Span) -> Time {
        Time(self.0.saturating_sub(span.0))
    }
}

/// Both clocks at one moment.
///
/// Timers and leases run on `boot`, which never steps and goes on counting while the machine is
/// suspended (CLOCK_BOOTTIME). Expiries are compared with `wall`, which the body has already floored
/// by the newest signed time that it saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Now {
    /// Milliseconds since boot, suspend included.
    pub boot: Time,
    /// Milliseconds since the Unix epoch, UTC.
    pub wall: Time,
}
