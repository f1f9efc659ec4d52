//! Who looks at the coordinator: at every entry of its ledger, and at its counts after every event.

use std::collections::BTreeMap;

use coordinator_core::Conductor;
use coordinator_core::contract::{Counts, LedgerEvent, RolloutState, RolloutView};
use protocol::manifest::ReleaseManifest;
use protocol::plan::RolloutPlan;
use protocol::{Hash, RolloutId, Span, Time};

use crate::checks::counts;
use crate::checks::findings::{Findings, Rule};
use crate::checks::gates::Gates;
use crate::checks::limits::Limited;
use crate::checks::liveness::{Duty, Judgement, Stretches};
use crate::checks::verified::Approved;
use crate::checks::watch::Watch;
use crate::series::Levels;

/// Outcomes over time are kept in steps of this length, or longer.
const GRAIN: Span = Span::from_millis(250);

/// Looks at the coordinator.
#[derive(Default)]
pub struct Audit {
    /// What was found.
    pub found: Findings,
    approved: Approved,
    gates: Gates,
    rollouts: BTreeMap<RolloutId, Course>,
}

/// The course of a rollout, as the ledger tells it.
#[derive(Default)]
pub struct Course {
    /// Its plan, once approved.
    pub plan: Option<(RolloutPlan, Hash)>,
    /// When it was running.
    running: Stretches,
    /// For each wave, when it was open in the running rollout.
    open: Vec<Stretches>,
    /// When each wave opened, and how often the rollout had moved by then.
    opened: Vec<(Time, usize)>,
    /// When it moved: a wave opened, or its state changed.
    moved: Vec<Time>,
    /// Its counts as the coordinator had them last.
    counts: Option<Counts>,
    /// Good and bad outcomes of all of it over time.
    total: Option<Levels<(u32, u32)>>,
    /// Good and bad outcomes of each wave over time.
    outcomes: Vec<Levels<(u32, u32)>>,
}

/// How long things may take once faults have stopped.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Faults before this excuse.
    pub quiet: Time,
    /// The world ended.
    pub end: Time,
    /// From a verdict that could be given to the verdict, beside the soak.
    pub verdict: Span,
}

impl Audit {
    /// A rule was broken.
    pub fn violated(&mut self, at: Time, rule: Rule, what: impl Into<String>) {
        self.found.violated(at, rule, what);
    }

    /// The coordinator appends to its ledger.
    pub fn appended(&mut self, at: Time, event: &LedgerEvent) {
        if let Err(what) = self.gates.appended(event) {
            self.found.violated(at, Rule::Gate, what);
        }
        match event {
            LedgerEvent::Released { envelope } => {
                let release = serde_json::from_slice::<ReleaseManifest>(&envelope.payload);
                if release.is_ok() {
                    self.approved.published(at, envelope.digest());
                }
            }
            LedgerEvent::Approved {
                rollout,
                envelope,
                complete: true,
                ..
            } => {
                if let Ok(plan) = serde_json::from_slice::<RolloutPlan>(&envelope.payload) {
                    self.approved.approved(at, plan.release);
                    self.course(rollout).plan = Some((plan, envelope.digest()));
                }
            }
            LedgerEvent::State { rollout, state, .. } => {
                let course = self.course(rollout);
                let runs = *state == RolloutState::Running;
                course.moved.push(at);
                course.running.set(at, runs);
                course.open.iter_mut().for_each(|open| open.set(at, runs));
            }
            LedgerEvent::WaveOpened { rollout, .. } => {
                let course = self.course(rollout);
                let mut open = Stretches::default();
                open.set(at, course.running.holds());
                course.moved.push(at);
                course.opened.push((at, course.moved.len()));
                course.open.push(open);
            }
            _ => {}
        }
    }

    fn course(&mut self, rollout: &RolloutId) -> &mut Course {
        self.rollouts.entry(rollout.clone()).or_default()
    }

    /// The coordinator has handled an event, and asked for so many actions.
    pub fn handled(&mut self, at: Time, conductor: &Conductor, actions: usize) {
        if let Err(what) = Limited::Actions.holds(actions) {
            self.found
                .violated(at, Rule::Limits, format!("the coordinator: {what}"));
        }
        for view in conductor.rollouts() {
            if let Err(what) = counts::add_up(&view) {
                self.found.violated(at, Rule::Counts, what);
            }
            self.course(&view.rollout).counted(at, &view);
        }
    }

    /// Since when a rollout's counts have said that so many nodes have it, and that so many failed or
    /// more: what the coordinator derives from silence comes on top. None if they do not.
    pub fn counted_since(&self, rollout: &RolloutId, applied: u32, failed: u32) -> Option<Time> {
        let levels = self.rollouts.get(rollout)?.total.as_ref()?.levels();
        let so = levels
            .iter()
            .rev()
            .map_while(|(at, (good, bad))| (*good == applied && *bad >= failed).then_some(*at));
        so.last()
    }

    /// Good and bad outcomes of a wave as the coordinator had counted them, from each second on.
    pub fn outcomes(&self, rollout: &RolloutId, wave: usize) -> Vec<(f64, u32, u32)> {
        let course = self.rollouts.get(rollout);
        let levels = course.and_then(|course| course.outcomes.get(wave));
        let levels = levels.into_iter().flat_map(Levels::levels);
        let seconds = |at: &Time| at.0 as f64 / 1000.0;
        levels
            .map(|(at, (good, bad))| (seconds(at), *good, *bad))
            .collect()
    }

    /// Looks back on a world that has ended. `bound` says how long a node of a part may take for a
    /// rollout; what the parts found themselves is not repeated.
    pub fn settle(
        &self,
        watches: &[&Watch],
        bounds: Bounds,
        bound: &dyn Fn(usize, &RolloutPlan) -> Span,
    ) -> Findings {
        let mut found = Findings::default();
        for watch in watches {
            watch.installed.settle(&self.approved, &mut found);
        }
        for course in self.rollouts.values() {
            let Some((plan, _)) = &course.plan else {
                continue;
            };
            course.settle(plan, watches, bounds, bound, &mut found);
        }
        found
    }
}

/// What a wave's nodes came to.
#[derive(Clone, Copy, Default)]
struct Ends {
    targets: u32,
    ended: u32,
    last: Time,
    /// Whether one of them could not be reached since.
    away: bool,
}

impl Course {
    fn counted(&mut self, at: Time, view: &RolloutView) {
        if self.counts == Some(view.counts) {
            return;
        }
        self.counts = Some(view.counts);
        let total = self.total.get_or_insert_with(|| Levels::new(GRAIN));
        total.set(at, (view.counts.applied, view.counts.failed));
        for (number, wave) in view.waves.iter().enumerate() {
            if self.outcomes.len() <= number {
                self.outcomes.push(Levels::new(GRAIN));
            }
            self.outcomes[number].set(at, (wave.counts.applied, wave.counts.failed));
        }
    }

    fn settle(
        &self,
        plan: &RolloutPlan,
        watches: &[&Watch],
        bounds: Bounds,
        bound: &dyn Fn(usize, &RolloutPlan) -> Span,
        found: &mut Findings,
    ) {
        let mut ends = vec![Ends::default(); plan.waves.len()];
        let name = format!("{}@{}", plan.product, plan.version);
        for (part, watch) in watches.iter().enumerate() {
            // the origin installs nothing and is nobody's target
            if watch.site().is_none() {
                continue;
            }
            let bound = bound(part, plan);
            for (slot, node) in watch.nodes().iter().enumerate() {
                let Some(wave) = plan.wave_of(node, watch.site()) else {
                    continue;
                };
                let outcome = watch.histories.outcome(slot, &plan.rollout);
                let reachable = watch.histories.reach(slot);
                let ended = outcome.ended.map(|(at, _)| at);
                let end = &mut ends[wave as usize];
                end.targets += 1;
                end.ended += u32::from(ended.is_some());
                end.last = end.last.max(ended.unwrap_or(Time(0)));
                end.away |= !ended.is_some_and(|at| reachable.since(at));
                let Some(open) = self.open.get(wave as usize) else {
                    continue;
                };
                let duty = Duty {
                    node: watch.number(slot),
                    reachable,
                    open,
                    under_way: watch.histories.under_way(slot, &plan.rollout),
                    bound,
                };
                if let Some(due) = duty.missed(bounds.quiet, bounds.end) {
                    found.violated(due, Rule::Liveness, duty.to_line(&name));
                }
            }
        }
        for (number, (opened, moves)) in self.opened.iter().enumerate() {
            let (ends, wave) = (ends[number], &plan.waves[number]);
            let judgement = Judgement {
                all_ended: (ends.ended == ends.targets && !ends.away).then_some(ends.last),
                opened: *opened,
                judged: self.moved.get(*moves).copied(),
                bound: Span(wave.gate.soak.0 + bounds.verdict.0),
            };
            if let Some(due) = judgement.missed(bounds.quiet, bounds.end) {
                let what = format!("wave {} of {name} is not judged", wave.name);
                found.violated(due, Rule::Liveness, what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_core::contract::{Event, Record, StatusRecord};
    use protocol::fixtures::{CREATED, Fleet, node, site};
    use protocol::status::{NodeStatus, State};
    use protocol::{Now, Seq, Verified};

    /// A rollout to two nodes in one wave each, of which some things did not happen.
    struct History {
        fleet: Fleet,
        plan: Verified<RolloutPlan>,
        audit: Audit,
        watch: Watch,
    }

    impl History {
        fn new() -> History {
            let fleet = Fleet::new(1);
            let release = fleet.verified(&fleet.release("app", "1", 1));
            let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
            let mut watch = Watch::new(0, vec![node(1), node(2)], Some(site("s1")), None);
            (0..2).for_each(|slot| watch.came_up(Time(0), slot, false));
            let mut audit = Audit::default();
            let envelope = release.envelope().clone();
            audit.appended(Time(1), &LedgerEvent::Released { envelope });
            History {
                fleet,
                plan,
                audit,
                watch,
            }
        }

        fn approved(&mut self) {
            let event = LedgerEvent::Approved {
                rollout: self.plan.rollout.clone(),
                by: self.fleet.proposer(),
                envelope: self.plan.envelope().clone(),
                complete: true,
            };
            self.audit.appended(Time(2), &event);
        }

        fn state(&mut self, at: u64, state: RolloutState) {
            let event = LedgerEvent::State {
                rollout: self.plan.rollout.clone(),
                state,
                why: String::new(),
                at: Time(at),
            };
            self.audit.appended(Time(at), &event);
        }

        fn opened(&mut self, at: u64, wave: u32) {
            let event = LedgerEvent::WaveOpened {
                rollout: self.plan.rollout.clone(),
                wave,
                at: Time(at),
            };
            self.audit.appended(Time(at), &event);
        }

        fn passed(&mut self, at: u64, wave: u32) {
            let event = LedgerEvent::Verdict {
                rollout: self.plan.rollout.clone(),
                wave,
                verdict: coordinator_core::contract::Verdict::Pass,
                counts: (1, 0),
                why: String::new(),
                at: Time(at),
            };
            self.audit.appended(Time(at), &event);
        }

        fn installs(&mut self, at: u64, slot: usize) {
            let now = Now {
                boot: Time(at),
                wall: CREATED + Span(at),
            };
            let lease = self.fleet.order(9, self.fleet.lease(&self.plan, 1));
            let time = Time(at);
            self.watch
                .told(time, now, slot, &Event::Plan(self.plan.clone()));
            self.watch.told(time, now, slot, &Event::Order(lease, None));
            self.watch.switches(
                (time, now),
                slot,
                &BTreeMap::new(),
                &self.plan.release,
                true,
            );
            let status = NodeStatus {
                fleet: self.fleet.id(),
                node: node(1 + slot as u64),
                rollout: self.plan.rollout.clone(),
                plan: self.plan.digest(),
                release: self.plan.release,
                wave: slot as u32,
                seq: Seq::default(),
                state: State::Succeeded,
                reason: String::new(),
                entered_at: Time(at),
                attempt: 1,
                install_id: Hash([1; 32]),
                lan_bytes: 0,
                wan_bytes: 0,
                exit_code: None,
                output_tail: String::new(),
            };
            let record = Record::Status(StatusRecord {
                status,
                acknowledged: None,
            });
            self.watch.remembered(time, slot, &record);
        }

        fn found(self) -> Vec<String> {
            let bounds = Bounds {
                quiet: Time(0),
                end: Time(1_000_000),
                verdict: Span(30_000),
            };
            let bound = |_: usize, _: &RolloutPlan| Span(60_000);
            let mut found = self.audit.settle(&[&self.watch], bounds, &bound);
            found.merge(self.audit.found);
            found.merge(self.watch.found);
            found.lines()
        }
    }

    #[test]
    fn a_sound_history_is_clean_and_each_gap_is_seen() {
        let play = |approved: bool, passed: bool, second: bool, finished: bool| {
            let mut history = History::new();
            if approved {
                history.approved();
            }
            history.state(10, RolloutState::Running);
            history.opened(10, 0);
            history.installs(5_000, 0);
            if passed {
                history.passed(8_000, 0);
            }
            history.opened(9_000, 1);
            if second {
                history.installs(20_000, 1);
            }
            if finished {
                history.state(40_000, RolloutState::Finished);
            }
            history.found()
        };
        assert_eq!(play(true, true, true, true), [""; 0]);
        let line = "at 5000 ms: unverified: node 0 switches to release";
        assert!(play(false, true, true, true)[0].starts_with(line));
        let line = "at 9000 ms: gate: wave 1 of r opens, but wave 0 did not pass its gate";
        assert_eq!(play(true, false, true, true), [line]);
        let line = "at 69000 ms: liveness: node 1 did not converge on app@1 in 60 s";
        assert_eq!(play(true, true, false, false), [line]);
        let line = "at 51000 ms: liveness: wave rest of app@1 is not judged";
        assert_eq!(play(true, true, true, false), [line]);
    }

    #[test]
    fn a_pause_excuses() {
        let mut history = History::new();
        history.approved();
        history.state(10, RolloutState::Running);
        history.opened(10, 0);
        history.state(30_000, RolloutState::Paused);
        assert_eq!(history.found(), [""; 0]);
    }
}
