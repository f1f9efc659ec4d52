//! How a node that just came finds its site: it asks the members that it saw last, before the
//! process was restarted, and then the coordinator.

use std::sync::Arc;

use protocol::limits::{PEERS_REMEMBERED_MAX, REMEMBER_PEERS_AFTER, REMEMBER_PEERS_AGAIN};
use protocol::wire::{Contact, ControlRequest, Presence};
use protocol::{NodeId, Now, SiteId, Span, Time};

use super::{Membership, Surroundings, Word};
use crate::contract::{Action, PeersRecord, Record, Ticket};
use crate::outbox::Outbox;

/// Pause before the coordinator is asked again who is here; it doubles.
const LOCATE_MIN: Span = Span::from_millis(500);
/// See [`LOCATE_MIN`].
const LOCATE_MAX: Span = Span::from_secs(30);
/// So long the coordinator's answer is awaited before it is asked once more; the answer counts whenever
/// it comes.
const LOCATE_PATIENCE: Span = Span::from_secs(2);
/// So many questions to the coordinator that met silence, and a node that sees nobody acts for its site.
/// On lossy links a question or its answer is often lost, and who takes itself for alone brings a whole
/// copy over the WAN.
const SILENCE_BEFORE_ALONE: u32 = 10;
/// A coordinator that is known not to answer, as one that refuses connections, counts as so many silences.
const REFUSAL: u32 = 5;
/// Questions whose answer is late and still welcome.
const LATE_MAX: usize = SILENCE_BEFORE_ALONE as usize;
/// Members of old that are asked at the same time.
const OLD_ASKED_MAX: usize = 4;

/// What is asked, and of whom.
#[derive(Default)]
pub(super) struct Locate {
    last: Option<PeersRecord>,
    /// Members of old that were not asked yet, the best last.
    old: Vec<Arc<Presence>>,
    asked: Vec<(Ticket, NodeId)>,
    coordinator: Option<(Ticket, NodeId)>,
    /// Earlier questions to it that may yet be answered.
    late: Vec<(Ticket, NodeId)>,
    tries: u32,
    silence: u32,
    next: Time,
    answered: bool,
    /// When the members are written down.
    pub(super) remember_at: Option<Time>,
    remembered: Time,
}

impl Locate {
    /// Knows the members that were remembered.
    pub(super) fn new(last: Option<PeersRecord>) -> Locate {
        Locate {
            last,
            ..Locate::default()
        }
    }

    /// The node is in this site now.
    pub(super) fn begin(&mut self, site: Option<&SiteId>) {
        let last = self.last.take();
        let here = last.as_ref().filter(|last| Some(&last.site) == site);
        let mut old = here.map(|last| last.members.clone()).unwrap_or_default();
        old.reverse();
        *self = Locate {
            last,
            old,
            ..Locate::default()
        };
    }

    /// Whether an answer came, or none is to be expected.
    pub(super) fn is_settled(&self) -> bool {
        self.answered || self.silence >= SILENCE_BEFORE_ALONE
    }

    fn met_silence(&mut self, question: (Ticket, NodeId)) {
        self.tries += 1;
        self.silence += 1;
        if self.late.len() == LATE_MAX {
            self.late.remove(0);
        }
        self.late.push(question);
    }

    /// When to ask the coordinator again after a question that came to nothing.
    fn again(&self, now: Now) -> Time {
        let most = match self.is_settled() {
            true => LOCATE_MAX,
            false => LOCATE_PATIENCE,
        };
        let pause = LOCATE_MIN.0.saturating_mul(1 << self.tries.min(16));
        now.boot + Span(pause.min(most.0))
    }

    pub(super) fn due(&self) -> Option<Time> {
        let old = !self.old.is_empty() && self.asked.len() < OLD_ASKED_MAX;
        let coordinator = Some(self.next);
        old.then_some(Time(0)).into_iter().chain(coordinator).min()
    }
}

impl Membership {
    pub(super) fn ask_who_is_here(&mut self, now: Now, around: &mut Surroundings<'_>) {
        if !self.members.is_empty() {
            return;
        }
        while self.locate.asked.len() < OLD_ASKED_MAX {
            let Some(old) = self.locate.old.pop() else {
                break;
            };
            // The coordinator is troubled only if none of them answers soon.
            self.locate.next = self.locate.next.max(now.boot + LOCATE_MIN);
            let ticket = self.locate_at(old.contact.clone(), around);
            self.locate.asked.push((ticket, old.contact.node));
        }
        if self.locate.next > now.boot {
            return;
        }
        if let Some(unanswered) = self.locate.coordinator.take() {
            self.locate.met_silence(unanswered);
            if self.locate.is_settled() {
                self.locate.next = self.locate.again(now);
                return;
            }
        }
        self.locate.next = now.boot + LOCATE_PATIENCE;
        let turn = self.locate.tries as usize % around.coordinators.len().max(1);
        let Some(to) = around.coordinators.get(turn).cloned() else {
            self.locate.tries += 1;
            self.locate.silence += REFUSAL;
            self.locate.next = now.boot + LOCATE_MAX;
            return;
        };
        let node = to.node;
        let ticket = self.locate_at(to, around);
        self.locate.coordinator = Some((ticket, node));
    }

    fn locate_at(&mut self, to: Contact, around: &mut Surroundings<'_>) -> Ticket {
        let ticket = around.out.ticket();
        let me = self.own_word(around);
        around.out.push(Action::Ask {
            ticket,
            to,
            request: Box::new(ControlRequest::Locate { me }),
            own_statuses: Vec::new(),
        });
        ticket
    }

    /// An answer to the question who is here came, or will not come: who was asked, if it was that
    /// question.
    pub(crate) fn located(
        &mut self,
        ticket: Ticket,
        list: Option<&[Arc<Presence>]>,
        now: Now,
    ) -> Option<NodeId> {
        let asked = &mut self.locate.asked;
        if let Some(i) = asked.iter().position(|(t, _)| *t == ticket) {
            let (_, from) = asked.swap_remove(i);
            for presence in list.unwrap_or_default() {
                let word = if presence.contact.node == from {
                    Word::Direct
                } else {
                    Word::Hearsay
                };
                self.hear(presence.clone(), word, now);
            }
            self.locate.answered |= list.is_some();
            return Some(from);
        }
        let late = self.locate.late.iter().position(|(t, _)| *t == ticket);
        let asked = match late {
            Some(i) => self.locate.late.remove(i).1,
            None => {
                let coordinator = &mut self.locate.coordinator;
                let (_, asked) = coordinator.take_if(|(t, _)| *t == ticket)?;
                self.locate.tries += 1;
                self.locate.silence += if list.is_some() { 0 } else { REFUSAL };
                self.locate.next = self.locate.again(now);
                asked
            }
        };
        self.locate.answered |= list.is_some();
        let alone = self.members.is_empty();
        for presence in list.unwrap_or_default() {
            // The coordinator hands on what each said of itself.
            self.hear(presence.clone(), Word::Own, now);
        }
        // It names a few; one of them knows the others.
        let first = self.members.keys().next().copied().filter(|_| alone);
        if let Some(first) = first {
            self.survey_at_once(first);
        }
        Some(asked)
    }

    /// Writes down whom it sees, now and then, so that it finds them again without the coordinator.
    pub(super) fn remember_members(&mut self, now: Now, out: &mut Outbox) {
        let Some(at) = self.locate.remember_at else {
            return;
        };
        let Some(site) = self.site.clone().filter(|_| at <= now.boot) else {
            return;
        };
        self.locate.remember_at = None;
        self.locate.remembered = now.boot;
        let mut ranked: Vec<_> = self.members.values().collect();
        ranked.sort_unstable_by_key(|m| (m.neighbour_rank, m.presence.contact.node));
        let members = ranked.into_iter().take(PEERS_REMEMBERED_MAX);
        let members: Vec<_> = members.map(|m| m.presence.clone()).collect();
        let last = self.locate.last.as_ref();
        let now_at = members.iter().map(|p| &p.contact);
        let same = |last: &PeersRecord| last.members.iter().map(|p| &p.contact).eq(now_at);
        // Who lost sight of everybody needs those of before.
        if members.is_empty() || last.is_some_and(same) {
            return;
        }
        let record = PeersRecord { site, members };
        self.locate.last = Some(record.clone());
        out.remember(Record::Peers(record));
    }

    /// The members changed: they are written down a little later.
    pub(super) fn members_changed(&mut self, now: Now) {
        if self.locate.remember_at.is_none() {
            let again = self.locate.remembered + REMEMBER_PEERS_AGAIN;
            let first = self.locate.remembered == Time(0);
            let soon = now.boot + REMEMBER_PEERS_AFTER;
            self.locate.remember_at = Some(if first { soon } else { soon.max(again) });
        }
    }
}
