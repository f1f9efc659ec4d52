//! Rule: no start without a live lease that was delivered to that very node.
//!
//! The checker writes down what was delivered, from what source ever, and knows nothing of how the
//! brain keeps it: a lease lives from the first delivery of its number, for the plan's `lease_ttl` on
//! the boot clock, no longer than `not_after`, and dies with the boot.

use std::collections::BTreeMap;

use protocol::orders::{Order, OrderBody};
use protocol::plan::RolloutPlan;
use protocol::{Hash, Now, RolloutId, Seq, Time};

/// The newest lease that each node was told, by node and rollout.
#[derive(Default)]
pub struct Leases {
    told: BTreeMap<usize, Vec<(RolloutId, Told)>>,
}

/// A node that starts.
#[derive(Clone, Copy, Debug)]
pub struct Starter {
    /// Who.
    pub node: usize,
    /// Where it stands in the order of the rollout.
    pub position: u64,
    /// The cohorts of the plan that it belongs to, one bit each.
    pub cohorts: u16,
}

#[derive(Clone, Copy)]
struct Told {
    seq: Seq,
    plan: Hash,
    wave: u32,
    below: Option<u64>,
    /// Bits of the plan's cohorts.
    held: u16,
    /// On the node's boot clock.
    received: Time,
    not_after: Time,
}

impl Leases {
    /// A node was told an order. `now` is its own clock.
    pub fn delivered(&mut self, now: Now, node: usize, order: &Order) {
        let OrderBody::GoLease {
            rollout,
            plan,
            wave,
            below,
            held,
            not_after,
        } = &order.body
        else {
            return;
        };
        let told = Told {
            seq: order.seq,
            plan: *plan,
            wave: *wave,
            below: *below,
            held: held
                .iter()
                .fold(0, |bits, n| bits | 1u16.checked_shl(*n).unwrap_or(0)),
            received: now.boot,
            not_after: *not_after,
        };
        let mine = self.told.entry(node).or_default();
        match mine.iter_mut().find(|(id, _)| id == rollout) {
            // told again, it is worth no more than before
            Some((_, held)) if held.seq >= order.seq => {}
            Some((_, held)) => *held = told,
            None => mine.push((rollout.clone(), told)),
        }
    }

    /// A machine was restarted: its boot clock began anew.
    pub fn restarted(&mut self, node: usize) {
        self.told.remove(&node);
    }

    /// A node starts in a wave.
    ///
    /// # Errors
    /// Why it may not.
    pub fn start(
        &self,
        now: Now,
        who: Starter,
        plan: &RolloutPlan,
        digest: &Hash,
        wave: u32,
    ) -> Result<(), String> {
        let mine = self.told.get(&who.node).into_iter().flatten();
        let Some((_, lease)) = mine.into_iter().find(|(id, _)| *id == plan.rollout) else {
            return Err(format!("no lease of {} was delivered to it", plan.rollout));
        };
        if lease.plan != *digest {
            return Err(format!("its lease is for another plan of {}", plan.rollout));
        }
        if lease.wave < wave {
            return Err(format!(
                "it is in wave {wave}, its lease for wave {}",
                lease.wave
            ));
        }
        if lease
            .below
            .is_some_and(|below| lease.wave == wave && who.position >= below)
        {
            return Err(format!(
                "its lease of {} lets others of wave {wave} go first",
                plan.rollout
            ));
        }
        if lease.held & who.cohorts != 0 {
            return Err(format!("its cohort of {} is held", plan.rollout));
        }
        let age = now.boot.since(lease.received);
        if now.boot < lease.received || age >= plan.lease_ttl {
            return Err(format!(
                "its lease of {} ended: {} ms old",
                plan.rollout, age.0
            ));
        }
        if now.wall >= lease.not_after {
            return Err(format!(
                "its lease of {} is past its last day",
                plan.rollout
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{CREATED, EXPIRES, Fleet, node};

    fn who(node: usize) -> Starter {
        Starter {
            node,
            position: 5,
            cohorts: 0b10,
        }
    }

    #[test]
    fn a_start_without_a_live_lease_is_seen() {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
        let digest = plan.digest();
        let at = |secs| Now {
            boot: Time::from_secs(secs),
            wall: Time(CREATED.0 + secs * 1000),
        };
        let ttl = plan.lease_ttl.0 / 1000;
        let first = fleet.order(1, fleet.lease(&plan, 0));
        let mut leases = Leases::default();
        assert!(
            leases.start(at(0), who(1), &plan, &digest, 0).is_err(),
            "nothing was delivered"
        );
        leases.delivered(at(10), 1, &first);
        assert_eq!(leases.start(at(10), who(1), &plan, &digest, 0), Ok(()));
        assert!(
            leases.start(at(10), who(2), &plan, &digest, 0).is_err(),
            "delivered to another"
        );
        assert!(
            leases.start(at(10), who(1), &plan, &digest, 1).is_err(),
            "for an earlier wave"
        );
        assert!(
            leases
                .start(at(10), who(1), &plan, &Hash::of(b"other"), 0)
                .is_err()
        );
        assert_eq!(leases.start(at(9 + ttl), who(1), &plan, &digest, 0), Ok(()));
        leases.delivered(at(9 + ttl), 1, &first);
        assert!(
            leases
                .start(at(10 + ttl), who(1), &plan, &digest, 0)
                .is_err(),
            "told again, not renewed"
        );
        leases.delivered(at(10 + ttl), 1, &fleet.order(2, fleet.lease(&plan, 1)));
        assert_eq!(
            leases.start(at(10 + ttl), who(1), &plan, &digest, 1),
            Ok(())
        );
        let last_day = Now {
            wall: EXPIRES,
            ..at(10 + ttl)
        };
        assert!(leases.start(last_day, who(1), &plan, &digest, 0).is_err());
        leases.restarted(1);
        assert!(
            leases
                .start(at(11 + ttl), who(1), &plan, &digest, 0)
                .is_err(),
            "another boot"
        );
    }
    #[test]
    fn a_start_of_one_that_is_to_wait_is_seen() {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
        let now = Now {
            boot: Time(5),
            wall: CREATED,
        };
        let starts = |wave: u32, below: Option<u64>, held: &[u32]| {
            let mut body = fleet.lease(&plan, 1);
            if let OrderBody::GoLease {
                below: first,
                held: cohorts,
                ..
            } = &mut body
            {
                (*first, *cohorts) = (below, held.to_vec());
            }
            let mut leases = Leases::default();
            leases.delivered(now, 1, &fleet.order(1, body));
            leases.start(now, who(1), &plan, &plan.digest(), wave)
        };
        assert_eq!(starts(1, Some(6), &[0]), Ok(()));
        assert!(starts(1, Some(5), &[]).is_err(), "others go first");
        assert_eq!(starts(0, Some(5), &[]), Ok(()), "its wave is an older one");
        assert!(starts(0, None, &[0, 1]).is_err(), "its cohort is held");
    }
}
