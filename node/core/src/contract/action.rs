//! What the brain tells the body.

use super::Record;
use super::RecordKey;
use super::Ticket;
use protocol::BlobRef;
use protocol::Hash;
use protocol::NodeId;
use protocol::RolloutId;
use protocol::SiteId;
use protocol::Verified;
use protocol::manifest::ReleaseManifest;
use protocol::orders::Order;
use protocol::plan::Recall;
use protocol::plan::RolloutPlan;
use protocol::status::NodeStatus;
use protocol::topology::NodeRates;
use protocol::wire::Class;
use protocol::wire::Contact;
use protocol::wire::ControlReply;
use protocol::wire::ControlRequest;
use protocol::wire::Notice;
use protocol::wire::Referral;
use protocol::wire::SiteMessage;
use serde::Deserialize;
use serde::Serialize;

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
    GossipStatus(Box<NodeStatus>),
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
        request: Box<ControlRequest>,
        /// This node's own statuses to sign and put into an uplink.
        own_statuses: Vec<NodeStatus>,
    },
    /// Answer a request.
    Reply {
        /// The request's ticket.
        ticket: Ticket,
        /// The answer.
        reply: Box<ControlReply>,
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
        /// Tell the source that it referred us to these in vain.
        spurned: Vec<NodeId>,
    },
    /// Stop a fetch; it is answered with `Cancelled`.
    CancelFetch(Ticket),
    /// From now on serve those; at first everybody.
    Doorkeep(Door),
    /// Answer [`super::Event::Wanted`].
    Serve {
        /// The request's ticket.
        ticket: Ticket,
        /// How.
        service: Service,
    },
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
        /// What it rests on; only a detect rule needs none.
        warrant: Option<Box<Warrant>>,
        /// The step.
        step: Step,
    },
    /// Fetch nothing from this peer any more, for [`protocol::limits::BAN`]. It is served and heard as before:
    /// what it gossips is signed, and a halt may have no other way.
    Ban {
        /// The peer.
        peer: NodeId,
        /// The event's short name, e.g. `poisoned`.
        event: &'static str,
    },
    /// As a source, send to all nodes of this site together no more than this, bytes a second;
    /// `None`: no limit. As a node, what this node sends from its own site to others.
    Pace {
        /// The site of the asker.
        site: SiteId,
        /// Bytes a second at the socket.
        bytes_per_s: Option<u64>,
    },
    /// This node moves no more than this, for all sites together, LAN and WAN apart.
    PaceSelf(NodeRates),
    /// Tell the machine's user, if there is a way to: what comes when, and what may be wished.
    GiveNotice {
        /// Of which rollout.
        rollout: RolloutId,
        /// One line.
        line: String,
    },
    /// Answer [`super::Event::Wished`].
    Granted {
        /// The wish.
        ticket: Ticket,
        /// What came of it, or why it cannot be; one line.
        answer: Result<String, String>,
    },
    /// A typed event for the log: a short name, and one line.
    Note {
        /// Short name, e.g. `metadata_rollback`.
        event: &'static str,
        /// One line with the culprit and what was done.
        line: String,
    },
}

/// What a step rests on: whoever takes it can verify that operators want it here and now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warrant {
    /// The plan that is followed.
    pub plan: Verified<RolloutPlan>,
    /// The newest lease of its rollout.
    pub lease: Option<Verified<Order>>,
    /// Its recall.
    pub recall: Option<Verified<Recall>>,
    /// The site by which the node found its wave.
    pub site: Option<SiteId>,
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
    /// The site's first copy, from another site to which the origin referred.
    Sibling,
    /// The site has no peers, as its topology says.
    Policy,
}

/// Whom a node serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Door {
    /// Everybody.
    #[default]
    Open,
    /// Its own site; about nodes of others it is asked with [`super::Event::Wanted`].
    Asks,
    /// Nobody.
    Shut,
}

/// How a request of another site's node is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Service {
    /// Send it, at no more than so many bytes a second; 0: no limit of the brain's.
    Send {
        /// The limit.
        max_bytes_per_s: u64,
    },
    /// Somebody else sends it.
    Refer(Referral),
    /// Not now.
    Busy,
    /// Not between these sites.
    Refuse,
}

/// One step of an installation. The body performs it idempotently.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Verify that every byte of the release is on disk and, for a tree, write the new version's
    /// slot completely and durably. For a command recipe, unpack into the staging directory.
    WriteSlot,
    /// `tree`: rename `current` to the new version. `command`: run the steps.
    Switch,
    /// Run the pre hook of the manifest, in this attempt. Never asked for again in the same attempt.
    PreHook(u32),
    /// Run the post hook, likewise.
    PostHook(u32),
    /// Is the release what is installed? Decides after a crash.
    Detect,
    /// Of the agent's own release: have the version that is in use run, which ends this process unless it is
    /// that version; `Done` once that version runs, by whichever process that is. Of any other: ask the
    /// machine to restart; `Done` once it was asked.
    Restart,
    /// The version of the agent that runs has proved itself and is not put back by itself any more.
    Keep,
    /// Run the health check once.
    CheckHealth,
    /// `tree`: rename `current` back and drop the slot. `command`: run the undo steps.
    RollBack,
    /// Nothing was switched: drop the slot, or the unpacked files, and leave all else as it is.
    Discard,
    /// Drop what an older installation left, beyond the version to go back to.
    CleanUp,
}
