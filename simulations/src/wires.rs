//! The control plane of the pretend world: gossip, connections, questions and answers. Like the real
//! intake it believes nothing that is not signed, and lets nobody speak for another.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use node_core::contract::{Event, Ticket};
use protocol::envelope::Envelope;
use protocol::status::NodeStatus;
use protocol::wire::{ControlReply, ControlRequest, Notice, SiteMessage};
use protocol::{NodeId, Span};

use crate::scenario::below;
use crate::world::{Happening, World};

/// One hop of gossip inside a site.
const HOP: Span = Span::from_millis(2);
/// Nobody answers: that is noticed after so long.
const SILENCE: Span = Span::from_secs(1);

impl World {
    // ---- gossip --------------------------------------------------------------------------------

    /// Floods a message over the connections of the site's members.
    pub(crate) fn gossip(&mut self, n: usize, message: SiteMessage) {
        let Some(topic) = self.machines[n].topic.clone() else {
            return;
        };
        let message = Rc::new(message);
        let mut seen = BTreeSet::from([n]);
        let mut open = VecDeque::from([(n, 0)]);
        while let Some((at, hops)) = open.pop_front() {
            let next: Vec<usize> = self.machines[at].links.iter().copied().collect();
            for to in next {
                if self.machines[to].topic.as_ref() != Some(&topic) || !seen.insert(to) {
                    continue;
                }
                open.push_back((to, hops + 1));
                let loss = u64::from(self.scenario.faults.gossip_loss_ppm);
                if loss > 0 && below(&mut self.draws.gossip, 1_000_000) < loss {
                    continue;
                }
                let message = message.clone();
                let delay = Span(HOP.0 * (hops + 1));
                self.after(
                    delay,
                    Happening::Gossip {
                        from: n,
                        to,
                        message,
                    },
                );
            }
        }
    }

    pub(crate) fn gossip_arrives(&mut self, from: usize, to: usize, message: &SiteMessage) {
        let sender = self.machines[from].node();
        let event = match message {
            SiteMessage::Presence(p) => {
                (p.contact.node == sender).then(|| Event::Presence(p.clone()))
            }
            SiteMessage::Claim(c) => (c.node == sender).then(|| Event::Claim(c.clone())),
            SiteMessage::Status(signed) => self.fleet.status(signed).map(Event::Status),
            SiteMessage::Order(envelope) => self.fleet.order(envelope),
            SiteMessage::Receipt(envelope) => self.fleet.receipt(envelope),
        };
        if let Some(event) = event {
            self.tell(to, event);
        }
    }

    /// Hands a notice over, on the data plane.
    pub(crate) fn notify(&mut self, n: usize, to: &NodeId, notice: Notice) {
        let Some(to) = self.of_node.get(to).copied() else {
            return;
        };
        let delay = self.delay(self.machines[n].site, self.machines[to].site);
        let (process, from) = (self.machines[to].process(), self.machines[n].node());
        self.after(
            delay,
            Happening::Tell(to, process, Box::new(Event::Notice(from, notice))),
        );
    }

    // ---- connections ---------------------------------------------------------------------------

    pub(crate) fn connect(&mut self, n: usize, to: &NodeId) {
        let site = self
            .of_node
            .get(to)
            .and_then(|peer| self.machines[*peer].site);
        let delay = self.delay(self.machines[n].site, site);
        match self.of_node.get(to).copied() {
            Some(peer) => self.after(Span(delay.0 * 2), Happening::Link(n, peer)),
            None if self.is_desk(to) => {
                let process = self.machines[n].process();
                let event = Box::new(Event::Connected(*to));
                self.after(Span(delay.0 * 2), Happening::Tell(n, process, event));
            }
            None => {}
        }
    }

    pub(crate) fn link(&mut self, a: usize, b: usize) {
        let up = |world: &World, n: usize| world.machines[n].brain.is_some();
        if a == b || !up(self, a) || !up(self, b) || !self.machines[a].links.insert(b) {
            return;
        }
        self.machines[b].links.insert(a);
        let (node_a, node_b) = (self.machines[a].node(), self.machines[b].node());
        self.tell(a, Event::Connected(node_b));
        self.tell(b, Event::Connected(node_a));
    }

    pub(crate) fn disconnect(&mut self, n: usize, node: &NodeId) {
        let Some(peer) = self.of_node.get(node).copied() else {
            return;
        };
        if self.machines[n].links.remove(&peer) {
            self.unlinked(peer, n);
            let process = self.machines[n].process();
            let event = Box::new(Event::Disconnected(*node));
            self.after(Span(1), Happening::Tell(n, process, event));
        }
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
        mut request: ControlRequest,
        own: &[NodeStatus],
    ) {
        if let ControlRequest::Uplink { statuses, .. } = &mut request {
            statuses.extend(own.iter().map(|status| self.fleet.sign_status(n, status)));
        }
        let site = self
            .of_node
            .get(&to)
            .and_then(|peer| self.machines[*peer].site);
        let delay = self.delay(self.machines[n].site, site);
        let from = (n, self.machines[n].process(), ticket);
        self.after(
            delay,
            Happening::Request {
                from,
                to,
                request: Box::new(request),
            },
        );
    }

    pub(crate) fn request_arrives(
        &mut self,
        from: (usize, u32, Ticket),
        to: NodeId,
        request: ControlRequest,
    ) {
        if self.is_desk(&to) {
            return self.desk_asked(from, request);
        }
        let Some(peer) = self.of_node.get(&to).copied() else {
            return self.reply(from, None, None);
        };
        let site = self.machines[peer].site;
        if self.machines[peer].brain.is_none() {
            return self.reply(from, site, None);
        }
        match &request {
            ControlRequest::PullDocument { digest } => {
                let found = self.machines[peer]
                    .documents
                    .get(digest)
                    .map(Envelope::to_json);
                self.reply(from, site, Some(ControlReply::Document(found)));
            }
            ControlRequest::PullRoot { .. } => {
                self.reply(from, site, Some(ControlReply::Document(None)));
            }
            _ => {
                self.draws.tickets += 1;
                let ticket = Ticket(self.draws.tickets);
                self.asked.insert((peer, ticket), from);
                let from = self.machines[from.0].node();
                self.tell(
                    peer,
                    Event::Asked {
                        ticket,
                        from,
                        request,
                    },
                );
            }
        }
    }

    /// A brain answers what it was asked. A push of the coordinator needs no answer.
    pub(crate) fn replied(&mut self, n: usize, ticket: Ticket, reply: ControlReply) {
        if let Some(asker) = self.asked.remove(&(n, ticket)) {
            self.reply(asker, self.machines[n].site, Some(reply));
        }
    }

    /// Nobody answers for a process that died.
    pub(crate) fn drop_questions(&mut self, n: usize) {
        let gone: Vec<_> = self
            .asked
            .keys()
            .filter(|(peer, _)| *peer == n)
            .copied()
            .collect();
        for key in gone {
            if let Some(asker) = self.asked.remove(&key) {
                self.reply(asker, self.machines[n].site, None);
            }
        }
    }

    /// Sends an answer on its way; `None` is what a dead peer says.
    pub(crate) fn reply(
        &mut self,
        to: (usize, u32, Ticket),
        from: Option<usize>,
        reply: Option<ControlReply>,
    ) {
        let delay = match reply {
            Some(_) => self.delay(from, self.machines[to.0].site),
            None => SILENCE,
        };
        self.after(
            delay,
            Happening::Answer {
                to,
                reply: reply.map(Box::new),
            },
        );
    }

    pub(crate) fn answer_arrives(&mut self, n: usize, ticket: Ticket, reply: Option<ControlReply>) {
        match &reply {
            Some(ControlReply::Orders(orders)) => self.orders_arrive(n, orders),
            Some(ControlReply::Uplink { orders, receipt }) => {
                self.orders_arrive(n, orders);
                if let Some(event) = receipt.as_ref().and_then(|r| self.fleet.receipt(r)) {
                    self.tell(n, event);
                }
            }
            Some(ControlReply::Document(Some(bytes))) => {
                let envelope = Envelope::from_json(bytes).ok();
                let event = envelope.as_ref().and_then(|e| self.fleet.document(e));
                if let (Some(envelope), Some(event)) = (envelope, event) {
                    self.machines[n]
                        .documents
                        .insert(envelope.digest(), envelope);
                    self.tell(n, event);
                }
            }
            _ => {}
        }
        self.tell(n, Event::Answered { ticket, reply });
    }

    pub(crate) fn push_arrives(&mut self, n: usize, order: &Envelope) {
        self.orders_arrive(n, std::slice::from_ref(order));
        self.draws.tickets += 1;
        let ticket = Ticket(self.draws.tickets);
        let from = self.coordinator.node;
        let request = ControlRequest::Push {
            orders: vec![order.clone()],
        };
        self.tell(
            n,
            Event::Asked {
                ticket,
                from,
                request,
            },
        );
    }

    fn orders_arrive(&mut self, n: usize, orders: &[Envelope]) {
        for envelope in orders {
            if let Some(event) = self.fleet.order(envelope) {
                self.tell(n, event);
            }
        }
    }
}
