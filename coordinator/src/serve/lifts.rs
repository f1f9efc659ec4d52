//! Collecting signatures that lift an operator's halt, until the `plans` threshold is there.

use coordinator_core::contract::{Answer, Command, CommandError};
use protocol::RolloutId;
use protocol::envelope::Envelope;
use protocol::lift::Lift;
use protocol::limits::LIFTS_WAITING_MAX;

use super::approvals::{ApprovalError, Reply, add, only, who_signed};
use super::desk::{Desk, DeskHandle};
use super::store::{StoreError, lift_subject};
use crate::api::messages::{HaltInForce, Progress};

/// An operator's signature on a lift.
///
/// # Errors
/// When the signature is no operator's, or the halt is not in force.
pub async fn lift(desk: &DeskHandle, offered: Envelope) -> Result<Progress, ApprovalError> {
    desk.work(move |desk, reply| lift_at(desk, &offered, reply))
        .await?
}

fn lift_at(desk: &mut Desk, offered: &Envelope, reply: Reply) {
    let (collected, subject, progress) = match collect(desk, offered) {
        Ok(collected) => collected,
        Err(error) => return drop(reply.send(Err(error))),
    };
    match desk.parts.trust.verify::<Lift>(&collected) {
        Err(_) => drop(reply.send(Ok(progress))),
        Ok(lift) => desk.command(Command::Lift(lift), move |desk, answer| {
            let _ = reply.send(match answer {
                Answer::Refused(error) => Err(error.into()),
                _ => {
                    let done = desk.parts.store.set_waiting(&subject, &[]);
                    done.map(|()| progress).map_err(store)
                }
            });
        }),
    }
}

fn collect(desk: &Desk, offered: &Envelope) -> Result<(Envelope, String, Progress), ApprovalError> {
    let parts = &desk.parts;
    let (lift, counted, need) = parts.trust.progress::<Lift>(offered)?;
    if counted.is_empty() {
        return Err(ApprovalError::NoSigner(who_signed(offered, &[])));
    }
    if parts.conductor.halted(lift.rollout.as_ref())? != lift.halted {
        return Err(CommandError::OtherHalt.into());
    }
    let subject = lift_subject(lift.rollout.as_ref());
    let mut waiting = parts.store.waiting(&subject).map_err(store)?;
    let same = |held: &Envelope| held.digest() == offered.digest();
    let mut collected = match waiting.iter().position(same) {
        Some(place) => waiting.remove(place),
        None => only(offered, &[]),
    };
    for key in counted {
        add(&mut collected, offered, key);
    }
    waiting.push(collected.clone());
    let surplus = waiting.len().saturating_sub(LIFTS_WAITING_MAX);
    let kept = &waiting[surplus..];
    parts.store.set_waiting(&subject, kept).map_err(store)?;
    let have = parts.trust.progress::<Lift>(&collected)?.1.len() as u32;
    Ok((collected, subject, Progress { have, need }))
}

/// The halt in force, and the newest statement that would lift it and waits for signatures.
///
/// # Errors
/// When none is in force, or the disk fails.
pub async fn halt_in_force(
    desk: &DeskHandle,
    rollout: Option<RolloutId>,
) -> Result<HaltInForce, ApprovalError> {
    let look = move |desk: &mut Desk, reply: tokio::sync::oneshot::Sender<_>| {
        let _ = reply.send(look_up(desk, rollout.as_ref()));
    };
    desk.work(look).await?
}

fn look_up(desk: &Desk, rollout: Option<&RolloutId>) -> Result<HaltInForce, ApprovalError> {
    let halted = desk.parts.conductor.halted(rollout)?;
    let waiting = desk.parts.store.waiting(&lift_subject(rollout));
    let lifts = |envelope: &Envelope| {
        let lift: Option<Lift> = serde_json::from_slice(&envelope.payload).ok();
        lift.is_some_and(|lift| lift.halted == halted)
    };
    Ok(HaltInForce {
        halted,
        waiting: waiting.map_err(store)?.into_iter().rfind(lifts),
    })
}

fn store(e: StoreError) -> ApprovalError {
    ApprovalError::Store(e.to_string())
}
