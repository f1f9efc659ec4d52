//! Order keeping: the newest order about each subject, and how far this node's knowledge is whole.
//!
//! Superseded orders are gone, so numbers have holes and the highest number seen does not tell
//! whether something in between was missed. What is compared with peers is therefore the *head*: it
//! rises by one with the next number, or to the last number of an answer to a pull.

use std::collections::BTreeMap;

use protocol::envelope::Envelope;
use protocol::limits::{CONTROL_MAX_BYTES, ORDERS_MAX};
use protocol::orders::{Bulletin, Order, OrderBody, RolloutHead, Subject};
use protocol::plan::{Recall, RolloutPlan};
use protocol::{Hash, RolloutId, Seq, Verified};

use crate::contract::{Record, RecordKey};
use crate::outbox::Outbox;

/// Room for everything around the orders in one message.
const MESSAGE_SLACK_BYTES: usize = 1024;

/// The orders that this node keeps, obeys and hands on.
pub(crate) struct Orders {
    kept: BTreeMap<Subject, Verified<Order>>,
    recalls: BTreeMap<RolloutId, Verified<Recall>>,
    head: Seq,
    /// Entries and head of the coordinator's ledger, of the newest bulletin that told both.
    ledger: Option<(u64, Hash)>,
}

/// What became of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// Remembered; to be obeyed.
    New,
    /// Known, older than what is known, or not believed: nothing changed.
    Ignored,
}

impl Orders {
    /// No orders yet; the head was remembered as `head`.
    pub(crate) fn new(head: Seq) -> Orders {
        Orders {
            kept: BTreeMap::new(),
            recalls: BTreeMap::new(),
            head,
            ledger: None,
        }
    }

    /// An order that was remembered.
    pub(crate) fn restore(&mut self, order: Verified<Order>) {
        self.ledger = ledger_of(&order.body).or(self.ledger);
        self.kept.insert(order.body.subject(), order);
    }

    /// A recall that was remembered.
    pub(crate) fn restore_recall(&mut self, recall: Verified<Recall>) {
        self.recalls.insert(recall.rollout.clone(), recall);
    }

    /// Takes an order in and remembers it. Only then it may be obeyed and handed on.
    pub(crate) fn take(
        &mut self,
        order: Verified<Order>,
        recall: Option<Verified<Recall>>,
        out: &mut Outbox,
    ) -> Taken {
        let subject = order.body.subject();
        if let Some(held) = self.kept.get(&subject) {
            if order.seq == held.seq && order.digest() != held.digest() {
                let line = format!(
                    "two orders have the number {}; the first is kept",
                    order.seq
                );
                out.note("equivocation", line);
            }
            if order.seq < held.seq {
                let line = format!(
                    "order {} about {subject:?} is older than {}; ignored",
                    order.seq, held.seq
                );
                out.note("metadata_rollback", line);
            }
            if order.seq <= held.seq {
                return Taken::Ignored;
            }
        }
        if let OrderBody::Recall { rollout, .. } = &order.body {
            let Some(recall) = recall.filter(|r| r.rollout == *rollout) else {
                let line = format!(
                    "order {} recalls {rollout} without the approval of the plans role; ignored",
                    order.seq
                );
                out.note("threshold", line);
                return Taken::Ignored;
            };
            self.keep_recall(recall, out);
        }
        self.watch_ledger(&order.body, out);
        out.remember(Record::Order(order.clone()));
        if order.seq == self.head.next() {
            self.head = order.seq;
        }
        self.kept.insert(subject, order);
        self.keep_within_limit(out);
        Taken::New
    }

    /// These orders were handed on, rising and without holes, after `after`: if nothing was missing
    /// before, nothing is missing up to the last of them that is kept.
    pub(crate) fn pulled(&mut self, after: Seq, envelopes: &[Envelope]) {
        if after > self.head {
            return;
        }
        let digests: Vec<Hash> = envelopes.iter().map(Envelope::digest).collect();
        let kept = self.kept.values().filter(|o| digests.contains(&o.digest()));
        self.head = kept
            .map(|o| o.seq)
            .max()
            .unwrap_or(self.head)
            .max(self.head);
    }

    /// Everything up to here is known, as far as it still matters.
    pub(crate) fn head(&self) -> Seq {
        self.head
    }

    /// Orders after this number are to be pulled: the head, or lower if the bulletin names an order
    /// about a rollout that has not come.
    pub(crate) fn pull_after(&self) -> Seq {
        self.gaps()
            .map(|head| self.seen(&head.rollout))
            .min()
            .map_or(self.head, |s| s.min(self.head))
    }

    /// Whether the bulletin names an order that has not come.
    pub(crate) fn has_gaps(&self) -> bool {
        self.gaps().next().is_some()
    }

    /// Whether an order is kept above the head: something before it may be missing.
    pub(crate) fn has_holes(&self) -> bool {
        self.kept.values().any(|o| o.seq > self.head)
    }

    fn gaps(&self) -> impl Iterator<Item = &RolloutHead> {
        let heads = self.bulletin().map_or(&[][..], |b| &b.rollouts[..]);
        heads
            .iter()
            .filter(|head| head.last_order > self.seen(&head.rollout))
    }

    /// Kept orders with a higher number than `after`, rising, as many as fit one reply. None above the
    /// head: whoever asks takes the answer for whole, and a hole here would become one there.
    pub(crate) fn after(&self, after: Seq) -> Vec<Envelope> {
        let whole = |o: &&Verified<Order>| o.seq > after && o.seq <= self.head;
        let mut orders: Vec<_> = self.kept.values().filter(whole).collect();
        orders.sort_unstable_by_key(|o| o.seq);
        let mut room = CONTROL_MAX_BYTES - MESSAGE_SLACK_BYTES;
        let fits = |order: &&Verified<Order>| {
            let bytes = encoded_bytes(order.envelope());
            room.checked_sub(bytes).map(|left| room = left).is_some()
        };
        orders
            .into_iter()
            .take_while(fits)
            .map(|o| o.envelope().clone())
            .collect()
    }

    /// The newest bulletin.
    pub(crate) fn bulletin(&self) -> Option<&Bulletin> {
        match &self.kept.get(&Subject::Bulletin)?.body {
            OrderBody::Bulletin(bulletin) => Some(bulletin),
            _ => None,
        }
    }

    /// The number of the newest bulletin; zero before the first.
    pub(crate) fn bulletin_seq(&self) -> Seq {
        self.kept
            .get(&Subject::Bulletin)
            .map(|o| o.seq)
            .unwrap_or_default()
    }

    /// Whether an order is a bulletin of a later epoch than the one that is held: the coordinator was
    /// restored, and may have lost what it acknowledged.
    pub(crate) fn opens_epoch(&self, order: &Order) -> bool {
        let held = self.bulletin_seq();
        let bulletin = matches!(order.body, OrderBody::Bulletin(_));
        bulletin && held != Seq::default() && order.seq.epoch > held.epoch
    }

    /// What the newest bulletin says of a rollout; `None` if it is not alive.
    pub(crate) fn head_of(&self, rollout: &RolloutId) -> Option<&RolloutHead> {
        self.bulletin()?
            .rollouts
            .iter()
            .find(|head| head.rollout == *rollout)
    }

    /// The number of the newest order about a rollout that was seen.
    pub(crate) fn seen(&self, rollout: &RolloutId) -> Seq {
        subjects(rollout)
            .iter()
            .filter_map(|s| self.kept.get(s))
            .map(|o| o.seq)
            .max()
            .unwrap_or_default()
    }

    /// The newest lease of a rollout.
    pub(crate) fn lease(&self, rollout: &RolloutId) -> Option<&OrderBody> {
        self.lease_order(rollout).map(|order| &order.body)
    }

    /// The order that gave it.
    pub(crate) fn lease_order(&self, rollout: &RolloutId) -> Option<&Verified<Order>> {
        self.kept.get(&Subject::Lease(rollout.clone()))
    }

    /// Why a rollout is halted, if it is.
    pub(crate) fn halted(&self, rollout: &RolloutId) -> Option<&str> {
        match &self.kept.get(&Subject::Hold(rollout.clone()))?.body {
            OrderBody::Halt { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// The believed recall of a rollout under this plan. A plan that was approved after the recall
    /// begins the rollout anew.
    pub(crate) fn recalled(&self, plan: &Verified<RolloutPlan>) -> Option<&Verified<Recall>> {
        let recall = self.recalls.get(&plan.rollout)?;
        let meant = recall.plan == plan.digest() || plan.created <= recall.created;
        meant.then_some(recall)
    }

    /// Rollouts that any kept order is about.
    pub(crate) fn rollouts(&self) -> impl Iterator<Item = &RolloutId> {
        self.kept.values().filter_map(|o| o.body.rollout())
    }

    /// Drops the orders about a rollout that is over. Its recall stays: whoever holds the online key
    /// could else make the nodes forget it, and name the plan again.
    pub(crate) fn forget(&mut self, rollout: &RolloutId, out: &mut Outbox) {
        for subject in subjects(rollout) {
            if self.kept.remove(&subject).is_some() {
                out.forget(RecordKey::Order(subject));
            }
        }
    }

    /// The key that gave these orders lost its role: they are forgotten, and numbers begin anew.
    /// Approved recalls stay; they stand under a role of their own.
    pub(crate) fn drop_all(&mut self, out: &mut Outbox) {
        for subject in std::mem::take(&mut self.kept).into_keys() {
            out.forget(RecordKey::Order(subject));
        }
        self.head = Seq::default();
    }

    /// Keeps the newest recall of a rollout; only approved ones come here, so nobody fills the room
    /// with the online key alone.
    fn keep_recall(&mut self, recall: Verified<Recall>, out: &mut Outbox) {
        let held = self.recalls.get(&recall.rollout);
        if held.is_some_and(|held| held.created > recall.created) {
            return;
        }
        out.remember(Record::Recall(recall.clone()));
        self.recalls.insert(recall.rollout.clone(), recall);
        while self.recalls.len() > ORDERS_MAX {
            let Some(oldest) = self.recalls.values().min_by_key(|r| r.created) else {
                return;
            };
            let oldest = oldest.rollout.clone();
            self.recalls.remove(&oldest);
            out.forget(RecordKey::Recall(oldest));
        }
    }

    /// A ledger only grows. The bulletin counts all the same: what it orders stands under its own rules.
    fn watch_ledger(&mut self, body: &OrderBody, out: &mut Outbox) {
        let Some((entries, head)) = ledger_of(body) else {
            return;
        };
        if let Some((seen, before)) = self.ledger
            && (entries < seen || entries == seen && head != before)
        {
            let line = format!(
                "the ledger has {entries} entries and head {head}, after {seen} and {before}: it was cut, restored or written anew"
            );
            out.note("fork", line);
        }
        self.ledger = Some((entries, head));
    }

    fn keep_within_limit(&mut self, out: &mut Outbox) {
        while self.kept.len() > ORDERS_MAX {
            let others = self.kept.iter().filter(|(s, _)| **s != Subject::Bulletin);
            let Some(oldest) = others.min_by_key(|(_, o)| o.seq).map(|(s, _)| s.clone()) else {
                return;
            };
            self.kept.remove(&oldest);
            out.forget(RecordKey::Order(oldest));
        }
    }
}

fn ledger_of(body: &OrderBody) -> Option<(u64, Hash)> {
    match body {
        OrderBody::Bulletin(b) => Some((b.ledger_entries?, b.ledger_head)),
        _ => None,
    }
}

fn subjects(rollout: &RolloutId) -> [Subject; 3] {
    [
        Subject::Lease(rollout.clone()),
        Subject::Hold(rollout.clone()),
        Subject::Recall(rollout.clone()),
    ]
}

/// An upper bound of an envelope's length inside a message.
pub(crate) fn encoded_bytes(envelope: &Envelope) -> usize {
    let signatures: usize = envelope.signatures.iter().map(|s| s.sig.len() + 64).sum();
    envelope.payload.len() + envelope.payload_type.len() + signatures + 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Action;
    use protocol::fixtures::{Fleet, node, rollout, seq};

    fn notes(out: &mut Outbox) -> Vec<&'static str> {
        let mut notes = Vec::new();
        while let Some(action) = out.pop() {
            if let Action::Note { event, .. } = action {
                notes.push(event);
            }
        }
        notes
    }

    #[test]
    fn only_a_newer_order_about_a_subject_is_taken() {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
        let halt = |n| {
            let reason = "bad".to_owned();
            let halt = OrderBody::Halt {
                rollout: rollout("r"),
                reason,
            };
            fleet.order(n, halt)
        };
        let resume = fleet.order(
            6,
            OrderBody::Resume {
                rollout: rollout("r"),
            },
        );
        let mut out = Outbox::default();
        let mut orders = Orders::new(Seq::default());
        assert_eq!(orders.take(halt(5), None, &mut out), Taken::New);
        assert_eq!(orders.halted(&rollout("r")), Some("bad"));
        assert_eq!(orders.take(halt(5), None, &mut out), Taken::Ignored);
        assert_eq!(
            notes(&mut out),
            [""; 0],
            "an equal number is a silent no-op"
        );
        assert_eq!(orders.take(halt(4), None, &mut out), Taken::Ignored);
        assert_eq!(notes(&mut out), ["metadata_rollback"]);
        assert_eq!(orders.take(resume, None, &mut out), Taken::New);
        assert_eq!(orders.halted(&rollout("r")), None);
        let (recall, believed) = fleet.recall(&plan);
        assert_eq!(
            orders.take(fleet.order(7, recall.clone()), None, &mut out),
            Taken::Ignored
        );
        assert_eq!(notes(&mut out), ["threshold"]);
        assert_eq!(
            orders.take(fleet.order(7, recall), Some(believed), &mut out),
            Taken::New
        );
        assert!(orders.recalled(&plan).is_some());
        orders.forget(&rollout("r"), &mut out);
        assert_eq!(orders.rollouts().count(), 0);
        assert!(orders.recalled(&plan).is_some(), "it outlives the orders");
        let mut later = fleet.plan("r", &release, vec![node(1)]);
        later.created = later.created + protocol::Span::from_secs(1);
        let later = fleet.verified(&later);
        assert!(orders.recalled(&later).is_none(), "approved afterwards");
    }

    #[test]
    fn the_head_rises_only_where_nothing_is_missing() {
        let fleet = Fleet::new(1);
        let halt = |n, name: &str| {
            let reason = String::new();
            fleet.order(
                n,
                OrderBody::Halt {
                    rollout: rollout(name),
                    reason,
                },
            )
        };
        let mut out = Outbox::default();
        let mut peer = Orders::new(seq(0));
        for (n, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "a")] {
            peer.take(halt(n, name), None, &mut out);
        }
        assert_eq!(peer.head(), seq(4));
        let mut orders = Orders::new(seq(0));
        orders.take(halt(1, "a"), None, &mut out);
        orders.take(halt(4, "a"), None, &mut out);
        assert_eq!(orders.head(), seq(1), "2 and 3 may be missing");
        assert!(orders.has_holes());
        let answer = peer.after(orders.pull_after());
        assert_eq!(answer.len(), 3);
        orders.take(halt(2, "b"), None, &mut out);
        orders.take(halt(3, "c"), None, &mut out);
        orders.pulled(seq(1), &answer);
        assert_eq!(orders.head(), seq(4));
        assert!(!orders.has_holes());
    }

    /// A node had missed a resume and heard the lease after it. Who asked it for orders took the lease,
    /// believed that nothing was missing, and stayed halted for good.
    #[test]
    fn a_hole_is_not_handed_on() {
        let fleet = Fleet::new(1);
        let halt = OrderBody::Halt {
            rollout: rollout("r"),
            reason: String::new(),
        };
        let resume = OrderBody::Resume {
            rollout: rollout("r"),
        };
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
        let lease = fleet.lease(&plan, 0);
        let [halt, resume, lease] =
            [(1, halt), (2, resume), (3, lease)].map(|o| fleet.order(o.0, o.1));
        let mut out = Outbox::default();
        let [mut whole, mut holed, mut asker] = [0; 3].map(|_| Orders::new(seq(0)));
        for order in [&halt, &resume, &lease] {
            whole.take(order.clone(), None, &mut out);
        }
        for order in [&halt, &lease] {
            holed.take(order.clone(), None, &mut out);
        }
        asker.take(halt, None, &mut out);
        let mut ask = |peer: &Orders| {
            let after = asker.pull_after();
            let answer = peer.after(after);
            for order in [&resume, &lease] {
                if answer.contains(order.envelope()) {
                    asker.take(order.clone(), None, &mut out);
                }
            }
            asker.pulled(after, &answer);
            asker.head()
        };
        assert_eq!(ask(&holed), seq(1));
        assert_eq!(ask(&whole), seq(3));
        assert_eq!(asker.halted(&rollout("r")), None);
    }

    #[test]
    fn a_bulletin_tells_of_a_hole() {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
        let mut out = Outbox::default();
        let mut orders = Orders::new(seq(8));
        orders.take(fleet.order(3, fleet.lease(&plan, 0)), None, &mut out);
        let bulletin = fleet.bulletin(None, &[(&plan, 5)]);
        orders.take(
            fleet.order(9, OrderBody::Bulletin(bulletin)),
            None,
            &mut out,
        );
        assert_eq!(orders.head(), seq(9));
        assert!(orders.has_gaps());
        assert_eq!(orders.pull_after(), seq(3));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_bulletin() {
        let fleet = Fleet::new(1);
        let mut out = Outbox::default();
        let mut orders = Orders::new(seq(0));
        let bulletin = fleet.bulletin(None, &[]);
        orders.take(
            fleet.order(1, OrderBody::Bulletin(bulletin)),
            None,
            &mut out,
        );
        for n in 2..(ORDERS_MAX as u64 + 10) {
            let resume = OrderBody::Resume {
                rollout: rollout(&format!("r{n}")),
            };
            orders.take(fleet.order(n, resume), None, &mut out);
        }
        assert_eq!(orders.kept.len(), ORDERS_MAX);
        assert!(orders.bulletin().is_some());
    }
}
