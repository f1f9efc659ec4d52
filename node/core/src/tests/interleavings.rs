//! Any order of events, crashes and restarts: the checker's rules hold throughout.

use proptest::prelude::*;
use protocol::orders::OrderBody;
use protocol::{Span, Time};

use super::World;
use crate::contract::Event;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Happening {
    /// An order comes, again or out of order.
    Order(usize),
    /// So many actions are carried out.
    Act(usize),
    /// An answer comes; not necessarily the oldest.
    Answer(usize),
    /// Time passes.
    Sleep(u64),
    /// Time passes unseen by wall or boot clock alone.
    Skew(bool, u64),
    /// What is due is done.
    Due,
    /// The content is here.
    Content,
    /// The process ends.
    Crash,
    /// The machine restarts.
    Reboot,
    /// The release turns sick or well.
    Health(bool),
    /// The coordinator is there or not.
    Reach(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0usize..14).prop_map(Happening::Order),
        10 => (1usize..12).prop_map(Happening::Act),
        8 => (0usize..4).prop_map(Happening::Answer),
        3 => (1u64..90_000).prop_map(Happening::Sleep),
        1 => (any::<bool>(), 1u64..200_000).prop_map(|(b, t)| Happening::Skew(b, t)),
        4 => Just(Happening::Due),
        3 => Just(Happening::Content),
        1 => Just(Happening::Crash),
        1 => Just(Happening::Reboot),
        1 => any::<bool>().prop_map(Happening::Health),
        1 => any::<bool>().prop_map(Happening::Reach),
    ]
}

/// The orders of the story, each with its number.
fn orders(world: &World) -> Vec<Event> {
    let rollout = world.plan.rollout.clone();
    let lease = |wave| world.fleet.lease(&world.plan, wave);
    let halt = OrderBody::Halt {
        rollout: rollout.clone(),
        reason: "smoke".into(),
    };
    let resume = OrderBody::Resume { rollout };
    let bulletin = |last| OrderBody::Bulletin(world.fleet.bulletin(None, &[(&world.plan, last)]));
    let mut gone = world.fleet.bulletin(None, &[]);
    gone.rollouts.clear();
    let bodies = [
        bulletin(0),
        lease(0),
        lease(1),
        halt.clone(),
        resume.clone(),
        lease(1),
        bulletin(4),
        halt,
        lease(1),
        resume,
        lease(1),
        OrderBody::Bulletin(gone),
    ];
    let mut events: Vec<Event> = bodies
        .into_iter()
        .zip(1..)
        .map(|(body, n)| world.order(n, body))
        .collect();
    let (body, recall) = world.fleet.recall(&world.plan);
    events.push(Event::Order(world.fleet.order(13, body.clone()), None));
    events.push(Event::Order(world.fleet.order(14, body), Some(recall)));
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_interleaving_breaks_the_rules(happenings in proptest::collection::vec(happening(), 1..160)) {
        let mut world = World::new();
        let orders = orders(&world);
        // Most stories need these two to get anywhere.
        for order in &orders[..2] {
            while world.act() {}
            world.tell(order.clone());
        }
        for happening in happenings {
            // A body carries out everything before it hands in the next event, unless it dies.
            if !matches!(happening, Happening::Act(_) | Happening::Crash | Happening::Reboot) {
                while world.act() {}
            }
            match happening {
                Happening::Order(i) => world.tell(orders[i].clone()),
                Happening::Act(n) => {
                    let done = (0..n).take_while(|_| world.act()).count();
                    prop_assert!(done <= n);
                }
                Happening::Answer(i) => {
                    if let Some(answer) = world.answers.remove(i).or_else(|| world.answers.pop_front()) {
                        world.tell(answer);
                    }
                }
                Happening::Sleep(ms) => world.sleep(Span(ms)),
                Happening::Skew(true, ms) => world.now.boot.0 += ms,
                Happening::Skew(false, ms) => world.now.wall = Time(world.now.wall.0 + ms),
                Happening::Due => world.brain.handle_timeout(world.now),
                Happening::Content => world.content_comes(),
                Happening::Crash => world.crash(),
                Happening::Reboot => world.reboot(),
                Happening::Health(healthy) => world.healthy = healthy,
                Happening::Reach(reachable) => world.reachable = reachable,
            }
        }
        prop_assert!(world.disk.len() < 20, "one rollout, bounded records: {:?}", world.disk.keys());
        prop_assert!(world.commits <= world.checker.switches);
    }
}
