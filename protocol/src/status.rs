//! A node's status: a signed, numbered register for one rollout; the highest number wins.

use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, verify};
use crate::ids::{FleetId, Hash, NodeId, RolloutId, Seq};
use crate::limits::{OUTPUT_TAIL_BYTES, TEXT_MAX_BYTES};
use crate::time::Time;
use crate::trust::Verified;
use crate::versioned::{DecodeError, Versioned};

/// What a node says about one rollout.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The fleet.
    pub fleet: FleetId,
    /// Who says it.
    pub node: NodeId,
    /// About which rollout.
    pub rollout: RolloutId,
    /// Digest of the plan that the node follows.
    pub plan: Hash,
    /// Digest of the release.
    pub release: Hash,
    /// The node's wave, counted from 0.
    pub wave: u32,
    /// The register's number.
    pub seq: Seq,
    /// Where the node stands.
    pub state: State,
    /// One line for people.
    pub reason: String,
    /// Since when, by the node's wall clock.
    pub entered_at: Time,
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// Names one installation: `H(node, release, generation)`.
    pub install_id: Hash,
    /// Payload bytes from peers in the site.
    pub lan_bytes: u64,
    /// Payload bytes over the site's WAN.
    pub wan_bytes: u64,
    /// Exit code of a failed step or check.
    pub exit_code: Option<i32>,
    /// End of the output of a failed step or check.
    pub output_tail: String,
}

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum State {
    /// Nothing heard of the rollout.
    NotReceived,
    /// Plan and release are known.
    Received,
    /// Content is on its way.
    Downloading,
    /// Content is complete and verified.
    Staged,
    /// Staged, and something must come first.
    Waiting(WaitingFor),
    /// Steps are being taken.
    Installing,
    /// A restart is due.
    PendingRestart,
    /// The restart is under way.
    Restarting,
    /// Switched; health is being watched.
    Verifying,
    /// Installed and healthy.
    Succeeded,
    /// Not installed.
    Failed,
    /// On the way back.
    RollingBack,
    /// Back at what was there before.
    RolledBack,
    /// Neither here nor there; a person is needed.
    RollbackFailed,
    /// The release has nothing for this node.
    NotApplicable,
    /// The release was there before the rollout.
    AlreadyInstalled,
    /// Excused.
    Exempt,
    /// Held by a safeguard.
    Held,
    /// The rollout ended before the node's turn.
    Cancelled,
    /// A newer release came first.
    Superseded,
    /// Derived by the coordinator: silence for too long after a reported start.
    MissingReport,
}

/// What a staged node waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum WaitingFor {
    /// Its wave has not opened.
    Wave,
    /// Its lease ran out or has not come.
    Lease,
    /// Its maintenance window.
    Window,
    /// The end of a freeze.
    Freeze,
    /// A person put it off.
    Deferral,
    /// Another release must come first.
    Dependency,
    /// A stepping stone.
    Barrier,
    /// A restart slot.
    Lock,
    /// Space.
    Disk,
    /// Power.
    Power,
    /// A better link.
    Link,
    /// A halt is in force.
    Halt,
    /// Trusted metadata is out of date.
    Expired,
}

impl WaitingFor {
    /// Whether only the node itself can know of it: its clock, its user, its
    /// machine, what is installed on it.
    pub fn is_of_the_node(self) -> bool {
        use WaitingFor as W;
        matches!(
            self,
            W::Window
                | W::Freeze
                | W::Deferral
                | W::Dependency
                | W::Barrier
                | W::Disk
                | W::Power
                | W::Link
        )
    }
}

/// Whether the coordinator hears of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reachability {
    /// Heard of lately.
    Reachable,
    /// Not heard of for long.
    Unreachable,
}

/// One of the four counts, or out of the targets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    /// The release is there and works.
    Applied,
    /// It is not, and was tried.
    Failed,
    /// The node knows of it; the outcome is open.
    Open,
    /// The node does not know of it yet.
    NotReceived,
    /// Not a target; a node comes here only by a ledgered change.
    Out,
}

/// The one function that counts a node. Total: every state has its bucket, whatever is heard of the
/// node.
pub fn bucket(state: State, reachability: Reachability) -> Bucket {
    match (state, reachability) {
        (State::Succeeded | State::AlreadyInstalled, _) => Bucket::Applied,
        (
            State::Failed
            | State::RollingBack
            | State::RolledBack
            | State::RollbackFailed
            | State::MissingReport,
            _,
        ) => Bucket::Failed,
        (
            State::Received
            | State::Downloading
            | State::Staged
            | State::Waiting(_)
            | State::Installing
            | State::PendingRestart
            | State::Restarting
            | State::Verifying
            | State::Held,
            Reachability::Reachable | Reachability::Unreachable,
        ) => Bucket::Open,
        (State::NotReceived, Reachability::Reachable | Reachability::Unreachable) => {
            Bucket::NotReceived
        }
        (State::NotApplicable | State::Exempt | State::Cancelled | State::Superseded, _) => {
            Bucket::Out
        }
    }
}

impl State {
    /// Whether the node has begun to change itself for this rollout and the outcome is open.
    pub fn started(self) -> bool {
        matches!(
            self,
            State::Installing | State::PendingRestart | State::Restarting | State::Verifying
        )
    }
    /// Whether nothing more is to come without a new order.
    pub fn ended(self) -> bool {
        matches!(
            self,
            State::Succeeded
                | State::AlreadyInstalled
                | State::Failed
                | State::RolledBack
                | State::RollbackFailed
                | State::MissingReport
                | State::NotApplicable
                | State::Exempt
                | State::Cancelled
                | State::Superseded
        )
    }
}

/// What a node has to tell its coordinator about a state: a register travels upward when its milestone
/// is another one than the coordinator knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Milestone {
    /// Nothing.
    Nothing,
    /// The rollout is known; the node has not begun to change itself.
    Received,
    /// It has begun; from here on its silence counts.
    Started,
    /// It failed and is on its way back.
    RollingBack,
    /// The end, whichever.
    End(State),
}

impl State {
    /// The milestone that a node in this state has reached.
    pub fn milestone(self) -> Milestone {
        match self {
            State::NotReceived => Milestone::Nothing,
            State::RollingBack => Milestone::RollingBack,
            state if state.ended() => Milestone::End(state),
            state if state.started() => Milestone::Started,
            _ => Milestone::Received,
        }
    }
}

/// `H(node, release, rollout)`: one rollout installs a release once on a node.
pub fn install_id(node: &NodeId, release: &Hash, rollout: &RolloutId) -> Hash {
    let text = format!("tidegate install v1 {node} {release} {rollout}");
    Hash::of(text.as_bytes())
}

/// `H(node, release)`: given to the detect rule of a release that is assessed.
pub fn assess_id(node: &NodeId, release: &Hash) -> Hash {
    let text = format!("tidegate assess v1 {node} {release}");
    Hash::of(text.as_bytes())
}

/// A status with its node's signature. Nothing in it has been checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedStatus {
    /// The encoded [`NodeStatus`].
    pub body: Vec<u8>,
    /// ed25519 signature of 64 bytes by the node's key over [`SIGNING_CONTEXT`] and the body.
    pub sig: Vec<u8>,
}

/// Stands before the body when a status is signed.
pub const SIGNING_CONTEXT: &[u8] = b"tidegate status v1\0";

impl Versioned for NodeStatus {
    const MAGIC: [u8; 4] = *b"TGST";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = 4096;
}

/// Why a status is not believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StatusError {
    /// Not a status.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Not signed by the node that it names.
    #[error("signature: status of {0} is not signed by it")]
    Signature(NodeId),
    /// For another fleet.
    #[error("scope: status is for fleet {0}")]
    Fleet(FleetId),
    /// A text over its limit.
    #[error("too_long: status of {0} has a text over its limit")]
    TooLong(NodeId),
}

impl NodeStatus {
    /// Signs the status with the node's key.
    pub fn sign(&self, key: &SigningKey) -> SignedStatus {
        let body = self.to_bytes();
        let sig = key
            .sign(&[SIGNING_CONTEXT, &body].concat())
            .to_bytes()
            .to_vec();
        SignedStatus { body, sig }
    }
}

impl SignedStatus {
    /// Believes the status if the node that it names signed it.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, fleet: FleetId) -> Result<Verified<NodeStatus>, StatusError> {
        let status = NodeStatus::from_bytes(&self.body)?;
        if status.fleet != fleet {
            return Err(StatusError::Fleet(status.fleet));
        }
        if status.reason.len() > TEXT_MAX_BYTES || status.output_tail.len() > OUTPUT_TAIL_BYTES + 4
        {
            return Err(StatusError::TooLong(status.node));
        }
        if !verify(
            status.node.into(),
            &[SIGNING_CONTEXT, &self.body].concat(),
            &self.sig,
        ) {
            return Err(StatusError::Signature(status.node));
        }
        let envelope = Envelope {
            payload_type: "application/vnd.tidegate.status".into(),
            payload: self.body.clone(),
            signatures: vec![crate::envelope::KeySignature {
                keyid: status.node.into(),
                sig: self.sig.clone(),
            }],
        };
        Ok(Verified::new(status, envelope))
    }

    /// The signed form of a status that was verified before.
    pub fn of(status: &Verified<NodeStatus>) -> SignedStatus {
        let sig = status
            .envelope()
            .signatures
            .first()
            .map(|s| s.sig.clone())
            .unwrap_or_default();
        SignedStatus {
            body: status.envelope().payload.clone(),
            sig,
        }
    }
}
