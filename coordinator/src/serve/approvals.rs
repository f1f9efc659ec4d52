//! Collecting signatures: an operator sends an envelope with one signature more, and the ones that
//! count are kept together until the threshold is there. Whether a threshold is reached is what
//! [`Trust`] says; what follows is the conductor's.

use coordinator_core::contract::{Answer, Command, CommandError};
use protocol::envelope::Envelope;
use protocol::limits;
use protocol::plan::{Recall, RolloutPlan};
use protocol::trust::{Statement, Trust, TrustError};
use protocol::{PublicKey, RolloutId};
use tokio::sync::oneshot;

use super::desk::{Desk, DeskError, DeskHandle};
use crate::api::messages::Progress;

/// Why a signature is not taken. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// The desk.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// The conductor.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The statement itself.
    #[error("the statement is not accepted: {0}")]
    Trust(#[from] TrustError),
    /// The statement is about something else.
    #[error("the recall is for rollout {found}, not for {asked}")]
    OtherRollout {
        /// As signed.
        found: RolloutId,
        /// As asked for.
        asked: RolloutId,
    },
    /// Nobody new.
    #[error("no signature of an operator who may approve: {0}")]
    NoSigner(String),
    /// The disk.
    #[error("{0}")]
    Store(String),
}

pub(super) type Reply = oneshot::Sender<Result<Progress, ApprovalError>>;

/// An operator's signature on a plan.
///
/// # Errors
/// When the signature does not count or the conductor refuses.
pub async fn approve(
    desk: &DeskHandle,
    rollout: RolloutId,
    offered: Envelope,
) -> Result<Progress, ApprovalError> {
    desk.work(move |desk, reply| approve_at(desk, rollout, offered, reply))
        .await?
}

fn approve_at(desk: &mut Desk, rollout: RolloutId, offered: Envelope, reply: Reply) {
    match collect_plan(desk, &rollout, &offered) {
        Ok(commands) => run_all(desk, commands, reply),
        Err(error) => drop(reply.send(Err(error))),
    }
}

/// One command for each new signer, with the signatures up to theirs.
fn collect_plan(
    desk: &Desk,
    rollout: &RolloutId,
    offered: &Envelope,
) -> Result<(Vec<Command>, Progress), ApprovalError> {
    let conductor = &desk.parts.conductor;
    let plan = conductor
        .plan(rollout)
        .ok_or_else(|| CommandError::NoRollout(rollout.clone()))?;
    let unsigned = plan.to_envelope();
    let held = conductor
        .document(&unsigned.digest())
        .cloned()
        .unwrap_or(unsigned);
    if offered.digest() != held.digest() {
        let error = CommandError::OtherPlan {
            rollout: rollout.clone(),
            offered: offered.digest(),
            held: held.digest(),
        };
        return Err(error.into());
    }
    let trust = &desk.parts.trust;
    let (_, before, _) = trust.progress::<RolloutPlan>(&held)?;
    let mut collected = only(&held, &before);
    let mut commands = Vec::new();
    let (_, offered_by, need) = trust.progress::<RolloutPlan>(offered)?;
    if offered_by.is_empty() {
        return Err(ApprovalError::NoSigner(who_signed(
            offered,
            &plan.excluded(),
        )));
    }
    let mut have = before.len() as u32;
    for by in offered_by.into_iter().filter(|key| !before.contains(key)) {
        add(&mut collected, offered, by);
        have += 1;
        let complete = trust.verify::<RolloutPlan>(&collected).ok();
        let enough = complete.is_some();
        commands.push(Command::Approve {
            rollout: rollout.clone(),
            by,
            envelope: collected.clone(),
            progress: (have, need),
            complete,
        });
        if enough {
            break;
        }
    }
    Ok((commands, Progress { have, need }))
}

/// Runs the commands in order; the first refusal or the last answer is the reply.
fn run_all(desk: &mut Desk, (commands, progress): (Vec<Command>, Progress), reply: Reply) {
    let mut commands = commands.into_iter();
    let Some(first) = commands.next() else {
        // The same key twice counts once, and asking again is no mistake.
        let _ = reply.send(Ok(progress));
        return;
    };
    desk.command(first, move |desk, answer| match answer {
        Answer::Refused(error) => drop(reply.send(Err(error.into()))),
        Answer::Approvals(have, need) => {
            run_all(desk, (commands.collect(), Progress { have, need }), reply)
        }
        Answer::Done | Answer::Plan(_) => run_all(desk, (commands.collect(), progress), reply),
    });
}

/// An operator's signature on a recall. The one who asks for it signs first, and does not count.
///
/// # Errors
/// When the signature is no operator's or the conductor refuses.
pub async fn recall(
    desk: &DeskHandle,
    rollout: RolloutId,
    offered: Envelope,
) -> Result<Progress, ApprovalError> {
    desk.work(move |desk, reply| recall_at(desk, rollout, offered, reply))
        .await?
}

fn recall_at(desk: &mut Desk, rollout: RolloutId, offered: Envelope, reply: Reply) {
    let (collected, progress) = match collect_recall(desk, &rollout, &offered) {
        Ok(collected) => collected,
        Err(error) => return drop(reply.send(Err(error))),
    };
    match desk.parts.trust.verify::<Recall>(&collected) {
        Err(_) => drop(reply.send(Ok(progress))),
        Ok(recall) => desk.command(Command::Recall(recall), move |desk, answer| {
            let _ = reply.send(match answer {
                Answer::Refused(error) => Err(error.into()),
                _ => {
                    let done = desk.parts.store.set_waiting(rollout.as_str(), &[]);
                    done.map(|()| progress)
                        .map_err(|e| ApprovalError::Store(e.to_string()))
                }
            });
        }),
    }
}

fn collect_recall(
    desk: &Desk,
    rollout: &RolloutId,
    offered: &Envelope,
) -> Result<(Envelope, Progress), ApprovalError> {
    let store = |e: super::store::StoreError| ApprovalError::Store(e.to_string());
    let (recall, counted, need) = desk.parts.trust.progress::<Recall>(offered)?;
    if recall.rollout != *rollout {
        return Err(ApprovalError::OtherRollout {
            found: recall.rollout,
            asked: rollout.clone(),
        });
    }
    let plan = desk
        .parts
        .conductor
        .plan(rollout)
        .ok_or_else(|| CommandError::NoRollout(rollout.clone()))?;
    let held = plan.to_envelope().digest();
    if recall.plan != held {
        return Err(CommandError::OtherPlan {
            rollout: rollout.clone(),
            offered: recall.plan,
            held,
        }
        .into());
    }
    let proposed = offered.valid_signers().contains(&recall.proposer)
        && is_operator(&desk.parts.trust, recall.proposer);
    if counted.is_empty() && !proposed {
        return Err(ApprovalError::NoSigner(who_signed(offered, &[])));
    }
    let mut waiting = desk.parts.store.waiting(rollout.as_str()).map_err(store)?;
    let place = waiting
        .iter()
        .position(|held| held.digest() == offered.digest());
    let mut collected = place.map_or_else(|| only(offered, &[]), |place| waiting.remove(place));
    for key in counted
        .into_iter()
        .chain(proposed.then_some(recall.proposer))
    {
        add(&mut collected, offered, key);
    }
    let first = recall.proposer;
    if !collected.valid_signers().contains(&first) {
        return Err(TrustError::Proposer(first).into());
    }
    waiting.push(collected.clone());
    let surplus = waiting.len().saturating_sub(limits::RECALLS_WAITING_MAX);
    desk.parts
        .store
        .set_waiting(rollout.as_str(), &waiting[surplus..])
        .map_err(store)?;
    let have = desk.parts.trust.progress::<Recall>(&collected)?.1.len() as u32;
    Ok((collected, Progress { have, need }))
}

/// The envelope with the signatures of these keys only.
pub(super) fn only(envelope: &Envelope, keys: &[PublicKey]) -> Envelope {
    let mut bare = Envelope::unsigned(&envelope.payload_type, envelope.payload.clone());
    keys.iter().for_each(|key| add(&mut bare, envelope, *key));
    bare
}

/// Copies the valid signature of `key`, if the collection has none.
pub(super) fn add(collected: &mut Envelope, offered: &Envelope, key: PublicKey) {
    if collected.signatures.iter().any(|s| s.keyid == key) {
        return;
    }
    let candidates = offered.signatures.iter().filter(|s| s.keyid == key);
    let mut single = Envelope::unsigned(&offered.payload_type, offered.payload.clone());
    for signature in candidates {
        single.signatures = vec![signature.clone()];
        if single.valid_signers().contains(&key) {
            collected.signatures.push(signature.clone());
            return;
        }
    }
}

fn is_operator(trust: &Trust, key: PublicKey) -> bool {
    trust
        .root()
        .role(Recall::ROLE)
        .is_some_and(|role| role.keys.contains(&key))
}

pub(super) fn who_signed(envelope: &Envelope, excluded: &[PublicKey]) -> String {
    let valid = envelope.valid_signers();
    match valid.first() {
        None => "it carries no valid signature".to_owned(),
        Some(key) if valid.iter().all(|key| excluded.contains(key)) => {
            format!(
                "key {} proposed it, and the proposer never counts",
                key.short()
            )
        }
        Some(key) => format!("key {} is not an operator's", key.short()),
    }
}

/// The newest recall of a rollout that waits for signatures.
///
/// # Errors
/// When the disk fails.
pub fn pending_recall(
    store: &super::store::Store,
    rollout: &RolloutId,
) -> Result<Option<Envelope>, ApprovalError> {
    let waiting = store
        .waiting(rollout.as_str())
        .map_err(|e| ApprovalError::Store(e.to_string()))?;
    Ok(waiting.into_iter().next_back())
}

/// Whether the proposer of a statement signed it.
///
/// # Errors
/// When the statement is not acceptable or somebody else signed.
pub fn signed_by<T: Statement>(
    trust: &Trust,
    envelope: &Envelope,
    proposer: impl FnOnce(&T) -> PublicKey,
) -> Result<T, ApprovalError> {
    let (statement, _, _) = trust.progress::<T>(envelope)?;
    let key = proposer(&statement);
    if !is_operator(trust, key) {
        return Err(ApprovalError::NoSigner(format!(
            "key {} is not an operator's",
            key.short()
        )));
    }
    if !envelope.valid_signers().contains(&key) {
        return Err(ApprovalError::NoSigner(format!(
            "key {} proposes it but did not sign it",
            key.short()
        )));
    }
    Ok(statement)
}
