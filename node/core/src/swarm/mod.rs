//! The swarm: which bytes a node fetches, from whom, and when.

use std::collections::{BTreeMap, VecDeque};

use protocol::index::CheckedIndex;
use protocol::manifest::Artifact;
use protocol::pieces::PieceSet;
use protocol::wire::{Claim, Class, Contact, Notice};
use protocol::{BlobRef, Hash, NodeId, Now, SiteId, Time};

use crate::contract::{
    Action, Event, Failure, FetchOutcome, FetchReason, FrameMap, NodeRole, Tempo, Ticket,
};

/// The swarm of one node.
///
/// Inputs: [`Swarm::set_site`], [`Swarm::set_members`], [`Swarm::set_origins`],
/// [`Swarm::set_roaming`] say who is around, [`Swarm::want`] and [`Swarm::unwant`] what is needed,
/// [`Swarm::handle`] what peers said and what came of actions, [`Swarm::handle_timeout`] that the
/// time of [`Swarm::poll_timeout`] has come. Outputs: [`Swarm::poll_output`] until it is `None`,
/// after every input. Only [`Now::boot`] drives timers. Tickets of the swarm have their top bit
/// set ([`Swarm::owns`]), so whoever composes it can route answers.
pub struct Swarm {
    outputs: VecDeque<Output>,
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
    FrameDecoded(Ticket, bool),
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
            Event::FrameDecoded { ticket, ok } => Input::FrameDecoded(ticket, ok),
            _ => return None,
        })
    }
}

/// What the swarm has to say.
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
    #[allow(unused_variables)]
    pub fn new(me: NodeId, role: NodeRole, tempo: Tempo, seed: u64) -> Swarm {
        Swarm {
            outputs: VecDeque::new(),
        }
    }

    /// Whether an answer with this ticket is for the swarm.
    pub fn owns(ticket: Ticket) -> bool {
        ticket.0 >> 63 == 1
    }

    /// The site that the node counts itself to, and its WAN cap in bytes a second, if it has one.
    #[allow(unused_variables)]
    pub fn set_site(&mut self, now: Now, site: Option<(SiteId, Option<u64>)>) {}

    /// The site's members without this node. Those who are missing are gone.
    #[allow(unused_variables)]
    pub fn set_members(&mut self, now: Now, members: &BTreeMap<NodeId, Member>) {}

    /// Where every blob can be had over the WAN.
    #[allow(unused_variables)]
    pub fn set_origins(&mut self, now: Now, origins: Vec<Contact>) {}

    /// On battery, metered or VPN links the node owns nothing.
    #[allow(unused_variables)]
    pub fn set_roaming(&mut self, now: Now, roaming: bool) {}

    /// Stage this release, and keep it to serve the site until [`Swarm::unwant`]. Idempotent; the
    /// class of a release may rise. A release that is on disk already is staged after a look.
    #[allow(unused_variables)]
    pub fn want(&mut self, now: Now, want: Want) {}

    /// This release is not needed any more. With `keep` its files stay and are served on; without,
    /// blobs that no other release needs are dropped.
    #[allow(unused_variables)]
    pub fn unwant(&mut self, now: Now, release: Hash, keep: bool) {}

    /// A peer spoke, or an action was answered.
    #[allow(unused_variables)]
    pub fn handle(&mut self, now: Now, input: Input) {}

    /// The time of [`Swarm::poll_timeout`] has come.
    #[allow(unused_variables)]
    pub fn handle_timeout(&mut self, now: Now) {}

    /// The next thing to do or to know, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The boot time at which [`Swarm::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// How far a release is; `None` if it is not wanted.
    #[allow(unused_variables)]
    pub fn progress(&self, release: &Hash) -> Option<Progress> {
        None
    }
}
