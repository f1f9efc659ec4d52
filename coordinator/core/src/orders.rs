//! The order book: numbers, what is retained, and what the bulletin must say.

use std::collections::BTreeMap;

use protocol::orders::{Bulletin, Order, OrderBody, Subject};
use protocol::{RolloutId, Seq};

/// All orders that still mean something: the newest about each subject.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct OrderBook {
    head: Seq,
    retained: BTreeMap<Subject, Order>,
    /// For each rollout the last order that was more than a lease. Who misses a lease starts nothing,
    /// so the bulletin need not name it, and need not be issued with each.
    telling: BTreeMap<RolloutId, Seq>,
}

impl OrderBook {
    /// Folds a new epoch.
    pub fn open_epoch(&mut self, epoch: u32) {
        self.head = self.head.max(Seq { epoch, n: 0 });
    }

    /// Folds an order.
    pub fn fold(&mut self, order: &Order) {
        self.head = self.head.max(order.seq);
        let subject = order.body.subject();
        if let Some(rollout) = order.body.rollout()
            && !matches!(order.body, OrderBody::GoLease { .. })
        {
            self.telling.insert(rollout.clone(), order.seq);
        }
        self.retained.insert(subject, order.clone());
    }

    /// The number that the next order gets.
    pub fn next(&self) -> Seq {
        self.head.next()
    }

    /// The highest number that was given.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Whether nothing was ordered in this epoch yet.
    pub fn fresh_epoch(&self) -> bool {
        self.head.n == 0
    }

    /// The last order about a rollout that its nodes must have seen.
    pub fn last_about(&self, rollout: &RolloutId) -> Option<Seq> {
        self.telling.get(rollout).copied()
    }

    /// The bulletin in force.
    pub fn bulletin(&self) -> Option<&Bulletin> {
        match self.retained.get(&Subject::Bulletin).map(|o| &o.body) {
            Some(OrderBody::Bulletin(bulletin)) => Some(bulletin),
            _ => None,
        }
    }

    /// Forgets a rollout that left the bulletin: without being named there its orders move nobody.
    pub fn forget(&mut self, rollout: &RolloutId) {
        self.retained
            .retain(|_, order| order.body.rollout() != Some(rollout));
        self.telling.remove(rollout);
    }

    /// Retained orders after `after`, rising.
    pub fn after(&self, after: Seq) -> Vec<Order> {
        let mut orders: Vec<Order> = self
            .retained
            .values()
            .filter(|o| o.seq > after)
            .cloned()
            .collect();
        orders.sort_by_key(|o| o.seq);
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{Fleet, node, rollout, seq};

    #[test]
    fn the_newest_about_each_subject_is_retained() {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
        let mut book = OrderBook::default();
        book.open_epoch(1);
        assert!(book.fresh_epoch());
        assert_eq!(book.next(), seq(1));
        let id = rollout("r");
        let halt = OrderBody::Halt {
            rollout: id.clone(),
            reason: "no".into(),
        };
        let given = [
            (fleet.lease(&plan, 0), None),
            (fleet.lease(&plan, 0), None),
            (fleet.lease(&plan, 1), None),
            (halt, Some(seq(4))),
            (
                OrderBody::Resume {
                    rollout: id.clone(),
                },
                Some(seq(5)),
            ),
            (fleet.lease(&plan, 1), Some(seq(5))),
        ];
        for (n, (body, telling)) in given.into_iter().enumerate() {
            book.fold(&fleet.order(n as u64 + 1, body));
            assert_eq!(book.last_about(&id), telling, "after order {}", n + 1);
        }
        let numbers = |book: &OrderBook, after| -> Vec<u64> {
            book.after(seq(after)).iter().map(|o| o.seq.n).collect()
        };
        assert_eq!(numbers(&book, 0), vec![5, 6]);
        assert_eq!(numbers(&book, 5), vec![6]);
        book.forget(&id);
        assert!(numbers(&book, 0).is_empty());
        assert_eq!(book.last_about(&id), None);
        book.open_epoch(2);
        assert_eq!(book.next(), Seq { epoch: 2, n: 1 });
        assert!(book.fresh_epoch());
    }
}
