//! The targets of a rollout and what they add up to, kept as they change.

use protocol::Time;
use protocol::status::{Bucket, Reachability, State, bucket};

use crate::contract::Counts;
use crate::evidence::Traits;
use crate::gate::Votes;

/// A node that the rollout concerns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub wave: u32,
    /// Later joiners have no vote: nobody tips a gate by enrolling.
    pub votes: bool,
    /// Its wave is certain. In a plan with waves for sites it is not until the node was heard of.
    pub placed: bool,
    pub state: State,
    /// Boot time since which its peers see it silent, though it said that it succeeded.
    pub unseen: Option<Time>,
    /// Its failure was known when an operator resumed a held rollout.
    pub forgiven: bool,
    /// Someone said that the release does harm there.
    pub problem: bool,
    /// Its cohort is held: it starts nothing, and its outcome counts nowhere.
    pub held: bool,
    /// Its place in the rollout.
    pub at: u64,
    pub traits: Traits,
    /// Boot time of its last word.
    pub heard: Time,
}

impl Target {
    /// Whether its outcome counts at gates.
    pub fn has_vote(&self) -> bool {
        self.votes && self.placed && !self.forgiven && !self.held
    }

    /// Its vote in the test across the waves, if it has one: whether the release failed there. Where
    /// the release was before, nothing was tried.
    pub fn verdict(&self) -> Option<bool> {
        if !self.votes || !self.placed || self.forgiven {
            return None;
        }
        match self.state {
            _ if has_failed(self) => Some(true),
            state => (state == State::Succeeded && self.unseen.is_none()).then_some(false),
        }
    }

    /// Whether it may start and has not.
    pub fn waits(&self) -> bool {
        !self.held
            && !self.state.ended()
            && !self.state.started()
            && self.state != State::RollingBack
    }
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
    /// They may start and have not.
    pub waiting: u32,
    /// After a recall: the release is not (or no longer) there by this rollout.
    pub taken_back: u32,
}

impl Tally {
    pub fn add(&mut self, t: &Target) {
        let in_bucket = bucket(t.state, Reachability::Reachable);
        self.targets += 1;
        self.counts.add(in_bucket);
        let votes = t.has_vote();
        self.votes.voters += u32::from(votes);
        let failed = has_failed(t);
        let seen = t.unseen.is_none();
        self.votes.good += u32::from(votes && in_bucket == Bucket::Applied && !failed && seen);
        self.votes.bad += u32::from(votes && failed);
        self.votes.late += u32::from(!t.votes && !t.held);
        self.ended += u32::from(t.state.ended());
        self.in_flight += u32::from(t.state.started() || t.state == State::RollingBack);
        self.waiting += u32::from(t.waits());
        self.taken_back += u32::from(is_back(t.state));
    }

    pub fn remove(&mut self, t: &Target) {
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
        self.waiting -= one.waiting;
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

/// Whether its outcome is a failure, by its own word, its silence or what others say.
pub(crate) fn has_failed(target: &Target) -> bool {
    target.problem || bucket(target.state, Reachability::Reachable) == Bucket::Failed
}
