//! Rule: a site takes no more over its WAN than its cap: in any second at most 1.05 × cap and two
//! packets, in any minute at most 1.01 × cap.
//!
//! Bytes are told with the stretch of time in which they came and are spread evenly over it. They are
//! summed in quarters of a second; a window is any four, or any 240, of them in a row. Bytes may be told up
//! to four seconds after they came: a window is looked at when no more can come into it. When the cap
//! changes, the larger one still counts for two seconds, which is how long switching may take.

use std::collections::VecDeque;

use protocol::{Span, Time};

/// The grain, in milliseconds.
const GRAIN_MS: u64 = 250;
/// Grains in a second, and in a minute.
const SECOND: usize = 4;
const MINUTE: usize = 240;
/// A new cap may take so long to be kept to.
const SWITCHING: Span = Span::from_secs(2);
/// Bytes a second that stand for no cap.
const NO_CAP: f64 = 1e15;
/// Two packets of the largest common size.
const PACKETS_BYTES: f64 = 2.0 * 1_500.0;

/// Grains that are still open: bytes may be told so much later than they came.
const OPEN: usize = 16;

/// What crosses one site's WAN, one way.
pub struct Rates {
    /// Bytes that came in each of the last grains, and that were allowed; open ones behind.
    closed: VecDeque<(f64, f64)>,
    /// Sums over the closed ones.
    minute: (f64, f64),
    /// Bytes of the grains that are open.
    open: VecDeque<f64>,
    /// When the first of them began.
    began: Time,
    caps: Caps,
}

/// The cap over time, bytes a second; none: no cap.
struct Caps {
    now: Option<f64>,
    /// What the cap was before, and until when it counts.
    before: Vec<(Option<f64>, Time)>,
}

impl Caps {
    fn at(&self, at: Time) -> f64 {
        let before = self.before.iter().filter(|(_, until)| at < *until);
        let counts = before.map(|(cap, _)| *cap).chain([self.now]);
        counts.fold(0.0, |most, cap| cap.unwrap_or(NO_CAP).max(most))
    }
}

impl Rates {
    /// Nothing has crossed yet; `cap` in bytes a second, none for no limit.
    pub fn new(cap: Option<f64>) -> Rates {
        Rates {
            closed: VecDeque::new(),
            minute: (0.0, 0.0),
            open: VecDeque::new(),
            began: Time(0),
            caps: Caps {
                now: cap,
                before: Vec::new(),
            },
        }
    }

    /// The cap is another from now on.
    pub fn set_cap(&mut self, now: Time, cap: Option<f64>) {
        let before = std::mem::replace(&mut self.caps.now, cap);
        let began = self.began;
        self.caps.before.retain(|(_, until)| *until > began);
        self.caps.before.push((before, now + SWITCHING));
    }

    /// So many bytes came between two moments, the later of which is now.
    ///
    /// # Errors
    /// When the cap was broken in a window that is now complete.
    pub fn came(&mut self, from: Time, to: Time, bytes: f64) -> Result<(), String> {
        let last = |at: Time| (at.since(self.began).0 / GRAIN_MS) as usize;
        let (from, to) = (from.max(self.began), to.max(self.began));
        let (first, newest) = (last(from), last(to));
        let mut broken = Ok(());
        let mut first = first;
        let mut newest = newest;
        while newest >= OPEN {
            broken = broken.and(self.close());
            first = first.saturating_sub(1);
            newest -= 1;
        }
        if self.open.len() <= newest {
            self.open.resize(newest + 1, 0.0);
        }
        let from = from.max(self.began);
        let span = to.since(from).0;
        for grain in first..=newest {
            let begins = self.began + Span(grain as u64 * GRAIN_MS);
            let ends = begins + Span(GRAIN_MS);
            let here = ends.min(to).since(begins.max(from)).0;
            let share = match span {
                0 => 1.0,
                span => here as f64 / span as f64,
            };
            self.open[grain] += bytes * share;
        }
        broken
    }

    /// Closes the oldest of the open grains.
    fn close(&mut self) -> Result<(), String> {
        let came = self.open.pop_front().unwrap_or(0.0);
        let allowed = self.caps.at(self.began) * GRAIN_MS as f64 / 1000.0;
        self.began = self.began + Span(GRAIN_MS);
        self.closed.push_back((came, allowed));
        self.minute = (self.minute.0 + came, self.minute.1 + allowed);
        if self.closed.len() > MINUTE
            && let Some(oldest) = self.closed.pop_front()
        {
            self.minute = (self.minute.0 - oldest.0, self.minute.1 - oldest.1);
        }
        let last = self.closed.iter().rev().take(SECOND);
        let second = last.fold((0.0, 0.0), |sum, g| (sum.0 + g.0, sum.1 + g.1));
        let second = self.window(second, SECOND, 1.05, "second");
        second.and(self.window(self.minute, MINUTE, 1.01, "minute"))
    }

    fn window(
        &self,
        (came, allowed): (f64, f64),
        grains: usize,
        slack: f64,
        name: &str,
    ) -> Result<(), String> {
        // in the beginning fewer grains have passed than a window has
        let full = allowed * grains as f64 / self.closed.len().min(grains) as f64;
        if came <= full * slack + PACKETS_BYTES {
            return Ok(());
        }
        let end = self.began.0;
        Err(format!(
            "{came:.0} bytes over the WAN in the {name} before {end} ms, the cap allows {full:.0}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: f64 = 100_000.0;

    /// Lets `rate` flow from one second to another, told in uneven stretches.
    fn flow(rates: &mut Rates, from_s: u64, to_s: u64, rate: f64) -> Result<(), String> {
        let mut result = Ok(());
        let (mut at, end) = (from_s * 1000, to_s * 1000);
        for step in [70, 333, 190].into_iter().cycle() {
            let next = (at + step).min(end);
            let bytes = rate * (next - at) as f64 / 1000.0;
            result = result.and(rates.came(Time(at), Time(next), bytes));
            at = next;
            if at == end {
                return result;
            }
        }
        result
    }

    #[test]
    fn a_cap_that_is_broken_in_a_second_or_a_minute_is_seen() {
        // what flows after ten seconds at the cap: its seconds, its share of the cap, whether it is seen
        let cases = [
            (60, 1.0, false),
            (120, 0.5, false),
            (2, 1.2, true),
            (120, 1.04, true),
            (20, 1.004, false),
        ];
        for (seconds, share, seen) in cases {
            let mut rates = Rates::new(Some(CAP));
            assert_eq!(flow(&mut rates, 0, 10, CAP), Ok(()));
            let result = flow(&mut rates, 10, 10 + seconds, CAP * share);
            let result = result.and(flow(&mut rates, 10 + seconds, 20 + seconds, 0.0));
            assert_eq!(result.is_err(), seen, "{share} for {seconds} s: {result:?}");
        }
    }

    #[test]
    fn a_burst_at_once_is_seen_and_one_without_cap_is_not() {
        let mut rates = Rates::new(Some(CAP));
        let _ = rates.came(Time(5_100), Time(5_100), 2.0 * CAP);
        assert!(rates.came(Time(5_100), Time(12_000), 0.0).is_err());
        let mut free = Rates::new(None);
        assert_eq!(free.came(Time(0), Time(9_000), 1e12), Ok(()));
        let mut thin = Rates::new(Some(8_000.0));
        assert_eq!(thin.came(Time(0), Time(400), 3_000.0), Ok(()));
        assert_eq!(
            thin.came(Time(400), Time(9_000), 0.0),
            Ok(()),
            "two packets on a thin line"
        );
    }

    #[test]
    fn transfers_that_are_told_late_and_in_turn_make_no_burst() {
        let mut rates = Rates::new(Some(CAP));
        // two transfers at half the cap each, told every two seconds, a second apart
        for second in 2..120 {
            let (from, to) = (Time::from_secs(second - 2), Time::from_secs(second));
            assert_eq!(rates.came(from, to, CAP), Ok(()), "{second}");
        }
    }

    #[test]
    fn a_lower_cap_counts_after_two_seconds() {
        let at_once = |keeps_on_s: u64| {
            let mut rates = Rates::new(Some(CAP));
            assert_eq!(flow(&mut rates, 0, 100, CAP), Ok(()));
            rates.set_cap(Time::from_secs(100), Some(CAP / 4.0));
            let late = flow(&mut rates, 100, 100 + keeps_on_s, CAP);
            late.and(flow(&mut rates, 100 + keeps_on_s, 300, CAP / 4.0))
        };
        assert_eq!(at_once(2), Ok(()));
        assert!(at_once(4).is_err());
    }
}
