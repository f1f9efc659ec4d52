//! One rollout: its states, waves, targets and counts, and what it wants to do next.
//!
//! The lasting part is a fold of ledger events. Beside it stand a few boot times (soak, silence,
//! renewal) that begin anew after a restart: while the coordinator was down it heard of no failure, so
//! that time proves nothing, and of no success, so that time accuses nobody.

use std::collections::{BTreeMap, BTreeSet};

use protocol::envelope::Envelope;
use protocol::limits::LEDGERED_NODES_MAX;
use protocol::plan::RolloutPlan;
use protocol::status::{Bucket, Reachability, State, bucket};
use protocol::trust::Statement;
use protocol::{Hash, NodeId, Now, PublicKey, SiteId, Span, Time};

use crate::contract::{Counts, RolloutState, Verdict};
use crate::gate::{self, Votes};
use crate::roster::Roster;

/// A node that the rollout concerns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub wave: u32,
    /// Later joiners have no vote: nobody tips a gate by enrolling.
    pub votes: bool,
    /// Its wave is certain. In a plan with waves for sites it is not until the node was heard of.
    pub placed: bool,
    pub state: State,
    /// Its failure was known when an operator resumed a held rollout.
    pub forgiven: bool,
    /// Boot time of its last word.
    heard: Time,
}

/// What the targets of a wave add up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    pub targets: u32,
    pub counts: Counts,
    pub votes: Votes,
    /// Nothing more is to come from these.
    pub ended: u32,
    /// Changing themselves right now.
    pub in_flight: u32,
    /// After a recall: the release is not (or no longer) there by this rollout.
    pub taken_back: u32,
}

impl Tally {
    fn add(&mut self, t: &Target) {
        let in_bucket = bucket(t.state, Reachability::Reachable);
        self.targets += 1;
        self.counts.add(in_bucket);
        let votes = t.votes && t.placed && !t.forgiven;
        self.votes.voters += u32::from(votes);
        self.votes.good += u32::from(votes && in_bucket == Bucket::Applied);
        self.votes.bad += u32::from(votes && in_bucket == Bucket::Failed);
        self.votes.late += u32::from(!t.votes);
        self.ended += u32::from(t.state.ended());
        self.in_flight += u32::from(t.state.started() || t.state == State::RollingBack);
        self.taken_back += u32::from(is_back(t.state));
    }

    fn remove(&mut self, t: &Target) {
        let mut one = Tally::default();
        one.add(t);
        self.targets -= one.targets;
        self.counts.applied -= one.counts.applied;
        self.counts.failed -= one.counts.failed;
        self.counts.open -= one.counts.open;
        self.counts.not_received -= one.counts.not_received;
        self.votes.voters -= one.votes.voters;
        self.votes.good -= one.votes.good;
        self.votes.bad -= one.votes.bad;
        self.votes.late -= one.votes.late;
        self.ended -= one.ended;
        self.in_flight -= one.in_flight;
        self.taken_back -= one.taken_back;
    }
}

/// Whether a recall has nothing more to do at a target. One that fell silent or got stuck on its way
/// back may still have the release; one that had it before the rollout keeps it.
fn is_back(state: State) -> bool {
    let still_there = matches!(
        state,
        State::Succeeded | State::MissingReport | State::RollbackFailed
    );
    state.ended() && !still_there
}

fn has_failed(target: &Target) -> bool {
    bucket(target.state, Reachability::Reachable) == Bucket::Failed
}

/// Where a wave stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct WaveStand {
    pub opened_at: Option<Time>,
    pub ended_at: Option<Time>,
    pub verdict: Option<Verdict>,
    pub tally: Tally,
    /// Boot time since which the ratio holds with the sample in.
    holds_since: Option<Time>,
}

/// What a rollout wants to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Move {
    /// These said nothing for too long after a reported start.
    Silence(Vec<NodeId>),
    /// A gate failed; the rollout is held.
    Fail {
        wave: u32,
        votes: Votes,
        why: String,
    },
    /// A gate passed.
    Pass {
        wave: u32,
        votes: Votes,
        why: String,
    },
    /// The next wave may start.
    Open(u32),
    /// Renew the lease of the waves up to this.
    Lease(u32),
    /// Every wave passed.
    Finish,
    /// Every target is back.
    TakenBack,
    /// The plan's time is over.
    Expire,
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
    /// It ran once.
    started: bool,
    /// It ended and left the bulletin.
    pub retired: bool,
    roster: Roster,
    pub targets: BTreeMap<NodeId, Target>,
    /// Targets that count as failed, so that nobody looks for them among all.
    failed: BTreeSet<NodeId>,
    pub waves: Vec<WaveStand>,
    /// Boot time at which the lease is renewed.
    lease_due: Time,
    /// Nodes that reported a start, by the boot time at which their silence counts as failure.
    awaited: BTreeSet<(Time, NodeId)>,
    /// Boot time since which nothing more is to come.
    settled_since: Option<Time>,
}

impl Rollout {
    /// A rollout that waits for approval.
    pub fn proposed(plan: RolloutPlan) -> Rollout {
        let envelope = plan.to_envelope();
        Rollout {
            digest: envelope.digest(),
            waves: vec![WaveStand::default(); plan.waves.len()],
            roster: Roster::of(&plan),
            plan,
            envelope,
            approved_by: Vec::new(),
            recall: None,
            state: RolloutState::WaitingForApproval,
            why: "approvals are missing".into(),
            started: false,
            retired: false,
            targets: BTreeMap::new(),
            failed: BTreeSet::new(),
            lease_due: Time(0),
            awaited: BTreeSet::new(),
            settled_since: None,
        }
    }

    // ---- folds ---------------------------------------------------------------------------------

    /// Folds a change of state. Resuming a held rollout forgives the failures that were known: the
    /// operator has looked at them, and the gate judges what comes after.
    pub fn fold_state(&mut self, state: RolloutState, why: &str) {
        if (self.state, state) == (RolloutState::Held, RolloutState::Running) {
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
        }
        self.started |= state == RolloutState::Running;
        self.state = state;
        self.why = why.to_owned();
        self.retired = false;
        self.settled_since = None;
    }

    /// Folds that a node became a target, or changed its wave. One whose `site` nobody knows yet may
    /// stand in another wave than it seems, and may never be heard of, so no gate waits for it.
    pub fn fold_joined(
        &mut self,
        node: NodeId,
        wave: u32,
        site: Option<&SiteId>,
        state: State,
        boot: Time,
    ) {
        let Some(count) = self.waves.len().checked_sub(1) else {
            return;
        };
        let wave = wave.min(count as u32);
        let silent = state == State::NotReceived;
        let placed = site.is_some() || !silent || !self.roster.asks_for_sites();
        if self.targets.contains_key(&node) {
            self.change(&node, |t| {
                t.wave = wave;
                t.placed |= placed;
            });
            return;
        }
        let votes = self.state == RolloutState::Ready;
        let target = Target {
            wave,
            votes,
            placed,
            state,
            forgiven: false,
            heard: boot,
        };
        self.waves[wave as usize].tally.add(&target);
        self.targets.insert(node, target);
        self.index(&node);
    }

    /// Folds that a node is no target any more.
    pub fn fold_left(&mut self, node: &NodeId) {
        self.unindex(node);
        if let Some(target) = self.targets.remove(node) {
            self.waves[target.wave as usize].tally.remove(&target);
        }
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

    /// Folds that a wave opened.
    pub fn fold_opened(&mut self, wave: u32, at: Time) {
        if let Some(stand) = self.waves.get_mut(wave as usize) {
            stand.opened_at = Some(at);
            self.lease_due = Time(0);
        }
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
            self.waves[target.wave as usize].tally.remove(target);
            change(target);
            self.waves[target.wave as usize].tally.add(target);
        }
        self.index(node);
    }

    fn deadline(&self, target: &Target) -> Option<Time> {
        let silence = self.plan.waves[target.wave as usize].gate.silence_after;
        (target.state.started() && silence > Span::ZERO).then(|| target.heard + silence)
    }

    /// Takes a target out of the sets in which it stands by its state.
    fn unindex(&mut self, node: &NodeId) {
        let Some(target) = self.targets.get(node) else {
            return;
        };
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
        let (deadline, failed) = (self.deadline(target), has_failed(target));
        if let Some(at) = deadline {
            self.awaited.insert((at, *node));
        }
        if failed {
            self.failed.insert(*node);
        }
    }

    // ---- questions -----------------------------------------------------------------------------

    /// Whether nodes shall know of it: it is in the bulletin.
    pub fn is_alive(&self) -> bool {
        use RolloutState as S;
        match self.state {
            S::WaitingForApproval | S::Ready => false,
            S::Running | S::Paused | S::Held | S::Recalling => true,
            S::Finished | S::Aborted | S::Recalled => self.started && !self.retired,
        }
    }

    /// Whether it should leave the bulletin now: nothing more is to come, and has not for a while.
    pub fn is_spent(&self, now: Now) -> bool {
        self.spent_at().is_some_and(|at| now.boot >= at)
            || (self.state == RolloutState::Finished && now.wall >= self.plan.not_after)
    }

    fn spent_at(&self) -> Option<Time> {
        Some(self.settled_since? + self.plan.lease_ttl)
    }

    /// The wave that has a node, if the plan concerns it.
    pub fn wave_of(&self, node: &NodeId, site: Option<&SiteId>) -> Option<u32> {
        self.roster.wave_of(node, site)
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
        self.lease_due = boot;
        self.settled_since = None;
        self.awaited.clear();
        self.waves.iter_mut().for_each(|w| w.holds_since = None);
        let ids: Vec<NodeId> = self.targets.keys().copied().collect();
        for id in ids {
            if let Some(target) = self.targets.get_mut(&id) {
                target.heard = boot;
            }
            self.index(&id);
        }
    }

    /// A lease was given: the next is due after a third of its life.
    pub fn lease_given(&mut self, boot: Time) {
        self.lease_due = boot + Span((self.plan.lease_ttl.0 / 3).max(1));
    }

    /// The next lease is due then.
    pub fn lease_given_until(&mut self, boot: Time) {
        self.lease_due = boot;
    }

    /// A lease is wanted at once.
    pub fn want_lease(&mut self) {
        self.lease_due = Time(0);
    }

    /// What it wants to do now. Folding the events of a move takes the wish away.
    pub fn next_move(&mut self, now: Now) -> Option<Move> {
        use RolloutState as S;
        if !self.is_alive() {
            return None;
        }
        let over = now.wall >= self.plan.not_after;
        if over && matches!(self.state, S::Running | S::Paused | S::Held) {
            return Some(Move::Expire);
        }
        let silent: Vec<NodeId> = self
            .awaited
            .iter()
            .take_while(|(at, _)| *at <= now.boot)
            .take(LEDGERED_NODES_MAX)
            .map(|(_, id)| *id)
            .collect();
        if !silent.is_empty() {
            return Some(Move::Silence(silent));
        }
        let tally = self.tally();
        let settled = match self.state {
            S::Finished => tally.ended == tally.targets,
            S::Recalled => tally.taken_back == tally.targets,
            S::Aborted => tally.in_flight == 0,
            _ => false,
        };
        match settled {
            true => self.settled_since = self.settled_since.or(Some(now.boot)),
            false => self.settled_since = None,
        }
        match self.state {
            S::Running | S::Finished => self.judge(now).or_else(|| {
                let newest = self.newest_open()?;
                let wanted = self.state == S::Running || tally.ended < tally.targets;
                (wanted && !over && self.lease_due <= now.boot).then_some(Move::Lease(newest))
            }),
            S::Recalling if tally.taken_back == tally.targets => Some(Move::TakenBack),
            _ => None,
        }
    }

    fn judge(&mut self, now: Now) -> Option<Move> {
        let mut passed = None;
        let last = self.plan.waves.len() - 1;
        for (number, stand) in self.waves.iter_mut().enumerate() {
            if stand.opened_at.is_none() {
                continue;
            }
            let gate = &self.plan.waves[number].gate;
            let mut votes = stand.tally.votes;
            // Nothing opens behind the last wave, so late joiners alone need not hold it.
            if number == last {
                votes.late = 0;
            }
            stand.holds_since = match gate::holds(gate, votes) {
                true => stand.holds_since.or(Some(now.boot)),
                false => None,
            };
            let held = stand.holds_since.map(|since| now.boot.since(since));
            let verdict = gate::judge(gate, votes, held);
            let wave = number as u32;
            let why = || gate::sentence(gate, votes, held);
            match (verdict, stand.verdict) {
                (Verdict::Fail, before) if before != Some(Verdict::Fail) => {
                    let why = why();
                    return Some(Move::Fail { wave, votes, why });
                }
                (Verdict::Pass, None) if passed.is_none() => {
                    let why = why();
                    passed = Some(Move::Pass { wave, votes, why });
                }
                _ => {}
            }
        }
        if passed.is_some() || self.state != RolloutState::Running {
            return passed;
        }
        let next = match self.newest_open() {
            None => 0,
            Some(open) if self.waves[open as usize].verdict == Some(Verdict::Pass) => open + 1,
            Some(_) => return None,
        };
        match self.plan.waves.get(next as usize) {
            None => Some(Move::Finish),
            Some(wave) => (now.wall >= wave.not_before).then_some(Move::Open(next)),
        }
    }

    /// Boot time at which it may want something without being told anything.
    pub fn wakes_at(&self, now: Now) -> Option<Time> {
        use RolloutState as S;
        if !self.is_alive() {
            return None;
        }
        let by_wall = |wall: Time| now.boot + wall.since(now.wall);
        let ends = by_wall(self.plan.not_after);
        let silence = self.awaited.first().map(|(at, _)| *at);
        let runs = matches!(self.state, S::Running | S::Finished);
        let waves = self.waves.iter().zip(&self.plan.waves).filter(|_| runs);
        let waves = waves.filter_map(|(stand, wave)| {
            match (stand.opened_at, stand.verdict, stand.holds_since) {
                (None, ..) => Some(by_wall(wave.not_before)),
                (_, None, Some(since)) => Some(since + wave.gate.soak),
                _ => None,
            }
        });
        let lease = runs.then_some(self.lease_due);
        let wakes = [Some(ends), silence, self.spent_at(), lease]
            .into_iter()
            .flatten();
        // what is past waits for something else than time
        wakes.chain(waves).filter(|at| *at > now.boot).min()
    }
}
