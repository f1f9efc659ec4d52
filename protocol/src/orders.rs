//! Orders: the coordinator's signed, numbered statements, and its receipts for statuses.
//!
//! An order's number is `(epoch, n)`. A later order about the same thing replaces the earlier one
//! ([`OrderBody::subject`]), so a node that was off needs only what is retained, not all history.

use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::ids::{FleetId, Hash, NodeId, RolloutId, Seq};
use crate::limits::{ASSESSMENTS_MAX, COHORTS_MAX, ROLLOUTS_MAX, TEXT_MAX_BYTES};
use crate::status::NodeStatus;
use crate::time::{Span, Time};
use crate::trust::{Statement, header};
use crate::wire::Contact;

/// One order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet that it is for.
    pub fleet: FleetId,
    /// Its number.
    pub seq: Seq,
    /// Signed at; also floors a node's clock.
    pub issued: Time,
    /// What is ordered.
    pub body: OrderBody,
}

/// What is ordered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OrderBody {
    /// Nodes of this wave and of those before it may start installs. The lease lives for the plan's
    /// `lease_ttl` from receipt on the boot clock, and no longer than `not_after`.
    GoLease {
        /// The rollout.
        rollout: RolloutId,
        /// Digest of its plan.
        plan: Hash,
        /// The newest open wave, counted from 0.
        wave: u32,
        /// Of that wave only the nodes whose position is below this; none: all of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        below: Option<u64>,
        /// Cohorts of the plan whose nodes start nothing, as numbers into the plan's list.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        held: Vec<u32>,
        /// Wall time at which it ends in any case.
        not_after: Time,
    },
    /// No install of this rollout starts until a resume.
    Halt {
        /// The rollout.
        rollout: RolloutId,
        /// Why, for people.
        reason: String,
    },
    /// Takes a halt back.
    Resume {
        /// The rollout.
        rollout: RolloutId,
    },
    /// The release is taken back; worth nothing without the `plans` threshold on the inner statement.
    Recall {
        /// The rollout.
        rollout: RolloutId,
        /// A [`crate::plan::Recall`] in its envelope.
        statement: Envelope,
    },
    /// The newest state of everything; expires.
    Bulletin(Bulletin),
}

/// What the bulletin says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bulletin {
    /// After this, no new install starts until a newer bulletin comes.
    pub expires: Time,
    /// The newest root version.
    pub root_version: u64,
    /// Digest of the newest topology, if any was signed.
    pub topology: Option<Hash>,
    /// Digest of the newest certificate revocation list (DER), if there is one.
    pub revocations: Option<Hash>,
    /// Rollouts that are alive, with the number of the last order about each.
    pub rollouts: Vec<RolloutHead>,
    /// Releases of which nodes shall say whether they need them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assess: Vec<Assessment>,
    /// Head of the coordinator's ledger.
    pub ledger_head: Hash,
    /// Entries of the ledger up to that head, if the coordinator knows. Never falls: who remembers more,
    /// or another head for as many, has seen a ledger that was cut, restored or written anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_entries: Option<u64>,
    /// Nodes that hold every blob from the start.
    pub origins: Vec<Contact>,
    /// Where delegates report.
    pub coordinators: Vec<Contact>,
}

/// A rollout in the bulletin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RolloutHead {
    /// The rollout.
    pub rollout: RolloutId,
    /// Digest of its plan.
    pub plan: Hash,
    /// Digest of its release.
    pub release: Hash,
    /// The last order about it: a node that has not seen it starts nothing.
    pub last_order: Seq,
}

/// A release whose signed rules nodes shall answer; its content is not fetched for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Assessment {
    /// Digest of the release.
    pub release: Hash,
    /// Answers are spread over so long, because every node tells its own.
    pub within: Span,
}

/// What an order is about: the newest order about a subject replaces the older ones.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Subject {
    /// The lease of a rollout.
    Lease(RolloutId),
    /// Whether a rollout is halted.
    Hold(RolloutId),
    /// Whether a rollout is recalled.
    Recall(RolloutId),
    /// The bulletin.
    Bulletin,
}

impl OrderBody {
    /// What it is about.
    pub fn subject(&self) -> Subject {
        match self {
            OrderBody::GoLease { rollout, .. } => Subject::Lease(rollout.clone()),
            OrderBody::Halt { rollout, .. } | OrderBody::Resume { rollout } => {
                Subject::Hold(rollout.clone())
            }
            OrderBody::Recall { rollout, .. } => Subject::Recall(rollout.clone()),
            OrderBody::Bulletin(_) => Subject::Bulletin,
        }
    }

    /// The rollout that it is about, if it is about one.
    pub fn rollout(&self) -> Option<&RolloutId> {
        match self {
            OrderBody::GoLease { rollout, .. }
            | OrderBody::Halt { rollout, .. }
            | OrderBody::Resume { rollout }
            | OrderBody::Recall { rollout, .. } => Some(rollout),
            OrderBody::Bulletin(_) => None,
        }
    }
}

impl Statement for Order {
    header!("application/vnd.tidegate.order+json", Coordinator);
    fn check(&self) -> Result<(), String> {
        match &self.body {
            OrderBody::GoLease { held, .. } if held.len() > COHORTS_MAX => {
                Err("the lease names too many cohorts".into())
            }
            OrderBody::Halt { reason, .. } if reason.len() > TEXT_MAX_BYTES => {
                Err("the reason is too long".into())
            }
            OrderBody::Bulletin(b) if b.rollouts.len() > ROLLOUTS_MAX => {
                Err("the bulletin has too many rollouts".into())
            }
            OrderBody::Bulletin(b) if b.assess.len() > ASSESSMENTS_MAX => {
                Err("the bulletin has too many releases to assess".into())
            }
            OrderBody::Bulletin(b) if b.origins.len() + b.coordinators.len() > 64 => {
                Err("the bulletin has too many contacts".into())
            }
            _ => Ok(()),
        }
    }
}

/// The coordinator's word that it has statuses durably. Upward feeds get its signature only, as a
/// [`crate::feed::Seal`]; inside a site it travels whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet that it is for.
    pub fleet: FleetId,
    /// For each register a number up to which it is durable.
    pub marks: Vec<Mark>,
}

/// One register's watermark.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// The register's node.
    pub node: NodeId,
    /// The register's rollout.
    pub rollout: RolloutId,
    /// Durable up to here.
    pub seq: Seq,
}

impl Mark {
    /// The mark that a status asks for.
    pub fn of(status: &NodeStatus) -> Mark {
        Mark {
            node: status.node,
            rollout: status.rollout.clone(),
            seq: status.seq,
        }
    }
}

impl Statement for Receipt {
    header!("application/vnd.tidegate.receipt+json", Coordinator);
}
