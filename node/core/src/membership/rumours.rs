//! Who is said to be missing: suspicion, refutation, and whose word is worth how much.
//!
//! An accused node that lives speaks again with a higher number; until then it is suspected and not
//! yet dropped (SWIM, section 4.2). Whoever holds a connection to it believes no rumour. An accuser
//! that was refuted is not believed for a while, so one that lies costs each of its victims a message
//! and then nothing more.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::limits::{
    DISCREDIT_MAX, DISCREDIT_MIN, GONE_MAX, GREET_GONE_MAX, GREET_GONE_MIN, REFUTE_MAX, REFUTE_MIN,
    SUSPICION,
};
use protocol::wire::Presence;
use protocol::{NodeId, Now, Seq, Span, Time};

use super::{Membership, Surroundings, Word};

/// What is said of members, and what became of those who were dropped.
#[derive(Default)]
pub(super) struct Rumours {
    /// Until when a suspected member may speak, and who accused it.
    suspects: BTreeMap<NodeId, (Time, NodeId)>,
    /// Members that were dropped, as they were known last.
    gone: BTreeMap<NodeId, Gone>,
    /// Accusers that were refuted.
    discredited: BTreeMap<NodeId, Pause>,
    /// Members that this node called missing.
    accused: BTreeMap<NodeId, Pause>,
    /// This node's own refutations.
    refuted: Pause,
    greeted: Pause,
}

struct Gone {
    presence: Arc<Presence>,
    since: Time,
}

/// A pause that doubles while it is used, and begins anew after a long rest.
#[derive(Clone, Copy, Default)]
struct Pause {
    until: Time,
    tries: u32,
}

impl Pause {
    fn take(&mut self, min: Span, max: Span, now: Now) {
        if now.boot > self.until + max {
            self.tries = 0;
        }
        let pause = min.0.saturating_mul(1 << self.tries.min(16)).min(max.0);
        self.tries += 1;
        self.until = now.boot + Span(pause);
    }
}

impl Rumours {
    /// Whether the word is worth anything about a node that is not in view.
    pub(super) fn is_news(&self, presence: &Presence, word: Word) -> bool {
        let node = &presence.contact.node;
        self.gone.get(node).is_none_or(|gone| match word {
            Word::Own => presence.seq > gone.presence.seq,
            Word::Direct => true,
            Word::Hearsay => false,
        })
    }

    /// A node gave a sign of itself.
    pub(super) fn heard_from(&mut self, node: &NodeId, now: Now) {
        self.gone.remove(node);
        if let Some((_, accuser)) = self.suspects.remove(node) {
            self.discredit(accuser, now);
        }
    }

    /// A member was dropped.
    pub(super) fn bury(&mut self, presence: Arc<Presence>, now: Now) {
        let node = presence.contact.node;
        self.suspects.remove(&node);
        let since = now.boot;
        self.gone.insert(node, Gone { presence, since });
        if self.gone.len() > GONE_MAX {
            let oldest = self.gone.iter().min_by_key(|(n, g)| (g.since, **n));
            if let Some(oldest) = oldest.map(|(n, _)| *n) {
                self.gone.remove(&oldest);
            }
        }
    }

    /// A dropped member as it was known last.
    pub(super) fn gone(&self, node: &NodeId) -> Option<&Arc<Presence>> {
        self.gone.get(node).map(|gone| &gone.presence)
    }

    /// Whether this node may call another one missing; or when.
    pub(super) fn may_accuse(&mut self, node: NodeId, now: Now) -> Result<(), Time> {
        let pause = self.accused.entry(node).or_default();
        if pause.until > now.boot {
            return Err(pause.until);
        }
        pause.take(DISCREDIT_MIN, DISCREDIT_MAX, now);
        forget_old(&mut self.accused, now);
        Ok(())
    }

    /// This node spoke.
    pub(super) fn spoke(&mut self, now: Now) {
        self.refuted.until = self.refuted.until.max(now.boot + REFUTE_MIN);
    }

    fn discredit(&mut self, accuser: NodeId, now: Now) {
        let pause = self.discredited.entry(accuser).or_default();
        pause.take(DISCREDIT_MIN, DISCREDIT_MAX, now);
        forget_old(&mut self.discredited, now);
    }

    fn believes(&self, accuser: &NodeId, now: Now) -> bool {
        let pause = self.discredited.get(accuser);
        pause.is_none_or(|pause| pause.until <= now.boot)
    }

    /// When there is something to do; only delegates look after those who are gone.
    pub(super) fn due(&self, delegate: bool) -> Option<Time> {
        let suspects = self.suspects.values().map(|(until, _)| *until).min();
        let greet = (delegate && !self.gone.is_empty()).then_some(self.greeted.until);
        suspects.into_iter().chain(greet).min()
    }
}

/// Bounds a table of pauses: those that ended long ago say nothing any more.
fn forget_old(pauses: &mut BTreeMap<NodeId, Pause>, now: Now) {
    if pauses.len() > GONE_MAX {
        pauses.retain(|_, pause| pause.until + DISCREDIT_MAX > now.boot);
    }
    while pauses.len() > protocol::limits::MEMBERS_MAX {
        pauses.pop_first();
    }
}

impl Membership {
    /// `from` cannot reach `node` any more, which it knew under the number `seq`.
    pub(crate) fn missing(&mut self, from: NodeId, node: NodeId, seq: Seq, now: Now) {
        if from == node || from == self.me || !self.rumours.believes(&from, now) {
            return;
        }
        if node == self.me {
            if seq >= self.spoken {
                self.refute(now);
                self.rumours.discredit(from, now);
            }
            return;
        }
        let held = self.members.get(&node);
        let Some(_) = held.filter(|held| held.presence.seq <= seq) else {
            return;
        };
        if !self.connected.contains(&node) {
            let until = now.boot + SUSPICION;
            let suspect = self.rumours.suspects.entry(node);
            suspect.or_insert((until, from));
        }
    }

    /// Speaks again soon: somebody takes this node for gone.
    pub(super) fn refute(&mut self, now: Now) {
        let pause = &mut self.rumours.refuted;
        let at = pause.until.max(now.boot);
        if self.next_presence > at {
            pause.take(REFUTE_MIN, REFUTE_MAX, Now { boot: at, ..now });
            self.next_presence = at;
        }
    }

    /// Drops suspects that did not speak; delegates greet who is gone, now and then, so that a site
    /// which fell apart finds together again.
    pub(super) fn tend_rumours(&mut self, now: Now, around: &mut Surroundings<'_>) {
        let over = |(_, suspect): &(&NodeId, &(Time, NodeId))| suspect.0 <= now.boot;
        let over = self.rumours.suspects.iter().filter(over).map(|(n, _)| *n);
        for node in over.collect::<Vec<_>>() {
            self.rumours.suspects.remove(&node);
            self.count_as_gone(&node, now);
        }
        let due = !self.rumours.gone.is_empty() && self.rumours.greeted.until <= now.boot;
        if due && self.is_delegate() {
            let pick = self.draw(Span(self.rumours.gone.len() as u64));
            let node = self.rumours.gone.keys().nth(pick.0 as usize).copied();
            self.rumours
                .greeted
                .take(GREET_GONE_MIN, GREET_GONE_MAX, now);
            if let Some(node) = node {
                self.greet(node, around);
            }
        }
    }
}
