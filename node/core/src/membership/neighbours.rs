//! Neighbours and delegates: who is chosen, dialled and watched.
//!
//! A node watches the two next to it on the ring of ids and a few by rank. Views that agree make the
//! ring mutual, so everyone is watched by two nodes at the least.

use std::collections::BTreeSet;

use litemap::LiteMap;
use protocol::limits::{DELEGATES, LINKS_MAX, MISSING_AFTER, UNREACHED_AFTER};
use protocol::positions::rank;
use protocol::wire::SiteMessage;
use protocol::{NodeId, Now, SiteId, Span, Time};

use super::{Member, Membership};
use crate::contract::Action;
use crate::outbox::Outbox;

/// Neighbours that a node picks by rank, beside the two on its ring.
const RANKED_NEIGHBOURS: usize = 6;
/// Pause before a neighbour is dialled again; it doubles.
const REDIAL_MIN: Span = Span::from_secs(2);
/// See [`REDIAL_MIN`].
const REDIAL_MAX: Span = Span::from_secs(30);
/// Watchers do not all speak at once; those on the ring come first.
const SPREAD: Span = Span::from_secs(2);

/// Who was chosen, and who of them is not connected.
pub(super) struct Neighbours {
    me: NodeId,
    my_rank: u64,
    /// The view changed so that other neighbours or delegates may have to be chosen.
    pub(super) stale: bool,
    /// The ids before and after this node's.
    ring: Option<(NodeId, NodeId)>,
    ranked: BTreeSet<(u64, NodeId)>,
    chosen: BTreeSet<NodeId>,
    /// By rank.
    pub(super) delegates: Vec<NodeId>,
    /// The last of the delegates: who ranks before it is one too.
    last_delegate: Option<(bool, u64, NodeId)>,
    /// Chosen and not connected.
    dials: LiteMap<NodeId, Dial>,
    /// Whom the body dials until it is told otherwise.
    kept: BTreeSet<NodeId>,
    /// Connections may have become too many.
    crowded: bool,
}

struct Dial {
    next: Time,
    tries: u32,
    /// When it is said to be missing.
    missing: Time,
}

impl Neighbours {
    /// Nobody chosen yet.
    pub(super) fn new(me: NodeId, site: Option<&SiteId>) -> Neighbours {
        let about = site.map_or(&[][..], |s| s.as_str().as_bytes());
        Neighbours {
            me,
            my_rank: rank("delegate", about, &me),
            stale: true,
            ring: None,
            ranked: BTreeSet::new(),
            chosen: BTreeSet::new(),
            delegates: Vec::new(),
            last_delegate: None,
            dials: LiteMap::new(),
            kept: BTreeSet::new(),
            crowded: false,
        }
    }

    /// Whom the body keeps a connection to because this node asked for it.
    pub(super) fn kept(&self) -> impl Iterator<Item = &NodeId> {
        self.kept.iter()
    }

    pub(super) fn is_chosen(&self, node: &NodeId) -> bool {
        self.chosen.contains(node)
    }

    /// A member came: does it take anybody's place?
    pub(super) fn met(&mut self, node: NodeId, member: &Member) {
        let key = (member.presence.roaming, member.delegate_rank, node);
        let delegate = self.last_delegate.is_none_or(|last| key < last);
        let next = |(before, after): (NodeId, NodeId)| {
            lies_between(&self.me, &node, &after) || lies_between(&before, &node, &self.me)
        };
        let last = self.ranked.last();
        let ranked = last.is_none_or(|last| (member.neighbour_rank, node) < *last);
        self.stale |= delegate
            || self.delegates.len() < DELEGATES
            || self.ring.is_none_or(next)
            || ranked
            || self.ranked.len() < RANKED_NEIGHBOURS;
    }

    /// A member went.
    pub(super) fn lost(&mut self, node: &NodeId) {
        self.stale |= self.chosen.contains(node) || self.delegates.contains(node);
    }

    pub(super) fn connected(&mut self, node: &NodeId) {
        self.dials.remove(node);
        self.crowded = true;
    }

    pub(super) fn due(&self) -> Option<Time> {
        let dials = self.dials.values().map(|d| d.next.min(d.missing)).min();
        dials.or(self.crowded.then_some(Time(0)))
    }

    fn choose(&mut self, members: &LiteMap<NodeId, Member>, roaming: bool) {
        let key = |(node, m): (&NodeId, &Member)| (m.presence.roaming, m.delegate_rank, *node);
        let mut ranked: Vec<_> = members.iter().map(key).collect();
        ranked.push((roaming, self.my_rank, self.me));
        // Roaming nodes act for a site only if nobody else is left.
        ranked.sort_unstable();
        let roaming_only = ranked.first().is_some_and(|(roaming, _, _)| *roaming);
        let eligible = ranked.into_iter().filter(|key| key.0 == roaming_only);
        let delegates: Vec<_> = eligible.take(DELEGATES).collect();
        self.last_delegate = delegates.last().copied();
        self.delegates = delegates.into_iter().map(|(_, _, node)| node).collect();
        let (Ok(place) | Err(place)) = members.find_index(&self.me);
        let after = members.get_indexed(place).or(members.first());
        let before = place.checked_sub(1).and_then(|n| members.get_indexed(n));
        let before = before.or(members.last());
        self.ring = before.zip(after).map(|(b, a)| (*b.0, *a.0));
        let mut by_rank: Vec<_> = members
            .iter()
            .map(|(n, m)| (m.neighbour_rank, *n))
            .collect();
        by_rank.sort_unstable();
        by_rank.truncate(RANKED_NEIGHBOURS);
        let ring = self.ring.into_iter().flat_map(|(b, a)| [b, a]);
        self.chosen = ring.chain(by_rank.iter().map(|(_, n)| *n)).collect();
        self.ranked = by_rank.into_iter().collect();
    }

    fn is_on_the_ring(&self, node: &NodeId) -> bool {
        self.ring.is_some_and(|(b, a)| b == *node || a == *node)
    }
}

/// Whether `x` comes after `from` and before `to` on the ring of ids.
fn lies_between(from: &NodeId, x: &NodeId, to: &NodeId) -> bool {
    if from < to {
        from < x && x < to
    } else {
        from < x || x < to
    }
}

impl Membership {
    /// Chooses anew if need be, dials, and says who is missing.
    pub(super) fn tend_neighbours(&mut self, now: Now, out: &mut Outbox) {
        if std::mem::take(&mut self.near.stale) {
            let before = self.near.chosen.clone();
            self.near.choose(&self.members, self.roaming);
            self.near.crowded = true;
            for node in before.difference(&self.near.chosen) {
                self.near.dials.remove(node);
                if !self.connected.contains(node) && self.near.kept.remove(node) {
                    out.push(Action::Disconnect(*node));
                }
            }
            let new = self.near.chosen.difference(&before);
            let new = new.filter(|n| !self.connected.contains(*n)).copied();
            for node in new.collect::<Vec<_>>() {
                self.await_link(node, UNREACHED_AFTER, now.boot, now);
            }
            self.check_delegates(now);
        }
        self.dial(now, out);
        self.say_who_is_missing(now, out);
        if std::mem::take(&mut self.near.crowded) {
            self.make_room(out);
        }
    }

    /// The connection to a node broke. A neighbour is dialled soon.
    pub(super) fn link_lost(&mut self, node: NodeId, now: Now, out: &mut Outbox) {
        if self.near.is_chosen(&node) {
            // Whoever let go of it for want of room does not have it back at once.
            let next = now.boot + self.draw(REDIAL_MIN);
            self.await_link(node, MISSING_AFTER, next, now);
        } else if self.near.kept.remove(&node) {
            out.push(Action::Disconnect(node));
        }
    }

    fn await_link(&mut self, node: NodeId, patience: Span, next: Time, now: Now) {
        let missing = now.boot + self.patience(&node, patience);
        let dial = Dial {
            next,
            tries: 0,
            missing,
        };
        self.near.dials.insert(node, dial);
    }

    fn dial(&mut self, now: Now, out: &mut Outbox) {
        for (node, dial) in &mut self.near.dials {
            if dial.next > now.boot {
                continue;
            }
            let Some(member) = self.members.get(node) else {
                continue;
            };
            let pause = REDIAL_MIN.0.saturating_mul(1 << dial.tries.min(16));
            dial.next = Time(now.boot.0 + pause.min(REDIAL_MAX.0));
            dial.tries += 1;
            self.near.kept.insert(*node);
            out.push(Action::Connect(member.presence.contact.clone()));
        }
    }

    fn say_who_is_missing(&mut self, now: Now, out: &mut Outbox) {
        let over = |(_, dial): &(&NodeId, &Dial)| dial.missing <= now.boot;
        let over: Vec<NodeId> = self.near.dials.iter().filter(over).map(|d| *d.0).collect();
        for node in over {
            let Some(seq) = self.members.get(&node).map(|m| m.presence.seq) else {
                self.near.dials.remove(&node);
                continue;
            };
            if let Err(again) = self.rumours.may_accuse(node, now) {
                if let Some(dial) = self.near.dials.get_mut(&node) {
                    dial.missing = again;
                }
                continue;
            }
            self.count_as_gone(&node, now);
            self.near.dials.remove(&node);
            self.near.kept.remove(&node);
            out.push(Action::Disconnect(node));
            out.push(Action::Gossip(SiteMessage::Missing { node, seq }));
        }
    }

    /// How long after `patience` this node says that a neighbour is missing: those on its ring at
    /// once, the others only if none of them did.
    fn patience(&mut self, node: &NodeId, patience: Span) -> Span {
        let spread = self.draw(SPREAD);
        if self.near.is_on_the_ring(node) {
            Span(patience.0 + spread.0 / 4)
        } else {
            Span(patience.0 + SPREAD.0 / 2 + spread.0)
        }
    }

    /// Lets go of connections that are more than enough.
    fn make_room(&mut self, out: &mut Outbox) {
        let linked = self
            .connected
            .iter()
            .filter(|n| self.members.contains_key(*n));
        let surplus = linked.count().saturating_sub(LINKS_MAX);
        let spare = |n: &&NodeId| self.members.contains_key(*n) && !self.near.is_chosen(n);
        let spare = self.connected.iter().filter(spare).take(surplus);
        for node in spare.copied().collect::<Vec<_>>() {
            self.connected.remove(&node);
            self.near.kept.remove(&node);
            out.push(Action::Disconnect(node));
        }
    }
}
