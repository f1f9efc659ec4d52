//! The feed between a delegate and the coordinator: statuses up, orders and receipts down.
//!
//! Both delegates of a site keep a connection, so that a halt finds its way; the first one carries
//! the feed, the second what the first leaves lying. An exchange takes place when something is due
//! to go up, or as a sign of life. The coordinator pushes new orders in between.

use std::collections::BTreeSet;

use protocol::feed::{Batch, Roster, SignedStages, Stages};
use protocol::limits::{
    FEED_TAKEOVER, RECEIPT_MARKS_MAX, STAGES_INTERVAL, UPLINK_KEEPALIVE, UPLINK_STATUSES_MAX,
};
use protocol::wire::{Contact, ControlReply, ControlRequest, Presence};
use protocol::{FleetId, NodeId, Now, Seq, SiteId, Span, Time};

use crate::contract::{Action, Tempo, Ticket};
use crate::counters::Counters;
use crate::outbox::Outbox;
use crate::report::Reports;

/// The longest pause before an unreachable coordinator is tried again.
const BACKOFF_MAX: Span = Span::from_secs(5);

const _: () = assert!(RECEIPT_MARKS_MAX <= UPLINK_STATUSES_MAX);

/// The uplink of one node.
pub(crate) struct Uplink {
    tempo: Tempo,
    asked: Option<Asked>,
    not_before: Time,
    /// When a sign of life is due.
    next: Time,
    failures: u32,
    /// Exchanges in a row that were hurried and brought no missing order.
    hurries: u32,
    last: Time,
    /// The coordinator that knows this node, and as what.
    introduced: Option<(NodeId, Presence)>,
    /// The members that it was told.
    told: Option<(Option<SiteId>, BTreeSet<NodeId>)>,
    whole: bool,
    stages_at: Time,
    /// What is under way was asked before there was a new reason to ask.
    again: bool,
}

/// What a node says of itself and its site when it calls the coordinator.
pub(crate) struct Call<'a> {
    /// The fleet.
    pub(crate) fleet: FleetId,
    /// Who calls.
    pub(crate) me: Presence,
    /// The site's members in its view, itself included, if it carries the feed.
    pub(crate) members: Option<BTreeSet<NodeId>>,
    /// Orders are asked for after this.
    pub(crate) after: Seq,
    /// Whom to call.
    pub(crate) coordinators: &'a [Contact],
}

/// An exchange under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    ticket: Ticket,
    /// Whom.
    pub(crate) to: NodeId,
    at: Time,
    /// Orders were asked for after this.
    pub(crate) after: Seq,
    me: Presence,
    members: Option<BTreeSet<NodeId>>,
}

/// How much later than the first delegate another one takes statuses up.
fn lag(carries: bool) -> Span {
    if carries { Span::ZERO } else { FEED_TAKEOVER }
}

impl Uplink {
    /// Nothing asked yet.
    pub(crate) fn new(tempo: Tempo) -> Uplink {
        Uplink {
            tempo,
            asked: None,
            not_before: Time(0),
            next: Time(0),
            failures: 0,
            hurries: 0,
            last: Time(0),
            introduced: None,
            told: None,
            whole: false,
            stages_at: Time(0),
            again: false,
        }
    }

    /// When it is time to ask; `None` while an exchange is under way.
    pub(crate) fn timeout(&self, reports: &Reports, carries: bool) -> Option<Time> {
        if self.asked.is_some() {
            return None;
        }
        let stages = (carries && reports.counts_changed()).then_some(self.stages_at);
        let due = [Some(self.next), reports.due(lag(carries)), stages];
        let due = due.into_iter().flatten().min()?;
        Some(due.max(self.not_before))
    }

    /// Whether the coordinator did not answer the last time.
    pub(crate) fn is_down(&self) -> bool {
        self.failures > 0
    }

    /// Asks the coordinator.
    pub(crate) fn ask(
        &mut self,
        now: Now,
        call: Call<'_>,
        reports: &mut Reports,
        counters: &mut Counters,
        out: &mut Outbox,
    ) {
        let turn = self.failures as usize % call.coordinators.len().max(1);
        let Some(to) = call.coordinators.get(turn).cloned() else {
            self.not_before = now.boot + BACKOFF_MAX;
            return;
        };
        let Call {
            fleet,
            me,
            members,
            after,
            ..
        } = call;
        let same = |(node, held): &(NodeId, Presence)| {
            *node == to.node
                && held.contact == me.contact
                && held.site == me.site
                && held.roaming == me.roaming
        };
        let introduce = !self.introduced.as_ref().is_some_and(same);
        if introduce {
            out.push(Action::Connect(to.clone()));
        }
        // What goes up in one exchange is what one receipt can acknowledge by gossip.
        let carries = members.is_some();
        let (own_statuses, statuses) = reports.offer(RECEIPT_MARKS_MAX, now, lag(carries));
        let tells = carries && me.site.is_some() && reports.counts_changed();
        let stages = (tells && self.stages_at <= now.boot).then(|| {
            self.stages_at = now.boot + STAGES_INTERVAL;
            SignedStages::unsigned(&Stages {
                site: me.site.clone(),
                seq: counters.draw(out),
                rollouts: reports.counts().into_iter().collect(),
            })
        });
        let roster = members
            .as_ref()
            .map(|members| self.roster(me.site.as_ref(), members));
        let ticket = out.ticket();
        out.push(Action::Ask {
            ticket,
            request: Box::new(ControlRequest::Uplink {
                me: introduce.then(|| me.clone()),
                roster,
                statuses: Batch::of(fleet, statuses),
                stages,
                after,
            }),
            own_statuses,
            to: to.clone(),
        });
        self.last = now.boot;
        self.again = false;
        self.asked = Some(Asked {
            ticket,
            to: to.node,
            at: now.boot,
            after,
            me,
            members,
        });
    }

    /// The members as a change to what was told before. One who told nothing yet hopes that another
    /// delegate did.
    fn roster(&self, site: Option<&SiteId>, members: &BTreeSet<NodeId>) -> Roster {
        let told = self.told.as_ref().filter(|(at, _)| at.as_ref() == site);
        let told = told.map_or(members, |(_, told)| told);
        let all = || members.iter().copied().collect();
        Roster {
            joined: match self.whole {
                true => all(),
                false => members.difference(told).copied().collect(),
            },
            left: match self.whole {
                true => Vec::new(),
                false => told.difference(members).copied().collect(),
            },
            whole: self.whole,
            digest: Roster::digest(members),
        }
    }

    /// An answer came, or will not come; the exchange if it was this uplink's.
    pub(crate) fn answered(
        &mut self,
        ticket: Ticket,
        reply: Option<&ControlReply>,
        reports: &mut Reports,
        now: Now,
    ) -> Option<Asked> {
        let mut asked = self.asked.take_if(|asked| asked.ticket == ticket)?;
        if let Some(ControlReply::Uplink { known, .. }) = reply {
            self.failures = 0;
            self.not_before = asked.at + self.tempo.uplink;
            self.whole = !known;
            if *known {
                self.introduced = Some((asked.to, asked.me.clone()));
                if let Some(members) = asked.members.take() {
                    self.told = Some((asked.me.site.clone(), members));
                }
                self.next = match self.again {
                    true => Time(0),
                    false => asked.at + UPLINK_KEEPALIVE,
                };
            } else {
                reports.tell_counts_again();
                self.stages_at = Time(0);
                self.introduced = None;
                self.told = None;
                self.next = Time(0);
            }
        } else {
            self.failures += 1;
            let pause = self.tempo.uplink.0;
            let pause = pause.saturating_mul(1 << self.failures.min(16));
            self.not_before = now.boot + Span(pause.min(BACKOFF_MAX.0));
            self.next = Time(0);
            reports.tell_counts_again();
        }
        Some(asked)
    }

    /// Whether an exchange is under way.
    pub(crate) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// It asks at once: this node speaks with the coordinator from now on, or their connection broke.
    pub(crate) fn begin(&mut self) {
        self.next = Time(0);
        self.again = true;
    }

    /// The connection is not kept any more: the next exchange asks for one anew.
    pub(crate) fn end(&mut self) {
        self.introduced = None;
    }

    /// Orders are missing, or not any more. As long as they are it asks earlier, with a growing pause.
    pub(crate) fn hurry(&mut self, behind: bool) {
        if !behind {
            self.hurries = 0;
        } else if self.asked.is_none() {
            let pause = self.tempo.uplink.0.saturating_mul(1 << self.hurries.min(6));
            let at = self.last + Span(pause);
            if at < self.next {
                self.hurries += 1;
                self.next = at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{Fleet, contact, site};

    struct Bench {
        uplink: Uplink,
        reports: Reports,
        counters: Counters,
        out: Outbox,
        now: Now,
    }

    impl Bench {
        fn new() -> Bench {
            Bench {
                uplink: Uplink::new(Tempo::default()),
                reports: Reports::default(),
                counters: Counters::new(None, None, 1),
                out: Outbox::default(),
                now: Now::default(),
            }
        }

        /// Asks; whether a connection was asked for, and the question.
        fn ask(&mut self) -> (bool, Ticket) {
            let call = Call {
                fleet: Fleet::new(1).id(),
                me: Presence {
                    contact: contact(1),
                    site: Some(site("s1")),
                    roaming: false,
                    seq: Seq::default(),
                    orders_head: Seq::default(),
                    leaving: false,
                },
                members: None,
                after: Seq::default(),
                coordinators: &[contact(9)],
            };
            let (reports, out) = (&mut self.reports, &mut self.out);
            self.uplink
                .ask(self.now, call, reports, &mut self.counters, out);
            let (mut connects, mut asked) = (false, None);
            while let Some(action) = self.out.pop() {
                match action {
                    Action::Connect(_) => connects = true,
                    Action::Ask { ticket, .. } => asked = Some(ticket),
                    _ => {}
                }
            }
            (connects, asked.expect("a question"))
        }

        fn answer(&mut self, ticket: Ticket) {
            let reply = ControlReply::Uplink {
                orders: Vec::new(),
                receipt: None,
                known: true,
            };
            let reports = &mut self.reports;
            let of = self
                .uplink
                .answered(ticket, Some(&reply), reports, self.now);
            assert!(of.is_some());
        }

        fn due(&self) -> Time {
            let due = self.uplink.timeout(&self.reports, false);
            due.expect("nothing is under way")
        }
    }

    /// The reason was forgotten with the answer to a question from before it, and it took a sign of
    /// life to bring what had changed.
    #[test]
    fn a_reason_to_ask_that_comes_during_an_exchange_leads_to_another() {
        let mut bench = Bench::new();
        let soon = Time(0) + Tempo::default().uplink;
        let (_, ticket) = bench.ask();
        bench.uplink.begin();
        bench.answer(ticket);
        assert_eq!(bench.due(), soon);
        bench.now.boot = soon;
        let (_, ticket) = bench.ask();
        bench.answer(ticket);
        assert_eq!(bench.due(), soon + UPLINK_KEEPALIVE);
    }

    /// Who was a delegate, was none, and was one again, had no connection to be pushed to.
    #[test]
    fn a_connection_that_was_given_up_is_asked_for_again() {
        let mut bench = Bench::new();
        let (connects, ticket) = bench.ask();
        assert!(connects);
        bench.answer(ticket);
        let (connects, ticket) = bench.ask();
        assert!(!connects, "it is kept");
        bench.answer(ticket);
        bench.uplink.end();
        assert!(bench.ask().0);
    }
}
