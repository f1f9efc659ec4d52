//! What nodes say to each other: gossip inside a site, requests on the control plane, requests and
//! notices on the data plane. Statements travel inside as envelopes and are believed only after
//! [`crate::trust::Trust::verify`]; the rest are hints of an admitted peer.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blob::BlobRef;
use crate::envelope::Envelope;
use crate::feed::{Batch, Roster, Seal, SignedStages};
use crate::ids::{Hash, NodeId, Seq, SiteId};
use crate::inventory::SignedInventory;
use crate::limits::{
    CONTROL_MAX_BYTES, GOSSIP_MAX_BYTES, NOTICE_MAX_BYTES, REFERRAL_MAX_BYTES, REQUEST_MAX_BYTES,
};
use crate::pieces::PieceSet;
use crate::slots::SlotWord;
use crate::status::SignedStatus;
use crate::strangers::Stranger;
use crate::versioned::Versioned;
use crate::witness::SignedWord;

/// libp2p protocol name of control requests.
pub const CONTROL_PROTOCOL: &str = "/tidegate/control/1";
/// ALPN of the data plane.
pub const DATA_ALPN: &[u8] = b"tidegate-data/1";
/// ALPN of the data plane over TCP, where a connection carries one exchange after the other.
pub const DATA_TCP_ALPN: &[u8] = b"tidegate-data-tcp/1";

/// The gossip topic of a site.
pub fn site_topic(fleet: &crate::ids::FleetId, site: &SiteId) -> String {
    format!("tidegate/1/{}/{site}", fleet.short())
}

/// Where a node is reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contact {
    /// The node.
    pub node: NodeId,
    /// libp2p listen addresses as multiaddr text, without the peer id; shared, because a contact is handed
    /// about all the time and its addresses hardly ever change.
    pub control: Arc<[String]>,
    /// Its data endpoint: UDP, and the same port for TCP unless something else has it there.
    pub data: Option<SocketAddr>,
}

/// A node says that it is here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Presence {
    /// Where it is reached.
    pub contact: Contact,
    /// Its site, if it is in one.
    pub site: Option<SiteId>,
    /// On battery, metered or VPN: owns nothing, serves nobody.
    pub roaming: bool,
    /// Rises at every start of the node and with every presence.
    pub seq: Seq,
    /// The highest order that it has.
    pub orders_head: Seq,
    /// It is about to go.
    pub leaving: bool,
}

/// A fetcher says which pieces it fetches over the WAN or is about to. What is held is all that it
/// holds of the blob: it replaces what it said before, so that a claim that was missed or came late
/// does harm no longer than until the next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// Who claims.
    pub node: NodeId,
    /// Of which blob.
    pub blob: Hash,
    /// Which pieces, by number.
    pub pieces: Vec<u32>,
    /// False says which pieces must not be expected of this node; with no piece at all, that nothing of
    /// the blob must until it claims some.
    pub held: bool,
    /// So many of the pieces, the first ones, are under way or were brought lately.
    pub under_way: u32,
}

/// Where a node stands, so that others notice what they missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Beat {
    /// Its head of the orders.
    pub head: Seq,
    /// Exclusive or of the fingerprints of everyone it sees in the site, itself included.
    pub view: u64,
    /// Rises: gossip drops what it has seen before.
    pub count: u32,
}

/// Gossip inside a site.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SiteMessage {
    /// I am here.
    Presence(Arc<Presence>),
    /// I am about to fetch these over the WAN.
    Claim(Claim),
    /// A status of its sender or of another node.
    Status(SignedStatus),
    /// An order, as the coordinator signed it.
    Order(Envelope),
    /// A receipt, as the coordinator signed it.
    Receipt(Envelope),
    /// I cannot reach this neighbour any more. It counts as gone unless it speaks again.
    Missing {
        /// The neighbour.
        node: NodeId,
        /// The number of the presence that is meant.
        seq: Seq,
    },
    /// This is where I stand.
    Beat(Beat),
    /// What I do with a restart slot.
    Slot(SlotWord),
}

impl Versioned for SiteMessage {
    const MAGIC: [u8; 4] = *b"TGSM";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = GOSSIP_MAX_BYTES;
}

/// A control request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ControlRequest {
    /// Orders with a higher number than this, rising.
    PullOrders {
        /// The asker's head.
        after: Seq,
    },
    /// A signed statement, root or revocation list by its digest.
    PullDocument {
        /// Its digest.
        digest: Hash,
    },
    /// Root metadata of a version.
    PullRoot {
        /// The version.
        version: u64,
    },
    /// To the coordinator or a member: who is in this site? Also introduces the asker.
    Locate {
        /// The asker.
        me: Presence,
    },
    /// To the coordinator, from a delegate or a node without a site.
    Uplink {
        /// Who carries it; left out when the coordinator was told and knows it still.
        me: Option<Presence>,
        /// The site's members, from the delegate that carries the site's feed; the other one only
        /// keeps its connection.
        roster: Option<Roster>,
        /// Statuses that were not acknowledged yet.
        statuses: Batch,
        /// What the site's nodes are at, if that changed.
        stages: Option<SignedStages>,
        /// The delegate's order head.
        after: Seq,
    },
    /// From the coordinator to a delegate: new orders.
    Push {
        /// The orders, rising.
        orders: Vec<Envelope>,
    },
    /// Are you there? Answered with [`ControlReply::Members`] that names the asked node alone.
    Greet {
        /// The asker.
        me: Presence,
        /// The number under which the asker took the other for gone.
        gone: Option<Seq>,
    },
    /// From a node to a delegate of its site: statuses of its own, to be carried upward.
    Report {
        /// The statuses.
        statuses: Vec<SignedStatus>,
    },
    /// To the coordinator, from a node that has no topology yet and so knows no site: who nearby may
    /// have it? Answered with [`ControlReply::Members`], which is a hint whom to ask and nothing else.
    Guide {
        /// The asker.
        me: Presence,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// To the coordinator, from a node: what it says of itself. Answered with [`ControlReply::Done`].
    Inventory(SignedInventory),
    /// From a node to a delegate of its site, and from a delegate or a node without a site to the
    /// coordinator: who knocked and was not let in. Answered with [`ControlReply::Done`]; what is over
    /// [`crate::limits::STRANGERS_MAX`] is not heard.
    Strangers(Vec<Stranger>),
    /// From a node to the delegates of its site, its own word; and from a delegate to the coordinator, words of
    /// its site. Answered with [`ControlReply::Done`]; what is over
    /// [`crate::limits::WITNESS_WORDS_MAX`] is not heard.
    Witness(Vec<SignedWord>),
}

impl Versioned for ControlRequest {
    const MAGIC: [u8; 4] = *b"TGCQ";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = CONTROL_MAX_BYTES;
}

/// The answer to a control request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ControlReply {
    /// Orders with rising numbers; not necessarily all.
    Orders(Vec<Envelope>),
    /// The document's bytes, if they are held: an envelope as JSON, or a revocation list as DER.
    Document(#[serde(with = "document")] Option<Vec<u8>>),
    /// Members of the asker's site.
    Members(Vec<Arc<Presence>>),
    /// Orders after the delegate's head, and receipts for what it brought.
    Uplink {
        /// The orders, rising.
        orders: Vec<Envelope>,
        /// The signature of a [`crate::orders::Receipt`], if statuses came.
        receipt: Option<Seal>,
        /// False if who called or its site's members have to be told anew.
        known: bool,
    },
    /// Taken.
    Done,
    /// Not here, or not now.
    Refused(String),
    /// To a node that reports what is acknowledged: a [`crate::orders::Receipt`].
    Receipt(Envelope),
}

impl Versioned for ControlReply {
    const MAGIC: [u8; 4] = *b"TGCR";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = CONTROL_MAX_BYTES;
}

/// A document on its way: an envelope travels in its short form, and is written as JSON again by whoever
/// gets it.
mod document {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::envelope::Envelope;

    #[derive(Serialize, Deserialize)]
    enum Document {
        Statement(Envelope),
        AsItIs(Vec<u8>),
    }

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
        let document = bytes
            .as_ref()
            .map(|bytes| match Envelope::from_json(bytes) {
                Ok(envelope) if envelope.to_json() == *bytes => Document::Statement(envelope),
                _ => Document::AsItIs(bytes.clone()),
            });
        document.serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
        let document = Option::<Document>::deserialize(d)?;
        Ok(document.map(|document| match document {
            Document::Statement(envelope) => envelope.to_json(),
            Document::AsItIs(bytes) => bytes,
        }))
    }
}

/// How urgent a transfer is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub enum Class {
    /// Staging ahead.
    Background,
    /// A wave that is open.
    #[default]
    Normal,
    /// An emergency.
    Emergency,
}

/// A request for groups of a blob, on a bidirectional stream of the data plane. The reply is a
/// [`DataReply`], then for each range, in order, the bao encoding of its groups.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DataRequest {
    /// The blob, as the signed manifest names it.
    pub blob: BlobRef,
    /// Groups `[start, end)`, rising, not touching.
    pub groups: Vec<(u64, u64)>,
    /// How urgent.
    pub class: Class,
    /// The asker takes no more than this, bytes a second; 0: no limit.
    pub max_bytes_per_s: u64,
    /// To these the asker was referred for these groups, and they did not give them.
    pub spurned: Vec<NodeId>,
}

impl Versioned for DataRequest {
    const MAGIC: [u8; 4] = *b"TGDQ";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = REQUEST_MAX_BYTES;
}

/// Who else gives what was asked for: a node of another site, to which it was promised. The asker keeps
/// to the rate, because it is cut out of what both sites' links have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Referral {
    /// Holders to ask, best first; at most [`crate::limits::REFERRALS_MAX`].
    pub holders: Vec<Contact>,
    /// Bytes a second to ask for; 0: no limit.
    pub max_bytes_per_s: u64,
}

impl Versioned for Referral {
    const MAGIC: [u8; 4] = *b"TGDF";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = REFERRAL_MAX_BYTES;
}

/// What comes before the bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DataReply {
    /// The groups follow.
    Sending,
    /// Not held (any more).
    NotHeld,
    /// Too many requests at once; ask again later or elsewhere.
    Busy,
    /// Malformed or not allowed.
    Refused,
    /// Others come first; stay, another reply follows.
    Queued,
    /// Somebody else gives it: ask there.
    Referred(Referral),
}

/// A notice on a unidirectional stream of the data plane.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Notice {
    /// What the sender holds of a blob. A set names everything held; it replaces the one before.
    Have {
        /// The blob.
        blob: BlobRef,
        /// All complete pieces.
        pieces: PieceSet,
    },
    /// Pieces that the sender has won since its last notice about the blob.
    Won {
        /// The blob.
        blob: BlobRef,
        /// The new pieces, by number.
        pieces: Vec<u32>,
    },
    /// The sender wants the blob, asks for a `Have` and wants to hear of every piece won from now on.
    Interested {
        /// The blob.
        blob: BlobRef,
    },
    /// The sender wants the blob and asks for a `Have`, this once.
    Asking {
        /// The blob.
        blob: BlobRef,
    },
    /// The sender's claim, for one who may not have heard it.
    Claimed(Claim),
    /// The sender took a piece of the blob from the receiver, and it verified. Said to those who bring the
    /// blob over the WAN: without it they cannot know whether it is of use to anybody.
    Took {
        /// The blob.
        blob: BlobRef,
    },
}

impl Versioned for Notice {
    const MAGIC: [u8; 4] = *b"TGDN";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = NOTICE_MAX_BYTES;
}
