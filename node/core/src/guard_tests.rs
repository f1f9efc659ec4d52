use super::*;
use proptest::prelude::*;
use protocol::fixtures::{CREATED, EXPIRES, Fleet, node, site};

/// A fleet with releases 1 and 2 of `app`, and a plan for each.
struct Office {
    fleet: Fleet,
    releases: Vec<Verified<ReleaseManifest>>,
    plans: Vec<Verified<RolloutPlan>>,
    leases: Vec<Verified<Order>>,
    recalls: Vec<Verified<Recall>>,
}

impl Office {
    fn new() -> Office {
        let fleet = Fleet::new(1);
        let release = |n: u64| fleet.verified(&fleet.release("app", &n.to_string(), n));
        let releases = vec![release(1), release(2)];
        let plan = |release| {
            let id = format!("r{}", release_counter(release));
            fleet.verified(&fleet.plan(&id, release, vec![node(1)]))
        };
        let plans: Vec<_> = releases.iter().map(plan).collect();
        let leases = plans
            .iter()
            .map(|plan| fleet.order(1, fleet.lease(plan, 0)));
        let leases = leases.collect();
        let recalls = plans.iter().map(|plan| fleet.recall(plan).1).collect();
        Office {
            fleet,
            releases,
            plans,
            leases,
            recalls,
        }
    }

    fn case(&self, n: usize) -> Case<'_> {
        Case {
            plan: &self.plans[n],
            release: &self.releases[n],
            lease: Some(&self.leases[n]),
            recall: None,
            site: None,
        }
    }
}

fn release_counter(release: &Verified<ReleaseManifest>) -> u64 {
    release.release_counter
}

fn guard() -> Guard {
    Guard::new(node(1), GuardRecord::default())
}

fn install(guard: &mut Guard, case: Case<'_>) {
    for step in [
        Step::WriteSlot,
        Step::Switch,
        Step::CheckHealth,
        Step::CleanUp,
    ] {
        let admitted = guard.admit(CREATED, &step, case);
        assert_eq!(admitted, Ok(Admitted::Take), "{step:?}");
    }
}

#[test]
fn what_was_approved_for_this_node_is_installed_and_taken_back_by_a_recall_alone() {
    let office = Office::new();
    let mut guard = guard();
    install(&mut guard, office.case(0));
    install(&mut guard, office.case(1));
    let roll_back = |guard: &mut Guard, case| guard.admit(CREATED, &Step::RollBack, case);
    let refused = roll_back(&mut guard, office.case(1));
    assert_eq!(refused, Err(Refusal::NotRecalled));
    let recall = |n: usize| Case {
        recall: Some(&office.recalls[n]),
        ..office.case(1)
    };
    assert_eq!(roll_back(&mut guard, recall(0)), Err(Refusal::NotRecalled));
    let (first, second) = (&office.releases[0], &office.releases[1]);
    let rollout = &office.plans[1].rollout;
    let before = |guard: &Guard| guard.before(&site("app"), rollout, second.digest());
    assert_eq!(before(&guard), Some(first.digest()));
    assert_eq!(roll_back(&mut guard, recall(1)), Ok(Admitted::Take));
    assert_eq!(before(&guard), Some(first.digest()));
    // A crash on the way back, and one after it.
    let mut guard = Guard::new(node(1), guard.record().clone());
    assert_eq!(roll_back(&mut guard, recall(1)), Ok(Admitted::Take));
    guard.ended(&site("app"), rollout, &Step::RollBack, &StepOutcome::Done);
    assert_eq!(roll_back(&mut guard, recall(1)), Ok(Admitted::Done));
    install(&mut guard, office.case(1));
}

#[test]
fn each_hostile_request_is_refused_by_name() {
    let office = Office::new();
    let check = |step: Step, case: Case<'_>, wall: Time, expected: Refusal| {
        let mut guard = guard();
        install(&mut guard, office.case(0));
        guard
            .admit(CREATED, &Step::WriteSlot, office.case(1))
            .unwrap();
        let before = guard.record().clone();
        assert_eq!(guard.admit(wall, &step, case), Err(expected));
        assert_eq!(*guard.record(), before, "nothing has changed");
    };
    let mixed = Case {
        release: &office.releases[0],
        ..office.case(1)
    };
    check(Step::Switch, mixed, CREATED, Refusal::Release);
    let mut others = (*office.plans[1]).clone();
    others.targets.exclusions = vec![node(1)];
    let others = office.fleet.verified(&others);
    let plan = Case {
        plan: &others,
        ..office.case(1)
    };
    check(Step::WriteSlot, plan, CREATED, Refusal::Node);
    check(Step::Switch, office.case(1), EXPIRES, Refusal::Expired);
    let late = CREATED + office.plans[1].lease_ttl + CLOCKS_DIFFER + Span(10);
    check(Step::Switch, office.case(1), late, Refusal::Lease);
    let without = |lease| Case {
        lease,
        ..office.case(1)
    };
    check(Step::Switch, without(None), CREATED, Refusal::Lease);
    let of_another = Some(&office.leases[0]);
    check(Step::Switch, without(of_another), CREATED, Refusal::Lease);
    let newer = office
        .fleet
        .order(9, office.fleet.lease(&office.plans[1], 0));
    let mut seen = guard();
    let leased = Case {
        lease: Some(&newer),
        ..office.case(1)
    };
    seen.admit(CREATED, &Step::WriteSlot, leased).unwrap();
    seen.admit(CREATED, &Step::Switch, leased).unwrap();
    let older = seen.admit(CREATED, &Step::Switch, office.case(1));
    assert_eq!(older, Err(Refusal::Lease));
    let busy = seen.admit(CREATED, &Step::WriteSlot, office.case(0));
    assert_eq!(busy, Err(Refusal::Other));
    seen.forget_orders();
    assert!(seen.admit(CREATED, &Step::Switch, office.case(1)).is_ok());
    for step in [
        Step::CheckHealth,
        Step::CleanUp,
        Step::RollBack,
        Step::PostHook(1),
    ] {
        check(step, office.case(1), CREATED, Refusal::Order);
    }
}

#[test]
fn nothing_older_comes_back() {
    let office = Office::new();
    let mut guard = guard();
    install(&mut guard, office.case(1));
    let older = guard.admit(CREATED, &Step::WriteSlot, office.case(0));
    assert_eq!(older, Err(Refusal::Older));
}

#[test]
fn a_switch_that_changed_nothing_may_be_discarded_and_one_that_stands_may_not() {
    let office = Office::new();
    let case = office.case(0);
    let mut guard = guard();
    guard.admit(CREATED, &Step::WriteSlot, case).unwrap();
    guard.admit(CREATED, &Step::Switch, case).unwrap();
    let discarded = guard.admit(CREATED, &Step::Discard, case);
    assert_eq!(discarded, Err(Refusal::Order));
    let rollout = &office.plans[0].rollout;
    guard.ended(&site("app"), rollout, &Step::Detect, &StepOutcome::Absent);
    for _ in ["asked for", "asked for again after a crash"] {
        let discarded = guard.admit(CREATED, &Step::Discard, case);
        assert_eq!(discarded, Ok(Admitted::Take));
    }
}

#[test]
fn products_are_bounded() {
    let office = Office::new();
    let mut record = GuardRecord::default();
    for n in 0..GUARD_PRODUCTS_MAX {
        record
            .products
            .insert(site(&format!("p{n}")), Held::default());
    }
    assert!(record.to_bytes().len() < GuardRecord::MAX_BYTES);
    let mut guard = Guard::new(node(1), record);
    let full = guard.admit(CREATED, &Step::WriteSlot, office.case(0));
    assert_eq!(full, Err(Refusal::Full));
}

fn steps() -> impl Strategy<Value = Step> {
    prop::sample::select(vec![
        Step::WriteSlot,
        Step::PreHook(1),
        Step::Switch,
        Step::PostHook(1),
        Step::Detect,
        Step::Restart,
        Step::Keep,
        Step::CheckHealth,
        Step::RollBack,
        Step::Discard,
        Step::CleanUp,
    ])
}

proptest! {
    /// Whatever is asked for in whatever order, without a lease and a recall nothing is switched to, and
    /// without a recall the counter of what is installed never falls.
    #[test]
    fn no_row_of_requests_gets_more(
        row in prop::collection::vec((steps(), 0usize..2, any::<bool>(), any::<bool>()), 0..40),
    ) {
        let office = Office::new();
        let mut guard = guard();
        let mut highest = 0;
        for (step, n, leased, dies) in row {
            let case = office.case(n);
            let case = Case { lease: case.lease.filter(|_| leased), ..case };
            let admitted = guard.admit(CREATED, &step, case).is_ok();
            prop_assert!(!(admitted && step == Step::Switch) || leased);
            if admitted && step == Step::RollBack {
                let rollout = &office.plans[n].rollout;
                guard.ended(&site("app"), rollout, &step, &StepOutcome::Done);
            }
            let held = guard.record().products.get(&site("app"));
            let counter = held.and_then(|h| h.installed).map_or(0, |(_, counter)| counter);
            prop_assert!(counter >= highest);
            highest = counter;
            if dies {
                guard = Guard::new(node(1), guard.record().clone());
            }
        }
    }
}
