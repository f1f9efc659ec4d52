//! What people say to have installed by hand is on record and counted apart.

mod support;

use protocol::fixtures::node;
use protocol::plan::Selector::Rest;
use protocol::status::State;
use protocol::{Hash, Time};
use support::{Bench, draft, gate};
use tidegate_coordinator_core::contract::{ByHand, Command, CommandError};

fn note(n: u64, release: Hash) -> ByHand {
    ByHand {
        node: node(n),
        release,
        who: "Dana".into(),
        why: "its disk was changed".into(),
        noted_by: "help desk".into(),
        at: Time(0),
    }
}

#[test]
fn an_installation_by_hand_moves_no_count_and_outlives_a_restart() {
    let mut bench = Bench::with_nodes(3);
    let plan = bench.start("r", vec![draft("all", Rest, gate(0, 1, 0))]);
    let before = bench.view("r").counts;
    bench.done(Command::RecordInstall(note(1, plan.release)));
    bench.done(Command::RecordInstall(note(1, plan.release)));
    bench.restart();
    let view = bench.view("r");
    assert_eq!((view.by_hand, view.counts), (1, before));
    assert_eq!(view.counts.total(), view.targets);
    let nodes = bench.conductor.nodes();
    let noted = nodes.iter().find(|n| n.node == node(1)).unwrap();
    assert_eq!(noted.by_hand.len(), 1, "the later note takes the place");
    assert_eq!(noted.by_hand[0].who, "Dana");
    assert!(noted.by_hand[0].at > Time(0), "the coordinator's own clock");

    // The node's own word counts, and the note stays.
    bench.report(&plan, &[1], State::AlreadyInstalled);
    let view = bench.view("r");
    assert_eq!((view.by_hand, view.counts.applied), (1, 1));

    let nobody = Command::RecordInstall(note(77, plan.release));
    assert_eq!(bench.refused(nobody), CommandError::NoNode(node(77)));
    let nothing = Hash::of(b"nothing");
    let unknown = Command::RecordInstall(note(1, nothing));
    assert_eq!(bench.refused(unknown), CommandError::NoRelease(nothing));
    let mute = Command::RecordInstall(ByHand {
        why: " ".into(),
        ..note(2, plan.release)
    });
    assert!(matches!(bench.refused(mute), CommandError::Limit(_)));
}
