//! Several rollouts at once: an emergency goes first.
//!
//! While an emergency is running and a wave of it is open, what runs with a lower priority is halted: the
//! halt travels as any other does, so it is in every site within one round of gossip. Once nothing pushes
//! it aside any more, be it that the emergency is through, was held, paused or halted, it goes on by
//! itself. What had begun on a node comes to its end there, and is judged meanwhile.
//!
//! Priorities share everything else on the nodes: the more urgent rollout takes a free slot first, and an
//! emergency's bytes do not give way.

use protocol::RolloutId;
use protocol::orders::OrderBody;
use protocol::plan::Priority;

use crate::conductor::Conductor;
use crate::contract::RolloutState;
use crate::rollout::Rollout;

/// Why a rollout is pushed aside.
pub(crate) fn because_of(emergency: &RolloutId) -> String {
    format!("the emergency {emergency} goes first")
}

impl Rollout {
    fn yields(&self) -> bool {
        self.plan.priority < Priority::Emergency
    }
}

impl Conductor {
    /// The emergency that goes before others now.
    fn emergency(&self) -> Option<RolloutId> {
        let goes = |r: &&Rollout| {
            r.state == RolloutState::Running && !r.yields() && r.newest_open().is_some()
        };
        self.rollouts
            .values()
            .find(goes)
            .map(|r| r.plan.rollout.clone())
    }

    /// The emergency that a rollout has to wait for now.
    pub(crate) fn goes_before(&self, rollout: &RolloutId) -> Option<RolloutId> {
        let yields = self.rollouts.get(rollout).is_some_and(Rollout::yields);
        self.emergency().filter(|_| yields)
    }

    /// Pushes aside what has to wait for an emergency, and lets go on what has not any more.
    pub(crate) fn make_way(&mut self) {
        use RolloutState as S;
        let emergency = self.emergency();
        let wrong = |r: &&Rollout| match (r.state, &emergency) {
            (S::Running, Some(_)) => r.yields(),
            (S::Preempted, None) => true,
            _ => false,
        };
        let wrong = self.rollouts.values().filter(wrong);
        let wrong: Vec<RolloutId> = wrong.map(|r| r.plan.rollout.clone()).collect();
        for id in wrong {
            match &emergency {
                Some(emergency) => {
                    let why = because_of(emergency);
                    self.note("preempted", format!("{id}: {why}"));
                    self.set_state(&id, S::Preempted, &why);
                    self.give_halt(&id, &why);
                }
                None => {
                    let why = "no emergency goes before it any more";
                    self.note("resumed", format!("{id}: {why}"));
                    self.set_state(&id, S::Running, why);
                    self.go_on(&id);
                }
            }
        }
    }

    /// Takes the halt of a running rollout back.
    pub(crate) fn go_on(&mut self, id: &RolloutId) {
        self.give(OrderBody::Resume {
            rollout: id.clone(),
        });
        if let Some(rollout) = self.rollouts.get_mut(id) {
            rollout.want_lease();
        }
    }
}
