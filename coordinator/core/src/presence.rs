//! Who was heard of when, and where it is reached. Nothing here is ledgered.
//!
//! A delegate reports its whole site every second, and nearly always the same one. So what it saw is
//! kept once, as a sighting: a report that repeats it moves one time, and a node was last heard of
//! when it spoke itself or when a sighting of its site had it, whichever is later. Whether a reachable
//! node still is one is looked at when its time may be over, and put off if it was heard of since.

use protocol::limits::SIGHTINGS_MAX;
use protocol::wire::Presence;
use protocol::{NodeId, Now, SiteId, Time};

use crate::fleet::Fleet;

/// Contacts that are handed to a node which asks who is in its site: enough to join its gossip.
const MEMBERS_HANDED_MAX: usize = 64;
/// Reachability is looked at in steps of so many milliseconds, so that one wake-up serves many nodes.
const LOOK_EVERY_MS: u64 = 1000;

/// A node that must be folded into another place.
pub(crate) type Moved = (NodeId, Option<SiteId>);

/// What a delegate saw last.
pub(crate) struct Sighting {
    at: Now,
    /// All that it named, by id.
    named: Box<[NodeId]>,
    /// Of them, those that this sighting does not speak for: unknown here, or in another place.
    strange: Vec<NodeId>,
}

impl Sighting {
    /// A member went to another place: from here on it is looked at one by one.
    pub fn estranges(&mut self, node: &NodeId) {
        if self.speaks_for(node)
            && let Err(at) = self.strange.binary_search(node)
        {
            self.strange.insert(at, *node);
        }
    }

    fn speaks_for(&self, node: &NodeId) -> bool {
        self.named.binary_search(node).is_ok() && self.strange.binary_search(node).is_err()
    }
}

impl Fleet {
    /// A node said itself where it is. Returns its site if that is another than before.
    pub fn introduced(&mut self, presence: &Presence, now: Now) -> Option<Moved> {
        let id = presence.contact.node;
        let node = self.nodes.get_mut(&id).filter(|n| !n.revoked)?;
        if node.word > presence.seq {
            return None;
        }
        node.word = presence.seq;
        node.heard = Some(now);
        match &mut node.presence {
            Some(held) if **held == *presence => {}
            Some(held) if held.contact == presence.contact && held.site == presence.site => {
                (held.seq, held.orders_head) = (presence.seq, presence.orders_head);
                (held.roaming, held.leaving) = (presence.roaming, presence.leaving);
            }
            _ => node.presence = Some(Box::new(presence.clone())),
        }
        let moved = node.site.as_deref() != presence.site.as_ref();
        let site = node.site.clone();
        if let Some(population) = site.and_then(|s| self.sites.get_mut(&s)) {
            population.present.insert(id);
        }
        self.reached(&id, now);
        moved.then(|| (id, presence.site.clone()))
    }

    /// A node said something, but nothing of itself.
    pub fn spoke(&mut self, id: &NodeId, now: Now) {
        if let Some(node) = self.nodes.get_mut(id).filter(|n| !n.revoked) {
            node.heard = Some(now);
            self.reached(id, now);
        }
    }

    /// A delegate of `site` sees these members. Returns those that had no place: one that has a place
    /// leaves it by its own word only, or a single machine could empty the waves of others.
    pub fn witnessed(
        &mut self,
        delegate: &NodeId,
        members: &[NodeId],
        site: Option<&SiteId>,
        now: Now,
    ) -> Vec<Moved> {
        let mut named: Vec<NodeId> = members.to_vec();
        if !named.is_sorted() {
            named.sort_unstable();
        }
        let unreachable_after = self.unreachable_after;
        let population = site.and_then(|s| self.sites.get_mut(s));
        let held = population.and_then(|p| p.sightings.get_mut(delegate));
        // nobody whom a fresh sighting has can count as unreachable yet
        if let Some(held) = held
            && *held.named == *named
            && now.boot.since(held.at.boot) < unreachable_after
        {
            held.at = now;
            let strange = core::mem::take(&mut held.strange);
            let (moved, strange) = self.look_through(strange, site, now);
            let population = site.and_then(|s| self.sites.get_mut(s));
            if let Some(held) = population.and_then(|p| p.sightings.get_mut(delegate)) {
                held.strange = strange;
            }
            return moved;
        }
        self.forget_sighting(delegate, site);
        let (moved, strange) = self.look_through(named.clone(), site, now);
        let Some(site) = site else { return moved };
        if let Some(population) = self.sites.get(site)
            && population.sightings.len() >= SIGHTINGS_MAX
        {
            let by_age = |(_, s): &(&NodeId, &Sighting)| s.at.boot;
            let oldest = population.sightings.iter().min_by_key(by_age);
            let oldest = oldest.map(|(id, _)| *id);
            oldest
                .iter()
                .for_each(|id| self.forget_sighting(id, Some(site)));
        }
        if let Some(population) = self.sites.get_mut(site) {
            let named = named.into_boxed_slice();
            let sighting = Sighting {
                at: now,
                named,
                strange,
            };
            population.sightings.insert(*delegate, sighting);
        }
        moved
    }

    /// Notes that these were heard of. Gives those that get a place by it, and those for which a
    /// sighting of this site does not speak.
    fn look_through(
        &mut self,
        members: Vec<NodeId>,
        site: Option<&SiteId>,
        now: Now,
    ) -> (Vec<Moved>, Vec<NodeId>) {
        let mut moved = Vec::new();
        let mut strange = Vec::new();
        for id in members {
            let Some(node) = self.nodes.get_mut(&id).filter(|n| !n.revoked) else {
                strange.push(id);
                continue;
            };
            node.heard = Some(now);
            let place = node.site.as_deref();
            if place.is_none() && site.is_some() {
                moved.push((id, site.cloned()));
            } else if place != site {
                strange.push(id);
            }
            self.reached(&id, now);
        }
        (moved, strange)
    }

    /// Takes a sighting away; when its members were heard of stays known.
    fn forget_sighting(&mut self, delegate: &NodeId, site: Option<&SiteId>) {
        let population = site.and_then(|s| self.sites.get_mut(s));
        let Some(gone) = population.and_then(|p| p.sightings.remove(delegate)) else {
            return;
        };
        for id in gone.named.iter().filter(|id| gone.speaks_for(id)) {
            if let Some(node) = self.nodes.get_mut(id).filter(|n| !n.revoked) {
                node.heard = later(node.heard, gone.at);
            }
        }
    }

    /// When a node was last heard of.
    pub fn heard(&self, id: &NodeId) -> Option<Now> {
        let node = self.nodes.get(id)?;
        let population = node.site.as_ref().and_then(|s| self.sites.get(s));
        let seen = population
            .into_iter()
            .flat_map(|p| p.sightings.values())
            .filter(|s| !node.revoked && s.speaks_for(id))
            .map(|s| s.at);
        seen.fold(node.heard, later)
    }

    /// A node is heard of right now.
    fn reached(&mut self, id: &NodeId, now: Now) {
        if self.nodes.get(id).is_some_and(|n| !n.reachable) {
            self.set_reachable(id, true);
            self.due.insert((self.look_at(now), *id));
        }
    }

    fn set_reachable(&mut self, id: &NodeId, reachable: bool) {
        let counts = self.admitted(id).is_some();
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        node.reachable = reachable;
        let population = node.site.as_ref().and_then(|s| self.sites.get_mut(s));
        match population.filter(|_| counts) {
            Some(population) if reachable => population.reachable += 1,
            Some(population) => population.reachable -= 1,
            None => {}
        }
    }

    fn look_at(&self, heard: Now) -> Time {
        let end = heard.boot + self.unreachable_after;
        Time(end.0.div_ceil(LOOK_EVERY_MS).saturating_mul(LOOK_EVERY_MS))
    }

    /// When [`Fleet::expire`] has something to do.
    pub fn expires_at(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Counts those as unreachable that were not heard of for long.
    pub fn expire(&mut self, now: Now) {
        while let Some((at, id)) = self.due.first().copied() {
            if at > now.boot {
                return;
            }
            self.due.remove(&(at, id));
            if !self.nodes.get(&id).is_some_and(|n| n.reachable) {
                continue;
            }
            match self.heard(&id) {
                Some(heard) if self.look_at(heard) > now.boot => {
                    self.due.insert((self.look_at(heard), id));
                }
                _ => self.set_reachable(&id, false),
            }
        }
    }

    /// Members of a site that said lately where they are reached, the freshest first.
    pub fn members_of(&self, site: &SiteId, now: Now) -> Vec<Presence> {
        let Some(population) = self.sites.get(site) else {
            return Vec::new();
        };
        let fresh = |heard: Now| now.boot.since(heard.boot) < self.unreachable_after;
        let mut members: Vec<_> = population
            .present
            .iter()
            .filter_map(|id| {
                let presence = self.admitted(id)?.presence.as_deref()?;
                Some((self.heard(id)?, presence))
            })
            .filter(|(heard, p)| fresh(*heard) && p.site.as_ref() == Some(site) && !p.leaving)
            .map(|(heard, p)| (heard.boot, p))
            .collect();
        members.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.contact.node.cmp(&b.1.contact.node)));
        members
            .into_iter()
            .take(MEMBERS_HANDED_MAX)
            .map(|(_, p)| p.clone())
            .collect()
    }
}

fn later(one: Option<Now>, other: Now) -> Option<Now> {
    match one {
        Some(held) if held.boot >= other.boot => Some(held),
        _ => Some(other),
    }
}
