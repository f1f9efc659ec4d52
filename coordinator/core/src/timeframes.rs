//! Time frames: until when a rollout of a priority should be through, and by when at the latest.

use protocol::plan::{Priority, RolloutPlan};
use protocol::{Span, Time};
use serde::{Deserialize, Serialize};

use crate::contract::Counts;

/// How long a rollout may take, from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// It should be through within this.
    pub target: Span,
    /// It must be through within this.
    pub latest: Span,
}

/// The frame of each priority; none for what may wait for the next rollup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeFrames {
    /// See [`Priority::Emergency`].
    pub emergency: Option<Frame>,
    /// See [`Priority::High`].
    pub high: Option<Frame>,
    /// See [`Priority::Medium`].
    pub medium: Option<Frame>,
    /// See [`Priority::Low`].
    pub low: Option<Frame>,
}

impl Default for TimeFrames {
    fn default() -> TimeFrames {
        let days = |target: u64, latest: u64| {
            let span = |days| Span::from_secs(days * 86_400);
            Some(Frame {
                target: span(target),
                latest: span(latest),
            })
        };
        TimeFrames {
            emergency: days(1, 14),
            high: days(7, 30),
            medium: days(30, 120),
            low: None,
        }
    }
}

impl TimeFrames {
    /// The frame of a priority.
    pub fn of(&self, priority: Priority) -> Option<Frame> {
        match priority {
            Priority::Emergency => self.emergency,
            Priority::High => self.high,
            Priority::Medium => self.medium,
            Priority::Low => self.low,
        }
    }

    /// Sets the frame of a priority.
    pub fn set(&mut self, priority: Priority, frame: Frame) {
        let held = match priority {
            Priority::Emergency => &mut self.emergency,
            Priority::High => &mut self.high,
            Priority::Medium => &mut self.medium,
            Priority::Low => &mut self.low,
        };
        *held = Some(frame);
    }
}

/// By when a rollout is to be through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Promise {
    /// It should be through by then: the plan's deadline if that is earlier than its priority's target.
    pub target: Time,
    /// It must be through by then: the plan's deadline, or its priority's latest date.
    pub latest: Time,
}

/// Where a rollout stands to its promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Every target has the release.
    Through,
    /// Some lack it, and the target date is to come.
    InTime,
    /// Some lack it, and the target date is over.
    PastTarget,
    /// Some lack it, and the latest date is over.
    PastLatest,
}

impl Promise {
    /// The dates of a plan that started then; none if neither it nor its priority has any.
    pub fn of(frames: &TimeFrames, plan: &RolloutPlan, started: Time) -> Option<Promise> {
        let frame = frames.of(plan.priority);
        let within = |span: Span| started + span;
        let latest = plan.constraints.deadline;
        let latest = latest.or_else(|| Some(within(frame?.latest)))?;
        let target = frame.map_or(latest, |frame| within(frame.target));
        let target = target.min(latest);
        Some(Promise { target, latest })
    }

    /// How a rollout with these counts stands.
    pub fn standing(&self, counts: &Counts, now: Time) -> Standing {
        match counts.total() - counts.applied {
            0 => Standing::Through,
            _ if now > self.latest => Standing::PastLatest,
            _ if now > self.target => Standing::PastTarget,
            _ => Standing::InTime,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{CREATED, Fleet};

    fn promise(
        priority: Priority,
        deadline: Option<u64>,
        applied: u32,
        after: u64,
    ) -> Option<(u64, u64, Standing)> {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let mut plan = fleet.plan("r", &release, Vec::new());
        let day = |n: u64| CREATED + Span::from_secs(n * 86_400);
        plan.priority = priority;
        plan.constraints.deadline = deadline.map(day);
        let found = Promise::of(&TimeFrames::default(), &plan, CREATED)?;
        let counts = Counts {
            applied,
            open: 10 - applied,
            ..Counts::default()
        };
        let standing = found.standing(&counts, day(after));
        let days = |at: Time| at.since(CREATED).0 / 86_400_000;
        Some((days(found.target), days(found.latest), standing))
    }

    #[test]
    fn a_deadline_of_the_plan_stands_before_the_frame_of_its_priority() {
        use Priority::{Emergency, High, Low, Medium};
        use Standing::{InTime, PastLatest, PastTarget, Through};
        let cases = [
            (Emergency, None, 9, 1, Some((1, 14, InTime))),
            (Emergency, None, 9, 2, Some((1, 14, PastTarget))),
            (Emergency, None, 9, 15, Some((1, 14, PastLatest))),
            (Emergency, None, 10, 15, Some((1, 14, Through))),
            (High, Some(3), 9, 4, Some((3, 3, PastLatest))),
            (High, Some(20), 9, 8, Some((7, 20, PastTarget))),
            (Medium, None, 0, 0, Some((30, 120, InTime))),
            (Low, None, 0, 0, None),
            (Low, Some(5), 0, 0, Some((5, 5, InTime))),
        ];
        for (priority, deadline, applied, after, expected) in cases {
            let found = promise(priority, deadline, applied, after);
            assert_eq!(found, expected, "{priority:?} {deadline:?} day {after}");
        }
    }
}
