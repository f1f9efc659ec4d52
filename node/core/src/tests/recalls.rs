//! A recall takes the release back wherever the rollout stands, and takes back nothing else.

use protocol::Span;
use protocol::status::State;

use super::World;

/// The rollout went well, its outcome is known, and the bulletin names it no more.
fn retired() -> World {
    let mut world = World::new();
    world.open();
    world.run(|w| w.reported() == Some(State::Succeeded));
    world.renewing = false;
    world.bulletin(0, |b| b.rollouts.clear());
    world.run(|w| w.journal().is_none());
    world.run_for(Span::from_secs(30));
    world
}

/// The coordinator takes the release back, and names the rollout again so that nodes take part.
fn recall(world: &mut World) {
    world.recall();
    let last = world.orders.len() as u64;
    world.bulletin(last, |_| {});
}

#[test]
fn a_recall_after_the_retirement_takes_the_release_back() {
    for restarted in [false, true] {
        let mut world = retired();
        if restarted {
            world.crash();
            world.run_for(Span::from_secs(5));
        }
        recall(&mut world);
        world.run(|w| w.reported() == Some(State::RolledBack));
        assert_eq!(world.installed, Some(world.old.digest()));
        assert_eq!(world.installed_record(), Some(world.old.digest()));
        world.run_for(Span::from_secs(30));
        assert_eq!(world.reported(), Some(State::RolledBack));
    }
}
