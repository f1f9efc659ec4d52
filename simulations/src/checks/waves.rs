//! Rule: no start before its wave, and none outside the time of its plan.
//!
//! The wave of a node follows from the signed plan alone, so the checker asks the plan, not the brain.

use protocol::plan::RolloutPlan;
use protocol::{NodeId, Now, SiteId};

/// The wave in which a node may start now.
///
/// `now` is the node's own clock; its wall time is the one that it may be held to.
///
/// # Errors
/// Why it may not.
pub fn start(
    now: Now,
    node: &NodeId,
    site: Option<&SiteId>,
    plan: &RolloutPlan,
) -> Result<u32, String> {
    let Some(wave) = plan.wave_of(node, site) else {
        return Err(format!("no wave of {} has it", plan.rollout));
    };
    let floor = plan.waves[wave as usize].not_before;
    if now.wall < floor {
        let early = floor.since(now.wall).0;
        return Err(format!(
            "wave {wave} of {} begins {early} ms later",
            plan.rollout
        ));
    }
    if now.wall >= plan.not_after {
        return Err(format!("the last day of {} is over", plan.rollout));
    }
    Ok(wave)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{CREATED, EXPIRES, Fleet, node};
    use protocol::plan::{Members, Targets};
    use protocol::{Span, Time};

    fn at(wall: Time) -> Now {
        Now {
            boot: Time(5),
            wall,
        }
    }

    #[test]
    fn a_start_outside_of_its_wave_is_seen() {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let mut plan = fleet.plan("r", &release, vec![node(1)]);
        let second = plan.waves.len() - 1;
        plan.waves[second].members = Members::Nodes(vec![node(2)]);
        plan.waves[second].not_before = CREATED + Span::from_secs(100);
        let fine = |at: Now, n| start(at, &node(n), None, &plan);
        assert_eq!(fine(at(CREATED + Span(1)), 1), Ok(0));
        assert!(
            fine(at(CREATED + Span::from_secs(99)), 2).is_err(),
            "before its wave's floor"
        );
        assert_eq!(
            fine(at(CREATED + Span::from_secs(100)), 2),
            Ok(second as u32)
        );
        assert!(
            fine(at(CREATED + Span::from_secs(100)), 3).is_err(),
            "in no wave"
        );
        assert!(fine(at(EXPIRES), 1).is_err(), "after the plan's last day");
        let mut elsewhere = plan.clone();
        elsewhere.targets = Targets {
            sites: vec!["berlin".parse().unwrap()],
            ..Targets::default()
        };
        let now = at(CREATED + Span(1));
        let oslo: SiteId = "oslo".parse().unwrap();
        assert!(
            start(now, &node(1), Some(&oslo), &elsewhere).is_err(),
            "no target"
        );
    }
}
