//! The bulletin: what nodes shall know, and when it is told anew.

use protocol::Seq;
use protocol::orders::{Bulletin, OrderBody, RolloutHead};

use crate::conductor::Conductor;
use crate::rollout::Rollout;

impl Conductor {
    /// Issues a bulletin if it has news, if the one in force is past half of its life, or if `anyway`.
    pub(crate) fn issue_bulletin(&mut self, anyway: bool) {
        // until resume() opened an epoch there is no number to give
        if self.orders.head() == Seq::default() || (!anyway && !self.bulletin_is_stale()) {
            return;
        }
        let head = |r: &Rollout| RolloutHead {
            rollout: r.plan.rollout.clone(),
            plan: r.digest,
            release: r.plan.release,
            last_order: self.orders.last_about(&r.plan.rollout).unwrap_or_default(),
        };
        let bulletin = Bulletin {
            expires: self.now.wall + self.config.bulletin_life,
            root_version: self.config.root_version,
            topology: self.fleet.topology.as_ref().map(|t| t.digest),
            revocations: self.revocations,
            rollouts: self.announced().map(head).collect(),
            assess: self.assessments.open(self.now.wall).collect(),
            ledger_head: self.ledger_head,
            ledger_entries: self.ledger_entries,
            origins: self.config.origins.clone(),
            coordinators: self.config.coordinators.clone(),
        };
        self.give(OrderBody::Bulletin(bulletin));
    }

    /// The rollouts that nodes shall know of.
    fn announced(&self) -> impl Iterator<Item = &Rollout> {
        let now = self.now;
        self.rollouts
            .values()
            .filter(move |r| r.is_alive() && !r.is_spent(now))
    }

    /// Whether the bulletin in force does not tell a node what holds, or is past half of its life. Its
    /// ledger head does not count: every append moves it, the bulletin's own too. Looked at after each
    /// event, so it compares in place.
    fn bulletin_is_stale(&self) -> bool {
        let Some(held) = self.orders.bulletin() else {
            return true;
        };
        let mut heads = held.rollouts.iter();
        let same_rollouts = self.announced().all(|r| {
            heads.next().is_some_and(|head| {
                let last = self.orders.last_about(&r.plan.rollout).unwrap_or_default();
                head.rollout == r.plan.rollout
                    && (head.plan, head.release) == (r.digest, r.plan.release)
                    && head.last_order == last
            })
        }) && heads.next().is_none();
        let same_news = same_rollouts
            && held.root_version == self.config.root_version
            && held.topology == self.fleet.topology.as_ref().map(|t| t.digest)
            && held.revocations == self.revocations
            && (held.assess.iter().copied()).eq(self.assessments.open(self.now.wall))
            && held.origins == self.config.origins
            && held.coordinators == self.config.coordinators;
        !same_news || self.now.wall + self.half_life() >= held.expires
    }
}
