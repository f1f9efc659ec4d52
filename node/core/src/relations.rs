//! What releases say of each other, as it stands on this node: what must come first, what need not come any
//! more, what may not come at all.
//!
//! A rollout is *in force* here while the newest bulletin names it, it is not recalled, it has something
//! for this machine, and it did not fail here. In this order:
//! 1. a release whose plan does not name, in its signed closure, a release for each of its dependencies is
//!    refused, with whatever is asked for its sake;
//! 2. one that something installed here or in force here supersedes is not installed, unless it is a barrier
//!    on the way there;
//! 3. a barrier between what is installed and the release goes first;
//! 4. what it depends on goes first, and what is installed must still have what it depends on;
//! 5. what conflicts with it must be gone;
//! 6. infrastructure whose wave has opened here goes first, except of an emergency.
//!
//! 3 to 6 are waits: they stand behind the orders and before the hours of [`crate::precedence`].

use protocol::manifest::{ReleaseManifest, release_name};
use protocol::plan::{Priority, RolloutPlan};
use protocol::relations::{Pick, Requirement};
use protocol::status::{State, WaitingFor};
use protocol::{RolloutId, Verified};

use crate::precedence::Wait;
use crate::task::{Rooms, Task};

/// Another rollout in force on this node.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    pub(crate) rollout: RolloutId,
    pub(crate) plan: Verified<RolloutPlan>,
    pub(crate) release: Verified<ReleaseManifest>,
    /// What the node said last of it.
    pub(crate) state: Option<State>,
    /// Its wave has opened here and nothing halts it.
    pub(crate) open: bool,
}

/// Why a release is not installed here at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Never {
    /// Its dependencies do not stand in the plan.
    Refused(String),
    /// Something newer takes its place.
    Superseded(String),
}

/// Whether what a node said of a rollout leaves it in force.
pub(crate) fn in_force(state: Option<State>) -> bool {
    use State as S;
    !matches!(
        state,
        Some(
            S::Failed
                | S::RollingBack
                | S::RolledBack
                | S::RollbackFailed
                | S::NotApplicable
                | S::Exempt
                | S::Cancelled
        )
    )
}

/// Whether a task is not to be done on this node, as far as other releases tell.
pub(crate) fn never(task: &Task, rooms: &Rooms<'_>) -> Option<Never> {
    if let Some(why) = outside(task, rooms) {
        return Some(Never::Refused(format!("dependency: {why}")));
    }
    let me = &task.release;
    let by_installed = standing(rooms).find(|m| supersedes(m, me));
    if let Some(newer) = by_installed {
        let why = format!("{} is installed here and supersedes it", name(newer));
        return Some(Never::Superseded(why));
    }
    let others = others(task, rooms).filter(|other| supersedes(&other.release, me));
    let mut others = others.filter(|other| !is_step(task, &other.release, rooms));
    let newer = others.next()?;
    Some(Never::Superseded(format!(
        "{} supersedes it and is approved for this node ({})",
        name(&newer.release),
        newer.rollout
    )))
}

/// What must come before a task on this node.
pub(crate) fn first(task: &Task, rooms: &Rooms<'_>) -> Result<(), Wait> {
    barrier(task, rooms)?;
    dependency(task, rooms)?;
    conflict(task, rooms)?;
    infrastructure(task, rooms)
}

/// Why the signed closure does not hold what it must.
fn outside(task: &Task, rooms: &Rooms<'_>) -> Option<String> {
    let closure = &task.plan.closure;
    let lacks = |release: &ReleaseManifest| {
        let lacking = closure.lacks(&release.relations.depends_on)?;
        Some(format!(
            "{} needs {lacking}, for which the plan names no release",
            name(release)
        ))
    };
    if let Some(why) = lacks(&task.release) {
        return Some(why);
    }
    closure.requires.iter().find_map(|pick| {
        let held = rooms.library.release(&pick.release)?;
        let named = (&pick.product, &pick.version) == (&held.product, &held.version);
        match named {
            true => lacks(held),
            false => Some(format!(
                "what the plan calls {} is {}",
                pick.name(),
                name(held)
            )),
        }
    })
}

fn supersedes(newer: &ReleaseManifest, older: &ReleaseManifest) -> bool {
    let says = |one: &ReleaseManifest, other: &ReleaseManifest| {
        one.relations.supersedes.iter().any(|r| r.fits(other))
    };
    let later = newer.release_counter > older.release_counter;
    let of_one_product = newer.product == older.product;
    // Of two that say it of each other, and of releases of one product, the later one counts.
    says(newer, older) && (later || !of_one_product && !says(older, newer))
}

/// Whether the task's release is a stepping stone from what is installed to `newer`.
fn is_step(task: &Task, newer: &ReleaseManifest, rooms: &Rooms<'_>) -> bool {
    let me = &task.release;
    let runs = installed(me, rooms).map(|held| held.release_counter);
    me.relations.barrier.is_some()
        && me.product == newer.product
        && runs.is_some_and(|counter| counter < me.release_counter)
}

fn barrier(task: &Task, rooms: &Rooms<'_>) -> Result<(), Wait> {
    let Some(step) = next_step(&task.plan, &task.release, rooms) else {
        return Ok(());
    };
    let brings = |other: &Other| other.release.digest() == step.release;
    let reason = rooms.library.release(&step.release);
    let reason = reason.and_then(|release| release.relations.barrier.as_deref());
    let reason = reason.map_or_else(String::new, |why| format!(" ({why})"));
    let what = format!("{} is a barrier{reason} and goes first", step.name());
    wait(WaitingFor::Barrier, what, task, rooms, brings)
}

fn dependency(task: &Task, rooms: &Rooms<'_>) -> Result<(), Wait> {
    let me: &ReleaseManifest = &task.release;
    if let Some(need) = unmet(me, rooms) {
        let what = format!("it needs {need}, and {}", instead(&need.product, rooms));
        let brings = |other: &Other| need.fits(&other.release);
        return wait(WaitingFor::Dependency, what, task, rooms, brings);
    }
    let Some((held, need)) = broken(me, rooms) else {
        return Ok(());
    };
    let what = format!("{}, which is installed here, needs {need}", name(held));
    let instead = |other: &Other| {
        other.release.product == held.product && needed(me, &other.release).is_none()
    };
    wait(WaitingFor::Dependency, what, task, rooms, instead)
}

fn conflict(task: &Task, rooms: &Rooms<'_>) -> Result<(), Wait> {
    let me: &ReleaseManifest = &task.release;
    let Some(foe) = foe(me, rooms) else {
        return Ok(());
    };
    let what = format!("it conflicts with {}, which is installed here", name(foe));
    let instead = |other: &Other| other.release.product == foe.product && !foes(me, &other.release);
    wait(WaitingFor::Dependency, what, task, rooms, instead)
}

fn infrastructure(task: &Task, rooms: &Rooms<'_>) -> Result<(), Wait> {
    if task.release.relations.infrastructure || task.plan.priority == Priority::Emergency {
        return Ok(());
    }
    // One that waits for other releases itself holds up nobody.
    let ready = |other: &&Other| {
        let release: &ReleaseManifest = &other.release;
        other.open
            && next_step(&other.plan, release, rooms).is_none()
            && unmet(release, rooms).is_none()
            && broken(release, rooms).is_none()
            && foe(release, rooms).is_none()
    };
    let open = |other: &&Other| !other.state.is_some_and(State::ended);
    let Some(other) = others(task, rooms).filter(open).find(ready) else {
        return Ok(());
    };
    let what = format!("{} is infrastructure and goes first", name(&other.release));
    wait(WaitingFor::Dependency, what, task, rooms, |one| {
        one.rollout == other.rollout
    })
}

/// The barrier that comes next between what is installed and a release.
fn next_step<'a>(
    plan: &'a RolloutPlan,
    release: &ReleaseManifest,
    rooms: &Rooms<'_>,
) -> Option<&'a Pick> {
    let runs = installed(release, rooms)?.release_counter;
    let mut barriers = plan.closure.barriers.iter();
    barriers.find(|b| runs < b.counter && b.counter < release.release_counter)
}

/// What a release depends on and is not installed.
fn unmet<'a>(release: &'a ReleaseManifest, rooms: &Rooms<'_>) -> Option<&'a Requirement> {
    let met = |need: &Requirement| standing(rooms).any(|held| need.fits(held));
    let mut needs = release.relations.depends_on.iter();
    needs.find(|need| !met(need))
}

/// What is installed and would lack what it depends on, and that.
fn broken<'a>(
    release: &ReleaseManifest,
    rooms: &'a Rooms<'_>,
) -> Option<(&'a ReleaseManifest, &'a Requirement)> {
    standing(rooms).find_map(|held| Some((held, needed(release, held)?)))
}

fn needed<'a>(release: &ReleaseManifest, held: &'a ReleaseManifest) -> Option<&'a Requirement> {
    let mut needs = held.relations.depends_on.iter();
    let broken = |need: &&Requirement| need.product == release.product && !need.fits(release);
    needs.find(|need| held.product != release.product && broken(need))
}

/// What is installed and conflicts with a release.
fn foe<'a>(release: &ReleaseManifest, rooms: &'a Rooms<'_>) -> Option<&'a ReleaseManifest> {
    standing(rooms).find(|held| foes(release, held))
}

fn foes(one: &ReleaseManifest, other: &ReleaseManifest) -> bool {
    let says = |one: &ReleaseManifest, other: &ReleaseManifest| {
        one.relations.conflicts.iter().any(|r| r.fits(other))
    };
    one.product != other.product && (says(one, other) || says(other, one))
}

/// A wait for something that another rollout may bring.
fn wait(
    on: WaitingFor,
    what: String,
    task: &Task,
    rooms: &Rooms<'_>,
    brings: impl Fn(&Other) -> bool,
) -> Result<(), Wait> {
    let how = match others(task, rooms).find(|other| brings(other)) {
        None => "no rollout brings that to this node".to_owned(),
        Some(other) => match other.state {
            Some(State::Installing | State::Verifying) => {
                format!("{} is installing it", other.rollout)
            }
            _ => format!("{} brings it", other.rollout),
        },
    };
    Err(Wait {
        on: State::Waiting(on),
        why: format!("{what}; {how}"),
        until: None,
    })
}

fn instead(product: &protocol::SiteId, rooms: &Rooms<'_>) -> String {
    match standing(rooms).find(|held| held.product == *product) {
        Some(held) => format!("{} is installed", name(held)),
        None => format!("no {product} is installed"),
    }
}

/// Every release that is installed here.
fn standing<'a>(rooms: &'a Rooms<'_>) -> impl Iterator<Item = &'a ReleaseManifest> {
    let current = rooms.installed.current();
    current.filter_map(|digest| rooms.library.release(&digest).map(|release| &**release))
}

/// What is installed of a release's product.
fn installed<'a>(of: &ReleaseManifest, rooms: &'a Rooms<'_>) -> Option<&'a ReleaseManifest> {
    let digest = rooms.installed.release(&of.product)?;
    rooms.library.release(&digest).map(|release| &**release)
}

fn others<'a>(task: &'a Task, rooms: &'a Rooms<'_>) -> impl Iterator<Item = &'a Other> {
    let others = rooms.others.iter();
    others.filter(move |other| other.rollout != *task.rollout())
}

fn name(release: &ReleaseManifest) -> String {
    release_name(&release.product, &release.version)
}
