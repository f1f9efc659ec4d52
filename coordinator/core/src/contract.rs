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
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Mark, Order, OrderBody};
use protocol::plan::{Proposal, Recall, RolloutPlan};
use protocol::status::{NodeStatus, SignedStatus};
use protocol::topology::Topology;
use protocol::wire::{Contact, Presence};
use protocol::{FleetId, Hash, NodeId, PublicKey, RolloutId, SiteId, Span, Time, Verified};
use serde::{Deserialize, Serialize};

pub use crate::views::{
    Counts, NodeView, ReleaseView, RolloutView, SiteView, StatusView, WaveView,
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
}

/// What the body tells the brain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// An operator's command, already authenticated, its statements verified.
    Command(Ticket, Command),
    /// A node was given a certificate.
    Enrolled(Enrolled),
    /// A delegate (or a node without a site) reported. Answered by [`Action::Acknowledge`] once
    /// durable.
    Uplink(Uplink),
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

/// What operators ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A topology, newer than the one before.
    SetTopology(Verified<Topology>),
    /// A release whose blobs the origin holds.
    Publish(Verified<ReleaseManifest>),
    /// Resolve a proposal to a plan; the body has checked the proposer's signature and drawn the salt.
    Propose {
        /// The proposal.
        proposal: Box<Proposal>,
        /// Its envelope, for the ledger.
        envelope: Envelope,
        /// Drawn by the body from the system's randomness.
        salt: Hash,
    },
    /// One more operator signed the plan. `complete` holds it once the threshold is reached.
    Approve {
        /// The rollout.
        rollout: RolloutId,
        /// Who signed.
        by: PublicKey,
        /// The plan with every signature so far.
        envelope: Envelope,
        /// How many signatures count so far, and how many must.
        progress: (u32, u32),
        /// The plan, once believed.
        complete: Option<Verified<RolloutPlan>>,
    },
    /// Open the first wave.
    Start(RolloutId),
    /// No new starts until resume.
    Pause(RolloutId, String),
    /// Go on.
    Resume(RolloutId),
    /// Stop for good; what is installed stays.
    Halt(RolloutId, String),
    /// Take back what was installed, under the `plans` threshold.
    Recall(Verified<Recall>),
    /// The release does harm on a node, by the word of the help desk, a user or monitoring. It counts as
    /// that node's failure, also after a green install; once for each node.
    ReportProblem {
        /// The rollout.
        rollout: RolloutId,
        /// Where.
        node: NodeId,
        /// What, for people.
        what: String,
    },
    /// Revoke a node's certificate; the body makes the new list once this is answered.
    Revoke {
        /// The node.
        node: NodeId,
        /// Why, for people.
        reason: String,
    },
}

/// The answer to a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Done.
    Done,
    /// The plan that a proposal was resolved to; to be signed by operators.
    Plan(Box<RolloutPlan>),
    /// Approvals that count so far, and how many must.
    Approvals(u32, u32),
    /// Not done.
    Refused(CommandError),
}

/// Why a command is refused. Messages complete "failed to …".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// No such rollout.
    #[error("there is no rollout {0}; `tidegate rollout status` lists them")]
    NoRollout(RolloutId),
    /// The id is taken.
    #[error("rollout {0} exists already; propose under another id")]
    RolloutExists(RolloutId),
    /// No such release.
    #[error("release {0} was not published; `tidegate release list` lists them")]
    NoRelease(Hash),
    /// No such node.
    #[error("node {0} is not enrolled")]
    NoNode(NodeId),
    /// Not one of its targets.
    #[error("node {node} is no target of rollout {rollout}")]
    NoTarget {
        /// The rollout.
        rollout: RolloutId,
        /// The node.
        node: NodeId,
    },
    /// Not in this state.
    #[error("rollout {rollout} is {state}, and {wanted}")]
    WrongState {
        /// The rollout.
        rollout: RolloutId,
        /// Its state.
        state: String,
        /// What the command asks for, as a clause.
        wanted: &'static str,
    },
    /// A counter that does not rise.
    #[error("{what} {offered} does not follow {trusted}")]
    NotNewer {
        /// What counts.
        what: &'static str,
        /// As offered.
        offered: u64,
        /// As held.
        trusted: u64,
    },
    /// A proposal that cannot be resolved.
    #[error("the proposal cannot be resolved: {0}")]
    Unresolvable(String),
    /// A limit of the house.
    #[error("{0}")]
    Limit(String),
    /// A signature or a recall for another plan than the rollout's.
    #[error(
        "plan {offered} is not that of rollout {rollout}, which is {held}; fetch it again and sign that"
    )]
    OtherPlan {
        /// The rollout.
        rollout: RolloutId,
        /// Digest as offered.
        offered: Hash,
        /// Digest as held.
        held: Hash,
    },
    /// Signed by someone who proposed it, or twice by the same.
    #[error("key {0} signed already")]
    SignedAlready(PublicKey),
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

/// What is appended to the ledger, as JSON in [`protocol::audit::AuditEntry::body`]. A view is the
/// fold of these and of nothing else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LedgerEvent {
    /// The fleet was made; or a restored coordinator opened a new epoch for its orders.
    Epoch {
        /// The epoch of orders from here on.
        epoch: u32,
    },
    /// A node was given a certificate.
    Enrolled(Enrolled),
    /// A node's certificate was revoked.
    Revoked {
        /// The node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// A node was seen in another site than before.
    Moved {
        /// The node.
        node: NodeId,
        /// Where it is now.
        site: Option<SiteId>,
    },
    /// A root came into force.
    Rooted {
        /// As signed.
        envelope: Envelope,
    },
    /// A topology was set.
    Topology {
        /// As signed.
        envelope: Envelope,
    },
    /// A release was published.
    Released {
        /// As signed.
        envelope: Envelope,
    },
    /// A rollout was proposed and resolved.
    Proposed {
        /// The proposal, as signed.
        proposal: Envelope,
        /// What it was resolved to.
        plan: Box<RolloutPlan>,
    },
    /// An operator approved.
    Approved {
        /// The rollout.
        rollout: RolloutId,
        /// Who.
        by: PublicKey,
        /// The plan with every signature so far.
        envelope: Envelope,
        /// Whether the threshold is reached.
        complete: bool,
    },
    /// A rollout changed its state.
    State {
        /// The rollout.
        rollout: RolloutId,
        /// What it is now.
        state: RolloutState,
        /// Why, for people.
        why: String,
        /// When.
        at: Time,
    },
    /// Nodes became targets or left, after the rollout began.
    Targets {
        /// The rollout.
        rollout: RolloutId,
        /// Who joined, with the wave.
        joined: Vec<(NodeId, u32)>,
        /// Who left, and why.
        left: Vec<(NodeId, String)>,
    },
    /// A wave opened.
    WaveOpened {
        /// The rollout.
        rollout: RolloutId,
        /// The wave, counted from 0.
        wave: u32,
        /// When.
        at: Time,
    },
    /// A gate was judged, with its counts.
    Verdict {
        /// The rollout.
        rollout: RolloutId,
        /// The wave behind which the gate stands.
        wave: u32,
        /// What came of it.
        verdict: Verdict,
        /// Outcomes that were good, and bad.
        counts: (u32, u32),
        /// One sentence.
        why: String,
        /// When, wall time.
        at: Time,
    },
    /// The sequential test spoke for the release, or for a cohort of the plan, and begins anew.
    Cleared {
        /// The rollout.
        rollout: RolloutId,
        /// The cohort, as a number into the plan's list; none: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cohort: Option<u32>,
        /// Outcomes that were good, and bad, since it last did.
        counts: (u32, u32),
        /// When.
        at: Time,
    },
    /// A declared cohort failed alone. Its nodes start nothing from here on, and their outcomes count at
    /// no gate; the rest goes on.
    CohortHeld {
        /// The rollout.
        rollout: RolloutId,
        /// The cohort, as a number into the plan's list.
        cohort: u32,
        /// Outcomes that were good, and bad.
        counts: (u32, u32),
        /// One sentence.
        why: String,
        /// When.
        at: Time,
    },
    /// Someone says that the release does harm on a node, whatever the node itself says.
    Problem {
        /// The rollout.
        rollout: RolloutId,
        /// Where.
        node: NodeId,
        /// What, for people.
        what: String,
        /// When.
        at: Time,
    },
    /// An order was decided; it is signed and sent after this.
    Order(Box<Order>),
    /// A recall was accepted.
    Recalled {
        /// As signed.
        envelope: Envelope,
    },
    /// Statuses were received.
    Statuses {
        /// As signed.
        statuses: Vec<SignedStatus>,
    },
    /// Nodes went silent after a reported start.
    Silent {
        /// The rollout.
        rollout: RolloutId,
        /// Who.
        nodes: Vec<NodeId>,
    },
    /// A rollout began: everyone whom its plan concerns became a target in the plan's wave. Who that
    /// is follows from the plan and from what the ledger says so far, so they need not be named.
    Enlisted {
        /// The rollout.
        rollout: RolloutId,
        /// Enrolled nodes that are no targets: the origins of that moment.
        except: Vec<NodeId>,
        /// Targets of each wave, for people and for checkers.
        waves: Vec<u32>,
    },
}

/// What a gate says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not enough outcomes yet, or soaking.
    Wait,
    /// The next wave may open.
    Pass,
    /// The rollout halts.
    Fail,
}

/// Where a rollout stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// Proposed; approvals are missing.
    WaitingForApproval,
    /// Approved; not started.
    Ready,
    /// Waves are open.
    Running,
    /// An operator paused it.
    Paused,
    /// A gate failed; it stays so until an operator resumes, halts or recalls it.
    Held,
    /// Stopped for good.
    Aborted,
    /// Being taken back.
    Recalling,
    /// Taken back.
    Recalled,
    /// Every wave passed.
    Finished,
}
