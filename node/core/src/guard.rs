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
#[path = "guard_tests.rs"]
mod tests;
