//! Which sources are left alone for now, and which for good.
//!
//! A source that fails is asked again after a pause that doubles; what a *peer* said it holds is
//! forgotten when it keeps failing, of this blob and of every other, so that the piece counts as missing
//! in the site and comes another way. Nothing here ends a release: sources come back.

use std::collections::BTreeMap;

use protocol::limits::{
    BAN, DISTRUST, DISTRUST_DOUBLES_MAX, MEMBERS_MAX, RETRY_BUSY_MAX, RETRY_FIRST, RETRY_MAX,
    TROUBLES_MAX,
};
use protocol::{BlobRef, NodeId, Span, Time};

/// How a source failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// No room: it is alive and holds the piece.
    Busy,
    /// Broken, or without the piece.
    Failed,
    /// It took long to fail: counts twice.
    Slow,
}

/// How long a peer is doubted the so-manieth time, milliseconds.
fn doubted_for(times: u32) -> u64 {
    DISTRUST.0 << times.min(DISTRUST_DOUBLES_MAX)
}

impl Doubt {
    fn times(&self, now: Time) -> u32 {
        let forgotten = self.until + Span(doubted_for(self.times));
        if now < forgotten { self.times } else { 0 }
    }
}

#[derive(Clone, Copy, Default)]
struct Pause {
    fails: u32,
    until: Time,
}

/// A peer whose word is not taken.
#[derive(Clone, Copy)]
struct Doubt {
    /// How often it came to that.
    times: u32,
    until: Time,
}

/// Pauses by source and blob; doubts, boasts and bans by node.
#[derive(Default)]
pub(super) struct Trouble {
    boasts: BTreeMap<NodeId, Doubt>,
    pauses: BTreeMap<(NodeId, BlobRef), Pause>,
    doubts: BTreeMap<NodeId, Doubt>,
    banned: BTreeMap<NodeId, Time>,
}

impl Trouble {
    /// Notes a fault and returns how many came in a row. Several at once, of fetches that ran side
    /// by side, count as one. `jitter` is any number.
    pub fn note(
        &mut self,
        now: Time,
        node: NodeId,
        blob: BlobRef,
        fault: Fault,
        jitter: u64,
    ) -> u32 {
        if self.pauses.len() >= TROUBLES_MAX && !self.pauses.contains_key(&(node, blob)) {
            self.pauses.retain(|_, pause| pause.until > now);
            if self.pauses.len() >= TROUBLES_MAX {
                self.pauses.pop_first();
            }
        }
        let pause = self.pauses.entry((node, blob)).or_default();
        if pause.until > now {
            return pause.fails;
        }
        let most = if fault == Fault::Busy {
            RETRY_BUSY_MAX
        } else {
            RETRY_MAX
        };
        let span = (RETRY_FIRST.0 << pause.fails.min(16)).min(most.0);
        pause.until = now + Span(span + jitter % (span / 4 + 1));
        pause.fails = match fault {
            Fault::Busy => pause.fails.max(1),
            Fault::Failed => pause.fails + 1,
            Fault::Slow => pause.fails + 2,
        };
        pause.fails
    }

    /// A peer's word is not taken any more, of whatever blob: each time for twice as long. That it came
    /// to that is forgotten as long after its end again, and when it works.
    pub fn distrust(&mut self, now: Time, node: NodeId) {
        if self.doubts.len() >= MEMBERS_MAX && !self.doubts.contains_key(&node) {
            self.doubts.pop_first();
        }
        let times = self.doubts.get(&node).map_or(0, |doubt| doubt.times(now)) + 1;
        let until = now + Span(doubted_for(times));
        self.doubts.insert(node, Doubt { times, until });
    }

    /// Whether a peer's word counts for nothing now.
    pub fn is_distrusted(&self, now: Time, node: &NodeId) -> bool {
        self.doubts.get(node).is_some_and(|doubt| now < doubt.until)
    }

    /// A peer does not hold a piece that it said it holds. True if that is more than a slip: then, for a
    /// while, what it says it holds in all is not believed, only what it says it won.
    pub fn caught(&mut self, now: Time, node: NodeId) -> bool {
        if self.boasts.len() >= MEMBERS_MAX && !self.boasts.contains_key(&node) {
            self.boasts.pop_first();
        }
        let before = self.boasts.get(&node);
        let times = before.map_or(0, |boast| boast.times(now));
        let span = if times == 0 { 0 } else { doubted_for(times) };
        let until = now + Span(span);
        let times = times + 1;
        self.boasts.insert(node, Doubt { times, until });
        until > now
    }

    /// Whether a peer says that it holds what it does not.
    pub fn is_boaster(&self, now: Time, node: &NodeId) -> bool {
        self.boasts.get(node).is_some_and(|boast| now < boast.until)
    }

    /// It works again.
    pub fn clear(&mut self, node: NodeId, blob: BlobRef) {
        self.pauses.remove(&(node, blob));
        self.doubts.remove(&node);
    }

    /// Forgets the pauses of a node that went away. What it was doubted for stays: it may come back.
    pub fn forget(&mut self, node: NodeId) {
        self.pauses.retain(|(n, _), _| *n != node);
    }

    /// When `node` may be asked for `blob` again, if that is later than now.
    pub fn paused(&self, now: Time, node: NodeId, blob: BlobRef) -> Option<Time> {
        let pause = self.pauses.get(&(node, blob)).map(|pause| pause.until);
        let doubt = self.doubts.get(&node).map(|doubt| doubt.until);
        pause.max(doubt).filter(|until| *until > now)
    }

    /// No source any more, for [`BAN`].
    pub fn ban(&mut self, now: Time, node: NodeId) {
        self.banned.retain(|_, until| *until > now);
        if self.banned.len() >= MEMBERS_MAX {
            self.banned.pop_first();
        }
        self.banned.insert(node, now + BAN);
    }

    pub fn is_banned(&self, now: Time, node: &NodeId) -> bool {
        self.banned.get(node).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId([7; 32]);

    /// The story: a peer that starved fetches of one blob was believed of the next, so every blob of a
    /// release cost its takers the same wait again.
    #[test]
    fn who_is_distrusted_is_left_alone_for_every_blob_and_longer_the_next_time() {
        let mut trouble = Trouble::default();
        let blob = |n| BlobRef {
            root: protocol::Hash([n; 32]),
            length: 1,
        };
        trouble.distrust(Time(0), PEER);
        let first = Time(2 * DISTRUST.0);
        for n in 0..3 {
            assert_eq!(trouble.paused(Time(0), PEER, blob(n)), Some(first));
        }
        assert!(!trouble.is_distrusted(first, &PEER));
        trouble.distrust(first, PEER);
        let second = first + Span(4 * DISTRUST.0);
        assert_eq!(trouble.paused(first, PEER, blob(0)), Some(second));
        // Much later it is as if nothing had been.
        let later = second + Span(4 * DISTRUST.0);
        trouble.distrust(later, PEER);
        let again = later + Span(2 * DISTRUST.0);
        assert_eq!(trouble.paused(later, PEER, blob(0)), Some(again));
        trouble.clear(PEER, blob(1));
        assert!(!trouble.is_distrusted(later, &PEER));
    }

    /// The story: who said that it held everything was believed again and again, because each piece that it
    /// did hold made good for those that it did not.
    #[test]
    fn who_does_not_hold_two_pieces_that_it_said_it_holds_is_a_boaster_for_a_while() {
        let mut trouble = Trouble::default();
        assert!(!trouble.caught(Time(0), PEER), "a slip");
        assert!(!trouble.is_boaster(Time(0), &PEER));
        assert!(trouble.caught(Time(1), PEER));
        trouble.clear(PEER, BlobRef::of(b"what it did hold"));
        let until = Time(1) + Span(2 * DISTRUST.0);
        assert!(trouble.is_boaster(Time(until.0 - 1), &PEER) && !trouble.is_boaster(until, &PEER));
        // Much later a slip is a slip again.
        assert!(!trouble.caught(until + Span(4 * DISTRUST.0), PEER));
    }

    #[test]
    fn no_more_peers_are_remembered_than_may_be() {
        let mut trouble = Trouble::default();
        for n in 0..=MEMBERS_MAX as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            trouble.distrust(Time(0), NodeId(id));
            trouble.caught(Time(0), NodeId(id));
        }
        assert_eq!(trouble.doubts.len(), MEMBERS_MAX);
        assert_eq!(trouble.boasts.len(), MEMBERS_MAX);
    }
}
