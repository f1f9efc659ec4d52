//! Fetches: from a brain's wish to a flow, and back to what is on disk.

use node_core::contract::{Event, FetchOutcome, Ticket};
use protocol::{NodeId, Span};

use crate::flows::{Flow, Link};
use crate::machine::{Fetch, NOTICED};
use crate::world::{Happening, World};

/// Bytes of a group: what of a piece is kept when a transfer ends early.
const GROUP: u64 = protocol::limits::GROUP_BYTES;

impl World {
    /// A brain wishes to fetch.
    pub(crate) fn fetch(&mut self, n: usize, ticket: Ticket, from: &NodeId, wish: Fetch) {
        let Some(source) = self.of_node.get(from).copied() else {
            return self.end_fetch(n, ticket, FetchOutcome::Broken, NOTICED);
        };
        let machine = &mut self.machines[n];
        machine.fetches.insert(
            ticket,
            Fetch {
                from: source,
                ..wish
            },
        );
        let with_peer = machine
            .fetches
            .values()
            .filter(|f| f.from == source)
            .count();
        let (all, node) = (machine.fetches.len(), machine.node());
        self.checks.fetches(self.clock(), &node, all, with_peer);
        let round_trip = self.delay(self.machines[n].site, self.machines[source].site);
        let process = self.machines[n].process();
        self.after(Span(round_trip.0 * 2), Happening::Begin(n, process, ticket));
    }

    pub(crate) fn begin_fetch(&mut self, n: usize, ticket: Ticket) {
        let Some(fetch) = self.machines[n].fetches.get(&ticket) else {
            return;
        };
        let source = &self.machines[fetch.from];
        if !source.holds_pieces(&fetch.blob, &fetch.pieces) {
            let up = source.brain.is_some();
            let outcome = if up {
                FetchOutcome::NotHeld
            } else {
                FetchOutcome::Broken
            };
            self.machines[n].fetches.remove(&ticket);
            return self.end_fetch(n, ticket, outcome, Span(1));
        }
        let parts = self.machines[n].missing(fetch);
        let (from, to) = (fetch.from, n);
        let (there, here) = (source.site, self.machines[n].site);
        let mut links = vec![Link::Out(from), Link::In(to)];
        let wan = here.filter(|_| here != there);
        if here != there {
            links.extend(there.map(Link::Up));
            links.extend(here.map(Link::Down));
        }
        links.extend(here.map(|site| Link::Pace(from, site)));
        let cap = (fetch.cap > 0).then_some(fetch.cap as f64);
        let mut flow = Flow::new(from, to, links, cap, parts);
        flow.wan = wan;
        let number = self.flows.begin(flow);
        if let Some(fetch) = self.machines[n].fetches.get_mut(&ticket) {
            fetch.flow = Some(number);
        }
        self.watch_progress();
    }

    /// Every piece of a transfer is whole.
    pub(crate) fn fetch_complete(&mut self, n: usize, number: u64) {
        let Some((ticket, ..)) = self.machines[n].fetch_of(number) else {
            return;
        };
        self.flows.end(number);
        self.machines[n].fetches.remove(&ticket);
        self.tell(
            n,
            Event::FetchEnded {
                ticket,
                outcome: FetchOutcome::Complete,
            },
        );
    }

    /// Ends a transfer early: whole groups stay.
    pub(crate) fn stop_fetch(&mut self, n: usize, ticket: Ticket) {
        let Some(fetch) = self.machines[n].fetches.remove(&ticket) else {
            return;
        };
        let Some(number) = fetch.flow else { return };
        let bytes = self.flows.take_fresh(number);
        let Some(flow) = self.flows.end(number) else {
            return;
        };
        self.count_wan(flow.wan, &fetch.blob, fetch.reason, bytes);
        let cut = self.grain.cut(fetch.blob.length);
        let Some(stored) = self.machines[n].disk.get_mut(&fetch.blob) else {
            return;
        };
        if let (Some(piece), Some(left)) =
            (fetch.pieces.get(flow.whole), flow.parts.get(flow.whole))
        {
            let range = cut.piece_range(*piece);
            let came = (range.end - range.start).saturating_sub(left.ceil() as u64) / GROUP * GROUP;
            let held = stored.partial.entry(*piece).or_default();
            *held = came.max(*held);
        }
    }

    pub(crate) fn end_fetch(
        &mut self,
        n: usize,
        ticket: Ticket,
        outcome: FetchOutcome,
        after: Span,
    ) {
        let process = self.machines[n].process();
        let event = Box::new(Event::FetchEnded { ticket, outcome });
        self.after(after, Happening::Tell(n, process, event));
    }
}
