//! `rollout lift`: operators together take a halt back. It is signed here.

use anyhow::{Context, bail};
use protocol::envelope::Envelope;
use protocol::lift::Lift;
use protocol::trust::Statement;
use protocol::{FleetId, RolloutId};

use super::args::rollout::RolloutLift;
use super::{output, rollout, setup, units};
use crate::api::messages::HaltInForce;

/// `tidegate rollout lift`
///
/// # Errors
/// When no halt is in force, or the coordinator refuses.
pub async fn run(ask: RolloutLift) -> anyhow::Result<()> {
    let client = setup::client(&ask.at.dir)?;
    let key = setup::load_signer(&ask.key.key)?;
    let fleet = rollout::fleet(&ask.at.dir)?;
    let id = ask.what.rollout;
    let halt = client.halt_in_force(id.as_ref()).await;
    let halt = halt.context("failed to lift")?;
    let (lift, mut envelope) = statement(fleet, id, halt, ask.reason)?;
    key.sign(&mut envelope).context("failed to lift")?;
    let progress = client.lift(&envelope).await.context("failed to lift")?;
    output::line(&format!("reason  {}", lift.reason))?;
    output::line(&format!(
        "lift signed: {} of {}",
        progress.have, progress.need
    ))
}

/// What waits for signatures, if it says what this operator means, or a new one.
fn statement(
    fleet: FleetId,
    rollout: Option<RolloutId>,
    halt: HaltInForce,
    reason: String,
) -> anyhow::Result<(Lift, Envelope)> {
    let Some(waiting) = halt.waiting else {
        let lift = Lift {
            spec_version: 1,
            fleet,
            rollout,
            halted: halt.halted,
            reason,
            created: units::wall_now(),
        };
        let envelope = lift.to_envelope();
        return Ok((lift, envelope));
    };
    let lift: Lift = serde_json::from_slice(&waiting.payload)
        .context("failed to lift: what waits is malformed")?;
    let same = (lift.fleet, &lift.rollout, lift.halted) == (fleet, &rollout, halt.halted);
    if !same || waiting.payload_type != Lift::PAYLOAD_TYPE {
        bail!("failed to lift: what waits for signatures is about another fleet, rollout or halt");
    }
    Ok((lift, waiting))
}
