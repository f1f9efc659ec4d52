//! Rule: once faults stop, every reachable node of an open wave converges within a bound, and a wave
//! whose nodes have all converged is judged.
//!
//! Safety is looked at while things happen, liveness afterwards: what happened is written down as
//! stretches of time, and a node that was reachable for longer than the bound, all that time in an open
//! wave of a running rollout, without coming to an end, is one that did not converge.

use std::collections::BTreeMap;

use protocol::{Span, Time};

use crate::checks::findings::{Findings, Rule};

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

    /// The stretches in which both hold; open ones end at `end`.
    fn both(&self, other: &Stretches, end: Time) -> Vec<(Time, Time)> {
        let close = |s: &(Time, Option<Time>)| (s.0, s.1.unwrap_or(end));
        let mut both = Vec::new();
        for a in self.list.iter().map(close) {
            for b in other.list.iter().map(close) {
                let (from, to) = (a.0.max(b.0), a.1.min(b.1));
                if from < to {
                    both.push((from, to));
                }
            }
        }
        both
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
    /// When it came to an end of its own, if it did.
    pub ended: Option<Time>,
    /// How long it may take.
    pub bound: Span,
}

impl Duty<'_> {
    /// When it was due and not done, if ever. Faults before `quiet` excuse.
    pub fn missed(&self, quiet: Time, end: Time) -> Option<Time> {
        let until = self.ended.unwrap_or(end).min(end);
        let stretches = self.reachable.both(self.open, until);
        let mut due = stretches
            .into_iter()
            .map(|(from, to)| (from.max(quiet) + self.bound, to));
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

/// Node by node, when it was reachable and when it ended which rollout: what a partition writes down.
#[derive(Clone, Debug, Default)]
pub struct Histories {
    reachable: BTreeMap<usize, Stretches>,
    ended: BTreeMap<(usize, u32), Time>,
}

impl Histories {
    /// A node came up or went away, or its site was cut off.
    pub fn reachable(&mut self, at: Time, node: usize, is: bool) {
        self.reachable.entry(node).or_default().set(at, is);
    }

    /// A node's own status of a rollout, by number, came to an end; or a new order opened it again.
    pub fn ended(&mut self, at: Time, node: usize, rollout: u32, is: bool) {
        if is {
            self.ended.entry((node, rollout)).or_insert(at);
        } else {
            self.ended.remove(&(node, rollout));
        }
    }

    /// When a node ended a rollout.
    pub fn end_of(&self, node: usize, rollout: u32) -> Option<Time> {
        self.ended.get(&(node, rollout)).copied()
    }

    /// When a node could be reached.
    pub fn reach_of(&self, node: usize) -> Option<&Stretches> {
        self.reachable.get(&node)
    }

    /// Takes in those of another partition.
    pub fn merge(&mut self, other: Histories) {
        self.reachable.extend(other.reachable);
        self.ended.extend(other.ended);
    }
}

/// Notes each duty that was missed.
pub fn settle<'a>(
    duties: impl Iterator<Item = Duty<'a>>,
    rollout: &str,
    quiet: Time,
    end: Time,
    found: &mut Findings,
) {
    for duty in duties {
        if let Some(due) = duty.missed(quiet, end) {
            let seconds = duty.bound.0 / 1000;
            let what = format!(
                "node {} did not converge on {rollout} in {seconds} s",
                duty.node
            );
            found.violated(due, Rule::Liveness, what);
        }
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
                ended: ended.map(Time),
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
    fn histories_of_partitions_come_together() {
        let (mut a, mut b) = (Histories::default(), Histories::default());
        a.reachable(Time(0), 1, true);
        a.ended(Time(30), 1, 0, true);
        a.ended(Time(40), 1, 0, true);
        b.reachable(Time(0), 2, true);
        b.ended(Time(30), 2, 0, true);
        b.ended(Time(40), 2, 0, false);
        a.merge(b);
        assert_eq!((a.end_of(1, 0), a.end_of(2, 0)), (Some(Time(30)), None));
        let open = stretches(&[(0, None)]);
        let duties = [1, 2].map(|node| Duty {
            node,
            reachable: a.reach_of(node).unwrap(),
            open: &open,
            ended: a.end_of(node, 0),
            bound: Span(60_000),
        });
        let mut found = Findings::default();
        settle(
            duties.into_iter(),
            "app@1.0",
            Time(0),
            Time(90_000),
            &mut found,
        );
        let line = "at 60000 ms: liveness: node 2 did not converge on app@1.0 in 60 s";
        assert_eq!(found.lines(), [line]);
    }
}
