//! Taking certificates back: a few a day by whoever may, many by a statement of the operators.

use std::sync::Arc;

use coordinator_core::contract::{Answer, Command, CommandError};
use protocol::NodeId;
use protocol::envelope::Envelope;
use protocol::limits::REVOCATIONS_PER_DAY_MAX;
use protocol::revocation::MassRevocation;
use protocol::trust::TrustError;
use tokio::sync::oneshot;

use super::House;
use super::desk::{Desk, DeskError, Insight};
use crate::api::messages::RevocationDraft;

/// Why nothing was revoked. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(
        "more than {REVOCATIONS_PER_DAY_MAX} certificates within a day are the operators' to revoke: write a statement with `tidegate nodes revoke-many`"
    )]
    TooMany,
    #[error("the statement is not accepted: {0}")]
    Trust(#[from] TrustError),
    #[error(
        "certificates were given or taken back since the statement was written; write it anew with `tidegate nodes revoke-many`"
    )]
    Other,
    #[error(
        "they are revoked, but a certificate was given in the same moment, so nodes do not take the list yet; write a statement about no further nodes with `tidegate nodes revoke-many`"
    )]
    Overtaken,
}

type Reply = oneshot::Sender<Result<(), RevokeError>>;

/// Revokes a node, and what was enrolled as its copies: whoever had its key may have enrolled them.
///
/// # Errors
/// When it is not enrolled, or too many were revoked lately.
pub(crate) async fn revoke(
    house: &Arc<House>,
    node: NodeId,
    reason: String,
) -> Result<(), RevokeError> {
    let work = move |desk: &mut Desk, reply: Reply| {
        let mut nodes = vec![node];
        let certificates = &mut desk.parts.certificates;
        nodes.extend(certificates.copies_of(&node));
        let now = desk.parts.clock.now().wall;
        match certificates.may_revoke(&nodes, now) {
            true => revoke_all(desk, nodes, reason, reply),
            false => drop(reply.send(Err(RevokeError::TooMany))),
        }
    };
    house.desk.work(work).await?
}

/// The last one first; the first refusal is the reply. What was decided before is not yet in the ledger, so
/// all stand or fall in one commit.
fn revoke_all(desk: &mut Desk, mut nodes: Vec<NodeId>, reason: String, reply: Reply) {
    let Some(node) = nodes.pop() else {
        return drop(reply.send(Ok(())));
    };
    let command = Command::Revoke {
        node,
        reason: reason.clone(),
    };
    desk.command(command, move |desk, answer| match answer {
        Answer::Refused(error) => drop(reply.send(Err(error.into()))),
        _ => revoke_all(desk, nodes, reason, reply),
    });
}

/// What operators have to sign to revoke these nodes.
///
/// # Errors
/// When the desk does not answer.
pub(crate) async fn draft(
    house: &Arc<House>,
    nodes: Vec<NodeId>,
) -> Result<RevocationDraft, DeskError> {
    let look = move |i: &Insight<'_>| {
        let (nodes, certificates, list) = i.certificates.as_many(&nodes);
        RevocationDraft {
            nodes,
            certificates,
            list,
        }
    };
    house.desk.view(look).await
}

/// Revokes what the operators signed.
///
/// # Errors
/// When their threshold did not sign it, or the list is not as they knew it.
pub(crate) async fn revoke_many(house: &Arc<House>, offered: Envelope) -> Result<(), RevokeError> {
    let work = move |desk: &mut Desk, reply: Reply| {
        let statement = match desk.parts.trust.verify::<MassRevocation>(&offered) {
            Ok(statement) => statement,
            Err(e) => return drop(reply.send(Err(e.into()))),
        };
        if !desk.parts.certificates.fits(&statement) {
            return drop(reply.send(Err(RevokeError::Other)));
        }
        desk.command(Command::RevokeMany(statement), move |desk, answer| {
            let _ = reply.send(match answer {
                Answer::Refused(error) => Err(error.into()),
                _ if desk.parts.certificates.warrant_holds() => Ok(()),
                _ => Err(RevokeError::Overtaken),
            });
        });
    };
    house.desk.work(work).await?
}
