//! Rule: the four counts add up to the targets, of each rollout and of each of its waves, at every
//! moment; and the waves together are the rollout.

use coordinator_core::contract::{Counts, RolloutView};

/// Looks at a rollout as listings show it.
///
/// # Errors
/// What does not add up.
pub fn add_up(view: &RolloutView) -> Result<(), String> {
    let rollout = &view.rollout;
    if view.counts.total() != view.targets {
        return Err(format!(
            "{rollout}: {:?} of {} targets",
            view.counts, view.targets
        ));
    }
    let mut sum = Counts::default();
    let mut targets = 0;
    for wave in &view.waves {
        if wave.counts.total() != wave.targets {
            return Err(format!(
                "{rollout}, wave {}: {:?} of {} targets",
                wave.name, wave.counts, wave.targets
            ));
        }
        targets += wave.targets;
        sum.applied += wave.counts.applied;
        sum.failed += wave.counts.failed;
        sum.open += wave.counts.open;
        sum.not_received += wave.counts.not_received;
    }
    // before its start a rollout has no waves with targets
    if targets != view.targets || sum != view.counts {
        return Err(format!(
            "{rollout}: its waves together have {sum:?} of {targets}, it has {:?} of {}",
            view.counts, view.targets
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coordinator_core::contract::{RolloutState, WaveView};
    use protocol::Hash;
    use protocol::feed::StageCounts;

    fn wave(number: u32, applied: u32, open: u32) -> WaveView {
        WaveView {
            number,
            name: format!("w{number}"),
            state: "running".into(),
            targets: applied + open,
            counts: Counts {
                applied,
                open,
                ..Counts::default()
            },
            opened_at: None,
            ended_at: None,
        }
    }

    #[test]
    fn counts_that_do_not_add_up_are_seen() {
        let view = RolloutView {
            rollout: "r".parse().unwrap(),
            release: "app@1".into(),
            state: RolloutState::Running,
            why: String::new(),
            plan: Hash([0; 32]),
            approvals: (2, 2),
            targets: 7,
            by_hand: 0,
            promise: None,
            waits: None,
            counts: Counts {
                applied: 3,
                open: 4,
                ..Counts::default()
            },
            stages: StageCounts::default(),
            waves: vec![wave(0, 1, 1), wave(1, 2, 3)],
        };
        assert_eq!(add_up(&view), Ok(()));
        let breaks: [fn(&mut RolloutView); 4] = [
            |view| view.targets += 1,
            |view| view.counts.failed += 1,
            |view| view.waves[1].counts.applied -= 1,
            |view| {
                view.waves[0].counts.applied += 1;
                view.waves[0].counts.open -= 1;
            },
        ];
        for (number, broken) in breaks.into_iter().enumerate() {
            let mut view = view.clone();
            broken(&mut view);
            assert!(add_up(&view).is_err(), "case {number}");
        }
    }
}
