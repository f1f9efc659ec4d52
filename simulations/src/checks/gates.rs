//! Rule: a wave opens only when the gate behind the one before it has passed, and no lease names a wave
//! that has not opened. Read from the ledger alone, as an auditor would.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_core::contract::{LedgerEvent, RolloutState, Verdict};
use protocol::RolloutId;
use protocol::orders::OrderBody;

/// What the ledger said so far of each rollout.
#[derive(Default)]
pub struct Gates {
    rollouts: BTreeMap<RolloutId, Seen>,
}

#[derive(Default)]
struct Seen {
    state: Option<RolloutState>,
    opened: Option<u32>,
    passed: BTreeSet<u32>,
}

impl Gates {
    /// The coordinator appends to its ledger.
    ///
    /// # Errors
    /// Which rule that breaks.
    pub fn appended(&mut self, event: &LedgerEvent) -> Result<(), String> {
        match event {
            LedgerEvent::State { rollout, state, .. } => {
                self.of(rollout).state = Some(*state);
                Ok(())
            }
            LedgerEvent::Verdict {
                rollout,
                wave,
                verdict,
                ..
            } => {
                let passed = &mut self.of(rollout).passed;
                match verdict {
                    Verdict::Pass => passed.insert(*wave),
                    Verdict::Fail | Verdict::Wait => passed.remove(wave),
                };
                Ok(())
            }
            LedgerEvent::WaveOpened { rollout, wave, .. } => self.opens(rollout, *wave),
            LedgerEvent::Order(order) => match &order.body {
                OrderBody::GoLease { rollout, wave, .. } => self.leases(rollout, *wave),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn of(&mut self, rollout: &RolloutId) -> &mut Seen {
        if !self.rollouts.contains_key(rollout) {
            self.rollouts.insert(rollout.clone(), Seen::default());
        }
        self.rollouts.entry(rollout.clone()).or_default()
    }

    fn opens(&mut self, rollout: &RolloutId, wave: u32) -> Result<(), String> {
        let seen = self.of(rollout);
        let next = seen.opened.map_or(0, |opened| opened + 1);
        seen.opened = Some(wave);
        if wave != next {
            return Err(format!(
                "wave {wave} of {rollout} opens, wave {next} is next"
            ));
        }
        if seen.state != Some(RolloutState::Running) {
            return Err(format!(
                "wave {wave} of {rollout} opens, which is {:?}",
                seen.state
            ));
        }
        match wave.checked_sub(1) {
            Some(before) if !seen.passed.contains(&before) => Err(format!(
                "wave {wave} of {rollout} opens, but wave {before} did not pass its gate"
            )),
            _ => Ok(()),
        }
    }

    fn leases(&mut self, rollout: &RolloutId, wave: u32) -> Result<(), String> {
        let seen = self.of(rollout);
        match seen.opened {
            Some(opened) if wave <= opened => Ok(()),
            _ => Err(format!(
                "a lease of {rollout} names wave {wave}, which has not opened"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Time;
    use protocol::fixtures::{Fleet, node};

    #[test]
    fn a_wave_that_opens_without_its_gate_is_seen() {
        let id: RolloutId = "r".parse().unwrap();
        let state = |state| LedgerEvent::State {
            rollout: id.clone(),
            state,
            why: String::new(),
            at: Time(1),
        };
        let opened = |wave| LedgerEvent::WaveOpened {
            rollout: id.clone(),
            wave,
            at: Time(1),
        };
        let verdict = |wave, verdict| LedgerEvent::Verdict {
            rollout: id.clone(),
            wave,
            verdict,
            counts: (3, 0),
            why: String::new(),
            at: Time(1),
        };
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
        let lease = |n, wave| {
            let order = fleet.order(n, fleet.lease(&plan, wave));
            LedgerEvent::Order(Box::new((*order).clone()))
        };
        let running = state(RolloutState::Running);
        let (passed, failed) = (verdict(0, Verdict::Pass), verdict(0, Verdict::Fail));
        // a history, and whether its last entry breaks the rule
        let cases: [(&[&LedgerEvent], bool); 9] = [
            (&[&running, &opened(0), &lease(1, 0)], false),
            (
                &[&running, &opened(0), &passed, &opened(1), &lease(1, 1)],
                false,
            ),
            (&[&running, &opened(0), &opened(1)], true),
            (&[&running, &opened(0), &failed, &opened(1)], true),
            (&[&running, &opened(0), &passed, &failed, &opened(1)], true),
            (&[&running, &opened(0), &passed, &opened(2)], true),
            (
                &[
                    &running,
                    &opened(0),
                    &passed,
                    &state(RolloutState::Paused),
                    &opened(1),
                ],
                true,
            ),
            (&[&opened(0)], true),
            (&[&running, &opened(0), &passed, &lease(1, 1)], true),
        ];
        for (number, (history, broken)) in cases.into_iter().enumerate() {
            let mut gates = Gates::default();
            let last = history.iter().map(|event| gates.appended(event)).last();
            assert_eq!(last.unwrap().is_err(), broken, "case {number}");
        }
    }
}
