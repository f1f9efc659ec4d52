//! Fetches that are under way.

use litemap::LiteMap;
use protocol::{BlobRef, NodeId, Time};

use crate::contract::{FetchReason, Ticket};

/// One piece on its way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub blob: BlobRef,
    pub piece: u32,
    pub from: NodeId,
    pub wan: bool,
    pub reason: FetchReason,
    /// The limit that it was given, bytes a second; 0: none.
    pub rate: u64,
    /// The origin that referred to the one who sends, if it is another one.
    pub by: Option<NodeId>,
    pub started: Time,
    /// When bytes came last.
    pub moved: Time,
    /// Groups of it came.
    pub brought: bool,
    /// Still to be answered, but not counted on any more.
    pub cancelled: bool,
}

/// All of them, by ticket.
#[derive(Default)]
pub(super) struct Flights(LiteMap<Ticket, Flight>);

impl Flights {
    pub fn insert(&mut self, ticket: Ticket, flight: Flight) {
        self.0.insert(ticket, flight);
    }

    pub fn remove(&mut self, ticket: Ticket) -> Option<Flight> {
        self.0.remove(&ticket)
    }

    /// Whatever is still answered about this blob is of no interest.
    pub fn forget(&mut self, blob: BlobRef) {
        self.0.retain(|_, flight| flight.blob != blob);
    }

    pub fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Flight> {
        self.0.get_mut(&ticket)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Ticket, &Flight)> {
        self.0.iter().map(|(ticket, flight)| (*ticket, flight))
    }

    /// Fetches over the WAN, or inside the site.
    pub fn count(&self, wan: bool) -> usize {
        self.0.values().filter(|flight| flight.wan == wan).count()
    }

    /// Fetches from one node.
    pub fn from(&self, node: &NodeId) -> usize {
        self.0
            .values()
            .filter(|flight| flight.from == *node)
            .count()
    }

    /// What those over the WAN were allowed together, bytes a second.
    pub fn wan_rate(&self) -> u64 {
        self.0
            .values()
            .filter(|flight| flight.wan && !flight.cancelled)
            .map(|flight| flight.rate)
            .sum()
    }

    /// Those of one blob that are counted on.
    pub fn live(&self, blob: BlobRef) -> impl Iterator<Item = (Ticket, &Flight)> {
        self.iter()
            .filter(move |(_, flight)| flight.blob == blob && !flight.cancelled)
    }
}
