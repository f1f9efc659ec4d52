//! The swarm: which bytes a node fetches, from whom, and when.
//!
//! A journey through the rooms: [`Swarm::want`] makes a `stage::Staging`, which at every pass says
//! what it needs (`form` chooses between carrier and plain pieces). `talk` spreads who wants and
//! who has what; `lan` asks peers for what they hold (`pick`: rarest first), `wan` brings the
//! rest into the site once (`owners`: fetchers, claims, leases). `answers` takes in what came of
//! it. Every input ends in one pass over everything, which draws its conclusions anew from what is
//! known: there is little state to get out of step, and whoever waits for a time says so at each pass.

use std::collections::BTreeMap;

use protocol::index::CheckedIndex;
use protocol::limits::{MEMBERS_MAX, SWARM_BLOBS_MAX};
use protocol::manifest::Artifact;
use protocol::pieces::PieceSet;
use protocol::wire::{Claim, Class, Contact, Notice};
use protocol::{BlobRef, Hash, NodeId, Now, SiteId, Time};

use crate::contract::{
    Action, Event, Failure, FetchOutcome, FetchReason, FrameMap, FrameOutcome, Grain, NodeRole,
    Tempo, Ticket,
};

mod answers;
mod blob;
mod desk;
mod flights;
mod form;
mod holders;
mod lan;
mod owners;
mod pick;
mod site;
mod stage;
mod talk;
#[cfg(test)]
mod tests;
mod trouble;
mod wan;

use blob::{Blob, Files, Need};
use desk::Desk;
use stage::{End, Staging};
use talk::Strangers;

/// The swarm of one node.
///
/// Inputs: [`Swarm::set_site`], [`Swarm::set_members`], [`Swarm::set_origins`],
/// [`Swarm::set_roaming`] say who is around, [`Swarm::want`] and [`Swarm::unwant`] what is needed,
/// [`Swarm::handle`] what peers said and what came of actions, [`Swarm::handle_timeout`] that the
/// time of [`Swarm::poll_timeout`] has come. Outputs: [`Swarm::poll_output`] until it is `None`,
/// after every input. Only [`Now::boot`] drives timers. Tickets of the swarm have their top bit
/// set ([`Swarm::owns`]), so whoever composes it can route answers.
pub struct Swarm {
    role: NodeRole,
    desk: Desk,
    blobs: BTreeMap<BlobRef, Blob>,
    stagings: BTreeMap<Hash, Staging>,
    strangers: Strangers,
    wants: u64,
    passed: Time,
}

/// A member of the site, as the node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Where it is reached.
    pub contact: Contact,
    /// It owns nothing and serves nobody.
    pub roaming: bool,
}

/// A release to be staged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Want {
    /// Digest of the release.
    pub release: Hash,
    /// The release's contents for this platform.
    pub artifact: Artifact,
    /// How urgent.
    pub class: Class,
    /// Index and pack of releases on this disk that may have chunks of it.
    pub donors: Vec<(BlobRef, BlobRef)>,
}

/// What the swarm is told: the part of [`Event`] that concerns it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A fetcher's claim, gossiped in the site.
    Claim(Claim),
    /// A notice of a peer.
    Notice(NodeId, Notice),
    /// See [`Event::BlobOpened`].
    BlobOpened(Ticket, Option<PieceSet>),
    /// See [`Event::FetchProgress`].
    FetchProgress(Ticket, u64),
    /// See [`Event::FetchEnded`].
    FetchEnded(Ticket, FetchOutcome),
    /// See [`Event::IndexRead`].
    IndexRead(Ticket, Option<std::sync::Arc<CheckedIndex>>),
    /// See [`Event::Reused`].
    Reused(Ticket, PieceSet, u64),
    /// See [`Event::FramesRead`].
    FramesRead(Ticket, Option<FrameMap>),
    /// See [`Event::FrameDecoded`].
    FrameDecoded(Ticket, FrameOutcome),
    /// Somebody else decided that this peer is not to be talked to any more.
    PeerBanned(NodeId),
}

impl Input {
    /// The part of an event that concerns the swarm; `None` if it does not.
    pub fn of(event: Event) -> Option<Input> {
        Some(match event {
            Event::Claim(claim) => Input::Claim(claim),
            Event::Notice(from, notice) => Input::Notice(from, notice),
            Event::BlobOpened { ticket, have } => Input::BlobOpened(ticket, have),
            Event::FetchProgress { ticket, bytes } => Input::FetchProgress(ticket, bytes),
            Event::FetchEnded { ticket, outcome } => Input::FetchEnded(ticket, outcome),
            Event::IndexRead { ticket, index } => Input::IndexRead(ticket, index),
            Event::Reused {
                ticket,
                have,
                bytes,
            } => Input::Reused(ticket, have, bytes),
            Event::FramesRead { ticket, frames } => Input::FramesRead(ticket, frames),
            Event::FrameDecoded { ticket, outcome } => Input::FrameDecoded(ticket, outcome),
            _ => return None,
        })
    }
}

/// What the swarm has to say.
// Nearly every output is an action, and each is moved twice: a box would only cost.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// For the body, in order.
    Action(Action),
    /// Every byte of this release is on disk and verified.
    Staged(Hash),
    /// This release cannot be staged: for good, or (if the failure is retryable) for now; then the
    /// swarm goes on trying.
    Failed(Hash, Failure),
    /// Bytes of this release came in.
    Progress {
        /// Digest of the release.
        release: Hash,
        /// Where it stands.
        progress: Progress,
    },
}

/// How far the staging of a release is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Payload bytes still to come before it is staged, in the form chosen now.
    pub missing_bytes: u64,
    /// Payload bytes that came, by reason.
    pub bytes: BTreeMap<FetchReason, u64>,
}

impl Swarm {
    /// The swarm of node `me`. An [`NodeRole::Origin`] wants nothing. `seed` breaks ties.
    pub fn new(me: NodeId, role: NodeRole, tempo: Tempo, grain: Grain, seed: u64) -> Swarm {
        Swarm {
            role,
            desk: Desk::new(me, tempo, grain, seed),
            blobs: BTreeMap::new(),
            stagings: BTreeMap::new(),
            strangers: Strangers::default(),
            wants: 0,
            passed: Time(0),
        }
    }

    /// Whether an answer with this ticket is for the swarm.
    pub fn owns(ticket: Ticket) -> bool {
        ticket.0 >> 63 == 1
    }

    /// The site that the node counts itself to, and its WAN cap in bytes a second, if it has one.
    /// In another site nothing is known of anybody.
    pub fn set_site(&mut self, now: Now, site: Option<(SiteId, Option<u64>)>) {
        let (id, cap) = site.map_or((None, None), |(id, cap)| (Some(id), cap));
        if (&id, cap) == (&self.desk.site.id, self.desk.site.cap) {
            return;
        }
        self.desk.site.cap = cap;
        if id != self.desk.site.id {
            self.desk.site.id = id;
            self.desk.site.since = now.boot;
            self.take_members(now.boot, BTreeMap::new());
        }
        self.view_changed();
        self.pass(now.boot);
    }

    /// Whether it is known who is in the site; as long as it is not, nothing is brought over the WAN.
    pub fn set_site_known(&mut self, now: Now, known: bool) {
        self.desk.site.since = if known { now.boot } else { Time::MAX };
        self.pass(now.boot);
    }

    /// The site's members without this node. Those who are missing are gone. Without a site there
    /// are none.
    pub fn set_members(&mut self, now: Now, members: &BTreeMap<NodeId, Member>) {
        let mut new = BTreeMap::new();
        if self.desk.site.id.is_some() {
            let others = members.iter().filter(|(node, _)| **node != self.desk.me());
            new.extend(
                others
                    .take(MEMBERS_MAX)
                    .map(|(node, member)| (*node, member.clone())),
            );
        }
        if new != self.desk.site.members {
            self.take_members(now.boot, new);
            self.pass(now.boot);
        }
    }

    /// Where every blob can be had over the WAN.
    pub fn set_origins(&mut self, now: Now, origins: Vec<Contact>) {
        if self.desk.site.origins != origins {
            self.desk.site.origins = origins;
            self.pass(now.boot);
        }
    }

    /// On battery, metered or VPN links the node owns nothing and serves nobody.
    pub fn set_roaming(&mut self, now: Now, roaming: bool) {
        if self.desk.site.roaming != roaming {
            self.desk.site.roaming = roaming;
            self.view_changed();
            self.pass(now.boot);
        }
    }

    /// Stage this release, and keep it to serve the site until [`Swarm::unwant`]. Idempotent; the
    /// class of a release may rise. A release that is on disk already is staged after a look: want
    /// it again after a restart, or the site cannot have it from this node.
    pub fn want(&mut self, now: Now, want: Want) {
        if self.role == NodeRole::Origin {
            return;
        }
        if let Some(staging) = self.stagings.get_mut(&want.release) {
            staging.want.class = staging.want.class.max(want.class);
        } else {
            for name in stage::blobs_of(&want.artifact) {
                self.track(name);
            }
            self.wants += 1;
            self.stagings
                .insert(want.release, Staging::new(want, self.wants));
        }
        self.pass(now.boot);
    }

    /// This release is not needed any more. With `keep` its files stay and are served on; without,
    /// blobs that no other release needs are dropped.
    pub fn unwant(&mut self, now: Now, release: Hash, keep: bool) {
        let Some(staging) = self.stagings.remove(&release) else {
            return;
        };
        self.pass(now.boot);
        for name in stage::blobs_of(&staging.want.artifact) {
            if !keep && !self.is_needed(&name) && self.blobs.remove(&name).is_some() {
                self.desk.flights.forget(name);
                self.desk.act(Action::DropBlob(name));
            }
        }
    }

    /// A peer spoke, or an action was answered. Answers to what nobody asks any more are nothing.
    pub fn handle(&mut self, now: Now, input: Input) {
        // Bytes come often and change few conclusions: those wait for the next beat.
        let beat = self.passed + self.desk.tempo.have;
        let can_wait = matches!(input, Input::FetchProgress(..)) && now.boot < beat;
        self.take(now.boot, input);
        if can_wait {
            self.desk.wake_at(beat);
        } else {
            self.pass(now.boot);
        }
    }

    /// The time of [`Swarm::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.pass(now.boot);
    }

    /// The next thing to do or to know, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.desk.outputs.pop_front()
    }

    /// The boot time at which [`Swarm::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.desk.wake()
    }

    /// How far a release is; `None` if it is not wanted.
    pub fn progress(&self, release: &Hash) -> Option<Progress> {
        self.stagings
            .get(release)
            .map(|staging| staging.progress(&self.blobs))
    }

    // ---- the pass ----------------------------------------------------------------------------

    /// Draws every conclusion from what is known now. The most urgent release comes first, then the
    /// one wanted first; of one release, the index.
    fn pass(&mut self, now: Time) {
        self.passed = now;
        let Swarm {
            desk,
            blobs,
            stagings,
            ..
        } = self;
        desk.forget_wake();
        reopen(desk, now, blobs);
        let mut queue: Vec<&mut Staging> = stagings.values_mut().collect();
        queue.sort_by_key(|staging| (core::cmp::Reverse(staging.want.class), staging.order));
        let mut order = Vec::new();
        let mut needs: BTreeMap<BlobRef, Need> = BTreeMap::new();
        for staging in &mut queue {
            staging.advance(desk, now, blobs);
            for (name, need) in staging.needs(desk, now, blobs) {
                match needs.entry(name) {
                    std::collections::btree_map::Entry::Vacant(empty) => drop(empty.insert(need)),
                    std::collections::btree_map::Entry::Occupied(mut other) => {
                        other.get_mut().join(need)
                    }
                }
                order.push(name);
            }
        }
        for blob in blobs.values_mut() {
            blob.take_need(desk, needs.remove(&blob.name));
        }
        for name in order {
            if let Some(blob) = blobs.get_mut(&name) {
                talk::introduce(desk, now, blob);
                lan::pass(desk, now, blob);
                wan::pass(desk, now, blob);
            }
        }
        for blob in blobs.values_mut() {
            talk::tell(desk, now, blob);
        }
        for staging in queue.into_iter().filter(|staging| staging.end == End::Open) {
            staging.tell_progress(desk, now, blobs, false);
        }
    }

    // ---- bookkeeping -------------------------------------------------------------------------

    fn track(&mut self, name: BlobRef) {
        if self.blobs.contains_key(&name) {
            return;
        }
        if self.blobs.len() >= SWARM_BLOBS_MAX {
            let idle = self
                .blobs
                .keys()
                .find(|name| !self.is_needed(name))
                .copied();
            idle.map(|name| self.blobs.remove(&name));
        }
        let mut blob = Blob::open(&mut self.desk, name);
        blob.interested = self.strangers.take(&name);
        self.blobs.insert(name, blob);
    }

    /// Whether a wanted release consists of it or may yet copy from it.
    fn is_needed(&self, name: &BlobRef) -> bool {
        self.stagings.values().any(|staging| {
            let donor = |(index, pack): &(BlobRef, BlobRef)| index == name || pack == name;
            stage::blobs_of(&staging.want.artifact).contains(name)
                || staging.end == End::Open && staging.want.donors.iter().any(donor)
        })
    }

    fn view_changed(&mut self) {
        for blob in self.blobs.values_mut() {
            blob.near = None;
            blob.owners.view_changed();
        }
    }

    fn take_members(&mut self, now: Time, members: BTreeMap<NodeId, Member>) {
        let before = std::mem::replace(&mut self.desk.site.members, members);
        self.view_changed();
        for node in before.keys() {
            if !self.desk.site.serves(node) {
                self.forget_source(node);
            }
            if !self.desk.site.members.contains_key(node) {
                self.strangers.forget(node);
                self.desk.trouble.forget(*node);
                for blob in self.blobs.values_mut() {
                    blob.asked.remove(node);
                    blob.interested.remove(node);
                }
            }
        }
        let new: Vec<NodeId> = self
            .desk
            .site
            .members
            .keys()
            .filter(|node| !before.contains_key(node))
            .copied()
            .collect();
        for blob in self.blobs.values_mut() {
            for node in new
                .iter()
                .filter(|node| blob.interested.contains(node))
                .copied()
                .collect::<Vec<_>>()
            {
                talk::meet(&mut self.desk, now, blob, node);
            }
        }
    }

    /// Nothing comes from this node any more.
    fn forget_source(&mut self, node: &NodeId) {
        for blob in self.blobs.values_mut() {
            blob.holders.forget(node);
            blob.owners.gone(node);
        }
        self.desk
            .cancel(|flight| flight.from == *node && !flight.wan);
    }
}

/// Files that could not be opened are tried again, slowly.
fn reopen(desk: &mut Desk, now: Time, blobs: &mut BTreeMap<BlobRef, Blob>) {
    for blob in blobs.values_mut() {
        match blob.files {
            Files::Failed(until) if until <= now => {
                let ticket = desk.ticket();
                blob.files = Files::Opening(ticket);
                desk.act(Action::OpenBlob {
                    ticket,
                    blob: blob.name,
                });
            }
            Files::Failed(until) => desk.wake_at(until),
            Files::Opening(_) | Files::Open => {}
        }
    }
}
