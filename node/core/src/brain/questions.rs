//! Answers to this node's questions, and questions of peers.

use protocol::NodeId;
use protocol::Now;
use protocol::wire::{ControlReply, ControlRequest};

use super::Brain;
use crate::contract::{Action, Ticket};
use crate::pulls::Wanted;

/// Members that are named in one answer to a newcomer.
const TRACKED_MAX: usize = 256;

impl Brain {
    pub(super) fn answered(&mut self, ticket: Ticket, reply: Option<ControlReply>, now: Now) {
        if let Some(pulled) = self.pulls.answered(ticket, now) {
            self.news.lacks = true;
            if let (Wanted::Orders, Some(ControlReply::Orders(orders))) = (pulled.wanted, &reply) {
                self.orders.pulled(pulled.after, orders);
                self.news.orders = true;
            }
            if self.coordinators().iter().any(|c| c.node == pulled.from) {
                self.visits.insert(pulled.from);
            }
            return;
        }
        let more = self.reports.has_offers(now);
        if let Some(asked) = self.uplink.answered(ticket, reply.as_ref(), more, now) {
            // Whether it answers decides who brings the orders.
            self.news.lacks = true;
            if let Some(ControlReply::Uplink { orders, .. }) = &reply {
                self.news.orders |= !orders.is_empty();
                self.orders.pulled(asked.after, orders);
            }
            self.visits.insert(asked.to);
            return;
        }
        let found = matches!(reply, Some(ControlReply::Members(_)));
        if let Some(asked) = self.membership.located(ticket, found, now) {
            self.visits.insert(asked);
            if let Some(ControlReply::Members(members)) = reply {
                members
                    .into_iter()
                    .for_each(|presence| self.membership.hear(presence, now));
            }
        }
    }

    pub(super) fn asked(&mut self, ticket: Ticket, from: NodeId, request: &ControlRequest) {
        let reply = match request {
            ControlRequest::PullOrders { after } => ControlReply::Orders(self.orders.after(*after)),
            ControlRequest::Locate { .. } => {
                let members = self.membership.members().values();
                ControlReply::Members(
                    members
                        .take(TRACKED_MAX)
                        .map(|m| m.presence.clone())
                        .collect(),
                )
            }
            ControlRequest::Push { .. } if self.coordinators().iter().any(|c| c.node == from) => {
                ControlReply::Done
            }
            ControlRequest::Push { .. } => {
                ControlReply::Refused("only a coordinator pushes".into())
            }
            ControlRequest::Uplink { .. } => {
                ControlReply::Refused("this is not a coordinator".into())
            }
            ControlRequest::PullDocument { .. } | ControlRequest::PullRoot { .. } => {
                ControlReply::Refused("not held here".into())
            }
        };
        self.out.push(Action::Reply { ticket, reply });
    }
}
