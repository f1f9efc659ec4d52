//! Which sources are left alone for now, and which for good.
//!
//! A source that fails is asked again after a pause that doubles; what a *peer* said it holds is
//! forgotten when it keeps failing, so that the piece counts as missing in the site and comes another
//! way. Nothing here ends a release: sources come back.

use std::collections::BTreeMap;

use protocol::limits::{
    BAN, DISTRUST, MEMBERS_MAX, RETRY_BUSY_MAX, RETRY_FIRST, RETRY_MAX, TROUBLES_MAX,
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

#[derive(Clone, Copy, Default)]
struct Pause {
    fails: u32,
    until: Time,
}

/// Pauses by source and blob, and bans by node.
#[derive(Default)]
pub(super) struct Trouble {
    pauses: BTreeMap<(NodeId, BlobRef), Pause>,
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

    /// A peer's word is not taken any more, for longer each time.
    pub fn distrust(&mut self, now: Time, node: NodeId, blob: BlobRef) {
        if let Some(pause) = self.pauses.get_mut(&(node, blob)) {
            pause.until = now + Span(DISTRUST.0 * u64::from(pause.fails.min(30)));
        }
    }

    /// It works again.
    pub fn clear(&mut self, node: NodeId, blob: BlobRef) {
        self.pauses.remove(&(node, blob));
    }

    /// Forgets the pauses of a node that went away.
    pub fn forget(&mut self, node: NodeId) {
        self.pauses.retain(|(n, _), _| *n != node);
    }

    /// When `node` may be asked for `blob` again, if that is later than now.
    pub fn paused(&self, now: Time, node: NodeId, blob: BlobRef) -> Option<Time> {
        self.pauses
            .get(&(node, blob))
            .map(|pause| pause.until)
            .filter(|until| *until > now)
    }

    /// Faults in a row.
    pub fn fails(&self, node: NodeId, blob: BlobRef) -> u32 {
        self.pauses
            .get(&(node, blob))
            .map_or(0, |pause| pause.fails)
    }

    /// Never again, for [`BAN`].
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
