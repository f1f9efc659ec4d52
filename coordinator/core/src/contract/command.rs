//! What operators ask for, and what they are answered.

use protocol::envelope::Envelope;
use protocol::lift::Lift;
use protocol::manifest::ReleaseManifest;
use protocol::plan::{Cohort, Proposal, Recall, RolloutPlan};
use protocol::revocation::MassRevocation;
use protocol::topology::Topology;
use protocol::{Hash, NodeId, PublicKey, RolloutId, Verified};

use super::ByHand;

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
    /// Stop, until operators lift it together; what is installed stays.
    Halt(RolloutId, String),
    /// Stop everything, also what is started later.
    HaltAll(String),
    /// Lift an operator's halt.
    Lift(Verified<Lift>),
    /// Let a held cohort go on.
    ReleaseCohort(RolloutId, Cohort),
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
    /// Ask nodes whether they need a release.
    Assess(Hash),
    /// Ask them no more.
    EndAssessment(Hash),
    /// A release was installed on a node by hand; its time is filled in here.
    RecordInstall(ByHand),
    /// Revoke a node's certificate; the body makes the new list once this is answered.
    Revoke {
        /// The node.
        node: NodeId,
        /// Why, for people.
        reason: String,
    },
    /// Revoke the certificates of many nodes, which the operators signed.
    RevokeMany(Verified<MassRevocation>),
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
    /// Nothing to lift.
    #[error("not everything is halted; name the rollout whose halt is to be lifted")]
    NothingHalted,
    /// For a halt that is not in force any more.
    #[error("another halt was given since this was signed; sign again for that one")]
    OtherHalt,
    /// No such cohort is held.
    #[error("no cohort {0} is held")]
    CohortNotHeld(String),
    /// No order can be numbered yet.
    #[error(
        "the coordinator was restored and hears first what its sites have; try again when `tidegate sites` shows them reachable, at the latest in {0} s"
    )]
    Listening(u64),
    /// Signed by someone who proposed it, or twice by the same.
    #[error("key {0} signed already")]
    SignedAlready(PublicKey),
}
