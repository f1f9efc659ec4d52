//! Members that went without a word, as this node is their witness.
//!
//! Who says that it goes, and who is on battery or a foreign link, may go; whoever comes back is missed no
//! more. A node speaks only about those among whose witnesses it is, so what is said of one that went does
//! not grow with its site.

use std::collections::BTreeMap;

use protocol::limits::SILENT_MAX;
use protocol::witness::witnesses_of;
use protocol::{NodeId, Now, Time};

use super::{Member, Membership};

/// Since when each is missed.
#[derive(Default)]
pub(super) struct Missed(BTreeMap<NodeId, Time>);

impl Missed {
    /// A node gave a sign of itself.
    pub(super) fn back(&mut self, node: &NodeId) {
        self.0.remove(node);
    }

    fn add(&mut self, node: NodeId, now: Now) {
        self.0.insert(node, now.boot);
        if self.0.len() > SILENT_MAX {
            let longest = self.0.iter().min_by_key(|(_, since)| **since);
            if let Some(node) = longest.map(|(node, _)| *node) {
                self.0.remove(&node);
            }
        }
    }
}

impl Membership {
    /// Whom this node misses as a witness, rising.
    pub(crate) fn missed(&self) -> impl Iterator<Item = &NodeId> {
        self.missed.0.keys()
    }

    /// A member was dropped because nobody reaches it.
    pub(super) fn miss(&mut self, node: NodeId, member: &Member, now: Now) {
        let others = self.members.keys().chain([&self.me]);
        if !member.presence.roaming && witnesses_of(&node, others).contains(&self.me) {
            self.missed.add(node, now);
        }
    }
}
