//! Who of the newest wave may start, so that no more nodes are at it at a time than the evidence allows.
//!
//! Nodes get leave in the order of their positions. One that has leave and does not start keeps its
//! place in the window for a while; then nobody counts on it any more, or nodes that are off would hold
//! up all the others.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{NodeId, Span, Time};

/// The window of the newest wave.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Window {
    /// Nodes with a position below this have leave; none: all.
    below: Option<u64>,
    /// Without leave, by position.
    ahead: BTreeSet<(u64, NodeId)>,
    /// With leave and not started, by the boot time until which they are expected.
    expected: BTreeSet<(Time, NodeId)>,
    until: BTreeMap<NodeId, Time>,
    /// How many leases gave leave to.
    given: u32,
}

impl Window {
    /// A wave opens: nobody has leave.
    pub fn open(&mut self) {
        *self = Window {
            below: Some(0),
            ..Window::default()
        };
    }

    /// A node of the wave waits to start.
    pub fn add(&mut self, node: NodeId, at: u64, until: Time) {
        match self.below {
            Some(below) if at >= below => {
                self.ahead.insert((at, node));
            }
            _ => self.expect(node, until),
        }
    }

    /// A node started, ended, or left the wave.
    pub fn remove(&mut self, node: &NodeId, at: u64) {
        self.ahead.remove(&(at, *node));
        if let Some(until) = self.until.remove(node) {
            self.expected.remove(&(until, *node));
        }
    }

    /// Whether a node has its place.
    pub fn knows(&self, node: &NodeId, at: u64) -> bool {
        self.until.contains_key(node) || self.ahead.contains(&(at, *node))
    }

    fn expect(&mut self, node: NodeId, until: Time) {
        if let Some(before) = self.until.insert(node, until) {
            self.expected.remove(&(before, node));
        }
        self.expected.insert((until, node));
    }

    /// Folds a lease; says who has leave by it that had none.
    pub fn leased(&mut self, below: Option<u64>, until: Time) -> Vec<NodeId> {
        self.below = below;
        let left = below.map(|below| self.ahead.split_off(&(below, NodeId([0; 32]))));
        let given = std::mem::replace(&mut self.ahead, left.unwrap_or_default());
        self.given += given.len() as u32;
        let given: Vec<NodeId> = given.into_iter().map(|(_, node)| node).collect();
        given.iter().for_each(|node| self.expect(*node, until));
        given
    }

    /// After a restart all that have leave are expected anew.
    pub fn restart(&mut self, boot: Time, patience: Span) {
        let nodes: Vec<NodeId> = self.until.keys().copied().collect();
        nodes
            .into_iter()
            .for_each(|node| self.expect(node, boot + patience));
    }

    /// Nobody counts any more on those that are overdue.
    pub fn give_up(&mut self, now: Time) {
        while let Some((until, node)) = self.expected.first().copied()
            && until <= now
        {
            self.expected.remove(&(until, node));
            self.until.remove(&node);
        }
    }

    /// When the next is overdue, if that makes room for others.
    pub fn wakes_at(&self) -> Option<Time> {
        let waits = !self.ahead.is_empty();
        self.expected.first().map(|(at, _)| *at).filter(|_| waits)
    }

    /// Nodes that have leave and are expected to start.
    pub fn expected(&self) -> u32 {
        self.expected.len() as u32
    }

    /// How many may still get leave once the wave has been open for `open`, if its starts are spread evenly
    /// over `spread`; to the nearest node, so that half of one is the most that rounding adds.
    pub fn paced(&self, open: Span, spread: Span) -> u32 {
        let all = u64::from(self.given) + self.ahead.len() as u64;
        let spread = u128::from(spread.0.max(1));
        let open = u128::from(open.0).min(spread);
        let due = (u128::from(all) * open + spread / 2) / spread;
        (due as u64).saturating_sub(u64::from(self.given)) as u32
    }

    /// Whether a node at this position has leave.
    pub fn reaches(&self, at: u64) -> bool {
        self.below.is_none_or(|below| at < below)
    }

    /// Nodes that wait for leave.
    pub fn without_leave(&self) -> u32 {
        self.ahead.len() as u32
    }

    /// Whether all have leave.
    pub fn is_open(&self) -> bool {
        self.ahead.is_empty()
    }

    /// The bound up to which `more` nodes get leave; none: all of the wave.
    pub fn bound(&self, more: u32) -> Option<u64> {
        self.below?;
        self.ahead.iter().nth(more as usize).map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::node;

    #[test]
    fn leave_is_given_by_position_and_the_overdue_make_room() {
        let mut window = Window::default();
        window.open();
        (0..10).for_each(|n| window.add(node(n), 100 - n, Time(0)));
        assert_eq!(window.bound(3), Some(94));
        window.leased(Some(94), Time(50));
        assert_eq!((window.expected(), window.is_open()), (3, false));
        window.remove(&node(9), 91);
        assert_eq!(window.expected(), 2, "one started");
        window.add(node(20), 5, Time(60));
        assert_eq!(
            window.expected(),
            3,
            "who comes into the open part has leave"
        );
        assert_eq!(window.wakes_at(), Some(Time(50)));
        window.give_up(Time(50));
        assert_eq!(window.expected(), 1);
        assert_eq!(window.bound(100), None);
        window.leased(None, Time(70));
        assert!(window.is_open());
        assert_eq!(window.expected(), 8);
        window.add(node(21), u64::MAX, Time(80));
        assert!(window.is_open(), "later joiners need not wait");
    }
}
