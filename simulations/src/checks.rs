//! Checkers: apart from the cores and from the workload, they look at what happened and know only the
//! rules that may never be broken.

pub mod audit;
pub mod bans;
pub mod counts;
pub mod findings;
pub mod gates;
pub mod halts;
pub mod leases;
pub mod limits;
pub mod liveness;
pub mod rates;
pub mod verified;
pub mod watch;
pub mod waves;

use coordinator_core::Conductor;
use protocol::limits::{FETCHES_MAX, FETCHES_PER_PEER_MAX};
use protocol::orders::{Order, OrderBody};
use protocol::plan::RolloutPlan;
use protocol::{Hash, NodeId, Now, RolloutId, SiteId};

/// Violations that are kept; the rest is counted.
const KEPT_MAX: usize = 20;
/// Actions that a brain may ask for in answer to one event.
const ACTIONS_MAX: u32 = 20_000;

/// A lease as the coordinator gave it.
struct Given {
    rollout: RolloutId,
    plan: Hash,
    wave: u32,
    at: Now,
    not_after: protocol::Time,
}

/// What was found.
#[derive(Default)]
pub struct Checks {
    leases: Vec<Given>,
    violations: Vec<String>,
    more: u64,
    /// Switches that were begun, by rollout and wave.
    pub starts: std::collections::BTreeMap<(RolloutId, u32), u32>,
}

impl Checks {
    /// A rule was broken.
    pub fn violated(&mut self, now: Now, what: String) {
        if self.violations.len() < KEPT_MAX {
            self.violations
                .push(format!("at {} ms: {what}", now.boot.0));
        } else {
            self.more += 1;
        }
    }

    /// What was broken, and how much more.
    pub fn violations(&self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        self.violations.iter().cloned().chain(more).collect()
    }

    /// The coordinator gave an order.
    pub fn order(&mut self, now: Now, order: &Order) {
        if let OrderBody::GoLease {
            rollout,
            plan,
            wave,
            not_after,
        } = &order.body
        {
            let (rollout, plan, wave) = (rollout.clone(), *plan, *wave);
            self.leases.push(Given {
                rollout,
                plan,
                wave,
                at: now,
                not_after: *not_after,
            });
        }
    }

    /// The four counts add up to the targets.
    pub fn counts(&mut self, now: Now, conductor: &Conductor) {
        for view in conductor.rollouts() {
            if view.counts.total() != view.targets {
                let what = format!(
                    "{}: counts {:?} of {}",
                    view.rollout, view.counts, view.targets
                );
                self.violated(now, what);
            }
        }
    }

    /// A node begins its switch: its wave must be open by the signed plan and by a lease that the
    /// coordinator gave, not longer ago than it lives.
    pub fn switch(
        &mut self,
        now: Now,
        node: &NodeId,
        site: Option<&SiteId>,
        plan: &RolloutPlan,
        digest: &Hash,
    ) {
        let Some(wave) = plan.wave_of(node, site) else {
            return self.violated(now, format!("{node} switches, but no wave has it"));
        };
        *self.starts.entry((plan.rollout.clone(), wave)).or_default() += 1;
        let floor = plan.waves[wave as usize].not_before;
        if now.wall < floor || now.wall >= plan.not_after {
            self.violated(now, format!("{node} switches outside of its plan's time"));
        }
        // received at the latest when the one before ended, and lived on from there
        let live = |given: &Given| {
            given.rollout == plan.rollout
                && given.at.boot <= now.boot
                && given.plan == *digest
                && given.wave >= wave
                && now.wall < given.not_after
                && now.boot.since(given.at.boot).0 <= 2 * plan.lease_ttl.0
        };
        if !self.leases.iter().rev().any(live) {
            self.violated(
                now,
                format!("{node} switches in wave {wave} without a live lease"),
            );
        }
    }

    /// A brain answered an event with so many actions.
    pub fn actions(&mut self, now: Now, who: &str, count: u32) {
        if count > ACTIONS_MAX {
            self.violated(now, format!("{who} asked for {count} actions at once"));
        }
    }

    /// A node has so many fetches under way, so many of them with one peer.
    pub fn fetches(&mut self, now: Now, node: &NodeId, all: usize, with_peer: usize) {
        if all > FETCHES_MAX || with_peer > FETCHES_PER_PEER_MAX {
            let what = format!("{node} has {all} fetches under way, {with_peer} with one peer");
            self.violated(now, what);
        }
    }
}
