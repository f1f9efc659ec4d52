//! Rule: once faults stop, every reachable node of an open wave converges within a bound, and a wave
//! whose nodes have all converged is judged.
//!
//! Safety is looked at while things happen, liveness afterwards: what happened is written down as
//! stretches of time, and a node that was reachable for longer than the bound, all that time in an open
//! wave of a running rollout, without coming to an end, is one that did not converge.

use std::collections::BTreeMap;

use protocol::status::State;
use protocol::{RolloutId, Span, Time};

/// Stretches of time in which something holds, rising; the last may be open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stretches {
    list: Vec<(Time, Option<Time>)>,
}

impl Stretches {
    /// From now on it holds, or does not.
    pub fn set(&mut self, at: Time, holds: bool) {
        match (self.list.last_mut(), holds) {
            (Some((_, None)), true) => {}
            (Some((_, end @ None)), false) => *end = Some(at),
            (_, true) => self.list.push((at, None)),
            (_, false) => {}
        }
    }

    /// Whether it holds now.
    pub fn holds(&self) -> bool {
        self.list.last().is_some_and(|(_, end)| end.is_none())
    }

    /// Whether it has held ever since.
    pub fn since(&self, at: Time) -> bool {
        self.list
            .last()
            .is_some_and(|(from, end)| *from <= at && end.is_none())
    }

    /// Whether it held all the while from one moment to another.
    pub fn covers(&self, from: Time, to: Time) -> bool {
        let mut stretches = self.list.iter();
        stretches.any(|(begin, end)| *begin <= from && end.is_none_or(|end| end >= to))
    }

    /// The stretches in which both hold; open ones end at `end`.
    fn both(&self, other: &Stretches, end: Time) -> Stretches {
        let close = |s: &(Time, Option<Time>)| (s.0, s.1.unwrap_or(end));
        let mut list = Vec::new();
        for a in self.list.iter().map(close) {
            for b in other.list.iter().map(close) {
                let (from, to) = (a.0.max(b.0), a.1.min(b.1));
                if from < to {
                    list.push((from, Some(to)));
                }
            }
        }
        Stretches { list }
    }
}

/// What one node owes for one rollout.
#[derive(Clone, Debug)]
pub struct Duty<'a> {
    /// The node's number in the world.
    pub node: usize,
    /// When it was up and could be reached.
    pub reachable: &'a Stretches,
    /// When its wave was open in a running rollout.
    pub open: &'a Stretches,
    /// When it was at it: until it came to an end of its own, and again from when that end was undone;
    /// none if it never said anything.
    pub under_way: Option<&'a Stretches>,
    /// How long it may take.
    pub bound: Span,
}

impl Duty<'_> {
    /// What a missed duty is called.
    pub fn to_line(&self, release: &str) -> String {
        let (node, seconds) = (self.node, self.bound.0 / 1000);
        format!("node {node} did not converge on {release} in {seconds} s")
    }

    /// When it was due and not done, if ever. Faults before `quiet` excuse.
    pub fn missed(&self, quiet: Time, end: Time) -> Option<Time> {
        let owed = self.reachable.both(self.open, end);
        let owed = match self.under_way {
            Some(under_way) => owed.both(under_way, end),
            None => owed,
        };
        let owed = owed.list.iter();
        let mut due = owed.map(|(from, to)| ((*from).max(quiet) + self.bound, to.unwrap_or(end)));
        due.find(|(due, to)| due < to).map(|(due, _)| due)
    }
}

/// What a wave owes: a verdict, once all that could answer have.
#[derive(Clone, Copy, Debug)]
pub struct Judgement {
    /// When the last of its nodes came to its end; none while one has not.
    pub all_ended: Option<Time>,
    /// When it opened.
    pub opened: Time,
    /// When the rollout moved on: the next wave, the end, a halt.
    pub judged: Option<Time>,
    /// How long it soaks, with the way of the last status, at most.
    pub bound: Span,
}

impl Judgement {
    /// When it was due and not done, if ever.
    pub fn missed(&self, quiet: Time, end: Time) -> Option<Time> {
        let due = self.all_ended?.max(self.opened).max(quiet) + self.bound;
        (due < self.judged.unwrap_or(end).min(end)).then_some(due)
    }
}

/// What became of one rollout on one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// When the release first worked there.
    pub applied: Option<Time>,
    /// When the node came to an end of its own, and to which; none while it is under way.
    pub ended: Option<(Time, State)>,
    /// When it began to switch first.
    pub started: Option<Time>,
}

/// What the machines of one part of the world went through, by their slot in it.
#[derive(Clone, Debug, Default)]
pub struct Histories {
    reachable: Vec<Stretches>,
    outcomes: BTreeMap<RolloutId, Vec<Outcome>>,
    under_way: BTreeMap<RolloutId, BTreeMap<usize, Stretches>>,
}

impl Histories {
    /// Of so many machines that have not come up yet.
    pub fn new(machines: usize) -> Histories {
        Histories {
            reachable: vec![Stretches::default(); machines],
            outcomes: BTreeMap::new(),
            under_way: BTreeMap::new(),
        }
    }

    /// A machine came up, or went away.
    pub fn reachable(&mut self, at: Time, slot: usize, is: bool) {
        if let Some(stretches) = self.reachable.get_mut(slot) {
            stretches.set(at, is);
        }
    }

    /// A machine says of itself where it stands.
    pub fn says(&mut self, at: Time, slot: usize, rollout: &RolloutId, state: State) {
        let Some(outcome) = self.of(slot, rollout) else {
            return;
        };
        if matches!(state, State::Succeeded | State::AlreadyInstalled) {
            outcome.applied.get_or_insert(at);
        }
        outcome.ended = match outcome.ended {
            _ if !state.ended() => None,
            Some((since, _)) => Some((since, state)),
            None => Some((at, state)),
        };
        if !self.under_way.contains_key(rollout) {
            self.under_way.insert(rollout.clone(), BTreeMap::new());
        }
        if let Some(of_rollout) = self.under_way.get_mut(rollout) {
            let begun = || Stretches {
                list: vec![(Time(0), None)],
            };
            let under_way = of_rollout.entry(slot).or_insert_with(begun);
            under_way.set(at, !state.ended());
        }
    }

    /// When a machine was at a rollout, by its own word.
    pub fn under_way(&self, slot: usize, rollout: &RolloutId) -> Option<&Stretches> {
        self.under_way.get(rollout)?.get(&slot)
    }

    /// A machine begins to switch; whether it is the first time.
    pub fn starts(&mut self, at: Time, slot: usize, rollout: &RolloutId) -> bool {
        let outcome = self.of(slot, rollout);
        let started = outcome.map(|o| o.started.replace(o.started.unwrap_or(at)));
        started == Some(None)
    }

    fn of(&mut self, slot: usize, rollout: &RolloutId) -> Option<&mut Outcome> {
        if !self.outcomes.contains_key(rollout) {
            let none = vec![Outcome::default(); self.reachable.len()];
            self.outcomes.insert(rollout.clone(), none);
        }
        self.outcomes.get_mut(rollout)?.get_mut(slot)
    }

    /// What became of a rollout on a machine.
    pub fn outcome(&self, slot: usize, rollout: &RolloutId) -> Outcome {
        let outcomes = self.outcomes.get(rollout);
        let outcome = outcomes.and_then(|outcomes| outcomes.get(slot));
        outcome.copied().unwrap_or_default()
    }

    /// When a machine could be reached.
    pub fn reach(&self, slot: usize) -> &Stretches {
        const NEVER: &Stretches = &Stretches { list: Vec::new() };
        self.reachable.get(slot).unwrap_or(NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretches(list: &[(u64, Option<u64>)]) -> Stretches {
        let mut all = Stretches::default();
        for (from, to) in list {
            all.set(Time(*from), true);
            if let Some(to) = to {
                all.set(Time(*to), false);
            }
        }
        all
    }

    #[test]
    fn a_reachable_node_that_does_not_converge_is_seen() {
        let always = stretches(&[(0, None)]);
        // reachable, open, ended, faults until, when it is missed; the bound is 100, the world ends at 1000
        let cases = [
            (always.clone(), always.clone(), Some(90), 0, None),
            (always.clone(), always.clone(), Some(110), 0, Some(100)),
            (always.clone(), always.clone(), None, 0, Some(100)),
            (always.clone(), always.clone(), Some(440), 350, None),
            (always.clone(), always.clone(), Some(460), 350, Some(450)),
            (always.clone(), always.clone(), None, 950, None),
            // a laptop that is never there for long owes nothing, one that stays does
            (
                stretches(&[(0, Some(80)), (200, Some(290))]),
                always.clone(),
                None,
                0,
                None,
            ),
            (
                stretches(&[(0, Some(80)), (200, None)]),
                always.clone(),
                None,
                0,
                Some(300),
            ),
            // a wave that never opened, one that was paused in between, one that opened late
            (always.clone(), stretches(&[]), None, 0, None),
            (
                always.clone(),
                stretches(&[(10, Some(60)), (500, Some(590))]),
                None,
                0,
                None,
            ),
            (
                always.clone(),
                stretches(&[(600, None)]),
                Some(800),
                0,
                Some(700),
            ),
        ];
        for (number, (reachable, open, ended, quiet, expected)) in cases.into_iter().enumerate() {
            let duty = Duty {
                node: 1,
                reachable: &reachable,
                open: &open,
                under_way: Some(&stretches(&[(0, ended)])),
                bound: Span(100),
            };
            let missed = duty.missed(Time(quiet), Time(1000));
            assert_eq!(missed, expected.map(Time), "case {number}");
        }
    }

    #[test]
    fn a_wave_that_is_never_judged_is_seen() {
        let wave = |all_ended: Option<u64>, judged: Option<u64>| Judgement {
            all_ended: all_ended.map(Time),
            opened: Time(10),
            judged: judged.map(Time),
            bound: Span(100),
        };
        let cases = [
            (wave(Some(50), Some(140)), None),
            (wave(Some(50), Some(160)), Some(150)),
            (wave(Some(50), None), Some(150)),
            (wave(None, None), None),
            (wave(Some(950), None), None),
        ];
        for (number, (wave, expected)) in cases.into_iter().enumerate() {
            assert_eq!(
                wave.missed(Time(0), Time(1000)),
                expected.map(Time),
                "case {number}"
            );
        }
    }

    #[test]
    fn a_history_says_who_did_not_converge() {
        let rollout: RolloutId = "r".parse().unwrap();
        let mut history = Histories::new(2);
        for slot in [0, 1] {
            history.reachable(Time(0), slot, true);
            assert!(history.starts(Time(20), slot, &rollout));
            assert!(!history.starts(Time(25), slot, &rollout), "once only");
            history.says(Time(30), slot, &rollout, State::Succeeded);
            history.says(Time(40), slot, &rollout, State::Succeeded);
        }
        history.says(Time(50), 1, &rollout, State::RollingBack);
        let first = history.outcome(0, &rollout);
        assert_eq!(first.ended, Some((Time(30), State::Succeeded)));
        let second = history.outcome(1, &rollout);
        assert_eq!((second.applied, second.ended), (Some(Time(30)), None));
        assert_eq!(second.started, Some(Time(20)));
        assert_eq!(
            history.outcome(0, &"other".parse().unwrap()),
            Outcome::default()
        );
        let open = stretches(&[(0, None)]);
        let duties = [0, 1].map(|slot| Duty {
            node: 10 + slot,
            reachable: history.reach(slot),
            open: &open,
            under_way: history.under_way(slot, &rollout),
            bound: Span(60_000),
        });
        let missed = duties.map(|duty| {
            let due = duty.missed(Time(0), Time(90_000));
            due.map(|due| (due.0, duty.to_line("app@1.0")))
        });
        let line = "node 11 did not converge on app@1.0 in 60 s".to_owned();
        assert_eq!(missed, [None, Some((60_050, line))]);
    }

    /// A drawn world's fleet took a release back four minutes after a node had it, and the node was said
    /// to have taken four minutes for it.
    #[test]
    fn a_node_that_converged_and_is_taken_back_owes_nothing() {
        let rollout: RolloutId = "r".parse().unwrap();
        let mut history = Histories::new(1);
        history.reachable(Time(0), 0, true);
        history.says(Time(30), 0, &rollout, State::Succeeded);
        history.says(Time(900), 0, &rollout, State::RollingBack);
        history.says(Time(950), 0, &rollout, State::RolledBack);
        let duty = Duty {
            node: 1,
            reachable: history.reach(0),
            open: &stretches(&[(0, Some(900))]),
            under_way: history.under_way(0, &rollout),
            bound: Span(100),
        };
        assert_eq!(duty.missed(Time(0), Time(2000)), None);
    }
}
