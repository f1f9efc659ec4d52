//! The control plane of the pretend world: gossip, connections, questions and answers. Like the real
//! intake it believes nothing that is not signed, and lets nobody speak for another.

use std::collections::VecDeque;
use std::sync::Arc;

use node_core::contract::{Event, Ticket};
use protocol::envelope::Envelope;
use protocol::limits::CONTROL_REQUEST_TIMEOUT;
use protocol::orders::OrderBody;
use protocol::pieces::PieceSet;
use protocol::status::NodeStatus;
use protocol::wire::{ControlReply, ControlRequest, Notice, SiteMessage};
use protocol::{NodeId, Span};

use crate::fleet::Document;
use crate::island::{Happening, Island};
use crate::mail::{Asker, Mail};
use crate::scenario::{Lie, below};
use crate::shared::LAN_DELAY;

/// One hop of gossip inside a site.
const HOP: Span = Span::from_millis(2);
/// Nobody answers: that is noticed after so long.
const SILENCE: Span = Span::from_secs(1);

impl Island {
    // ---- gossip --------------------------------------------------------------------------------

    /// Floods a message over the connections of the site's members. It is verified once, because all
    /// come to the same verdict.
    pub(crate) fn gossip(&mut self, n: usize, message: SiteMessage) {
        if self.machines[n].topic.is_none() {
            return;
        }
        let Some(event) = self.heard(n, message) else {
            return;
        };
        let event = Arc::new(event);
        let loss = u64::from(self.shared.scenario.faults.gossip_loss_ppm);
        let twice = u64::from(self.shared.scenario.faults.gossip_duplicate_ppm);
        let mut again: Vec<(usize, u32)> = Vec::new();
        let mut seen = vec![false; self.machines.len()];
        seen[n] = true;
        let mut hops: Vec<Vec<u32>> = Vec::new();
        let mut open = VecDeque::from([(n, 0)]);
        while let Some((at, far)) = open.pop_front() {
            for to in self.machines[at].links.iter().copied() {
                if seen[to] || self.machines[to].topic != self.machines[n].topic {
                    continue;
                }
                seen[to] = true;
                open.push_back((to, far + 1));
                if twice > 0 && below(&mut self.draws.gossip, 1_000_000) < twice {
                    again.push((far + 1, to as u32));
                }
                if loss > 0 && below(&mut self.draws.gossip, 1_000_000) < loss {
                    continue;
                }
                if hops.len() <= far {
                    hops.resize(far + 1, Vec::new());
                }
                hops[far].push(to as u32);
            }
        }
        for (far, to) in again {
            if hops.len() <= far {
                hops.resize(far + 1, Vec::new());
            }
            hops[far].push(to);
        }
        for (far, to) in hops
            .into_iter()
            .enumerate()
            .filter(|(_, to)| !to.is_empty())
        {
            let delay = Span(HOP.0 * (far as u64 + 1));
            let event = event.clone();
            self.after(delay, Happening::Gossip { to, event });
        }
    }

    /// What others hear in a message, if they believe it.
    fn heard(&mut self, from: usize, message: SiteMessage) -> Option<Event> {
        let sender = self.machines[from].node();
        let fleet = &self.shared.fleet;
        match message {
            SiteMessage::Presence(p) => (p.contact.node == sender).then_some(Event::Presence(p)),
            SiteMessage::Claim(c) => (c.node == sender).then_some(Event::Claim(c)),
            SiteMessage::Slot(word) => (word.node == sender).then_some(Event::Slot(word)),
            SiteMessage::Status(signed) => fleet.status(&signed).map(Event::Status),
            SiteMessage::Order(envelope) => fleet.order(&envelope),
            SiteMessage::Receipt(envelope) => fleet.receipt(&envelope),
            SiteMessage::Missing { node, seq } => Some(Event::Missing {
                from: sender,
                node,
                seq,
            }),
            SiteMessage::Beat(beat) => Some(Event::Beat { from: sender, beat }),
        }
    }

    /// What a node says it holds, if it lies.
    fn as_said(&self, n: usize, notice: Notice) -> Notice {
        match notice {
            Notice::Have { blob, .. } if self.machines[n].traits.lie == Some(Lie::FalseHaves) => {
                let pieces = self.machines[n].config.grain.cut(blob.length).pieces();
                Notice::Have {
                    blob,
                    pieces: PieceSet::full(pieces),
                }
            }
            notice => notice,
        }
    }

    /// Hands a notice over, on the data plane.
    pub(crate) fn notify(&mut self, n: usize, to: &NodeId, notice: Notice) {
        let Some(to) = self.shared.place(to) else {
            return;
        };
        let from = self.machines[n].node();
        let notice = self.as_said(n, notice);
        if !self.reaches(n, to) {
            return;
        }
        if to.part == self.part {
            let process = self.machines[to.slot].process();
            let event = Box::new(Event::Notice(from, notice));
            return self.after(LAN_DELAY, Happening::Tell(to.slot, process, event));
        }
        let (slot, notice) = (to.slot, Box::new(notice));
        self.send(to.part, Span(0), Mail::Notice { slot, from, notice });
    }

    // ---- connections ---------------------------------------------------------------------------

    pub(crate) fn connect(&mut self, n: usize, to: &NodeId) {
        if let Some(peer) = self.slot_of(to) {
            return self.after(Span(2 * LAN_DELAY.0), Happening::Link(n, peer));
        }
        // whoever is elsewhere is asked, not listened to: a connection is as good as none
        let part = match self.shared.place(to) {
            Some(place) => place.part,
            None if *to == self.shared.coordinator.node => self.shared.hub(),
            None => return,
        };
        let way = self.shared.delay(self.part, part);
        let process = self.machines[n].process();
        let event = Box::new(Event::Connected(*to));
        self.after(Span(way.0 * 2), Happening::Tell(n, process, event));
    }

    pub(crate) fn link(&mut self, a: usize, b: usize) {
        let up = |n: usize| self.machines[n].brain.is_some();
        let apart = !self.reaches(a, self.place(b));
        if a == b || apart || !up(a) || !up(b) || !self.machines[a].links.insert(b) {
            return;
        }
        self.machines[b].links.insert(a);
        let (node_a, node_b) = (self.machines[a].node(), self.machines[b].node());
        self.tell(a, Event::Connected(node_b));
        self.tell(b, Event::Connected(node_a));
    }

    pub(crate) fn disconnect(&mut self, n: usize, node: &NodeId) {
        if *node == self.shared.coordinator.node {
            return self.hang_up(n);
        }
        let Some(peer) = self.slot_of(node) else {
            return;
        };
        if self.machines[n].links.remove(&peer) {
            self.unlinked(peer, n);
            let process = self.machines[n].process();
            let event = Box::new(Event::Disconnected(*node));
            self.after(Span(1), Happening::Tell(n, process, event));
        }
    }

    /// A node's connection to the coordinator ends.
    pub(crate) fn hang_up(&mut self, n: usize) {
        let place = self.place(n);
        self.send(self.shared.hub(), Span(0), Mail::Gone { place });
    }

    /// The other end of a connection went away.
    pub(crate) fn unlinked(&mut self, n: usize, gone: usize) {
        if self.machines[n].links.remove(&gone) {
            let (process, node) = (self.machines[n].process(), self.machines[gone].node());
            let event = Box::new(Event::Disconnected(node));
            self.after(HOP, Happening::Tell(n, process, event));
        }
    }

    // ---- questions -----------------------------------------------------------------------------

    pub(crate) fn ask(
        &mut self,
        n: usize,
        ticket: Ticket,
        to: NodeId,
        mut request: Box<ControlRequest>,
        own: &[NodeStatus],
    ) {
        let (number, fleet) = (self.machines[n].number, &self.shared.fleet);
        let own = own.iter().map(|status| fleet.sign_status(number, status));
        match &mut *request {
            ControlRequest::Uplink {
                statuses, stages, ..
            } => {
                own.for_each(|signed| statuses.push(fleet.id(), signed));
                let stages = stages.iter_mut();
                stages.for_each(|stages| fleet.sign_stages(number, stages));
                self.brought.insert((n, ticket), statuses.marks());
            }
            ControlRequest::Report { statuses } => statuses.extend(own),
            ControlRequest::Witness(words) => {
                let own = words.iter_mut().filter(|word| word.sig.is_empty());
                own.for_each(|word| fleet.sign_word(number, word));
            }
            _ => {}
        }
        let from = Asker {
            place: self.place(n),
            process: self.machines[n].process(),
            ticket,
        };
        self.machines[n].asking.insert(ticket);
        if self.shared.is_lossy() {
            let happening = Happening::Unanswered(n, from.process, ticket);
            self.after(CONTROL_REQUEST_TIMEOUT, happening);
        }
        let part = match self.shared.place(&to) {
            Some(place) if !self.reaches(n, place) => return,
            Some(place) => place.part,
            None if to == self.shared.coordinator.node => self.shared.hub(),
            None => {
                return self.send(
                    self.part,
                    SILENCE,
                    Mail::Answer {
                        to: from,
                        reply: None,
                    },
                );
            }
        };
        self.send(part, Span(0), Mail::Request { from, to, request });
    }

    pub(crate) fn request_arrives(
        &mut self,
        from: Asker,
        to: &NodeId,
        request: Box<ControlRequest>,
    ) {
        let Some(peer) = self.slot_of(to) else {
            return self.reply(from, None);
        };
        if self.machines[peer].brain.is_none() {
            return self.reply(from, None);
        }
        match &*request {
            ControlRequest::PullDocument { digest } => {
                let found = self.machines[peer].documents.get(digest).cloned();
                let to = from.place.part;
                self.send(to, Span(0), Mail::Document { to: from, found });
            }
            ControlRequest::PullRoot { .. } => {
                self.reply(from, Some(ControlReply::Document(None)));
            }
            _ => {
                if let ControlRequest::Report { statuses } = &*request {
                    for signed in statuses {
                        let status = self.shared.fleet.status(signed);
                        status
                            .into_iter()
                            .for_each(|s| self.tell(peer, Event::Status(s)));
                    }
                }
                let ticket = self.new_ticket();
                self.asked.insert((peer, ticket), from);
                let from = self.shared.fleet.node(self.shared.number(from.place));
                let event = Event::Asked {
                    ticket,
                    from,
                    request,
                };
                self.tell(peer, event);
            }
        }
    }

    fn new_ticket(&mut self) -> Ticket {
        self.draws.tickets += 1;
        Ticket(self.draws.tickets)
    }

    /// A brain answers what it was asked. A push of the coordinator needs no answer.
    pub(crate) fn replied(&mut self, n: usize, ticket: Ticket, reply: ControlReply) {
        if let Some(asker) = self.asked.remove(&(n, ticket)) {
            self.reply(asker, Some(reply));
        }
    }

    /// Nobody answers for a process that died.
    pub(crate) fn drop_questions(&mut self, n: usize) {
        let (first, last) = ((n, Ticket(0)), (n, Ticket(u64::MAX)));
        self.brought.retain(|(slot, _), _| *slot != n);
        let gone: Vec<_> = self.asked.range(first..=last).map(|(k, _)| *k).collect();
        for key in gone {
            if let Some(asker) = self.asked.remove(&key) {
                self.reply(asker, None);
            }
        }
    }

    /// Sends an answer on its way; `None` is what a dead peer says.
    fn reply(&mut self, to: Asker, reply: Option<ControlReply>) {
        let more = if reply.is_some() { Span(0) } else { SILENCE };
        let reply = reply.map(Box::new);
        self.send(to.place.part, more, Mail::Answer { to, reply });
    }

    /// An answer came, or does not come any more.
    pub(crate) fn answer_arrives(
        &mut self,
        n: usize,
        ticket: Ticket,
        reply: Option<Box<ControlReply>>,
    ) {
        let brought = self.brought.remove(&(n, ticket)).unwrap_or_default();
        if !self.machines[n].asking.remove(&ticket) {
            return;
        }
        let fleet = &self.shared.fleet;
        let receipt = match reply.as_deref() {
            Some(ControlReply::Uplink {
                receipt: Some(seal),
                ..
            }) => fleet.receipt(&seal.receipt(fleet.id(), &brought)),
            Some(ControlReply::Receipt(receipt)) => fleet.receipt(receipt),
            _ => None,
        };
        if let Some(ControlReply::Orders(orders) | ControlReply::Uplink { orders, .. }) =
            reply.as_deref()
        {
            self.orders_arrive(n, orders);
        }
        receipt.into_iter().for_each(|event| self.tell(n, event));
        self.tell(n, Event::Answered { ticket, reply });
    }

    /// A document came. Its bytes are not copied about: the brain asks for the statement inside,
    /// which comes as an event of its own.
    pub(crate) fn document_arrives(&mut self, to: Asker, found: Option<Arc<Document>>) {
        let (n, ticket) = (to.place.slot, to.ticket);
        let machine = &mut self.machines[n];
        if !machine.is_process(to.process) || !machine.asking.remove(&ticket) {
            return;
        }
        if let Some(found) = &found {
            let documents = &mut self.machines[n].documents;
            documents.insert(found.digest, found.clone());
            self.tell(n, found.event.clone());
        }
        let reply = Some(Box::new(ControlReply::Document(found.map(|_| Vec::new()))));
        self.tell(n, Event::Answered { ticket, reply });
    }

    pub(crate) fn push_arrives(&mut self, n: usize, number: u64, order: &Envelope) {
        if self.machines[n].brain.is_none() {
            return;
        }
        self.send(self.shared.hub(), Span(0), Mail::Pushed { number });
        self.orders_arrive(n, std::slice::from_ref(order));
        let ticket = self.new_ticket();
        let from = self.shared.coordinator.node;
        let request = Box::new(ControlRequest::Push {
            orders: vec![order.clone()],
        });
        let event = Event::Asked {
            ticket,
            from,
            request,
        };
        self.tell(n, event);
    }

    fn orders_arrive(&mut self, n: usize, orders: &[Envelope]) {
        for envelope in orders {
            if let Some(event) = self.shared.fleet.order(envelope) {
                self.tell(n, event);
            }
        }
    }

    /// Notes what an order tells a machine: that a release is coming, that its rollout is halted.
    pub(crate) fn note_order(&mut self, n: usize, event: &Event) {
        let Event::Order(order, _) = event else {
            return;
        };
        let now = self.time();
        let number = |rollout: &protocol::RolloutId| {
            let number = rollout.as_str().strip_prefix("rollout-")?;
            number.parse::<usize>().ok()?.checked_sub(1)
        };
        match &order.body {
            OrderBody::Bulletin(bulletin) => {
                for head in &bulletin.rollouts {
                    if let Some(release) = number(&head.rollout) {
                        self.tally.told(release, now);
                    }
                }
            }
            OrderBody::Halt { rollout, .. } => {
                if let Some(release) = number(rollout) {
                    self.tally.halted(release, n, now);
                }
            }
            _ => {}
        }
    }
}
