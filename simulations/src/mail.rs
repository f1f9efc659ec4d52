//! What crosses from one part of the world to another. It takes at least the lookahead, so each part
//! may run so far ahead by itself.

use std::sync::Arc;

use node_core::contract::{FetchOutcome, Ticket};
use protocol::envelope::Envelope;
use protocol::wire::{ControlReply, ControlRequest, Notice, Referral};
use protocol::{BlobRef, NodeId, Time};

use crate::fleet::Document;
use crate::shared::Place;

/// Who asks: a machine, as which of its processes, under which ticket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Asker {
    pub place: Place,
    pub process: u32,
    pub ticket: Ticket,
}

/// Something on its way to another part of the world.
pub struct Letter {
    /// When it arrives.
    pub at: Time,
    /// The part that sent it.
    pub from: usize,
    /// Letters that this part had sent before.
    pub number: u64,
    /// The part that it is for.
    pub to: usize,
    pub(crate) what: Mail,
}

/// What a letter says.
pub(crate) enum Mail {
    /// A request on the control plane.
    Request {
        from: Asker,
        to: NodeId,
        request: Box<ControlRequest>,
    },
    /// Its answer; none is what a dead peer says.
    Answer {
        to: Asker,
        reply: Option<Box<ControlReply>>,
    },
    /// The answer to a pull of a document, which is not copied about.
    Document {
        to: Asker,
        found: Option<Arc<Document>>,
    },
    /// The coordinator pushes an order.
    Push {
        slot: usize,
        number: u64,
        order: Arc<Envelope>,
    },
    /// To the hub: pushes up to this number came.
    Pushed { number: u64 },
    /// To the hub: a node's connection to the coordinator ended.
    Gone { place: Place },
    /// The coordinator's end of the connection is gone.
    Lost { slot: usize },
    /// A notice on the data plane.
    Notice {
        slot: usize,
        from: NodeId,
        notice: Box<Notice>,
    },
    /// Someone wishes to fetch from a machine here.
    Open {
        slot: usize,
        asker: Asker,
        blob: BlobRef,
        pieces: Vec<u32>,
        spurned: Vec<NodeId>,
    },
    /// The bytes may flow, by these limits of the source.
    Opened {
        asker: Asker,
        /// What the source gives to all of the site together.
        pace: Option<f64>,
        /// What of the source's uplink the site may take at first.
        share: Option<f64>,
        /// What it gives for this request, bytes a second; 0: no limit.
        cap: u64,
    },
    /// It stays in line.
    Queued { asker: Asker },
    /// Somebody else has the bytes.
    Referred {
        asker: Asker,
        referral: Box<Referral>,
    },
    /// A fetch that a machine here serves is over.
    Close { slot: usize, asker: Asker },
    /// The bytes do not flow, or not any more.
    Ended { asker: Asker, outcome: FetchOutcome },
    /// What a source gives to this site changed.
    Paced { source: Place, rate: Option<f64> },
    /// The release is published: the origin holds it.
    Lay { release: usize },
}

impl Mail {
    /// Whether it is said over the wire, so that it may be lost; the rest is the engine's own.
    pub fn is_said(&self) -> bool {
        matches!(
            self,
            Mail::Notice { .. }
                | Mail::Open { .. }
                | Mail::Opened { .. }
                | Mail::Queued { .. }
                | Mail::Referred { .. }
        ) || self.is_control()
    }

    /// Whether it is said on the control plane.
    pub fn is_control(&self) -> bool {
        use Mail as M;
        matches!(
            self,
            M::Request { .. }
                | M::Answer { .. }
                | M::Document { .. }
                | M::Push { .. }
                | M::Pushed { .. }
        )
    }
}

/// Puts letters into the order in which they are taken, whoever ran first.
pub fn sort(letters: &mut [Letter]) {
    letters.sort_unstable_by_key(|l| (l.to, l.at, l.from, l.number));
}
