//! Views that differ: the list of another node is compared with one's own, and whoever stands on one
//! of them only is asked itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::limits::{GREETS_MAX, MEMBERS_MAX, SURVEY_MAX, SURVEY_MIN};
use protocol::wire::{Contact, ControlRequest, Presence};
use protocol::{NodeId, Now, Seq, Span, Time};

use super::{Membership, Surroundings, Word};
use crate::contract::{Action, Ticket};

/// What differs, and what is asked about it.
#[derive(Default)]
pub(super) struct Survey {
    /// When whose list is asked for, and which view it said it had.
    due: Option<(Time, NodeId, Option<u64>)>,
    asked: Option<(Ticket, NodeId)>,
    /// Surveys since views agreed last.
    tries: u32,
    /// Nodes to be asked whether they are there.
    doubts: BTreeSet<NodeId>,
    /// Who is being asked.
    greets: BTreeMap<Ticket, NodeId>,
}

impl Survey {
    /// Whether this node is there is to be found out by asking it.
    pub(super) fn doubt(&mut self, node: NodeId) {
        if self.doubts.len() < MEMBERS_MAX {
            self.doubts.insert(node);
        }
    }

    pub(super) fn due(&self) -> Option<Time> {
        let room = !self.doubts.is_empty() && self.greets.len() < GREETS_MAX;
        let list = self.due.filter(|_| self.asked.is_none()).map(|d| d.0);
        list.into_iter().chain(room.then_some(Time(0))).min()
    }
}

impl Membership {
    /// `from` says that it sees `theirs`; this node sees `own`.
    pub(super) fn compare_views(&mut self, from: NodeId, theirs: u64, own: u64, now: Now) {
        if theirs == own {
            self.survey.due = None;
            self.survey.tries = 0;
        } else if !self.members.contains_key(&from) && self.rumours.gone(&from).is_some() {
            // It speaks, so it is there.
            self.survey.doubt(from);
        } else if self.survey.due.is_none() && self.survey.asked.is_none() {
            let pause = SURVEY_MIN.0.saturating_mul(1 << self.survey.tries.min(16));
            let pause = pause.min(SURVEY_MAX.0);
            let at = Time(now.boot.0 + pause / 2 + self.draw(Span(pause / 2)).0);
            self.survey.due = Some((at, from, Some(theirs)));
        }
    }

    /// Asks `of` for its list at once.
    pub(super) fn survey_at_once(&mut self, of: NodeId) {
        self.survey.due = Some((Time(0), of, None));
    }

    /// Delegates of whom only others told are asked themselves: a site needs ones that are there.
    pub(super) fn check_delegates(&mut self, _now: Now) {
        for node in &self.near.delegates {
            if self.members.get(node).is_some_and(|m| !m.vouched) {
                self.survey.doubt(*node);
            }
        }
    }

    pub(super) fn tend_survey(&mut self, now: Now, around: &mut Surroundings<'_>) {
        while self.survey.greets.len() < GREETS_MAX {
            let Some(node) = self.survey.doubts.pop_first() else {
                break;
            };
            self.greet(node, around);
        }
        let due = self.survey.due.filter(|due| due.0 <= now.boot);
        let Some((_, of, theirs)) = due.filter(|_| self.survey.asked.is_none()) else {
            return;
        };
        self.survey.due = None;
        if theirs == Some(self.view()) {
            return;
        }
        self.survey.tries += 1;
        let delegates = self.near.delegates.iter();
        let turns = [of].into_iter().chain(delegates.copied());
        let contact = |n: NodeId| Some(self.members.get(&n)?.presence.contact.clone());
        let Some(to) = turns.filter_map(contact).next() else {
            return;
        };
        let ticket = around.out.ticket();
        self.survey.asked = Some((ticket, to.node));
        let me = self.own_word(around);
        self.ask(ticket, to, ControlRequest::Locate { me }, around);
    }

    /// Asks a node whether it is there.
    pub(super) fn greet(&mut self, node: NodeId, around: &mut Surroundings<'_>) {
        let gone = self.rumours.gone(&node).cloned();
        let known = self.members.get(&node).map(|m| &m.presence);
        let Some(known) = known.or(gone.as_ref()) else {
            return;
        };
        let to = known.contact.clone();
        let ticket = around.out.ticket();
        self.survey.greets.insert(ticket, node);
        let me = self.own_word(around);
        let gone = gone.map(|gone| gone.seq);
        self.ask(ticket, to, ControlRequest::Greet { me, gone }, around);
    }

    fn ask(
        &self,
        ticket: Ticket,
        to: Contact,
        request: ControlRequest,
        around: &mut Surroundings<'_>,
    ) {
        around.out.push(Action::Ask {
            ticket,
            to,
            request: Box::new(request),
            own_statuses: Vec::new(),
        });
    }

    /// A peer asks whether this node is there, which it may have taken for gone.
    pub(crate) fn greeted(
        &mut self,
        gone: Option<Seq>,
        now: Now,
        around: &mut Surroundings<'_>,
    ) -> Arc<Presence> {
        let own = self.own_word(around);
        if gone.is_some_and(|gone| gone >= own.seq) {
            self.refute(now);
        }
        Arc::new(own)
    }

    /// A list or a greeting came, or will not come; true if the ticket was of one of them.
    pub(crate) fn surveyed(
        &mut self,
        ticket: Ticket,
        list: Option<&[Arc<Presence>]>,
        now: Now,
    ) -> bool {
        if let Some(node) = self.survey.greets.remove(&ticket) {
            let answer = list.unwrap_or_default();
            let own = answer.iter().find(|p| p.contact.node == node);
            match own {
                Some(own) => self.hear(own.clone(), Word::Direct, now),
                None if self.connected.contains(&node) => {}
                None => {
                    if let Some(known) = self.members.get(&node) {
                        self.isolation.missed(node, known.presence.seq);
                    }
                    self.count_as_gone(&node, now);
                }
            }
            return true;
        }
        let Some((_, from)) = self.survey.asked.take_if(|(asked, _)| *asked == ticket) else {
            return false;
        };
        match list {
            Some(list) => self.compare_lists(from, list, now),
            None => self.survey.doubt(from),
        }
        true
    }

    fn compare_lists(&mut self, from: NodeId, list: &[Arc<Presence>], now: Now) {
        let mut told = BTreeSet::new();
        for presence in list.iter().take(MEMBERS_MAX) {
            let node = presence.contact.node;
            told.insert(node);
            let word = if node == from {
                Word::Direct
            } else {
                Word::Hearsay
            };
            self.hear(presence.clone(), word, now);
        }
        let unknown = self.members.keys().filter(|n| !told.contains(*n));
        let unknown = unknown.filter(|n| !self.connected.contains(*n)).copied();
        for node in unknown.collect::<Vec<_>>() {
            self.survey.doubt(node);
        }
    }
}
