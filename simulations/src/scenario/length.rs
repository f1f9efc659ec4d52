//! How long something takes: a number, a range, or the usual and the rare case.

use protocol::Span;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;
use serde::Deserialize;

/// The quantile of the standard normal distribution at 0.99.
const Z_99: f64 = 2.326;
/// No draw is longer than so many times the rare case.
const TAIL: f64 = 4.0;

/// A length of time in seconds, drawn anew each time.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "expected seconds: a number, { from_s, to_s } or { median_s, p99_s }"
)]
pub enum Length {
    /// Always the same.
    Fixed(f64),
    /// Even between two.
    Between {
        /// The shortest.
        from_s: f64,
        /// The longest.
        to_s: f64,
    },
    /// Log-normal, as times of repair and of installation are: half take less than `median_s`, one
    /// of a hundred takes longer than `p99_s`. Cut off at four times that.
    Usual {
        /// Half take less.
        median_s: f64,
        /// One of a hundred takes longer.
        p99_s: f64,
    },
}

impl Length {
    /// No time at all.
    pub const ZERO: Length = Length::Fixed(0.0);

    /// Draws one.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Span {
        let seconds = match *self {
            Length::Fixed(s) => s,
            Length::Between { from_s, to_s } => from_s + (to_s - from_s) * unit(rng),
            Length::Usual { median_s, p99_s } => {
                let sigma = (p99_s / median_s).ln() / Z_99;
                (median_s * (sigma * normal(rng)).exp()).min(TAIL * p99_s)
            }
        };
        Span((seconds * 1000.0).round() as u64)
    }

    /// The longest that can be drawn, in seconds.
    pub fn most_s(&self) -> f64 {
        match *self {
            Length::Fixed(s) => s,
            Length::Between { to_s, .. } => to_s,
            Length::Usual { p99_s, .. } => TAIL * p99_s,
        }
    }

    /// Why it cannot be, if it cannot.
    pub fn fault(&self) -> Option<&'static str> {
        let sound = |s: f64| (0.0..=1e8).contains(&s);
        match *self {
            Length::Fixed(s) if !sound(s) => Some("seconds lie between 0 and 100000000"),
            Length::Between { from_s, to_s } if !sound(from_s) || !sound(to_s) || to_s < from_s => {
                Some("from_s is 0 or more, and to_s no less than from_s")
            }
            Length::Usual { median_s, p99_s }
                if !sound(median_s) || !sound(p99_s) || median_s <= 0.0 || p99_s < median_s =>
            {
                Some("median_s is more than 0, and p99_s no less than median_s")
            }
            _ => None,
        }
    }
}

/// Even in `0..1`.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Standard normal (Box & Muller 1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v) = (1.0 - unit(rng), unit(rng));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::stream;

    #[derive(Deserialize, Debug)]
    struct Written {
        at: Length,
    }

    fn parse(text: &str) -> Result<Length, String> {
        let written: Result<Written, _> = toml::from_str(text);
        written.map(|w| w.at).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn three_ways_to_write_it_and_no_fourth() {
        assert_eq!(parse("at = 5"), Ok(Length::Fixed(5.0)));
        assert_eq!(parse("at = 0.5"), Ok(Length::Fixed(0.5)));
        let between = Length::Between {
            from_s: 1.0,
            to_s: 2.0,
        };
        assert_eq!(parse("at = { from_s = 1, to_s = 2 }"), Ok(between));
        let usual = Length::Usual {
            median_s: 10.0,
            p99_s: 60.0,
        };
        assert_eq!(parse("at = { median_s = 10, p99_s = 60 }"), Ok(usual));
        let error = parse("at = { median_s = 10 }").unwrap_err();
        assert!(error.contains("{ from_s, to_s }"), "{error}");
        let error = parse("at = { from_s = 1, to_s = 2, p99_s = 3 }").unwrap_err();
        assert!(error.contains("{ median_s, p99_s }"), "{error}");
    }

    #[test]
    fn draws_have_the_median_and_the_tail_that_were_asked_for() {
        let mut rng = stream(1, "lengths");
        let usual = Length::Usual {
            median_s: 20.0,
            p99_s: 100.0,
        };
        let mut draws: Vec<u64> = (0..20_000).map(|_| usual.draw(&mut rng).0).collect();
        draws.sort_unstable();
        let (median, p99) = (draws[10_000] as f64 / 1e3, draws[19_800] as f64 / 1e3);
        assert!((19.0..21.0).contains(&median), "{median}");
        assert!((90.0..110.0).contains(&p99), "{p99}");
        assert!(draws[19_999] <= 400_000);
        let between = Length::Between {
            from_s: 2.0,
            to_s: 4.0,
        };
        assert!((0..1000).all(|_| (2000..=4000).contains(&between.draw(&mut rng).0)));
        assert_eq!(Length::Fixed(1.5).draw(&mut rng), Span(1500));
    }

    #[test]
    fn lengths_that_cannot_be_are_named() {
        let cases = [
            Length::Fixed(-1.0),
            Length::Fixed(f64::NAN),
            Length::Between {
                from_s: 3.0,
                to_s: 2.0,
            },
            Length::Usual {
                median_s: 0.0,
                p99_s: 2.0,
            },
        ];
        assert!(cases.iter().all(|length| length.fault().is_some()));
        assert_eq!(Length::ZERO.fault(), None);
    }
}
