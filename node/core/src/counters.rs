//! Numbers that never go back: this node's own, and the highest that it saw of others.

use protocol::trust::Role;
use protocol::{Seq, SiteId};

use crate::contract::{CountersRecord, Record};
use crate::outbox::Outbox;

/// Own numbers are made durable in batches of so many: a crash skips the rest of a batch and never
/// repeats a number, and what a node says costs next to no writes.
const RESERVE: u64 = 1024;

/// Epochs that a node may have forgotten at once.
const EPOCHS_LOST_MAX: u32 = 16;

/// The counters of this node. What is durable is always at or ahead of what was used.
pub(crate) struct Counters {
    record: CountersRecord,
    next: Seq,
    dirty: bool,
}

impl Counters {
    /// Goes on where `record` was; `floor` is the highest number found in the node's own statuses,
    /// `epoch` the one given at enrolment.
    pub(crate) fn new(record: Option<CountersRecord>, floor: Option<Seq>, epoch: u32) -> Counters {
        let record = record.unwrap_or_default();
        let start = Seq { epoch, n: 0 };
        let next = floor
            .map_or(start, Seq::next)
            .max(record.own)
            .max(start)
            .max(Seq { epoch, n: 1 });
        Counters {
            record,
            next,
            dirty: false,
        }
    }

    /// Goes on in an epoch past `seen`, a number of this node that it does not remember to have used. Only
    /// the next [`EPOCHS_LOST_MAX`] epochs are believed at a time: nobody brings a node to the end of all
    /// numbers by one receipt.
    pub(crate) fn begin_anew(&mut self, seen: Seq) {
        let epoch = self.next.epoch;
        let most = epoch.saturating_add(EPOCHS_LOST_MAX);
        let epoch = seen.epoch.clamp(epoch, most).saturating_add(1);
        self.next = Seq { epoch, n: 1 };
    }

    /// A number of this node that was never used before.
    pub(crate) fn draw(&mut self, out: &mut Outbox) -> Seq {
        let drawn = self.next;
        self.next = drawn.next();
        if self.record.own < self.next {
            self.record.own = Seq {
                epoch: drawn.epoch,
                n: drawn.n + RESERVE,
            };
            self.dirty = true;
            self.flush(out);
        }
        drawn
    }

    /// The highest topology version that was believed.
    pub(crate) fn topology(&self) -> u64 {
        self.record.topology
    }

    /// A topology of this version is in force.
    pub(crate) fn raise_topology(&mut self, version: u64) {
        self.dirty |= version > self.record.topology;
        self.record.topology = self.record.topology.max(version);
    }

    /// The highest release counter of a product that was ever committed here.
    pub(crate) fn release(&self, product: &SiteId) -> u64 {
        self.record.releases.get(product).copied().unwrap_or(0)
    }

    /// A release of this counter was committed, or a recall brought the node back to it.
    pub(crate) fn set_release(&mut self, product: &SiteId, counter: u64) {
        let old = if counter == 0 {
            self.record.releases.remove(product)
        } else {
            self.record.releases.insert(product.clone(), counter)
        };
        self.dirty |= old.unwrap_or(0) != counter;
    }

    /// These roles lost a key: numbers that it may have given count no more.
    pub(crate) fn drop_numbers_of(&mut self, roles: &[Role]) {
        for role in roles {
            match role {
                Role::Coordinator => self.record.orders = Seq::default(),
                Role::Topology => self.record.topology = 0,
                Role::Releases => self.record.releases.clear(),
                Role::Root | Role::Plans => {}
            }
        }
        self.dirty |= !roles.is_empty();
    }

    /// The head of the orders as it was remembered.
    pub(crate) fn orders(&self) -> Seq {
        self.record.orders
    }

    /// The head of the orders rose.
    pub(crate) fn raise_orders(&mut self, head: Seq) {
        self.dirty |= head > self.record.orders;
        self.record.orders = self.record.orders.max(head);
    }

    /// Makes what changed durable.
    pub(crate) fn flush(&mut self, out: &mut Outbox) {
        if std::mem::take(&mut self.dirty) {
            out.remember(Record::Counters(self.record.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Action;

    fn remembered(out: &mut Outbox) -> Option<CountersRecord> {
        let mut last = None;
        while let Some(action) = out.pop() {
            if let Action::Remember(record) = action
                && let Record::Counters(record) = *record
            {
                last = Some(record);
            }
        }
        last
    }

    #[test]
    fn own_numbers_never_repeat_across_crashes() {
        let mut out = Outbox::default();
        let mut record = None;
        let mut last = Seq::default();
        for draws in [1, 3, 2000, 1, 1024, 5] {
            let mut counters = Counters::new(record.clone(), None, 1);
            for _ in 0..draws {
                let seq = counters.draw(&mut out);
                assert!(seq > last, "{seq} after {last}");
                last = seq;
            }
            record = remembered(&mut out).or(record);
        }
        let mut renewed = Counters::new(record, None, 2);
        assert_eq!(renewed.draw(&mut out), Seq { epoch: 2, n: 1 });
    }

    #[test]
    fn a_node_that_forgot_goes_on_past_what_it_said_and_no_receipt_takes_it_far() {
        let mut out = Outbox::default();
        let mut counters = Counters::new(None, None, 1);
        counters.draw(&mut out);
        counters.begin_anew(Seq { epoch: 1, n: 900 });
        assert_eq!(counters.draw(&mut out), Seq { epoch: 2, n: 1 });
        let record = remembered(&mut out);
        let mut again = Counters::new(record, None, 1);
        assert!(again.draw(&mut out) > Seq { epoch: 2, n: 1 }, "durable");
        counters.begin_anew(Seq {
            epoch: u32::MAX,
            n: u64::MAX,
        });
        let drawn = counters.draw(&mut out);
        assert_eq!(drawn.epoch, 2 + EPOCHS_LOST_MAX + 1);
    }

    #[test]
    fn a_recall_takes_the_release_counter_back() {
        let product: SiteId = "app".parse().unwrap();
        let mut counters = Counters::new(None, None, 1);
        counters.set_release(&product, 7);
        assert_eq!(counters.release(&product), 7);
        counters.set_release(&product, 0);
        assert_eq!(counters.release(&product), 0);
    }
}
