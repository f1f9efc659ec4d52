//! What crosses the wall between the conductor's brain and its body.
//!
//! Rules of the wall:
//! - Actions are performed in order; [`Action::Append`] is durable in the ledger before the action
//!   after it is begun. The brain has applied an event to its own view before it asks for the append.
//! - Every command's ticket is answered by exactly one [`Action::Answer`].
//! - At a start the body makes an empty conductor and calls `replay` with every ledger event in
//!   order, then `resume(now)`, which renews what must be renewed.
//! - Signing is the body's: the brain decides an [`Order`], the body signs it with the online key.

use core::net::IpAddr;
use std::collections::BTreeMap;

use protocol::envelope::Envelope;
use protocol::feed::{Roster, Stages};
use protocol::inventory::NodeInventory;
use protocol::orders::{Mark, Order, OrderBody};
use protocol::status::NodeStatus;
use protocol::wire::{Contact, Presence};
use protocol::witness::WitnessWord;
use protocol::{FleetId, Hash, NodeId, SiteId, Span, Verified};
use serde::{Deserialize, Serialize};

mod command;
mod ledger;
mod testimony;
mod tokens;

use crate::timeframes::TimeFrames;

pub use self::command::{Answer, Command, CommandError};
pub use self::ledger::{ByHand, LedgerEvent, RolloutState, Verdict};
pub use self::testimony::Testimony;
pub use self::tokens::{TokenMade, TokenTerms};
pub use crate::views::{
    AssessmentView, Counts, NeedCounts, NodeView, ReleaseView, RolloutView, SiteView, StatusView,
    WaveView,
};

/// Ties an answer to its command or uplink.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// What the brain is told once, at its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The fleet.
    pub fleet: FleetId,
    /// Nodes that hold every blob from the start.
    pub origins: Vec<Contact>,
    /// Where delegates report.
    pub coordinators: Vec<Contact>,
    /// The newest root version.
    pub root_version: u64,
    /// A node unheard of for so long counts as unreachable.
    pub unreachable_after: Span,
    /// A bulletin's life.
    pub bulletin_life: Span,
    /// Keys of the `plans` role that must sign a plan, for listings; the body counts them.
    pub plans_threshold: u32,
    /// By when rollouts are to be through.
    pub time_frames: TimeFrames,
    /// All rollouts together start on no more nodes in a UTC day, but for emergencies; none: no cap.
    pub starts_per_day: Option<u32>,
}

/// What the body tells the brain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// An operator's command, already authenticated, its statements verified.
    Command(Ticket, Command),
    /// A node was given a certificate.
    Enrolled(Enrolled),
    /// An enrolment token was made.
    TokenMade(TokenMade),
    /// An operator lets a machine in that waits.
    Admitted {
        /// Its key.
        node: NodeId,
        /// Who does, by the name of the API token that he showed.
        by: String,
        /// The tokens with which it waits.
        tokens: Vec<String>,
    },
    /// A node was given its next certificate.
    Renewed {
        /// The node.
        node: NodeId,
        /// Serial number of the certificate, hex.
        serial: String,
    },
    /// A delegate (or a node without a site) reported. Answered by [`Action::Acknowledge`] once
    /// durable.
    Uplink(Uplink),
    /// A node told what it says of itself.
    Inventory(Verified<NodeInventory>),
    /// A member of a site said whom of it it does not see.
    Witnessed(Verified<WitnessWord>),
    /// A node asked who is in its site.
    Located(Presence),
    /// A node without a topology asked who nearby may have it; see [`crate::Conductor::guides`].
    Newcomer {
        /// The node.
        me: Presence,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// A new root is in force, its chain verified.
    Root {
        /// Its version.
        version: u64,
        /// Operators that must approve a plan beside its proposer.
        plans_threshold: u32,
        /// As signed.
        envelope: Envelope,
    },
    /// The ledger's head after the last append.
    LedgerHead {
        /// Hash of the last entry.
        head: Hash,
        /// Entries up to it.
        entries: u64,
    },
    /// A new certificate revocation list with this digest is in force.
    Revocations(Hash),
    /// A node told what it has that a restored ledger does not.
    Testimony(Box<Testimony>),
}

/// What a delegate (or a node without a site) reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// Names the answer.
    pub ticket: Ticket,
    /// Who carries it.
    pub from: NodeId,
    /// What it says of itself, if it does.
    pub me: Option<Presence>,
    /// Who is in its site, if it carries the site's feed.
    pub roster: Option<Roster>,
    /// The statuses, as signed.
    pub statuses: Vec<Verified<NodeStatus>>,
    /// What the site's nodes are at.
    pub stages: Option<Verified<Stages>>,
}

/// A node was given a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Enrolled {
    /// The node.
    pub node: NodeId,
    /// For people.
    pub hostname: String,
    /// Operating system.
    pub os: String,
    /// Architecture.
    pub arch: String,
    /// Labels as the installer set them.
    pub labels: BTreeMap<String, String>,
    /// The site that the token was made for; what the node itself reports later wins.
    pub site: Option<SiteId>,
    /// Serial number of the certificate, hex.
    pub serial: String,
    /// The token that was used.
    pub token: String,
}

/// What the body does for the brain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Append to the ledger, durably, before the next action.
    Append(LedgerEvent),
    /// Sign it with the online key, keep it, push it to the delegates that are connected: to all if
    /// [`goes_to_all`], else to those that carry their site's feed.
    Issue(Order),
    /// Answer an uplink: these registers are durable.
    Acknowledge {
        /// The uplink.
        ticket: Ticket,
        /// The watermarks.
        marks: Vec<Mark>,
        /// False if who reported or its site's members have to be told anew.
        known: bool,
    },
    /// Answer a command.
    Answer(Ticket, Answer),
    /// An event for the log and the live view.
    Note {
        /// Short name, e.g. `wave_opened`.
        event: &'static str,
        /// One line.
        line: String,
    },
}

/// Whether an order is pushed to every delegate: what stops or takes back must find its way, whoever is
/// down. All others reach the second delegate inside its site.
pub fn goes_to_all(order: &Order) -> bool {
    match order.body {
        OrderBody::Halt { .. } | OrderBody::Recall { .. } => true,
        OrderBody::GoLease { .. } | OrderBody::Resume { .. } | OrderBody::Bulletin(_) => false,
    }
}
