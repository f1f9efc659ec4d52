//! May this node start to install now? One function, one order of precedence.
//!
//! What is asked first is what the node says it waits for:
//! 1. a halt, because a person said no;
//! 2. expired metadata: root, bulletin, plan, release; nothing is trusted without an end;
//! 3. orders that the bulletin names and that have not come, because one of them may be a halt, and for a
//!    while plans and releases, because one of them may go first ([`unread`]);
//! 4. the wave: its floor `not_before`, which no online key can move, and its opening;
//! 5. the lease;
//! 6. a safeguard that holds the node's cohort, and the node's place among those whom the lease lets start
//!    before the release has proved itself ([`turn`]);
//! 7. other releases: a barrier, a dependency, a conflict, infrastructure ([`crate::relations`]);
//! 8. what the plan lays down about times, user and machine, in the order of
//!    [`protocol::constraints`]: freeze, blackout, window, quiet hours, user, space, power, link ([`times`]);
//! 9. a restart slot of the site ([`crate::slots`]);
//! 10. another installation on this machine.
//!
//! The same question is asked when an installation starts and again right before its switch.

use protocol::constraints::Case;
use protocol::inventory::Subject;
use protocol::manifest::ReleaseManifest;
use protocol::orders::OrderBody;
use protocol::plan::RolloutPlan;
use protocol::positions::position;
use protocol::status::{State, WaitingFor};
use protocol::{NodeId, Now, RolloutId, Time, Verified};

use crate::lease::{LeaseState, Leases};
use crate::library::Library;
use crate::offers::Offers;
use crate::orders::Orders;

/// Why not now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    /// What the node says it is at.
    pub(crate) on: State,
    /// One line for people.
    pub(crate) why: String,
    /// Boot time at which the answer may change by itself.
    pub(crate) until: Option<Time>,
}

impl Wait {
    fn new(on: WaitingFor, why: impl Into<String>) -> Wait {
        Wait {
            on: State::Waiting(on),
            why: why.into(),
            until: None,
        }
    }
}

/// Leave to start or to switch; it lapses at this boot time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leave {
    /// Boot time at which it lapses.
    pub(crate) until: Time,
}

/// The boot time that is as far away as `wall`.
pub(crate) fn boot_of(wall: Time, now: Now) -> Time {
    Time(now.boot.0.saturating_add(wall.since(now.wall).0))
}

/// Whether `wave` of `plan` may start to install `release`.
pub(crate) fn permission(
    orders: &Orders,
    leases: &Leases,
    library: &Library,
    plan: &Verified<RolloutPlan>,
    release: &Verified<ReleaseManifest>,
    wave: u32,
    now: Now,
) -> Result<Leave, Wait> {
    if let Some(reason) = orders.halted(&plan.rollout) {
        return Err(Wait::new(
            WaitingFor::Halt,
            format!("the rollout is halted: {reason}"),
        ));
    }
    let expires = fresh(orders, library, plan, release, now)?;
    let last = orders
        .head_of(&plan.rollout)
        .map(|head| head.last_order)
        .unwrap_or_default();
    if orders.seen(&plan.rollout) < last {
        let why = format!("order {last} about the rollout has not come yet");
        return Err(Wait::new(WaitingFor::Lease, why));
    }
    let floor = plan
        .waves
        .get(wave as usize)
        .map_or(Time::MAX, |w| w.not_before);
    if now.wall < floor {
        let why = format!("wave {wave} does not start before its time in the signed plan");
        let until = Some(boot_of(floor, now));
        return Err(Wait {
            on: State::Waiting(WaitingFor::Wave),
            why,
            until,
        });
    }
    match leases.state(plan, wave, now) {
        LeaseState::Live(until) => Ok(Leave {
            until: until.min(boot_of(expires, now)),
        }),
        LeaseState::NotOpen => Err(Wait::new(
            WaitingFor::Wave,
            format!("wave {wave} has not opened"),
        )),
        LeaseState::Ended(how) => Err(Wait::new(WaitingFor::Lease, how)),
    }
}

/// Whether the newest lease, which is live, leaves it to this node to start: a plan with a sequential
/// test lets a few go first, and holds cohorts that fail alone.
pub(crate) fn turn(
    orders: &Orders,
    plan: &Verified<RolloutPlan>,
    wave: u32,
    me: &NodeId,
    says: &Subject<'_>,
) -> Result<(), Wait> {
    let Some(test) = &plan.test else {
        return Ok(());
    };
    let Some(OrderBody::GoLease {
        wave: newest,
        below,
        held,
        ..
    }) = orders.lease(&plan.rollout)
    else {
        return Err(Wait::new(
            WaitingFor::Lease,
            "the lease is not known any more",
        ));
    };
    let mine = test.cohorts_of(says);
    let holds = |c: &u32| mine & 1u16.checked_shl(*c).unwrap_or(0) != 0;
    if let Some(cohort) = held.iter().find(|c| holds(c)) {
        let cohort = test.cohorts.get(*cohort as usize);
        let name = cohort.map(ToString::to_string).unwrap_or_default();
        return Err(Wait {
            on: State::Held,
            why: format!("a safeguard holds nodes with {name}: the release failed on them"),
            until: None,
        });
    }
    let at = position(&plan.salt, &plan.release, me);
    match below {
        Some(below) if wave == *newest && at >= *below => Err(Wait::new(
            WaitingFor::Wave,
            format!("others of wave {wave} go first"),
        )),
        _ => Ok(()),
    }
}

/// Whether plans and releases of all rollouts are known of which the bulletin speaks.
pub(crate) fn unread(rollout: Option<&RolloutId>) -> Result<(), Wait> {
    match rollout {
        None => Ok(()),
        Some(rollout) => {
            let why = format!("plan and release of {rollout} have not come yet and may go first");
            Err(Wait::new(WaitingFor::Lease, why))
        }
    }
}

/// Whether times, user and machine are as the plan wants them, and until which boot time that surely
/// stays so.
pub(crate) fn times(
    plan: &Verified<RolloutPlan>,
    offers: &Offers,
    now: Now,
) -> Result<Option<Time>, Wait> {
    let case = Case {
        priority: plan.priority,
        machine: offers.machine(),
        offer: offers.of(&plan.rollout),
    };
    match plan.constraints.admits(now.wall, case) {
        Ok(until) => Ok(until.map(|until| boot_of(until, now))),
        Err(held) => Err(Wait {
            on: State::Waiting(held.by.waiting_for()),
            why: held.why,
            until: held.until.map(|until| boot_of(until, now)),
        }),
    }
}

/// Whether a restart slot is held, or why it is not.
pub(crate) fn slot(held: Result<(), String>) -> Result<(), Wait> {
    held.map_err(|why| Wait::new(WaitingFor::Lock, why))
}

/// The wall time at which the first of the documents expires, if none has.
fn fresh(
    orders: &Orders,
    library: &Library,
    plan: &Verified<RolloutPlan>,
    release: &Verified<ReleaseManifest>,
    now: Now,
) -> Result<Time, Wait> {
    let expired = |why: &str| Err(Wait::new(WaitingFor::Expired, why));
    let Some(root) = library.root() else {
        return expired("no root metadata is loaded");
    };
    let Some(bulletin) = orders.bulletin() else {
        return expired("no bulletin has come yet");
    };
    if !bulletin
        .rollouts
        .iter()
        .any(|head| head.plan == plan.digest())
    {
        return expired("the newest bulletin does not name the plan");
    }
    let ends = [
        (root.expires, "the root metadata has expired"),
        (bulletin.expires, "the newest bulletin has expired"),
        (plan.not_after, "the plan's last day is over"),
        (release.expires, "the release has expired"),
    ];
    match ends.iter().find(|(end, _)| now.wall >= *end) {
        Some((_, why)) => expired(why),
        None => Ok(ends.iter().map(|(end, _)| *end).min().unwrap_or(Time::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Config;
    use crate::outbox::Outbox;
    use protocol::fixtures::{CREATED, EXPIRES, Fleet};
    use protocol::orders::OrderBody;
    use protocol::{Hash, Seq};

    /// What is set right or wrong before the question.
    #[derive(Default)]
    struct Case {
        halted: bool,
        bulletin_expired: bool,
        root_missing: bool,
        unnamed: bool,
        release_expired: bool,
        plan_over: bool,
        order_missing: bool,
        too_early: bool,
        lease_wave: Option<u32>,
        seconds_since_lease: u64,
    }

    fn check(case: Case, expected: Result<(), WaitingFor>) {
        let fleet = Fleet::new(1);
        let mut out = Outbox::default();
        let now = |s: u64| Now {
            boot: Time::from_secs(s),
            wall: Time(CREATED.0 + s * 1000),
        };
        let mut release = fleet.release("app", "1", 1);
        if case.release_expired {
            release.expires = CREATED;
        }
        let release = fleet.verified(&release);
        let mut plan = fleet.plan("r", &release, vec![]);
        if case.plan_over {
            plan.not_after = CREATED;
        }
        if case.too_early {
            plan.waves[1].not_before = EXPIRES;
        }
        let plan = fleet.verified(&plan);
        let mut library = Library::default();
        if !case.root_missing {
            library.set_root(fleet.trust().root());
        }
        let mut orders = Orders::new(Seq::default());
        let mut leases = Leases::new(Hash::of(b"boot"));
        if let Some(wave) = case.lease_wave {
            let lease = fleet.order(1, fleet.lease(&plan, wave));
            leases.take(&lease, now(0), &mut out);
            orders.take(lease, None, &mut out);
        }
        if case.halted {
            let rollout = plan.rollout.clone();
            let halt = OrderBody::Halt {
                rollout,
                reason: "smoke".into(),
            };
            orders.take(fleet.order(2, halt), None, &mut out);
        }
        let named = [(&plan, if case.order_missing { 9 } else { 1 })];
        let mut bulletin = fleet.bulletin(None, if case.unnamed { &[] } else { &named });
        if case.bulletin_expired {
            bulletin.expires = CREATED;
        }
        orders.take(
            fleet.order(3, OrderBody::Bulletin(bulletin)),
            None,
            &mut out,
        );
        let at = now(case.seconds_since_lease);
        let found = permission(&orders, &leases, &library, &plan, &release, 1, at);
        assert_eq!(
            found.map(drop).map_err(|w| w.on),
            expected.map_err(State::Waiting)
        );
    }

    #[test]
    fn each_reason_stands_before_the_next() {
        use WaitingFor::{Expired, Halt, Lease, Wave};
        let open = || Case {
            lease_wave: Some(1),
            ..Case::default()
        };
        check(open(), Ok(()));
        check(
            Case {
                halted: true,
                bulletin_expired: true,
                ..open()
            },
            Err(Halt),
        );
        check(
            Case {
                bulletin_expired: true,
                ..open()
            },
            Err(Expired),
        );
        check(
            Case {
                root_missing: true,
                ..open()
            },
            Err(Expired),
        );
        check(
            Case {
                unnamed: true,
                ..open()
            },
            Err(Expired),
        );
        check(
            Case {
                release_expired: true,
                ..open()
            },
            Err(Expired),
        );
        check(
            Case {
                plan_over: true,
                order_missing: true,
                ..open()
            },
            Err(Expired),
        );
        check(
            Case {
                order_missing: true,
                too_early: true,
                ..open()
            },
            Err(Lease),
        );
        check(
            Case {
                too_early: true,
                ..open()
            },
            Err(Wave),
        );
        check(
            Case {
                lease_wave: Some(0),
                ..open()
            },
            Err(Wave),
        );
        check(
            Case {
                lease_wave: Some(2),
                ..open()
            },
            Ok(()),
        );
        check(
            Case {
                seconds_since_lease: 59,
                ..open()
            },
            Ok(()),
        );
        check(
            Case {
                seconds_since_lease: 60,
                ..open()
            },
            Err(Lease),
        );
    }

    /// A plan with a test lets a few go first, by position, and holds a cohort by its label.
    #[test]
    fn the_lease_of_a_plan_with_a_test_says_whose_turn_it_is() {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let mut plan = fleet.plan("r", &release, vec![]);
        plan.test = Some(protocol::plan::SequentialTest {
            expected_ppm: 10_000,
            unacceptable_ppm: 30_000,
            false_halt_ppm: 100,
            missed_ppm: 1000,
            in_flight_max: 50,
            cohorts: vec![protocol::plan::Cohort {
                key: "driver".into(),
                value: "e1000".into(),
            }],
        });
        let plan = fleet.verified(&plan);
        let me = crate::tests::World::new().config;
        let mut held_back = me.clone();
        held_back.labels.insert("driver".into(), "e1000".into());
        let at = position(&plan.salt, &plan.release, &me.node);
        let ask = |me: &Config, lease: Option<(u32, Option<u64>, Vec<u32>)>| {
            let mut orders = Orders::new(Seq::default());
            if let Some((wave, below, held)) = lease {
                let order = fleet.order(
                    1,
                    OrderBody::GoLease {
                        rollout: plan.rollout.clone(),
                        plan: plan.digest(),
                        wave,
                        below,
                        held,
                        not_after: EXPIRES,
                    },
                );
                orders.take(order, None, &mut Outbox::default());
            }
            let says = Subject {
                site: None,
                labels: &me.labels,
                attributes: &me.attributes,
            };
            turn(&orders, &plan, 1, &me.node, &says).map_err(|w| w.on)
        };
        let waits = |on| Err(State::Waiting(on));
        assert_eq!(ask(&me, None), waits(WaitingFor::Lease));
        assert_eq!(ask(&me, Some((1, None, vec![]))), Ok(()));
        assert_eq!(
            ask(&me, Some((1, Some(at), vec![]))),
            waits(WaitingFor::Wave)
        );
        assert_eq!(ask(&me, Some((1, Some(at + 1), vec![]))), Ok(()));
        assert_eq!(
            ask(&me, Some((2, Some(0), vec![]))),
            Ok(()),
            "an earlier wave"
        );
        assert_eq!(ask(&me, Some((1, None, vec![0]))), Ok(()), "another cohort");
        assert_eq!(ask(&held_back, Some((1, None, vec![0]))), Err(State::Held));
        assert_eq!(ask(&held_back, Some((1, None, vec![]))), Ok(()));
        let mut by_attribute = me.clone();
        by_attribute
            .attributes
            .insert("driver".into(), "e1000".into());
        let held = ask(&by_attribute, Some((1, None, vec![0])));
        assert_eq!(
            held,
            Err(State::Held),
            "attributes make cohorts as labels do"
        );
    }
}
