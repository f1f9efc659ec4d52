//! What a stolen key planted goes when the root takes the key away.

use protocol::orders::OrderBody;
use protocol::status::State;
use protocol::trust::Role;
use protocol::wire::{ControlReply, ControlRequest};
use protocol::{Seq, Time};

use super::World;
use crate::contract::{Action, Event};

const FAR: u64 = 1 << 63;

/// A thief with the online key gave orders near the end of all numbers: nothing that the coordinator
/// could number was newer, and the node obeyed nobody any more. The root that replaces the key must
/// bring it back, also if the node crashes right then.
#[test]
fn numbers_near_the_end_of_all_numbers_go_with_the_key_that_gave_them() {
    for crash in [false, true] {
        let mut world = World::new();
        let mut bulletin = world.fleet.bulletin(None, &[]);
        bulletin.expires = Time::MAX;
        let rollout = world.plan.rollout.clone();
        let reason = String::new();
        let planted = [
            OrderBody::Halt { rollout, reason },
            OrderBody::Bulletin(bulletin),
        ];
        for (n, body) in planted.into_iter().enumerate() {
            let order = world.fleet.order(FAR + n as u64, body);
            world.tell(Event::Order(order, None));
        }
        world.open();
        assert!(world.work());
        assert_eq!(
            world.reported(),
            None,
            "the planted bulletin names no rollout"
        );

        let root = world.fleet.rotate(&[Role::Coordinator]);
        world.tell(Event::Root(root));
        assert!(world.work());
        assert!(world.brain.snapshot(world.now).orders_head.n < FAR);
        if crash {
            world.crash();
        }
        world.orders.clear();
        world.open();
        world.run(|w| w.reported() == Some(State::Succeeded));
    }
}

/// A root that only adds a key takes nothing away.
#[test]
fn numbers_stay_when_no_key_goes() {
    let mut world = World::new();
    world.open();
    world.run(|w| w.reported() == Some(State::Succeeded));
    let head = world.brain.snapshot(world.now).orders_head;
    assert!(head > Seq::default());
    let root = world.fleet.rotate(&[Role::Root, Role::Plans]);
    world.tell(Event::Root(root));
    assert_eq!(world.brain.snapshot(world.now).orders_head, head);
}

/// Orders under a new key reach a node that has not heard of the root: it asks for the next root, and
/// goes on asking until somebody has it or the coordinator says that there is none.
#[test]
fn an_order_under_an_unknown_key_makes_a_node_ask_for_the_next_root() {
    let mut world = World::new();
    assert!(world.work());
    let asks = |world: &mut World| {
        let mut asked = None;
        for _ in 0..200 {
            world.now.boot = Time(world.now.boot.0 + 100);
            world.brain.handle_timeout(world.now);
            while let Some(action) = world.brain.poll_action() {
                let Action::Ask {
                    ticket, request, ..
                } = action
                else {
                    continue;
                };
                if let ControlRequest::PullRoot { version } = *request {
                    asked = Some((ticket, version));
                }
            }
        }
        asked
    };
    assert_eq!(asks(&mut world), None, "nothing to doubt");
    world.tell(Event::Unbelieved);
    let (ticket, version) = asks(&mut world).expect("it asks");
    assert_eq!(version, 2);
    let reply = Some(Box::new(ControlReply::Document(None)));
    world.tell(Event::Answered { ticket, reply });
    assert_eq!(asks(&mut world), None, "the coordinator has none");
}
