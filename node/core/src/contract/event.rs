//! What the body tells the brain.

use super::Failure;
use super::Ticket;
use core::net::IpAddr;
use protocol::BlobRef;
use protocol::Hash;
use protocol::NodeId;
use protocol::RolloutId;
use protocol::Seq;
use protocol::SiteId;
use protocol::Span;
use protocol::Verified;
use protocol::constraints::Machine;
use protocol::index::CheckedIndex;
use protocol::manifest::ReleaseManifest;
use protocol::orders::Order;
use protocol::orders::Receipt;
use protocol::pieces::PieceSet;
use protocol::plan::Recall;
use protocol::plan::RolloutPlan;
use protocol::slots::SlotWord;
use protocol::status::NodeStatus;
use protocol::topology::Topology;
use protocol::trust::Root;
use protocol::wire::Beat;
use protocol::wire::Claim;
use protocol::wire::Contact;
use protocol::wire::ControlReply;
use protocol::wire::ControlRequest;
use protocol::wire::Notice;
use protocol::wire::Presence;
use protocol::wire::Referral;
use serde::Deserialize;
use serde::Serialize;
use std::sync::Arc;

/// What a user can wish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Put the installation off, for so long or as the plan has it.
    Defer(Option<Span>),
    /// Do not wait for the user any more.
    InstallNow,
}

/// What the body tells the brain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The root changed (or was just loaded).
    Root(Verified<Root>),
    /// A topology.
    Topology(Verified<Topology>),
    /// A release manifest.
    Release(Verified<ReleaseManifest>),
    /// A plan.
    Plan(Verified<RolloutPlan>),
    /// An order, with the recall inside it, if it has one and that was believed.
    Order(Verified<Order>, Option<Verified<Recall>>),
    /// A receipt.
    Receipt(Verified<Receipt>),
    /// An order or a receipt came that too few keys of the root in force had signed: a newer root may
    /// name others.
    Unbelieved,
    /// A status of another node, for handing on.
    Status(Verified<NodeStatus>),
    /// A revocation list with this digest is held and in force.
    Revocations(Hash),

    /// The machine's addresses, at the start and when they change.
    Addresses(Vec<IpAddr>),
    /// The machine moved: others reach it here now.
    Moved(Contact),
    /// Battery, metered or VPN links: the node owns nothing and serves nobody while true.
    Roaming(bool),
    /// What the machine is like: at the start, and when it is another.
    Machine(Machine),
    /// The machine's user wishes something: answer with [`super::Action::Granted`].
    Wished {
        /// Ties the answer to the wish.
        ticket: Ticket,
        /// About which rollout; none: the one that can be meant.
        rollout: Option<RolloutId>,
        /// What.
        wish: Wish,
    },
    /// The process is about to end: the last chance to say so to the site.
    Leaving,

    /// A member of the site said by gossip that it is here.
    Presence(Arc<Presence>),
    /// A member says that it cannot reach another one any more.
    Missing {
        /// Who says it.
        from: NodeId,
        /// Who is meant.
        node: NodeId,
        /// The number of the presence that is meant.
        seq: Seq,
    },
    /// A member told where it stands.
    Beat {
        /// Who.
        from: NodeId,
        /// What it told.
        beat: Beat,
    },
    /// A member said what it does with a restart slot.
    Slot(SlotWord),
    /// Somebody knocked at one of this node's doors and was not let in.
    Knocked(super::Visit),
    /// A control connection to a node stands.
    Connected(NodeId),
    /// The control connection to a node is gone.
    Disconnected(NodeId),
    /// A fetcher's claim.
    Claim(Claim),
    /// A notice of a peer on the data plane.
    Notice(NodeId, Notice),

    /// An answer to [`super::Action::Ask`]; statements inside it came as events of their own before.
    Answered {
        /// The question.
        ticket: Ticket,
        /// The answer; `None` if there was none.
        reply: Option<Box<ControlReply>>,
    },
    /// A peer pulls orders: answer with [`super::Action::Reply`].
    Asked {
        /// Ties the reply to the request.
        ticket: Ticket,
        /// Who asks.
        from: NodeId,
        /// What is asked. Documents and roots are answered by the body from its store.
        request: Box<ControlRequest>,
    },

    /// A blob's files are open.
    BlobOpened {
        /// The question.
        ticket: Ticket,
        /// What is on disk; `None` if the blob cannot be kept (see the reason in the log).
        found: Option<OnDisk>,
    },
    /// Some groups of a fetch were verified and written.
    FetchProgress {
        /// The fetch.
        ticket: Ticket,
        /// Payload bytes since the last progress.
        bytes: u64,
    },
    /// A fetch ended.
    FetchEnded {
        /// The fetch.
        ticket: Ticket,
        /// How.
        outcome: FetchOutcome,
    },
    /// A fetch ended before it began: the source sends the asker to somebody else.
    FetchReferred {
        /// The fetch.
        ticket: Ticket,
        /// To whom.
        referral: Box<Referral>,
    },
    /// A node of another site asks for pieces: answer with [`super::Action::Serve`]. Comes only after
    /// [`super::Action::Doorkeep`].
    Wanted(Box<Wanted>),
    /// Who asked is gone, or has what it was given.
    Left(Ticket),
    /// The index was read and checked.
    IndexRead {
        /// The question.
        ticket: Ticket,
        /// `None` if it broke its rules.
        index: Option<Arc<CheckedIndex>>,
    },
    /// Chunks that the node holds were copied into the pack.
    Reused {
        /// The question.
        ticket: Ticket,
        /// Complete pieces of the pack now on disk.
        have: PieceSet,
        /// Bytes copied.
        bytes: u64,
    },
    /// The carrier's frame table was read and checked.
    FramesRead {
        /// The question.
        ticket: Ticket,
        /// Carrier bytes of each frame; `None` if the table broke its rules.
        frames: Option<Arc<FrameMap>>,
    },
    /// The decoding of a frame ended.
    FrameDecoded {
        /// The question.
        ticket: Ticket,
        /// How.
        outcome: FrameOutcome,
    },
    /// A step of an installation ended.
    StepEnded {
        /// The question.
        ticket: Ticket,
        /// How.
        outcome: StepOutcome,
    },
}

/// A request of a node of another site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Ties the answer to the request.
    pub ticket: Ticket,
    /// Who asks, and where others reach it.
    pub from: Contact,
    /// The asker's site, by its address.
    pub site: SiteId,
    /// What is asked for.
    pub blob: BlobRef,
    /// Pieces, rising.
    pub pieces: Vec<u32>,
    /// To these it was referred in vain.
    pub spurned: Vec<NodeId>,
}

/// How the decoding of a frame ended, told apart by whose fault it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameOutcome {
    /// Its pieces were checked against the index and are in the pack.
    Decoded,
    /// It does not hold what the index says: the release's fault, not a peer's.
    Wrong,
    /// This machine could not read or write.
    Storage,
}

/// What of a blob is on disk and verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OnDisk {
    /// Complete pieces.
    pub have: PieceSet,
    /// Pieces of which some groups are here, but not all.
    pub begun: Vec<u32>,
}

/// No piece is begun.
impl From<PieceSet> for OnDisk {
    fn from(have: PieceSet) -> OnDisk {
        let begun = Vec::new();
        OnDisk { have, begun }
    }
}

/// Where the frames of a carrier lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameMap {
    /// Carrier bytes `[start, end)` of each frame.
    pub coded: Vec<(u64, u64)>,
    /// Plain bytes of every frame but the last.
    pub frame_plain: u64,
}

/// How a fetch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchOutcome {
    /// Every group asked for is verified and written.
    Complete,
    /// The peer does not hold it.
    NotHeld,
    /// The peer has no room now.
    Busy,
    /// The peer sent bytes that failed verification.
    Poisoned,
    /// Below the minimum rate.
    Slow,
    /// The connection broke or could not be made.
    Broken,
    /// Cancelled by the brain.
    Cancelled,
    /// This machine could not write (disk full, read-only).
    Storage,
}

/// How a step ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StepOutcome {
    /// Done (or found done already).
    Done,
    /// For [`super::Step::Detect`]: the release is not installed.
    Absent,
    /// Not done.
    Failed(Failure),
}
