//! What lasts: the events of the ledger.

use protocol::envelope::Envelope;
use protocol::orders::Order;
use protocol::plan::RolloutPlan;
use protocol::status::SignedStatus;
use protocol::{Hash, NodeId, PublicKey, RolloutId, SiteId, Span, Time};
use serde::{Deserialize, Serialize};

use super::{Enrolled, TokenMade};

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
    /// The ledger was taken from a backup: the fleet may know what it does not. No order is given after
    /// this until an [`LedgerEvent::Epoch`] follows.
    Restored {
        /// Where it came from, for people.
        why: String,
        /// When.
        at: Time,
    },
    /// A rollout of which the fleet told after a restore.
    Regained {
        /// Its plan, as signed by the threshold.
        plan: Envelope,
    },
    /// A newer revocation list than the ledger's was found in the fleet after a restore.
    Barred {
        /// Serial numbers on it, hex.
        serials: Vec<String>,
        /// The list's number; the next one's is higher.
        number: u64,
    },
    /// A node was given a certificate.
    Enrolled(Enrolled),
    /// An enrolment token was made.
    TokenMade(TokenMade),
    /// An operator let a machine in that waited.
    Admitted {
        /// Its key.
        node: NodeId,
        /// Who did, by the name of the API token that he showed.
        by: String,
        /// The tokens with which it waited.
        tokens: Vec<String>,
    },
    /// A node was given its next certificate.
    Renewed {
        /// The node.
        node: NodeId,
        /// Serial number of the certificate, hex.
        serial: String,
    },
    /// A node's certificate was revoked.
    Revoked {
        /// The node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// The operators let the list grow by many nodes, which were revoked just before.
    Warranted {
        /// As signed.
        envelope: Envelope,
    },
    /// A node was seen in another site than before.
    Moved {
        /// The node.
        node: NodeId,
        /// Where it is now.
        site: Option<SiteId>,
    },
    /// A node said something else of itself than before.
    Inventory {
        /// As signed.
        envelope: Envelope,
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
    /// A day began in UTC, from which on a rollout's starts are counted anew against its cap.
    Dawned {
        /// The rollout.
        rollout: RolloutId,
        /// The day, counted from 1970.
        day: u64,
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
    /// An operator looked at a held cohort and lets it go on: what failed there is forgiven.
    CohortReleased {
        /// The rollout.
        rollout: RolloutId,
        /// The cohort, as a number into the plan's list.
        cohort: u32,
        /// When.
        at: Time,
    },
    /// An operator halted everything, also what is to come.
    HaltedAll {
        /// One line.
        why: String,
        /// When.
        at: Time,
    },
    /// Operators lifted the halt of a rollout, or of everything.
    Lifted {
        /// A [`protocol::lift::Lift`], as signed.
        envelope: Envelope,
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
    /// Nodes are asked whether they need a release, or are asked no more.
    Assessing {
        /// Digest of the release.
        release: Hash,
        /// The question ends by itself then; none: it ends now.
        until: Option<Time>,
        /// Answers are spread over so long.
        within: Span,
        /// When it was asked.
        at: Time,
    },
    /// Someone says to have installed a release on a node by hand.
    InstalledByHand(ByHand),
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
    /// Peers see nodes silent that said they succeeded: their success proves nothing from here on. Or they see
    /// them again.
    Witnessed {
        /// The rollout.
        rollout: RolloutId,
        /// Who is silent.
        silent: Vec<NodeId>,
        /// Who was, and is no more.
        back: Vec<NodeId>,
    },
    /// Nodes went silent after a reported start, or after a success by the word of their peers.
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

/// An installation by hand, as a person says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ByHand {
    /// Where.
    pub node: NodeId,
    /// Digest of the release.
    pub release: Hash,
    /// Who did it, for people.
    pub who: String,
    /// Why, for people.
    pub why: String,
    /// Whose token noted it.
    pub noted_by: String,
    /// When it was noted.
    pub at: Time,
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
    /// Set aside by an emergency or by a halt of everything; it goes on by itself.
    Preempted,
    /// A gate failed; it stays so until an operator resumes, halts or recalls it.
    Held,
    /// Stopped; an operator's halt is lifted under the `plans` threshold.
    Aborted,
    /// Being taken back.
    Recalling,
    /// Taken back.
    Recalled,
    /// Every wave passed.
    Finished,
}
