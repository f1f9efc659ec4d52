//! The swarm beside itself: one that gives a turn to those rooms only whose conclusions may have
//! changed, and one in which every room looks at everything after every input. Whatever comes, as
//! long as no lease has lapsed both say the same at the same time.

use proptest::prelude::*;
use protocol::Time;
use protocol::pieces::PieceSet;

use super::rules::{any_input, at, swarm, want};
use super::world::release;
use crate::contract::Action;
use crate::swarm::{Input, Output, Swarm};

/// Leases lapse when a room looks at them: who looks less often may find that a moment later. The first
/// cannot lapse before.
const LEASES_END: u64 = 7_000;

/// What both say, and an empty disk for every blob that is asked for.
fn said(swarm: &mut Swarm, ms: u64) -> Vec<Output> {
    let mut said = Vec::new();
    while let Some(output) = swarm.poll_output() {
        if let Output::Action(Action::OpenBlob { ticket, blob }) = &output {
            let pieces = protocol::pieces::Geometry::of(blob.length).pieces();
            let empty = Some(PieceSet::empty(pieces).into());
            swarm.handle(at(ms), Input::BlobOpened(*ticket, empty));
        }
        if !matches!(output, Output::Progress { .. }) {
            said.push(output);
        }
    }
    said
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn who_looks_at_less_comes_to_the_same(
        inputs in {
            let a = release(9, 20 << 20, 8 << 20).artifact;
            proptest::collection::vec((any_input(vec![a.index, a.pack, a.carriers[0].blob]), 0u64..400), 0..60)
        },
        bare in any::<bool>(),
    ) {
        let members: &[u64] = if bare { &[] } else { &[2, 3, 4] };
        let mut both = [swarm(1, members), swarm(1, members)];
        both[1].obvious = true;
        for swarm in &mut both {
            swarm.want(at(2_000), want(&release(9, 20 << 20, 8 << 20)));
        }
        let mut now = 2_000;
        let compare = |both: &mut [Swarm; 2], ms: u64| {
            let [quick, slow] = both.each_mut().map(|swarm| said(swarm, ms));
            prop_assert_eq!(quick, slow, "at {}", ms);
            Ok(())
        };
        compare(&mut both, now)?;
        for (input, ms) in inputs {
            let until = now + ms;
            if until > LEASES_END {
                break;
            }
            while let Some(Time(wake)) = both[0].poll_timeout().filter(|wake| wake.0 <= until) {
                for swarm in &mut both {
                    swarm.handle_timeout(at(wake));
                }
                compare(&mut both, wake)?;
            }
            now = until;
            for swarm in &mut both {
                swarm.handle(at(now), input.clone());
            }
            compare(&mut both, now)?;
        }
    }
}
