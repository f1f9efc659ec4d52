//! How the conductor's events stand in the ledger.

use coordinator_core::contract::LedgerEvent;
use protocol::audit::AuditEntry;
use protocol::{FleetId, Time};

use super::{Draft, Fault};

const COORDINATOR: &str = "coordinator";

/// The first entry of every ledger: it names the fleet.
pub fn first(fleet: FleetId, epoch: u32, time: Time) -> Draft {
    Draft {
        object: fleet.to_string(),
        ..draft(&LedgerEvent::Epoch { epoch }, time)
    }
}

/// An event as it is appended. Actor, action and object are for people who read the ledger; all that
/// counts is in the body.
pub fn draft(event: &LedgerEvent, time: Time) -> Draft {
    let (actor, action, object) = describe(event);
    let body = serde_json::to_vec(event).expect("an event is plain data");
    Draft {
        time,
        actor,
        action: action.to_owned(),
        object,
        body,
    }
}

/// The event of an entry.
///
/// # Errors
/// When the body is none that this program knows.
pub fn event(entry: &AuditEntry) -> Result<LedgerEvent, Fault> {
    serde_json::from_slice(&entry.body)
        .map_err(|e| Fault::Malformed(format!("its event is not understood: {e}")))
}

fn describe(event: &LedgerEvent) -> (String, &'static str, String) {
    let signers = |envelope: &protocol::envelope::Envelope| {
        let keys: Vec<String> = envelope
            .signatures
            .iter()
            .map(|s| s.keyid.to_string())
            .collect();
        keys.join(" ")
    };
    let me = || COORDINATOR.to_owned();
    match event {
        LedgerEvent::Epoch { epoch } => (me(), "epoch", epoch.to_string()),
        LedgerEvent::Restored { why, .. } => ("operator".into(), "restored", why.clone()),
        LedgerEvent::Regained { plan } => (signers(plan), "regained", plan.digest().to_string()),
        LedgerEvent::Barred { serials, .. } => (me(), "barred", serials.len().to_string()),
        LedgerEvent::Enrolled(e) => (format!("token {}", e.token), "enroll", e.node.to_string()),
        LedgerEvent::Admitted { node, by, .. } => (by.clone(), "admit", node.to_string()),
        LedgerEvent::TokenMade(token) => (token.by.clone(), "token", token.id.clone()),
        LedgerEvent::Renewed { node, .. } => (node.to_string(), "renew", node.to_string()),
        LedgerEvent::Revoked { node, .. } => ("operator".into(), "revoke", node.to_string()),
        LedgerEvent::Warranted { envelope } => (
            signers(envelope),
            "revoke_many",
            envelope.digest().to_string(),
        ),
        LedgerEvent::Moved { node, .. } => (me(), "move", node.to_string()),
        LedgerEvent::Inventory { envelope } => (
            signers(envelope),
            "inventory",
            envelope.digest().to_string(),
        ),
        LedgerEvent::Rooted { envelope } => {
            (signers(envelope), "root", envelope.digest().to_string())
        }
        LedgerEvent::Topology { envelope } => {
            (signers(envelope), "topology", envelope.digest().to_string())
        }
        LedgerEvent::Released { envelope } => {
            (signers(envelope), "release", envelope.digest().to_string())
        }
        LedgerEvent::Proposed { proposal, plan } => {
            (signers(proposal), "propose", plan.rollout.to_string())
        }
        LedgerEvent::Approved { rollout, by, .. } => {
            (by.to_string(), "approve", rollout.to_string())
        }
        LedgerEvent::State { rollout, .. } => (me(), "state", rollout.to_string()),
        LedgerEvent::Targets { rollout, .. } => (me(), "targets", rollout.to_string()),
        LedgerEvent::Enlisted { rollout, .. } => (me(), "enlisted", rollout.to_string()),
        LedgerEvent::WaveOpened { rollout, wave, .. } => {
            (me(), "wave", format!("{rollout} {wave}"))
        }
        LedgerEvent::Dawned { rollout, day } => (me(), "day", format!("{rollout} {day}")),
        LedgerEvent::Verdict { rollout, wave, .. } => {
            (me(), "verdict", format!("{rollout} {wave}"))
        }
        LedgerEvent::Order(order) => (me(), "order", order.seq.to_string()),
        LedgerEvent::Recalled { envelope } => {
            (signers(envelope), "recall", envelope.digest().to_string())
        }
        LedgerEvent::Statuses { statuses, .. } => {
            ("nodes".into(), "statuses", statuses.len().to_string())
        }
        LedgerEvent::Witnessed { rollout, .. } => (me(), "witnessed", rollout.to_string()),
        LedgerEvent::Silent { rollout, .. } => (me(), "silent", rollout.to_string()),
        LedgerEvent::Cleared { rollout, .. } => (me(), "cleared", rollout.to_string()),
        LedgerEvent::CohortHeld {
            rollout, cohort, ..
        } => (me(), "cohort_held", format!("{rollout} {cohort}")),
        LedgerEvent::CohortReleased {
            rollout, cohort, ..
        } => {
            let object = format!("{rollout} {cohort}");
            ("operator".into(), "cohort_released", object)
        }
        LedgerEvent::HaltedAll { .. } => ("operator".into(), "halt_all", String::new()),
        LedgerEvent::Lifted { envelope } => {
            (signers(envelope), "lift", envelope.digest().to_string())
        }
        LedgerEvent::Assessing { release, .. } => {
            ("operator".into(), "assess", release.to_string())
        }
        LedgerEvent::InstalledByHand(note) => {
            let object = format!("{} {}", note.node, note.release);
            (note.noted_by.clone(), "installed_by_hand", object)
        }
        LedgerEvent::Problem { rollout, node, .. } => {
            ("operator".into(), "problem", format!("{rollout} {node}"))
        }
    }
}
