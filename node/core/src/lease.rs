//! Leases: until when a wave may start installs.
//!
//! A lease lives on the boot clock, which goes on while the machine is suspended, from the moment
//! in which its order came; it ends with the boot, and in any case at the order's `not_after`. Only
//! an order with a higher number renews it, so a replayed one is worth nothing.

use std::collections::BTreeMap;

use protocol::orders::{Order, OrderBody};
use protocol::plan::RolloutPlan;
use protocol::{Hash, Now, RolloutId, Time, Verified};

use crate::contract::{LeaseRecord, Record, RecordKey};
use crate::outbox::Outbox;

/// The newest lease of each rollout.
pub(crate) struct Leases {
    boot_id: Hash,
    held: BTreeMap<RolloutId, Box<LeaseRecord>>,
}

/// What a wave's lease is worth now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LeaseState {
    /// Live until this boot time, unless it is renewed.
    Live(Time),
    /// It was open and the lease has ended; the line says how.
    Ended(&'static str),
    /// The newest lease is for an earlier wave, or none came yet.
    NotOpen,
}

impl Leases {
    /// No leases, in this boot.
    pub(crate) fn new(boot_id: Hash) -> Leases {
        Leases {
            boot_id,
            held: BTreeMap::new(),
        }
    }

    /// A lease that was remembered.
    pub(crate) fn restore(&mut self, lease: LeaseRecord) {
        self.held.insert(lease.rollout.clone(), Box::new(lease));
    }

    /// Takes the lease of a go-lease that was just remembered.
    pub(crate) fn take(&mut self, order: &Verified<Order>, now: Now, out: &mut Outbox) {
        let OrderBody::GoLease {
            rollout,
            plan,
            wave,
            not_after,
            ..
        } = &order.body
        else {
            return;
        };
        if self
            .held
            .get(rollout)
            .is_some_and(|held| held.seq >= order.seq)
        {
            return;
        }
        let lease = LeaseRecord {
            rollout: rollout.clone(),
            plan: *plan,
            wave: *wave,
            seq: order.seq,
            received: now.boot,
            boot_id: self.boot_id,
            not_after: *not_after,
        };
        out.remember(Record::Lease(lease.clone()));
        self.held.insert(rollout.clone(), Box::new(lease));
    }

    /// What the lease of `wave` is worth.
    pub(crate) fn state(&self, plan: &Verified<RolloutPlan>, wave: u32, now: Now) -> LeaseState {
        let Some(lease) = self.held.get(&plan.rollout) else {
            return LeaseState::NotOpen;
        };
        if lease.plan != plan.digest() || lease.wave < wave {
            return LeaseState::NotOpen;
        }
        if lease.boot_id != self.boot_id || lease.received > now.boot {
            return LeaseState::Ended("the machine was restarted since the lease came");
        }
        let end = Time(lease.received.0.saturating_add(plan.lease_ttl.0));
        if now.boot >= end {
            return LeaseState::Ended("nobody renewed the lease");
        }
        if now.wall >= lease.not_after {
            return LeaseState::Ended("the lease's last day is over");
        }
        let last = Time(now.boot.0.saturating_add(lease.not_after.since(now.wall).0));
        LeaseState::Live(end.min(last))
    }

    /// The key that gave these leases lost its role.
    pub(crate) fn drop_all(&mut self, out: &mut Outbox) {
        for rollout in std::mem::take(&mut self.held).into_keys() {
            out.forget(RecordKey::Lease(rollout));
        }
    }

    /// Drops the lease of a rollout that is over.
    pub(crate) fn forget(&mut self, rollout: &RolloutId, out: &mut Outbox) {
        if self.held.remove(rollout).is_some() {
            out.forget(RecordKey::Lease(rollout.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{CREATED, EXPIRES, Fleet, node};

    #[test]
    fn a_lease_ends_with_its_time_its_boot_and_its_last_day() {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
        let mut out = Outbox::default();
        let boot = Hash::of(b"boot");
        let at = |boot: u64| Now {
            boot: Time::from_secs(boot),
            wall: Time(CREATED.0 + boot * 1000),
        };
        let mut leases = Leases::new(boot);
        assert_eq!(leases.state(&plan, 0, at(0)), LeaseState::NotOpen);
        leases.take(&fleet.order(1, fleet.lease(&plan, 0)), at(10), &mut out);
        let live = |end| LeaseState::Live(Time::from_secs(end));
        assert_eq!(leases.state(&plan, 0, at(69)), live(70));
        assert_eq!(leases.state(&plan, 1, at(69)), LeaseState::NotOpen);
        assert!(matches!(
            leases.state(&plan, 0, at(70)),
            LeaseState::Ended(_)
        ));
        leases.take(&fleet.order(1, fleet.lease(&plan, 0)), at(65), &mut out);
        assert!(
            matches!(leases.state(&plan, 0, at(70)), LeaseState::Ended(_)),
            "replayed"
        );
        leases.take(&fleet.order(2, fleet.lease(&plan, 1)), at(65), &mut out);
        assert_eq!(
            leases.state(&plan, 1, at(70)),
            live(125),
            "renewed, a wave further"
        );
        let last_day = Now {
            boot: Time::from_secs(71),
            wall: EXPIRES,
        };
        assert!(matches!(
            leases.state(&plan, 0, last_day),
            LeaseState::Ended(_)
        ));
        let lease = leases.held.values().next().unwrap().clone();
        let mut rebooted = Leases::new(Hash::of(b"another boot"));
        rebooted.restore(*lease);
        assert!(matches!(
            rebooted.state(&plan, 0, at(71)),
            LeaseState::Ended(_)
        ));
    }
}
