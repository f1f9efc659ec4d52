//! When a node asks for its next certificate.
//!
//! From the last third of its life on, at a moment of its own within a sixth, so that machines that were
//! enrolled together from one image do not come together. Whoever was away asks as soon as it is back.

use protocol::limits::CERTIFICATE_SKEW;
use protocol::{NodeId, Span, Time};

/// The longest pause between two attempts.
const PAUSE_MAX: Span = Span::from_secs(6 * 3600);
/// The shortest.
const PAUSE_MIN: Span = Span::from_secs(1);

/// A certificate's life (Unix time).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// It holds from here.
    pub not_before: Time,
    /// And until here.
    pub not_after: Time,
}

impl Life {
    /// Without the time before it was issued.
    fn span(self) -> Span {
        let whole = self.not_after.since(self.not_before);
        Span(whole.0.checked_sub(CERTIFICATE_SKEW.0).unwrap_or(whole.0))
    }

    /// When `node` asks for the next one.
    pub fn renew_at(self, node: &NodeId) -> Time {
        let life = self.span().0;
        let mut first = [0; 8];
        first.copy_from_slice(&node.as_bytes()[..8]);
        let own = u64::from_le_bytes(first) % (life / 6).max(1);
        Time(
            self.not_after
                .0
                .saturating_sub(life / 3)
                .saturating_add(own),
        )
    }

    /// The pause after so many attempts in a row that failed.
    pub fn pause(self, failures: u32) -> Span {
        let first = (self.span().0 / 100).max(PAUSE_MIN.0);
        let pause = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        Span(pause.min(PAUSE_MAX.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::node;

    const DAY: u64 = 86_400_000;

    fn issued(at_day: u64, life: u64) -> Life {
        let at = Time(at_day * DAY);
        Life {
            not_before: Time(at.0 - CERTIFICATE_SKEW.0),
            not_after: Time(at.0 + life),
        }
    }

    #[test]
    fn nodes_ask_spread_over_the_first_half_of_the_last_third() {
        let life = issued(100, 360 * DAY);
        let asks: Vec<u64> = (0..1000).map(|n| life.renew_at(&node(n)).0).collect();
        let (first, last) = (100 * DAY + 240 * DAY, 100 * DAY + 300 * DAY);
        assert!(asks.iter().all(|at| (first..last).contains(at)));
        let early = asks.iter().filter(|at| **at < (first + last) / 2).count();
        assert!(
            (400..600).contains(&early),
            "{early} of 1000 in the first half"
        );
    }

    #[test]
    fn a_short_life_is_counted_from_its_issue_and_not_from_the_skew() {
        let life = issued(100, 30_000);
        let ask = life.renew_at(&node(1)).0 - 100 * DAY;
        assert!((20_000..25_000).contains(&ask), "{ask}");
    }

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        let year = issued(100, 365 * DAY);
        assert_eq!(year.pause(1), PAUSE_MAX, "a hundredth of a year is more");
        let short = issued(100, 300_000);
        assert_eq!(short.pause(1), Span::from_secs(3));
        assert_eq!(short.pause(2), Span::from_secs(6));
        assert_eq!(short.pause(40), PAUSE_MAX);
        assert_eq!(issued(100, 1).pause(1), PAUSE_MIN);
        let never = Life {
            not_before: Time(5),
            not_after: Time(5),
        };
        assert!(never.renew_at(&node(1)) <= Time(5));
    }
}
