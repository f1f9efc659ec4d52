//! What crosses the wall between the node's brain and its body.
//!
//! Rules of the wall:
//! - Actions are performed in the order in which they are polled. [`Action::Remember`] and
//!   [`Action::Forget`] are durable before the action after them is begun.
//! - Every action that carries a [`Ticket`] is answered by exactly one event with that ticket, even
//!   when it was cancelled or failed. After a restart of the process no old ticket is answered.
//! - Bytes never cross. What the body fetched it has verified against the blob's name and written
//!   before it says so; what it hands in as a statement is [`Verified`].
//! - A completed step of an installation is idempotent: after a crash the brain asks for the same
//!   step again and the body finds out what is already done.

use core::net::IpAddr;
use std::collections::BTreeMap;

use protocol::envelope::Envelope;
use protocol::index::CheckedIndex;
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Order, Receipt, Subject};
use protocol::pieces::PieceSet;
use protocol::plan::{Recall, RolloutPlan};
use protocol::status::{NodeStatus, State};
use protocol::topology::Topology;
use protocol::trust::Root;
use protocol::wire::{
    Claim, Class, Contact, ControlReply, ControlRequest, Notice, Presence, SiteMessage,
};
use protocol::{BlobRef, FleetId, Hash, NodeId, Now, RolloutId, Seq, SiteId, Span, Time, Verified};
use serde::{Deserialize, Serialize};

/// Ties an answer to its question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// What the brain is told once, at its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Who I am.
    pub node: NodeId,
    /// Whose orders I take.
    pub fleet: FleetId,
    /// What I am for.
    pub role: NodeRole,
    /// `std::env::consts::OS` of this machine.
    pub os: String,
    /// `std::env::consts::ARCH` of this machine.
    pub arch: String,
    /// Where others reach me.
    pub contact: Contact,
    /// The epoch of my own counters, given at enrolment.
    pub epoch: u32,
    /// Names this boot of the machine; leases do not outlive it.
    pub boot_id: Hash,
    /// Known from enrolment, until a bulletin says otherwise.
    pub coordinators: Vec<Contact>,
    /// Known from enrolment, until a bulletin says otherwise.
    pub origins: Vec<Contact>,
    /// Intervals; [`Tempo::default`] in production.
    pub tempo: Tempo,
    /// Seeds the brain's random streams.
    pub seed: u64,
}

/// What a node is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeRole {
    /// Fetches, installs, serves its site.
    Endpoint,
    /// Holds every blob and serves them; installs nothing.
    Origin,
}

/// Intervals, from [`protocol::limits`] unless a test or a scenario says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tempo {
    /// Presence is gossiped this often.
    pub presence: Span,
    /// Unheard for so long, a member is gone.
    pub presence_lifetime: Span,
    /// Haves are batched for this long.
    pub have: Span,
    /// A claim waits this long for a better one.
    pub claim_wait: Span,
    /// Without progress for this long, a claim lapses.
    pub claim_lease: Span,
    /// A delegate asks the coordinator this often.
    pub uplink: Span,
}

impl Default for Tempo {
    fn default() -> Tempo {
        use protocol::limits as l;
        Tempo {
            presence: l::PRESENCE_INTERVAL,
            presence_lifetime: l::PRESENCE_LIFETIME,
            have: l::HAVE_INTERVAL,
            claim_wait: l::CLAIM_WAIT,
            claim_lease: l::CLAIM_LEASE,
            uplink: l::UPLINK_INTERVAL,
        }
    }
}

/// What is remembered across restarts. The body keeps each record under its key and hands all of
/// them back, with the statements verified again, when the brain is made anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// The newest topology.
    Topology(Verified<Topology>),
    /// A plan that is alive.
    Plan(Verified<RolloutPlan>),
    /// A release that a plan names or that is installed.
    Release(Verified<ReleaseManifest>),
    /// The newest order about a subject.
    Order(Verified<Order>),
    /// A recall, believed under the `plans` threshold.
    Recall(Verified<Recall>),
    /// A lease and when it came.
    Lease(LeaseRecord),
    /// Where an installation stands.
    Journal(JournalRecord),
    /// What is installed of a product.
    Installed(InstalledRecord),
    /// The newest status of this node for a rollout, and whether the coordinator has it.
    Status(StatusRecord),
    /// Highest counters seen: the guard against rollback of metadata and software.
    Counters(CountersRecord),
}

/// Under which key a record is kept; a new record replaces the old one of the same key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum RecordKey {
    /// See [`Record::Topology`].
    Topology,
    /// By digest.
    Plan(Hash),
    /// By digest.
    Release(Hash),
    /// By subject.
    Order(Subject),
    /// By rollout.
    Recall(RolloutId),
    /// By rollout.
    Lease(RolloutId),
    /// By rollout.
    Journal(RolloutId),
    /// By product.
    Installed(SiteId),
    /// By rollout.
    Status(RolloutId),
    /// See [`Record::Counters`].
    Counters,
}

impl Record {
    /// The key under which it is kept.
    pub fn key(&self) -> RecordKey {
        match self {
            Record::Topology(_) => RecordKey::Topology,
            Record::Plan(plan) => RecordKey::Plan(plan.digest()),
            Record::Release(release) => RecordKey::Release(release.digest()),
            Record::Order(order) => RecordKey::Order(order.body.subject()),
            Record::Recall(recall) => RecordKey::Recall(recall.rollout.clone()),
            Record::Lease(lease) => RecordKey::Lease(lease.rollout.clone()),
            Record::Journal(journal) => RecordKey::Journal(journal.rollout.clone()),
            Record::Installed(installed) => RecordKey::Installed(installed.product.clone()),
            Record::Status(status) => RecordKey::Status(status.status.rollout.clone()),
            Record::Counters(_) => RecordKey::Counters,
        }
    }
}

/// A lease as it was received. It is live while the boot is the same, `boot now < received + ttl`
/// and `wall now < not_after`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The rollout.
    pub rollout: RolloutId,
    /// Digest of the plan that the order names.
    pub plan: Hash,
    /// The newest open wave.
    pub wave: u32,
    /// The order that gave it.
    pub seq: Seq,
    /// Boot time of its receipt.
    pub received: Time,
    /// The boot in which it was received.
    pub boot_id: Hash,
    /// Wall time at which it ends in any case.
    pub not_after: Time,
}

/// Where an installation stands: the last boundary that is durable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JournalRecord {
    /// The rollout.
    pub rollout: RolloutId,
    /// Digest of the release.
    pub release: Hash,
    /// Names this installation.
    pub install_id: Hash,
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// The boundary.
    pub at: Boundary,
    /// Release that was installed before, to go back to.
    pub before: Option<Hash>,
    /// Wall time of the switch, for the soak.
    pub switched_at: Option<Time>,
    /// Why it goes back, once it does.
    pub failure: Option<Failure>,
}

/// The boundaries of an installation, in order. Each is journalled before the step behind it is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Boundary {
    /// This node will install this release.
    Claimed,
    /// Every byte is here and verified.
    StagedVerified,
    /// The pre-hook may have run.
    PreHook,
    /// The new version's slot may have been written.
    SlotWritten,
    /// The switch is about to happen and may have happened.
    SwitchIntent,
    /// The switch happened.
    Switched,
    /// A restart is asked for.
    RestartArmed,
    /// The health check passed for its soak.
    Healthy,
    /// The release is what is installed.
    Committed,
    /// The coordinator has the outcome.
    Reported,
    /// The way back has begun and may be done.
    RollingBack,
    /// Back at what was there before.
    RolledBack,
}

/// Why an installation failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// One line: which step and how.
    pub reason: String,
    /// Exit code, if a program ran.
    pub exit_code: Option<i32>,
    /// End of its output.
    pub output_tail: String,
    /// Whether the machine and not the release is at fault and another attempt may succeed.
    pub retryable: bool,
}

/// What is installed of a product.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InstalledRecord {
    /// The product.
    pub product: SiteId,
    /// Digest of the release.
    pub release: Hash,
    /// The release that stood there before and is still on disk.
    pub previous: Option<Hash>,
}

/// This node's status for a rollout.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatusRecord {
    /// The status; the body signs it when it leaves.
    pub status: NodeStatus,
    /// The highest number that the coordinator acknowledged.
    pub acknowledged: Option<Seq>,
}

/// Highest counters seen.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CountersRecord {
    /// Of topologies.
    pub topology: u64,
    /// Of releases, by product.
    pub releases: BTreeMap<SiteId, u64>,
    /// The highest order seen.
    pub orders: Seq,
    /// The last number of this node's own register and presence.
    pub own: Seq,
}

/// Everything that was remembered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// The records, in any order.
    pub records: Vec<Record>,
}

/// What the body tells the brain.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "handed in one by one, never kept in numbers"
)]
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
    /// The process is about to end: the last chance to say so to the site.
    Leaving,

    /// A member of the site said that it is here (by gossip, or handed on by the coordinator).
    Presence(Presence),
    /// A control connection to a node stands.
    Connected(NodeId),
    /// The control connection to a node is gone.
    Disconnected(NodeId),
    /// A fetcher's claim.
    Claim(Claim),
    /// A notice of a peer on the data plane.
    Notice(NodeId, Notice),

    /// An answer to [`Action::Ask`]; statements inside it came as events of their own before.
    Answered {
        /// The question.
        ticket: Ticket,
        /// The answer; `None` if there was none.
        reply: Option<ControlReply>,
    },
    /// A peer pulls orders: answer with [`Action::Reply`].
    Asked {
        /// Ties the reply to the request.
        ticket: Ticket,
        /// Who asks.
        from: NodeId,
        /// What is asked. Documents and roots are answered by the body from its store.
        request: ControlRequest,
    },

    /// A blob's files are open.
    BlobOpened {
        /// The question.
        ticket: Ticket,
        /// Complete pieces on disk; `None` if the blob cannot be kept (see the reason in the log).
        have: Option<PieceSet>,
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
    /// The index was read and checked.
    IndexRead {
        /// The question.
        ticket: Ticket,
        /// `None` if it broke its rules.
        index: Option<std::sync::Arc<CheckedIndex>>,
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
        frames: Option<FrameMap>,
    },
    /// A frame was decoded, its pieces checked against the index and written to the pack.
    FrameDecoded {
        /// The question.
        ticket: Ticket,
        /// Whether it was right; a wrong one is the release's fault, not a peer's.
        ok: bool,
    },
    /// A step of an installation ended.
    StepEnded {
        /// The question.
        ticket: Ticket,
        /// How.
        outcome: StepOutcome,
    },
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StepOutcome {
    /// Done (or found done already).
    Done,
    /// For [`Step::Detect`]: the release is not installed.
    Absent,
    /// Not done.
    Failed(Failure),
}

/// What the brain tells the body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Make it durable before the next action.
    Remember(Box<Record>),
    /// Drop it durably before the next action.
    Forget(RecordKey),
    /// Gossip it in the site.
    Gossip(SiteMessage),
    /// Sign and gossip this node's own status in the site.
    GossipStatus(NodeStatus),
    /// Take part in the gossip of this site only (or of none).
    JoinSite(Option<SiteId>),
    /// Have a control connection to this contact.
    Connect(Contact),
    /// The control connection to this node is not needed any more.
    Disconnect(NodeId),
    /// Ask a node on the control plane; connects if need be.
    Ask {
        /// Names the answer.
        ticket: Ticket,
        /// Whom.
        to: Contact,
        /// What.
        request: ControlRequest,
        /// This node's own statuses to sign and put into an uplink.
        own_statuses: Vec<NodeStatus>,
    },
    /// Answer a request.
    Reply {
        /// The request's ticket.
        ticket: Ticket,
        /// The answer.
        reply: ControlReply,
    },
    /// Send a notice on the data plane.
    Notify {
        /// To whom.
        to: Contact,
        /// What.
        notice: Notice,
    },
    /// Open (or make) a blob's files.
    OpenBlob {
        /// Names the answer.
        ticket: Ticket,
        /// The blob.
        blob: BlobRef,
    },
    /// Nobody needs this blob any more: drop its files.
    DropBlob(BlobRef),
    /// Fetch pieces: every group of them that is not yet on disk.
    Fetch {
        /// Names the answer.
        ticket: Ticket,
        /// From whom.
        from: Contact,
        /// The blob.
        blob: BlobRef,
        /// Pieces, rising.
        pieces: Vec<u32>,
        /// How urgent.
        class: Class,
        /// Over the WAN: paced and counted.
        wan: bool,
        /// Why these bytes come this way.
        reason: FetchReason,
        /// Take no more than this, bytes a second; 0: no limit.
        max_bytes_per_s: u64,
    },
    /// Stop a fetch; it is answered with `Cancelled`.
    CancelFetch(Ticket),
    /// Read and check the index of a release, whose blob is complete, against the artifact's pack.
    ReadIndex {
        /// Names the answer.
        ticket: Ticket,
        /// The index blob.
        index: BlobRef,
        /// The pack that it must describe.
        pack: BlobRef,
    },
    /// Copy chunks of an open pack from the packs and trees of older releases.
    Reuse {
        /// Names the answer.
        ticket: Ticket,
        /// The index of the pack.
        index: BlobRef,
        /// The pack to fill.
        pack: BlobRef,
        /// Index and pack of releases that may have chunks.
        donors: Vec<(BlobRef, BlobRef)>,
    },
    /// Read the frame table of a carrier, whose first piece is complete.
    ReadFrames {
        /// Names the answer.
        ticket: Ticket,
        /// The carrier.
        carrier: BlobRef,
        /// The pack that it must unfold to.
        pack: BlobRef,
    },
    /// Decode one frame, whose carrier bytes are complete, into the pack.
    Decode {
        /// Names the answer.
        ticket: Ticket,
        /// The carrier.
        carrier: BlobRef,
        /// The index, for the pieces' chaining values.
        index: BlobRef,
        /// The pack.
        pack: BlobRef,
        /// The frame.
        frame: u32,
    },
    /// Take one step of an installation.
    Step {
        /// Names the answer.
        ticket: Ticket,
        /// Which installation; given to hooks.
        install_id: Hash,
        /// The release.
        release: Box<Verified<ReleaseManifest>>,
        /// What was installed before, if anything.
        before: Option<Box<Verified<ReleaseManifest>>>,
        /// The step.
        step: Step,
    },
    /// Never talk to this peer again, for [`protocol::limits::BAN`].
    Ban {
        /// The peer.
        peer: NodeId,
        /// The event's short name, e.g. `poisoned`.
        event: &'static str,
    },
    /// As a source, send to all nodes of this site together no more than this, bytes a second;
    /// `None`: no limit. As a node, the same for what the own site takes and gives.
    Pace {
        /// The site of the asker.
        site: SiteId,
        /// Bytes a second at the socket.
        bytes_per_s: Option<u64>,
    },
    /// A typed event for the log: a short name, and one line.
    Note {
        /// Short name, e.g. `metadata_rollback`.
        event: &'static str,
        /// One line with the culprit and what was done.
        line: String,
    },
}

/// Why bytes came the way they came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchReason {
    /// From a peer in the site.
    Peer,
    /// The site's first copy, by its owner.
    FirstCopy,
    /// The owner made no progress; next in rank.
    LeaseExpired,
    /// The node has no site, or is alone in it.
    NoPeer,
    /// What came first failed verification.
    VerificationFailed,
}

/// One step of an installation. The body performs it idempotently.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Verify that every byte of the release is on disk and, for a tree, write the new version's
    /// slot completely and durably. For a command recipe, unpack into the staging directory.
    WriteSlot,
    /// `tree`: rename `current` to the new version. `command`: run the steps.
    Switch,
    /// Is the release what is installed? Decides after a crash.
    Detect,
    /// Run the health check once.
    CheckHealth,
    /// `tree`: rename `current` back and drop the slot. `command`: run the undo steps.
    RollBack,
    /// Drop what an older installation left, beyond the version to go back to.
    CleanUp,
}

/// One line of where a node stands, for `status` and `why`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Standing {
    /// The rollout.
    pub rollout: RolloutId,
    /// The release, as people write it.
    pub release: String,
    /// The node's wave, counted from 0.
    pub wave: Option<u32>,
    /// Its state.
    pub state: State,
    /// One line: what it waits for and until when.
    pub why: String,
    /// Payload bytes still to come before it is staged, if known.
    pub missing_bytes: Option<u64>,
    /// Payload bytes by reason.
    pub bytes: BTreeMap<FetchReason, u64>,
}

/// The brain in a nutshell, for `status --json` and live displays.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Snapshot {
    /// At which moment.
    #[serde(skip)]
    pub now: Now,
    /// The site the node counts itself to.
    pub site: Option<SiteId>,
    /// Members in view, this node included.
    pub members: usize,
    /// Whether it is one of its site's delegates.
    pub delegate: bool,
    /// The highest order it has.
    pub orders_head: Seq,
    /// Rollouts that concern it.
    pub standings: Vec<Standing>,
}

/// Something to hand to whoever asks for orders.
pub type OrderEnvelope = Envelope;
