//! One rollout: its states, waves, targets and counts, and what it wants to do next.
//!
//! The lasting part is a fold of ledger events. Beside it stand a few boot times (soak, silence,
//! renewal) that begin anew after a restart: while the coordinator was down it heard of no failure, so
//! that time proves nothing, and of no success, so that time accuses nobody.

use std::collections::{BTreeMap, BTreeSet};

use protocol::envelope::Envelope;
use protocol::inventory::Subject;
use protocol::limits::ABSENT_AFTER;
use protocol::plan::RolloutPlan;
use protocol::status::{Bucket, Reachability, State, bucket};
use protocol::trust::Statement;
use protocol::{Hash, NodeId, Now, PublicKey, Span, Time};

use crate::contract::{RolloutState, Verdict};
use crate::daily::Daily;
use crate::evidence::{Evidence, Traits};
use crate::fleet::Node;
use crate::gate;
use crate::moves::spread_step;
use crate::roster::Roster;
use crate::tally::{Tally, Target, has_failed};
use crate::window::Window;

/// Where a wave stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct WaveStand {
    pub opened_at: Option<Time>,
    pub ended_at: Option<Time>,
    pub verdict: Option<Verdict>,
    pub tally: Tally,
    /// Boot time since which the ratio holds with the sample in.
    pub(crate) holds_since: Option<Time>,
    /// Boot time since which it is open, or the coordinator knows that it is.
    pub(crate) opened_boot: Option<Time>,
}

/// One rollout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rollout {
    pub plan: RolloutPlan,
    pub digest: Hash,
    /// The plan with the signatures that it has so far.
    pub envelope: Envelope,
    pub approved_by: Vec<PublicKey>,
    pub recall: Option<Envelope>,
    pub state: RolloutState,
    pub why: String,
    /// Wall time since which it is in this state, by the ledger.
    pub(crate) since: Time,
    /// It ran once.
    pub(crate) started: bool,
    /// It ended and left the bulletin.
    pub retired: bool,
    pub(crate) roster: Roster,
    pub targets: BTreeMap<NodeId, Target>,
    /// Targets that count as failed, so that nobody looks for them among all.
    pub(crate) failed: BTreeSet<NodeId>,
    pub waves: Vec<WaveStand>,
    /// Boot time at which the lease is renewed.
    pub(crate) lease_due: Time,
    /// Boot time from which more of a wave whose starts are spread may get leave.
    pub(crate) spread_due: Time,
    /// Nodes that reported a start, by the boot time at which their silence counts as failure.
    pub(crate) awaited: BTreeSet<(Time, NodeId)>,
    /// Boot time since which nothing more is to come.
    pub(crate) settled_since: Option<Time>,
    /// What the outcomes prove, if the plan has a sequential test.
    pub(crate) evidence: Option<Evidence>,
    pub(crate) window: Window,
    /// Starts by the day.
    pub(crate) daily: Daily,
    /// See [`ABSENT_AFTER`].
    pub absent_after: Span,
}

impl Rollout {
    /// A rollout that waits for approval.
    pub fn proposed(plan: RolloutPlan) -> Rollout {
        let envelope = plan.to_envelope();
        Rollout {
            digest: envelope.digest(),
            waves: vec![WaveStand::default(); plan.waves.len()],
            roster: Roster::of(&plan),
            evidence: plan.test.as_ref().map(Evidence::new),
            window: Window::default(),
            daily: Daily::default(),
            absent_after: ABSENT_AFTER,
            plan,
            envelope,
            approved_by: Vec::new(),
            recall: None,
            state: RolloutState::WaitingForApproval,
            why: "approvals are missing".into(),
            since: Time(0),
            started: false,
            retired: false,
            targets: BTreeMap::new(),
            failed: BTreeSet::new(),
            lease_due: Time(0),
            spread_due: Time(0),
            awaited: BTreeSet::new(),
            settled_since: None,
        }
    }

    /// A rollout whose plan comes with the signatures of all who must approve it.
    pub fn approved(plan: RolloutPlan, envelope: &Envelope) -> Rollout {
        let mut rollout = Rollout::proposed(plan);
        rollout.approved_by = envelope.signatures.iter().map(|s| s.keyid).collect();
        rollout.envelope = envelope.clone();
        rollout.fold_state(RolloutState::Ready, "approved; not started");
        rollout
    }

    // ---- folds ---------------------------------------------------------------------------------

    /// Folds a change of state. Resuming a held or halted rollout forgives the failures that were known: the
    /// operator has looked at them, and the gate judges what comes after.
    pub fn fold_state(&mut self, state: RolloutState, why: &str) {
        let goes_on = matches!(state, RolloutState::Running | RolloutState::Preempted);
        let stopped = matches!(self.state, RolloutState::Held | RolloutState::Aborted);
        if stopped && goes_on {
            for id in self.failed.clone() {
                self.change(&id, |t| t.forgiven = true);
            }
            for wave in self
                .waves
                .iter_mut()
                .filter(|w| w.verdict == Some(Verdict::Fail))
            {
                (wave.verdict, wave.ended_at, wave.holds_since) = (None, None, None);
            }
            self.evidence.iter_mut().for_each(Evidence::begin_anew);
        }
        self.started |= state == RolloutState::Running;
        self.state = state;
        self.why = why.to_owned();
        self.retired = false;
        self.settled_since = None;
    }

    /// Folds that a node became a target, or changed its wave. One whose site nobody knows yet may
    /// stand in another wave than it seems, and may never be heard of, so no gate waits for it.
    pub fn fold_joined(
        &mut self,
        node: NodeId,
        wave: u32,
        traits: Traits,
        state: State,
        boot: Time,
    ) {
        let Some(count) = self.waves.len().checked_sub(1) else {
            return;
        };
        let wave = wave.min(count as u32);
        let silent = state == State::NotReceived;
        let placed = traits.site.is_some() || !silent || !self.roster.asks_for_sites();
        if self.targets.contains_key(&node) {
            self.change(&node, |t| {
                t.wave = wave;
                t.placed |= placed;
                t.traits.site = traits.site;
            });
            return;
        }
        let held = self.is_held(&traits);
        let at = self.evidence.as_ref().map(|_| self.roster.position(&node));
        let at = at.unwrap_or(0);
        let votes = self.state == RolloutState::Ready;
        let target = Target {
            wave,
            votes,
            placed,
            state,
            unseen: None,
            forgiven: false,
            problem: false,
            held,
            at,
            traits,
            heard: boot,
        };
        self.targets.insert(node, target);
        self.index(&node);
    }

    /// Folds that a node is no target any more.
    pub fn fold_left(&mut self, node: &NodeId) {
        self.daily.changed(node, None, None);
        self.unindex(node);
        self.targets.remove(node);
    }

    /// Folds a target's newest state. One that takes it out of the targets is no target's any more by
    /// then, so it is not counted here.
    pub fn fold_target_state(&mut self, node: &NodeId, state: State, boot: Time) {
        if bucket(state, Reachability::Reachable) == Bucket::Out {
            return;
        }
        self.change(node, |t| {
            t.state = state;
            t.heard = boot;
            t.placed = true;
        });
    }

    /// Folds that peers see a node silent after its success, or see it again.
    pub fn fold_witnessed(&mut self, silent: &[NodeId], back: &[NodeId], boot: Time) {
        for node in silent {
            self.change(node, |t| t.unseen = Some(boot));
        }
        for node in back {
            self.change(node, |t| {
                if t.unseen.take().is_some() && t.state == State::MissingReport {
                    t.state = State::Succeeded;
                }
            });
        }
    }

    /// Folds that a wave opened.
    pub fn fold_opened(&mut self, wave: u32, at: Time) {
        if let Some(stand) = self.waves.get_mut(wave as usize) {
            stand.opened_at = Some(at);
            self.lease_due = Time(0);
        }
        if self.evidence.is_some() {
            self.window.open();
            let members = self
                .targets
                .iter()
                .filter(|(_, t)| t.wave == wave && t.waits());
            members.for_each(|(id, t)| self.window.add(*id, t.at, t.heard));
        }
    }

    /// Folds a lease: who has leave from here on. Gives those that had none.
    pub fn fold_lease(&mut self, below: Option<u64>, boot: Time) -> Vec<NodeId> {
        let until = boot + self.patience();
        self.window.leased(below, until)
    }

    /// Folds a verdict of the sequential test for the release, or for a cohort.
    pub fn fold_cleared(&mut self, cohort: Option<u32>) {
        self.evidence.iter_mut().for_each(|e| e.cleared(cohort));
    }

    /// Folds that the release does harm on a node.
    pub fn fold_problem(&mut self, node: &NodeId) {
        self.change(node, |t| t.problem = true);
    }

    /// Folds that a cohort is held: its nodes start nothing and their outcomes count nowhere.
    pub fn fold_cohort_held(&mut self, cohort: u32) {
        let Some(evidence) = &mut self.evidence else {
            return;
        };
        evidence.hold(cohort);
        let evidence = &*evidence;
        let concerned = |(_, t): &(&NodeId, &Target)| !t.held && evidence.is_held(t.traits.cohorts);
        let nodes: Vec<NodeId> = self
            .targets
            .iter()
            .filter(concerned)
            .map(|(id, _)| *id)
            .collect();
        nodes
            .iter()
            .for_each(|id| self.change(id, |t| t.held = true));
        self.lease_due = Time(0);
    }

    /// Folds that a cohort goes on: what failed in it is forgiven, and its test begins anew.
    pub fn fold_cohort_released(&mut self, cohort: u32) {
        let Some(mut evidence) = self.evidence.clone() else {
            return;
        };
        evidence.release(cohort);
        let free = |(_, t): &(&NodeId, &Target)| t.held && !evidence.is_held(t.traits.cohorts);
        let nodes: Vec<NodeId> = self
            .targets
            .iter()
            .filter(free)
            .map(|(id, _)| *id)
            .collect();
        for id in &nodes {
            let failed = self.failed.contains(id);
            self.change(id, |t| {
                t.held = false;
                t.forgiven |= failed;
            });
        }
        self.evidence.iter_mut().for_each(|e| e.release(cohort));
        self.lease_due = Time(0);
    }

    /// What of a node matters at gates.
    pub fn traits(&self, node: &Node) -> Traits {
        let test = self.plan.test.as_ref();
        Traits {
            site: node.site.clone(),
            cohorts: test.map_or(0, |t| {
                t.cohorts_of(&Subject {
                    site: None,
                    ..node.subject()
                })
            }),
        }
    }

    fn is_held(&self, traits: &Traits) -> bool {
        let evidence = self.evidence.as_ref();
        evidence.is_some_and(|e| e.is_held(traits.cohorts))
    }

    /// How long a node that has leave and does not start is counted on.
    fn patience(&self) -> Span {
        let newest = self.newest_open().unwrap_or(0);
        let gate = self.plan.waves.get(newest as usize).map(|w| &w.gate);
        gate.map_or(Span::ZERO, |g| g.silence_after)
    }

    /// Folds a verdict.
    pub fn fold_verdict(&mut self, wave: u32, verdict: Verdict, at: Time) {
        if let Some(stand) = self.waves.get_mut(wave as usize) {
            stand.verdict = Some(verdict);
            stand.ended_at = Some(at);
        }
    }

    fn change(&mut self, node: &NodeId, change: impl FnOnce(&mut Target)) {
        self.unindex(node);
        if let Some(target) = self.targets.get_mut(node) {
            let before = target.state;
            change(target);
            if before != target.state {
                self.daily.changed(node, Some(before), Some(target.state));
            }
        }
        self.index(node);
    }

    fn deadline(&self, target: &Target) -> Option<Time> {
        let silence = self.plan.waves[target.wave as usize].gate.silence_after;
        let since = match target.state {
            State::Succeeded => target.unseen,
            state => state.started().then_some(target.heard),
        };
        since
            .filter(|_| silence > Span::ZERO)
            .map(|at| at + silence)
    }

    /// Takes a target out of the sums and sets in which it stands by its state.
    fn unindex(&mut self, node: &NodeId) {
        let Some(target) = self.targets.get(node) else {
            return;
        };
        self.waves[target.wave as usize].tally.remove(target);
        if let Some(evidence) = &mut self.evidence {
            evidence.target(&target.traits, -1);
            let verdict = target.verdict();
            verdict
                .iter()
                .for_each(|failed| evidence.vote(&target.traits, *failed, -1));
        }
        if let Some(at) = self.deadline(target) {
            self.awaited.remove(&(at, *node));
        }
        if has_failed(target) {
            self.failed.remove(node);
        }
    }

    fn index(&mut self, node: &NodeId) {
        let Some(target) = self.targets.get(node) else {
            return;
        };
        self.waves[target.wave as usize].tally.add(target);
        if let Some(evidence) = &mut self.evidence {
            evidence.target(&target.traits, 1);
            let verdict = target.verdict();
            verdict
                .iter()
                .for_each(|failed| evidence.vote(&target.traits, *failed, 1));
        }
        let (deadline, failed) = (self.deadline(target), has_failed(target));
        self.place_in_window(node);
        if let Some(at) = deadline {
            self.awaited.insert((at, *node));
        }
        if failed {
            self.failed.insert(*node);
        }
    }

    /// Who waits in the newest wave has a place in its window; nobody else has.
    fn place_in_window(&mut self, node: &NodeId) {
        let newest = self.newest_open();
        let Some(target) = self.targets.get(node).filter(|_| self.evidence.is_some()) else {
            return;
        };
        match target.waits() && newest == Some(target.wave) {
            true if self.window.knows(node, target.at) => {}
            true => {
                let until = target.heard + self.patience();
                self.window.add(*node, target.at, until);
            }
            false => self.window.remove(node, target.at),
        }
    }

    // ---- questions -----------------------------------------------------------------------------

    /// Whether nodes shall know of it: it is in the bulletin.
    pub fn is_alive(&self) -> bool {
        use RolloutState as S;
        match self.state {
            S::WaitingForApproval | S::Ready => false,
            S::Running | S::Paused | S::Preempted | S::Held | S::Recalling => true,
            S::Finished | S::Aborted | S::Recalled => self.started && !self.retired,
        }
    }

    /// Whether it should leave the bulletin now: nothing more is to come, and has not for a while.
    pub fn is_spent(&self, now: Now) -> bool {
        self.spent_at().is_some_and(|at| now.boot >= at)
            || (self.state == RolloutState::Finished && now.wall >= self.plan.not_after)
    }

    pub(crate) fn spent_at(&self) -> Option<Time> {
        Some(self.settled_since? + self.plan.lease_ttl)
    }

    /// The wave that has a node, if the plan concerns it.
    pub fn wave_of(&self, id: &NodeId, node: &Node) -> Option<u32> {
        let wave = self.roster.wave_of(id, node.site.as_deref());
        wave.filter(|_| self.plan.targets.meets(&node.subject()))
    }

    /// The newest open wave.
    pub fn newest_open(&self) -> Option<u32> {
        self.waves
            .iter()
            .rposition(|w| w.opened_at.is_some())
            .map(|w| w as u32)
    }

    /// All waves together.
    pub fn tally(&self) -> Tally {
        self.waves.iter().fold(Tally::default(), |mut sum, wave| {
            let t = &wave.tally;
            sum.targets += t.targets;
            sum.counts.applied += t.counts.applied;
            sum.counts.failed += t.counts.failed;
            sum.counts.open += t.counts.open;
            sum.counts.not_received += t.counts.not_received;
            sum.ended += t.ended;
            sum.in_flight += t.in_flight;
            sum.waiting += t.waiting;
            sum.taken_back += t.taken_back;
            sum
        })
    }

    /// As listings call a wave's state.
    pub fn wave_state(&self, wave: usize) -> &'static str {
        let stand = &self.waves[wave];
        match (stand.opened_at, stand.verdict) {
            (None, _) => "scheduled",
            (_, Some(Verdict::Pass)) => "passed",
            (_, Some(Verdict::Fail)) => "failed",
            _ if gate::holds(&self.plan.waves[wave].gate, stand.tally.votes) => "soaking",
            _ => "running",
        }
    }

    /// The wave as sentences name it.
    pub fn wave_name(&self, wave: u32) -> String {
        let name = self
            .plan
            .waves
            .get(wave as usize)
            .map_or("", |w| w.name.as_str());
        format!("wave {} ({name})", wave + 1)
    }

    // ---- time ----------------------------------------------------------------------------------

    /// After a replay: soak, silence and renewal count from here.
    pub fn restart_clocks(&mut self, boot: Time) {
        (self.lease_due, self.spread_due) = (boot, boot);
        self.settled_since = None;
        self.awaited.clear();
        for wave in &mut self.waves {
            (wave.holds_since, wave.opened_boot) = (None, None);
        }
        let ids: Vec<NodeId> = self.targets.keys().copied().collect();
        for id in ids {
            self.change(&id, |t| {
                t.heard = boot;
                t.unseen = t.unseen.map(|_| boot);
            });
        }
        let patience = self.patience();
        self.window.restart(boot, patience);
    }

    /// A lease was given: the next is due after a third of its life.
    pub fn lease_given(&mut self, boot: Time) {
        self.lease_due = boot + Span((self.plan.lease_ttl.0 / 3).max(1));
        self.spread_due = boot + spread_step(self.plan.constraints.spread);
    }

    /// The next lease is due then.
    pub fn lease_given_until(&mut self, boot: Time) {
        self.lease_due = boot;
    }

    /// A lease is wanted at once.
    pub fn want_lease(&mut self) {
        self.lease_due = Time(0);
    }
}
