//! Answers to this node's questions, and questions of peers.

use std::sync::Arc;

use protocol::wire::{ControlReply, ControlRequest};
use protocol::{NodeId, Now};

use super::Brain;
use crate::contract::{Action, Ticket};
use crate::membership::{Surroundings, Word};
use crate::pulls::Wanted;

impl Brain {
    pub(super) fn answered(&mut self, ticket: Ticket, reply: Option<ControlReply>, now: Now) {
        if let Some(pulled) = self.pulls.answered(ticket, now) {
            self.news.lacks = true;
            if let (Wanted::Orders, Some(ControlReply::Orders(orders))) = (pulled.wanted, &reply) {
                self.orders.pulled(pulled.after, orders);
                self.news.orders = true;
                self.membership.was_asked(&pulled.from);
            }
            if pulled.wanted == Wanted::Guides {
                let told = match &reply {
                    Some(ControlReply::Members(list)) => &list[..],
                    _ => &[],
                };
                self.guides = Some(told.iter().map(|p| p.contact.clone()).collect());
            }
            let coordinator = self.coordinators().iter().any(|c| c.node == pulled.from);
            if coordinator && self.is_newest_root(pulled.wanted, reply.as_ref()) {
                self.doubts_root = false;
            }
            if coordinator {
                self.visits.insert(pulled.from);
            }
            return;
        }
        if self.reports.answered(ticket, reply.as_ref(), now) {
            return;
        }
        if let Some(asked) = self.inventory.answered(ticket, reply.as_ref(), now) {
            if let Some(ControlReply::Refused(why)) = reply {
                let line = format!("the coordinator did not take the inventory: {why}");
                self.out.push(Action::Note {
                    event: "inventory",
                    line,
                });
            }
            self.visits.insert(asked);
            return;
        }
        if let Some(asked) = self.strangers.answered(ticket, reply.as_ref(), now) {
            if self.coordinators().iter().any(|c| c.node == asked) {
                self.visits.insert(asked);
            }
            return;
        }
        if let Some(asked) = self.witness.answered(ticket, reply.as_ref(), now) {
            self.visits.extend(asked);
            return;
        }
        let reports = &mut self.reports;
        if let Some(asked) = self.uplink.answered(ticket, reply.as_ref(), reports, now) {
            // Whether it answers decides who brings the orders.
            self.news.lacks = true;
            if let Some(ControlReply::Uplink { orders, .. }) = &reply {
                self.news.orders |= !orders.is_empty();
                self.orders.pulled(asked.after, orders);
            }
            self.visits.insert(asked.to);
            return;
        }
        let list = match &reply {
            Some(ControlReply::Members(list)) => Some(&list[..]),
            _ => None,
        };
        if self.membership.surveyed(ticket, list, now) {
            self.news.lacks = true;
        } else if let Some(asked) = self.membership.located(ticket, list, now) {
            self.news.lacks = true;
            if self.coordinators().iter().any(|c| c.node == asked) {
                self.visits.insert(asked);
            }
        }
    }

    /// Whether the answer says that there is no root after the one in force.
    fn is_newest_root(&self, asked: Wanted, reply: Option<&ControlReply>) -> bool {
        let next = self.library.root().map(|root| root.version + 1);
        let none = matches!(reply, Some(ControlReply::Document(None)));
        none && matches!(asked, Wanted::Root(version) if Some(version) == next)
    }

    pub(super) fn asked(
        &mut self,
        ticket: Ticket,
        from: NodeId,
        request: ControlRequest,
        now: Now,
    ) {
        let mut around = Surroundings {
            coordinators: &[],
            head: self.orders.head(),
            counters: &mut self.counters,
            out: &mut self.out,
        };
        let reply = match request {
            ControlRequest::PullOrders { after } => ControlReply::Orders(self.orders.after(after)),
            ControlRequest::Locate { me } => {
                let members = self.membership.everyone(&mut around);
                self.membership.hear(Arc::new(me), Word::Direct, now);
                self.news.lacks = true;
                ControlReply::Members(members)
            }
            ControlRequest::Greet { me, gone } => {
                let own = self.membership.greeted(gone, now, &mut around);
                self.membership.hear(Arc::new(me), Word::Direct, now);
                self.news.lacks = true;
                ControlReply::Members(vec![own])
            }
            ControlRequest::Push { .. } if self.coordinators().iter().any(|c| c.node == from) => {
                ControlReply::Done
            }
            ControlRequest::Push { .. } => {
                ControlReply::Refused("only a coordinator pushes".into())
            }
            ControlRequest::Uplink { .. }
            | ControlRequest::Guide { .. }
            | ControlRequest::Inventory(_) => {
                ControlReply::Refused("this is not a coordinator".into())
            }
            ControlRequest::Strangers(seen) if self.membership.is_member(&from) => {
                self.strangers.heard(seen, now);
                ControlReply::Done
            }
            ControlRequest::Witness(words) if self.membership.is_member(&from) => {
                self.witness.heard(from, words, now);
                ControlReply::Done
            }
            ControlRequest::Strangers(_) | ControlRequest::Witness(_) => {
                ControlReply::Refused("this is told to a delegate of the own site".into())
            }
            // Its statuses came as events of their own before.
            ControlRequest::Report { statuses } => self.reports.taken(&statuses),
            ControlRequest::PullDocument { .. } | ControlRequest::PullRoot { .. } => {
                ControlReply::Refused("not held here".into())
            }
        };
        let reply = Box::new(reply);
        self.out.push(Action::Reply { ticket, reply });
    }
}
