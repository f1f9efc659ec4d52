//! Several rollouts at once: an emergency goes first, and a halt of everything before all.
//!
//! While an emergency is running and a wave of it is open, what runs with a lower priority is halted: the
//! halt travels as any other does, so it is in every site within one round of gossip. Once nothing sets it
//! aside any more, be it that the emergency is through, was held, paused or halted, it goes on by itself.
//! What had begun on a node comes to its end there, and is judged meanwhile.
//!
//! Priorities share everything else on the nodes: the more urgent rollout takes a free slot first, and an
//! emergency's bytes do not give way.

use protocol::RolloutId;
use protocol::orders::OrderBody;
use protocol::plan::Priority;

use crate::conductor::Conductor;
use crate::contract::RolloutState;
use crate::rollout::Rollout;

impl Rollout {
    /// Whether it waits for emergencies.
    pub(crate) fn yields(&self) -> bool {
        self.plan.priority < Priority::Emergency
    }
}

impl Conductor {
    /// The emergency that goes before others now.
    pub(crate) fn emergency(&self) -> Option<&RolloutId> {
        let goes = |r: &&Rollout| {
            r.state == RolloutState::Running && !r.yields() && r.newest_open().is_some()
        };
        let first = self.rollouts.values().find(goes);
        first.map(|r| &r.plan.rollout)
    }

    /// Why a rollout must not run now, if it must not.
    fn set_aside(&self, rollout: &Rollout) -> Option<String> {
        if let Some(stop) = &self.stopped {
            return Some(format!("everything is halted: {}", stop.why));
        }
        let emergency = self.emergency().filter(|_| rollout.yields())?;
        Some(format!("the emergency {emergency} goes first"))
    }

    /// Sets aside what must not run now, and lets go on what may again.
    pub(crate) fn make_way(&mut self) {
        use RolloutState as S;
        let wrong = |r: &Rollout| match (r.state, self.set_aside(r)) {
            (S::Running, Some(why)) => Some((r.plan.rollout.clone(), Some(why))),
            (S::Preempted, None) => Some((r.plan.rollout.clone(), None)),
            _ => None,
        };
        let wrong: Vec<(RolloutId, Option<String>)> =
            self.rollouts.values().filter_map(wrong).collect();
        for (id, why) in wrong {
            match why {
                Some(why) => {
                    self.note("set_aside", format!("{id}: {why}"));
                    self.set_state(&id, S::Preempted, &why);
                    self.give_halt(&id, &why);
                }
                None => {
                    let why = "nothing goes before it any more";
                    self.note("resumed", format!("{id}: {why}"));
                    self.set_state(&id, S::Running, why);
                    self.go_on(&id);
                }
            }
        }
    }

    /// A halted rollout runs again, or will when it may; until then its halt stays in force.
    pub(crate) fn run_again(&mut self, id: &RolloutId, why: &str) {
        let aside = self.rollouts.get(id).and_then(|r| self.set_aside(r));
        match aside {
            Some(why) => self.set_state(id, RolloutState::Preempted, &why),
            None => {
                self.set_state(id, RolloutState::Running, why);
                self.go_on(id);
            }
        }
    }

    /// Takes the halt of a rollout back.
    pub(crate) fn go_on(&mut self, id: &RolloutId) {
        self.give(OrderBody::Resume {
            rollout: id.clone(),
        });
        if let Some(rollout) = self.rollouts.get_mut(id) {
            rollout.want_lease();
        }
    }
}
