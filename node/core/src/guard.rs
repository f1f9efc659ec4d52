//! What the process that installs with privilege lets the process that talks to the network have done.
//!
//! Documents are verified by the guard's own body, from the root that it was pinned to; nothing that the
//! other side says of them counts. The guard keeps a record of its own, written before a step is taken, so
//! that the other side cannot make it install what operators did not approve for this node, switch without a
//! live lease, go back to anything but what stood there before, or take back what nobody recalled. What it
//! cannot know (halts, windows, slots, the user's word) stays the brain's: the other side can refuse to
//! install, and can start within a lease at an hour that the plan does not allow.

use std::collections::BTreeMap;

use protocol::limits::ROLLOUTS_MAX;
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Order, OrderBody};
use protocol::plan::{Recall, RolloutPlan};
use protocol::versioned::Versioned;
use protocol::{Hash, NodeId, RolloutId, Seq, SiteId, Span, Time, Verified};
use serde::{Deserialize, Serialize};

use crate::contract::{FailureClass, Step, StepOutcome};

/// Products that a guard keeps; a step of one more is refused.
pub const GUARD_PRODUCTS_MAX: usize = 1024;
/// A lease is counted from its receipt by the brain, and from its signature by the guard, which knows no
/// receipt that it could believe: the machine's clock may differ from the coordinator's by so much.
const CLOCKS_DIFFER: Span = Span::from_secs(900);

/// What is handed over with a step.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// The plan that is followed.
    pub plan: &'a Verified<RolloutPlan>,
    /// The release that it brings.
    pub release: &'a Verified<ReleaseManifest>,
    /// The newest lease of its rollout.
    pub lease: Option<&'a Verified<Order>>,
    /// Its recall.
    pub recall: Option<&'a Verified<Recall>>,
    /// The node's site, as the other side says; it decides nothing but which wave of the plan is meant.
    pub site: Option<&'a SiteId>,
}

/// What the guard remembers across restarts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GuardRecord {
    /// By product, at most [`GUARD_PRODUCTS_MAX`].
    pub products: BTreeMap<SiteId, Held>,
    /// The newest signed time that was seen: the clock is not believed below it.
    pub floor: Time,
}

impl Versioned for GuardRecord {
    const MAGIC: [u8; 4] = *b"TGGD";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = 64 << 20;
}

/// What stands of a product.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// What is installed, and its counter.
    pub installed: Option<(Hash, u64)>,
    /// What stood there before and may be gone back to.
    pub previous: Option<(Hash, u64)>,
    /// Changes under way, at most [`ROLLOUTS_MAX`]; of one at a time more than a slot may be written.
    pub changes: BTreeMap<RolloutId, Change>,
    /// The last change that was taken back whole; asked for again, that is answered as done.
    pub back: Option<(RolloutId, Hash)>,
}

/// A change under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The release, and its counter.
    pub release: (Hash, u64),
    /// How far it may be.
    pub at: Phase,
    /// The newest lease by which it was let on; no older one counts.
    pub lease: Option<Seq>,
}

/// How far a change may be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// Its slot may be written.
    Slot,
    /// It was to be switched to, and was found not to be in place.
    Absent,
    /// It may be switched to.
    Switched,
    /// It may be taken back.
    Back,
}

/// What becomes of a step that may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admitted {
    /// The record is made durable, then it is taken.
    Take,
    /// It was taken whole before, and is not taken again.
    Done,
}

/// Why a step is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The plan is for another release.
    Release,
    /// The plan is for others.
    Node,
    /// An older one than what is installed.
    Older,
    /// Past its last day.
    Expired,
    /// No lease, another's, an older one than was seen, or one that is over.
    Lease,
    /// Another change of the product is under way.
    Other,
    /// The step before it was not taken.
    Order,
    /// It is installed and nobody took it back.
    NotRecalled,
    /// No room for one more.
    Full,
    /// The release to go back to was not handed over.
    Before,
}

impl Refusal {
    /// What kind of failure the other side makes of it: what another moment may change is tried again.
    pub fn class(self) -> FailureClass {
        match self {
            Refusal::Lease | Refusal::Other => FailureClass::InstallerBusy,
            _ => FailureClass::Release,
        }
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Refusal::Release => "wrong_target: the plan does not name the release",
            Refusal::Node => "wrong_target: the plan does not name this node",
            Refusal::Older => "software_rollback: the release is older than what is installed",
            Refusal::Expired => "expired: plan or release is past its last day",
            Refusal::Lease => "lease: no live lease opens the node's wave",
            Refusal::Other => "order: another change of the product is under way",
            Refusal::Order => "order: this step does not come next",
            Refusal::NotRecalled => "recall: the release is installed and was not recalled",
            Refusal::Full => "too_long: the installer keeps no more products or rollouts",
            Refusal::Before => "wrong_target: the release to go back to was not handed over",
        })
    }
}

impl core::error::Error for Refusal {}

/// The guard of one node.
pub struct Guard {
    node: NodeId,
    record: GuardRecord,
}

impl Guard {
    /// Goes on with what was remembered.
    pub fn new(node: NodeId, record: GuardRecord) -> Guard {
        Guard { node, record }
    }

    /// What must be durable before the step that was admitted last is taken.
    pub fn record(&self) -> &GuardRecord {
        &self.record
    }

    /// A signed time was seen.
    pub fn saw(&mut self, issued: Time) {
        self.record.floor = self.record.floor.max(issued);
    }

    /// The key that signed orders lost its role: what it numbered and dated counts no more.
    pub fn forget_orders(&mut self) {
        self.record.floor = Time(0);
        let held = self.record.products.values_mut();
        for change in held.flat_map(|held| held.changes.values_mut()) {
            change.lease = None;
        }
    }

    /// Whether the step may be taken at this wall time.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn admit(&mut self, wall: Time, step: &Step, case: Case<'_>) -> Result<Admitted, Refusal> {
        let (plan, release) = (case.plan, case.release);
        if plan.release != release.digest()
            || (&plan.product, &plan.version) != (&release.product, &release.version)
        {
            return Err(Refusal::Release);
        }
        let wave = plan.wave_of(&self.node, case.site).ok_or(Refusal::Node)?;
        let known = self.record.products.get(&release.product);
        if known.is_none() && self.record.products.len() >= GUARD_PRODUCTS_MAX {
            return Err(Refusal::Full);
        }
        let mut held = known.cloned().unwrap_or_default();
        let this = (release.digest(), release.release_counter);
        let own = held.changes.get(&plan.rollout);
        let own = own.filter(|change| change.release == this).cloned();
        let stands = |change: &Change| change.at >= Phase::Switched;
        let mut others = held.changes.iter().filter(|(id, _)| **id != plan.rollout);
        let other = others.any(|(_, change)| stands(change));
        let at = own.as_ref().map(|change| change.at);
        let go = |held: &mut Held, at: Phase, lease: Option<Seq>| {
            let lease = lease.or(own.as_ref().and_then(|change| change.lease));
            let change = Change {
                release: this,
                at,
                lease,
            };
            held.changes.insert(plan.rollout.clone(), change);
        };
        match step {
            // A rule that the release's threshold signed; it changes nothing.
            Step::Detect => return Ok(Admitted::Take),
            Step::WriteSlot => {
                fresh(wall, case)?;
                not_older(&held, this.1)?;
                if own.is_none() && held.changes.len() >= ROLLOUTS_MAX {
                    return Err(Refusal::Full);
                }
                if at > Some(Phase::Absent) {
                    return Err(Refusal::Order);
                }
                if other {
                    return Err(Refusal::Other);
                }
                go(&mut held, at.unwrap_or(Phase::Slot), None);
            }
            Step::PreHook(_) | Step::Switch => {
                fresh(wall, case)?;
                not_older(&held, this.1)?;
                // A switch that a crash interrupted may be asked for again.
                match at {
                    Some(Phase::Slot | Phase::Absent) => {}
                    Some(Phase::Switched) if *step == Step::Switch => {}
                    _ => return Err(Refusal::Order),
                }
                if other {
                    return Err(Refusal::Other);
                }
                let seen = own.as_ref().and_then(|change| change.lease);
                let seq = live(wall, wave, seen, case)?;
                let next = match step {
                    Step::Switch => Phase::Switched,
                    _ => at.unwrap_or(Phase::Slot),
                };
                go(&mut held, next, Some(seq));
            }
            Step::PostHook(_) | Step::Restart | Step::Keep | Step::CheckHealth => {
                let stands = at == Some(Phase::Switched);
                return stands.then_some(Admitted::Take).ok_or(Refusal::Order);
            }
            Step::Discard => match at {
                Some(Phase::Slot | Phase::Absent) => {
                    held.changes.remove(&plan.rollout);
                }
                // A crash may have come between the record and the slot.
                None if held.installed.map(|(release, _)| release) != Some(this.0) && !other => {}
                _ => return Err(Refusal::Order),
            },
            Step::CleanUp => match at {
                Some(Phase::Switched) => {
                    if held.installed.map(|(release, _)| release) != Some(this.0) {
                        held.previous = held.installed;
                    }
                    held.installed = Some(this);
                    held.changes.remove(&plan.rollout);
                    held.back = None;
                }
                None if held.installed == Some(this) && !other => {}
                _ => return Err(Refusal::Order),
            },
            Step::RollBack => match at {
                Some(Phase::Absent | Phase::Switched | Phase::Back) => {
                    go(&mut held, Phase::Back, None);
                }
                Some(Phase::Slot) => return Err(Refusal::Order),
                None if other => return Err(Refusal::Other),
                None if held.installed != Some(this) => {
                    let back = held.back == Some((plan.rollout.clone(), this.0));
                    return back.then_some(Admitted::Done).ok_or(Refusal::Order);
                }
                None => {
                    let taken = |recall: &&Verified<Recall>| {
                        recall.rollout == plan.rollout
                            && (recall.plan == plan.digest() || plan.created <= recall.created)
                    };
                    case.recall.filter(taken).ok_or(Refusal::NotRecalled)?;
                    go(&mut held, Phase::Back, None);
                    held.installed = held.previous.take();
                }
            },
        }
        self.record.products.insert(release.product.clone(), held);
        Ok(Admitted::Take)
    }

    /// The guard's own body took a step of this change, and this came of it.
    pub fn ended(&mut self, product: &SiteId, rollout: &RolloutId, step: &Step, end: &StepOutcome) {
        let Some(held) = self.record.products.get_mut(product) else {
            return;
        };
        let Some(change) = held.changes.get_mut(rollout) else {
            return;
        };
        match (step, end) {
            (Step::RollBack, StepOutcome::Done) if change.at == Phase::Back => {
                held.back = Some((rollout.clone(), change.release.0));
                held.changes.remove(rollout);
            }
            // Nothing was changed, as the release's own rules tell.
            (Step::Detect, StepOutcome::Absent) if change.at == Phase::Switched => {
                change.at = Phase::Absent;
            }
            (Step::Switch, StepOutcome::Failed(failure))
                if failure.class == FailureClass::InstallerBusy && change.at == Phase::Switched =>
            {
                change.at = Phase::Absent;
            }
            _ => {}
        }
    }

    /// The one release that stood there before this one, to which a step of this product may go back.
    pub fn before(&self, product: &SiteId, rollout: &RolloutId, release: Hash) -> Option<Hash> {
        let held = self.record.products.get(product)?;
        let committed = held.installed.map(|(installed, _)| installed) == Some(release);
        let before = match committed && !held.changes.contains_key(rollout) {
            true => held.previous,
            false => held.installed,
        };
        before.map(|(release, _)| release)
    }
}

fn fresh(wall: Time, case: Case<'_>) -> Result<(), Refusal> {
    let open = wall < case.plan.not_after && wall < case.release.expires;
    open.then_some(()).ok_or(Refusal::Expired)
}

fn not_older(held: &Held, counter: u64) -> Result<(), Refusal> {
    let highest = held.installed.map_or(0, |(_, counter)| counter);
    (counter >= highest).then_some(()).ok_or(Refusal::Older)
}

/// The number of the lease that opens the node's wave.
fn live(wall: Time, mine: u32, seen: Option<Seq>, case: Case<'_>) -> Result<Seq, Refusal> {
    let plan = case.plan;
    let floor = plan.waves.get(mine as usize).map(|wave| wave.not_before);
    let opens = |order: &&Verified<Order>| {
        matches!(&order.body, OrderBody::GoLease { rollout, plan: of, wave, not_after, .. }
            if *rollout == plan.rollout
                && *of == plan.digest()
                && mine <= *wave
                && wall < *not_after
                && Some(order.seq) >= seen
                && wall < order.issued + plan.lease_ttl + CLOCKS_DIFFER)
    };
    let opened = floor.is_some_and(|floor| wall >= floor);
    let lease = case.lease.filter(opens).filter(|_| opened);
    lease.map(|order| order.seq).ok_or(Refusal::Lease)
}

#[cfg(test)]
mod tests {
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
}
