//! What the coordinator's control plane carries: every message to and from it, as it is encoded on the
//! wire, without the framing of TLS and QUIC.

use std::collections::BTreeMap;

use protocol::versioned::Versioned;
use protocol::wire::{ControlReply, ControlRequest};
use serde::Serialize;

/// Messages and bytes of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Weight {
    /// Messages, in and out.
    pub messages: u64,
    /// Bytes to the coordinator.
    pub bytes_in: u64,
    /// Bytes from it.
    pub bytes_out: u64,
}

impl Weight {
    /// Bytes both ways.
    pub fn bytes(&self) -> u64 {
        self.bytes_in + self.bytes_out
    }
}

/// All that was carried, by kind.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Traffic {
    /// Before the first rollout was proposed: introductions, topology.
    pub before: BTreeMap<&'static str, Weight>,
    /// Since then.
    pub rollouts: BTreeMap<&'static str, Weight>,
    #[serde(skip)]
    proposed: bool,
}

impl Traffic {
    /// The first rollout is proposed: from here on everything counts as its.
    pub(crate) fn begin(&mut self) {
        self.proposed = true;
    }

    /// Bytes both ways since the first rollout was proposed.
    pub fn bytes(&self) -> u64 {
        self.rollouts.values().map(Weight::bytes).sum()
    }

    /// A request reached the coordinator.
    pub(crate) fn asked(&mut self, request: &ControlRequest) {
        let bytes = request.to_bytes().len() as u64;
        let weight = self.weight(kind(request));
        weight.messages += 1;
        weight.bytes_in += bytes;
    }

    /// It answered a request of this kind.
    pub(crate) fn answered(&mut self, kind: &'static str, reply: &ControlReply) {
        let bytes = reply.to_bytes().len() as u64;
        let weight = self.weight(kind);
        weight.messages += 1;
        weight.bytes_out += bytes;
    }

    /// It answered a pull with so many bytes, which are not encoded again for each asker.
    pub(crate) fn documented(&mut self, kind: &'static str, bytes: u64) {
        let weight = self.weight(kind);
        weight.messages += 1;
        weight.bytes_out += bytes;
    }

    /// It pushed an order, and was answered.
    pub(crate) fn pushed(&mut self, kind: &'static str, push: &ControlRequest) {
        let bytes = push.to_bytes().len() as u64;
        let weight = self.weight(kind);
        weight.messages += 2;
        weight.bytes_out += bytes;
        weight.bytes_in += ControlReply::Done.to_bytes().len() as u64;
    }

    /// All bytes to the coordinator, and all from it.
    pub fn totals(&self) -> (u64, u64) {
        let all = self.before.values().chain(self.rollouts.values());
        all.fold((0, 0), |sum, w| (sum.0 + w.bytes_in, sum.1 + w.bytes_out))
    }

    fn weight(&mut self, kind: &'static str) -> &mut Weight {
        let phase = match self.proposed {
            true => &mut self.rollouts,
            false => &mut self.before,
        };
        phase.entry(kind).or_default()
    }
}

/// What a request is for.
pub(crate) fn kind(request: &ControlRequest) -> &'static str {
    match request {
        ControlRequest::PullOrders { .. } => "pulled orders",
        ControlRequest::PullDocument { .. } => "documents",
        ControlRequest::PullRoot { .. } => "roots",
        ControlRequest::Locate { .. } | ControlRequest::Guide { .. } => "who is here",
        ControlRequest::Uplink { .. } => "uplinks",
        ControlRequest::Push { .. } => "pushed orders",
        ControlRequest::Greet { .. } => "greetings",
        ControlRequest::Report { .. } => "reports",
        ControlRequest::Inventory(_) => "inventories",
        ControlRequest::Strangers(_) => "strangers",
        ControlRequest::Witness(_) => "witnesses",
    }
}
