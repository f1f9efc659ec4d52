//! Who is here: presence, the site that this node counts itself to, its neighbours and delegates.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::{DELEGATES, MEMBERS_MAX, NEIGHBOURS_MAX};
use protocol::positions::rank;
use protocol::topology::Topology;
use protocol::wire::{Contact, ControlRequest, Presence, SiteMessage};
use protocol::{NodeId, Now, Seq, SiteId, Span, Time};

use crate::contract::{Action, Config, NodeRole, Tempo, Ticket};
use crate::counters::Counters;
use crate::outbox::Outbox;

/// Neighbours that a node picks by rank, beside the two on its ring.
const RANKED_NEIGHBOURS: usize = 6;
/// Pause before a neighbour is dialled again; it doubles.
const REDIAL_MIN: Span = Span::from_secs(2);
/// See [`REDIAL_MIN`].
const REDIAL_MAX: Span = Span::from_secs(30);
/// Pause before the coordinator is asked again who is here; it doubles.
const LOCATE_MIN: Span = Span::from_millis(500);
/// See [`LOCATE_MIN`].
const LOCATE_MAX: Span = Span::from_secs(30);
/// So many unanswered questions, and a node that sees nobody acts for its site.
const LOCATES_BEFORE_ALONE: u32 = 2;

/// Another node of the site.
pub(crate) struct Member {
    /// What it said last.
    pub(crate) presence: Presence,
    seen: Time,
    delegate_rank: u64,
    neighbour_rank: u64,
}

/// The node's view of its site. Its ranks are rendezvous hashes, so equal views choose alike.
pub(crate) struct Membership {
    me: NodeId,
    role: NodeRole,
    contact: Contact,
    tempo: Tempo,
    addresses: Vec<IpAddr>,
    site: Option<SiteId>,
    roaming: bool,
    my_rank: u64,
    members: BTreeMap<NodeId, Member>,
    changed: bool,
    connected: BTreeSet<NodeId>,
    neighbours: BTreeSet<NodeId>,
    delegates: BTreeSet<NodeId>,
    dials: BTreeMap<NodeId, (Time, u32)>,
    next_presence: Time,
    locate: Locate,
}

#[derive(Default)]
struct Locate {
    asked: Option<(Ticket, NodeId)>,
    tries: u32,
    next: Time,
    answered: bool,
}

impl Membership {
    /// Nobody in view, no site yet.
    pub(crate) fn new(config: &Config) -> Membership {
        Membership {
            me: config.node,
            role: config.role,
            contact: config.contact.clone(),
            tempo: config.tempo,
            addresses: Vec::new(),
            site: None,
            roaming: false,
            my_rank: 0,
            members: BTreeMap::new(),
            changed: true,
            connected: BTreeSet::new(),
            neighbours: BTreeSet::new(),
            delegates: BTreeSet::new(),
            dials: BTreeMap::new(),
            next_presence: Time(0),
            locate: Locate::default(),
        }
    }

    /// The site that the node counts itself to.
    pub(crate) fn site(&self) -> Option<&SiteId> {
        self.site.as_ref()
    }

    /// Others in view.
    pub(crate) fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// The site's delegates in this node's view.
    pub(crate) fn delegates(&self) -> &BTreeSet<NodeId> {
        &self.delegates
    }

    /// Whether this node is one of its site's delegates.
    pub(crate) fn is_delegate(&self) -> bool {
        self.site.is_some() && self.delegates.contains(&self.me)
    }

    /// Whether this node speaks with the coordinator: a delegate, a node without a site, an origin.
    /// A node that just came waits until it knows who else is here.
    pub(crate) fn is_uplinker(&self) -> bool {
        let settled = self.locate.answered
            || !self.members.is_empty()
            || self.locate.tries >= LOCATES_BEFORE_ALONE;
        self.site.is_none() || (settled && self.is_delegate())
    }

    /// The machine has these addresses now.
    pub(crate) fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.addresses = addresses;
    }

    /// Others reach this node here now; they hear of it at once.
    pub(crate) fn set_contact(&mut self, contact: Contact) {
        self.contact = contact;
        self.next_presence = Time(0);
    }

    /// Whether this node owns nothing and serves nobody.
    pub(crate) fn set_roaming(&mut self, roaming: bool) {
        if self.roaming != roaming {
            self.roaming = roaming;
            self.changed = true;
            self.next_presence = Time(0);
        }
    }

    /// Finds the node's site anew; true if it is another one than before. Everyone of the old site
    /// is gone from view then.
    pub(crate) fn find_site(&mut self, topology: Option<&Topology>, out: &mut Outbox) -> bool {
        let site = match self.role {
            NodeRole::Origin => None,
            NodeRole::Endpoint => topology.and_then(|t| {
                self.addresses
                    .iter()
                    .find_map(|a| t.site_of(*a))
                    .map(|s| s.id.clone())
            }),
        };
        if site == self.site {
            return false;
        }
        for node in std::mem::take(&mut self.neighbours) {
            if self.connected.contains(&node) {
                out.push(Action::Disconnect(node));
            }
        }
        let about = site
            .as_ref()
            .map(|s| s.as_str().as_bytes().to_vec())
            .unwrap_or_default();
        self.my_rank = rank("delegate", &about, &self.me);
        self.members.clear();
        self.dials.clear();
        self.locate = Locate::default();
        self.next_presence = Time(0);
        self.changed = true;
        self.site = site.clone();
        out.push(Action::JoinSite(site));
        true
    }

    /// Somebody said that it is here, or was said to be. Replayed words change nothing.
    pub(crate) fn hear(&mut self, presence: Presence, now: Now) {
        let node = presence.contact.node;
        let Some(site) = &self.site else { return };
        if node == self.me || presence.site.as_ref() != Some(site) {
            return;
        }
        let held = self.members.get(&node);
        if held.is_some_and(|held| held.presence.seq >= presence.seq) {
            return;
        }
        if presence.leaving {
            self.changed |= self.members.remove(&node).is_some();
            return;
        }
        let (delegate_rank, neighbour_rank) = match held {
            Some(held) => (held.delegate_rank, held.neighbour_rank),
            None => (
                rank("delegate", site.as_str().as_bytes(), &node),
                rank("neighbour", &self.me.0, &node),
            ),
        };
        let same = held.is_some_and(|held| {
            held.presence.contact == presence.contact && held.presence.roaming == presence.roaming
        });
        self.changed |= !same;
        let seen = now.boot;
        let member = Member {
            presence,
            seen,
            delegate_rank,
            neighbour_rank,
        };
        self.members.insert(node, member);
        if self.members.len() > MEMBERS_MAX {
            let longest_unseen = self
                .members
                .iter()
                .min_by_key(|(_, m)| m.seen)
                .map(|(n, _)| *n);
            longest_unseen.map(|n| self.members.remove(&n));
        }
    }

    /// A control connection stands.
    pub(crate) fn connected(&mut self, node: NodeId) {
        self.connected.insert(node);
        self.dials.remove(&node);
    }

    /// A control connection is gone.
    pub(crate) fn disconnected(&mut self, node: NodeId) {
        self.connected.remove(&node);
    }

    /// Whether [`Membership::tick`] has something to do.
    pub(crate) fn is_due(&self, now: Now) -> bool {
        self.changed || self.timeout().is_some_and(|at| at <= now.boot)
    }

    /// Whether this node sees nobody else of its site.
    pub(crate) fn is_alone(&self) -> bool {
        self.members.is_empty()
    }

    /// Does what is due; true if the view changed since the last call.
    pub(crate) fn tick(
        &mut self,
        now: Now,
        coordinators: &[Contact],
        orders_head: Seq,
        counters: &mut Counters,
        out: &mut Outbox,
    ) -> bool {
        let lifetime = self.tempo.presence_lifetime;
        let before = self.members.len();
        self.members
            .retain(|_, m| now.boot.since(m.seen) < lifetime);
        let changed = std::mem::take(&mut self.changed) | (self.members.len() != before);
        if changed {
            self.choose();
        }
        self.speak(now, orders_head, counters, out);
        self.dial(now, out);
        self.ask_who_is_here(now, coordinators, orders_head, counters, out);
        changed
    }

    /// This node as others shall see it.
    pub(crate) fn presence(&self, seq: Seq, orders_head: Seq) -> Presence {
        Presence {
            contact: self.contact.clone(),
            site: self.site.clone(),
            roaming: self.roaming,
            seq,
            orders_head,
            leaving: false,
        }
    }

    /// An answer to the question who is here came, or will not come: who was asked, if it was that
    /// question.
    pub(crate) fn located(&mut self, ticket: Ticket, found: bool, now: Now) -> Option<NodeId> {
        let (_, asked) = self.locate.asked.take_if(|(t, _)| *t == ticket)?;
        self.locate.answered |= found;
        self.locate.tries += 1;
        let pause = LOCATE_MIN
            .0
            .saturating_mul(1 << self.locate.tries.min(16))
            .min(LOCATE_MAX.0);
        self.locate.next = Time(now.boot.0 + pause);
        Some(asked)
    }

    /// Tells the site that this node is about to go.
    pub(crate) fn leave(&mut self, head: Seq, counters: &mut Counters, out: &mut Outbox) {
        if self.site.is_some() {
            let presence = Presence {
                leaving: true,
                ..self.presence(counters.draw(out), head)
            };
            out.push(Action::Gossip(SiteMessage::Presence(presence)));
        }
    }

    /// When [`Membership::tick`] has something to do.
    pub(crate) fn timeout(&self) -> Option<Time> {
        self.site.as_ref()?;
        let lifetime = self.tempo.presence_lifetime;
        let expiry = self
            .members
            .values()
            .map(|m| Time(m.seen.0 + lifetime.0))
            .min();
        let dials = self
            .wanted_dials()
            .map(|n| self.dials.get(&n).map_or(Time(0), |d| d.0))
            .min();
        let locate =
            (self.members.is_empty() && self.locate.asked.is_none()).then_some(self.locate.next);
        [Some(self.next_presence), expiry, dials, locate]
            .into_iter()
            .flatten()
            .min()
    }

    fn choose(&mut self) {
        let settled = |(node, m): (&NodeId, &Member)| (m.presence.roaming, m.delegate_rank, *node);
        let mut ranked: Vec<_> = self.members.iter().map(settled).collect();
        ranked.push((self.roaming, self.my_rank, self.me));
        // Roaming nodes act for a site only if nobody else is left.
        ranked.sort_unstable();
        let roaming_only = ranked.first().is_some_and(|(roaming, _, _)| *roaming);
        let eligible = ranked
            .into_iter()
            .filter(|(roaming, _, _)| *roaming == roaming_only);
        self.delegates = eligible.take(DELEGATES).map(|(_, _, node)| node).collect();
        let after = self
            .members
            .range(self.me..)
            .next()
            .or(self.members.first_key_value());
        let before = self
            .members
            .range(..self.me)
            .next_back()
            .or(self.members.last_key_value());
        let mut neighbours: BTreeSet<NodeId> =
            after.into_iter().chain(before).map(|(n, _)| *n).collect();
        let mut by_rank: Vec<_> = self
            .members
            .iter()
            .map(|(n, m)| (m.neighbour_rank, *n))
            .collect();
        by_rank.sort_unstable();
        neighbours.extend(by_rank.into_iter().take(RANKED_NEIGHBOURS).map(|(_, n)| n));
        self.neighbours = neighbours;
        self.dials.retain(|n, _| self.neighbours.contains(n));
    }

    fn speak(&mut self, now: Now, head: Seq, counters: &mut Counters, out: &mut Outbox) {
        if self.site.is_some() && self.next_presence <= now.boot {
            self.next_presence = Time(now.boot.0 + self.tempo.presence.0);
            let presence = self.presence(counters.draw(out), head);
            out.push(Action::Gossip(SiteMessage::Presence(presence)));
        }
    }

    fn wanted_dials(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.neighbours
            .iter()
            .filter(|n| !self.connected.contains(n))
            .copied()
    }

    fn dial(&mut self, now: Now, out: &mut Outbox) {
        let wanted: Vec<NodeId> = self.wanted_dials().collect();
        for node in wanted {
            let (next, tries) = self.dials.get(&node).copied().unwrap_or_default();
            let Some(member) = self.members.get(&node).filter(|_| next <= now.boot) else {
                continue;
            };
            let pause = REDIAL_MIN
                .0
                .saturating_mul(1 << tries.min(16))
                .min(REDIAL_MAX.0);
            self.dials
                .insert(node, (Time(now.boot.0 + pause), tries + 1));
            out.push(Action::Connect(member.presence.contact.clone()));
        }
        let members = &self.members;
        let linked = self
            .connected
            .iter()
            .filter(|n| members.contains_key(*n))
            .count();
        let surplus = linked.saturating_sub(NEIGHBOURS_MAX);
        let spare = |n: &&NodeId| members.contains_key(*n) && !self.neighbours.contains(*n);
        let spare: Vec<NodeId> = self
            .connected
            .iter()
            .filter(spare)
            .take(surplus)
            .copied()
            .collect();
        for node in spare {
            self.connected.remove(&node);
            out.push(Action::Disconnect(node));
        }
    }

    fn ask_who_is_here(
        &mut self,
        now: Now,
        coordinators: &[Contact],
        head: Seq,
        counters: &mut Counters,
        out: &mut Outbox,
    ) {
        let alone = self.site.is_some() && self.members.is_empty();
        if !alone || self.locate.asked.is_some() || self.locate.next > now.boot {
            return;
        }
        let turn = self.locate.tries as usize % coordinators.len().max(1);
        let Some(to) = coordinators.get(turn).cloned() else {
            self.locate.tries += 1;
            self.locate.next = Time(now.boot.0 + LOCATE_MAX.0);
            return;
        };
        let ticket = out.ticket();
        self.locate.asked = Some((ticket, to.node));
        let me = self.presence(counters.draw(out), head);
        let request = ControlRequest::Locate { me };
        out.push(Action::Ask {
            ticket,
            to,
            request,
            own_statuses: Vec::new(),
        });
    }
}
