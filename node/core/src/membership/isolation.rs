//! Whether the network keeps the members of a site apart.
//!
//! Some wireless networks let every client reach the internet and none of them each other (client
//! isolation). A node in one hears of the others from the coordinator, reaches none, and would take itself
//! for alone without a word. That somebody does not answer may only mean that it went; but one that spoke to
//! the coordinator since then, and again does not answer, is there and out of reach.

use std::collections::BTreeMap;

use protocol::{NodeId, Seq};

use super::Membership;

/// So often somebody who is there must be out of reach, while nobody else is in reach.
const STRIKES: u32 = 3;
/// Members that are remembered; of more the first ones are enough to tell.
const MISSED_MAX: usize = 16;

/// Members that were there and did not answer.
#[derive(Default)]
pub(super) struct Isolation {
    /// The number that each had spoken last when it was asked in vain.
    missed: BTreeMap<NodeId, Seq>,
    strikes: u32,
}

impl Isolation {
    /// A member was reached, or reached this node.
    pub(super) fn reached(&mut self) {
        *self = Isolation::default();
    }

    /// A member that had spoken under this number did not answer.
    pub(super) fn missed(&mut self, node: NodeId, seq: Seq) {
        match self.missed.get_mut(&node) {
            Some(before) if *before < seq => {
                *before = seq;
                self.strikes = self.strikes.saturating_add(1);
            }
            Some(_) => {}
            None => {
                if self.missed.len() < MISSED_MAX {
                    self.missed.insert(node, seq);
                }
            }
        }
    }
}

impl Membership {
    /// Whether others of its site are there and none of them can be reached.
    pub(crate) fn is_isolated(&self) -> bool {
        self.isolation.strikes >= STRIKES && !self.has_link()
    }
}

#[cfg(test)]
mod tests {
    use protocol::fixtures::node;

    use super::*;

    #[test]
    fn only_who_spoke_since_counts_and_the_memory_has_a_limit() {
        let mut isolation = Isolation::default();
        let at = |n| Seq { epoch: 1, n };
        for _ in 0..10 {
            isolation.missed(node(1), at(5));
        }
        assert_eq!(isolation.strikes, 0, "it may have gone for good");
        isolation.missed(node(1), at(6));
        assert_eq!(isolation.strikes, 1);
        for n in 0..100 {
            isolation.missed(node(n), at(7));
        }
        assert_eq!(isolation.missed.len(), MISSED_MAX);
        isolation.reached();
        assert_eq!((isolation.strikes, isolation.missed.len()), (0, 0));
    }
}
