//! The swarm: which bytes a node fetches, from whom, and when.
//!
//! A journey through the rooms: [`Swarm::want`] makes a `stage::Staging`, which says what it needs
//! (`form` chooses between carrier and plain pieces). `talk` spreads who wants and who has what; `lan`
//! asks peers for what they hold (`pick`: rarest first), `wan` brings the rest into the site once
//! (`owners`: fetchers, claims, leases). `answers` takes in what came of it. Every input ends in a pass that gives a turn to those rooms whose conclusions it may have
//! changed (`turns`). A room draws its conclusions anew from what is known, so there is little state to
//! get out of step; whoever waits for a time says so at each of its turns.

use std::collections::BTreeMap;
use std::sync::Arc;

use litemap::LiteMap;
use protocol::index::CheckedIndex;
use protocol::limits::SWARM_BLOBS_MAX;
use protocol::manifest::Artifact;
use protocol::pieces::PieceSet;
use protocol::wire::{Claim, Class, Contact, Notice, Referral};
use protocol::{BlobRef, Hash, NodeId, Now, Span, Time};

use crate::contract::{
    Action, Event, Failure, FetchOutcome, FetchReason, FrameMap, FrameOutcome, Grain, NodeRole,
    OnDisk, Tempo, Ticket,
};

mod answers;
mod around;
mod blob;
mod desk;
mod flights;
mod form;
mod holders;
mod lan;
mod news;
mod orphans;
mod owners;
mod pick;
mod siblings;
mod site;
mod stage;
mod standing;
mod talk;
#[cfg(test)]
mod tests;
mod trouble;
mod turns;
mod wan;

use blob::{Blob, Files, Need};
use desk::Desk;
pub use site::Member;
use stage::{End, Staging};
use talk::Strangers;

/// Rounds of a pass: content that comes in may have another release look, whose wish gives rooms
/// their turn. What is left after so many comes with the next input.
const ROUNDS_MAX: usize = 4;
/// Progress is told after so many beats of the haves.
const PROGRESS_BEATS: u64 = 5;

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
    blobs: BTreeMap<BlobRef, Box<Blob>>,
    stagings: BTreeMap<Hash, Box<Staging>>,
    strangers: Strangers,
    wants: u64,
    /// Wanted blobs, the most urgent first.
    order: Vec<BlobRef>,
    /// When a release wants to be looked at though nothing changed.
    stages_wake: Option<Time>,
    /// Bytes came that nobody was told of, and when somebody may be.
    progressed: bool,
    tell_at: Time,
    wake: Option<Time>,
    /// Every room takes its turn at every pass: slow and obvious, to compare with.
    #[cfg(test)]
    obvious: bool,
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
    BlobOpened(Ticket, Option<OnDisk>),
    /// See [`Event::FetchProgress`].
    FetchProgress(Ticket, u64),
    /// See [`Event::FetchEnded`].
    FetchEnded(Ticket, FetchOutcome),
    /// See [`Event::FetchReferred`].
    FetchReferred(Ticket, Box<Referral>),
    /// See [`Event::IndexRead`].
    IndexRead(Ticket, Option<Arc<CheckedIndex>>),
    /// See [`Event::Reused`].
    Reused(Ticket, PieceSet, u64),
    /// See [`Event::FramesRead`].
    FramesRead(Ticket, Option<Arc<FrameMap>>),
    /// See [`Event::FrameDecoded`].
    FrameDecoded(Ticket, FrameOutcome),
    /// Somebody else decided that this peer is no source any more.
    PeerBanned(NodeId),
}

impl Input {
    /// The part of an event that concerns the swarm; `None` if it does not.
    pub fn of(event: Event) -> Option<Input> {
        Some(match event {
            Event::Claim(claim) => Input::Claim(claim),
            Event::Notice(from, notice) => Input::Notice(from, notice),
            Event::BlobOpened { ticket, found } => Input::BlobOpened(ticket, found),
            Event::FetchProgress { ticket, bytes } => Input::FetchProgress(ticket, bytes),
            Event::FetchEnded { ticket, outcome } => Input::FetchEnded(ticket, outcome),
            Event::FetchReferred { ticket, referral } => Input::FetchReferred(ticket, referral),
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
    /// This release cannot be staged: for good, or (if the failure is not of the release) for now; then the
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
            order: Vec::new(),
            stages_wake: None,
            progressed: false,
            tell_at: Time(0),
            wake: None,
            #[cfg(test)]
            obvious: false,
        }
    }

    /// Whether an answer with this ticket is for the swarm.
    pub fn owns(ticket: Ticket) -> bool {
        ticket.0 >> 63 == 1
    }

    /// Whether it is known who is in the site; as long as it is not, nothing is brought over the WAN.
    pub fn set_site_known(&mut self, now: Now, known: bool) {
        self.desk.site.since = if known { now.boot } else { Time::MAX };
        // Who is alone in its site hears of nobody who would give the rooms a turn.
        self.look_anew();
        self.pass(now.boot);
    }

    /// Where every blob can be had over the WAN.
    pub fn set_origins(&mut self, now: Now, origins: Vec<Contact>) {
        if self.desk.site.origins != origins {
            self.desk.site.origins = origins;
            self.look_anew();
            self.pass(now.boot);
        }
    }

    /// On battery, metered or VPN links the node owns nothing and serves nobody.
    pub fn set_roaming(&mut self, now: Now, roaming: bool) {
        if self.desk.site.roaming != roaming {
            self.desk.site.roaming = roaming;
            self.look_anew();
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
                self.track(now.boot, name);
            }
            self.wants += 1;
            let release = want.release;
            let staging = Box::new(Staging::new(want, self.wants));
            self.stagings.insert(release, staging);
        }
        self.desk.content_changed = true;
        self.pass(now.boot);
    }

    /// This release is not needed any more. With `keep` its files stay and are served on; without,
    /// blobs that no other release needs are dropped.
    pub fn unwant(&mut self, now: Now, release: Hash, keep: bool) {
        let Some(staging) = self.stagings.remove(&release) else {
            return;
        };
        self.desk.content_changed = true;
        self.pass(now.boot);
        for name in stage::blobs_of(&staging.want.artifact) {
            if !keep && !self.is_needed(&name) && self.blobs.remove(&name).is_some() {
                self.desk.flights.forget(name);
                self.desk.act(Action::DropBlob(name));
            }
        }
        self.pass(now.boot);
    }

    /// A peer spoke, or an action was answered. Answers to what nobody asks any more are nothing.
    pub fn handle(&mut self, now: Now, input: Input) {
        // Bytes come often and change nothing but a display.
        let only_bytes = matches!(input, Input::FetchProgress(..));
        self.take(now.boot, input);
        if only_bytes {
            self.sleep();
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
        crate::outbox::next(&mut self.desk.outputs)
    }

    /// The boot time at which [`Swarm::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.wake
    }

    /// How far a release is; `None` if it is not wanted.
    pub fn progress(&self, release: &Hash) -> Option<Progress> {
        self.stagings
            .get(release)
            .map(|staging| staging.progress(&self.blobs))
    }

    // ---- the pass ----------------------------------------------------------------------------

    /// Draws the conclusions that what happened may have changed. The most urgent release comes first,
    /// then the one wanted first; of one release, the index.
    fn pass(&mut self, now: Time) {
        #[cfg(test)]
        if self.obvious {
            self.desk.content_changed = true;
            self.blobs.values_mut().for_each(|blob| blob.turns.all());
        }
        let Swarm { desk, blobs, .. } = self;
        if std::mem::take(&mut desk.room_made) {
            for name in &self.order {
                if let Some(blob) = blobs.get_mut(name) {
                    (blob.turns.lan.due, blob.turns.wan.due) = (true, true);
                }
            }
        }
        // What a room does may give another one its turn: content that comes in, a new fetcher.
        let mut rounds = 0;
        while self.is_restless(now) {
            if rounds == ROUNDS_MAX {
                self.stages_wake = Some(now + Span(1));
                break;
            }
            rounds += 1;
            let stages_due = self.stages_wake.is_some_and(|wake| wake <= now);
            if self.desk.content_changed || stages_due {
                self.advance(now);
            }
            self.give_turns(now);
        }
        self.tell_progress(now);
        self.sleep();
    }

    fn is_restless(&self, now: Time) -> bool {
        let wake = |wake: Option<Time>| wake.is_some_and(|wake| wake <= now);
        let restless = |blob: &Blob| blob.turns.is_due(now);
        self.desk.content_changed
            || wake(self.stages_wake)
            || self.blobs.values().any(|blob| {
                if blob.need.is_some() {
                    restless(blob)
                } else {
                    blob.turns.open.has_come(now) || blob.turns.tell.has_come(now)
                }
            })
    }

    /// What the releases need now.
    fn advance(&mut self, now: Time) {
        let Swarm {
            desk,
            blobs,
            stagings,
            ..
        } = self;
        desk.content_changed = false;
        desk.take_wake();
        let mut queue: Vec<&mut Staging> = stagings.values_mut().map(Box::as_mut).collect();
        queue.sort_by_key(|staging| (core::cmp::Reverse(staging.want.class), staging.order));
        self.order.clear();
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
                if !self.order.contains(&name) {
                    self.order.push(name);
                }
            }
        }
        for blob in blobs.values_mut() {
            blob.take_need(desk, needs.remove(&blob.name));
        }
        self.stages_wake = desk.take_wake();
        self.progressed = true;
    }

    /// Every room whose turn has come.
    fn give_turns(&mut self, now: Time) {
        let Swarm { desk, blobs, .. } = self;
        for name in &self.order {
            if let Some(blob) = blobs.get_mut(name) {
                give_turn(desk, now, blob, |t| &mut t.introduce, talk::introduce);
                give_turn(desk, now, blob, |t| &mut t.lan, lan::pass);
                give_turn(desk, now, blob, |t| &mut t.wan, wan::pass);
            }
        }
        for blob in blobs.values_mut() {
            give_turn(desk, now, blob, |t| &mut t.open, reopen);
            give_turn(desk, now, blob, |t| &mut t.tell, talk::tell);
        }
    }

    /// Progress is told a few times a second at most.
    fn tell_progress(&mut self, now: Time) {
        if !self.progressed || now < self.tell_at {
            return;
        }
        self.progressed = false;
        self.tell_at = now + Span(self.desk.tempo.have.0 * PROGRESS_BEATS);
        for staging in self.stagings.values_mut() {
            if staging.end == End::Open {
                staging.tell_progress(&mut self.desk, &self.blobs);
            }
        }
    }

    fn sleep(&mut self) {
        let mut stagings = self.stagings.values();
        let told = self.progressed && stagings.any(|staging| staging.end == End::Open);
        let turns = self.blobs.values().filter_map(|blob| blob.turns.wake());
        self.wake = turns
            .chain(self.stages_wake)
            .chain(told.then_some(self.tell_at))
            .min();
    }

    // ---- bookkeeping -------------------------------------------------------------------------

    fn track(&mut self, now: Time, name: BlobRef) {
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
        for claim in self.strangers.take_claims(now, &name.root) {
            talk::hear_claim(&mut self.desk, now, &mut blob, &claim);
        }
        self.blobs.insert(name, Box::new(blob));
    }

    /// Whether a wanted release consists of it or may yet copy from it.
    fn is_needed(&self, name: &BlobRef) -> bool {
        self.stagings.values().any(|staging| {
            let donor = |(index, pack): &(BlobRef, BlobRef)| index == name || pack == name;
            stage::blobs_of(&staging.want.artifact).contains(name)
                || staging.end == End::Open && staging.want.donors.iter().any(donor)
        })
    }

    /// Who is around changed, or what may be asked of them.
    fn look_anew(&mut self) {
        for blob in self.blobs.values_mut() {
            blob.near = None;
            blob.owners.view_changed();
            blob.count_flying(&self.desk);
            blob.turns.all();
        }
        self.desk.content_changed = true;
    }

    fn take_members(&mut self, now: Time, members: LiteMap<NodeId, Member>) {
        let before = std::mem::replace(&mut self.desk.site.members, members);
        for node in before.keys() {
            if !self.desk.site.serves(node) {
                self.forget_source(now, node);
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
                talk::meet(&mut self.desk, now, blob, node, true);
            }
        }
        self.look_anew();
    }

    /// Nothing comes from this node any more.
    fn forget_source(&mut self, now: Time, node: &NodeId) {
        for blob in self.blobs.values_mut() {
            let mut only_there = blob.holders.any().clone();
            blob.holders.forget(node);
            only_there.subtract(blob.holders.any());
            only_there.subtract(&blob.have);
            blob.owners.gone(now, node, only_there.iter());
        }
        self.desk
            .cancel(|flight| flight.from == *node && !flight.wan);
    }
}

/// Gives a room its turn, if that has come.
fn give_turn(
    desk: &mut Desk,
    now: Time,
    blob: &mut Blob,
    of: impl Fn(&mut turns::Turns) -> &mut turns::Turn,
    room: impl FnOnce(&mut Desk, Time, &mut Blob),
) {
    let turn = of(&mut blob.turns);
    if !turn.has_come(now) {
        return;
    }
    *turn = turns::Turn::default();
    desk.take_wake();
    room(desk, now, blob);
    of(&mut blob.turns).wake = desk.take_wake();
}

/// Files that could not be opened are tried again, slowly.
fn reopen(desk: &mut Desk, now: Time, blob: &mut Blob) {
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
