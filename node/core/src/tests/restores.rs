//! The coordinator was restored from a backup: what it acknowledged before, it may have lost.

use protocol::Seq;
use protocol::orders::{Order, OrderBody};
use protocol::status::State;
use protocol::trust::Statement as _;

use super::World;
use crate::contract::Event;

/// A restored coordinator waited for ever for statuses that their nodes thought to have delivered. The
/// bulletin of a new epoch makes a node say them again, under numbers that no old receipt covers, also
/// when it crashes right then.
#[test]
fn a_new_epoch_makes_a_node_say_again_what_was_acknowledged() {
    for crash_after in [None, Some(0), Some(1), Some(2), Some(3)] {
        let mut world = World::new();
        world.open();
        world.run(|w| w.reported() == Some(State::Succeeded));
        let before = world.statuses.values().map(|s| s.seq).max();
        world.statuses.clear();
        let (newest, _) = world.orders.values().last().cloned().expect("orders");
        let last = newest.seq;
        let bulletin = world.fleet.bulletin(None, &[(&world.plan, last.n)]);
        let order = world.fleet.verified(&Order {
            spec_version: Order::SPEC_VERSION,
            fleet: world.fleet.id(),
            seq: Seq { epoch: 2, n: 1 },
            issued: newest.issued,
            body: OrderBody::Bulletin(bulletin),
        });
        let told = Event::Order(order, None);
        if let Some(actions) = crash_after {
            world.actions_left = Some(actions);
            world.tell(told.clone());
            world.work();
            world.crash();
            world.actions_left = None;
        }
        world.tell(told);
        world.run(|w| w.reported() == Some(State::Succeeded));
        let after = world.statuses.values().map(|s| s.seq).max();
        assert!(after > before, "{after:?} after {before:?}");
    }
}
