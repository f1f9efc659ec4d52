//! What crosses the API, as JSON. Statements cross as envelopes; views are the conductor's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use protocol::enroll::Token;
use protocol::envelope::Envelope;
use protocol::foreign::Judged;
use protocol::plan::Proposal;
use protocol::{FleetId, Hash, NodeId, RolloutId, SiteId, Span, Time};
use serde::{Deserialize, Serialize};

use super::access::Role;

pub use coordinator_core::contract::{
    AssessmentView, Counts, NeedCounts, NodeView, RolloutState, RolloutView, StatusView,
    TokenTerms, WaveView,
};
pub use coordinator_core::forecast::{Forecast, Question};
pub use coordinator_core::review::Review;

/// An error, as the server tells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// One line.
    pub error: String,
}

/// The coordinator in a nutshell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerStatus {
    /// The fleet; nodes pin this digest.
    pub fleet: FleetId,
    /// Its name for people.
    pub fleet_name: String,
    /// The newest root version.
    pub root_version: u64,
    /// The coordinator as a control peer.
    pub coordinator: NodeId,
    /// The origin that this coordinator supervises.
    pub origin: NodeId,
    /// Process id of the origin, while it runs.
    pub origin_pid: Option<u32>,
    /// Enrolled nodes.
    pub nodes: u32,
    /// Entries in the ledger.
    pub ledger_entries: u64,
    /// What ends soon or has ended (root, issuing CA, what an enterprise put above it), and what to do.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Asks for an enrolment token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewToken {
    /// The site that it is made for, for people; the topology decides.
    pub site: Option<SiteId>,
    /// Nodes that may enrol with it, at least 1.
    pub uses: u32,
    /// It serves for so long from now.
    pub life: Span,
    /// For machines that report and are no nodes.
    #[serde(default)]
    pub foreign: bool,
    /// What else it asks for.
    #[serde(flatten)]
    pub terms: TokenTerms,
}

/// A machine that waits until an operator lets it in. All but key and address is its own word.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaitingView {
    /// Its key.
    pub node: NodeId,
    /// What it calls itself.
    pub hostname: String,
    /// Its operating system.
    pub os: String,
    /// Where it asked from last.
    pub address: IpAddr,
    /// The token that it holds.
    pub token: String,
    /// The site that the token was made for.
    pub site: Option<SiteId>,
    /// When it asked first.
    pub since: Time,
}

/// An operator's halt that could be lifted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HaltInForce {
    /// When it was given, by the ledger: what a [`protocol::lift::Lift`] names.
    pub halted: Time,
    /// The newest statement that would lift it and waits for signatures.
    pub waiting: Option<Envelope>,
}

/// A new enrolment token. It is shown once; the server keeps only a hash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenMade {
    /// The token; its text form is what people hand out.
    pub token: Token,
    /// The root's digest, to be handed out apart from the token.
    pub root: FleetId,
}

/// Asks for a token for the API.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewAccess {
    /// Whose it is, for people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where; the fleet, if no site is named.
    pub sites: BTreeSet<SiteId>,
    /// It serves for so long from now.
    pub life: Span,
}

/// A new token for the API. It is shown once; the server keeps only a hash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessMade {
    /// Names it, to be revoked.
    pub id: String,
    /// What goes into the file `api-token` of its holder.
    pub token: String,
}

/// A token for the API, without its secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessView {
    /// Names it.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where; the fleet, if no site is named.
    pub sites: BTreeSet<SiteId>,
    /// Since when.
    pub made: Time,
    /// Until when.
    pub expires: Time,
}

/// A machine that came to a door of the fleet, the coordinator's or a node's, and is none of the fleet's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnmanagedView {
    /// Who it says to be; none if it did not even prove a key.
    pub node: Option<NodeId>,
    /// From where it came.
    pub address: IpAddr,
    /// The site of the node that saw it; at the coordinator's own door, the site that its address is in.
    pub site: Option<SiteId>,
    /// The node at whose door it was the last time; none: the coordinator itself.
    #[serde(default)]
    pub seen_by: Option<NodeId>,
    /// The first time.
    pub first_seen: Time,
    /// The last time.
    pub last_seen: Time,
    /// How often.
    pub times: u64,
    /// Why it was not let in.
    pub reason: String,
}

/// A machine that is no node and reported what it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForeignView {
    /// Its key.
    pub machine: NodeId,
    /// As it calls itself.
    pub hostname: String,
    /// Operating system and version, as it says.
    pub system: String,
    /// From where it reported the last time.
    pub address: IpAddr,
    /// The site that the address is in, or that its token was made for.
    pub site: Option<SiteId>,
    /// The token that it showed the last time.
    pub token: String,
    /// The first time.
    pub first_seen: Time,
    /// The last time.
    pub last_seen: Time,
    /// How often.
    pub times: u64,
    /// Whether it is as all rules ask that stand now.
    pub compliant: bool,
    /// What they say.
    pub rules: Vec<Judged>,
}

/// Whether the origin has a blob, or has it under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlobPresence {
    /// Neither.
    Absent,
    /// Uploaded; the origin has yet to verify it.
    Incoming,
    /// The origin refused it: its bytes are not what its name says.
    Refused,
    /// The origin holds it.
    Held,
}

/// Asks what a proposal would come to. Nobody has to sign: nothing comes of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WhatIf {
    /// The proposal.
    pub proposal: Proposal,
    /// When, until when, and what is taken for granted.
    pub question: Question,
}

/// A release.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReleaseView {
    /// Digest of its manifest.
    pub digest: Hash,
    /// Its product.
    pub product: SiteId,
    /// Its version.
    pub version: SiteId,
    /// Its place in the order of the product's releases.
    pub release_counter: u64,
    /// Bytes of all `full` carriers, of the pack where an artifact has none.
    pub carrier_bytes: u64,
    /// Made at.
    pub created: Time,
    /// As signed.
    pub envelope: Envelope,
}

/// A rollout with what operators sign.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RolloutDetail {
    /// Where it stands.
    pub view: RolloutView,
    /// The plan with every signature so far; an operator who approves adds one and sends it back.
    pub plan: Envelope,
}

/// How far a collection of signatures is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Signatures that count.
    pub have: u32,
    /// Signatures that must be there.
    pub need: u32,
}

impl Progress {
    /// Whether the threshold is reached.
    pub fn complete(self) -> bool {
        self.have >= self.need
    }
}

/// Why an operator does something.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reason {
    /// One line for people.
    pub reason: String,
}

/// The release does harm on a node, by the word of the help desk, a user or monitoring.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProblemReport {
    /// The node.
    pub node: NodeId,
    /// One line for people.
    pub what: String,
}

/// A release was installed on a node by hand.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InstallNote {
    /// Digest of the release.
    pub release: Hash,
    /// Who did it, for people.
    pub who: String,
    /// Why, for people.
    pub why: String,
}

/// A site as listings show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SiteView {
    /// The site; none for nodes without one.
    pub site: Option<SiteId>,
    /// Its cap on the WAN now, bytes a second towards the site; none: no cap.
    pub wan_down_bytes_per_s: Option<u64>,
    /// Enrolled nodes that were last seen there.
    pub nodes: u32,
    /// Payload bytes that crossed its WAN, as its nodes report, by rollout.
    pub rollouts: Vec<SiteBytes>,
}

/// What a rollout cost a site.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SiteBytes {
    /// The rollout.
    pub rollout: RolloutId,
    /// Payload bytes over the WAN, of all nodes together.
    pub wan_bytes: u64,
    /// Payload bytes from peers in the site, of all nodes together.
    pub lan_bytes: u64,
}

/// Where the ledger stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditHead {
    /// Entries.
    pub entries: u64,
    /// Hash of the last one; zeroes if there is none.
    pub head: Hash,
}

/// Events of the live view, newest last.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Events {
    /// In order. Older ones than the server keeps are left out.
    pub events: Vec<EventLine>,
    /// What to ask `after` next time.
    pub next: u64,
}

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventLine {
    /// Its number since the server's start, counted from 1.
    pub n: u64,
    /// Wall time.
    pub time: Time,
    /// Short name, e.g. `wave_opened`.
    pub event: String,
    /// One line.
    pub line: String,
}

/// What operators sign to revoke many nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RevocationDraft {
    /// Those of the nodes that are not revoked, and their copies.
    pub nodes: Vec<NodeId>,
    /// Certificates on the list once they are.
    pub certificates: u32,
    /// Digest of these.
    pub list: Hash,
}
