//! Statuses: this node's own register for each rollout, and the way of all registers upward.
//!
//! A node hands its own to both delegates of its site; what only is to be counted, to the first. It
//! repeats a milestone until it has a receipt, and says it by gossip when the delegates do not help.

use std::collections::{BTreeMap, BTreeSet};

use protocol::feed::StageCounts;
use protocol::limits::{OUTPUT_TAIL_BYTES, TEXT_MAX_BYTES};
use protocol::orders::Receipt;
use protocol::status::{NodeStatus, SignedStatus, State};
use protocol::wire::{Contact, ControlReply, ControlRequest};
use protocol::{NodeId, Now, RolloutId, Seq, Span, Time, Verified};

use crate::contract::{Action, Record, RecordKey, StatusRecord, Ticket};
use crate::counters::Counters;
use crate::outbox::Outbox;
use crate::relay::{Due, Relay};

/// Without a receipt, an own status is said again after this long; the pause doubles. Every other
/// time it is gossiped too: whoever hears it keeps it.
const REPEAT_MIN: Span = Span::from_secs(20);
/// See [`REPEAT_MIN`].
const REPEAT_MAX: Span = Span::from_secs(300);
/// A delegate that did not answer is asked again after this; the pause doubles.
const RETRY_MIN: Span = Span::from_secs(1);
/// See [`RETRY_MIN`].
const RETRY_MAX: Span = Span::from_secs(30);
/// After so many failures in a row the status is gossiped.
const PATIENCE: u32 = 3;

/// All statuses that this node answers for.
#[derive(Default)]
pub(crate) struct Reports {
    own: BTreeMap<RolloutId, Box<Own>>,
    /// Own statuses on their way to delegates.
    asked: BTreeMap<Ticket, (RolloutId, NodeId, Seq)>,
    relay: Relay,
    /// The other delegates of the site, by rank.
    delegates: Vec<Contact>,
    /// Whether this node is the first delegate itself.
    first: bool,
    /// Something changed since [`Reports::tick`] was called last.
    fresh: bool,
    /// A number that this node has a receipt for and does not remember.
    forgotten: Option<Seq>,
}

struct Own {
    record: StatusRecord,
    due: Due,
    /// Delegates that have the newest.
    told: BTreeSet<NodeId>,
    retry_at: Time,
    failures: u32,
    /// Somebody is to be told once `retry_at` has come.
    waits: bool,
    repeat_at: Time,
    repeats: u32,
}

impl Own {
    /// One that nobody was told by this process.
    fn unsaid(record: StatusRecord, now: Now) -> Own {
        Own {
            due: Due::new(&record.status, false, now.boot),
            record,
            told: BTreeSet::new(),
            retry_at: Time(0),
            failures: 0,
            waits: false,
            repeat_at: now.boot + REPEAT_MIN,
            repeats: 0,
        }
    }

    fn acknowledged(&self) -> bool {
        let acknowledged = self.record.acknowledged;
        acknowledged.is_some_and(|seq| seq >= self.due.said)
    }

    /// How many of the delegates, by rank, are to have it.
    fn receivers(&self) -> usize {
        match (self.acknowledged(), self.record.status.state.ended()) {
            (false, _) => usize::MAX,
            (true, false) => 1,
            (true, true) => 0,
        }
    }
}

impl Reports {
    /// An own status that was remembered.
    pub(crate) fn restore(&mut self, record: StatusRecord, now: Now) {
        let own = Own::unsaid(record, now);
        let rollout = own.record.status.rollout.clone();
        self.own.insert(rollout, Box::new(own));
    }

    /// The highest number that an own status has.
    pub(crate) fn highest(&self) -> Option<Seq> {
        self.own.values().map(|own| own.record.status.seq).max()
    }

    /// This node's newest status for a rollout.
    pub(crate) fn own(&self, rollout: &RolloutId) -> Option<&NodeStatus> {
        self.own.get(rollout).map(|own| &own.record.status)
    }

    /// Whether the coordinator has this node's newest milestone of a rollout.
    pub(crate) fn acknowledged(&self, rollout: &RolloutId) -> bool {
        self.own.get(rollout).is_some_and(|own| own.acknowledged())
    }

    /// Says `status` if it tells anything new: numbered, remembered, then handed on. Its number and
    /// the moment of its state are filled in here. Of a node in a handful wave every state is a
    /// milestone.
    pub(crate) fn say(
        &mut self,
        mut status: NodeStatus,
        handful: bool,
        now: Now,
        counters: &mut Counters,
        out: &mut Outbox,
    ) {
        truncate_front(&mut status.output_tail, OUTPUT_TAIL_BYTES);
        truncate(&mut status.reason, TEXT_MAX_BYTES);
        let held = self.own.get(&status.rollout);
        if let Some(own) = held {
            let old = &own.record.status;
            let same = old.state == status.state
                && old.reason == status.reason
                && old.attempt == status.attempt
                && old.plan == status.plan
                && old.wave == status.wave;
            if same {
                return;
            }
            status.lan_bytes = status.lan_bytes.max(old.lan_bytes);
            status.wan_bytes = status.wan_bytes.max(old.wan_bytes);
        }
        let since = held
            .map(|own| &own.record.status)
            .filter(|old| old.state == status.state);
        status.entered_at = since.map_or(now.wall, |old| old.entered_at);
        status.seq = counters.draw(out);
        let covered = held.filter(|own| Due::covers(&own.record.status, &status, handful));
        let own = Own {
            due: covered.map_or_else(|| Due::new(&status, handful, now.boot), |own| own.due),
            repeat_at: covered.map_or(now.boot + REPEAT_MIN, |own| own.repeat_at),
            repeats: covered.map_or(0, |own| own.repeats),
            record: StatusRecord {
                acknowledged: held.and_then(|own| own.record.acknowledged),
                status,
            },
            told: BTreeSet::new(),
            retry_at: Time(0),
            failures: 0,
            waits: false,
        };
        out.remember(Record::Status(own.record.clone()));
        self.relay.touch();
        self.fresh = true;
        let rollout = own.record.status.rollout.clone();
        self.own.insert(rollout, Box::new(own));
    }

    /// Says this node's newest status again under a new number: only a receipt for that one counts.
    pub(crate) fn say_again(
        &mut self,
        rollout: &RolloutId,
        now: Now,
        counters: &mut Counters,
        out: &mut Outbox,
    ) {
        let Some(own) = self.own.get_mut(rollout) else {
            return;
        };
        own.record.status.seq = counters.draw(out);
        own.due = Due::new(&own.record.status, true, now.boot);
        own.told.clear();
        (own.retry_at, own.repeats) = (Time(0), 0);
        own.repeat_at = now.boot + REPEAT_MIN;
        out.remember(Record::Status(own.record.clone()));
        self.fresh = true;
    }

    /// The coordinator begins a new epoch: what it acknowledged before, it may have lost. Everything is
    /// said again, the own under new numbers, so that no receipt of the old epoch covers it.
    pub(crate) fn begin_anew(&mut self, now: Now, counters: &mut Counters, out: &mut Outbox) {
        for own in self.own.values_mut() {
            let mut record = own.record.clone();
            record.acknowledged = None;
            record.status.seq = counters.draw(out);
            out.remember(Record::Status(record.clone()));
            **own = Own::unsaid(record, now);
        }
        self.relay.begin_anew(now.boot);
        self.fresh = true;
    }

    /// The delegates of the site are these, by rank, and this node, if it is one.
    pub(crate) fn set_delegates(&mut self, others: Vec<Contact>, first: bool) {
        self.delegates = others;
        self.first = first;
        self.fresh = true;
    }

    /// Whether this node was said to be the first delegate.
    pub(crate) fn is_first(&self) -> bool {
        self.first
    }

    /// Hands own statuses to the other delegates, and says again what has no receipt.
    pub(crate) fn tick(&mut self, now: Now, counters: &mut Counters, out: &mut Outbox) {
        self.fresh = false;
        for (rollout, own) in &mut self.own {
            if !own.acknowledged() && own.repeat_at <= now.boot {
                let pause = REPEAT_MIN.0.saturating_mul(1 << own.repeats.min(16));
                own.repeat_at = now.boot + Span(pause.min(REPEAT_MAX.0));
                own.repeats += 1;
                own.told.clear();
                if own.repeats.is_multiple_of(2) {
                    // Gossip drops what it has seen before.
                    own.record.status.seq = counters.draw(out);
                    out.remember(Record::Status(own.record.clone()));
                    out.push(Action::GossipStatus(Box::new(own.record.status.clone())));
                }
            }
            // The first delegate counts its own by itself.
            let most = own
                .receivers()
                .saturating_sub(usize::from(self.first && own.receivers() == 1));
            let lacking: Vec<&Contact> = self
                .delegates
                .iter()
                .take(most)
                .filter(|c| !own.told.contains(&c.node))
                .filter(|c| {
                    let mut under_way = self.asked.values();
                    let this = (rollout.clone(), c.node, own.record.status.seq);
                    !under_way.any(|asked| *asked == this)
                })
                .collect();
            own.waits = !lacking.is_empty();
            if own.retry_at > now.boot {
                continue;
            }
            own.waits = false;
            for to in lacking {
                let ticket = out.ticket();
                let asked = (rollout.clone(), to.node, own.record.status.seq);
                self.asked.insert(ticket, asked);
                out.push(Action::Ask {
                    ticket,
                    to: to.clone(),
                    request: Box::new(ControlRequest::Report {
                        statuses: Vec::new(),
                    }),
                    own_statuses: vec![own.record.status.clone()],
                });
            }
        }
    }

    /// An answer to a report came, or will not come; false if it was not asked by one.
    pub(crate) fn answered(
        &mut self,
        ticket: Ticket,
        reply: Option<&ControlReply>,
        now: Now,
    ) -> bool {
        let Some((rollout, node, seq)) = self.asked.remove(&ticket) else {
            return false;
        };
        self.fresh = true;
        let Some(own) = self.own.get_mut(&rollout) else {
            return true;
        };
        if matches!(reply, Some(ControlReply::Done | ControlReply::Receipt(_))) {
            own.failures = 0;
            if own.record.status.seq == seq {
                own.told.insert(node);
            }
        } else {
            let pause = RETRY_MIN.0.saturating_mul(1 << own.failures.min(16));
            own.failures += 1;
            own.retry_at = now.boot + Span(pause.min(RETRY_MAX.0));
            if own.failures == PATIENCE && own.told.is_empty() {
                own.repeats |= 1;
                own.repeat_at = now.boot;
            }
        }
        true
    }

    /// When [`Reports::tick`] has something to do.
    pub(crate) fn timeout(&self) -> Option<Time> {
        if self.fresh {
            return Some(Time(0));
        }
        let repeat = |own: &Own| (!own.acknowledged()).then_some(own.repeat_at);
        let retry = |own: &Own| own.waits.then_some(own.retry_at);
        let own = self.own.values();
        own.flat_map(|own| [repeat(own), retry(own)])
            .flatten()
            .min()
    }

    /// When something goes upward next, `lag` later than from the first delegate.
    pub(crate) fn due(&self, lag: Span) -> Option<Time> {
        let own = self.own.values().filter(|own| !own.acknowledged());
        let own = own.map(|own| own.due.at(lag)).min();
        [own, self.relay.due(lag)].into_iter().flatten().min()
    }

    /// Keeps another node's status if it is newer than the one that is held.
    pub(crate) fn hear(
        &mut self,
        status: Verified<NodeStatus>,
        handful: bool,
        now: Now,
        out: &mut Outbox,
    ) {
        self.relay.hear(status, handful, now.boot, out);
    }

    /// What a delegate answers to a node that reports: the receipt, if all of it has one.
    pub(crate) fn taken(&self, statuses: &[SignedStatus]) -> ControlReply {
        use protocol::versioned::Versioned;
        let receipt = |signed: &SignedStatus| {
            let status = NodeStatus::from_bytes(&signed.body).ok()?;
            self.relay.receipt(status.node, &status.rollout)
        };
        match statuses {
            [one] => receipt(one).map_or(ControlReply::Done, |receipt| {
                ControlReply::Receipt(receipt.envelope().clone())
            }),
            _ => ControlReply::Done,
        }
    }

    /// What goes up now, at most `max` in all: own statuses, to be signed, and those of others.
    pub(crate) fn offer(
        &mut self,
        max: usize,
        now: Now,
        lag: Span,
    ) -> (Vec<NodeStatus>, Vec<SignedStatus>) {
        let own = self.own.values_mut().filter(|own| !own.acknowledged());
        let own: Vec<NodeStatus> = own
            .filter_map(|own| {
                let goes = own.due.offer(now.boot, lag);
                goes.then(|| own.record.status.clone())
            })
            .take(max)
            .collect();
        let others = self.relay.offer(max - own.len(), now.boot, lag);
        (own, others)
    }

    /// Whether the counts are others than they were when they were taken last.
    pub(crate) fn counts_changed(&self) -> bool {
        self.relay.changed()
    }

    /// The counts have to be told again.
    pub(crate) fn tell_counts_again(&mut self) {
        self.relay.touch();
    }

    /// What the nodes of the site are at, this one included.
    pub(crate) fn counts(&mut self) -> BTreeMap<RolloutId, StageCounts> {
        let mut counts = self.relay.counts();
        for (rollout, own) in &self.own {
            let entry = counts.entry(rollout.clone()).or_default();
            entry.add(own.record.status.state);
        }
        counts
    }

    /// Takes a receipt in; true if it acknowledged anything that was open.
    pub(crate) fn acknowledge(
        &mut self,
        me: NodeId,
        receipt: &Verified<Receipt>,
        out: &mut Outbox,
    ) -> bool {
        let mut new = false;
        for mark in &receipt.marks {
            if mark.node != me {
                new |= self.relay.acknowledge(mark, receipt);
                continue;
            }
            let Some(own) = self.own.get_mut(&mark.rollout) else {
                continue;
            };
            // No register runs ahead of its own node, unless the node's disk was put back.
            let ahead = mark.seq > own.record.status.seq;
            if ahead {
                self.forgotten = self.forgotten.max(Some(mark.seq));
            }
            if !ahead && own.record.acknowledged.is_none_or(|seq| seq < mark.seq) {
                own.record.acknowledged = Some(mark.seq);
                out.remember(Record::Status(own.record.clone()));
                new = true;
            }
        }
        new
    }

    /// The highest number that the coordinator has of this node and that the node itself does not know:
    /// its disk was put back to an earlier time. Told once.
    pub(crate) fn forgotten(&mut self) -> Option<Seq> {
        self.forgotten.take()
    }

    /// Own rollouts that have a status.
    pub(crate) fn rollouts(&self) -> impl Iterator<Item = &RolloutId> {
        self.own.keys()
    }

    /// Drops this node's register and those of others for a rollout that is over.
    pub(crate) fn forget(&mut self, rollout: &RolloutId, out: &mut Outbox) {
        if self.own.remove(rollout).is_some() {
            out.forget(RecordKey::Status(rollout.clone()));
        }
        self.relay.forget(rollout);
    }
}

/// The state of this node's register, if it says that nothing more is to come.
pub(crate) fn ended(status: Option<&NodeStatus>) -> Option<State> {
    status.map(|s| s.state).filter(|state| state.ended())
}

fn truncate(text: &mut String, max: usize) {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

fn truncate_front(text: &mut String, max: usize) {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.drain(..start);
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
