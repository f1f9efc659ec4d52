//! When a node asks for its next certificate.
//!
//! From the last third of its life on, at a moment of its own within a sixth, so that machines that were
//! enrolled together from one image do not come together. Whoever was away asks as soon as it is back.
//! When a root names another issuing CA nodes move to it before that: soon while the old one is still
//! listed, sooner when it is gone and nobody admits them.
//!
//! A node that was away over such a change meets nobody whom it admits, and so nobody who could tell it of
//! the change: it asks the coordinator for roots ([`Doubt`]).

use protocol::limits::CERTIFICATE_SKEW;
use protocol::{NodeId, Span, Time};

/// The longest pause between two attempts.
const PAUSE_MAX: Span = Span::from_secs(6 * 3600);
/// The shortest.
const PAUSE_MIN: Span = Span::from_secs(1);
/// The first pause of a node whose CA is on its way out.
const MOVE_PAUSE: Span = Span::from_secs(60);
/// Nodes move to the next issuing CA within this.
const MOVE_MAX: Span = Span::from_secs(3600);
/// And within this when their own is gone.
const CUT_OFF_MAX: Span = Span::from_secs(300);
/// A node that met a stranger asks for roots within this.
const DOUBT_MAX: Span = Span::from_secs(20);
/// The first pause before it asks again.
const DOUBT_PAUSE: Span = Span::from_secs(60);
/// The longest.
const DOUBT_PAUSE_MAX: Span = Span::from_secs(3600);

/// Where the issuing CA of a node's own certificate stands in the newest root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Issuer {
    /// It is in use.
    InUse,
    /// It is listed, but another one is in use.
    Older,
    /// It was taken away.
    Gone,
}

/// Who else may ask at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crowd {
    /// The whole fleet.
    Fleet,
    /// Nobody: there is one of its kind.
    One,
}

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

    /// When `node` asks for the next one; `learnt` is when it learnt where its issuing CA stands.
    pub fn due(self, node: &NodeId, issuer: Issuer, learnt: Time, crowd: Crowd) -> Time {
        let within = |longest: Span| match crowd {
            Crowd::Fleet => own(node, Span(longest.0.min(self.span().0 / 64))),
            Crowd::One => Span::ZERO,
        };
        let renewal = self.renew_at(node);
        match issuer {
            Issuer::InUse => renewal,
            Issuer::Older => renewal.min(learnt + within(MOVE_MAX)),
            Issuer::Gone => renewal.min(learnt + within(CUT_OFF_MAX)),
        }
    }

    /// When `node` asks for the next one of the same issuing CA.
    pub fn renew_at(self, node: &NodeId) -> Time {
        let life = self.span().0;
        let own = own(node, Span(life / 6)).0;
        Time(
            self.not_after
                .0
                .saturating_sub(life / 3)
                .saturating_add(own),
        )
    }

    /// The pause after so many attempts in a row that failed.
    pub fn pause(self, issuer: Issuer, failures: u32) -> Span {
        let first = (self.span().0 / 100).max(PAUSE_MIN.0);
        let first = match issuer {
            Issuer::InUse => first,
            Issuer::Older | Issuer::Gone => first.min(MOVE_PAUSE.0),
        };
        doubled(Span(first), failures.saturating_sub(1), PAUSE_MAX)
    }
}

/// Whether a node asks for roots, because it met a peer whose certificate is of an issuing CA that it does not
/// know: of another fleet, or of a root that it has not seen. Times count from any moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doubt {
    first: Span,
    at: Option<Time>,
    not_before: Time,
    vain: u32,
}

impl Doubt {
    /// `node` met nobody yet.
    pub fn of(node: &NodeId) -> Doubt {
        Doubt {
            first: own(node, DOUBT_MAX),
            at: None,
            not_before: Time(0),
            vain: 0,
        }
    }

    /// It met a stranger.
    pub fn met(&mut self, now: Time) {
        let at = (now + self.first).max(self.not_before);
        self.at.get_or_insert(at);
    }

    /// When it asks, if it has a reason to.
    pub fn ask_at(&self) -> Option<Time> {
        self.at
    }

    /// It asked. Strangers who come without anything to learn from them are asked about ever less.
    pub fn asked(&mut self, now: Time, learnt: bool) {
        self.at = None;
        self.not_before = now + doubled(DOUBT_PAUSE, self.vain, DOUBT_PAUSE_MAX);
        self.vain = if learnt { 0 } else { self.vain + 1 };
    }
}

/// A moment of the node's own within a span.
fn own(node: &NodeId, within: Span) -> Span {
    let mut first = [0; 8];
    first.copy_from_slice(&node.as_bytes()[..8]);
    Span(u64::from_le_bytes(first) % within.0.max(1))
}

/// A pause that was doubled so often.
fn doubled(first: Span, times: u32, longest: Span) -> Span {
    Span(first.0.saturating_mul(1 << times.min(16)).min(longest.0))
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
        assert_eq!(
            year.pause(Issuer::InUse, 1),
            PAUSE_MAX,
            "a hundredth of a year is more"
        );
        let short = issued(100, 300_000);
        assert_eq!(short.pause(Issuer::InUse, 1), Span::from_secs(3));
        assert_eq!(short.pause(Issuer::InUse, 2), Span::from_secs(6));
        assert_eq!(short.pause(Issuer::InUse, 40), PAUSE_MAX);
        assert_eq!(issued(100, 1).pause(Issuer::InUse, 1), PAUSE_MIN);
        let never = Life {
            not_before: Time(5),
            not_after: Time(5),
        };
        assert!(never.renew_at(&node(1)) <= Time(5));
    }

    #[test]
    fn nodes_move_to_the_next_ca_soon_and_sooner_when_theirs_is_gone() {
        let year = issued(100, 365 * DAY);
        let learnt = Time(110 * DAY);
        let asks = |issuer| -> Vec<Time> {
            (0..1000)
                .map(|n| year.due(&node(n), issuer, learnt, Crowd::Fleet))
                .collect()
        };
        for (issuer, within) in [(Issuer::Older, MOVE_MAX), (Issuer::Gone, CUT_OFF_MAX)] {
            let asks = asks(issuer);
            assert!(asks.iter().all(|at| (learnt..learnt + within).contains(at)));
            let half = Time(learnt.0 + within.0 / 2);
            let early = asks.iter().filter(|at| **at < half).count();
            assert!(
                (400..600).contains(&early),
                "{early} of 1000 in the first half"
            );
            let one = year.due(&node(1), issuer, learnt, Crowd::One);
            assert_eq!(one, learnt, "it need not wait for others");
        }
        let usual = year.due(&node(1), Issuer::InUse, learnt, Crowd::Fleet);
        assert_eq!(usual, year.renew_at(&node(1)));
        // One that is due anyway does not wait for the spread.
        let late = Time(500 * DAY);
        let due = year.due(&node(1), Issuer::Older, late, Crowd::Fleet);
        assert_eq!(due, year.renew_at(&node(1)));
        assert_eq!(year.pause(Issuer::Gone, 1), MOVE_PAUSE);
        assert_eq!(year.pause(Issuer::Older, 30), PAUSE_MAX);
    }

    #[test]
    fn strangers_make_a_node_ask_for_roots_ever_more_seldom() {
        let mut doubt = Doubt::of(&node(1));
        assert_eq!(doubt.ask_at(), None);
        doubt.met(Time(5));
        let first = doubt.ask_at().expect("it asks");
        assert!((Time(5)..Time(5) + DOUBT_MAX).contains(&first));
        doubt.met(Time(9_000));
        assert_eq!(doubt.ask_at(), Some(first), "one more changes nothing");
        let (mut now, mut pauses) = (first, Vec::new());
        for _ in 0..12 {
            doubt.asked(now, false);
            assert_eq!(doubt.ask_at(), None);
            doubt.met(now);
            let next = doubt.ask_at().expect("it asks again");
            pauses.push(next.since(now));
            now = next;
        }
        assert!(pauses.is_sorted() && pauses[0] >= DOUBT_PAUSE);
        assert_eq!(pauses.last(), Some(&DOUBT_PAUSE_MAX));
        doubt.asked(now, true);
        doubt.asked(now, false);
        doubt.met(now);
        assert_eq!(doubt.ask_at(), Some(now + DOUBT_PAUSE));
    }
}
