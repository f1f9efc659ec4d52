//! Rule: a site takes no more over its WAN than its cap: in any second at most 1.05 × cap and two
//! packets, in any minute at most 1.01 × cap.
//!
//! Bytes are told with the stretch of time in which they came and are spread evenly over it. They are
//! summed in quarters of a second; a window is any four, or any 240, of them in a row. When the cap
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

/// What crosses one site's WAN, one way.
pub struct Rates {
    /// Bytes that came in each of the last grains, and that were allowed; the last one is open.
    grains: VecDeque<(f64, f64)>,
    /// Sums over the closed ones.
    minute: (f64, f64),
    /// When the open one began.
    began: Time,
    caps: Caps,
}

/// The cap over time, bytes a second; none: no cap.
struct Caps {
    now: Option<f64>,
    /// What the cap was before, and until when it counts.
    before: Option<(Option<f64>, Time)>,
}

impl Caps {
    fn at(&self, at: Time) -> Option<f64> {
        match self.before {
            Some((before, until)) if at < until => Some(before?.max(self.now?)),
            _ => self.now,
        }
    }
}

impl Rates {
    /// Nothing has crossed yet; `cap` in bytes a second, none for no limit.
    pub fn new(cap: Option<f64>) -> Rates {
        Rates {
            grains: VecDeque::from([(0.0, 0.0)]),
            minute: (0.0, 0.0),
            began: Time(0),
            caps: Caps {
                now: cap,
                before: None,
            },
        }
    }

    /// The cap is another from now on.
    pub fn set_cap(&mut self, now: Time, cap: Option<f64>) {
        let before = self.caps.at(now);
        self.caps = Caps {
            now: cap,
            before: Some((before, now + SWITCHING)),
        };
    }

    /// So many bytes came between two moments. What is told later is never earlier.
    ///
    /// # Errors
    /// When the cap was broken in a window that is now complete.
    pub fn came(&mut self, from: Time, to: Time, bytes: f64) -> Result<(), String> {
        let mut broken = Ok(());
        let from = from.max(self.began);
        let to = to.max(from);
        let span = to.since(from).0;
        let mut at = from;
        loop {
            let end = Time(self.began.0 + GRAIN_MS);
            let here = end.min(to).since(at).0;
            let share = if span == 0 {
                1.0
            } else {
                here as f64 / span as f64
            };
            if let Some(open) = self.grains.back_mut() {
                open.0 += bytes * share;
            }
            if to < end {
                return broken;
            }
            at = end;
            let closed = self.close();
            if broken.is_ok() {
                broken = closed;
            }
            if at >= to {
                return broken;
            }
        }
    }

    /// Closes the open grain.
    fn close(&mut self) -> Result<(), String> {
        let allowed = self.caps.at(self.began).unwrap_or(NO_CAP) * GRAIN_MS as f64 / 1000.0;
        if let Some(open) = self.grains.back_mut() {
            open.1 = allowed;
            self.minute = (self.minute.0 + open.0, self.minute.1 + allowed);
        }
        self.began = Time(self.began.0 + GRAIN_MS);
        let last = self.grains.iter().rev().take(SECOND);
        let second = last.fold((0.0, 0.0), |sum, g| (sum.0 + g.0, sum.1 + g.1));
        let second = self.window(second, SECOND, 1.05, "second");
        let minute = self.window(self.minute, MINUTE, 1.01, "minute");
        if self.grains.len() == MINUTE
            && let Some(oldest) = self.grains.pop_front()
        {
            self.minute = (self.minute.0 - oldest.0, self.minute.1 - oldest.1);
        }
        self.grains.push_back((0.0, 0.0));
        second.and(minute)
    }

    fn window(
        &self,
        (came, allowed): (f64, f64),
        grains: usize,
        slack: f64,
        name: &str,
    ) -> Result<(), String> {
        // in the beginning fewer grains have passed than a window has
        let full = allowed * grains as f64 / self.grains.len().min(grains) as f64;
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
            let result = result.and(flow(&mut rates, 10 + seconds, 12 + seconds, 0.0));
            assert_eq!(result.is_err(), seen, "{share} for {seconds} s: {result:?}");
        }
    }

    #[test]
    fn a_burst_at_once_is_seen_and_one_without_cap_is_not() {
        let mut rates = Rates::new(Some(CAP));
        let _ = rates.came(Time(5_100), Time(5_100), 2.0 * CAP);
        assert!(rates.came(Time(5_100), Time(7_000), 0.0).is_err());
        let mut free = Rates::new(None);
        assert_eq!(free.came(Time(0), Time(9_000), 1e12), Ok(()));
        let small = Rates::new(Some(8_000.0)).came(Time(0), Time(400), 3_000.0);
        assert_eq!(small, Ok(()), "two packets on a thin line");
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
