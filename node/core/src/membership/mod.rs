//! Who is here: presence, the site that this node counts itself to, its neighbours and delegates.
//!
//! The scheme is SWIM's (Das, Gupta, Motivala: SWIM, DSN 2002) with the site's own connections as its
//! probes. A node says that it is here when it comes, when something about it changes, and seldom
//! otherwise; its numbers are SWIM's incarnations. Who loses the connection to a neighbour and cannot
//! make it anew says that the neighbour is missing; others suspect it then, and drop it unless it
//! speaks with a higher number meanwhile ([`rumours`]). What gossip lost is found by comparing: a
//! delegate says now and then which view and which orders it has ([`beat`]), and whoever differs asks
//! for the list ([`survey`]). Only a node's own word, or its answer to a direct question, brings it
//! back once it counted as gone.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use litemap::LiteMap;
use protocol::limits::{
    CONTACT_ADDRESS_MAX_BYTES, CONTACT_ADDRESSES_MAX, CONTROL_MAX_BYTES, MEMBERS_MAX, SPEAK_AFTER,
};
use protocol::positions::rank;
use protocol::topology::Topology;
use protocol::wire::{Contact, Presence, SiteMessage};
use protocol::{Hash, NodeId, Now, Seq, SiteId, Span, Time};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::contract::{Action, Config, NodeRole, PeersRecord, Tempo};
use crate::counters::Counters;
use crate::outbox::Outbox;

mod beat;
mod isolation;
mod locate;
mod missed;
mod neighbours;
mod rumours;
mod survey;
#[cfg(test)]
mod tests;

use beat::Beats;
use isolation::Isolation;
use locate::Locate;
use missed::Missed;
use neighbours::Neighbours;
use rumours::Rumours;
use survey::Survey;

/// Another node of the site.
pub(crate) struct Member {
    /// What it said last.
    pub(crate) presence: Arc<Presence>,
    seen: Time,
    /// Whether it said so itself.
    vouched: bool,
    delegate_rank: u64,
    neighbour_rank: u64,
    print: u64,
}

/// Whose word a presence is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    /// Its own, by gossip: it may have been long on its way.
    Own,
    /// Its own, on a connection with it just now.
    Direct,
    /// Somebody else's.
    Hearsay,
}

/// What a tick may use.
pub(crate) struct Surroundings<'a> {
    /// Contacts of the coordinator; empty if the node sees somebody.
    pub(crate) coordinators: &'a [Contact],
    /// This node's head of the orders.
    pub(crate) head: Seq,
    /// Numbers for what it says.
    pub(crate) counters: &'a mut Counters,
    /// Where it says it.
    pub(crate) out: &'a mut Outbox,
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
    members: LiteMap<NodeId, Member>,
    /// The most members for whom the table was cut to size: a site grows seldom, and one in doubled
    /// places is a quarter of what a node holds of it.
    fitted: usize,
    /// Exclusive or of the members' fingerprints.
    prints: u64,
    /// This node's own fingerprint.
    my_print: u64,
    /// Members that came, changed or went since [`Membership::take_changes`].
    changes: BTreeSet<NodeId>,
    connected: BTreeSet<NodeId>,
    near: Neighbours,
    rumours: Rumours,
    missed: Missed,
    beats: Beats,
    survey: Survey,
    locate: Locate,
    isolation: Isolation,
    /// Members that told of orders which this node may not have.
    ahead: BTreeMap<NodeId, Seq>,
    /// This node's own head.
    head: Seq,
    /// No member was unheard for its lifetime before this.
    expiry: Time,
    next_presence: Time,
    /// The number of this node's newest presence.
    spoken: Seq,
    rng: ChaCha8Rng,
}

impl Membership {
    /// Nobody in view, no site yet; `last` are the members that it saw before it was restarted.
    pub(crate) fn new(config: &Config, last: Option<PeersRecord>) -> Membership {
        Membership {
            me: config.node,
            role: config.role,
            contact: config.contact.clone(),
            tempo: config.tempo,
            addresses: Vec::new(),
            site: None,
            roaming: false,
            members: LiteMap::new(),
            fitted: 0,
            prints: 0,
            my_print: print(&config.contact, false),
            changes: BTreeSet::new(),
            connected: BTreeSet::new(),
            near: Neighbours::new(config.node, None),
            rumours: Rumours::default(),
            missed: Missed::default(),
            beats: Beats::default(),
            survey: Survey::default(),
            locate: Locate::new(last),
            isolation: Isolation::default(),
            ahead: BTreeMap::new(),
            head: Seq::default(),
            expiry: Time::MAX,
            next_presence: Time(0),
            spoken: Seq::default(),
            // A stream of its own: nothing else draws from it.
            rng: ChaCha8Rng::seed_from_u64(config.seed ^ 0x7072_6573_656e_6365),
        }
    }

    /// The site that the node counts itself to.
    pub(crate) fn site(&self) -> Option<&SiteId> {
        self.site.as_ref()
    }

    /// Others in view.
    pub(crate) fn members(&self) -> &LiteMap<NodeId, Member> {
        &self.members
    }

    /// Whether a node is in view.
    pub(crate) fn is_member(&self, node: &NodeId) -> bool {
        self.members.contains_key(node)
    }

    /// The site's delegates in this node's view, by rank.
    pub(crate) fn delegates(&self) -> &[NodeId] {
        &self.near.delegates
    }

    /// Whether this node is one of its site's delegates.
    pub(crate) fn is_delegate(&self) -> bool {
        self.site.is_some() && self.near.delegates.contains(&self.me)
    }

    /// Whether this node is the first of its site's delegates.
    pub(crate) fn is_first_delegate(&self) -> bool {
        self.site.is_some() && self.near.delegates.first() == Some(&self.me)
    }

    /// Whether this node carries its site's feed, or its own if it has no site.
    pub(crate) fn carries(&self) -> bool {
        self.is_uplinker() && (self.site.is_none() || self.is_first_delegate())
    }

    /// Whether this node speaks with the coordinator: a delegate, a node without a site, an origin.
    /// A node that just came waits until it knows who else is here.
    pub(crate) fn is_uplinker(&self) -> bool {
        self.site.is_none() || self.knows_its_site() && self.is_delegate()
    }

    /// Whether it was found out who else is here, or that nobody tells.
    pub(crate) fn knows_its_site(&self) -> bool {
        self.site.is_none() || !self.members.is_empty() || self.locate.is_settled()
    }

    /// The machine's addresses, as far as they were told.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The machine has these addresses now.
    pub(crate) fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.addresses = addresses;
    }

    /// Others reach this node here now; they hear of it at once.
    pub(crate) fn set_contact(&mut self, contact: Contact) {
        self.contact = contact;
        self.my_print = print(&self.contact, self.roaming);
        self.next_presence = Time(0);
    }

    /// Whether this node owns nothing and serves nobody.
    pub(crate) fn set_roaming(&mut self, roaming: bool) {
        if self.roaming != roaming {
            self.roaming = roaming;
            self.my_print = print(&self.contact, roaming);
            self.near.stale = true;
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
        let near = Neighbours::new(self.me, site.as_ref());
        let old = std::mem::replace(&mut self.near, near);
        for node in old.kept() {
            out.push(Action::Disconnect(*node));
        }
        self.changes.extend(self.members.keys());
        self.members.clear();
        self.prints = 0;
        self.rumours = Rumours::default();
        self.missed = Missed::default();
        self.beats = Beats::default();
        self.survey = Survey::default();
        self.locate.begin(site.as_ref());
        self.isolation = Isolation::default();
        self.ahead.clear();
        self.expiry = Time::MAX;
        self.next_presence = Time(0);
        self.site = site.clone();
        out.push(Action::JoinSite(site));
        true
    }

    /// Somebody said that it is here, or was said to be. Replayed words change nothing.
    pub(crate) fn hear(&mut self, presence: Arc<Presence>, word: Word, now: Now) {
        let node = presence.contact.node;
        let Some(site) = &self.site else { return };
        if node == self.me || presence.site.as_ref() != Some(site) || !is_sound(&presence.contact) {
            return;
        }
        if word == Word::Direct {
            self.isolation.reached();
        }
        if presence.leaving {
            let newer = |held: &Member| held.presence.seq < presence.seq;
            if word != Word::Hearsay && self.members.get(&node).is_some_and(newer) {
                self.drop_member(&node);
            }
            return;
        }
        let Some(held) = self.members.get_mut(&node) else {
            if self.rumours.is_news(&presence, word) {
                self.rumours.heard_from(&node, now);
                self.told_head(node, presence.orders_head);
                self.add(presence, word, now);
            } else if word == Word::Hearsay {
                self.survey.doubt(node);
            }
            return;
        };
        if word == Word::Direct {
            held.seen = now.boot;
            self.rumours.heard_from(&node, now);
        }
        if presence.orders_head > self.head {
            self.ahead.insert(node, presence.orders_head);
        }
        // What was heard of others gives way to its own word, whatever numbers they made up.
        let newer = held.presence.seq < presence.seq || !held.vouched && word != Word::Hearsay;
        if !newer {
            return;
        }
        let print = print(&presence.contact, presence.roaming);
        if word == Word::Hearsay && held.vouched {
            if print != held.print {
                self.survey.doubt(node);
            }
            return;
        }
        held.vouched |= word != Word::Hearsay;
        held.seen = now.boot;
        self.near.stale |= held.presence.roaming != presence.roaming;
        if print != held.print {
            self.prints ^= held.print ^ print;
            held.print = print;
            self.changes.insert(node);
        }
        held.presence = presence;
        self.rumours.heard_from(&node, now);
    }

    fn told_head(&mut self, node: NodeId, head: Seq) {
        if head > self.head {
            self.ahead.insert(node, head);
        }
    }

    fn add(&mut self, presence: Arc<Presence>, word: Word, now: Now) {
        let node = presence.contact.node;
        let about = self
            .site
            .as_ref()
            .map_or(&[][..], |s| s.as_str().as_bytes());
        let member = Member {
            seen: now.boot,
            vouched: word != Word::Hearsay,
            delegate_rank: rank("delegate", about, &node),
            neighbour_rank: rank("neighbour", &self.me.0, &node),
            print: print(&presence.contact, presence.roaming),
            presence,
        };
        self.prints ^= member.print;
        self.missed.back(&node);
        self.near.met(node, &member);
        self.members.insert(node, member);
        self.changes.insert(node);
        self.expiry = self.expiry.min(now.boot + self.tempo.presence_lifetime);
        if self.members.len() > MEMBERS_MAX {
            let longest_unseen = self.members.iter().min_by_key(|(_, m)| m.seen);
            if let Some(node) = longest_unseen.map(|(n, _)| *n) {
                self.drop_member(&node);
            }
        }
    }

    /// Takes a member out of view.
    fn drop_member(&mut self, node: &NodeId) -> Option<Member> {
        let member = self.members.remove(node)?;
        self.prints ^= member.print;
        self.near.lost(node);
        self.ahead.remove(node);
        self.changes.insert(*node);
        Some(member)
    }

    /// A control connection stands.
    pub(crate) fn connected(&mut self, node: NodeId, now: Now) {
        // Who came says so once there is somebody to hear it.
        if self.site.is_some() && self.members.contains_key(&node) && !self.has_link() {
            let soon = now.boot + SPEAK_AFTER;
            self.next_presence = self.next_presence.max(Time(1)).min(soon);
        }
        self.connected.insert(node);
        if self.has_link() {
            self.isolation.reached();
        }
        self.near.connected(&node);
        self.rumours.heard_from(&node, now);
    }

    /// A control connection is gone.
    pub(crate) fn disconnected(&mut self, node: NodeId, now: Now, out: &mut Outbox) {
        if self.connected.remove(&node) && self.site.is_some() {
            self.link_lost(node, now, out);
        }
    }

    fn has_link(&self) -> bool {
        self.connected.iter().any(|n| self.members.contains_key(n))
    }

    /// Whether [`Membership::tick`] has something to do.
    pub(crate) fn is_due(&self, now: Now) -> bool {
        self.timeout().is_some_and(|at| at <= now.boot)
    }

    /// When [`Membership::tick`] has something to do.
    pub(crate) fn timeout(&self) -> Option<Time> {
        self.site.as_ref()?;
        let locate = self.members.is_empty().then(|| self.locate.due()).flatten();
        let remember = self.locate.remember_at;
        let due = [
            Some(self.next_presence),
            (self.near.stale || !self.changes.is_empty()).then_some(Time(0)),
            (self.expiry != Time::MAX).then_some(self.expiry),
            self.near.due(),
            self.rumours.due(self.is_delegate()),
            self.beats.due(),
            self.survey.due(),
            locate,
            remember,
        ];
        due.into_iter().flatten().min()
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Now, around: &mut Surroundings<'_>) {
        if self.site.is_none() {
            return;
        }
        self.expire(now);
        if !self.changes.is_empty() {
            self.members_changed(now);
        }
        self.tend_rumours(now, around);
        self.tend_neighbours(now, around.out);
        self.speak(now, around);
        self.tend_beats(now, around);
        self.tend_survey(now, around);
        self.ask_who_is_here(now, around);
        self.remember_members(now, around.out);
    }

    /// Members that came, changed or went since the last call.
    pub(crate) fn take_changes(&mut self) -> BTreeSet<NodeId> {
        if self.members.len() > self.fitted {
            self.fitted = self.members.len();
            let mut table = std::mem::take(&mut self.members).into_tuple_vec();
            table.shrink_to_fit();
            self.members = LiteMap::from_sorted_store_unchecked(table);
        }
        std::mem::take(&mut self.changes)
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

    /// Who is here, for one who asks: this node and everyone it sees, as many as fit one answer.
    pub(crate) fn everyone(&mut self, around: &mut Surroundings<'_>) -> Vec<Arc<Presence>> {
        let own = Arc::new(self.own_word(around));
        let members = self.members.values().map(|m| m.presence.clone());
        let mut room = CONTROL_MAX_BYTES - 1024;
        let fits = |presence: &Arc<Presence>| {
            let addresses = presence.contact.control.iter().map(|a| a.len() + 2);
            let left = room.checked_sub(addresses.sum::<usize>() + 256);
            room = left.unwrap_or(room);
            left.is_some()
        };
        [own].into_iter().chain(members).take_while(fits).collect()
    }

    /// This node's presence under the number that was gossiped last.
    fn own_word(&mut self, around: &mut Surroundings<'_>) -> Presence {
        if self.spoken == Seq::default() {
            self.spoken = around.counters.draw(around.out);
        }
        self.presence(self.spoken, around.head)
    }

    /// Members that told of orders which this node lacks.
    pub(crate) fn ahead(&self) -> impl Iterator<Item = &NodeId> {
        self.ahead.keys()
    }

    /// `node` was asked for orders: what it told before is worth nothing any more.
    pub(crate) fn was_asked(&mut self, node: &NodeId) {
        self.ahead.remove(node);
    }

    /// Tells the site that this node is about to go.
    pub(crate) fn leave(&mut self, around: &mut Surroundings<'_>) {
        if self.site.is_some() {
            let seq = around.counters.draw(around.out);
            let presence = Presence {
                leaving: true,
                ..self.presence(seq, around.head)
            };
            let word = SiteMessage::Presence(Arc::new(presence));
            around.out.push(Action::Gossip(word));
        }
    }

    fn expire(&mut self, now: Now) {
        if self.expiry > now.boot {
            return;
        }
        let lifetime = self.tempo.presence_lifetime;
        let connected = &self.connected;
        // Who is connected is here, whatever it says.
        let over =
            |(n, m): &(&NodeId, &Member)| m.seen + lifetime <= now.boot && !connected.contains(*n);
        let over: Vec<NodeId> = self.members.iter().filter(over).map(|(n, _)| *n).collect();
        for node in over {
            self.count_as_gone(&node, now);
        }
        let ends = self.members.values().map(|m| m.seen + lifetime);
        // Members that are connected are looked at again later.
        let soonest = Time(now.boot.0 + lifetime.0 / 4);
        self.expiry = ends.min().map_or(Time::MAX, |end| end.max(soonest));
    }

    /// A member that nobody reaches any more. It may come back by its own word.
    fn count_as_gone(&mut self, node: &NodeId, now: Now) {
        if let Some(member) = self.drop_member(node) {
            self.miss(*node, &member, now);
            self.rumours.bury(member.presence, now);
        }
    }

    fn speak(&mut self, now: Now, around: &mut Surroundings<'_>) {
        if self.next_presence > now.boot {
            return;
        }
        let interval = self.tempo.presence.0;
        let jitter = self.draw(Span(interval / 4));
        self.next_presence = Time(now.boot.0 + interval - jitter.0);
        self.spoken = around.counters.draw(around.out);
        let presence = self.presence(self.spoken, around.head);
        self.rumours.spoke(now);
        let word = SiteMessage::Presence(Arc::new(presence));
        around.out.push(Action::Gossip(word));
    }

    fn draw(&mut self, below: Span) -> Span {
        Span(u64::from(self.rng.next_u32()) % below.0.max(1))
    }
}

/// Whether a contact is short enough that every member's fits one answer.
fn is_sound(contact: &Contact) -> bool {
    contact.control.len() <= CONTACT_ADDRESSES_MAX
        && contact
            .control
            .iter()
            .all(|address| address.len() <= CONTACT_ADDRESS_MAX_BYTES)
}

/// A fingerprint of what matters of a member: who is reached where, and whether it serves.
fn print(contact: &Contact, roaming: bool) -> u64 {
    let Contact {
        node,
        control,
        data,
    } = contact;
    let mut text = node.0.to_vec();
    for address in control.iter() {
        text.push(address.len() as u8);
        text.extend_from_slice(address.as_bytes());
    }
    text.push(u8::from(roaming));
    if let Some(data) = data {
        match data.ip() {
            IpAddr::V4(ip) => text.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => text.extend_from_slice(&ip.octets()),
        }
        text.extend_from_slice(&data.port().to_be_bytes());
    }
    Hash::of(&text).head()
}
